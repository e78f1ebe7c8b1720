"""New rows beside those of a run, for the page of ``jaxcluster predict --report``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.cli.errors import UserError

if TYPE_CHECKING:
    from jaxcluster.cli.run import SavedRun
    from jaxcluster.datasets import Dataset


def check_page(path: Path, saved: SavedRun) -> None:
    """Refuse another ending than that of a page, and a model without a run."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {path} is written as HTML. Let its name end in .html.")
    if not saved.config:
        raise UserError("--report compares with the rows of a run, and a model alone has none: name a folder of fit.")


def drift_text(config: Mapping[str, Any], estimator: Any, rows: Dataset, labels: np.ndarray) -> str:
    """The page on new rows as HTML.

    Args:
        config: of the run, whose rows are read again.
        estimator: fitted, as it was saved: it takes rows in the units of the data.
        rows: new rows, in these units.
        labels: (n_samples,) their clusters.

    Raises:
        UserError: rows of the run that are not where they were, or have changed.
    """
    from jaxcluster.cli.fit_pipeline import reading_options
    from jaxcluster.cli.report import rows_of_run
    from jaxcluster.report.drift import drift_of
    from jaxcluster.report.drift_page import NewRows, drift_page

    fitted = rows_of_run(dict(config), **reading_options(estimator)).dataset
    old, dates = readable(fitted)
    new, _ = readable(rows)
    new = dict(zip(old, new.values(), strict=True))  # in the order of the run; columns of an array have no names
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")  # the readers have looked
        far, what = far_share(estimator, fitted, rows, labels)
    shown = NewRows(
        rows.name, type(estimator).__name__, estimator.labels_, labels, drift_of(old, new), dates, far, what
    )
    return drift_page(shown)


def readable(dataset: Dataset) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    """Columns of rows as a person reads them.

    Returns:
        By name float64 numbers, or text as objects; and names of the numbers that are dates, as days since 1970-01-01.
    """
    from jaxcluster.report.profiles import readable_columns

    if dataset.cells is not None:
        table = {name: np.array(dataset.cells.column(name).to_pylist()) for name in dataset.cells.column_names}
    elif dataset.encoding is not None:
        table = dataset.encoding.decode(dataset.x)
    else:
        names = dataset.columns or [f"column {j}" for j in range(dataset.x.shape[1])]
        unique = len(set(names)) == len(names)
        names = names if unique else [f"{name} ({j})" for j, name in enumerate(names)]
        table = dict(zip(map(str, names), np.asarray(dataset.x, np.float64).T, strict=True))
    columns = readable_columns(None, table)
    both = {**columns.numbers, **columns.words}
    return {str(name): both[name] for name in table}, columns.dates | frozenset(dataset.dates)


def far_share(estimator: Any, fitted: Dataset, rows: Dataset, labels: np.ndarray) -> tuple[float | None, str]:
    """Share of the new rows that are farther from every center, or less dense, than almost all rows of the run.

    Returns:
        The share, None for a method with neither centers nor densities; and what was compared.
    """
    from jaxcluster.cli.row_columns import distances, has_distances
    from jaxcluster.report.drift import far_bound

    if has_distances(estimator):
        old = distances(estimator, fitted.samples, estimator.labels_)
        return float(np.mean(distances(estimator, rows.samples, labels) > far_bound(old))), "distance to the center"
    if estimator.info.family == "mixture":
        old = -np.asarray(estimator.score_samples(fitted.samples))
        new = -np.asarray(estimator.score_samples(rows.samples))
        return float(np.mean(new > far_bound(old))), "negative log-density"
    return None, ""

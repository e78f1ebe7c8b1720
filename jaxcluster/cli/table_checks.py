"""Checks of rows: warnings where clusters will say little, and what methods take of sparse rows and texts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from jaxcluster.cli.console import complain
from jaxcluster.cli.errors import UserError
from jaxcluster.datasets.scaling import SPARSE_SCALINGS

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.cli.inputs import Rows, Source
    from jaxcluster.datasets import Dataset
    from jaxcluster.datasets.texts import TextVectorizer
    from jaxcluster.estimators import EstimatorInfo

DOMINANT_SHARE = 0.95
"""Share of the variance of all columns from which one column decides the distances alone."""

REPEATED_SHARE, MOST_COMPARED_ROWS = 0.05, 200_000
"""Share of rows that repeat another from which this is said, and rows up to which they are compared."""

FEW_ROWS = 5
"""Rows a cluster below which clusters follow single rows."""

FREE_OF_UNITS = ("canberra", "correlation", "hamming", "haversine", "jaccard", "precomputed")
"""Metrics that do not depend on the unit of a column, or have no columns."""

MOST_NAMES = 8

FEWEST_COUNTED = 10
"""Rows from which a column of 1, 2, 3, ... is taken for their numbers."""


def check_columns(rows: Rows, k: int | None, *, info: EstimatorInfo, metric: Any = None) -> None:
    """Print the warnings of `table_warnings`, whose arguments it takes."""
    for warning in table_warnings(rows, k, info=info, metric=metric):
        complain("Warning", warning, "yellow")


def table_warnings(rows: Rows, k: int | None, *, info: EstimatorInfo, metric: Any = None) -> list[str]:
    """A warning, with its remedy, for each thing about the rows that makes clusters say little.

    Args:
        rows: to cluster.
        k: number of clusters, the greatest of a sweep; None where the method finds it.
        info: of the method.
        metric: of the fit.
    """
    if rows.cells is not None:
        return []  # distances of categories have no variance
    if rows.is_sparse:
        return few_rows(rows.n, k)  # columns of sparse rows are in one unit, and most are rare
    # Mixtures and networks fit the unit of each column, or have a scaling of their own.
    units = rows.scaling.how == "none" and info.family not in ("mixture", "deep") and metric not in FREE_OF_UNITS
    return column_warnings(rows, k, units=units and rows.dataset.image_shape is None)


def column_warnings(rows: Rows, k: int | None, *, units: bool) -> list[str]:
    """The warnings of `table_warnings`; ``units`` is true where those of the columns matter."""
    import numpy as np

    warnings, x = [], rows.x
    low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
    varies = low < high
    # In units of the greatest range: squares of large or small numbers would over- or underflow.
    width = np.max(np.where(varies, high - low, 0))
    sample = x[:: max(1, len(x) // MOST_COMPARED_ROWS)]
    variance = np.where(varies, np.nanvar((sample - low) / (width or 1), axis=0), 0)
    counting = [] if rows.dataset.image_shape else _counting_columns(rows.dataset.x)
    if counting:
        warnings.append(
            f"column {_title(rows, counting[0])} numbers the rows one by one, and is clustered like any other. Name it "
            "by --id, or leave it out (--drop)."
        )
    elif units and varies.sum() > 1 and variance.max() > DOMINANT_SHARE * variance.sum():
        name, share = _title(rows, int(variance.argmax())), np.floor(1000 * variance.max() / variance.sum()) / 1000
        warnings.append(
            f"column {name} holds {share:.1%} of the variance of all columns, and decides the clusters alone. Pass "
            "--scale standard where columns have different units."
        )
    constant = [] if rows.dataset.image_shape else np.flatnonzero(~varies).tolist()
    if constant and len(constant) < rows.x.shape[1]:
        names = ", ".join(_title(rows, j) for j in constant[:MOST_NAMES]) + " …" * (len(constant) > MOST_NAMES)
        plural = "s" * (len(constant) > 1)
        warnings.append(
            f"column{plural} {names} {'are constant and tell' if plural else 'is constant and tells'} no rows apart "
            "(--drop)."
        )
    repeated = _repeated(rows.x)
    if repeated > REPEATED_SHARE * rows.n:
        warnings.append(
            f"{repeated:,} of {rows.n:,} rows repeat another one. Leave copies out, or give each row once with "
            "its count as a weight (--weights)."
        )
    return warnings + few_rows(rows.n, k)


def few_rows(n: int, k: int | None) -> list[str]:
    """A warning if ``k`` clusters of ``n`` rows have few rows each."""
    if k is None or k == 1 or n >= FEW_ROWS * k:
        return []
    return [f"{n:,} rows in {k:,} clusters are {n / k:.1f} in each: clusters follow single rows. Take a smaller --k."]


def _counting_columns(x: np.ndarray) -> list[int]:
    """Columns beside others whose value rises by 1 from each row to the next: an index that was saved with a table."""
    if x.shape[1] < 2 or len(x) < FEWEST_COUNTED:
        return []
    likely = np.flatnonzero((x[1] - x[0] == 1) & (x[-1] - x[0] == len(x) - 1))
    return [int(j) for j in likely if (np.diff(x[:, j]) == 1).all()]


def _title(rows: Rows, column: int) -> str:
    columns = rows.dataset.columns
    return str(column) if columns is None else repr(columns[column])


def _repeated(x: np.ndarray) -> int:
    """Number of rows that repeat an earlier one; 0 for more rows than are compared."""
    return 0 if len(x) > MOST_COMPARED_ROWS else len(x) - len({hash(row.tobytes()) for row in x})


OPTION_NAMES = {"covariance_type": "covariance"}
"""Options whose names are other than those of the parameters that they stand for."""


def vectorizer_of(source: Source) -> TextVectorizer | None:
    """Options of the term weights of texts; None where there are no texts.

    Raises:
        UserError: such options for other rows.
    """
    from pathlib import Path

    from jaxcluster.datasets.texts import TextVectorizer, holds_texts

    if source.text is not None or holds_texts(Path(source.data)):
        return TextVectorizer(source.stop_words, source.max_terms)
    given = next((name for name in ("stop_words", "max_terms") if getattr(source, name) is not None), None)
    if given is not None:
        raise UserError(f"--{given.replace('_', '-')} is for texts: name their column (--text), or a folder of them.")
    return None


def check_scaling(dataset: Dataset, how: str, impute: str | None) -> None:
    """Raise UserError for a scaling or an imputation that would make sparse rows dense."""
    if not scipy.sparse.issparse(dataset.x):
        return
    if how not in SPARSE_SCALINGS:
        raise UserError(
            f"--scale {how} would make the sparse rows of {dataset.name} dense: pass --scale l2, or leave it out."
        )
    if impute is not None:
        raise UserError(f"--impute has no effect on {dataset.name}: an absent entry of sparse rows is 0. Leave it out.")


def check_sparse(info: EstimatorInfo, parameters: dict[str, Any], dataset: Dataset) -> None:
    """Raise UserError for sparse rows in a method that takes dense ones, or takes them with other options.

    Args:
        info: of the method.
        parameters: of the estimator.
        dataset: the rows.
    """
    if not scipy.sparse.issparse(dataset.x):
        return
    from jaxcluster.estimators import CLASSES

    if not info.takes_sparse:
        others = ", ".join(name for name, entry in CLASSES.items() if entry.sparse and entry.labels)
        raise UserError(
            f"{info.name} takes dense rows, and those of {dataset.name} are sparse. Methods for them: {others}."
        )
    for name, values in info.needs.get("sparse", {}).items():
        if parameters.get(name) not in values:
            option = str(OPTION_NAMES.get(name, name)).replace("_", "-")
            raise UserError(
                f"{info.name} takes the sparse rows of {dataset.name} with --{option} {' or '.join(map(str, values))}."
            )


def check_observed(dataset: Dataset) -> None:
    """Raise UserError for columns of which every cell is missing, by name."""
    empty = np.flatnonzero(np.isnan(dataset.x).all(axis=0)).tolist() if dataset.x.dtype.kind == "f" else []
    if empty:
        names = ", ".join(str(j) if dataset.columns is None else repr(dataset.columns[j]) for j in empty[:MOST_NAMES])
        plural = "s" * (len(empty) > 1)
        raise UserError(f"{dataset.name} has no cell in column{plural} {names} that is not missing (--drop).")


def digest_of(x: Any) -> Any:
    """SHA-256 of rows, dense or sparse, to which more may be added."""
    if not scipy.sparse.issparse(x):
        return hashlib.sha256(np.ascontiguousarray(x).data)
    digest = hashlib.sha256(repr(x.shape).encode())
    for part, dtype in ((x.indptr, np.int64), (x.indices, np.int64), (x.data, x.dtype)):
        digest.update(np.ascontiguousarray(part, dtype).data)
    return digest


def has_missing(x: Any) -> bool:
    """True if cells of the rows are missing; sparse rows have none."""
    return not scipy.sparse.issparse(x) and bool(np.isnan(x).any())

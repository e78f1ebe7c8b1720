"""From what a user wrote to rows that are ready to cluster, and to rows that a finished run can label."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.datasets import Dataset, Scaling

TABLE_ENDINGS = (".csv", ".tsv", ".parquet")

LAYOUT = ("header", "delimiter", "decimal", "encoding")
"""Arguments of `Source` that tell the layout of a text table."""


class Source(NamedTuple):
    """Where rows come from, word for word; the last four tell the layout of a text table, as `datasets.Format`."""

    data: str
    key: str | None = None
    columns: str | None = None
    truth: str | None = None
    weights: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    @property
    def layout(self) -> dict[str, Any]:
        """The options of `jaxcluster.datasets.load` that tell the layout of a text table."""
        return {name: getattr(self, name) for name in LAYOUT}


class Rows(NamedTuple):
    """Rows to cluster.

    Attributes:
        dataset: as read, in the data's own units.
        x: (n, d) float32 or float64, scaled.
        scaling: what was done to get ``x``.
        weights: (n,), or None for 1 each.
    """

    dataset: Dataset
    x: np.ndarray
    scaling: Scaling
    weights: np.ndarray | None


def read(source: Source, how: str, *, missing: bool | None = None, metric: str | None = None) -> Rows:
    """The rows of ``source``, scaled. Raises DataError, and ValueError for rows or weights that cannot be clustered.

    Args:
        source: of the rows.
        how: one of `jaxcluster.datasets.SCALINGS`.
        missing: True lets NaN through as missing cells; False says in the message that it can.
        metric: that the method measures by; rows that float64 does not hold are moved if it measures differences.
    """
    from jaxcluster.core.validation import check_finite, check_weights
    from jaxcluster.datasets import scale
    from jaxcluster.ops.distance import TRANSLATION_INVARIANT, plain_metric

    dataset, weights = _weighted(source)
    check_finite(dataset.x, name=dataset.name, missing=missing, columns=dataset.columns)
    if weights is not None:
        weights = check_weights(weights, len(dataset.x))
    movable = metric is None or plain_metric(metric) in TRANSLATION_INVARIANT
    x, scaling = scale(dataset.x, how, missing=bool(missing), movable=movable)
    if scaling.origin is not None:
        moved = ", ".join(map(str, scaling.origin[:4])) + (", …" if len(scaling.origin) > 4 else "")
        note = f"integers beyond 2^53 are clustered as differences to those of one row: {moved}."
        dataset = dataset._replace(notes=(*dataset.notes, note))
    return Rows(dataset, x, scaling, weights)


def describe(source: Source, dataset: Dataset) -> dict[str, Any]:
    """What config.json says of the data: where it came from, and enough to tell whether it is still the same."""
    import numpy as np

    n, d = dataset.x.shape
    return {
        **source._asdict(),
        "name": dataset.name,
        "rows": n,
        "width": d,
        "column_names": dataset.columns,
        "sha256": hashlib.sha256(np.ascontiguousarray(dataset.x)).hexdigest(),
        **({"notes": list(dataset.notes)} if dataset.notes else {}),
    }


def read_like(data: Mapping[str, Any], source: Source) -> Dataset:
    """New rows with the columns that a run was fitted on, unless ``source`` names others.

    A table gives up the columns of the same names, in whatever order it has them; an array those at the same places.
    The layout of a text table is that which the run was told, for a file of the same kind, unless ``source`` tells it.

    Args:
        data: what config.json says of the run's own data; empty for a model without a run.
        source: the new rows.
    """
    from jaxcluster.datasets import load

    if _ending(source.data) == _ending(str(data.get("data"))) and all(each is None for each in source.layout.values()):
        source = source._replace(**{name: data.get(name) for name in LAYOUT})
    columns: Any = source.columns
    if columns is None:
        names, given = data.get("column_names"), data.get("columns")
        if _is_table(source.data):
            parquet = _ending(str(data.get("data"))) == ".parquet"
            columns = (_same_columns(source, _whole(names) if parquet else names) if names else None) or given
        elif not _is_table(str(data.get("data"))):
            columns = given
    return load(source.data, key=source.key, columns=columns, **source.layout)


def _same_columns(source: Source, names: list[str]) -> list[str | int]:
    """Columns of these names: by name, those that have one in common by place, the first for the first and so on."""
    from jaxcluster.datasets.loading import column_names

    there = column_names(source.data, **source.layout) or []
    found: list[str | int] = []
    for i, name in enumerate(names):
        places = [place for place, other in enumerate(there) if other == name]
        turn = names[:i].count(name)
        found.append(places[turn] if (len(places) > 1 and turn < len(places)) or (not name and places) else name)
    return found


def _whole(names: list[str]) -> list[str]:
    """The columns of a Parquet file: one that holds lists is read as ``name[0]``, ``name[1]`` and so on."""
    whole = [re.sub(r"\[\d+\]$", "", name) for name in names]
    return [name for i, name in enumerate(whole) if name == names[i] or name not in whole[:i]]


def _is_table(spec: str) -> bool:
    return _ending(spec) in TABLE_ENDINGS


def _ending(spec: str) -> str:
    return Path(Path(spec).name.lower().removesuffix(".gz")).suffix


def _weighted(source: Source) -> tuple[Dataset, np.ndarray | None]:
    """The rows, and the weights from another file or from a column that is then not among the rows."""
    from jaxcluster.datasets import load, load_labels

    options = {"key": source.key, **source.layout}
    chosen = {"columns": source.columns, "truth": source.truth}
    if source.weights is None or Path(source.weights).is_file():
        dataset = load(source.data, **chosen, **options)
        return dataset, None if source.weights is None else load_labels(source.weights)
    dataset = load(source.data, **chosen, leave_out=source.weights, **options)
    return dataset, load(source.data, columns=[source.weights], **options).x[:, 0]

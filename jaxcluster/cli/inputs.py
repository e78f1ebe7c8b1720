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


class Source(NamedTuple):
    """Where rows come from, word for word."""

    data: str
    key: str | None = None
    columns: str | None = None
    truth: str | None = None
    weights: str | None = None


class Rows(NamedTuple):
    """Rows to cluster.

    Attributes:
        dataset: as read, in the data's own units.
        x: (n, d) float32, scaled.
        scaling: what was done to get ``x``.
        weights: (n,), or None for 1 each.
    """

    dataset: Dataset
    x: np.ndarray
    scaling: Scaling
    weights: np.ndarray | None


def read(source: Source, how: str) -> Rows:
    """The rows of ``source``, scaled. Raises DataError, and ValueError for rows or weights that cannot be clustered."""
    from jaxcluster.core.check import check_finite, check_weights
    from jaxcluster.datasets import scale

    dataset, weights = _weighted(source)
    check_finite(dataset.x, name=dataset.name)
    if weights is not None:
        weights = check_weights(weights, len(dataset.x))
    x, scaling = scale(dataset.x, how)
    _check_squares(dataset.name, x)
    return Rows(dataset, x, scaling, weights)


def _check_squares(name: str, x: np.ndarray) -> None:
    """Raises DataError where the squared distances of the rows, added up, may go beyond float32."""
    import numpy as np

    from jaxcluster.datasets import DataError

    largest = max(float(x.max()), -float(x.min()))
    if 4 * x.size * largest**2 > np.finfo(np.float32).max:
        raise DataError(
            f"{name} has values up to {largest:.3g}, whose squares are too large for float32. "
            "Make them smaller: --scale standard."
        )


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
    }


def read_like(data: Mapping[str, Any], source: Source) -> Dataset:
    """New rows with the columns that a run was fitted on, unless ``source`` names others.

    A table gives up the columns of the same names, in whatever order it has them; an array those at the same places.

    Args:
        data: what config.json says of the run's own data; empty for a model without a run.
        source: the new rows.
    """
    from jaxcluster.datasets import load

    columns: Any = source.columns
    if columns is None:
        names, given = data.get("column_names"), data.get("columns")
        if _is_table(source.data):
            parquet = str(data.get("data")).lower().endswith(".parquet")
            columns = (_whole(names) if parquet else names) or given
        elif not _is_table(str(data.get("data"))):
            columns = given
    return load(source.data, key=source.key, columns=columns)


def _whole(names: list[str]) -> list[str]:
    """The columns of a Parquet file: one that holds lists is read as ``name[0]``, ``name[1]`` and so on."""
    return list(dict.fromkeys(re.sub(r"\[\d+\]$", "", name) for name in names))


def _is_table(spec: str) -> bool:
    name = Path(spec).name.lower().removesuffix(".gz")
    return name.endswith(TABLE_ENDINGS)


def _weighted(source: Source) -> tuple[Dataset, np.ndarray | None]:
    """The rows, and the weights from another file or from a column that is then not among the rows."""
    from jaxcluster.datasets import load, load_labels

    data, key, columns, truth, weights = source
    if weights is None or Path(weights).is_file():
        dataset = load(data, key=key, columns=columns, truth=truth)
        return dataset, None if weights is None else load_labels(weights)
    if columns is None:
        dataset = load(data, key=key, truth=truth)
        at = _position(dataset, weights, truth)
    else:
        dataset = load(data, key=key, columns=f"{columns},{weights}", truth=truth)
        at = dataset.x.shape[1] - 1
    return _without(dataset, at), dataset.x[:, at].copy()


def _position(dataset: Dataset, column: str, truth: str | None) -> int:
    """Where a column that was given by name, or by its place in the file, stands among the rows' columns."""
    from jaxcluster.datasets.base import unknown

    names = dataset.columns
    if names is None:
        width = dataset.x.shape[1]
        names = [str(i) for i in range(width)]
        if truth is not None and truth.lstrip("-").isdigit():
            names = [str(i) for i in range(width + 1) if i != int(truth) % (width + 1)]
    if column not in names:
        raise unknown(f"{dataset.name}: weights column", column, names)
    return names.index(column)


def _without(dataset: Dataset, at: int) -> Dataset:
    import numpy as np

    names = dataset.columns and [name for i, name in enumerate(dataset.columns) if i != at]
    return dataset._replace(x=np.delete(dataset.x, at, axis=1), columns=names, image_shape=None)

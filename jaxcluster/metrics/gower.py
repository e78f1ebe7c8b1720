"""Gower's distances between the rows of tables of numbers and categories.

>>> gower_distances([["red", 1.0], ["blue", 3.0], ["red", None]]).tolist()
[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.core import memory
from jaxcluster.datasets.gower import encode_gower
from jaxcluster.ops.gower import gower
from jaxcluster.ops.metric_space import tiles


def gower_distances(x: Any, y: Any = None, *, categorical: Any = None) -> np.ndarray:
    """Gower's distances between the rows of a table, or of two: in [0, 1].

    The mean over the columns that both rows have of |x_j − y_j| / range_j for numbers, and of 0 or 1 for equal and
    different categories. The ranges are those of all rows; a constant column counts as equal.

    Args:
        x: (n, n_features) array, list of rows, or table of pandas, polars or Arrow; None and NaN are missing cells.
        y: (m, n_features) rows of the same columns; None for x.
        categorical: positions or names of the categorical columns, or a mask. None for those that are so by their type:
            text, booleans and categories; objects unless all of them are numbers.

    Returns:
        (n, m) float64 distances.

    Raises:
        ValueError, TypeError: two rows without a common column; infinite numbers; text in a column of numbers.
        MemoryError: the distances would not fit.

    Source: J. C. Gower, A general coefficient of similarity and some of its properties, Biometrics 27 (1971).
    """
    scale, rows = encode_gower(x, categorical=categorical, others=y, name="x")
    columns = rows if y is None else _encode_other(scale, y)
    memory.check_table(len(rows), len(columns), np.float64, "the distances")
    out = np.empty((len(rows), len(columns)))
    # By tiles: the terms of a pair, one for each column, are never held for all pairs.
    for index in tiles(len(rows), len(columns)):
        out[index] = gower(rows[index], columns)
    if np.isnan(out).any():
        i, j = np.argwhere(np.isnan(out))[0]
        raise ValueError(f"row {i} of x and row {j} of {'x' if y is None else 'y'} have no column that both have.")
    return out


def gower_rows(x: Any, *, categorical: Any = None) -> np.ndarray:
    """Rows for functions that take a metric: pass ``metric=jaxcluster.ops.gower.gower`` with them.

    Args:
        x, categorical: as for `gower_distances`.

    Returns:
        (n, n_features) float64: numbers divided by their range, codes of categories, and a mark for missing cells.
    """
    return encode_gower(x, categorical=categorical, name="x")[1]


def _encode_other(scale, y):
    from jaxcluster.datasets.categories import read_mixed

    return scale.encode(*read_mixed(y, like=scale.columns, missing=True, unseen="ignore", name="y")[1])

"""Gower's distance between encoded rows: the mean over the columns that both rows have of min(|x_j − y_j|, 1).

In encoded rows (`jaxcluster.datasets.gower`) a column of numbers is divided by its range, a category is its code, a
whole number, and a missing cell is `ABSENT`. So a term is the difference relative to the range, or 0 or 1 for equal and
different categories; a number beyond the range of the fit differs by at most 1.

>>> import numpy as np
>>> gower(np.array([[0.25, 3.0, ABSENT]]), np.array([[0.75, 1.0, 0.5], [0.25, ABSENT, 0.0]])).tolist()
[[0.75, 0.0]]

Source: J. C. Gower, A general coefficient of similarity and some of its properties, Biometrics 27 (1971).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from jaxcluster.core.compilation import persistent_jit
from jaxcluster.ops.distance import over_columns

ABSENT = -(2.0**60)
"""Entry of an encoded row for a missing cell: exact in float32, and a number, as functions of rows refuse NaN."""


def gower(x: Any, y: Any) -> Any:
    """Gower's distances of encoded rows, in [0, 1], (n, m): NumPy's arrays on the host in float64, others by JAX.

    NaN for two rows without a common column.

    Args:
        x: (n, d) encoded rows.
        y: (m, d) encoded rows.
    """
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return _on_host(x.astype(np.float64, copy=False), y.astype(np.float64, copy=False))
    return _traceable(jnp.asarray(x), jnp.asarray(y))


@persistent_jit
def _traceable(x, y):
    def term(a, b):
        both = (a != ABSENT) & (b != ABSENT)
        return jnp.where(both, jnp.minimum(jnp.abs(a - b), 1), 0), both.astype(a.dtype)

    total, count = over_columns(term, (x,), (y,))
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def _on_host(x, y):
    whole = [(each != ABSENT).all(axis=0) for each in (x, y)]
    complete = whole[0] & whole[1]
    total, count = np.zeros((len(x), len(y))), float(complete.sum())
    within = complete & _all_in_unit(x) & _all_in_unit(y)
    codes = complete & ~within & (x == np.rint(x)).all(axis=0) & (y == np.rint(y)).all(axis=0)
    # SciPy's loops take a fraction of the time of a pass of NumPy for each column.
    if within.any():
        total += cdist(x[:, within], y[:, within], "cityblock")
    if codes.any():
        total += cdist(x[:, codes], y[:, codes], "hamming") * codes.sum()
    for j in np.flatnonzero(~within & ~codes):
        a, b = x[:, j, None], y[None, :, j]
        if complete[j]:
            total += np.minimum(np.abs(a - b), 1)
            continue
        both = (a != ABSENT) & (b != ABSENT)
        total += np.where(both, np.minimum(np.abs(a - b), 1), 0)
        count = count + both
    with np.errstate(invalid="ignore"):
        return np.divide(total, count)


def _all_in_unit(x):
    return ((x >= 0) & (x <= 1)).all(axis=0)

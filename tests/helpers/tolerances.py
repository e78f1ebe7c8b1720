"""Tolerances of two results that are equal but for rounding: one table, by the dtype of the computation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np


class Tolerance(NamedTuple):
    """Relative and absolute difference, the latter in the units of the data, which are near 1 in the tests."""

    rtol: float
    atol: float


TOLERANCES = {
    ("float32", "objective"): Tolerance(1e-4, 0),
    ("float32", "coordinates"): Tolerance(1e-4, 1e-4),
    ("float64", "objective"): Tolerance(1e-10, 0),
    ("float64", "coordinates"): Tolerance(1e-8, 1e-8),
}
"""Tolerance by dtype and quantity.

Objectives are sums over some hundred samples, which differ by a few hundred roundings, 1e-5 in float32, and by more
where another order of the sums ends an iteration a step earlier. Coordinates are centers, means and potentials, of
samples within about 10 of the origin: they move by as much as the last step of an iteration.
"""


def assert_near(seen: Any, expected: Any, quantity: str) -> None:
    """Equality of results within the tolerance of a quantity, "objective" or "coordinates".

    The dtype is the widest that JAX computes in, whatever the dtype in which results are published.
    """
    dtype = jax.dtypes.canonicalize_dtype(np.float64).name
    np.testing.assert_allclose(seen, expected, **TOLERANCES[dtype, quantity]._asdict())

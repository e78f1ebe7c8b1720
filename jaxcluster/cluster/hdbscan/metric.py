"""Rows of a fit of any size, brought near 1 to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.ops.metric_space import DistanceOracle, MetricSpace, as_metric_space

SAMPLE = 1024
"""Rows by whose median distance from their middle the size of all is told."""

PLAIN_EXPONENTS = 20
"""Sizes between 2⁻²⁰ and 2²⁰ are left as they are: their powers are far from the limits of float32 and float64."""


class Measure(NamedTuple):
    """Rows as they are measured.

    Attributes:
        space: the rows times 2^−exponent, or rows of which only distances are known.
        exponent: of the unit of the rows.
        lift: exponent of the unit of distances.
    """

    space: MetricSpace | DistanceOracle
    exponent: int
    lift: int

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Distances in the space in the unit of the metric; squares of long ones are infinite there."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(values, self.lift) if self.lift else values


def measure_rows(x: Any, metric: str | Callable, p: float, *, exponent: int | None = None) -> Measure:
    """`jaxcluster.ops.metric_space.as_metric_space`, of rows of any size.

    Squares of float64 numbers below 1e-160 are 0, and above 1e154 infinite. A power of two changes no digit.

    Args:
        exponent: of the unit of other rows that these are to be measured with; None to find it.
    """
    space = as_metric_space(x, metric, p=p)
    if isinstance(space, DistanceOracle) or space.scale != 1:  # of directions the lengths are 1
        return Measure(space, 0, 0)
    exponent = _exponent(space.x) if exponent is None else exponent
    if not exponent:
        return Measure(space, 0, 0)
    degree = 2 if space.power == 2 and space.root == 1 else 1
    with np.errstate(over="ignore", under="ignore"):  # new rows may be infinitely far in the unit of those of the fit
        return Measure(space._replace(x=np.ldexp(space.x, -exponent)), exponent, degree * exponent)


def _exponent(x):
    """That of the median distance of some rows from their middle, or 0 where it is ordinary."""
    some = x[:: -(-len(x) // SAMPLE)]
    with np.errstate(over="ignore"):
        lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    size = np.median(lengths) or lengths.max()
    exponent = int(np.frexp(size)[1]) if np.isfinite(size) else 1 << 9
    return exponent if abs(exponent) > PLAIN_EXPONENTS else 0

"""How the rows of a fit are measured: metrics with parameters of their own, and rows of any size brought near 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from jaxcluster.ops.pairwise import Pairwise, Space, measure

SAMPLE = 1024
"""Rows by whose median distance from their middle the size of all is told."""

PLAIN_EXPONENTS = 20
"""Sizes between 2⁻²⁰ and 2²⁰ are left as they are: their powers are far from the limits of float32 and float64."""

OF_BOOLEANS = ("dice", "rogerstanimoto", "russellrao", "sokalsneath")
"""Metrics of SciPy that look at which entries are not 0."""

PARAMETERS = {"minkowski": ("p", "w"), "seuclidean": ("V",), "mahalanobis": ("V", "VI")}
"""What ``metric_params`` may hold, by metric."""


def with_parameters(metric: str | Callable, params: Mapping[str, Any] | None, p: float) -> tuple[str | Callable, float]:
    """A metric and the power of "minkowski" with what ``metric_params`` says of them.

    Args:
        metric: a name or a function of two matrices of rows.
        params: "p", a power, and "w", weights of the columns, for "minkowski"; "V", variances of the columns, for
            "seuclidean"; "V", a covariance matrix, or "VI", its inverse, for "mahalanobis".
        p: the power where ``params`` has none.

    Returns:
        A name of `jaxcluster.ops.distance.METRICS`, "precomputed" or a function, and the power.

    Raises:
        ValueError: parameters that the metric does not take, or lacks.
    """
    params = dict(params or {})
    known = () if callable(metric) else PARAMETERS.get(metric, ())
    if unknown := sorted(set(params) - set(known)):
        takes = f"takes {' and '.join(known)}" if known else "takes none"
        raise ValueError(f"metric_params has {', '.join(map(repr, unknown))}, but metric={metric!r} {takes}.")
    p = params.get("p", p)
    if "w" in params:
        return partial(cdist, metric="minkowski", p=p, w=np.asarray(params["w"], float)), p
    if metric in ("seuclidean", "mahalanobis"):
        return partial(cdist, metric=metric, **_spread(metric, params)), p
    return (partial(_of_booleans, metric) if metric in OF_BOOLEANS else metric), p


class Measure(NamedTuple):
    """Rows as they are measured.

    Attributes:
        space: the rows times 2^−exponent, or rows of which only distances are known.
        exponent: of the unit of the rows.
        lift: exponent of the unit of distances.
    """

    space: Space | Pairwise
    exponent: int
    lift: int

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Distances in the space in the unit of the metric."""
        return np.ldexp(values, self.lift) if self.lift else values


def measure_rows(x: Any, metric: str | Callable, p: float, *, exponent: int | None = None) -> Measure:
    """`jaxcluster.ops.pairwise.measure`, of rows of any size.

    Squares of float64 numbers below 1e-160 are 0, and above 1e154 infinite. A power of two changes no digit.

    Args:
        exponent: of the unit of other rows that these are to be measured with; None to find it.
    """
    space = measure(x, metric, p=p)
    if isinstance(space, Pairwise) or space.scale != 1:  # of directions the lengths are 1
        return Measure(space, 0, 0)
    exponent = _exponent(space.x) if exponent is None else exponent
    if not exponent:
        return Measure(space, 0, 0)
    degree = 2 if space.power == 2 and space.root == 1 else 1
    return Measure(space._replace(x=np.ldexp(space.x, -exponent)), exponent, degree * exponent)


def _exponent(x):
    """That of the median distance of some rows from their middle, or 0 where it is ordinary."""
    some = x[:: -(-len(x) // SAMPLE)]
    with np.errstate(over="ignore"):
        lengths = np.abs(some - np.median(some, axis=0)).max(axis=1)
    size = np.median(lengths) or lengths.max()
    exponent = int(np.frexp(size)[1]) if np.isfinite(size) else 1 << 9
    return exponent if abs(exponent) > PLAIN_EXPONENTS else 0


def _spread(metric, params):
    """What SciPy wants to know of the spread of the columns."""
    if not params:
        raise ValueError(f"metric={metric!r} needs metric_params={{'V': …}}, the spread that it measures by.")
    if "VI" in params:
        return {"VI": np.asarray(params["VI"], float)}
    spread = np.asarray(params["V"], float)
    if metric == "seuclidean":
        return {"V": spread}
    if np.linalg.matrix_rank(spread) < len(spread):
        raise ValueError("metric_params['V'] is singular: a covariance matrix that has an inverse is wanted.")
    return {"VI": np.linalg.inv(spread)}


def _of_booleans(metric, a, b):
    return cdist(a != 0, b != 0, metric)

"""An entropic transport problem: costs, two sets of weights, how much entropy, and how firmly the weights hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import CENTERED, TileCost, as_cost_matrix, check_callable, matrix_tile, tile_cost
from jaxcluster.core import check
from jaxcluster.core.rows import bucket, place
from jaxcluster.types import Array, Float

SUMS_ALIKE = 1e-5
"""Relative difference up to which two sums of weights count as the same: the rounding of weights in float32."""


class Problem(NamedTuple):
    """What a plan is a function of.

    Attributes:
        rows: what a tile's costs are made of, with n rows.
        columns: the same for all m columns.
        a: (n,) weights of the rows; rows of weight 0 take no part.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy (units of the cost).
        rho_a: () price of leaving the weights of the rows (units of the cost), or None where they hold exactly.
        rho_b: () the same for the columns.
    """

    rows: Any
    columns: Any
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    epsilon: Float[Array, ""]
    rho_a: Float[Array, ""] | None
    rho_b: Float[Array, ""] | None


class Stated(NamedTuple):
    """A checked problem, the function of its costs, and how many rows and columns of it are real."""

    problem: Problem
    cost: TileCost
    n: int
    m: int


def points_problem(x, y, *, a, b, cost, epsilon, rho_a, rho_b) -> Stated:
    """Checks two sets of rows and moves them to their mean; concrete ones are padded up to a bucket.

    Raises:
        ValueError, TypeError: see `check_problem`, and rows of different widths.
    """
    x, y = check.check_matrix(x), check.check_matrix(y, name="y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}; a cost needs both in the same space.")
    for name, rows in (("x", x), ("y", y)):
        if not check.is_traced(rows):
            check.check_finite(np.asarray(rows), name=name)
    a, b = check_problem(a, b, *(len(x), len(y)), epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    center = isinstance(cost, str) and cost in CENTERED
    function = tile_cost(cost)
    rows = place(x, a, center=center)
    columns = place(y, b, center=center, origin=rows.origin)
    dtype = jnp.promote_types(rows.points.x.dtype, columns.points.x.dtype)
    left, right = rows.points.x.astype(dtype), columns.points.x.astype(dtype)
    if callable(cost):
        check_callable(function, left, right)
    weights = (rows.points.weight, columns.points.weight)
    numbers = _numbers(dtype, *weights, a, b, (len(x), len(y)), epsilon, rho_a, rho_b)
    return Stated(Problem(left, right, *numbers), function, len(x), len(y))


def matrix_problem(costs, *, a, b, epsilon, rho_a, rho_b) -> Stated:
    """Checks a matrix of costs and its weights; concrete ones are padded up to a bucket by costs of 0 at weight 0.

    Raises:
        ValueError, TypeError: see `check_problem` and `as_cost_matrix`.
    """
    padded, costs = not check.is_traced(costs, a, b), as_cost_matrix(costs)
    n, m = costs.shape
    a, b = check_problem(a, b, n, m, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    weights = [np.ones(size) if given is None else given for given, size in ((a, n), (b, m))]
    if padded:
        more = [bucket(size) - size for size in (n, m)]
        costs = jnp.asarray(np.pad(np.asarray(costs), [(0, extra) for extra in more]))
        weights = [np.pad(given, (0, extra)) for given, extra in zip(weights, more, strict=True)]
    numbers = _numbers(costs.dtype, *weights, a, b, (n, m), epsilon, rho_a, rho_b)
    return Stated(Problem(costs, (), *numbers), matrix_tile, n, m)


def check_problem(a, b, n, m, *, epsilon, rho_a, rho_b):
    """The weights, concrete ones as NumPy arrays.

    Raises:
        ValueError, TypeError: epsilon or a penalty that is not above 0; weights that are negative, not finite, all zero
            or of the wrong shape; weights that hold exactly on both sides and have different sums.
    """
    check.check_positive("epsilon", epsilon)
    for name, rho in (("rho_a", rho_a), ("rho_b", rho_b)):
        if rho is not None:
            check.check_positive(name, rho)
    a, b = _check_side("a", a, n), _check_side("b", b, m)
    if rho_a is None and rho_b is None and not check.is_traced(a, b):
        sums = [1.0 if side is None else float(np.sum(side, dtype=float)) for side in (a, b)]
        if abs(sums[0] - sums[1]) > SUMS_ALIKE * max(sums):
            raise ValueError(
                f"a sums to {sums[0]:.9g} and b to {sums[1]:.9g}; no plan can have both as its sums. Scale one to the "
                "other (None stands for equal weights that sum to 1), or pass rho_a= and rho_b= to let them differ."
            )
    return a, b


def _check_side(name, weights, n):
    if weights is None:
        return None
    if not check.is_traced(weights):
        return check.check_weights(weights, n, name=name)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one a row, got {weights.shape}.")
    return weights


def _numbers(dtype, a, b, given_a, given_b, sizes, epsilon, rho_a, rho_b):
    def scalar(value):
        return None if value is None else jnp.asarray(value, dtype)

    def weights(placed, given, size):
        placed = jnp.asarray(placed, dtype)
        return placed / size if given is None else placed

    sides = (weights(a, given_a, sizes[0]), weights(b, given_b, sizes[1]))
    return *sides, scalar(epsilon), scalar(rho_a), scalar(rho_b)

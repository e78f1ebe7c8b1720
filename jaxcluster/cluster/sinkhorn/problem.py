"""An entropic transport problem: costs, two sets of weights, how much entropy, and how firmly the weights hold.

It is stated in a frame of its own. A constant for each row and each column of the costs does not change a plan whose
sums are given, a common factor of the costs and ε does not change it either, nor does the unit of the weights. So they
are taken off, on the host in float64 where arguments are concrete, and put back on what is returned.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.cost import DEGREES, TileCost, check_callable, matrix_tile, tile_cost
from jaxcluster.core import check
from jaxcluster.core.frame import Frame, bucket, float_dtype, prepare, published_dtype, times_power_of_two
from jaxcluster.ops import distance
from jaxcluster.types import Array, Float

SUMS_ALIKE = 1e-5
"""Relative difference up to which two sums of weights count as the same: the rounding of weights in float32."""

LARGEST_EXPONENT = 100
"""Costs are cut at 2^100 in a frame: more, times a weight, would be infinite. No mass moves at such costs."""

SAMPLE = 1 << 16
"""Costs whose median is the unit of a matrix of them."""


class Problem(NamedTuple):
    """What a plan is a function of, in the frame of the problem.

    Attributes:
        rows: what a tile's costs are made of, with n rows.
        columns: the same for all m columns.
        a: (n,) weights of the rows; rows of weight 0 take no part.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy (units of the cost).
        rho_a: () price of leaving the weights of the rows (units of the cost), or None where they hold exactly.
        rho_b: () the same for the columns.
        constant_a: (n,) what was taken off the costs of each row, where there is a price: it is paid on the whole
            potential. None where the weights hold exactly.
        constant_b: (m,) the same for the columns.
        log_mass: () log of the unit of the weights, which lowers the whole potentials by ε·log_mass together.
    """

    rows: Any
    columns: Any
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    epsilon: Float[Array, ""]
    rho_a: Float[Array, ""] | None
    rho_b: Float[Array, ""] | None
    constant_a: Float[Array, " n"] | None
    constant_b: Float[Array, " m"] | None
    log_mass: Float[Array, ""]

    def paid_a(self, f: Float[Array, " n"]) -> Float[Array, " n"]:
        """The whole potentials of the rows, in the units of the frame, where there is a price on their weights."""
        return f + self.constant_a - self.epsilon * (self.log_mass / 2)

    def paid_b(self, g: Float[Array, " m"]) -> Float[Array, " m"]:
        """The same for the columns."""
        return g + self.constant_b - self.epsilon * (self.log_mass / 2)


class Units(NamedTuple):
    """What was taken off a problem: its costs are (C − c − d)·2^-exponent, its weights w·2^-mass.

    Attributes:
        c: (n,) constant of each row of the costs, in the caller's units.
        d: (m,) constant of each column.
        exponent: of the costs.
        mass: exponent of the weights.
        a: (n,) the caller's weights.
        b: (m,) the caller's weights.
        epsilon: the caller's ε.
        dtype: in which results are published: float64 where the arguments were float64 or integers, else float32.
    """

    c: Float[Any, " n"]
    d: Float[Any, " m"]
    exponent: Any
    mass: Any
    a: Float[Any, " n"]
    b: Float[Any, " m"]
    epsilon: Any
    dtype: np.dtype


class Stated(NamedTuple):
    """A checked problem, the function of its costs, how many rows and columns of it are real, and its units."""

    problem: Problem
    cost: TileCost
    n: int
    m: int
    units: Units


def points_problem(x, y, *, a, b, cost, epsilon, rho_a, rho_b, wide: bool = False) -> Stated:
    """Checks two sets of rows and puts them into a frame; concrete ones are padded up to a bucket.

    Args:
        wide: whether to take float64.

    Raises:
        ValueError, TypeError: see `check_problem`, and rows of different widths.
    """
    x, y = check.check_matrix(x), check.check_matrix(y, name="y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}; a cost needs both in the same space.")
    for name, rows in (("x", x), ("y", y)):
        if not check.is_traced(rows):
            check.check_finite(np.asarray(rows), name=name)
    sizes = len(x), len(y)
    a, b, rho_a, rho_b = check_problem(a, b, *sizes, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    metric = distance.plain_metric(cost)
    function = tile_cost(cost)
    if metric == "haversine":
        distance.check_haversine(x)
    dtype = np.promote_types(published_dtype(x), published_dtype(y))
    if wide:
        x, y = (np.asarray(rows, np.float64) for rows in (x, y))
    left, right, exponent, constants = _place(x, y, metric)
    if callable(cost):
        check_callable(function, left, right)
    return _stated(left, right, function, sizes, (a, b, epsilon, rho_a, rho_b), constants, exponent, dtype)


def matrix_problem(costs, *, a, b, epsilon, rho_a, rho_b, constants=None, wide: bool = False) -> Stated:
    """Checks a matrix of costs and its weights; concrete ones are padded up to a bucket by costs of 0 at weight 0.

    Args:
        constants: (n,) and (m,) numbers to take off the costs, those of their potentials, say; None for the least of
            each row and column.
        wide: whether to take float64.

    Raises:
        ValueError, TypeError: see `check_problem`; costs that are not 2-D, not real numbers, NaN or -inf, and where;
            nothing but +inf for a row or column whose weight has to hold.
    """
    costs = check.check_matrix(costs, name="costs")
    concrete = not check.is_traced(costs)
    if concrete:
        _check_costs(np.asarray(costs))
    n, m = costs.shape
    a, b, rho_a, rho_b = check_problem(a, b, n, m, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    live = (
        None if check.is_traced(a, b) else [np.ones(size, bool) if w is None else w > 0 for w, size in ((a, n), (b, m))]
    )
    published, dtype = published_dtype(costs), np.dtype(np.float64) if wide else float_dtype(costs.dtype)
    if concrete and not check.is_traced(constants):
        costs = np.asarray(costs, np.float64)
        if constants is None:
            if live is not None:
                _check_reachable(costs, live, (a, b), (rho_a, rho_b))
            constants = _least(np, costs, *(live or (np.ones(n, bool), np.ones(m, bool))))
            exponent = _unit(costs, constants, live)
        else:
            constants = [np.asarray(each, np.float64) for each in constants]
            exponent = 0 if check.is_traced(epsilon) else math.frexp(float(epsilon))[1]
        with np.errstate(over="ignore", under="ignore"):
            costs = np.ldexp(costs - constants[0][:, None] - constants[1][None, :], -exponent)
        costs = np.where(np.isposinf(costs), np.inf, np.minimum(costs, 2.0**LARGEST_EXPONENT))
        if live is not None:
            costs = np.pad(costs, [(0, bucket(size) - size) for size in (n, m)])
        costs = jnp.asarray(costs, dtype)
    else:
        costs, exponent = jnp.asarray(costs, dtype), 0
        if constants is None:
            constants = jax.lax.stop_gradient(_least(jnp, costs, jnp.ones(n, bool), jnp.ones(m, bool)))
        constants = [jnp.asarray(each).astype(dtype) for each in constants]
        costs = costs - constants[0][:, None] - constants[1][None, :]
    return _stated(costs, (), matrix_tile, (n, m), (a, b, epsilon, rho_a, rho_b), constants, exponent, published)


def check_problem(a, b, n, m, *, epsilon, rho_a, rho_b):
    """The weights, concrete ones as NumPy arrays, and the penalties, None for infinite ones.

    Raises:
        ValueError, TypeError: epsilon or a penalty that is not above 0; weights that are negative, not finite, all zero
            or of the wrong shape; weights that hold exactly on both sides and have different sums.
    """
    check.check_positive("epsilon", epsilon)
    rho_a, rho_b = _check_price("rho_a", rho_a), _check_price("rho_b", rho_b)
    a, b = _check_side("a", a, n), _check_side("b", b, m)
    if rho_a is None and rho_b is None and not check.is_traced(a, b):
        sums = [1.0 if side is None else float(np.sum(side, dtype=float)) for side in (a, b)]
        if abs(sums[0] - sums[1]) > SUMS_ALIKE * max(sums):
            raise ValueError(
                f"a sums to {sums[0]:.9g} and b to {sums[1]:.9g}; no plan can have both as its sums. Scale one to the "
                "other (None stands for equal weights that sum to 1), or pass rho_a= and rho_b= to let them differ."
            )
    return a, b, rho_a, rho_b


def _check_price(name, rho):
    if rho is None:
        return None
    check.check_positive(name, rho)
    # At an infinite price the weights hold exactly.
    return None if not check.is_traced(rho) and np.isposinf(np.asarray(rho)) else rho


def _check_side(name, weights, n):
    if weights is None:
        return None
    if not check.is_traced(weights):
        return check.check_weights(weights, n, name=name)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one a row, got {weights.shape}.")
    return weights


def _check_costs(costs):
    if costs.dtype.kind != "f":
        return
    least = np.isneginf(costs)
    if least.any():
        i, j = np.argwhere(least)[0]
        raise ValueError(
            f"costs contains {int(least.sum())} of -infinity, the first for row {i} and column {j}. A cost of "
            "+infinity forbids a pair; no cost can ask for one at any price."
        )
    if not np.isfinite(costs).all():
        check.check_finite(np.where(np.isposinf(costs), 0, costs), name="costs")


def _check_reachable(costs, live, weights, prices):
    """Raises ValueError where mass that has to move may go nowhere."""
    if not np.isposinf(costs).any():
        return
    names = (("row", "a", "b"), ("column", "b", "a"))
    for side, own, other, weight, price, (kind, name, others) in zip(
        (costs, costs.T), live, live[::-1], weights, prices, names, strict=True
    ):
        stuck = np.flatnonzero(own & ~np.isfinite(side[:, other]).any(axis=1))
        if price is None and stuck.size:
            mass = 1 / len(side) if weight is None else weight[stuck[0]]
            raise ValueError(
                f"costs of {kind} {stuck[0]} are all infinite where {others} is positive, so that its weight "
                f"{name}[{stuck[0]}] = {mass:.6g} has nowhere to go. Give it weight 0, or pass rho_{name}= to let it "
                "stay."
            )


def _place(x, y, metric):
    """Both sets of points in one frame, the exponent of its costs, and the constants of the costs."""
    degree = None if callable(metric) else DEGREES.get(metric)
    none = [
        jnp.zeros((len(rows),), float_dtype(rows.dtype)) if check.is_traced(x, y) else np.zeros(len(rows))
        for rows in (x, y)
    ]
    if degree is None:
        return *_in_one_dtype(_padded(x), _padded(y)), 0, none
    if metric == "cosine":
        left, right = prepare(x, unit_rows=True), prepare(y, unit_rows=True)
        return *_in_one_dtype(left.points.x, right.points.x), 0, none
    left = prepare(x, center=degree > 0)
    apart = metric == "sqeuclidean"
    right = prepare(y, frame=None if apart else left.frame)
    exponents = left.frame.exponent, right.frame.exponent
    exponent = min(exponents) if not check.is_traced(exponents) else jnp.minimum(*map(jnp.asarray, exponents))
    points = [
        times_power_of_two(each.points.x, exponent - own) for each, own in zip((left, right), exponents, strict=True)
    ]
    constants = _constants_apart(x, y, left.frame, right.frame, points, exponent) if apart else none
    return *_in_one_dtype(*points), -degree * exponent, constants


def _constants_apart(x, y, left: Frame, right: Frame, points, exponent):
    """‖x − y‖² = ‖x̂ − ŷ‖² + c + d for x̂ and ŷ about origins of their own: c = 2x̂·Δ + Δ², d = −2ŷ·Δ.

    Two sets that are far apart need not be seen from one origin then.
    """
    if not check.is_traced(x, y, left, right):
        origins = [np.asarray(frame.origin, np.float64) for frame in (left, right)]
        apart = origins[0] - origins[1]
        with np.errstate(over="ignore"):
            return (
                2 * (np.asarray(x, np.float64) - origins[0]) @ apart + apart @ apart,
                -2 * (np.asarray(y, np.float64) - origins[1]) @ apart,
            )
    left_points, right_points = _in_one_dtype(*points)
    apart = jnp.asarray(left.origin).astype(left_points.dtype) - jnp.asarray(right.origin).astype(left_points.dtype)
    apart = jax.lax.stop_gradient(times_power_of_two(apart, exponent))
    constants = (
        2 * distance.inner_products(left_points[: len(x)], apart[None, :])[:, 0] + jnp.sum(jnp.square(apart)),
        -2 * distance.inner_products(right_points[: len(y)], apart[None, :])[:, 0],
    )
    return [times_power_of_two(each, -2 * exponent) for each in constants]


def _padded(x):
    """Rows as they are, concrete ones padded up to a bucket with the first of them."""
    dtype = float_dtype(x.dtype)
    if check.is_traced(x):
        return x.astype(dtype)
    x = np.asarray(x, dtype)
    return jnp.asarray(np.concatenate([x, np.broadcast_to(x[:1], (bucket(len(x)) - len(x), x.shape[1]))]))


def _in_one_dtype(left, right):
    dtype = np.promote_types(left.dtype, right.dtype)
    return left.astype(dtype), right.astype(dtype)


def _least(xp, costs, live_a, live_b):
    """Constants of rows and columns that leave no cost below 0, and a 0 in each row: the least ones of either."""

    def least(values, axis):
        values = xp.min(
            xp.where(live_b[None, :], values, xp.inf) if axis == 1 else xp.where(live_a[:, None], values, xp.inf),
            axis=axis,
        )
        return xp.where(xp.isfinite(values), values, 0)

    c = least(costs, 1)
    d = least(costs - c[:, None], 0)
    return c + least(costs - c[:, None] - d[None, :], 1), d


def _unit(costs, constants, live):
    """The exponent of the median cost that is neither 0 nor infinite, once the constants are off."""
    rows, columns = (
        np.arange(size) if mask is None else np.flatnonzero(mask)
        for size, mask in zip(costs.shape, live or (None, None), strict=True)
    )
    step = max(1, math.isqrt(max(1, len(rows) * len(columns) // SAMPLE)))
    rows, columns = rows[::step], columns[::step]
    sample = costs[np.ix_(rows, columns)] - constants[0][rows, None] - constants[1][None, columns]
    positive = sample[(sample > 0) & np.isfinite(sample)]
    return int(np.frexp(np.median(positive))[1]) if positive.size else 0


def _stated(rows, columns, cost, sizes, numbers, constants, exponent, published):
    """The problem with its weights and numbers in its frame."""
    a, b, epsilon, rho_a, rho_b = numbers
    dtype = jax.tree.leaves(rows)[0].dtype
    padded = rows.shape[0], (rows.shape[1] if cost is matrix_tile else columns.shape[0])
    weights, own, mass = _weights(a, b, sizes, padded, (rho_a, rho_b), dtype, published)
    inside = jnp.maximum(scaled(epsilon, -exponent, dtype), jnp.finfo(dtype).tiny)
    prices = [None if rho is None else scaled(rho, -exponent, dtype) for rho in (rho_a, rho_b)]
    paid = [
        None if rho is None else _pad(scaled(constant, -exponent, dtype), size)
        for rho, constant, size in zip(prices, constants, padded, strict=True)
    ]
    log_mass = jnp.asarray(mass).astype(dtype) * math.log(2)
    units = Units(*constants, exponent, mass, *own, epsilon, np.dtype(published))
    return Stated(Problem(rows, columns, *weights, inside, *prices, *paid, log_mass), cost, *sizes, units)


def _weights(a, b, sizes, padded, prices, dtype, published):
    """Weights in the frame and as they are published, and the exponent of their unit: the sum of those that hold."""
    if check.is_traced(a, b):
        sides = [
            jnp.full((n,), 1 / n, dtype) if w is None else jnp.asarray(w).astype(dtype)
            for w, n in zip((a, b), sizes, strict=True)
        ]
        exponents = [_nearest_exponent(jnp, jnp.sum(jax.lax.stop_gradient(side))) for side in sides]
        mass = _mass(exponents, prices)
        return (
            [_pad(times_power_of_two(side, -mass), size) for side, size in zip(sides, padded, strict=True)],
            sides,
            mass,
        )
    sides = [np.full(n, 1 / n) if w is None else np.asarray(w, np.float64) for w, n in zip((a, b), sizes, strict=True)]
    mass = _mass([int(_nearest_exponent(np, side.sum())) for side in sides], prices)
    inside = [np.pad(np.ldexp(side, -mass), (0, size - len(side))) for side, size in zip(sides, padded, strict=True)]
    return [jnp.asarray(side, dtype) for side in inside], [side.astype(published) for side in sides], mass


def _nearest_exponent(xp, total):
    """The exponent of the power of two nearest to a sum: 0 where it is about 1, so that no ε·log 2 cancels."""
    mantissa, exponent = xp.frexp(total)
    return xp.where(mantissa > 0.7, exponent, exponent - 1)


def _mass(exponents, prices):
    held = [exponent for exponent, price in zip(exponents, prices, strict=True) if price is None]
    return held[0] if held else (exponents[0] + exponents[1]) // 2


def scaled(value: Any, exponent: Any, dtype) -> Array:
    """value·2^exponent in this dtype, concrete numbers by way of float64."""
    if check.is_traced(value, exponent):
        return times_power_of_two(jnp.asarray(value).astype(dtype), exponent)
    with np.errstate(over="ignore", under="ignore"):
        return jnp.asarray(np.ldexp(np.asarray(value, np.float64), exponent).astype(dtype))


def _pad(values, size):
    return jnp.pad(values, (0, size - values.shape[0]))

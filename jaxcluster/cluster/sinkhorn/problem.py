"""Entropic transport problem: costs in tiles, two sets of weights, ε, and the penalties on the marginals.

It is stated in a frame of its own. A constant of each row and column of the costs does not change a plan whose
marginals are fixed, a common factor of the costs and ε does not change it either, nor does the unit of the weights. So
they are taken off, on the host in float64 where arguments are concrete, and put back on the results. A cost of +inf
forbids its pair: no mass moves there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import float_dtype, published_dtype, sum_and_rounding, times_power_of_two
from jaxcluster.core.frame import Frame
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.ops import differences, distance
from jaxcluster.types import Absent, Array, Bool, Float

TILE = 1 << 19
"""Elements of a tile: its costs and its part of the plan pass through a core's cache together."""

MAX_CACHED_COSTS = 1 << 24
"""Elements up to which all costs fit into what the rest of the package takes for one tile, and are computed once."""

HOMOGENEITY = {"sqeuclidean": 2, "euclidean": 1, "manhattan": 1, "chebyshev": 1, "minkowski": 1} | dict.fromkeys(
    ("cosine", "correlation", "canberra", "braycurtis", "hamming", "jaccard"), 0
)
"""Degree of homogeneity of a cost by name: the power of a factor of all points that it grows with."""

MASS_TOLERANCE = 1e-5
"""Relative difference of two sums of weights that count as equal: the rounding of weights in float32."""

MAX_COST_EXPONENT = 100
"""Costs are capped at 2^100 in a frame: more, times a weight, would be infinite. No mass moves at such costs."""

MEDIAN_SAMPLE = 1 << 16
"""Entries of a cost matrix whose median is its unit."""

TileCost = Callable[[Any, Any], Float[Array, "t m"]]
"""(tile of rows, columns) -> their costs."""


class Problem(NamedTuple):
    """Costs, weights and strengths that determine a plan, in the frame of the problem.

    Attributes:
        rows: input of the cost with n rows: points, or costs themselves.
        columns: input of the cost for all m columns: points, or ().
        a: (n,) weights of the rows; rows of weight 0 take no part.
        b: (m,) weights of the columns.
        epsilon: () strength of the entropy (units of the cost).
        rho_a: () penalty on KL(P1 | a) (units of the cost), or None for P1 = a.
        rho_b: () penalty on KL(Pᵀ1 | b), or None for Pᵀ1 = b.
        constant_a: (n,) constants subtracted from the costs of the rows; with a penalty only, which is on the full
            potential.
        constant_b: (m,) constants subtracted from the costs of the columns; with a penalty only.
        log_mass: () log of the unit of the weights, which lowers the sum of the full potentials by ε·log_mass.
        devices: `folds.RowDevices` where the rows are spread over a mesh; None on one device.
    """

    rows: Any
    columns: Any
    a: Float[Array, " n"]
    b: Float[Array, " m"]
    epsilon: Float[Array, ""]
    rho_a: Float[Array, ""] | None
    rho_b: Float[Array, ""] | None
    constant_a: Float[Array, " n"] | Absent
    constant_b: Float[Array, " m"] | Absent
    log_mass: Float[Array, ""]
    devices: Any = None

    def full_f(self, f: Float[Array, " n"]) -> Float[Array, " n"]:
        """Potentials of the rows of the costs before constants were subtracted (units of the frame)."""
        return f + self.constant_a - self.epsilon * (self.log_mass / 2)

    def full_g(self, g: Float[Array, " m"]) -> Float[Array, " m"]:
        """Potentials of the columns of the costs before constants were subtracted (units of the frame)."""
        return g + self.constant_b - self.epsilon * (self.log_mass / 2)


class Units(NamedTuple):
    """Frame of a problem: its costs are (C − c − d)·2^-exponent, its weights w·2^-mass.

    Attributes:
        c: (n,) constant of each row of the costs, in the caller's units.
        d: (m,) constant of each column.
        exponent: exponent of the costs.
        mass: exponent of the weights.
        a: (n,) the caller's weights.
        b: (m,) the caller's weights.
        epsilon: the caller's ε.
        dtype: dtype of the results: float64 where the arguments were float64 or integers, else float32.
    """

    c: Float[Any, " n"]
    d: Float[Any, " m"]
    exponent: Any
    mass: Any
    a: Float[Any, " n"]
    b: Float[Any, " m"]
    epsilon: Any
    dtype: np.dtype


class CheckedProblem(NamedTuple):
    """A checked problem, its cost, its numbers of rows and columns without padding, and its units."""

    problem: Problem
    cost: TileCost
    n: int
    m: int
    units: Units


def points_problem(x, y, *, a, b, cost, epsilon, rho_a, rho_b, wide: bool = False) -> CheckedProblem:
    """Checked problem between two sets of points, in a frame; concrete points are padded to `padded_size`.

    Args:
        wide: True computes in float64.

    Raises:
        ValueError, TypeError: see `check_problem`, and rows of different widths.
    """
    x, y = validation.check_matrix(x), validation.check_matrix(y, name="y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns and y has {y.shape[1]}; a cost needs both in the same space.")
    for name, rows in (("x", x), ("y", y)):
        if not validation.is_traced(rows):
            validation.check_finite(np.asarray(rows), name=name)
    sizes = len(x), len(y)
    a, b, rho_a, rho_b = check_problem(a, b, *sizes, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    metric = distance.plain_metric(cost)
    function = tile_cost(cost)
    if metric == "haversine":
        distance.check_haversine(x)
    dtype = np.promote_types(published_dtype(x), published_dtype(y))
    if wide:
        x, y = (np.asarray(rows, np.float64) for rows in (x, y))
    left, right, exponent, constants = _points_in_frame(x, y, metric)
    if callable(cost):
        _check_callable(function, left, right)
    return _in_frame(left, right, function, sizes, (a, b, epsilon, rho_a, rho_b), constants, exponent, dtype)


def matrix_problem(costs, *, a, b, epsilon, rho_a, rho_b, constants=None, wide: bool = False) -> CheckedProblem:
    """Checked problem of a cost matrix; a concrete one is padded to `padded_size` by costs of 0 at weight 0.

    Args:
        constants: (n,) and (m,) numbers to subtract from the costs, such as potentials; None for the least of each
            row and column.
        wide: True computes in float64.

    Raises:
        ValueError, TypeError: see `check_problem`; costs that are not 2-D, not real numbers, NaN or -inf, and where;
            a row or column of +inf alone whose weight must move.
    """
    costs = validation.check_matrix(costs, name="costs")
    if concrete := not validation.is_traced(costs):
        _check_costs(np.asarray(costs))
    n, m = costs.shape
    a, b, rho_a, rho_b = check_problem(a, b, n, m, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    live = (
        None
        if validation.is_traced(a, b)
        else [np.ones(size, bool) if w is None else w > 0 for w, size in ((a, n), (b, m))]
    )
    published, dtype = published_dtype(costs), np.dtype(np.float64) if wide else float_dtype(costs.dtype)
    if concrete and not validation.is_traced(constants):
        costs = np.asarray(costs, np.float64)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            if constants is None:
                if live is not None:
                    _check_reachable(costs, live, (a, b), (rho_a, rho_b))
                constants = _least_constants(np, costs, *(live or (np.ones(n, bool), np.ones(m, bool))))
                exponent = _cost_exponent(costs, constants, live)
            else:
                constants = [np.asarray(each, np.float64) for each in constants]
                exponent = 0 if validation.is_traced(epsilon) else math.frexp(float(epsilon))[1]
            costs, rest = sum_and_rounding(costs, -constants[0][:, None], -constants[1][None, :])
            costs = np.ldexp(costs + np.where(np.isfinite(rest), rest, 0), -exponent)
        costs = np.where(np.isposinf(costs), np.inf, np.minimum(costs, 2.0**MAX_COST_EXPONENT))
        if live is not None:
            costs = np.pad(costs, [(0, padded_size(size) - size) for size in (n, m)])
        costs = jnp.asarray(costs, dtype)
    else:
        costs, exponent = jnp.asarray(costs, dtype), 0
        if constants is None:
            constants = jax.lax.stop_gradient(_least_constants(jnp, costs, jnp.ones(n, bool), jnp.ones(m, bool)))
        constants = [jnp.asarray(each).astype(dtype) for each in constants]
        # A forbidden pair is left out before: its rounding is NaN, which jax_debug_nans sees where nothing is compiled.
        allowed = jnp.isfinite(costs)
        rounded = sum_and_rounding(jnp.where(allowed, costs, 0), -constants[0][:, None], -constants[1][None, :])
        costs = jnp.where(allowed, sum(rounded), costs)
    return _in_frame(costs, (), matrix_tile, (n, m), (a, b, epsilon, rho_a, rho_b), constants, exponent, published)


def check_problem(a, b, n, m, *, epsilon, rho_a, rho_b):
    """Check of weights, ε and penalties.

    Returns:
        The two weights, concrete ones as NumPy arrays, and the two penalties, None for infinite ones.

    Raises:
        ValueError, TypeError: epsilon or a penalty that is not above 0; weights that are negative, not finite, all zero
            or of the wrong shape; different sums of weights that are both fixed.
    """
    validation.check_positive("epsilon", epsilon)
    rho_a, rho_b = _check_penalty("rho_a", rho_a), _check_penalty("rho_b", rho_b)
    a, b = _check_marginal("a", a, n), _check_marginal("b", b, m)
    if rho_a is None and rho_b is None and not validation.is_traced(a, b):
        sums = [1.0 if side is None else float(np.sum(side, dtype=float)) for side in (a, b)]
        if abs(sums[0] - sums[1]) > MASS_TOLERANCE * max(sums):
            raise ValueError(
                f"a sums to {sums[0]:.9g} and b to {sums[1]:.9g}; no plan can have both as its sums. Scale one to the "
                "other (None stands for equal weights that sum to 1), or pass rho_a= and rho_b= to let them differ."
            )
    return a, b, rho_a, rho_b


def _check_penalty(name, rho):
    if rho is None:
        return None
    validation.check_positive(name, rho)
    # An infinite penalty fixes the marginal.
    return None if not validation.is_traced(rho) and np.isposinf(np.asarray(rho)) else rho


def _check_marginal(name, weights, n):
    if weights is None:
        return None
    if not validation.is_traced(weights):
        return validation.check_weights(weights, n, name=name)
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
            "+infinity forbids a pair; a cost of -infinity has no meaning."
        )
    if not np.isfinite(costs).all():
        validation.check_finite(np.where(np.isposinf(costs), 0, costs), name="costs")


def _check_callable(cost: TileCost, x: Any, y: Any) -> None:
    """Raise unless ``cost`` maps (2, d) and (3, d) points to (2, 3) real numbers; nothing is computed."""

    def rows(like, count):
        return jax.ShapeDtypeStruct((count, like.shape[1]), like.dtype)

    result = jax.eval_shape(cost, rows(x, 2), rows(y, 3))
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", None)
    if shape != (2, 3) or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"cost must map (t, d) and (m, d) rows to (t, m) real costs; of (2, d) and (3, d) it made "
            f"shape {shape} of {dtype}."
        )


def _check_reachable(costs, live, weights, penalties):
    """Raise ValueError for mass that must move and has all costs infinite."""
    if not np.isposinf(costs).any():
        return
    names = (("row", "a", "b"), ("column", "b", "a"))
    for side, own, other, weight, penalty, (kind, name, others) in zip(
        (costs, costs.T), live, live[::-1], weights, penalties, names, strict=True
    ):
        stuck = np.flatnonzero(own & ~np.isfinite(side[:, other]).any(axis=1))
        if penalty is None and stuck.size:
            mass = 1 / len(side) if weight is None else weight[stuck[0]]
            raise ValueError(
                f"costs of {kind} {stuck[0]} are all infinite where {others} is positive, so that its weight "
                f"{name}[{stuck[0]}] = {mass:.6g} has nowhere to go. Give it weight 0, or pass rho_{name}= to let it "
                "stay."
            )


def _points_in_frame(x, y, metric):
    """Both sets of points in one frame.

    Returns:
        The points x, the points y, the exponent of their costs, and the constants of the costs.
    """
    degree = None if callable(metric) else HOMOGENEITY.get(metric)
    none = [
        jnp.zeros((len(rows),), float_dtype(rows.dtype)) if validation.is_traced(x, y) else np.zeros(len(rows))
        for rows in (x, y)
    ]
    if degree is None:
        return *_in_one_dtype(_padded_rows(x), _padded_rows(y)), 0, none
    if metric == "cosine":
        left, right = prepare(x, unit_rows=True), prepare(y, unit_rows=True)
        return *_in_one_dtype(left.points.x, right.points.x), 0, none
    left = prepare(x, center=degree > 0)
    own_origins = metric == "sqeuclidean"
    right = prepare(y, frame=None if own_origins else left.frame)
    exponents = left.frame.exponent, right.frame.exponent
    exponent = min(exponents) if not validation.is_traced(exponents) else jnp.minimum(*map(jnp.asarray, exponents))
    points = [
        times_power_of_two(each.points.x, exponent - own) for each, own in zip((left, right), exponents, strict=True)
    ]
    constants = _origin_constants(x, y, left.frame, right.frame, points, exponent) if own_origins else none
    return *_in_one_dtype(*points), -degree * exponent, constants


def _origin_constants(x, y, left: Frame, right: Frame, points, exponent):
    """Constants of squared distances between points about two origins."""
    # ‖x − y‖² = ‖x̂ − ŷ‖² + c + d with x̂ and ŷ about origins that are Δ apart: c = 2x̂·Δ + Δ², d = −2ŷ·Δ. Sets that are
    # far apart then lose no digits to one common origin.
    if not validation.is_traced(x, y, left, right):
        origins = [np.asarray(frame.origin, np.float64) for frame in (left, right)]
        delta = origins[0] - origins[1]
        with np.errstate(over="ignore"):
            return (
                2 * (np.asarray(x, np.float64) - origins[0]) @ delta + delta @ delta,
                -2 * (np.asarray(y, np.float64) - origins[1]) @ delta,
            )
    left_points, right_points = _in_one_dtype(*points)
    delta = jnp.asarray(left.origin).astype(left_points.dtype) - jnp.asarray(right.origin).astype(left_points.dtype)
    delta = jax.lax.stop_gradient(times_power_of_two(delta, exponent))
    constants = (
        2 * distance.inner_products(left_points[: len(x)], delta[None, :])[:, 0] + jnp.sum(jnp.square(delta)),
        -2 * distance.inner_products(right_points[: len(y)], delta[None, :])[:, 0],
    )
    return [times_power_of_two(each, -2 * exponent) for each in constants]


def _padded_rows(x):
    """Points as they are, concrete ones padded to `padded_size` by copies of the first."""
    dtype = float_dtype(x.dtype)
    if validation.is_traced(x):
        return x.astype(dtype)
    x = np.asarray(x, dtype)
    return jnp.asarray(np.concatenate([x, np.broadcast_to(x[:1], (padded_size(len(x)) - len(x), x.shape[1]))]))


def _in_one_dtype(left, right):
    dtype = np.promote_types(left.dtype, right.dtype)
    return left.astype(dtype), right.astype(dtype)


def _least_constants(xp, costs, live_a, live_b):
    """Constants (c, d) of rows and columns that leave no cost below 0, and a 0 in each row."""

    def least(values, axis):
        values = xp.min(
            xp.where(live_b[None, :], values, xp.inf) if axis == 1 else xp.where(live_a[:, None], values, xp.inf),
            axis=axis,
        )
        return xp.where(xp.isfinite(values), values, 0)

    c = least(costs, 1)
    d = least(costs - c[:, None], 0)
    return c + least(costs - c[:, None] - d[None, :], 1), d


def _cost_exponent(costs, constants, live):
    """Exponent of the median of the positive finite costs less their constants."""
    rows, columns = (
        np.arange(size) if mask is None else np.flatnonzero(mask)
        for size, mask in zip(costs.shape, live or (None, None), strict=True)
    )
    step = max(1, math.isqrt(max(1, len(rows) * len(columns) // MEDIAN_SAMPLE)))
    rows, columns = rows[::step], columns[::step]
    sample = costs[np.ix_(rows, columns)] - constants[0][rows, None] - constants[1][None, columns]
    positive = sample[(sample > 0) & np.isfinite(sample)]
    return int(np.frexp(np.median(positive))[1]) if positive.size else 0


def _in_frame(rows, columns, cost, sizes, numbers, constants, exponent, published):
    """Checked problem with its weights and strengths in the frame of its costs."""
    a, b, epsilon, *strengths = numbers
    dtype = jax.tree.leaves(rows)[0].dtype
    padded = rows.shape[0], (rows.shape[1] if cost is matrix_tile else columns.shape[0])
    (a_inside, b_inside), (a, b), mass = _weights(a, b, sizes, padded, strengths, dtype, published)
    inside = jnp.maximum(scaled(epsilon, -exponent, dtype), jnp.finfo(dtype).tiny)
    rho_a, rho_b = (None if rho is None else scaled(rho, -exponent, dtype) for rho in strengths)
    constant_a, constant_b = (
        None if rho is None else scaled(_padded(constant, size), -exponent, dtype)
        for rho, constant, size in zip((rho_a, rho_b), constants, padded, strict=True)
    )
    log_mass = jnp.asarray(mass).astype(dtype) * math.log(2)
    problem = Problem(rows, columns, a_inside, b_inside, inside, rho_a, rho_b, constant_a, constant_b, log_mass)
    (c, d), (n, m) = constants, sizes
    return CheckedProblem(problem, cost, n, m, Units(c, d, exponent, mass, a, b, epsilon, np.dtype(published)))


def _weights(a, b, sizes, padded, penalties, dtype, published) -> tuple[Any, Any, Any]:
    """Weights in the frame, weights as published, and the exponent of their unit: the sum of fixed ones."""
    if validation.is_traced(a, b):
        sides = [
            jnp.full((n,), 1 / n, dtype) if w is None else jnp.asarray(w).astype(dtype)
            for w, n in zip((a, b), sizes, strict=True)
        ]
        exponents = [_nearest_exponent(jnp, jnp.sum(jax.lax.stop_gradient(side))) for side in sides]
        mass = _mass(exponents, penalties)
        return (
            [_padded(times_power_of_two(side, -mass), size) for side, size in zip(sides, padded, strict=True)],
            sides,
            mass,
        )
    sides = [np.full(n, 1 / n) if w is None else np.asarray(w, np.float64) for w, n in zip((a, b), sizes, strict=True)]
    mass = _mass([int(_nearest_exponent(np, side.sum())) for side in sides], penalties)
    inside = [np.pad(np.ldexp(side, -mass), (0, size - len(side))) for side, size in zip(sides, padded, strict=True)]
    return [jnp.asarray(side, dtype) for side in inside], [side.astype(published) for side in sides], mass


def _nearest_exponent(xp, total):
    """Exponent of the power of two nearest to a sum."""
    # 0 for a sum of about 1, so that no term ε·log 2 has to cancel.
    mantissa, exponent = xp.frexp(total)
    return xp.where(mantissa > 0.7, exponent, exponent - 1)


def _mass(exponents, penalties):
    fixed = [exponent for exponent, penalty in zip(exponents, penalties, strict=True) if penalty is None]
    return fixed[0] if fixed else (exponents[0] + exponents[1]) // 2


def scaled(value: Any, exponent: Any, dtype) -> Array:
    """Product value·2^exponent in this dtype, concrete numbers by way of float64."""
    if validation.is_traced(value, exponent):
        return times_power_of_two(jnp.asarray(value).astype(dtype), exponent)
    with np.errstate(over="ignore", under="ignore"):
        return jnp.asarray(np.ldexp(np.asarray(value, np.float64), exponent).astype(dtype))


def _padded(values, size):
    # Concrete values on the host: jnp.pad would compile a program for each number of them.
    pad = jnp.pad if isinstance(values, jax.Array) else np.pad
    return pad(values, (0, size - values.shape[0]))


# -- costs -------------------------------------------------------------------------------------------------------------


def tile_cost(cost: str | Callable) -> TileCost:
    """Cost function of tiles, by name or callable; the same object each time, so that nothing compiles twice.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    return sqeuclidean_tile if cost == "sqeuclidean" else distance.metric_function(cost)


def exact_tile(cost: TileCost) -> TileCost:
    """The same cost by differences of points, for costs that expand squares."""
    return {sqeuclidean_tile: differences.squared_distances, distance.euclidean: differences.distances}.get(cost, cost)


def sqeuclidean_tile(x: Float[Array, "t d"], y: Float[Array, "m d"]) -> Float[Array, "t m"]:
    """Squared distances of centered points, by one matrix product in many columns."""
    if x.shape[1] <= distance.DIFFERENCE_COLUMNS:
        return distance.sqeuclidean(x, y)
    return distance.expanded_sqeuclidean(x, y, distance.squared_norms(x))


def matrix_tile(rows: Float[Array, "t m"], columns: tuple) -> Float[Array, "t m"]:
    """Rows of a cost matrix, which are their own costs."""
    return rows


def split(costs: Float[Array, "t m"]) -> tuple[Float[Array, "t m"], Bool[Array, "t m"]]:
    """Separate the forbidden pairs, as no derivative may see an infinite number.

    Returns:
        The costs with 0 in place of +inf, and the mask of these.
    """
    forbidden = jnp.isposinf(costs)
    return jnp.where(forbidden, 0, costs), forbidden


def logits_of(costs: Float[Array, "t m"], potential: Array, epsilon: Array) -> Float[Array, "t m"]:
    """Logits (potential − C)/ε, -inf for forbidden pairs."""
    finite, forbidden = split(costs)
    return jnp.where(forbidden, -jnp.inf, (potential - finite) / epsilon)

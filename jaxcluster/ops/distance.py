"""Distances between the rows of two matrices.

Every function takes (n, d) and (m, d) and returns (n, m), the whole matrix: pass tiles of rows. The definitions are
those of ``scipy.spatial.distance``, and scikit-learn's where those have 0/0.

>>> import jax.numpy as jnp
>>> euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
[[5.0, 0.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import exponent_of, times_power_of_two
from jaxcluster.core.fold import map_rows
from jaxcluster.types import Array, Bool, Float, Int, Num

HIGHEST = jax.lax.Precision.HIGHEST
"""Precision of matrix products in full float32: accelerators round their factors to fewer bits by default."""

DIFFERENCE_COLUMNS = 8
"""Number of columns up to which differences are as fast as a matrix product; they do not cancel."""

COLUMN_GROUP = 16
"""Columns whose differences are added up in one pass over the distances (on a CPU 3 times as fast as one by one)."""

RELATIVE_ERROR = 1e-4
"""Rounding error of a squared distance, relative to the distance, above which it is computed from differences."""

ORIGIN_SAMPLE = 32
"""Number of rows whose median is the origin of expanded squares."""

LARGEST_POWER = 2.0**60
"""Power p above which Minkowski's distance is Chebyshev's: m^(1/p) rounds to 1 for any number m of columns."""

DIFFERENCE_TILE = 2048
"""Number of rows whose differences from their centers stay in a core's cache."""


def matrix_precision(precision: str | None) -> jax.lax.Precision:
    """Precision of matrix products: full by default, the platform's fastest for ``"fast"``."""
    validation.check_choice("precision", "full" if precision is None else precision, ["full", "fast"])
    return jax.lax.Precision.DEFAULT if precision == "fast" else HIGHEST


def inner_products(x: Float[Array, "n d"], y: Float[Array, "m d"], precision=HIGHEST) -> Float[Array, "n m"]:
    """Inner products of all pairs of rows."""
    return jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=precision)


def squared_norms(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Squared Euclidean length of each row."""
    return jnp.sum(jnp.square(x), axis=-1)


def sqeuclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, same: Bool[Array, "n m"] | None = None
) -> Float[Array, "n m"]:
    """Squared Euclidean distances (data units²), never negative.

    In more than `DIFFERENCE_COLUMNS` columns this is ‖x‖² − 2x·y + ‖y‖², which cancels far from the origin: see
    `refined_sqeuclidean`.

    Args:
        x, y: rows.
        same: (n, m) mask of pairs that are one row, at distance 0.
    """
    if x.shape[1] <= DIFFERENCE_COLUMNS:
        squares = squared_differences(x, y)
        return squares if same is None else jnp.where(same, 0, squares)
    return refined_sqeuclidean(x, y, _origin(y), same)


def expanded_sqeuclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"], norms: Float[Array, " n"], *, precision=HIGHEST
) -> Float[Array, "n m"]:
    """Expanded squares ‖x‖² − 2x·y + ‖y‖² of centered rows, never negative; ``norms`` are the ‖x‖²."""
    expanded = norms[:, None] - 2 * inner_products(x, y, precision) + squared_norms(y)[None, :]
    return jnp.maximum(expanded, 0)


@jax.custom_jvp
def refined_sqeuclidean(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    origin: Float[Array, " d"] | None = None,
    same: Bool[Array, "n m"] | None = None,
) -> Float[Array, "n m"]:
    """Squared distances from a matrix product where it is exact enough, else all of them from differences.

    Expanded about an origin a squared distance is rounded by about eps·(‖x‖² + ‖y‖²). Where that is more than
    `RELATIVE_ERROR` of any of them, all are computed again: rows too far apart for one origin are seldom few.

    Args:
        x, y: rows.
        origin: (d,) of the expansion, near the rows; None for 0. The result does not depend on it, and has no
            derivative with respect to it.
        same: (n, m) mask of pairs that are one row, at distance 0, which need no differences.
    """
    shifted_x, shifted_y = (x, y) if origin is None else (x - origin[None, :], y - origin[None, :])
    norms = squared_norms(shifted_x)
    squares = expanded_sqeuclidean(shifted_x, shifted_y, norms)
    squares = squares if same is None else jnp.where(same, 0, squares)
    rounded = _is_rounded(squares, norms, squared_norms(shifted_y), same)
    # From x and y themselves: the shift to the origin has rounded the others.
    squares = at_most_once(rounded, lambda squares: squared_differences(x, y), squares)
    return squares if same is None else jnp.where(same, 0, squares)


@refined_sqeuclidean.defjvp
def _refined_sqeuclidean_jvp(primals, tangents):
    """Derivative 2(x − y)·(dx − dy), which cancels where the square does."""
    x, y, origin, same = primals
    dx, dy, _, _ = tangents
    squares = refined_sqeuclidean(x, y, origin, same)
    shifted_x, shifted_y = (x, y) if origin is None else (x - origin[None, :], y - origin[None, :])

    def expanded(x, y, shifted_x, shifted_y, dx, dy):
        diagonal = jnp.sum(shifted_x * dx, axis=1)[:, None] + jnp.sum(shifted_y * dy, axis=1)[None, :]
        return 2 * (diagonal - inner_products(shifted_x, dy) - inner_products(dx, shifted_y))

    def by_differences(x, y, shifted_x, shifted_y, dx, dy):
        return over_columns(lambda a, da, b, db: 2 * (a - b) * (da - db), (x, dx), (y, dy))

    constant = jax.lax.stop_gradient((squares, squared_norms(shifted_x), squared_norms(shifted_y)))
    rounded = _is_rounded(*constant, same)
    tangent = jax.lax.cond(rounded, by_differences, expanded, x, y, shifted_x, shifted_y, dx, dy)
    return squares, tangent if same is None else jnp.where(same, 0, tangent)


def _is_rounded(squares, norms_x, norms_y, same):
    """True where eps·(‖x‖² + ‖y‖²) > `RELATIVE_ERROR`·‖x − y‖² for any pair."""
    ratio = jnp.finfo(squares.dtype).eps / RELATIVE_ERROR
    # The least of each row, not any of all pairs: XLA's CPU takes a minimum of numbers in vectors, but no "or".
    slack = squares - ratio * norms_y[None, :]
    slack = slack if same is None else jnp.where(same, jnp.asarray(jnp.inf, slack.dtype), slack)
    return jnp.any(jnp.min(slack, axis=1) < ratio * norms_x)


def at_most_once(condition: Bool[Array, ""], function: Callable[[Any], Any], state: Any) -> Any:
    """``function(state)`` where the condition holds, else ``state``.

    A loop, not a cond: under vmap a cond always computes both of its branches.
    """

    def once(carry):
        return carry[0] & False, function(carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], once, (condition, state))[1]


def euclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, same: Bool[Array, "n m"] | None = None
) -> Float[Array, "n m"]:
    """Euclidean distances (data units), of any size. The gradient at distance 0 is 0, not NaN.

    Args:
        x, y: rows.
        same: (n, m) mask of pairs that are one row, at distance 0.
    """
    exponent = _scale_exponent(x, y)
    distances = _safe_root(sqeuclidean(times_power_of_two(x, exponent), times_power_of_two(y, exponent), same=same), 2)
    return times_power_of_two(distances, -exponent)


def cosine(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, same: Bool[Array, "n m"] | None = None
) -> Float[Array, "n m"]:
    """1 − cos of the angle, in [0, 2]; a row of zeros is at distance 1 from every row.

    Half the squared distance on the unit sphere: 1 − x·y cancels for small angles.

    Args:
        x, y: rows.
        same: (n, m) mask of pairs that are one row, at distance 0.
    """
    x, y = normalize(x), normalize(y)
    return _half_squares(x, y, same)


def correlation(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, same: Bool[Array, "n m"] | None = None
) -> Float[Array, "n m"]:
    """1 − Pearson's correlation, in [0, 2]; a row of equal entries is at distance 1 from every row.

    Args:
        x, y: rows.
        same: (n, m) mask of pairs that are one row, at distance 0.
    """
    return _half_squares(_standardized(x), _standardized(y), same)


def _standardized(x):
    """Rows of mean 0 and length 1."""
    x = _near_one(x)
    # Less the first entry first: a mean far from 0 would be rounded, and so would the entries less it.
    x = x - x[:, :1]
    return normalize(x - jnp.mean(x, axis=1, keepdims=True))


def _half_squares(x, y, same):
    """Half the squared distances of unit rows; 1 from and to rows of zeros."""
    zero = ~(jnp.any(x != 0, axis=1)[:, None] & jnp.any(y != 0, axis=1)[None, :])
    # No origin is nearer to unit rows than 0. Pairs with a row of zeros need no differences.
    exact = zero if same is None else same | zero
    squares = squared_differences(x, y) if x.shape[1] <= DIFFERENCE_COLUMNS else refined_sqeuclidean(x, y, None, exact)
    distances = jnp.where(zero, 1, jnp.minimum(squares / 2, 2))
    return distances if same is None else jnp.where(same, 0, distances)


def manhattan(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Σ|x − y| (data units)."""
    return over_columns(lambda a, b: jnp.abs(a - b), (x,), (y,))


def chebyshev(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """max|x − y| (data units)."""
    return over_columns(lambda a, b: jnp.abs(a - b), (x,), (y,), jnp.maximum)


def minkowski(x: Float[Array, "n d"], y: Float[Array, "m d"], *, p: float = 2.0) -> Float[Array, "n m"]:
    """(Σ|x − y|^p)^(1/p) for p >= 1 (data units)."""
    if p >= LARGEST_POWER:
        return chebyshev(x, y)
    # Differences relative to the largest: no power overflows. The result does not depend on this unit, so it is a
    # constant for derivatives.
    largest = jax.lax.stop_gradient(chebyshev(x, y))
    unit = jnp.where(largest > 0, largest, 1)
    sums = over_columns(lambda a, b: (jnp.abs(a - b) / unit) ** p, (x,), (y,))
    return unit * _safe_root(sums, p)


def canberra(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Σ|x − y| / (|x| + |y|) over the columns in which not both are 0."""

    def term(a, b):
        total = jnp.abs(a / 2) + jnp.abs(b / 2)  # halves, which do not overflow
        return jnp.where(total > 0, jnp.abs(a / 2 - b / 2) / jnp.where(total > 0, total, 1), 0)

    return over_columns(term, (x,), (y,))


def braycurtis(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Σ|x − y| / Σ|x + y|; 0 for two rows of zeros, infinite for a row and its negative."""
    difference, total = over_columns(lambda a, b: (jnp.abs(a - b), jnp.abs(a + b)), (x,), (y,))
    quotient = difference / jnp.where(total > 0, total, 1)
    return jnp.where(total > 0, quotient, jnp.where(difference > 0, jnp.inf, 0))


def hamming(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Fraction of the columns that differ."""
    return over_columns(lambda a, b: (a != b).astype(x.dtype), (x,), (y,)) / x.shape[1]


def jaccard(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Fraction, of the columns in which not both rows are 0, of those in which one is; 0 if there are none."""

    def term(a, b):
        return ((a != 0) ^ (b != 0)).astype(x.dtype), ((a != 0) | (b != 0)).astype(x.dtype)

    one, either = over_columns(term, (x,), (y,))
    return one / jnp.maximum(either, 1)


def haversine(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Angle (radians) between places on a sphere, from latitude and longitude in radians.

    Raises:
        ValueError: not two columns.
    """
    check_haversine(x)
    latitude, longitude = (x[:, j, None] - y[None, :, j] for j in (0, 1))
    both = jnp.cos(x[:, 0])[:, None] * jnp.cos(y[:, 0])[None, :]
    half = jnp.square(jnp.sin(latitude / 2)) + both * jnp.square(jnp.sin(longitude / 2))
    opposite = half >= 1  # by rounding it may be more, and the derivative of the arcsine is infinite there
    root = _safe_root(jnp.where(opposite, 0, half), 2)
    return 2 * jnp.where(opposite, np.pi / 2, jnp.arcsin(root))


METRICS: dict[str, Callable[..., Float[Array, "n m"]]] = {
    "sqeuclidean": sqeuclidean,
    "euclidean": euclidean,
    "l2": euclidean,
    "cosine": cosine,
    "correlation": correlation,
    "manhattan": manhattan,
    "cityblock": manhattan,
    "l1": manhattan,
    "chebyshev": chebyshev,
    "minkowski": minkowski,
    "canberra": canberra,
    "braycurtis": braycurtis,
    "hamming": hamming,
    "jaccard": jaccard,
    "haversine": haversine,
}

GOWER = "gower"
"""Metric of tables of numbers and categories, by the functions of `jaxcluster.ops.gower` on encoded rows."""

REFINED = (sqeuclidean, euclidean, cosine, correlation)
"""Functions with an argument ``same``: without it a row's distance to itself has them compute all by differences."""

TRANSLATION_INVARIANT = ("sqeuclidean", "euclidean", "manhattan", "chebyshev", "minkowski")
"""Metrics, by their plain names, that depend on differences of rows alone: rows may be centered."""


def plain_metric(metric: str | Callable, p: float = 2.0, *, also: tuple[str, ...] = ()) -> str | Callable:
    """Canonical name of a metric: "l1" and "minkowski" with p = 1 are "manhattan", and so on.

    Args:
        metric: a name in `METRICS` or ``also``, or a callable, which is returned unchanged.
        p: power of "minkowski", at least 1; infinity is "chebyshev".
        also: other names that are allowed.

    Raises:
        ValueError, TypeError: an unknown name, with the known ones listed, or p < 1.
    """
    if callable(metric):
        return metric
    names = [*METRICS, *also]
    if metric == GOWER and GOWER not in also:
        raise ValueError(
            "metric='gower' is for tables, in the estimators and the silhouettes. In a function pass the rows "
            "jaxcluster.metrics.gower_rows(table) and metric=jaxcluster.ops.gower.gower."
        )
    if metric not in names:
        try:
            validation.check_choice("metric", metric, names)
        except ValueError as error:
            raise ValueError(
                f"{error} For any other pass a function of two matrices of rows, (n, d) and (m, d), that gives (n, m) "
                "distances, or metric='precomputed' and the distances where that is taken."
            ) from None
    if metric == "minkowski":
        validation.check_positive("p", p)
        if not p >= 1:
            raise ValueError(f"p={p} must be at least 1: below it Minkowski's formula is not a metric.")
        power = float(p)
        return {1.0: "manhattan", 2.0: "euclidean"}.get(power, "chebyshev" if power >= LARGEST_POWER else metric)
    return {"l1": "manhattan", "cityblock": "manhattan", "l2": "euclidean"}.get(metric, metric)


def metric_function(metric: str | Callable, *, p: float = 2.0) -> Callable[..., Float[Array, "n m"]]:
    """Distance function of a name in `METRICS` ("minkowski" takes p), or the callable itself.

    Raises:
        ValueError, TypeError: see `plain_metric`.
    """
    metric = plain_metric(metric, p)
    if callable(metric):
        return metric
    return partial(minkowski, p=float(p)) if metric == "minkowski" else METRICS[metric]


def distances_between(
    function: Callable[..., Float[Array, "n m"]],
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    same: Bool[Array, "n m"],
) -> Float[Array, "n m"]:
    """Distances by a function of `metric_function`, 0 for the pairs that are the same row."""
    return function(x, y, same=same) if function in REFINED else jnp.where(same, 0, function(x, y))


def check_haversine(x: Any) -> None:
    """Raise ValueError unless there are two columns."""
    if x.shape[-1] != 2:
        raise ValueError(
            f"metric='haversine' takes latitude and longitude in radians, 2 columns, and x has {x.shape[-1]}. "
            "Pass those two, np.deg2rad of degrees."
        )


def distances_to_assigned(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], labels: Int[Array, " n"], *, spherical: bool = False
) -> Float[Array, " n"]:
    """Squared distance (data units²) of each row to the center of its label, from differences.

    Expanded squares would cancel for tight clusters. Spherical: 1 − cos, for unit rows and centers.
    """
    k, d = centers.shape
    # n×k is then so small beside n×d that building it costs next to nothing.
    few = k <= 16 and 8 * k <= d

    def tile(rows):
        x, labels = rows
        # A product with a one-hot matrix is exact, and fuses where a gather of wide rows does not.
        assigned = inner_products(jax.nn.one_hot(labels, k, dtype=x.dtype), centers.T) if few else centers[labels]
        squares = jnp.sum(jnp.square(x - assigned), axis=1)
        return _cosine_from_squares(x, assigned, squares) if spherical else squares

    return map_rows(tile, (x, labels), tile=None if few else DIFFERENCE_TILE)


def _cosine_from_squares(x, y, squares):
    """1 − x·y of unit rows; 1 where one is a row of zeros.

    The value is half the squared distance, since 1 − x·y cancels; the derivative is that of −x·y.
    """
    products = jnp.sum(x * y, axis=1)
    zero = ~(jnp.any(x != 0, axis=1) & jnp.any(y != 0, axis=1))
    distances = jax.lax.stop_gradient(jnp.where(zero, 1, squares / 2))
    return distances - (products - jax.lax.stop_gradient(products))


def normalize(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Rows scaled to length 1, whatever their length; rows of zeros stay zero.

    Each row is brought near 1 by a power of two of its own before it is squared: the square of a length beyond 2⁶⁴ is
    infinite in float32, and that of one below 2⁻⁶³ is 0. A row's derivative is that of x/‖x‖: about 1/‖x‖.
    """
    near_one = _near_one(x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32))
    norms = jnp.sum(jnp.square(near_one), axis=-1, keepdims=True)
    positive = norms > 0
    unit = near_one * jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, norms, 1)), 0)
    return unit.astype(x.dtype)


def _near_one(x):
    """Each row times the power of two that brings its largest absolute entry into [1, 2), from its bits.

    Subnormal numbers (below 2⁻¹²⁶ in float32) are zeros to XLA on a CPU, and are read from their bits too: the largest
    of them come to 2⁻²³ or more. The power of two is a constant for derivatives.
    """
    info = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.int64 if info.bits == 64 else jnp.int32)
    field = (bits >> info.nmant) & ((1 << info.nexp) - 1)
    exponent = jnp.max(jnp.maximum(field, 1), axis=-1, keepdims=True) - (info.maxexp - 1)
    scaled = times_power_of_two(x, -exponent)
    subnormal = (bits & ((1 << info.nmant) - 1)).astype(x.dtype) * 2.0**-info.nmant
    lifted = times_power_of_two(jnp.where(bits < 0, -subnormal, subnormal), info.minexp - exponent)
    # XLA may have kept these numbers (accelerators do): only what the product has lost of them is added.
    return scaled + jnp.where(field == 0, lifted - jax.lax.stop_gradient(scaled), 0)


def over_columns(
    term: Callable[..., Any], x: tuple[Num[Array, "n d"], ...], y: tuple[Num[Array, "m d"], ...], combine=jnp.add
) -> Any:
    """Combine ``term`` of each pair of columns: Σ_j term(x_j, y_j) for the default.

    Args:
        term: (n, 1) columns, one of each matrix of x, then (1, m) columns of y -> (n, m) matrices.
        x, y: (n, d) and (m, d) matrices.
        combine: an associative function of two (n, m) matrices.
    """
    d = x[0].shape[1]
    first = min(d, d % COLUMN_GROUP or COLUMN_GROUP)
    x, y = (tuple(part.T for part in side) for side in (x, y))

    @jax.checkpoint  # a reverse derivative computes a group again, and keeps no n×m matrix of each column
    def of_group(xs, ys):
        columns = (
            term(*(part[j][:, None] for part in xs), *(part[j][None, :] for part in ys)) for j in range(len(xs[0]))
        )
        return reduce(partial(jax.tree.map, combine), columns)

    def group(start, width):
        return of_group(*jax.tree.map(lambda part: jax.lax.dynamic_slice_in_dim(part, start, width), (x, y)))

    if d == first:
        return group(0, d)

    def advance(index, total):
        return jax.tree.map(combine, total, group(first + index * COLUMN_GROUP, COLUMN_GROUP))

    return jax.lax.fori_loop(0, (d - first) // COLUMN_GROUP, advance, group(0, first))


def squared_differences(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared distances from differences (data units²)."""
    return over_columns(lambda a, b: jnp.square(a - b), (x,), (y,))


def _origin(y):
    """Lower median, column by column, of a sample of rows: one far row cannot drag it away as it does a mean."""
    count = min(ORIGIN_SAMPLE, y.shape[0])
    sample = jax.lax.stop_gradient(y[np.arange(count) * y.shape[0] // count])
    return jnp.sort(sample, axis=0)[(count - 1) // 2]


def _scale_exponent(x, y):
    """Exponent that brings the largest entry to ⅜ of the range of exponents: squares neither overflow nor vanish."""
    largest = jnp.maximum(*(jnp.max(jnp.abs(jax.lax.stop_gradient(side))) for side in (x, y)))
    return 3 * jnp.finfo(x.dtype).maxexp // 8 - exponent_of(largest)


def _safe_root(value, p):
    """p-th root, with a gradient of 0 at 0: the inner select keeps the infinite slope out of the derivative."""
    positive = value > 0
    base = jnp.where(positive, value, 1)
    return jnp.where(positive, jnp.sqrt(base) if p == 2 else base ** (1 / p), 0)

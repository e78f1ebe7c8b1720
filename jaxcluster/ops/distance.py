"""Distances between the rows of two matrices, for tiles: they build n×m, so pass them tiles.

Every function takes (n, d) and (m, d) and returns (n, m). Source: the definitions of ``scipy.spatial.distance``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jaxcluster.core.check import check_choice
from jaxcluster.core.fold import map_rows
from jaxcluster.types import Array, Float, Int

FULL = jax.lax.Precision.HIGHEST

FEW_COLUMNS = 4
"""Up to this width differences are summed column by column: as fast as a matrix product, and free of cancellation."""

DIFFERENCE_TILE = 2048
"""Rows whose differences from their centres stay in a core's cache."""


def few_centers(k: int, d: int) -> bool:
    """Whether n×k is so small beside n×d that building it costs next to nothing."""
    return k <= 16 and 8 * k <= d


def matrix_precision(precision: str | None) -> jax.lax.Precision:
    """The precision of matrix products: full by default, the platform's fastest for ``"fast"``."""
    check_choice("precision", "full" if precision is None else precision, ["full", "fast"])
    return jax.lax.Precision.DEFAULT if precision == "fast" else FULL


def row_products(x: Float[Array, "n d"], y: Float[Array, "m d"], precision=FULL) -> Float[Array, "n m"]:
    """Inner products of all pairs of rows."""
    return jax.lax.dot_general(x, y, (((1,), (1,)), ((), ())), precision=precision)


def squared_norms(x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Squared Euclidean length of each row."""
    return jnp.sum(jnp.square(x), axis=-1)


def sqeuclidean(x: Float[Array, "n d"], y: Float[Array, "m d"], *, precision=FULL) -> Float[Array, "n m"]:
    """Squared Euclidean distances (data units²), never negative.

    Wider than a few columns this is ‖x‖² − 2x·y + ‖y‖², which cancels far from the origin: the rows are first moved
    so that the mean of y is the origin.
    """
    if x.shape[1] <= FEW_COLUMNS:
        return _sum_columns(lambda a, b: jnp.square(a - b), x, y)
    origin = jax.lax.stop_gradient(jnp.mean(y, axis=0))
    x, y = x - origin, y - origin
    return expanded_sqeuclidean(x, y, squared_norms(x), precision=precision)


def expanded_sqeuclidean(
    x: Float[Array, "n d"], y: Float[Array, "m d"], norms: Float[Array, " n"], *, precision=FULL
) -> Float[Array, "n m"]:
    """`sqeuclidean` of rows that are centred already and whose squared lengths are at hand: no copy of x is made."""
    expanded = norms[:, None] - 2 * row_products(x, y, precision) + squared_norms(y)[None, :]
    return jnp.maximum(expanded, 0)


def euclidean(x: Float[Array, "n d"], y: Float[Array, "m d"], *, precision=FULL) -> Float[Array, "n m"]:
    """Euclidean distances (data units). The gradient at distance 0 is 0, not NaN."""
    return _safe_root(sqeuclidean(x, y, precision=precision), 2)


def cosine(x: Float[Array, "n d"], y: Float[Array, "m d"], *, precision=FULL) -> Float[Array, "n m"]:
    """1 − cos of the angle, in [0, 2]; a row of zeros is at distance 1 from every row."""
    return jnp.clip(1 - row_products(normalize(x), normalize(y), precision), 0, 2)


def manhattan(x: Float[Array, "n d"], y: Float[Array, "m d"], *, precision=FULL) -> Float[Array, "n m"]:
    """Sums of absolute differences (data units)."""
    return _sum_columns(lambda a, b: jnp.abs(a - b), x, y)


def minkowski(x: Float[Array, "n d"], y: Float[Array, "m d"], *, p: float = 2.0, precision=FULL) -> Float[Array, "n m"]:
    """(Σ|x − y|^p)^(1/p) for p >= 1 (data units)."""
    return _safe_root(_sum_columns(lambda a, b: jnp.abs(a - b) ** p, x, y), p)


METRICS: dict[str, Callable[..., Float[Array, "n m"]]] = {
    "sqeuclidean": sqeuclidean,
    "euclidean": euclidean,
    "cosine": cosine,
    "manhattan": manhattan,
    "minkowski": minkowski,
}


def metric_function(metric: str | Callable, *, p: float = 2.0) -> Callable[..., Float[Array, "n m"]]:
    """The distance function of a name in `METRICS` ("minkowski" takes p), or the callable itself.

    Raises:
        ValueError: an unknown name, with the known ones listed, or p < 1.
    """
    if callable(metric):
        return metric
    check_choice("metric", metric, METRICS)
    if metric != "minkowski":
        return METRICS[metric]
    if p < 1:
        raise ValueError(f"p={p} must be at least 1: below it Minkowski's formula is not a metric.")
    return partial(minkowski, p=p)


def own_distances(
    x: Float[Array, "n d"], centers: Float[Array, "k d"], labels: Int[Array, " n"], *, spherical: bool = False
) -> Float[Array, " n"]:
    """Squared distance (data units²) of each row to the centre it is labelled with, from differences.

    Expanded squares would cancel for tight clusters. Spherical: 1 − cos, for unit rows and centres.
    """
    few = few_centers(*centers.shape)

    def tile(rows):
        x, labels = rows
        # A product with a one-hot matrix is exact, and fuses where a gather of wide rows does not.
        own = (
            row_products(jax.nn.one_hot(labels, centers.shape[0], dtype=x.dtype), centers.T) if few else centers[labels]
        )
        return 1 - jnp.sum(x * own, axis=1) if spherical else jnp.sum(jnp.square(x - own), axis=1)

    return map_rows(tile, (x, labels), tile=None if few else DIFFERENCE_TILE)


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
    """Each row times the power of two that brings its largest absolute entry into [1, 2), by its bits.

    Numbers below the least normal one (2⁻¹²⁶ in float32) are zeros to XLA on a CPU, and are read from their bits too:
    of them the largest come to 2⁻²³ or more. The power of two is a constant of the derivative.
    """
    info = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.int64 if info.bits == 64 else jnp.int32)
    field = (bits >> info.nmant) & ((1 << info.nexp) - 1)
    exponent = jnp.max(jnp.maximum(field, 1), axis=-1, keepdims=True) - (info.maxexp - 1)
    scaled = x * _power_of_two(-exponent, info)
    subnormal = (bits & ((1 << info.nmant) - 1)).astype(x.dtype) * 2.0**-info.nmant
    lifted = jnp.where(bits < 0, -subnormal, subnormal) * _power_of_two(info.minexp - exponent, info)
    # XLA may have kept these numbers (accelerators do): what is added is what the product has lost of them.
    return scaled + jnp.where(field == 0, lifted - jax.lax.stop_gradient(scaled), 0)


def _power_of_two(exponent, info):
    """2^exponent of the integers that bits of this float are read as, cut to normal numbers."""
    field = jnp.clip(exponent, info.minexp, info.maxexp - 1) + (info.maxexp - 1)
    return jax.lax.bitcast_convert_type(field << info.nmant, info.dtype)


def _sum_columns(term, x, y):
    def add(column, total):
        pick = partial(jax.lax.dynamic_index_in_dim, index=column, axis=1, keepdims=False)
        return total + term(pick(x)[:, None], pick(y)[None, :])

    first = term(x[:, :1], y[:, 0][None, :])
    if x.shape[1] <= FEW_COLUMNS:
        return sum((term(x[:, j, None], y[None, :, j]) for j in range(1, x.shape[1])), first)
    return jax.lax.fori_loop(1, x.shape[1], add, first)


def _safe_root(value, p):
    positive = value > 0
    return jnp.where(positive, jnp.where(positive, value, 1) ** (1 / p), 0)

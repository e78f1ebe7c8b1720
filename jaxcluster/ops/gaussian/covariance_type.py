"""Interface of a covariance type (full, tied, diagonal, spherical), and the helpers that all types share.

Samples are centered and transposed, (n_features, n_samples). Moments are taken about a reference near the new mean,
which is the old mean: the textbook form E[x²] − μ² would cancel for a tight cluster far from the origin in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian.sparse import Columns
from jaxcluster.types import Array, Bool, Float, Int

LOG_2PI = math.log(2 * math.pi)

EXPANDED, HALF_EXPANDED, DIFFERENCES = 0, 1, 2
"""Forms of a squared Mahalanobis distance, from the cheapest to the most exact: ‖Rᵀx‖² − 2·Rᵀx·Rᵀμ + ‖Rᵀμ‖²,
‖Rᵀx − Rᵀμ‖², and ‖Rᵀ(x − μ)‖². Moments have the same three forms."""

Form: TypeAlias = int | Int[Array, ""]
"""Type of such a form: an int, known while a program is traced, or an array."""

MAX_DIFFERENCE_TILES = 16
"""Upper bound for the memory of the differences x − μ, in multiples of the budget of a tile."""

EXPANDED_MAX_ERROR = 1e-4
"""Largest error of a log-density (nats) for which `EXPANDED` is used."""

HALF_EXPANDED_MAX_ERROR = 1e-3
"""The same for `HALF_EXPANDED`; larger, as the next form, `DIFFERENCES`, costs full and tied types the most."""


class Factor(NamedTuple):
    """Factor of the precision (inverse covariance), as log-densities need it.

    Attributes:
        root: R with precision R·Rᵀ: (k, d, d) upper triangular, (d, d) tied, (k, d) diagonal, (k,) spherical.
        log_det: log |R|: (k,), or () tied.
    """

    root: Array
    log_det: Float[Array, "*k"]


class Moments(NamedTuple):
    """Weighted sums over samples about a reference m, for each component.

    Attributes:
        weight: (k,) Σ r.
        first: (k, d) Σ r·(x − m).
        second: Σ r·(x − m)(x − m)ᵀ: (k, d, d), summed over components (d, d) if tied, its diagonal (k, d), or its
            trace (k,).
    """

    weight: Float[Array, " k"]
    first: Float[Array, "k d"]
    second: Array


class CovarianceType(NamedTuple):
    """Functions of one covariance type.

    Attributes:
        name: as users write it.
        factor: (covariances, d) -> (covariances, `Factor`, repaired). A covariance that is numerically singular gets
            the smallest ridge that makes it positive definite, and repaired, (k,) or (), is True for it.
        mahalanobis_sq: (means, factor, x, form, precision) -> (k, n) squared Mahalanobis distances.
        relative_mahalanobis_sq: the same less a term (n,) that all components share, and that term; None for a type
            without one.
        moments: (r, means, x, form, precision) -> `Moments` about the means.
        covariances: (moments, delta, weight) -> maximum-likelihood covariances; delta (k, d) is the new mean less the
            reference.
        shape: (k, d) -> shape of the covariances.
        n_parameters: (k, d) -> number of free parameters of the covariances.
        dense: (covariances, k, d) -> (k, d, d).
        isotropic: (variance, k, d) -> covariances with that variance in every direction.
        mean_variance: (covariances) -> trace / d, (k,) or ().
        precisions: (factor) -> inverse covariances, in the shape of the covariances.
        row_cost: (k, d) -> numbers that densities and moments hold for a sample.
    """

    name: str
    factor: Callable[..., tuple[Array, Factor, Bool[Array, "*k"]]]
    mahalanobis_sq: Callable[..., Float[Array, "k n"]]
    moments: Callable[..., Moments]
    covariances: Callable[..., Array]
    shape: Callable[[int, int], tuple[int, ...]]
    n_parameters: Callable[[int, int], int]
    dense: Callable[..., Float[Array, "k d d"]]
    isotropic: Callable[..., Array]
    mean_variance: Callable[[Array], Float[Array, "*k"]]
    precisions: Callable[[Factor], Array]
    row_cost: Callable[[int, int], int]
    relative_mahalanobis_sq: Callable[..., tuple[Float[Array, "k n"], Float[Array, " n"]]] | None = None


def isotropic(variance: Any, d: int) -> Float[Array, "d d"]:
    """Covariance matrix with that variance in every direction."""
    variance = jnp.asarray(variance)
    return variance * jnp.eye(d, dtype=variance.dtype)


def product(a: Float[Array, "m i"], b: Float[Array, "i n"], precision=HIGHEST) -> Float[Array, "m n"]:
    """Matrix product a·b."""
    return jax.lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision=precision)


def product_over_rows(a: Float[Array, "m n"], b: Float[Array, "i n"], precision=HIGHEST) -> Float[Array, "m i"]:
    """Matrix product a·bᵀ: sums over samples that are the columns of a and b."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision=precision)


def with_ones(x: Float[Array, "d n"]) -> Float[Array, "e n"]:
    """[1; x]: with a row of ones on top, one product gives the sums of the weights beside the weighted sums."""
    return jnp.concatenate([jnp.ones_like(x[:1]), x])


def log_densities(
    covariance_type: CovarianceType,
    means: Float[Array, "k d"],
    factor: Factor,
    x: Columns,
    form,
    precision=HIGHEST,
) -> tuple[Float[Array, "k n"], Float[Array, " n"] | None]:
    """Gaussian log-densities log N(x | mean, covariance) of every component (nats), in two terms.

    Returns:
        The term that differs between components, and the term that has to be added to all of them; None for 0.
    """
    constant = jnp.broadcast_to(factor.log_det - means.shape[1] * LOG_2PI / 2, means.shape[:1])[:, None]
    if covariance_type.relative_mahalanobis_sq is None:
        return constant - covariance_type.mahalanobis_sq(means, factor, x, form, precision) / 2, None
    squares, shared = covariance_type.relative_mahalanobis_sq(means, factor, x, form, precision)
    return constant - squares / 2, -shared / 2


def form_of(covariance_type: CovarianceType, means: Float[Array, "k d"], factor: Factor) -> Int[Array, ""]:
    """Cheapest form whose rounding error is acceptable: `EXPANDED`, `HALF_EXPANDED` or `DIFFERENCES`.

    A type without its own code for a form takes the next more exact one (`switch_form`).
    """
    # Rounding errors of a log-density, with q = ‖Rᵀμ‖² at its largest: EXPANDED sums terms as large as q, which gives
    # about 2·eps·q. HALF_EXPANDED rounds Rᵀx − Rᵀμ, of length near √d, by eps·√q in each operand: about 2·eps·√(d·q).
    # Both bounds are solved for q. The comparisons are negated, so that a q that is NaN leads to DIFFERENCES.
    origin = jnp.zeros((means.shape[1], 1), means.dtype)
    largest = jnp.max(jax.lax.stop_gradient(covariance_type.mahalanobis_sq(means, factor, origin, DIFFERENCES)))
    eps, d = float(jnp.finfo(means.dtype).eps), means.shape[1]
    beyond_expanded = ~(largest <= EXPANDED_MAX_ERROR / (2 * eps))
    beyond_half_expanded = ~(largest <= (HALF_EXPANDED_MAX_ERROR / (2 * eps)) ** 2 / d)
    return beyond_expanded.astype(jnp.int32) + (beyond_expanded & beyond_half_expanded).astype(jnp.int32)


def switch_form(form: Form, forms: tuple[int, ...], bodies: Sequence[Callable[..., Any]], *operands: Array) -> Any:
    """Result of the body of the first of ``forms`` that is at least as exact as ``form``.

    An int is resolved while the program is traced and leaves no branch; an array becomes a `jax.lax.switch`.
    """
    if isinstance(form, int):
        return bodies[sum(form > other for other in forms[:-1])](*operands)
    beyond = jnp.stack([form > other for other in forms[:-1]])
    return jax.lax.switch(jnp.sum(beyond, dtype=jnp.int32), bodies, *operands)


def switched_row_cost(features: int, k: int, d: int) -> int:
    """Numbers held for a sample by a type with several forms: its features and a softmax over k, or k·d differences.

    Tiles are sized for the expanded form. Differences are rare, and may take `MAX_DIFFERENCE_TILES` times the memory.
    """
    return max(features + 3 * k, k * d // MAX_DIFFERENCE_TILES)


def floor_variances(variances: Float[Array, ...]) -> tuple[Float[Array, ...], Bool[Array, ...]]:
    """Variances bounded below by √tiny, the least number whose inverse and its square are finite.

    Returns:
        The variances, and a mask of those that were raised, NaN included.
    """
    least = jnp.sqrt(jnp.finfo(variances.dtype).tiny)
    sound = variances > least
    return jnp.where(sound, variances, least), ~sound

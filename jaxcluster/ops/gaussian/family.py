"""What a type of covariance has to be able to do, and what all types share.

Rows come as columns, (d, n), and centered. Moments are taken about a reference near the new mean, the old one, so that
nothing cancels: E[x²] − μ² loses a tight cluster far from the origin in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Bool, Float, Int

LOG_2PI = math.log(2 * math.pi)

PRODUCTS, HALVES, DIFFERENCES = 0, 1, 2
"""Forms of the same sums: of products of rows, with a difference from the mean on one side, or on both."""

DIFFERENCE_TILES = 16
"""How many times a tile's budget the differences from the means may hold."""

EXPANDED_ERROR = 1e-4
"""Largest error of a log-density, in nats, that products in place of differences may bring."""

HALF_EXPANDED_ERROR = 1e-3
"""The same where a difference is one operand of the products: differences in both cost more than for other types."""


class Factor(NamedTuple):
    """A covariance as its densities need it.

    Attributes:
        root: R with precision R·Rᵀ: (k, d, d) upper triangular, (d, d) tied, (k, d) diagonal, (k,) spherical.
        log_det: log |R|: (k,), or () tied.
    """

    root: Array
    log_det: Float[Array, "*k"]


class Moments(NamedTuple):
    """Weighted sums over rows about a reference m, by component.

    Attributes:
        weight: (k,) Σ r.
        first: (k, d) Σ r·(x − m).
        second: Σ r·(x − m)(x − m)ᵀ: (k, d, d), summed over components (d, d) if tied, its diagonal (k, d), or its
            trace (k,).
    """

    weight: Float[Array, " k"]
    first: Float[Array, "k d"]
    second: Array


class Family(NamedTuple):
    """A type of covariance.

    Attributes:
        name: as users write it.
        factor: (covariances, d) -> (covariances, `Factor`, repaired); a covariance that is singular to the precision
            at hand is given the least ridge that mends it, and repaired says which, (k,) or ().
        squares: (means, factor, x, form, precision) -> (k, n) squared Mahalanobis distances.
        relative_squares: as ``squares``, less a part (n,) that all components share, and that part; None where there is
            none.
        moments: (r, means, x, form, precision) -> `Moments` about the means.
        covariances: (moments, delta, weight) -> maximum-likelihood covariances, (k, d) delta from the reference to
            the new mean.
        shape: (k, d) -> the shape of covariances.
        parameters: (k, d) -> how many free numbers they hold.
        dense: (covariances, k, d) -> (k, d, d).
        isotropic: (variance, k, d) -> covariances of that variance in every direction.
        spread: (covariances) -> the mean variance over all directions, (k,) or ().
        invert: (factor) -> precisions, in the shape of the covariances.
        row_cost: (k, d) -> numbers that densities and moments hold of a row.
    """

    name: str
    factor: Callable[..., tuple[Array, Factor, Bool[Array, "*k"]]]
    squares: Callable[..., Float[Array, "k n"]]
    moments: Callable[..., Moments]
    covariances: Callable[..., Array]
    shape: Callable[[int, int], tuple[int, ...]]
    parameters: Callable[[int, int], int]
    dense: Callable[..., Float[Array, "k d d"]]
    isotropic: Callable[..., Array]
    spread: Callable[[Array], Float[Array, "*k"]]
    invert: Callable[[Factor], Array]
    row_cost: Callable[[int, int], int]
    relative_squares: Callable[..., tuple[Float[Array, "k n"], Float[Array, " n"]]] | None = None


def isotropic(variance: Any, d: int) -> Float[Array, "d d"]:
    """The d×d covariance of that variance in every direction."""
    variance = jnp.asarray(variance)
    return variance * jnp.eye(d, dtype=variance.dtype)


def product(a: Float[Array, "m i"], b: Float[Array, "i n"], precision=HIGHEST) -> Float[Array, "m n"]:
    """a·b."""
    return jax.lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision=precision)


def product_over_rows(a: Float[Array, "m n"], b: Float[Array, "i n"], precision=HIGHEST) -> Float[Array, "m i"]:
    """a·bᵀ: sums over rows that lie side by side."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), precision=precision)


def with_ones(x: Float[Array, "d n"]) -> Float[Array, "e n"]:
    """A row of ones on top, so that one product brings sums out beside products."""
    return jnp.concatenate([jnp.ones_like(x[:1]), x])


def log_densities(
    family: Family, means: Float[Array, "k d"], factor: Factor, x: Float[Array, "d n"], form, precision=HIGHEST
) -> tuple[Float[Array, "k n"], Float[Array, " n"] | None]:
    """log N(x | mean, covariance) of every component (nats), in two parts.

    Returns:
        The part by which components differ, and what has to be added to it for all of them; None for 0.
    """
    constant = jnp.broadcast_to(factor.log_det - means.shape[1] * LOG_2PI / 2, means.shape[:1])[:, None]
    if family.relative_squares is None:
        return constant - family.squares(means, factor, x, form, precision) / 2, None
    squares, shared = family.relative_squares(means, factor, x, form, precision)
    return constant - squares / 2, -shared / 2


def form_of(family: Family, means: Float[Array, "k d"], factor: Factor) -> Int[Array, ""]:
    """The cheapest form that is as good as differences: `PRODUCTS`, `HALVES` or `DIFFERENCES`.

    ‖x‖² − 2x·μ + ‖μ‖² is rounded by about 2·eps·‖μ‖² in units of the component, and ‖Rᵀx − Rᵀμ‖², of a length near √d,
    by 2·eps·√d·‖Rᵀμ‖. A type that has no form of its own for one of them takes the next (`in_form`).
    """
    origin = jnp.zeros((means.shape[1], 1), means.dtype)
    squares = family.squares(means, factor, origin, DIFFERENCES)
    reach = jnp.max(jax.lax.stop_gradient(squares))
    eps, d = float(jnp.finfo(means.dtype).eps), means.shape[1]
    beyond_products = ~(reach <= EXPANDED_ERROR / (2 * eps))
    beyond_halves = ~(reach <= (HALF_EXPANDED_ERROR / (2 * eps)) ** 2 / d)
    return beyond_products.astype(jnp.int32) + (beyond_products & beyond_halves).astype(jnp.int32)


def in_form(
    form: int | Int[Array, ""], forms: tuple[int, ...], bodies: Sequence[Callable[..., Any]], *operands: Array
) -> Any:
    """What the body of the first of ``forms`` that is no less exact than ``form`` returns.

    A form that is an int is chosen while the program is built, and leaves no branch in it.
    """
    beyond = [form > other for other in forms[:-1]]
    if isinstance(form, int):
        return bodies[sum(beyond)](*operands)
    return jax.lax.switch(jnp.sum(jnp.stack(beyond), dtype=jnp.int32), bodies, *operands)


def either_cost(features: int, k: int, d: int) -> int:
    """Numbers that are held of a row in two forms: its features and what a softmax over k takes, or k·d differences.

    Tiles are as long as the products like them. The differences, which hardly ever come about, may hold some more.
    """
    return max(features + 3 * k, k * d // DIFFERENCE_TILES)


def variance_floor(variances: Float[Array, ...]) -> tuple[Float[Array, ...], Bool[Array, ...]]:
    """Variances, those that are not positive numbers raised to the least normal one that can be inverted; which."""
    least = jnp.sqrt(jnp.finfo(variances.dtype).tiny)
    sound = variances > least
    return jnp.where(sound, variances, least), ~sound

"""A mixture as its iteration sees it, and as its users do."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.rows import Placed, place
from jaxcluster.ops.gaussian import FAMILIES, Factor, Family
from jaxcluster.types import Array, Bool, Float


class Mixture(NamedTuple):
    """Weighted Gaussians in the frame of centred rows, with the factors that their densities need.

    Attributes:
        weights: (k,), summing to 1.
        means: (k, d).
        covariances: in the shape of their family.
        factor: of the covariances.
    """

    weights: Float[Array, "*batch k"]
    means: Float[Array, "*batch k d"]
    covariances: Float[Array, ...]
    factor: Factor


class GMMState(NamedTuple):
    """A fitted mixture.

    Attributes:
        weights: (k,) share of each component, summing to 1.
        means: (k, d).
        covariances: (k, d, d) full, (1, d, d) tied, (k, d) diagonal or (k,) spherical: the shape tells the type.
        lower_bound: () mean log-likelihood of a row (nats) before the last step, as scikit-learn defines it.
        collapsed: (k,) components that lost their rows or their spread and were kept finite.
        residual: () change of the lower bound in the last step.
    """

    weights: Float[Array, "*batch k"]
    means: Float[Array, "*batch k d"]
    covariances: Float[Array, ...]
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The mean negative log-likelihood, by which runs are compared."""
        return -self.lower_bound


def family_named(covariance: str) -> Family:
    """The type of covariance of this name; ValueError lists the known ones."""
    check.check_choice("covariance", covariance, FAMILIES)
    return FAMILIES[covariance]


def public_covariances(family: Family, covariances: Array) -> Array:
    """Covariances as `GMMState` has them."""
    return covariances[None] if family.name == "tied" else covariances


def place_about_means(state: Any, x: Any, weights: Any = None, *, missing: bool | None = None) -> Placed:
    """(n, d) rows of a user placed about the mean of a fitted mixture, which is told by its ``means`` and ``weights``.

    Raises:
        ValueError, TypeError: wrong shapes or values, or another width than the means have.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.means.shape[1])
    if check.is_traced(state.means, state.weights):
        origin = jax.lax.stop_gradient(jnp.mean(state.means, axis=0))
    else:
        shares = np.asarray(state.weights, np.float64)
        origin = np.average(np.asarray(state.means, np.float64), axis=0, weights=shares)
    return place(x, weights, origin=origin, missing=missing)


def family_of(state: GMMState) -> tuple[Family, Array]:
    """The type of a state's covariances, by their shape, and the covariances in the shape of their family."""
    k, d = state.means.shape
    shape = jnp.shape(state.covariances)
    if shape == (1, d, d) and k > 1:
        return FAMILIES["tied"], jnp.asarray(state.covariances)[0]
    for name in ("full", "diag", "spherical"):
        if shape == FAMILIES[name].shape(k, d):
            return FAMILIES[name], jnp.asarray(state.covariances)
    raise ValueError(
        f"covariances of shape {shape} fit no type for means of shape {(k, d)}: full is {(k, d, d)}, tied {(1, d, d)}, "
        f"diag {(k, d)}, spherical {(k,)}."
    )

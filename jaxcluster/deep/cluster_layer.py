"""A layer that clusters its batch: what it returns is the solution, and its gradient that of the solution.

Sources: M. Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018, for soft k-means between
an encoder and its loss; A. van den Oord, O. Vinyals and K. Kavukcuoglu, Neural discrete representation learning,
NeurIPS 2017, for centers that follow the batches by a moving average.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import gmm, soft_kmeans
from jaxcluster.cluster.gmm.state import covariance_type_named
from jaxcluster.cluster.seeding import kmeans_plus_plus
from jaxcluster.core import check
from jaxcluster.types import Array, Float, Int, Points

KINDS = ("soft_kmeans", "gmm")


class Clustered(NamedTuple):
    """Features and the clusters that they were shared out among.

    Attributes:
        shares: (n, k) of each cluster in each row; rows sum to 1.
        centers: (k, d).
        quantized: (n, d) each row as the mean of the centers by its shares.
        labels: (n,) int32 cluster with the greatest share; constants for gradients.
        objective: () what the fit minimized: the free energy of soft k-means (data units²) or the mean negative
            log-likelihood of a mixture (nats); of centers that were not fitted to the batch, the same of these.
    """

    shares: Float[Array, "n k"]
    centers: Float[Array, "k d"]
    quantized: Float[Array, "n d"]
    labels: Int[Array, " n"]
    objective: Float[Array, ""]


class ClusterLayer(nnx.Module):
    """Soft k-means or a Gaussian mixture between two layers of a network.

    In training a call fits the batch, from where the batches before have led to, and moves the layer's own centers a
    little towards what it found; gradients go through the fit by the implicit function theorem, to the features, the
    weights and a learned variance. In evaluation the layer's own centers are used as they are, as by a batch norm:
    ``train()`` and ``eval()`` of a module that holds the layer switch. ``fitted=False`` is the layer without a fit:
    its centers are parameters, for the optimizer to move.

    Args:
        k: number of clusters.
        d: width of the features.
        kind: "soft_kmeans" or "gmm".
        variance: σ² > 0 of soft k-means (units of the features², half of the temperature of its softmax).
        learn_variance: whether σ² is a parameter; its logarithm is what the optimizer sees.
        covariance: type of the mixture's covariances: "spherical", "diag", "tied" or "full".
        fitted: whether the batch is clustered; False, for soft k-means only, makes the centers parameters.
        momentum: in [0, 1), what the layer's own centers keep of themselves in a step.
        tol, max_steps: of the fit of a batch, as in ``soft_kmeans.fit`` and ``gmm.fit``. Gradients are right where it
            converges.
        use_running_average: whether it starts in evaluation.
        rngs: its stream "cluster" draws the centers to begin with.

    Attributes:
        centers: (k, d) the layer's own centers: an `nnx.BatchStat`, or an `nnx.Param` where they are learned.

    Raises:
        ValueError, TypeError: options out of range, unknown or of the other kind.
    """

    def __init__(
        self,
        k: int,
        d: int,
        *,
        kind: str = "soft_kmeans",
        variance: float | None = None,
        learn_variance: bool = False,
        covariance: str = "diag",
        fitted: bool = True,
        momentum: float = 0.9,
        tol: float = 1e-6,
        max_steps: int = 100,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
    ):
        self.k, self.d = check.check_count("k", k), check.check_count("d", d)
        _check_kind(kind, variance, learn_variance, covariance, fitted)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be in [0, 1).")
        check.check_positive("tol", tol, zero=True)
        self.max_steps = check.check_count("max_steps", max_steps)
        self.kind, self.covariance, self.fitted = kind, covariance, fitted
        self.momentum, self.tol = momentum, tol
        self.use_running_average = use_running_average
        drawn = jax.random.normal(rngs.cluster(), (k, d), jnp.float32)
        self.centers = nnx.BatchStat(drawn) if fitted else nnx.Param(drawn)
        if kind == "soft_kmeans":
            holder = nnx.Param if learn_variance else nnx.BatchStat
            self.log_variance = holder(jnp.log(jnp.asarray(variance, jnp.float32)))
        else:
            self.mixture_weights = nnx.BatchStat(jnp.full((k,), 1 / k, jnp.float32))
            self.covariances = nnx.BatchStat(_unit_covariances(covariance, k, d))
        if fitted:
            self.seen = nnx.BatchStat(jnp.zeros((), jnp.int32))
            self.rngs = rngs.cluster.fork()

    @property
    def variance(self) -> Float[Array, ""]:
        """σ² of soft k-means."""
        return jnp.exp(self.log_variance[...])

    def __call__(self, z, *, weights=None, known=None, use_running_average: bool | None = None) -> Clustered:
        """Clusters features.

        Args:
            z: (n, d) features; in training n >= k.
            weights: (n,) non-negative, 0 for rows that do not exist; None for 1 each.
            known: (n,) integers, the cluster that a row belongs to, −1 for none; soft k-means only. As in
                ``soft_kmeans.fit``, and the fit starts at the means of the known rows, not at the layer's own centers.
            use_running_average: overrides the mode of the layer for this call.

        Raises:
            ValueError, TypeError: features of another shape, fewer than clusters; known with a mixture.
        """
        z = check.check_matrix(z, name="z")
        if z.shape[1] != self.d:
            raise ValueError(f"z has {z.shape[1]} columns, but the layer was made for d={self.d}. Pass (n, {self.d}).")
        if known is not None:
            if self.kind == "gmm":
                raise ValueError("known is for kind='soft_kmeans'; a mixture finds all of its shares.")
            known = soft_kmeans.check_known(known, z.shape[0], self.k)
        z = jnp.asarray(z)
        settled = self.use_running_average if use_running_average is None else use_running_average
        if settled or not self.fitted:
            return self._share_out(z, weights, known)
        check.check_clusters(self.k, z.shape[0])
        return (self._fit_soft if self.kind == "soft_kmeans" else self._fit_mixture)(z, weights, known)

    def _fit_soft(self, z, weights, known):
        # A fit of a few known rows belongs to their task, not to the batches before.
        init = "k-means++" if known is not None else self._start(z, weights)
        options = {"weights": weights, "known": known, "tol": self.tol, "max_steps": self.max_steps}
        fit = soft_kmeans.fit(self.rngs(), z, self.k, variance=self.variance, init=init, **options)
        self._follow(centers=fit.state.centers)
        return _clustered(self._soft_shares(fit.state.centers, z, known), fit.state.centers, fit.state.objective)

    def _fit_mixture(self, z, weights, known):
        start = self._start(z, weights)
        spread = jnp.var(jax.lax.stop_gradient(z), axis=0).mean()
        first = _unit_covariances(self.covariance, self.k, self.d) * jnp.maximum(spread, jnp.finfo(z.dtype).tiny)
        covariances = jnp.where(self.seen[...] > 0, self.covariances[...], first)
        init = self._mixture(start, covariances)
        options = {"weights": weights, "covariance": self.covariance, "tol": self.tol, "max_steps": self.max_steps}
        state = gmm.fit(self.rngs(), z, self.k, init=init, **options).state
        self._follow(centers=state.means, mixture_weights=state.weights, covariances=state.covariances)
        return _clustered(gmm.predict_proba(state, z), state.means, -state.lower_bound)

    def _share_out(self, z, weights, known):
        """By the layer's own centers."""
        centers = self.centers[...]
        if self.kind == "gmm":
            state = self._mixture(centers, self.covariances[...])
            return _clustered(gmm.predict_proba(state, z), centers, -gmm.score(state, z, weights=weights))
        weight = jnp.ones_like(z[:, 0]) if weights is None else jnp.asarray(weights, z.dtype)
        energy = soft_kmeans.free_energy(centers, z, self.variance, weights=weight, known=known)
        return _clustered(self._soft_shares(centers, z, known), centers, energy)

    def _soft_shares(self, centers, z, known):
        shares = soft_kmeans.responsibilities(centers, z, self.variance)
        if known is None:
            return shares
        return jnp.where(known[:, None] >= 0, jax.nn.one_hot(known, self.k, dtype=shares.dtype), shares)

    def _start(self, z, weights):
        """The layer's own centers, or k-means++ on the first batch."""
        weight = jnp.ones_like(z[:, 0]) if weights is None else jnp.asarray(weights, z.dtype)
        points = jax.lax.stop_gradient(Points(z, weight))
        return jax.lax.cond(
            self.seen[...] > 0,
            lambda key, points, own: own,
            lambda key, points, own: kmeans_plus_plus(key, points, self.k),
            *(self.rngs(), points, self.centers[...].astype(z.dtype)),
        )

    def _follow(self, **found):
        """Moves what the layer keeps towards what a batch led to; all the way with the first batch."""
        kept = jnp.where(self.seen[...] > 0, jnp.float32(self.momentum), 0)
        for name, value in found.items():
            own, value = getattr(self, name), jax.lax.stop_gradient(value)
            own[...] = kept * own[...] + (1 - kept) * value.astype(own.dtype)
        self.seen[...] = self.seen[...] + 1

    def _mixture(self, means, covariances):
        none = jnp.zeros((), means.dtype)
        return gmm.GMMState(self.mixture_weights[...], means, covariances, none, jnp.zeros((self.k,), bool), none)


def _clustered(shares, centers, objective):
    labels = jnp.argmax(shares, axis=1).astype(jnp.int32)
    return Clustered(shares, centers, shares @ centers, labels, objective)


def _unit_covariances(covariance, k, d):
    """Covariances of 1, in the shape that `gmm.GMMState` has them in."""
    if covariance == "spherical":
        return jnp.ones((k,), jnp.float32)
    if covariance == "diag":
        return jnp.ones((k, d), jnp.float32)
    return jnp.broadcast_to(jnp.eye(d, dtype=jnp.float32), (1 if covariance == "tied" else k, d, d))


def _check_kind(kind, variance, learn_variance, covariance, fitted):
    check.check_choice("kind", kind, KINDS)
    if kind == "soft_kmeans":
        if variance is None:
            raise ValueError("kind='soft_kmeans' needs variance=, σ² in the units of the features squared.")
        check.check_positive("variance", variance)
        return
    covariance_type_named(covariance)
    if variance is not None or learn_variance:
        raise ValueError("kind='gmm' finds its own covariances: variance= and learn_variance= are for 'soft_kmeans'.")
    if not fitted:
        raise ValueError("kind='gmm' is always fitted to the batch: fitted=False is for kind='soft_kmeans'.")

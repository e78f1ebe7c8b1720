"""A network layer that clusters its batch, differentiated by the implicit function theorem.

Sources: M. Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018, for soft k-means between
an encoder and its loss; A. van den Oord, O. Vinyals and K. Kavukcuoglu, Neural discrete representation learning,
NeurIPS 2017, for centers that follow the batches by a moving average.

>>> import jax, jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep import ClusterLayer
>>> layer = ClusterLayer(2, 3, variance=1.0, rngs=nnx.Rngs(0))
>>> layer(jax.random.normal(jax.random.key(0), (8, 3))).responsibilities.shape
(8, 2)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import gmm, soft_kmeans
from jaxcluster.cluster.gmm.state import covariance_type_named
from jaxcluster.cluster.seeding import kmeans_plus_plus
from jaxcluster.core import validation
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.types import Array, Float, Int, Points

KINDS = ("soft_kmeans", "gmm")


class Clustered(NamedTuple):
    """Clustering of a batch of features.

    Attributes:
        responsibilities: (n_samples, n_clusters), rows sum to 1.
        centers: (n_clusters, n_features).
        quantized: (n_samples, n_features) mean of the centers, weighted by the responsibilities.
        labels: (n_samples,) int32 cluster of the greatest responsibility; constant for gradients.
        objective: () value of the fit's objective: the free energy of soft k-means (squared units of the features) or
            the mean negative log-likelihood of a mixture (nats). Without a fit, its value at the layer's own centers.
    """

    responsibilities: Float[Array, "n k"]
    centers: Float[Array, "k d"]
    quantized: Float[Array, "n d"]
    labels: Int[Array, " n"]
    objective: Float[Array, ""]


class ClusterLayer(nnx.Module):
    """Soft k-means or a Gaussian mixture between two layers of a network.

    In training a call fits the batch, starting at the layer's running centers, and updates these by a moving average.
    Gradients pass through the fit by the implicit function theorem, to the features, the weights and a learned
    variance. In evaluation the running centers are used without a fit, as the statistics of a batch normalization are:
    ``train()`` and ``eval()`` of a module that holds the layer switch. With ``fitted=False`` there is no fit in either
    mode, and the centers are parameters of the optimizer.

    Args:
        k: number of clusters.
        d: width of the features.
        kind: "soft_kmeans" or "gmm".
        variance: σ² > 0 of soft k-means (squared units of the features; half of the temperature of its softmax).
        learn_variance: train log σ² as a parameter.
        covariance: type of the mixture's covariances: "spherical", "diag", "tied" or "full"; for "gmm" only.
        fitted: fit each batch; False, for soft k-means only, makes the centers parameters.
        momentum: of the moving average of the running centers, in [0, 1).
        tol, max_steps: of the fit, as in ``soft_kmeans.fit`` and ``gmm.fit``. Gradients are exact only where the fit
            converges.
        use_running_average: start in evaluation mode.
        rngs: its stream "cluster" draws the initial centers.

    Attributes:
        centers: (k, d) running centers, an `nnx.BatchStat`; with ``fitted=False`` an `nnx.Param`.

    Raises:
        ValueError, TypeError: options out of range, unknown, or for the other kind.
    """

    def __init__(
        self,
        k: int,
        d: int,
        *,
        kind: str = "soft_kmeans",
        variance: Any = None,
        learn_variance: bool = False,
        covariance: str = "diag",
        fitted: bool = True,
        momentum: Any = 0.9,
        tol: Any = 1e-6,
        max_steps: int = 100,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
    ):
        self.k, self.d = validation.check_count("k", k), validation.check_count("d", d)
        _check_kind(kind, variance, learn_variance, covariance, fitted)
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(f"rngs={rngs!r} must be random streams of Flax, such as nnx.Rngs(0).")
        if validation.check_positive("momentum", momentum, zero=True) >= 1:
            raise ValueError(f"momentum={momentum} must be in [0, 1).")
        validation.check_positive("tol", tol, zero=True)
        self.max_steps = validation.check_count("max_steps", max_steps)
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

    def __call__(
        self, z: Any, *, weights: Any = None, known: Any = None, use_running_average: bool | None = None
    ) -> Clustered:
        """Cluster features.

        Args:
            z: (n_samples, d) features; in training n_samples >= k.
            weights: (n_samples,) non-negative sample weights, 0 for padding; None for 1 each.
            known: (n_samples,) integer cluster of samples with a label, −1 for the others, see ``soft_kmeans.fit``; for
                soft k-means only. The fit then starts at the means of the labeled samples.
            use_running_average: override the mode of the layer for this call.

        Returns:
            The clustering of the features.

        Raises:
            ValueError, TypeError: features of another shape, or fewer than clusters; ``known`` with a mixture.
        """
        z = validation.check_matrix(z, name="z")
        if z.shape[1] != self.d:
            raise ValueError(f"z has {z.shape[1]} columns, but the layer was made for d={self.d}. Pass (n, {self.d}).")
        if known is not None:
            if self.kind == "gmm":
                raise ValueError("known is for kind='soft_kmeans'; a mixture computes all of its responsibilities.")
            known = soft_kmeans.check_known(known, z.shape[0], self.k)
        z = jnp.asarray(z, float_dtype(z.dtype))  # integers too: centers are means
        evaluates = self.use_running_average if use_running_average is None else use_running_average
        if evaluates or not self.fitted:
            return self._predict(z, weights, known)
        validation.check_clusters(self.k, z.shape[0])
        return (self._fit_soft if self.kind == "soft_kmeans" else self._fit_mixture)(z, weights, known)

    def _fit_soft(self, z, weights, known):
        # Labels belong to the task of this batch (few-shot learning), not to the running centers of the batches before.
        init = "k-means++" if known is not None else self._initial_centers(z, weights)
        options = {"weights": weights, "known": known, "tol": self.tol, "max_steps": self.max_steps}
        fit = soft_kmeans.fit(self.rngs(), z, self.k, variance=self.variance, init=init, **options)
        self._update_running(centers=fit.state.centers)
        return _clustered(
            self._soft_responsibilities(fit.state.centers, z, known), fit.state.centers, fit.state.objective
        )

    def _fit_mixture(self, z, weights, known):
        means = self._initial_centers(z, weights)
        # Before the first batch: spherical components with the mean variance of the features, in any units.
        variance = jnp.var(jax.lax.stop_gradient(z), axis=0).mean()
        first = _unit_covariances(self.covariance, self.k, self.d) * jnp.maximum(variance, jnp.finfo(z.dtype).tiny)
        covariances = jnp.where(self.seen[...] > 0, self.covariances[...], first)
        init = self._mixture(means, covariances)
        options = {"weights": weights, "covariance": self.covariance, "tol": self.tol, "max_steps": self.max_steps}
        state = gmm.fit(self.rngs(), z, self.k, init=init, **options).state
        self._update_running(centers=state.means, mixture_weights=state.weights, covariances=state.covariances)
        return _clustered(gmm.predict_proba(state, z), state.means, -state.lower_bound)

    def _predict(self, z, weights, known):
        """Clustering by the running centers, without a fit."""
        centers = self.centers[...]
        if self.kind == "gmm":
            state = self._mixture(centers, self.covariances[...])
            return _clustered(gmm.predict_proba(state, z), centers, -gmm.score(state, z, weights=weights))
        weight = jnp.ones_like(z[:, 0]) if weights is None else jnp.asarray(weights, z.dtype)
        energy = soft_kmeans.free_energy(centers, z, self.variance, weights=weight, known=known)
        return _clustered(self._soft_responsibilities(centers, z, known), centers, energy)

    def _soft_responsibilities(self, centers, z, known):
        responsibilities = soft_kmeans.responsibilities(centers, z, self.variance)
        if known is None:
            return responsibilities
        one_hot = jax.nn.one_hot(known, self.k, dtype=responsibilities.dtype)
        return jnp.where(known[:, None] >= 0, one_hot, responsibilities)

    def _initial_centers(self, z, weights):
        """The running centers; for the first batch centers by k-means++."""
        weight = jnp.ones_like(z[:, 0]) if weights is None else jnp.asarray(weights, z.dtype)
        points = jax.lax.stop_gradient(Points(z, weight))
        # One program for the first batch and the others: the layer compiles once.
        return jax.lax.cond(
            self.seen[...] > 0,
            lambda key, points, own: own,
            lambda key, points, own: kmeans_plus_plus(key, points, self.k),
            *(self.rngs(), points, self.centers[...].astype(z.dtype)),
        )

    def _update_running(self, **fitted):
        """Update moving averages by the fit of a batch; the first batch replaces the random initial values."""
        momentum = jnp.where(self.seen[...] > 0, jnp.float32(self.momentum), 0)
        for name, value in fitted.items():
            running, value = getattr(self, name), jax.lax.stop_gradient(value)
            running[...] = momentum * running[...] + (1 - momentum) * value.astype(running.dtype)
        self.seen[...] = self.seen[...] + 1

    def _mixture(self, means, covariances):
        none = jnp.zeros((), means.dtype)
        return gmm.GMMState(self.mixture_weights[...], means, covariances, none, jnp.zeros((self.k,), bool), none)


def _clustered(responsibilities, centers, objective):
    labels = jnp.argmax(responsibilities, axis=1).astype(jnp.int32)
    return Clustered(responsibilities, centers, responsibilities @ centers, labels, objective)


def _unit_covariances(covariance, k, d):
    """Identity covariances in the layout of `gmm.GMMState`."""
    if covariance == "spherical":
        return jnp.ones((k,), jnp.float32)
    if covariance == "diag":
        return jnp.ones((k, d), jnp.float32)
    return jnp.broadcast_to(jnp.eye(d, dtype=jnp.float32), (1 if covariance == "tied" else k, d, d))


def _check_kind(kind, variance, learn_variance, covariance, fitted):
    validation.check_choice("kind", kind, KINDS)
    if kind == "soft_kmeans":
        if variance is None:
            raise ValueError("kind='soft_kmeans' needs variance=, σ² in the units of the features squared.")
        if validation.check_positive("variance", variance) == math.inf:
            raise ValueError("variance=inf must be finite: all samples would belong to all clusters alike.")
        if covariance != "diag":
            raise ValueError(f"covariance={covariance!r} is for kind='gmm': soft k-means has variance=, one number.")
        return
    covariance_type_named(covariance)
    if variance is not None or learn_variance:
        raise ValueError("kind='gmm' fits its own covariances: variance= and learn_variance= are for 'soft_kmeans'.")
    if not fitted:
        raise ValueError("kind='gmm' is always fitted to the batch: fitted=False is for kind='soft_kmeans'.")

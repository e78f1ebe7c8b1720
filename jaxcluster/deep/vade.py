"""Variational deep embedding (VaDE): a variational autoencoder with a Gaussian mixture as the prior of its codes.

Source: Z. Jiang, Y. Zheng, H. Tan, B. Tang and H. Zhou, Variational deep embedding: an unsupervised and generative
approach to clustering, IJCAI 2017.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import Autoencoder, View, apply_view
from jaxcluster.deep.protocol import Batch, ClusteringModule, RefreshResult
from jaxcluster.losses.mixture import vade_loss, vade_responsibilities
from jaxcluster.types import Array, ArrayLike, Float, Int, KeyArray

MIN_RESIDUAL = 1e-3
"""Lower bound of the learned residual variance (squared data units): exact reconstructions would drive it to 0, and the
evidence lower bound to infinity."""


class VaDE(ClusteringModule):
    """A Gaussian mixture of codes, an encoder and a decoder, trained jointly by the evidence lower bound.

    Args:
        autoencoder: pretrained; its encoder returns (mean, log-variance), its decoder means or logits, by its
            ``likelihood``.
        weights: (n_clusters,) initial mixture weights, from a mixture fitted to the codes.
        means: (n_clusters, latent) initial means.
        variances: (n_clusters, latent) initial diagonal covariances.
        residual: initial variance of a feature given the code, for the likelihood "gaussian"; it is then learned, so
            that clusters do not depend on the units of the data. None for a constant 1: the published loss.
        augment: an augmentation of the samples; None for none.

    Raises:
        ValueError: weights, means or variances of shapes that do not go together; a residual that is not positive, or
            of another likelihood.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        weights: ArrayLike,
        means: ArrayLike,
        variances: ArrayLike,
        *,
        residual: ArrayLike | None = None,
        augment: View | None = None,
    ):
        means = jnp.asarray(validation.check_matrix(means, name="means"), jnp.float32)
        weights, variances = jnp.asarray(weights, jnp.float32), jnp.asarray(variances, jnp.float32)
        if weights.shape != means.shape[:1] or variances.shape != means.shape:
            raise ValueError(
                f"means of shape {means.shape} need weights of shape {means.shape[:1]} and variances of "
                f"{means.shape}, got {weights.shape} and {variances.shape}."
            )
        self.autoencoder, self.augment = autoencoder, augment
        # An empty component keeps a finite logit, so training can revive it.
        self.logits = nnx.Param(jnp.log(jnp.maximum(weights, 1e-6)))
        self.means, self.log_variances = nnx.Param(means), nnx.Param(jnp.log(variances))
        if residual is not None:
            if autoencoder.likelihood != "gaussian":
                raise ValueError(f"residual is for likelihood='gaussian', and this is {autoencoder.likelihood!r}.")
            validation.check_positive("residual", residual)
            self.log_residual = nnx.Param(jnp.log(jnp.asarray(residual, jnp.float32)))
        self.learns_residual = residual is not None

    @property
    def prior(self) -> dict[str, Float[Array, ...]]:
        """The mixture as arguments of `jaxcluster.losses.vade_loss`."""
        log_weights = jax.nn.log_softmax(self.logits[...])
        return {"log_weights": log_weights, "means": self.means[...], "log_variances": self.log_variances[...]}

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Mean of the code of each sample."""
        return self.autoencoder.encode(x)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters) of clusters for codes."""
        return vade_responsibilities(z, **self.prior)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Most probable cluster of each sample."""
        return RefreshResult(jnp.argmax(self.assign(z), axis=1).astype(jnp.int32))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Negative evidence lower bound of a batch, with one sampled code for each sample.

        Returns:
            The bound (nats per sample), and its terms "reconstruction" and "divergence".
        """
        augment_key, code_key = jax.random.split(key)
        x = apply_view(self.augment, augment_key, batch.x)
        mean, log_variance = self._code(x)
        # Reparameterization: the gradient passes through the mean and variance of the code.
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(code_key, mean.shape, mean.dtype)
        decoded = self.autoencoder.decoder(z)
        x, likelihood = x.reshape(decoded.shape), self.autoencoder.likelihood
        scale, log_volume = self._residual_scale(x.shape[1])
        terms = vade_loss(x / scale, decoded / scale, mean, log_variance, z=z, likelihood=likelihood, **self.prior)
        reconstruction = terms.reconstruction + log_volume
        return terms.loss + log_volume, {"reconstruction": reconstruction, "divergence": terms.divergence}

    def _residual_scale(self, d):
        """Residual standard deviation σ of a feature, and the term d·log σ of the log-likelihood of d features."""
        if not self.learns_residual:
            return 1.0, 0.0
        variance = MIN_RESIDUAL + jnp.exp(self.log_residual[...])
        return jnp.sqrt(variance), d / 2 * jnp.log(variance)

    def _code(self, x):
        code = self.autoencoder.encoder(x)
        if not isinstance(code, tuple):
            raise TypeError("VaDE needs an encoder that returns (mean, log-variance), such as VariationalEncoder.")
        return code

    def sample(self, key: KeyArray, n: int, cluster: int | None = None) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
        """Sample codes from the mixture or one of its clusters, and decode them.

        Returns:
            (n, n_features) expected samples of the codes, and the (n,) cluster of each.

        Raises:
            ValueError, TypeError: n below 1 or not an integer; an unknown cluster.
        """
        n, k = validation.check_count("n", n), self.logits.shape[0]
        if cluster is not None:
            cluster = validation.check_cluster("cluster", cluster, k)
        cluster_key, code_key = jax.random.split(key)
        labels = jax.random.categorical(cluster_key, self.prior["log_weights"], shape=(n,))
        if cluster is not None:
            labels = jnp.full((n,), cluster)
        noise = jax.random.normal(code_key, (n, self.means.shape[1]), jnp.float32)
        z = self.means[...][labels] + jnp.exp(self.log_variances[...][labels] / 2) * noise
        return self.autoencoder.decode(z), labels.astype(jnp.int32)

"""Variational deep embedding: an autoencoder whose codes have a mixture of Gaussians as their prior.

Source: Z. Jiang, Y. Zheng, H. Tan, B. Tang and H. Zhou, Variational deep embedding: an unsupervised and generative
approach to clustering, IJCAI 2017.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.autoencoder import Autoencoder, View, viewed
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.losses.mixture import vade_loss, vade_responsibilities
from jaxcluster.types import Array, ArrayLike, Float, Int, KeyArray

LEAST_RESIDUAL = 1e-3
"""What a learned variance of columns given their codes stays above: rows that come back exactly would make it 0."""


class VaDE(nnx.Module):
    """A mixture of Gaussians of codes, and networks between codes and rows, fitted by the evidence lower bound.

    Args:
        autoencoder: pretrained; its encoder gives (mean, log-variance), its decoder means or logits of rows, by its
            ``likelihood``.
        weights: (k,) of the clusters to begin with, as a mixture of the codes has them.
        means: (k, latent).
        variances: (k, latent) diagonal.
        residual: variance of a column of a row given its code, to begin with, where the likelihood is "gaussian"; it is
            learned then, so that rows in any units have clusters. None for 1, which stays: the published loss.
        augment: a view of the rows that stands for them; None for the rows as they are.

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
        means = jnp.asarray(check.check_matrix(means, name="means"), jnp.float32)
        weights, variances = jnp.asarray(weights, jnp.float32), jnp.asarray(variances, jnp.float32)
        if weights.shape != means.shape[:1] or variances.shape != means.shape:
            raise ValueError(
                f"means of shape {means.shape} need weights of shape {means.shape[:1]} and variances of "
                f"{means.shape}, got {weights.shape} and {variances.shape}."
            )
        self.autoencoder, self.augment = autoencoder, augment
        self.logits = nnx.Param(jnp.log(jnp.maximum(weights, 1e-6)))
        self.means, self.log_variances = nnx.Param(means), nnx.Param(jnp.log(variances))
        if residual is not None:
            if autoencoder.likelihood != "gaussian":
                raise ValueError(f"residual is for likelihood='gaussian', and this is {autoencoder.likelihood!r}.")
            check.check_positive("residual", residual)
            self.log_residual = nnx.Param(jnp.log(jnp.asarray(residual, jnp.float32)))
        self.learns_residual = residual is not None

    @property
    def prior(self) -> dict[str, Float[Array, ...]]:
        """The mixture, as `jaxcluster.losses.vade_loss` takes it."""
        log_weights = jax.nn.log_softmax(self.logits[...])
        return {"log_weights": log_weights, "means": self.means[...], "log_variances": self.log_variances[...]}

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The mean of the code of each row."""
        return self.autoencoder.encode(x)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """The probability of each cluster given each code."""
        return vade_responsibilities(z, **self.prior)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """The most probable cluster of each row."""
        return Refreshed(jnp.argmax(self.assign(z), axis=1).astype(jnp.int32))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The negative evidence lower bound of a batch (nats per row), with one code drawn of each row."""
        augment_key, code_key = jax.random.split(key)
        x = viewed(self.augment, augment_key, batch.x)
        mean, log_variance = self._code(x)
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(code_key, mean.shape, mean.dtype)
        decoded = self.autoencoder.decoder(z)
        x, likelihood = x.reshape(decoded.shape), self.autoencoder.likelihood
        scale, volume = self._units(x.shape[1])
        terms = vade_loss(x / scale, decoded / scale, mean, log_variance, z=z, likelihood=likelihood, **self.prior)
        reconstruction = terms.reconstruction + volume
        return terms.loss + volume, {"reconstruction": reconstruction, "divergence": terms.divergence}

    def _units(self, d):
        """The deviation of a column given the code, and what it adds to the bound of d columns: d·log σ."""
        if not self.learns_residual:
            return 1.0, 0.0
        variance = LEAST_RESIDUAL + jnp.exp(self.log_residual[...])
        return jnp.sqrt(variance), d / 2 * jnp.log(variance)

    def _code(self, x):
        code = self.autoencoder.encoder(x)
        if not isinstance(code, tuple):
            raise TypeError("VaDE needs an encoder that returns (mean, log-variance), such as VariationalEncoder.")
        return code

    def sample(self, key: KeyArray, n: int, cluster: int | None = None) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
        """Draws rows: codes of the mixture, or of one of its clusters, and what they stand for.

        Returns:
            (n, d) expected rows of the codes, and the cluster of each.

        Raises:
            ValueError, TypeError: an n that is no count; a cluster that there is not.
        """
        n, k = check.check_count("n", n), self.logits.shape[0]
        if cluster is not None and not 0 <= cluster < k:
            raise ValueError(f"cluster={cluster} must be from 0 to {k - 1}.")
        cluster_key, code_key = jax.random.split(key)
        labels = jax.random.categorical(cluster_key, self.prior["log_weights"], shape=(n,))
        if cluster is not None:
            labels = jnp.full((n,), cluster)
        noise = jax.random.normal(code_key, (n, self.means.shape[1]), jnp.float32)
        z = self.means[...][labels] + jnp.exp(self.log_variances[...][labels] / 2) * noise
        return self.autoencoder.decode(z), labels.astype(jnp.int32)

"""Base of modules that learn codes of length 1, and cluster them by spherical k-means after the training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans
from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import latent_mean
from jaxcluster.deep.latent_kmeans import LatentCenters
from jaxcluster.deep.protocol import RefreshResult
from jaxcluster.deep.views import Views, count_views, stack_views
from jaxcluster.ops.distance import normalize
from jaxcluster.types import Array, Float, KeyArray

COLLAPSE_VARIANCE = 1e-6
"""Mean squared distance of all codes, which have length 1, from their mean, below which they are collapsed."""


class CosineEmbedding(LatentCenters):
    """An encoder with codes of length 1, which learns from views, and spherical k-means of the codes.

    Args:
        encoder: samples to (n_samples, latent) codes.
        k: number of clusters.
        latent: width of a code.
        views: a function of a key and samples that returns two or more views, or one view, and is then called twice.
            None for the samples themselves.
        n_init: starts of the final k-means.

    Raises:
        ValueError, TypeError: a number out of range.
    """

    def __init__(self, encoder: nnx.Module, k: int, latent: int, *, views: Views | None, n_init: int):
        super().__init__(
            jnp.zeros((validation.check_count("k", k), validation.check_count("latent", latent)), jnp.float32)
        )
        self.encoder, self.views = encoder, views
        self.n_init = validation.check_count("n_init", n_init)

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample, of length 1."""
        return normalize(jnp.float32(latent_mean(self.encoder(x))))

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Check for collapse; there are no clusters before `finalize`."""
        return RefreshResult(None, collapsed=self._collapsed(z))

    def finalize(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Final clusters and centers by spherical k-means on the codes of all samples."""
        fit = kmeans.fit(key, z, self.centers.shape[0], n_init=self.n_init, metric="cosine")
        self.centers[...] = fit.state.centers
        self.update_variance(z, fit.labels)
        return self.refresh(z, key)._replace(labels=fit.labels)

    def _collapsed(self, z):
        return spread(z) < COLLAPSE_VARIANCE

    def _stacks(self, key, x):
        """Two or more views of the samples, or the samples themselves."""
        first_key, second_key = jax.random.split(key)
        stacks = stack_views(self.views, first_key, x)
        if self.views is None or count_views(stacks) > 1:
            return stacks
        return (jnp.concatenate([*stacks, *stack_views(self.views, second_key, x)]),)


def spread(z: Float[Array, "n l"]) -> Float[Array, ""]:
    """Mean squared distance of vectors from their mean: in [0, 1] for those of length 1."""
    return jnp.mean(jnp.sum(jnp.square(z - jnp.mean(z, axis=0, keepdims=True)), axis=1))

"""k-means on codes: the baseline of deep clustering, and what methods with hard clusters stand on."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans, soft_kmeans
from jaxcluster.core import check
from jaxcluster.deep.autoencoder import Autoencoder
from jaxcluster.deep.objective import Refreshed
from jaxcluster.types import Array, ArrayLike, Float, Int, KeyArray


class CenterState(nnx.Variable):
    """What moves by a rule of its own, not by the optimizer."""


class CodeCenters(nnx.Module):
    """Centers among codes, and how codes are shared out among them.

    Args:
        centers: (k, latent).

    Raises:
        ValueError: centers that are not a matrix.
    """

    def __init__(self, centers: ArrayLike):
        self.centers = CenterState(jnp.asarray(check.check_matrix(centers, name="centers"), jnp.float32))
        self.variance = CenterState(jnp.ones((), jnp.float32))

    def labels(self, z: Float[Array, "n l"]) -> Int[Array, " n"]:
        """The nearest center of each code."""
        return kmeans.predict(self.centers[...], z)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """The share of each cluster in each code.

        It is that of the mixture that k-means is a limit of: equal balls, with the variance of codes in their clusters.
        """
        return soft_kmeans.responsibilities(self.centers[...], z, self.variance[...])

    def measure(self, z: Float[Array, "n l"], labels: Int[Array, " n"]) -> None:
        """Takes note of the mean square of a code's distance from its center, a column."""
        within = jnp.mean(jnp.square(z - self.centers[...][labels]))
        self.variance[...] = jnp.maximum(within, jnp.finfo(jnp.float32).tiny)


class CodeKMeans(CodeCenters):
    """An autoencoder, and centers among its codes.

    Args:
        autoencoder: pretrained.
        centers: (k, latent), as k-means finds them among the codes.

    Raises:
        ValueError: centers that are not a matrix.
    """

    def __init__(self, autoencoder: Autoencoder, centers: ArrayLike):
        super().__init__(centers)
        self.autoencoder = autoencoder

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each row."""
        return self.autoencoder.encode(x)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """The clusters of all rows; takes note of the variance within them."""
        labels = self.labels(z)
        self.measure(z, labels)
        return Refreshed(labels)

"""k-means on codes: the baseline of deep clustering, and what methods with hard clusters stand on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans, soft_kmeans
from jaxcluster.core import check
from jaxcluster.deep.autoencoder import Autoencoder, View, viewed
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.ops.distance import HIGHEST
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


# Codes that are easy for k-means: the deep clustering network, and denoising-autoencoder clustering.
#
# Source: B. Yang, X. Fu, N. Sidiropoulos and M. Hong, Towards k-means-friendly spaces: simultaneous deep learning and
# clustering, ICML 2017.


class DCN(CodeKMeans):
    """Reconstruction and k-means of the codes in turn: Σ_j (x_j − x̂_j)² + (λ/2)·‖z − c_s‖², the mean over rows.

    Codes take a gradient step towards the centers of their clusters, and centers one towards these codes: each row
    moves its center by 1/(the rows that this center has had so far) of the way.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (k, latent) to begin with.
        counts: (k,) rows that each center has had to begin with: those of its cluster.
        weight: λ >= 0, in units of the reconstruction error per unit² of the codes.
        augment: a view of the rows that stands for them; None for the rows as they are.

    Raises:
        ValueError: centers or counts of another shape; a negative weight.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        centers: ArrayLike,
        counts: ArrayLike,
        *,
        weight: float = 1.0,
        augment: View | None = None,
    ):
        super().__init__(autoencoder, centers)
        counts = jnp.asarray(counts, jnp.int32)
        if counts.shape != self.centers.shape[:1]:
            raise ValueError(f"counts must have shape {self.centers.shape[:1]}, one a center, got {counts.shape}.")
        self.counts, self.augment = CenterState(counts), augment
        self.weight = float(check.check_positive("weight", weight, zero=True))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error of a batch and λ/2 times the distance of its codes from their centers; moves the centers."""
        x = viewed(self.augment, key, batch.x)
        z = self.features(x)
        centers = self.centers[...]
        labels = self.labels(jax.lax.stop_gradient(z))
        error = self.autoencoder.error(x, self.autoencoder.decoder(z)) * (x.size // x.shape[0])
        distance = jnp.mean(jnp.sum(jnp.square(z - centers[labels]), axis=1))
        self._follow(jax.lax.stop_gradient(z), labels)
        return error + self.weight / 2 * distance, {"reconstruction": error, "clustering": distance}

    def _follow(self, z, labels):
        """Centers become the means of all codes that they have had; one without any stays where it is."""
        members = jax.nn.one_hot(labels, self.counts.shape[0], dtype=z.dtype)
        new, centers = members.sum(0), self.centers[...]
        self.counts[...] += new.astype(jnp.int32)
        moves = jnp.matmul(members.T, z, precision=HIGHEST) - new[:, None] * centers
        self.centers[...] = centers + moves / jnp.maximum(self.counts[...], 1).astype(z.dtype)[:, None]


class DenoisingClustering(CodeKMeans):
    """A denoising autoencoder whose codes are drawn to the centers that k-means finds among all of them.

    Minimizes error + λ·‖z − c_s‖²/v, the mean over rows: the error is the autoencoder's, a mean over rows and columns
    of what comes back of spoiled rows; v is the total variance of the codes, so that λ has no unit and shrinking all
    codes gains nothing. A `refresh` runs k-means on the codes of all rows, from the centers there are; its labels and
    v hold until the next.

    Args:
        autoencoder: pretrained, with ``noise``; all of it is trained.
        centers: (k, latent) to begin with.
        weight: λ >= 0.

    Raises:
        ValueError: centers of another shape; a negative weight.
    """

    def __init__(self, autoencoder: Autoencoder, centers: ArrayLike, *, weight: float = 0.1):
        super().__init__(autoencoder, centers)
        self.spread = CenterState(jnp.ones((), jnp.float32))
        self.weight = float(check.check_positive("weight", weight, zero=True))

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """k-means on the codes of all rows; each row's cluster is its target."""
        fit = kmeans.fit(key, z, self.centers.shape[0], init=self.centers[...])
        self.centers[...] = fit.state.centers
        self.measure(z, fit.labels)
        self.spread[...] = jnp.maximum(jnp.sum(jnp.var(z, axis=0)), jnp.finfo(jnp.float32).tiny)
        return Refreshed(fit.labels, fit.labels)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error of a spoiled batch and λ times the distance of its codes from their centers."""
        augment_key, noise_key = jax.random.split(key)
        x = viewed(self.autoencoder.augment, augment_key, batch.x)
        z = self.features(viewed(self.autoencoder.noise, noise_key, x))
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        gap = jnp.mean(jnp.sum(jnp.square(z - self.centers[...][batch.target]), axis=1))
        distance = gap / self.spread[...]
        return error + self.weight * distance, {"reconstruction": error, "clustering": distance}

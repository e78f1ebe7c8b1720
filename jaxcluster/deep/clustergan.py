"""ClusterGAN: a Wasserstein GAN with a discrete cluster in its latent code, and an encoder that recovers the code.

Source: S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
networks, AAAI 2019.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.cluster import kmeans
from jaxcluster.core import validation
from jaxcluster.deep.latent_kmeans import LatentCenters, NonTrainable
from jaxcluster.deep.nets import MLP, as_image_shape, as_images, downsampled_size
from jaxcluster.deep.nets.conv import check_channels
from jaxcluster.deep.nets.layers import UpsampleConv2x, batch_norm, convolve
from jaxcluster.deep.protocol import Batch, RefreshResult, UpdatePhase
from jaxcluster.losses import wasserstein
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

COLLAPSE_PROBABILITY = 0.99
"""Mean probability of one cluster over all samples above which the encoder knows no other cluster."""

COLLAPSE_DEVIATION = 1e-3
"""Standard deviation, relative to the root mean square of codes or to the deviation of generated samples, up to which
these count as equal."""

COLLAPSE_GRACE_STEPS = 1_000
"""Number of encoder updates before which all samples may be in one cluster: generated samples do not look real yet."""

COLLAPSE_PROBES = 8
"""Number of noise draws for which a sample of each cluster is generated, to test if clusters differ."""


class ClusterGAN(LatentCenters):
    """A generator of samples from codes z = (z_n, z_c), a critic, and an encoder from samples to codes.

    z_n is noise, N(0, σ²I), and z_c the one-hot vector of a uniformly drawn cluster. A step is ``critic_steps`` updates
    of the critic by mean D(x̃) − mean D(x) + λ·penalty, and one of generator and encoder by
    −mean D(x̃) + β_n·mean‖z_n − ẑ_n‖²/l + β_c·(cross-entropy of z_c and ẑ_c), x̃ generated from z and ẑ its code. The
    mean over the l columns of the noise is that of the authors' program, which gave the published figures; their paper
    writes the sum.

    Clusters come from k-means on the codes (ẑ_n, softmax ẑ_c) of all samples, started at the means of the samples with
    the greatest logit in each column of ẑ_c, so cluster j belongs to the j-th one-hot vector.

    Args:
        generator: (n_samples, latent + n_clusters) codes to (n_samples, n_features) samples.
        critic: samples to (n_samples, 1) scores; without batch normalization, see `wasserstein.gradient_penalty`.
        encoder: samples to (n_samples, latent + n_clusters) codes, the last n_clusters of them logits.
        n_clusters: number of clusters.
        latent: l, width of the noise.
        deviation: σ > 0 of the noise.
        code_weight: β_n >= 0.
        cluster_weight: β_c >= 0.
        penalty: λ >= 0.
        critic_steps: critic updates in a step.

    Attributes:
        centers: (n_clusters, latent + n_clusters) cluster centers of the codes at the last refresh.

    Raises:
        ValueError, TypeError: numbers out of range.
    """

    def __init__(
        self,
        generator: nnx.Module,
        critic: nnx.Module,
        encoder: nnx.Module,
        n_clusters: int,
        *,
        latent: int = 30,
        deviation: float = 0.10,
        code_weight: float = 10.0,
        cluster_weight: float = 10.0,
        penalty: float = 10.0,
        critic_steps: int = 5,
    ):
        self.generator, self.critic, self.encoder = generator, critic, encoder
        self.n_clusters = validation.check_count("n_clusters", n_clusters)
        self.latent = validation.check_count("latent", latent)
        self.critic_steps = validation.check_count("critic_steps", critic_steps)
        self.deviation = validation.check_positive("deviation", deviation)
        self.code_weight = validation.check_positive("code_weight", code_weight, zero=True)
        self.cluster_weight = validation.check_positive("cluster_weight", cluster_weight, zero=True)
        self.penalty = validation.check_positive("penalty", penalty, zero=True)
        super().__init__(self._cluster_codes())
        self.moves = NonTrainable(jnp.zeros((), jnp.int32))

    @property
    def trainable(self) -> dict[str, Any]:
        """Two parts: the critic, and its adversaries generator and encoder."""
        return {"critic": nnx.All(nnx.Param, _is_critic), "players": nnx.All(nnx.Param, nnx.Not(_is_critic))}

    @property
    def update_phases(self) -> tuple[UpdatePhase, ...]:
        """Alternating updates of a step.

        Returns:
            The updates of the critic, then the one of generator and encoder.
        """
        critic = UpdatePhase("critic", "critic_loss", ("critic",), self.critic_steps)
        return critic, UpdatePhase("loss", "loss", ("players",))

    def critic_loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of the critic on as many generated samples as real ones.

        Returns:
            The loss, and "distance", the critic's estimate of the Wasserstein distance of real and generated samples,
            and "penalty".
        """
        code_key, point_key = jax.random.split(key)
        fake = self.generator(self.draw(code_key, batch.x.shape[0])[0])
        real = batch.x.reshape(fake.shape)
        negative_distance = wasserstein.wasserstein_critic_loss(self.critic(real), self.critic(fake))
        points = wasserstein.points_between(point_key, real, fake)
        penalty = wasserstein.gradient_penalty(self.critic, points)
        return negative_distance + self.penalty * penalty, {"distance": -negative_distance, "penalty": penalty}

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of generator and encoder, which uses the size of the batch only.

        Returns:
            The loss, and its terms "adversarial", "code" and "cluster" without their weights.
        """
        self.moves[...] = self.moves[...] + 1
        z, labels = self.draw(key, batch.x.shape[0])
        # Of generated samples alone: their codes are known, and those of real ones are what the encoder is to find.
        fake = self.generator(z)
        code = self.encoder(fake)
        adversarial = wasserstein.wasserstein_generator_loss(self.critic(fake))
        noise = wasserstein.noise_recovery_loss(z[:, : self.latent], code[:, : self.latent]) / self.latent
        cluster = wasserstein.cluster_recovery_loss(labels, code[:, self.latent :])
        loss = adversarial + self.code_weight * noise + self.cluster_weight * cluster
        return loss, {"adversarial": adversarial, "code": noise, "cluster": cluster}

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """Code (ẑ_n, softmax ẑ_c) of each sample."""
        code = jnp.float32(self.encoder(x))
        return jnp.concatenate([code[:, : self.latent], jax.nn.softmax(code[:, self.latent :])], axis=1)

    def refresh(self, z: Float[Array, "n m"], key: KeyArray) -> RefreshResult:
        """Clusters of all samples by k-means.

        Training has collapsed if the codes of all samples are equal; if the samples that are generated from one noise
        are equal for all clusters; or if an encoder, after its first `COLLAPSE_GRACE_STEPS` updates, is sure of one
        cluster for almost all samples.
        """
        cluster_key, probe_key = jax.random.split(key)
        fit = kmeans.fit(cluster_key, z, self.n_clusters, init=self._initial_centers(z))
        self.centers[...] = fit.state.centers
        self.update_variance(z, fit.labels)
        return RefreshResult(fit.labels, collapsed=self._is_collapsed(z, probe_key))

    def _initial_centers(self, z):
        """Means of the samples with their greatest probability in each column of ẑ_c; one-hot codes without any."""
        labels = jnp.argmax(z[:, self.latent :], axis=1)
        sums, counts = cluster_sums(Points(z, jnp.ones_like(z[:, 0])), labels, self.n_clusters, uniform=True)
        counts = counts[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), self._cluster_codes())

    def _cluster_codes(self):
        """Codes of the clusters with zero noise."""
        return jnp.eye(self.n_clusters, self.latent + self.n_clusters, k=self.latent, dtype=jnp.float32)

    def _is_collapsed(self, z, key) -> Bool[Array, ""]:
        # Relative to the mean square, since codes may have any scale.
        same = jnp.mean(jnp.var(z, axis=0)) <= COLLAPSE_DEVIATION**2 * jnp.mean(jnp.square(z))
        if self.n_clusters == 1:
            return same
        sure = jnp.max(jnp.mean(z[:, self.latent :], axis=0)) > COLLAPSE_PROBABILITY
        return same | (sure & (self.moves[...] >= COLLAPSE_GRACE_STEPS)) | self._ignores_cluster(key)

    def _ignores_cluster(self, key):
        """True if the generated sample does not depend on the cluster of its code."""
        noise = self.deviation * jax.random.normal(key, (COLLAPSE_PROBES, 1, self.latent), jnp.float32)
        codes = self._cluster_codes()[None] + jnp.pad(noise, ((0, 0), (0, 0), (0, self.n_clusters)))
        rows = self.generator(codes.reshape(-1, codes.shape[-1])).reshape(COLLAPSE_PROBES, self.n_clusters, -1)
        # The variance between clusters at fixed noise, against the total variance of the generated samples.
        between = jnp.mean(jnp.var(rows, axis=1))
        return between <= COLLAPSE_DEVIATION**2 * jnp.mean(jnp.var(rows, axis=(0, 1)))

    def draw(self, key: KeyArray, n: int, cluster: int | None = None) -> tuple[Float[Array, "n m"], Int[Array, " n"]]:
        """Draw n codes (z_n, z_c) of one cluster, or of uniformly drawn clusters.

        Returns:
            (n, latent + n_clusters) codes, and the (n,) cluster of each.
        """
        noise_key, cluster_key = jax.random.split(key)
        noise = self.deviation * jax.random.normal(noise_key, (n, self.latent), jnp.float32)
        labels = jax.random.randint(cluster_key, (n,), 0, self.n_clusters, jnp.int32)
        if cluster is not None:
            labels = jnp.full_like(labels, cluster)
        return jnp.concatenate([noise, jax.nn.one_hot(labels, self.n_clusters, dtype=noise.dtype)], axis=1), labels

    def generate(
        self, key: KeyArray, n: int, cluster: int | None = None
    ) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
        """Generate samples of one cluster, or of all.

        Returns:
            (n, n_features) samples, and the (n,) cluster of each.

        Raises:
            ValueError, TypeError: n below 1 or not an integer; an unknown cluster.
        """
        n = validation.check_count("n", n)
        if cluster is not None:
            cluster = validation.check_cluster("cluster", cluster, self.n_clusters)
        z, labels = self.draw(key, n, cluster)
        return self.generator(z), labels

    def interpolate(self, key: KeyArray, a: int, b: int, steps: int) -> Float[Array, "steps d"]:
        """Samples interpolated between clusters a and b, with one draw of the noise.

        Their z_c is (1 − t)·(one-hot of a) + t·(one-hot of b), t from 0 to 1.

        Raises:
            ValueError, TypeError: steps below 1 or not an integer; an unknown cluster.
        """
        steps = validation.check_count("steps", steps)
        a, b = (validation.check_cluster(name, each, self.n_clusters) for name, each in (("a", a), ("b", b)))
        noise = self.deviation * jax.random.normal(key, (1, self.latent), jnp.float32)
        t = jnp.linspace(0, 1, steps, dtype=noise.dtype)[:, None]
        ends = self._cluster_codes().at[:, : self.latent].set(noise)
        return self.generator((1 - t) * ends[a][None] + t * ends[b][None])


def _is_critic(path, value) -> bool:
    """Filter of the critic's variables of a `ClusterGAN`."""
    return path[0] == "critic"


# Networks. Weights start as N(0, 0.02²), biases at 0. The generators use batch normalization; critic and encoder do
# not, since the gradient penalty is defined for single samples.

CHANNELS = (64, 128)
"""Channels of the convolutions of critic and encoder, each of which halves height and width."""

DENSE = 1024
"""Width of the dense layer between convolutions and codes."""

leaky_relu = partial(jax.nn.leaky_relu, negative_slope=0.2)
normal_init = nnx.initializers.normal(0.02)


def dense_encoder(widths: Sequence[int], *, rngs: nnx.Rngs) -> MLP:
    """Dense layers with leaky ReLU between them: an encoder, or with a last width of 1 a critic.

    Args:
        widths: of the samples, the hidden layers and the output.
        rngs: its stream "params" draws the weights.
    """
    return MLP(widths, activation=leaky_relu, kernel_init=normal_init, rngs=rngs)


class DenseGenerator(nnx.Module):
    """Dense layers with batch normalization and leaky ReLU between them: codes to samples.

    Args:
        widths: of the code, the hidden layers and the samples; at least two.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths; one below 1 or not an integer.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        dense = MLP(widths, activation=leaky_relu, kernel_init=normal_init, rngs=rngs)
        self.layers = dense.layers
        self.norms = nnx.List([batch_norm(width, rngs=rngs) for width in dense.widths[1:-1]])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """Sample of each code, float32."""
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            z = leaky_relu(norm(layer(z)))
        return jnp.float32(self.layers[-1](z))


class ImageEncoder(nnx.Module):
    """Convolutions of 4×4 and stride 2 and a dense layer, each with leaky ReLU, and a linear layer: encoder or critic.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        width: of the output; 1 for a critic.
        channels: of each convolution; each halves height and width.
        dense: width of the dense layer.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: an invalid shape; widths below 1 or not integers.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int,
        *,
        channels: Sequence[int] = CHANNELS,
        dense: int = DENSE,
        rngs: nnx.Rngs,
    ):
        self.image_shape = as_image_shape(image_shape)
        channels = check_channels(channels)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        options = {"strides": 2, "conv_general_dilated": convolve, "kernel_init": normal_init, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, (4, 4), **options) for a, b in pairs])
        flat = math.prod(downsampled_size(self.image_shape[:2], len(channels))) * channels[-1]
        self.last = dense_encoder((flat, dense, width), rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """Output (n_samples, width) for images, which may be flat; float32."""
        x = as_images(x, self.image_shape)
        for convolution in self.convolutions:
            x = leaky_relu(convolution(x))
        return self.last(x.reshape(x.shape[0], -1))


class ImageGenerator(nnx.Module):
    """Two dense layers and transposed convolutions, with batch normalization and ReLU between them: codes to images.

    Args:
        width: of the code.
        image_shape: (height, width) or (height, width, channels) of an image.
        channels: of the `ImageEncoder`, in its order.
        dense: width of the first dense layer.
        bounded: values in (0, 1), by a sigmoid.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: an invalid shape; widths below 1 or not integers.
    """

    def __init__(
        self,
        width: int,
        image_shape: Sequence[int],
        *,
        channels: Sequence[int] = CHANNELS,
        dense: int = DENSE,
        bounded: bool = True,
        rngs: nnx.Rngs,
    ):
        self.image_shape, self.bounded = as_image_shape(image_shape), bounded
        channels = check_channels(channels)
        self.sizes = tuple(downsampled_size(self.image_shape[:2], times) for times in reversed(range(len(channels))))
        self.initial_shape = (*downsampled_size(self.image_shape[:2], len(channels)), channels[-1])
        validation.check_count("dense", dense)
        self.first = nnx.Linear(width, dense, kernel_init=normal_init, rngs=rngs)
        self.second = nnx.Linear(dense, math.prod(self.initial_shape), kernel_init=normal_init, rngs=rngs)
        pairs = itertools.pairwise((*reversed(channels), self.image_shape[2]))
        self.convolutions = nnx.List([UpsampleConv2x(a, b, kernel_init=normal_init, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([batch_norm(each, rngs=rngs) for each in (dense, *reversed(channels))])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """Flat image of each code, float32."""
        x = jax.nn.relu(self.norms[0](self.first(z)))
        x = self.second(x).reshape(z.shape[0], *self.initial_shape)
        # Each upsampling doubles the sides; odd sizes, which the encoder rounded up, are cut back.
        for norm, convolution, (height, width) in zip(self.norms[1:], self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(norm(x)))[:, :height, :width]
        x = jnp.float32(x).reshape(z.shape[0], -1)
        return jax.nn.sigmoid(x) if self.bounded else x

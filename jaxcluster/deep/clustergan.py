"""ClusterGAN: rows are generated from codes with a cluster in them, and an encoder finds the codes again.

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
import numpy as np
from flax import nnx

from jaxcluster.cluster import kmeans
from jaxcluster.core import check
from jaxcluster.deep.latent_kmeans import CenterState, CodeCenters
from jaxcluster.deep.nets import MLP, as_image_shape, as_images, halved
from jaxcluster.deep.nets.conv import checked_channels
from jaxcluster.deep.nets.layers import Double, batch_norm, convolve
from jaxcluster.deep.protocol import Batch, Refreshed, Turn
from jaxcluster.losses import wasserstein
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

ONE_CLUSTER = 0.99
"""The mean share of one cluster in all rows from which on the encoder is taken to know no other."""

ALIKE = 1e-3
"""Codes or rows whose deviation is no more, as a share of what it is compared with, are taken to be the same."""

SETTLED = 1_000
"""Moves of the encoder before which rows may all be in one cluster: those that it learns from do not look real yet."""

PROBES = 8
"""Draws of the noise from which a row of each cluster is generated, to see whether clusters differ."""


class ClusterGAN(CodeCenters):
    """A generator of rows from codes z = (z_n, z_c), a critic of them, and an encoder from rows to codes.

    z_n is noise, N(0, σ²I), and z_c the one-hot of a cluster, each as likely. A step is ``critic_steps`` moves of the
    critic, by mean D(x̃) − mean D(x) + λ·penalty, and one of generator and encoder together, by
    −mean D(x̃) + β_n·mean‖z_n − ẑ_n‖²/l + β_c·(cross-entropy of z_c and ẑ_c), x̃ generated from z and ẑ its code. The
    mean over the l columns of the noise is that of the authors' program, on which the published figures rest; their
    paper writes the sum.

    Clusters are those of k-means among the codes (ẑ_n, softmax ẑ_c) of all rows, which starts at the means of the
    rows whose greatest share is in one column of ẑ_c: cluster j is the one that rows of the j-th one-hot belong to.

    Args:
        generator: (n, latent + k) codes to (n, d) rows.
        critic: rows to (n, 1) scores, each of its own row alone: without batch normalization.
        encoder: rows to (n, latent + k) codes, the last k of them logits.
        n_clusters: k.
        latent: l, the width of the noise.
        deviation: σ > 0 of the noise.
        code_weight: β_n >= 0.
        cluster_weight: β_c >= 0.
        penalty: λ >= 0.
        critic_steps: moves of the critic a step.

    Attributes:
        centers: (k, latent + k) of the clusters among the codes, as the last look at all rows found them.

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
        self.n_clusters = check.check_count("n_clusters", n_clusters)
        self.latent = check.check_count("latent", latent)
        self.critic_steps = check.check_count("critic_steps", critic_steps)
        self.deviation = check.check_positive("deviation", deviation)
        self.code_weight = check.check_positive("code_weight", code_weight, zero=True)
        self.cluster_weight = check.check_positive("cluster_weight", cluster_weight, zero=True)
        self.penalty = check.check_positive("penalty", penalty, zero=True)
        super().__init__(self._corners())
        self.moves = CenterState(jnp.zeros((), jnp.int32))

    @property
    def trainable(self) -> dict[str, Any]:
        """The two sides: the critic, and what plays against it."""
        return {
            "critic": nnx.All(nnx.Param, _of_critic),
            "players": nnx.All(nnx.Param, nnx.Not(_of_critic)),
        }

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The moves of a step."""
        return Turn("critic", "critic_loss", ("critic",), self.critic_steps), Turn("loss", "loss", ("players",))

    # The two losses.

    def critic_loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """What the critic minimizes, on as many generated rows as real ones.

        Followed: "distance", its estimate of the Wasserstein distance of real and generated rows, and "penalty".
        """
        code_key, point_key = jax.random.split(key)
        fake = self.generator(self.draw(code_key, batch.x.shape[0])[0])
        real = batch.x.reshape(fake.shape)
        gap = wasserstein.wasserstein_critic_loss(self.critic(real), self.critic(fake))
        points = wasserstein.points_between(point_key, real, fake)
        penalty = wasserstein.gradient_penalty(self.critic, points)
        return gap + self.penalty * penalty, {"distance": -gap, "penalty": penalty}

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """What generator and encoder minimize; of the batch only the number of rows counts.

        Followed: "adversarial", "code" and "cluster", the three terms without their weights.
        """
        self.moves[...] = self.moves[...] + 1
        z, labels = self.draw(key, batch.x.shape[0])
        fake = self.generator(z)
        found = self.encoder(fake)
        adversarial = wasserstein.wasserstein_generator_loss(self.critic(fake))
        code = wasserstein.noise_recovery_loss(z[:, : self.latent], found[:, : self.latent]) / self.latent
        cluster = wasserstein.cluster_recovery_loss(labels, found[:, self.latent :])
        loss = adversarial + self.code_weight * code + self.cluster_weight * cluster
        return loss, {"adversarial": adversarial, "code": code, "cluster": cluster}

    # Clusters.

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """(ẑ_n, softmax ẑ_c) of each row."""
        found = jnp.float32(self.encoder(x))
        return jnp.concatenate([found[:, : self.latent], jax.nn.softmax(found[:, self.latent :])], axis=1)

    def refresh(self, z: Float[Array, "n m"], key: KeyArray) -> Refreshed:
        """Finds the clusters of all rows by k-means.

        It is a collapse where the codes of all rows are alike; where rows that are generated from the same noise are
        alike in all clusters; and where an encoder that has had the time to learn is sure of one cluster for (almost)
        all rows. An untrained network is none of these.
        """
        cluster_key, probe_key = jax.random.split(key)
        fit = kmeans.fit(cluster_key, z, self.n_clusters, init=self._start(z))
        self.centers[...] = fit.state.centers
        self.measure(z, fit.labels)
        return Refreshed(fit.labels, collapsed=self._collapsed(z, probe_key))

    def _start(self, z):
        """The means of the rows that each column of ẑ_c is greatest for; one-hots where there are none."""
        labels = jnp.argmax(z[:, self.latent :], axis=1)
        sums, counts = cluster_sums(Points(z, jnp.ones_like(z[:, 0])), labels, self.n_clusters, uniform=True)
        counts = counts[:, None]
        return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), self._corners())

    def _corners(self):
        """The codes of the clusters without noise."""
        return jnp.eye(self.n_clusters, self.latent + self.n_clusters, k=self.latent, dtype=jnp.float32)

    def _collapsed(self, z, key) -> Bool[Array, ""]:
        same = jnp.mean(jnp.var(z, axis=0)) <= ALIKE**2 * jnp.mean(jnp.square(z))
        if self.n_clusters == 1:
            return same
        sure = jnp.max(jnp.mean(z[:, self.latent :], axis=0)) > ONE_CLUSTER
        return same | (sure & (self.moves[...] >= SETTLED)) | self._draws_alike(key)

    def _draws_alike(self, key):
        """Whether the cluster of a code makes no difference to its row."""
        noise = self.deviation * jax.random.normal(key, (PROBES, 1, self.latent), jnp.float32)
        codes = self._corners()[None] + jnp.pad(noise, ((0, 0), (0, 0), (0, self.n_clusters)))
        rows = self.generator(codes.reshape(-1, codes.shape[-1])).reshape(PROBES, self.n_clusters, -1)
        between = jnp.mean(jnp.var(rows, axis=1))
        return between <= ALIKE**2 * jnp.mean(jnp.var(rows, axis=(0, 1)))

    # What the generator is for.

    def draw(self, key: KeyArray, n: int, cluster: int | None = None) -> tuple[Float[Array, "n m"], Int[Array, " n"]]:
        """Draws n codes (z_n, z_c), and the cluster of each: ``cluster``, or any, each as likely."""
        noise_key, cluster_key = jax.random.split(key)
        noise = self.deviation * jax.random.normal(noise_key, (n, self.latent), jnp.float32)
        labels = jax.random.randint(cluster_key, (n,), 0, self.n_clusters, jnp.int32)
        if cluster is not None:
            labels = jnp.full_like(labels, cluster)
        return jnp.concatenate([noise, jax.nn.one_hot(labels, self.n_clusters, dtype=noise.dtype)], axis=1), labels

    def generate(
        self, key: KeyArray, n: int, cluster: int | None = None
    ) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
        """Generates rows of one cluster, or of all.

        Returns:
            (n, d) rows, and the cluster of each.

        Raises:
            ValueError, TypeError: an n that is no count; a cluster that there is not.
        """
        n = check.check_count("n", n)
        if cluster is not None:
            self._check_cluster("cluster", cluster)
        z, labels = self.draw(key, n, cluster)
        return self.generator(z), labels

    def interpolate(self, key: KeyArray, a: int, b: int, steps: int) -> Float[Array, "steps d"]:
        """Rows on the way from one cluster to another, all from one draw of the noise.

        Their z_c is (1 − t)·(one-hot of a) + t·(one-hot of b), t from 0 to 1.

        Raises:
            ValueError, TypeError: steps that are no count; clusters that there are not.
        """
        steps = check.check_count("steps", steps)
        self._check_cluster("a", a)
        self._check_cluster("b", b)
        noise = self.deviation * jax.random.normal(key, (1, self.latent), jnp.float32)
        t = jnp.linspace(0, 1, steps, dtype=noise.dtype)[:, None]
        ends = self._corners().at[:, : self.latent].set(noise)
        return self.generator((1 - t) * ends[a][None] + t * ends[b][None])

    def _check_cluster(self, name, cluster):
        if isinstance(cluster, bool) or not isinstance(cluster, (int, np.integer)):
            raise TypeError(f"{name}={cluster!r} must be a whole number, that of a cluster.")
        if not 0 <= cluster < self.n_clusters:
            raise ValueError(f"{name}={cluster} must be from 0 to {self.n_clusters - 1}.")


def _of_critic(path, value) -> bool:
    """Whether a variable of a `ClusterGAN` is its critic's."""
    return path[0] == "critic"


# Networks of ClusterGAN: generators from codes to rows, and what looks at rows, for its critic and its encoder.
#
# Weights begin as N(0, 0.02²), biases at 0. The generators normalize by the batch while they are trained; critic and
# encoder do not, since the gradient penalty is of single rows.
#
# Source: S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
# networks, AAAI 2019.

CHANNELS = (64, 128)
"""Of the convolutions that look at images, each of which halves height and width."""

DENSE = 1024
"""Width of the dense layer between convolutions and codes."""

leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)
narrow = nnx.initializers.normal(0.02)


def dense_reader(widths: Sequence[int], *, rngs: nnx.Rngs) -> MLP:
    """Dense layers with leaky ReLU between them: a critic, where the last width is 1, or an encoder.

    Args:
        widths: of the rows, the hidden layers and the output.
        rngs: its stream "params" draws the weights.
    """
    return MLP(widths, activation=leaky, kernel_init=narrow, rngs=rngs)


class DenseGenerator(nnx.Module):
    """Dense layers with batch normalization and leaky ReLU between them, and neither after the last.

    Args:
        widths: of the code, the hidden layers and the rows: at least two.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths, or one that is no count.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        dense = MLP(widths, activation=leaky, kernel_init=narrow, rngs=rngs)
        self.layers = dense.layers
        self.norms = nnx.List([batch_norm(width, rngs=rngs) for width in dense.widths[1:-1]])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The row of each code, float32."""
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            z = leaky(norm(layer(z)))
        return jnp.float32(self.layers[-1](z))


class ImageReader(nnx.Module):
    """Convolutions of 4×4 and stride 2 and a dense layer, each with leaky ReLU, and a linear one: critic or encoder.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        width: of the output; 1 for a critic.
        channels: of each convolution; each halves height and width.
        dense: width of the dense layer.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none, or widths that are no counts.
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
        channels = checked_channels(channels)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        options = {"strides": 2, "conv_general_dilated": convolve, "kernel_init": narrow, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, (4, 4), **options) for a, b in pairs])
        flat = math.prod(halved(self.image_shape[:2], len(channels))) * channels[-1]
        self.last = dense_reader((flat, dense, width), rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """What the last layer gives for each image, float32; images may be flat."""
        x = as_images(x, self.image_shape)
        for convolution in self.convolutions:
            x = leaky(convolution(x))
        return self.last(x.reshape(x.shape[0], -1))


class ImageGenerator(nnx.Module):
    """Two dense layers and transposed convolutions, with batch normalization and ReLU between them: codes to images.

    Args:
        width: of the code.
        image_shape: (height, width) or (height, width, channels) of an image.
        channels: as `ImageReader` has them, in its order.
        dense: width of the first dense layer.
        bounded: whether values are in (0, 1), by a sigmoid.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none, or widths that are no counts.
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
        channels = checked_channels(channels)
        self.sizes = tuple(halved(self.image_shape[:2], times) for times in reversed(range(len(channels))))
        self.start = (*halved(self.image_shape[:2], len(channels)), channels[-1])
        check.check_count("dense", dense)
        self.first = nnx.Linear(width, dense, kernel_init=narrow, rngs=rngs)
        self.second = nnx.Linear(dense, math.prod(self.start), kernel_init=narrow, rngs=rngs)
        pairs = itertools.pairwise((*reversed(channels), self.image_shape[2]))
        self.convolutions = nnx.List([Double(a, b, kernel_init=narrow, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([batch_norm(each, rngs=rngs) for each in (dense, *reversed(channels))])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The flat image of each code, float32."""
        x = jax.nn.relu(self.norms[0](self.first(z)))
        x = self.second(x).reshape(z.shape[0], *self.start)
        for norm, convolution, (height, width) in zip(self.norms[1:], self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(norm(x)))[:, :height, :width]
        x = jnp.float32(x).reshape(z.shape[0], -1)
        return jax.nn.sigmoid(x) if self.bounded else x

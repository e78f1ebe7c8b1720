"""Clustering in the latent space of a generative adversarial network: `ClusterGAN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from flax import nnx
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.deep import clustergan as nets
from jaxcluster.deep.clustergan import ClusterGAN as ClusterGANModule
from jaxcluster.deep.inference import eval_copy
from jaxcluster.deep.optimizers import adam
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.base import DeepEstimator
from jaxcluster.estimators.deep.single_phase import SinglePhaseEstimator
from jaxcluster.estimators.deep.trained import Interpolating
from jaxcluster.estimators.registry import register

DEFAULT_BATCH_SIZE = 64
"""Samples per optimizer update for batch_size="auto"."""


@register("clustergan")
@dataclass(eq=False, repr=False)
class ClusterGAN(Interpolating, SinglePhaseEstimator, DeepEstimator):
    """ClusterGAN: a generator of samples of each cluster, and an encoder that recovers noise and cluster.

    The generator maps noise and a one-hot cluster to a sample, the critic (Wasserstein, gradient penalty) separates
    generated from real samples, and the encoder, trained with the generator, recovers noise and cluster. Real samples
    are clustered by k-means of their codes, the recovered noise and cluster probabilities; generated samples of cluster
    j get label j. A step is ``critic_steps`` updates of the critic and one of generator and encoder.

    Args:
        n_clusters: number of clusters.
        hidden: widths of the hidden layers of all three networks. With images: convolutions and one dense layer of the
            last width.
        channels: channels of the convolutions, for images. The paper uses (64, 128) and a dense layer of 1,024.
        latent: dimension of the noise.
        deviation: standard deviation of the noise.
        code_weight: β_n, weight of the mean squared error of the recovered noise.
        cluster_weight: β_c, weight of the cross-entropy of the recovered clusters. The paper uses 10; with less,
            generated samples become realistic before the clusters are decided.
        penalty: λ, weight of the gradient penalty of the critic, (‖gradient‖ − 1)².
        critic_steps: updates of the critic per step.
        encoder, generator, critic: any `nnx.Module` in place of the method's own: from samples to
            (n, latent + n_clusters) codes, the last n_clusters of them logits; from such codes, with one-hots for the
            logits, to scaled samples; and from samples to (n, 1) scores, without batch normalization. They are not
            changed. A model with some of your own is saved if they have ``get_config()``; see `jaxcluster.load`.
        epochs: number of epochs, each of at least 250 steps and one pass over the samples; None for at least 3,000
            steps and 12 epochs.
        batch_size: samples per update; "auto" is 64, or n_samples if that is less.
        learning_rate: constant learning rate of Adam, with β₁ = 0.5 and β₂ = 0.9. The paper uses 1e-4, for many more
            steps.
        image_shape: see `DeepEstimator`; scaling, …: see `SinglePhaseEstimator`.

    Attributes:
        cluster_centers_: (n_clusters, latent + n_clusters), in the space of the codes.
        labels_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`. In the records,
            "distance" is the critic's estimate of the Wasserstein distance between real and generated rows, "code" and
            "cluster" are the errors of the recovered noise and cluster.

    Source: S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
    networks, AAAI 2019.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (256, 256)
    latent: int = 30
    channels: Sequence[int] = (32, 64)
    deviation: float = 0.10
    code_weight: float = 10.0
    cluster_weight: float = 1.0
    penalty: float = 10.0
    critic_steps: int = 5
    generator: Any = None
    critic: Any = None
    learning_rate: Any = 1e-3

    BATCH_SIZE: ClassVar[int] = DEFAULT_BATCH_SIZE
    MIN_STEPS: ClassVar[int] = 3_000
    MIN_EPOCH_STEPS: ClassVar[int] = 250
    MIN_EPOCHS: ClassVar[int] = 12

    def sample(self, n_samples: int = 1, cluster: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Generate samples, of uniformly drawn clusters or of one.

        Args:
            n_samples: number of samples.
            cluster: cluster of all samples; None for any.

        Returns:
            (n_samples, n_features) samples in the units of X, and (n_samples,) int32 clusters.

        Raises:
            ValueError, TypeError: a cluster that does not exist.
        """
        check_is_fitted(self)
        rows, labels = self.module_.generate(as_key(self.random_state), n_samples, cluster)
        return self.scaling_.undo(np.asarray(rows)), np.array(labels)

    def _examples(self, X, codes):
        return super()._examples(X, codes) | {"samples": self._generated()}

    def _between(self, a, b, steps):
        return self.module_.interpolate(as_key(self.random_state), a, b, steps)

    @property
    def _n_features_out(self):
        return self.latent + self.n_clusters

    def _make(self, rngs, d):
        width = self.latent + self.n_clusters
        makers = self._image_networks(width) if self.image_shape is not None else self._table_networks(width, d)
        given = self.generator, self.critic, self.encoder
        networks = [make(rngs=rngs) if own is None else nnx.clone(own) for own, make in zip(given, makers, strict=True)]
        generator, critic, encoder = networks
        _check_parts(generator, critic, width, d)
        return ClusterGANModule(
            generator,
            critic,
            encoder,
            self.n_clusters,
            latent=self.latent,
            deviation=self.deviation,
            code_weight=self.code_weight,
            cluster_weight=self.cluster_weight,
            penalty=self.penalty,
            critic_steps=self.critic_steps,
        )

    def _table_networks(self, width, d):
        """Constructors of the dense generator, critic and encoder, which take ``rngs``."""
        hidden = tuple(self.hidden)
        return (
            partial(nets.DenseGenerator, (width, *hidden, d)),
            partial(nets.dense_encoder, (d, *hidden, 1)),
            partial(nets.dense_encoder, (d, *hidden, width)),
        )

    def _image_networks(self, width):
        shape, sizes = self.image_shape, {"channels": tuple(self.channels), "dense": self.hidden[-1]}
        # Images scaled to [0, 1] get a generator with a sigmoid output; values of other scalings have no bounds.
        bounded = self.scaling in ("auto", "minmax")
        return (
            partial(nets.ImageGenerator, width, shape, bounded=bounded, **sizes),
            partial(nets.ImageEncoder, shape, 1, **sizes),
            partial(nets.ImageEncoder, shape, width, **sizes),
        )

    def _decay(self, steps):
        return None

    def _optimizer(self, decay):
        return adam(self._rate(), b1=0.5, b2=0.9) if self.optimizer is None else self.optimizer

    def _collapse_cause(self, phase):
        return (
            "rows that are generated of all clusters are alike, or those of X are all in one. "
            f"{self._lower_rate_advice(phase)}, raise cluster_weight={self.cluster_weight}, or look whether X varies"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        images = self.image_shape is not None
        checks.check_widths("hidden", self.hidden, least=1 if images else 0)
        checks.check_widths("channels", self.channels, least=1)
        checks.check_number("deviation", self.deviation)
        for name in ("code_weight", "cluster_weight", "penalty"):
            checks.check_number(name, getattr(self, name), zero=True)
        validation.check_count("critic_steps", self.critic_steps)
        for name in ("generator", "critic"):
            checks.check_network(name, getattr(self, name))

    def _check_width(self, shape):
        width = self.latent + self.n_clusters
        if tuple(shape) != (1, width):
            raise ValueError(
                f"the encoder gives codes of shape {tuple(shape)} for one row, but latent={self.latent} and "
                f"n_clusters={self.n_clusters} ask for (1, {width})."
            )


def _check_parts(generator: nnx.Module, critic: nnx.Module, width: int, d: int) -> None:
    """Raise ValueError unless the generator gives samples of d features and the critic one score per sample."""
    made = checks.output_shape("generator", eval_copy(generator), width)
    scored = checks.output_shape("critic", eval_copy(critic), d)
    if made != (1, d):
        raise ValueError(f"the generator gives rows of shape {made} for one code, but X has {d} columns.")
    if scored not in ((1,), (1, 1)):
        raise ValueError(f"the critic gives scores of shape {scored} for one row; expected (1, 1).")

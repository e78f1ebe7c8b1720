"""Clustering in the latent space of a generative adversarial network (ClusterGAN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.deep import clustergan as nets
from jaxcluster.deep.clustergan import ClusterGAN as ClusterGANModule
from jaxcluster.deep.optimizers import adam
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.single_phase import SinglePhaseEstimator
from jaxcluster.estimators.registry import register

DEFAULT_BATCH_SIZE = 64
"""Rows a move, unless ``batch_size`` says otherwise."""


@register("clustergan", "a generator of rows, cluster by cluster, and an encoder that finds clusters again")
@dataclass(eq=False, repr=False)
class ClusterGAN(SinglePhaseEstimator):
    """ClusterGAN: a generator of rows, cluster by cluster, and an encoder that finds the cluster of a row again.

    A generator makes rows of noise and the one-hot of a cluster, a critic tells them from those of X, and an encoder,
    trained with the generator, recovers noise and cluster. Rows of X are clustered by k-means among their codes: the
    noise that the encoder finds, and its share of each cluster. Rows that are generated of cluster j are put into
    cluster j. A step is ``critic_steps`` moves of the critic and one of the two others.

    Args:
        n_clusters: number of clusters.
        hidden: widths of the hidden layers of all three networks. Those of images have one dense layer, of the last
            width, and convolutions.
        channels: of the convolutions, for images. The paper has (64, 128) and a dense layer of 1,024.
        latent: width of the noise.
        deviation: of the noise.
        code_weight: β_n, of the mean square by which the noise that is found is off.
        cluster_weight: β_c, of the cross-entropy of the clusters that are found. The paper has 10; with less,
            generated rows come to look like those of X before it is settled which of them are a cluster.
        penalty: λ, of the critic's slopes that are not 1.
        critic_steps: moves of the critic a step.
        encoder, generator, critic: any `nnx.Module`, in place of the method's own: from rows to
            (n, latent + n_clusters) codes, the last n_clusters of them logits; from such codes, with one-hots for the
            logits, to rows as they are scaled; and from rows to (n, 1) scores, without batch normalization. They are
            not changed. A model with its own cannot be saved.
        epochs: of at least 250 steps, and as many as batches make a pass over the rows; None for at least 3,000 steps
            and 12 epochs.
        batch_size: rows a move; "auto" is 64, or all where there are fewer.
        learning_rate: of Adam, with moments of 0.5 and 0.9; it stays as it is. The paper has 1e-4, for many times the
            steps.
        image_shape, scaling, …: see `jaxcluster.estimators.deep.single_phase.SinglePhaseEstimator`.

    Attributes:
        cluster_centers_: (n_clusters, latent + n_clusters), among the codes.
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

    MIN_STEPS: ClassVar[int] = 3_000
    MIN_EPOCH_STEPS: ClassVar[int] = 250
    MIN_EPOCHS: ClassVar[int] = 12

    def sample(self, n_samples: int = 1, cluster: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Generates rows, of clusters drawn alike or of one.

        Args:
            n_samples: how many.
            cluster: the cluster that all are of; None for any.

        Returns:
            (n_samples, n_features) rows in the units of X, and the cluster of each, (n_samples,) int32.

        Raises:
            ValueError, TypeError: a cluster that there is not.
        """
        check_is_fitted(self)
        rows, labels = self.module_.generate(as_key(self.random_state), n_samples, cluster)
        return self.scaling_.undo(np.asarray(rows)), np.array(labels)

    def interpolate(self, a: int, b: int, steps: int = 10) -> np.ndarray:
        """Rows on the way from one cluster to another, (steps, n_features) in the units of X, all of the same noise.

        Args:
            a, b: the clusters of the first row and of the last.
            steps: how many rows.

        Raises:
            ValueError, TypeError: clusters that there are not; steps that are no count.
        """
        check_is_fitted(self)
        return self.scaling_.undo(np.asarray(self.module_.interpolate(as_key(self.random_state), a, b, steps)))

    @property
    def _n_features_out(self):
        return self.latent + self.n_clusters

    def _make(self, rngs, d):
        width = self.latent + self.n_clusters
        makers = self._image_networks(width) if self.image_shape is not None else self._table_networks(width, d)
        given = self.generator, self.critic, self.encoder
        parts = [make(rngs=rngs) if own is None else nnx.clone(own) for own, make in zip(given, makers, strict=True)]
        _check_parts(*parts[:2], width, d)
        return ClusterGANModule(
            *parts,
            self.n_clusters,
            latent=self.latent,
            deviation=self.deviation,
            code_weight=self.code_weight,
            cluster_weight=self.cluster_weight,
            penalty=self.penalty,
            critic_steps=self.critic_steps,
        )

    def _table_networks(self, width, d):
        """How generator, critic and encoder of tables are made, from ``rngs``."""
        hidden = tuple(self.hidden)
        return (
            partial(nets.DenseGenerator, (width, *hidden, d)),
            partial(nets.dense_encoder, (d, *hidden, 1)),
            partial(nets.dense_encoder, (d, *hidden, width)),
        )

    def _image_networks(self, width):
        shape, sizes = self.image_shape, {"channels": tuple(self.channels), "dense": self.hidden[-1]}
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

    def _batch(self, n):
        return min(DEFAULT_BATCH_SIZE, n) if self.batch_size == "auto" else self.batch_size

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
    """Raises where rows that are generated have another width than X, or scores are not one a row."""

    def shape_of(module, columns):
        module = nnx.clone(module)
        module.eval()
        return jax.eval_shape(module, jax.ShapeDtypeStruct((1, columns), np.float32)).shape

    made, scored = shape_of(generator, width), shape_of(critic, d)
    if made != (1, d):
        raise ValueError(f"the generator gives rows of shape {made} for one code, but X has {d} columns.")
    if scored not in ((1,), (1, 1)):
        raise ValueError(f"the critic gives scores of shape {scored} for one row; expected (1, 1).")

"""Clustering heads on fixed features (embeddings): `TEMI`, `SCAN`, `TURTLE` and `ContrastiveClustering`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster import deep
from jaxcluster.core import validation
from jaxcluster.deep.heads import nearest_neighbors
from jaxcluster.deep.views import Chain, GaussianNoise, Masking
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.single_phase import SinglePhaseEstimator
from jaxcluster.estimators.registry import register

MAX_NEIGHBORS = 50
"""Neighbors of a sample, unless ``n_neighbors`` is set: as many as TEMI was published with."""

NEIGHBOR_FRACTION = 0.1
"""The same as a fraction of the mean size of a cluster, for few samples: most neighbors must be of the same cluster."""

SELF_LABEL_FRACTION = 0.2
"""Part of the steps of SCAN, at the end, in which it learns from its own labels."""

TURTLE_BATCH_SIZE = 1024
"""Samples per step of TURTLE for batch_size="auto": its classifier learns from the batch alone."""


@dataclass(eq=False, repr=False)
class HeadEstimator(SinglePhaseEstimator):
    """Base of estimators that train small networks, heads, on samples that are features already.

    Samples are embeddings of any network, or tables. Several heads are trained side by side, and the one of the least
    loss is kept.

    Args:
        n_clusters: number of clusters.
        n_heads: number of heads.
        scaling: "auto" (see `jaxcluster.estimators.deep.scaling.scaled`), "standard", "minmax", "none", or "l2" for
            samples of length 1: neighbors are then those by the cosine.
        select: see `NetworkEstimator`; "trained" unless set, as embeddings of a network are no table.
        epochs, batch_size, …: see `SinglePhaseEstimator`.

    Attributes:
        cluster_centers_: (n_clusters, n_features) mean of the samples of each cluster, in the units of X, of length 1
            or less for scaling="l2"; of all samples for an empty cluster.
        head_losses_: (n_heads,) mean loss of each head over the last hundred steps.
        epoch_history_: also ``used``, the perplexity of the mean probabilities as a fraction of the clusters, and
            ``changed``, the fraction of samples with another cluster than an epoch before.
        labels_, history_, snapshots_, n_iter_, status_: see `NetworkEstimator`.
    """

    _: KW_ONLY
    n_heads: int = 16
    learning_rate: Any = 1e-2
    select: str = "trained"

    EMBEDDING_METHOD: ClassVar[str] = "embed"

    @property
    def _n_features_out(self):
        return self.n_clusters

    def transform(self, X: Any) -> np.ndarray:
        """Compute the log-probabilities of the clusters for samples, (n_samples, n_clusters)."""
        return super().transform(X)

    def _publish(self, module, trained, phase, rows, snapshots):
        self.head_losses_ = np.array(module.losses[...])
        super()._publish(module, trained, phase, rows, snapshots)
        means = np.tile(np.mean(rows, axis=0, dtype=np.float64), (self.n_clusters, 1))
        for label in np.unique(self.labels_):
            means[label] = np.mean(rows[self.labels_ == label], axis=0, dtype=np.float64)
        self.cluster_centers_ = self.scaling_.undo(means)

    def _centers(self, module):
        # Set by `_publish`: a head has no centers, and the module has not seen all samples.
        return jnp.zeros((self.n_clusters, self.n_features_in_))

    def _collapse_cause(self, phase):
        return (
            f"all rows are in one cluster. Look whether X varies, pass other n_clusters, or more n_heads. "
            f"{self._lower_rate_advice(phase)}"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_count("n_heads", self.n_heads)


@dataclass(eq=False, repr=False)
class NeighborHeadEstimator(HeadEstimator):
    """Base of heads that learn from the nearest neighbors of each sample.

    Args:
        n_clusters, n_heads, …: see `HeadEstimator`.
        n_neighbors: number of neighbors of a sample; None for 50, or a tenth of the mean size of a cluster if that is
            less.
        hidden: widths of the hidden layers of a head; () for linear heads.
    """

    _: KW_ONLY
    n_neighbors: int | None = None
    hidden: Sequence[int] = (64,)

    def _make_for_training(self, rngs, rows):
        return self._make(rngs, rows.shape[1], nearest_neighbors(rows, self._count_neighbors(len(rows))))

    def _make(self, rngs: nnx.Rngs, d: int, neighbors: np.ndarray | None = None) -> Any:
        raise NotImplementedError

    def _count_neighbors(self, n):
        if self.n_neighbors is not None:
            return self.n_neighbors
        return min(MAX_NEIGHBORS, max(1, int(NEIGHBOR_FRACTION * n / self.n_clusters)), n - 1)

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_widths("hidden", self.hidden)
        if n < 2:
            raise ValueError(f"n_samples={n} should be at least 2: {type(self).__name__} learns from neighbors.")
        if self.n_neighbors is not None and validation.check_count("n_neighbors", self.n_neighbors) > n - 1:
            raise ValueError(f"n_neighbors={self.n_neighbors}: each of {n} rows has {n - 1} others. Pass at most that.")


@register("temi")
@dataclass(eq=False, repr=False, kw_only=True)
class TEMI(NeighborHeadEstimator):
    """TEMI: heads on fixed features that put a sample and its nearest neighbors into one cluster.

    A head maximizes the pointwise mutual information of a sample and a neighbor, weighted by the probability that both
    are in one cluster. Half of each pair comes from a teacher, the running mean of the head's weights.

    Args:
        n_clusters: number of clusters.
        beta: β in (0, 1]; with 1 some clusters may stay empty, with less their sizes are drawn together.
        temperature: > 0, divisor of the logits.
        momentum: of the teacher, in [0, 1). The paper's 0.996 is for ten times as many steps.
        n_neighbors, hidden: see `NeighborHeadEstimator`; n_heads, scaling, …: see `HeadEstimator`.

    Attributes:
        head_losses_, labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see
            `HeadEstimator`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> TEMI(3, n_heads=4, epochs=30, random_state=0).fit(X).transform(X).shape
        (150, 3)

    Source: N. Adaloglou, F. Michels, H. Kalisch and M. Kollmann, Exploring the limits of deep image clustering using
    pretrained models, BMVC 2023.
    """

    beta: float = 0.6
    temperature: float = 0.1
    momentum: float = 0.96

    def _make(self, rngs, d, neighbors=None):
        return deep.TEMI(
            d,
            self.n_clusters,
            neighbors,
            hidden=self.hidden,
            n_heads=self.n_heads,
            beta=self.beta,
            temperature=self.temperature,
            momentum=self.momentum,
            rngs=rngs,
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("temperature", self.temperature)
        if checks.check_number("beta", self.beta) > 1:
            raise ValueError(f"beta={self.beta} must be at most 1.")
        checks.check_number("momentum", self.momentum, zero=True, below=1.0)


@register("scan")
@dataclass(eq=False, repr=False, kw_only=True)
class SCAN(NeighborHeadEstimator):
    """SCAN: heads on fixed features that agree with a neighbor of each sample, and use all clusters.

    The last fifth of the steps is self-labeling: samples that the head is sure of, with noise added, train it further.

    Args:
        n_clusters: number of clusters.
        entropy_weight: >= 0, weight of the entropy of the mean probabilities; a small one leaves clusters empty.
        self_label: True for self-labeling at the end.
        threshold: least probability of a label that self-labeling learns from, in (0, 1).
        noise: >= 0, standard deviation of the noise in self-labeling, in units of the scaled samples.
        n_neighbors, hidden: see `NeighborHeadEstimator`; n_heads, scaling, …: see `HeadEstimator`.

    Attributes:
        epoch_history_: also ``certain``, the fraction of samples that self-labeling learned from.
        head_losses_: (n_heads,) mean loss of each head before self-labeling.
        labels_, cluster_centers_, history_, snapshots_, n_iter_, status_: see `HeadEstimator`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> SCAN(3, n_heads=4, epochs=30, random_state=0).fit(X).transform(X).shape
        (150, 3)

    Source: W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans and L. Van Gool, SCAN: learning to classify
    images without labels, ECCV 2020.
    """

    n_heads: int = 10
    entropy_weight: float = 5.0
    self_label: bool = True
    threshold: float = 0.99
    noise: float = 0.1

    def _make(self, rngs, d, neighbors=None):
        begin = None
        if neighbors is not None and self.self_label:
            batch = self._batch(len(neighbors))
            steps = self._epochs(len(neighbors), batch) * self._steps_per_epoch(len(neighbors), batch)
            begin = max(1, round((1 - SELF_LABEL_FRACTION) * steps))
        return deep.SCAN(
            d,
            self.n_clusters,
            neighbors,
            hidden=self.hidden,
            n_heads=self.n_heads,
            entropy_weight=self.entropy_weight,
            self_label_from=begin,
            threshold=self.threshold,
            augment=GaussianNoise(self.noise) if self.noise else None,
            rngs=rngs,
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("entropy_weight", self.entropy_weight, zero=True)
        checks.check_flag("self_label", self.self_label)
        checks.check_number("threshold", self.threshold, below=1.0)
        checks.check_number("noise", self.noise, zero=True)


@register("turtle")
@dataclass(eq=False, repr=False, kw_only=True)
class TURTLE(HeadEstimator):
    """TURTLE: the labeling of fixed features that a linear classifier learns with the least error.

    A linear head gives soft labels, and a linear classifier learns them; the head moves to labels that the classifier
    predicts better, with all clusters in use. Needs no neighbors.

    Args:
        n_clusters: number of clusters.
        n_heads: number of heads, each with its classifier.
        entropy_weight: γ >= 0, weight of the entropy of the mean label.
        inner_steps: steps of the classifier for each step of the head.
        inner_rate: learning rate of the classifier.
        batch_size: samples per step; "auto" is 1,024, or n_samples if that is less. The paper uses up to 10,000.
        epochs: number of epochs; None for at least 1,000 steps and 30 epochs.
        scaling, learning_rate, …: see `HeadEstimator`.

    Attributes:
        head_losses_, labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see
            `HeadEstimator`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> TURTLE(3, n_heads=2, epochs=30, random_state=0).fit(X).transform(X).shape
        (150, 3)

    Source: A. Gadetsky, Y. Jiang and M. Brbić, Let go of your labels with unsupervised transfer, ICML 2024.
    """

    n_heads: int = 8
    entropy_weight: float = 10.0
    inner_steps: int = 10
    inner_rate: float = 0.01

    BATCH_SIZE: ClassVar[int] = TURTLE_BATCH_SIZE
    MIN_STEPS: ClassVar[int] = 1_000

    def _make(self, rngs, d):
        return deep.TURTLE(
            d,
            self.n_clusters,
            n_heads=self.n_heads,
            entropy_weight=self.entropy_weight,
            inner_steps=self.inner_steps,
            inner_rate=self.inner_rate,
            rngs=rngs,
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("entropy_weight", self.entropy_weight, zero=True)
        validation.check_count("inner_steps", self.inner_steps)
        checks.check_number("inner_rate", self.inner_rate)


@register("contrastive-clustering")
@dataclass(eq=False, repr=False, kw_only=True)
class ContrastiveClustering(HeadEstimator):
    """Contrastive clustering (CC): heads on fixed features that tell rows and clusters apart in two views.

    A view is a sample with features set to 0 and noise added. The instance head recognizes a sample in its other view
    among the batch, and the cluster head recognizes a cluster by its probabilities of all samples of the batch. Needs
    no neighbors.

    Args:
        n_clusters: number of clusters.
        hidden: widths of the hidden layers that both heads share; () for linear heads.
        projection: dimension of the instance head.
        temperature, cluster_temperature: > 0, divisors of the cosines of samples and of clusters.
        noise: >= 0, standard deviation of the noise of a view, in units of the scaled samples.
        dropout: fraction of the features that a view sets to 0, in [0, 1).
        n_heads, scaling, …: see `HeadEstimator`.

    Attributes:
        epoch_history_: also ``instance``, the loss of the instance heads.
        head_losses_, labels_, cluster_centers_, history_, snapshots_, n_iter_, status_: see `HeadEstimator`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> ContrastiveClustering(3, n_heads=2, epochs=30, random_state=0).fit(X).transform(X).shape
        (150, 3)

    Source: Y. Li, P. Hu, Z. Liu, D. Peng, J. T. Zhou and X. Peng, Contrastive clustering, AAAI 2021.
    """

    n_heads: int = 4
    hidden: Sequence[int] = (64,)
    projection: int = 32
    temperature: float = 0.5
    cluster_temperature: float = 1.0
    noise: float = 0.3
    dropout: float = 0.2
    learning_rate: Any = 3e-3

    def _make(self, rngs, d):
        parts = [GaussianNoise(self.noise)] if self.noise else []
        parts += [Masking(self.dropout)] if self.dropout else []
        return deep.ContrastiveClustering(
            d,
            self.n_clusters,
            hidden=self.hidden,
            projection=self.projection,
            n_heads=self.n_heads,
            temperature=self.temperature,
            cluster_temperature=self.cluster_temperature,
            augment=Chain(*parts) if parts else None,
            rngs=rngs,
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_widths("hidden", self.hidden)
        validation.check_count("projection", self.projection)
        for name in ("temperature", "cluster_temperature"):
            checks.check_number(name, getattr(self, name))
        checks.check_number("noise", self.noise, zero=True)
        checks.check_number("dropout", self.dropout, zero=True, below=1.0)

"""Self-supervised clustering networks: `DeepCluster` (pseudo-labels) and `SwAV` (swapped assignments)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxcluster import deep
from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.swav import check_batch_covers_prototypes
from jaxcluster.deep.views import stack_views
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.base import EXAMPLES
from jaxcluster.estimators.deep.single_phase import AugmentationEstimator
from jaxcluster.estimators.registry import register

VARIANTS = ("v1", "v2")
"""Values of ``variant`` of `DeepCluster`."""

PSEUDO_CLASSES_PER_CLUSTER = 3
"""Pseudo-classes per cluster, unless ``n_pseudo`` is set. More classes than clusters make finer features."""

ROWS_PER_PSEUDO_CLASS = 10
"""Minimum number of samples per pseudo-class, unless ``n_pseudo`` is set."""


REPORTED_PROTOTYPES = 2
"""Prototypes of a cluster that a report shows rows of, at most."""


@register("deepcluster")
@dataclass(eq=False, repr=False, kw_only=True)
class DeepCluster(AugmentationEstimator):
    """DeepCluster: a network classifies augmented samples by pseudo-labels, the k-means clusters of its features.

    Each epoch begins with k-means of the features of all samples, into several pseudo-classes per cluster; its steps
    train the classification. At the end k-means of the features gives the clusters.

    Args:
        n_clusters: number of clusters.
        variant: "v2": spherical k-means, whose centers are the classifier; or "v1": k-means of whitened principal
            components, and a new linear classifier in each epoch.
        n_pseudo: number of pseudo-classes; None for three per cluster, or fewer if that leaves less than ten samples
            for each.
        update_interval: steps per epoch, between updates of the pseudo-labels; None for one pass over the samples, and
            at least 100.
        epochs: number of epochs; None for at least 2,000 steps and 30 epochs.
        components: principal components of "v1"; None for a quarter of the features, at most 256.
        temperature: > 0, divisor of the cosines of "v2".
        n_init: number of initializations of the last k-means.
        hidden, latent, views, …: see `AugmentationEstimator`.

    Attributes:
        cluster_centers_: (n_clusters, m) in the space that is clustered: features of length 1, for "v1" whitened.
        epoch_history_: also ``accuracy``, the fraction of views that are classified right, and, for each epoch but
            the first, ``nmi``, the normalized mutual information of its clusters and those before.
        labels_, history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Sources: see `jaxcluster.deep.deepcluster`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> DeepCluster(3, hidden=(16,), latent=8, epochs=3, random_state=0).fit(X).labels_.shape
        (150,)
    """

    variant: str = "v2"
    n_pseudo: int | None = None
    update_interval: int | None = None
    components: int | None = None
    temperature: float = 0.1
    n_init: int = 10

    DEFAULT_CROPS = (1, 0)
    MIN_EPOCH_STEPS = 100

    def _make(self, rngs, d):
        encoder = self._network(rngs, d)
        options = {"n_clusters": self.n_clusters, "n_init": self.n_init, "view": self._views(d)}
        if self.variant == "v2":
            return deep.DeepClusterV2(encoder, self.latent, self._n_pseudo, temperature=self.temperature, **options)
        return deep.DeepCluster(encoder, self.latent, self._n_pseudo, components=self.components, rngs=rngs, **options)

    def _steps_per_epoch(self, n, batch):
        return super()._steps_per_epoch(n, batch) if self.update_interval is None else self.update_interval

    def _collapse_cause(self, phase):
        return (
            f"all rows have the same features, or are in one cluster. {self._lower_rate_advice(phase)}, or pass an "
            "encoder with batch normalization"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("variant", self.variant, VARIANTS)
        validation.check_count("n_init", self.n_init)
        checks.check_number("temperature", self.temperature)
        if self.components is not None and validation.check_count("components", self.components) > self.latent:
            raise ValueError(
                f"components={self.components} is more than the {self.latent} features there are. Pass at most "
                f"{self.latent}, or raise latent."
            )
        if self.update_interval is not None:
            validation.check_count("update_interval", self.update_interval)
        if self.n_pseudo is not None:
            validation.check_clusters(self.n_pseudo, n, name="n_pseudo")
        few = max(self.n_clusters, min(PSEUDO_CLASSES_PER_CLUSTER * self.n_clusters, n // ROWS_PER_PSEUDO_CLASS))
        self._n_pseudo = few if self.n_pseudo is None else self.n_pseudo


PROTOTYPES_PER_CLUSTER = 5
"""Prototypes per cluster, unless ``n_prototypes`` is set."""

ROWS_PER_PROTOTYPE = 4
"""Minimum number of samples per prototype in an assignment, batch and queue together, unless ``queue_size`` is set."""


@register("swav")
@dataclass(eq=False, repr=False, kw_only=True)
class SwAV(AugmentationEstimator):
    """SwAV: swapped prediction of cluster assignments between augmented views of a sample.

    From one view the network predicts the prototypes that another view of the sample is assigned to, by a Sinkhorn
    assignment that gives all prototypes equal mass. Clusters are groups of prototypes that share samples, so they may
    differ in size.

    Args:
        n_clusters: number of clusters.
        n_prototypes: number of prototypes; None for five per cluster, or fewer if that leaves less than four samples
            for each. If it equals n_clusters, each prototype is a cluster, and clusters tend to equal sizes.
        views: function that gives several views of a sample, the large ones first: see `AugmentationEstimator`.
        crops: numbers of large views, which are assigned, and of small views, which only predict, for views="auto". The
            first number also counts the large ones of ``views`` without an attribute ``n_large``.
        projection: dimension of the prototypes, onto which a small network projects the features; None for the
            features themselves.
        temperature: > 0, temperature of the predictions.
        epsilon: > 0, temperature of the assignments.
        queue_size: number of earlier embeddings that take part in the assignments; None for four samples per
            prototype, 0 for no queue.
        freeze_steps: initial steps in which the prototypes are fixed.
        epochs: number of epochs, each of at least 50 steps and one pass over the samples; None for at least 2,000 steps
            and 30 epochs.
        hidden, latent, encoder, …: see `AugmentationEstimator`.

    Attributes:
        prototypes_: (n_prototypes, projection) unit vectors.
        prototype_labels_: (n_prototypes,) int32 cluster of each prototype.
        cluster_centers_: (n_clusters, latent) mean features.
        labels_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> SwAV(3, hidden=(16,), latent=4, epochs=20, random_state=0).fit_transform(X).shape
        (150, 4)

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
    """

    n_prototypes: int | None = None
    crops: tuple[int, int] = (2, 0)
    projection: int | None = 64
    temperature: float = 0.1
    epsilon: float = 0.05
    queue_size: int | None = None
    freeze_steps: int = 100

    MIN_EPOCH_STEPS = 50

    def _make(self, rngs, d):
        views, width = self._views(d), self.projection
        head = None if width is None else nets.Projector((self.latent, self.latent, width), rngs=rngs)
        return deep.SwAV(
            self._network(rngs, d),
            views,
            self.n_clusters,
            self._sizes["prototypes"],
            self.latent,
            head=head,
            width=width,
            n_global=getattr(views, "n_global", self.crops[0]),
            temperature=self.temperature,
            epsilon=self.epsilon,
            queue_size=self._sizes["queue"],
            freeze_steps=self.freeze_steps,
            rngs=rngs,
        )

    def _publish(self, module, trained, phase, rows, snapshots):
        super()._publish(module, trained, phase, rows, snapshots)
        self.prototypes_ = np.array(module.prototypes[...])
        self.prototype_labels_ = np.array(module.groups[...])

    def _examples(self, X, codes):
        """The rows nearest to the first prototypes of each cluster, and the mean codes of the clusters."""
        similarities = np.asarray(map_module(self.module_, "embed", codes)) @ self.prototypes_.T
        prototypes = {
            f"{name}: {prototype}": prototype
            for name in np.unique(self.labels_)
            for prototype in np.flatnonzero(self.prototype_labels_ == name)[:REPORTED_PROTOTYPES]
        }
        order = np.argsort(-similarities[:, list(prototypes.values())], axis=0, kind="stable")[:EXAMPLES]
        nearest = dict(zip(prototypes, X[order.T], strict=True))
        noun = f"prototype, {REPORTED_PROTOTYPES} a cluster at most"
        return super()._examples(X, codes) | {"nearest": nearest, "nearest_to": noun}

    def _collapse_cause(self, phase):
        return (
            "all rows look the same to the network, or are at one prototype. Pass views that leave more of the rows as "
            f"they are, or raise freeze_steps={self.freeze_steps}. {self._lower_rate_advice(phase)}"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        if n < 2:
            raise ValueError(f"n_samples={n} should be at least 2: a row is known by what sets it apart from others.")
        if self.views is None:
            raise ValueError("views=None shows rows as they are, and 2 views of each are needed. Pass views='auto'.")
        checks.check_pair("crops", self.crops)
        self._check_views(d)
        for name in ("n_prototypes", "projection"):
            if getattr(self, name) is not None:
                validation.check_count(name, getattr(self, name))
        for name in ("temperature", "epsilon"):
            checks.check_number(name, getattr(self, name))
        if self.queue_size is not None:
            checks.check_whole("queue_size", self.queue_size)
        checks.check_whole("freeze_steps", self.freeze_steps)
        self._sizes = self._choose_sizes(n)
        check_batch_covers_prototypes(self._sizes["prototypes"], self._batch(n), self._sizes["queue"])

    def _check_views(self, d):
        """Raise ValueError unless each sample has at least two views."""
        if isinstance(self.views, str):
            views, prefix = sum(self.crops), f"crops={tuple(self.crops)} make"
        else:
            stacks = jax.eval_shape(
                partial(stack_views, self.views), jax.random.key(0), jax.ShapeDtypeStruct((2, d), np.float32)
            )
            views, prefix = sum(stack.shape[0] for stack in stacks), "views give"
        if views < 2:
            raise ValueError(
                f"{prefix} {views} view of each row, and 2 are needed, so that one predicts the other. Pass views="
                "'auto' with crops=(2, 0), or a jaxcluster.deep.views.MultiCrop of a view with n_global=2."
            )

    def _choose_sizes(self, n):
        """Numbers of prototypes and of embeddings in the queue for n samples."""
        batch, count = self._batch(n), self.n_prototypes
        if count is None:
            # Samples that take part in one assignment: any number up to n with an automatic queue, else batch and
            # queue.
            seen = n if self.queue_size is None else batch + self.queue_size
            count = max(self.n_clusters, 2, min(PROTOTYPES_PER_CLUSTER * self.n_clusters, seen // ROWS_PER_PROTOTYPE))
        # The queue completes the batch to ROWS_PER_PROTOTYPE samples per prototype, or to all n.
        wanted = max(0, min(ROWS_PER_PROTOTYPE * count, n) - batch)
        return {"prototypes": count, "queue": wanted if self.queue_size is None else self.queue_size}

"""Metric learning: k-means on codes that were learned from labels, from augmentations, or from both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.deep.metric_learning import LOSSES
from jaxcluster.deep.metric_learning import MetricEmbedding as Module
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.checks import encode_classes
from jaxcluster.estimators.deep.single_phase import AugmentationEstimator
from jaxcluster.estimators.registry import register
from jaxcluster.losses.triplet import MINING


@register(
    "metric-embedding",
    takes_classes=True,
    choices={**AugmentationEstimator.info.choices, "loss": ("auto", *LOSSES), "mining": MINING},
)
@dataclass(eq=False, repr=False, kw_only=True)
class MetricEmbedding(AugmentationEstimator):
    """k-means on codes that are close for samples of one class, and for augmented views of one sample.

    Args:
        n_clusters: number of clusters, which may differ from that of the classes in ``y``.
        loss: "contrastive", "triplet", "nt-xent" or "supervised-contrastive": see
            `jaxcluster.deep.metric_learning.MetricEmbedding`. "auto" is the last one if there are labels, else
            "nt-xent", which learns from views only.
        views: function from a key and samples to a tuple of two or more augmented views, or to one view, and is then
            called twice. None for no augmentation: samples without a label are then not used.
        margin: margin of "contrastive" and "triplet"; codes have length 1.
        temperature: temperature of the other losses; None for 0.5 in "nt-xent" and 0.1 in "supervised-contrastive".
        mining: triplets that are used: "hard", or "all" or "semi-hard", which cost the cube of the batch size.
        n_init: number of initializations of k-means.
        hidden, latent, …: see `AugmentationEstimator`.

    Attributes:
        labels_: (n_samples,) int32 clusters of k-means on the codes, also for samples of known class.
        classes_: the known classes, ascending.
        epoch_history_: also the means of ``anchors``, views in a batch with a positive and a negative, and of
            ``triplets``, and ``barren``, the fraction of batches without any anchor.
        cluster_centers_, history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Sources: see `jaxcluster.deep.metric_learning`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> y[::2] = -1
        >>> model = MetricEmbedding(3, hidden=(16,), latent=2, epochs=10, random_state=0).fit(X, y)
        >>> model.transform(X).shape
        (150, 2)
    """

    loss: str = "auto"
    margin: float = 1.0
    temperature: float | None = None
    mining: str = "hard"
    n_init: int = 20

    MIN_EPOCH_STEPS = 5

    def fit(
        self, X: Any, y: Any = None, *, callbacks: Any = None, checkpoint_dir: Any = None, resume: Any = False
    ) -> MetricEmbedding:
        """Train the network and cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: (n_samples,) known classes: integers with −1 for unknown, or strings with None for unknown. None for no
                classes at all. "nt-xent" ignores them.
            callbacks, checkpoint_dir, resume: see `DeepEstimator.fit`.

        Raises:
            ValueError, TypeError: wrong arguments, shapes or values; neither labels nor views to learn from; an
                encoder with codes of another dimension; a checkpoint that was changed, or is of another configuration.

        Warns:
            ConvergenceWarning: a loss that is not finite, with the step; a collapsed training; empty clusters;
                batches in which no sample had both a positive and a negative, with their number.
        """
        return super().fit(X, y, callbacks=callbacks, checkpoint_dir=checkpoint_dir, resume=resume)

    def _make(self, rngs, d):
        options = {"margin": self.margin, "temperature": self.temperature, "mining": self.mining, "n_init": self.n_init}
        encoder, views = self._network(rngs, d), self._views(d)
        return Module(encoder, self.n_clusters, self.latent, loss=self._loss, views=views, **options)

    @property
    def _loss(self):
        auto = "supervised-contrastive" if self.classes_.size else "nt-xent"
        return auto if self.loss == "auto" else self.loss

    @property
    def _knows_classes(self):
        return self.classes_.size > 0

    def _encode_labels(self, y, n):
        self.classes_, codes = np.zeros(0, np.int64), np.full(n, -1, np.int32)
        if y is not None:
            codes, self.classes_ = encode_classes(y, n)
        uses_labels = self.classes_.size > 0 and self._loss != "nt-xent"
        if self.views is None:
            self._check_labels(np.bincount(codes[codes >= 0]) if uses_labels else None)
        return codes if uses_labels else None

    def _check_labels(self, counts):
        """Raise ValueError if classes with these numbers of samples give no pairs to learn from, without views."""
        if counts is None:
            raise ValueError(
                f"loss={self._loss!r} has no labels to learn from, and views=None. Pass views='auto', or y with the "
                "classes of some rows to a loss that learns from them."
            )
        if counts.size < 2 or counts.max() < 2:
            problem = "knows of one class only" if counts.size < 2 else "has no class with two rows"
            raise ValueError(
                f"y {problem}, and views=None: no row has both a positive and a negative. Pass views='auto', or the "
                "classes of more rows."
            )

    def _warn_of_status(self, trained, phase, rows):
        super()._warn_of_status(trained, phase, rows)
        # Records hold cumulative steps, and ``barren`` is a fraction of the steps of one epoch.
        steps = np.diff([0, *(record["step"] for record in self.epoch_history_)])
        barren = np.array([record["barren"] for record in self.epoch_history_])
        count = round(float(np.sum(steps * barren)))
        if count:
            batch, n = self._batch(self.labels_.size), self.labels_.size
            larger = f"a batch_size above {batch}, " if batch < n else ""
            warn(
                f"{type(self).__name__}: in {count:,} of {steps.sum():,} batches no row had both a positive and a "
                f"negative. Pass {larger}the classes of more rows, or views.",
                ConvergenceWarning,
            )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_choice("loss", self.loss, ("auto", *LOSSES))
        validation.check_choice("mining", self.mining, MINING)
        validation.check_count("n_init", self.n_init)
        checks.check_number("margin", self.margin)
        if self.temperature is not None:
            checks.check_number("temperature", self.temperature)

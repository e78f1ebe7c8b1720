"""Deep embedded clustering: `DEC`, `IDEC`, and `JointClustering`, which also learns from the classes of some rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxcluster import deep
from jaxcluster.cluster import kmeans, soft_kmeans
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoder_base import AutoencoderClusterer, ResettingClusterer
from jaxcluster.estimators.deep.checks import encode_classes
from jaxcluster.estimators.registry import register


@register("dec")
@dataclass(eq=False, repr=False, kw_only=True)
class DEC(ResettingClusterer):
    """Deep embedded clustering: the codes move towards their most probable clusters until labels no longer change.

    Minimizes KL(P‖Q): Q is the soft assignment of codes by Student's t; P is the sharpened target distribution of all
    samples, updated every ``update_interval`` steps.

    Args:
        n_clusters: number of clusters.
        alpha: degrees of freedom of Student's t.
        reset_interval, reset_keep: see `ResettingClusterer`; hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Source: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> model = DEC(3, hidden=(16,), latent=2, pretrain_epochs=20, epochs=5, random_state=0).fit(X)
        >>> model.predict_proba(X[:2]).shape
        (2, 3)
    """

    alpha: float = 1.0

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("alpha", self.alpha)

    def _make(self, autoencoder, start):
        return deep.DEC(autoencoder, start["centers"], alpha=self.alpha, augment=self._view())


@register("idec")
@dataclass(eq=False, repr=False, kw_only=True)
class IDEC(DEC):
    """Improved deep embedded clustering: DEC that keeps the reconstruction loss.

    Minimizes error + γ·KL(P‖Q).

    Args:
        n_clusters: number of clusters.
        gamma: γ, weight of the divergence; the error is a mean over samples and features.
        alpha: degrees of freedom of Student's t.
        reset_interval, reset_keep: see `ResettingClusterer`; hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Source: X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation,
    IJCAI 2017.
    """

    gamma: float = 0.1

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("gamma", self.gamma, zero=True)

    def _make(self, autoencoder, start):
        options = {"alpha": self.alpha, "gamma": self.gamma, "augment": self._view()}
        return deep.IDEC(autoencoder, start["centers"], **options)


@register("joint-clustering", takes_classes=True)
@dataclass(eq=False, repr=False, kw_only=True)
class JointClustering(AutoencoderClusterer):
    """Semi-supervised deep clustering: the classes of some samples are known, and there may be further clusters.

    Minimizes error + γ·KL(P‖Q) + λ·cross-entropy: IDEC's loss, and the cross-entropy of the samples of known class.
    Cluster j is that of ``classes_[j]``. Initial clusters come from k-means of all codes with the known samples held in
    their class, from two initializations, of which the less inertia wins: the mean codes of the classes with further
    centers seeded around them, or plain k-means whose clusters are matched to the classes. Without labels it is IDEC.

    Args:
        n_clusters: number of clusters, at least the number of classes.
        gamma: γ, weight of the divergence; the error is a mean over samples and features.
        weight: λ, weight of the cross-entropy, a mean over the samples of known class in a batch.
        alpha: degrees of freedom of Student's t.
        hidden, latent, …: see `AutoencoderClusterer`.

    Attributes:
        labels_: (n_samples,) int32 clusters by the network, also for samples of known class.
        classes_: the known classes, ascending; cluster j is that of ``classes_[j]``.
        cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Sources: X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation,
    IJCAI 2017; J. Enguehard, P. O'Halloran and A. Gholipour, Semi-supervised learning with deep embedded clustering for
    image classification and segmentation, IEEE Access 7 (2019).

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> y[::2] = -1
        >>> model = JointClustering(3, hidden=(16,), latent=2, pretrain_epochs=20, epochs=5, random_state=0).fit(X, y)
        >>> model.predict_class(X).shape
        (150,)
    """

    gamma: float = 0.1
    weight: float = 1.0
    alpha: float = 1.0

    def fit(
        self, X: Any, y: Any = None, *, callbacks: Any = None, checkpoint_dir: Any = None, resume: Any = False
    ) -> JointClustering:
        """Train the network and cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: (n_samples,) known classes: integers with −1 for unknown, or strings with None for unknown. None for no
                classes at all.
            callbacks, checkpoint_dir, resume: see `DeepEstimator.fit`.

        Raises:
            ValueError, TypeError: wrong arguments, shapes or values; more classes than clusters; an encoder whose
                codes have another dimension; a checkpoint that was changed, or is of another configuration.

        Warns:
            ConvergenceWarning: a loss that is not finite, with the step, or empty clusters.
        """
        return super().fit(X, y, callbacks=callbacks, checkpoint_dir=checkpoint_dir, resume=resume)

    def predict_class(self, X: Any) -> np.ndarray:
        """Label each sample by its most probable class, (n_samples,); clusters without a class do not count.

        Raises:
            ValueError: the estimator was fitted without labels.
        """
        probabilities = self.predict_proba(X)[:, : self.classes_.size]
        if not self.classes_.size:
            raise ValueError("JointClustering was fitted without labels, and knows no classes. Pass y to fit.")
        return self.classes_[np.argmax(probabilities, axis=1)]

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("alpha", self.alpha)
        for name in ("gamma", "weight"):
            checks.check_number(name, getattr(self, name), zero=True)

    @property
    def _knows_classes(self):
        return self.classes_.size > 0

    def _encode_labels(self, y, n):
        self.classes_ = np.zeros(0, np.int64)
        if y is None:
            return None
        codes, self.classes_ = encode_classes(y, n)
        if self.classes_.size > self.n_clusters:
            raise ValueError(
                f"y has {self.classes_.size} classes, and there are n_clusters={self.n_clusters}: each class is a "
                f"cluster. Pass n_clusters={self.classes_.size} or more, or -1 for rows whose class is not to count."
            )
        return codes if self.classes_.size else None

    def _start(self, key, z, autoencoder, rows, class_codes):
        if class_codes is None:
            return super()._start(key, z, autoencoder, rows, class_codes)
        starts = (
            self._centers_at_class_means(key, z, class_codes),
            self._centers_matched_to_classes(key, z, class_codes),
        )
        # Variance 0 makes soft k-means Lloyd's algorithm, in which known samples keep their class.
        fit = partial(soft_kmeans.fit, key, z, self.n_clusters, variance=0.0, known=class_codes)
        return {"centers": min((fit(init=start).state for start in starts), key=lambda state: state.objective).centers}

    def _centers_at_class_means(self, key, z, class_codes):
        """Mean codes of the classes, and further centers by k-means with the means fixed."""
        means = np.stack([np.asarray(z)[class_codes == number].mean(0) for number in range(self.classes_.size)])
        if len(means) == self.n_clusters:
            return means
        return kmeans.fit(key, z, self.n_clusters, frozen=means, n_init=self.n_init).state.centers

    def _centers_matched_to_classes(self, key, z, class_codes):
        """Centers of k-means in the order of the classes: the matching that covers most samples of known class."""
        fit = self._kmeans(key, z)
        counts = np.zeros((self.classes_.size, self.n_clusters))
        np.add.at(counts, (class_codes[class_codes >= 0], np.asarray(fit.labels)[class_codes >= 0]), 1)
        # Hungarian algorithm: one cluster per class, such that most samples of known class lie in that of their class.
        own = linear_sum_assignment(counts, maximize=True)[1]
        return fit.state.centers[np.array([*own, *np.setdiff1d(np.arange(self.n_clusters), own)])]

    def _make(self, autoencoder, start):
        options = {"gamma": self.gamma, "weight": self.weight, "alpha": self.alpha, "augment": self._view()}
        return deep.JointClustering(autoencoder, start["centers"], **options)

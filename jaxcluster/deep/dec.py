"""Deep embedded clustering (DEC), its improved form that keeps the decoder (IDEC), and IDEC with some class labels.

Sources: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016 (DEC);
X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation, IJCAI 2017
(IDEC); X. Guo, E. Zhu, X. Liu and J. Yin, Deep embedded clustering with data augmentation, ACML 2018 (`augment`);
J. Enguehard, P. O'Halloran and A. Gholipour, Semi-supervised learning with deep embedded clustering for image
classification and segmentation, IEEE Access 7 (2019) (the cross-entropy of `JointClustering`).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import Autoencoder, View, apply_view
from jaxcluster.deep.protocol import Batch, ClusteringModule, RefreshResult
from jaxcluster.losses.dec import (
    dec_loss,
    deep_clustering_loss,
    student_t_assignments,
    student_t_log_assignments,
    target_distribution,
)
from jaxcluster.types import Array, ArrayLike, Float, KeyArray


class DEC(ClusteringModule):
    """Deep embedded clustering: minimizes KL(P‖Q), P a sharpened Q.

    Q are the responsibilities of clusters by Student's t. A refresh computes the target distribution P from the codes
    of all samples, and it holds until the next. The decoder is not trained.

    Args:
        autoencoder: pretrained; its encoder is trained.
        centers: (n_clusters, latent) initial centers, from k-means on the codes.
        alpha: degrees of freedom of Student's t.
        augment: an augmentation of the samples, whose targets stay those of the samples; None for none.

    Raises:
        ValueError: centers of another shape; an alpha that is not positive.
    """

    def __init__(
        self, autoencoder: Autoencoder, centers: ArrayLike, *, alpha: float = 1.0, augment: View | None = None
    ):
        validation.check_positive("alpha", alpha)
        self.autoencoder = autoencoder
        self.centers = nnx.Param(jnp.asarray(validation.check_matrix(centers, name="centers"), jnp.float32))
        self.alpha, self.augment = float(alpha), augment

    @property
    def trainable(self) -> Any:
        """All parameters without the decoder, which the loss does not depend on."""
        return nnx.All(nnx.Param, nnx.Not(nnx.PathContains("decoder")))

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample."""
        return self.autoencoder.encode(x)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters) of clusters for codes."""
        return student_t_assignments(z, self.centers[...], alpha=self.alpha)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Clusters and target distribution of all samples."""
        responsibilities = self.assign(z)
        labels = jnp.argmax(responsibilities, axis=1).astype(jnp.int32)
        return RefreshResult(labels, target_distribution(responsibilities))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Divergence of a batch's responsibilities from their targets.

        Returns:
            The divergence (nats per sample), and no metrics.
        """
        responsibilities = self.assign(self.features(apply_view(self.augment, key, batch.x)))
        return dec_loss(responsibilities, batch.target), {}


class IDEC(DEC):
    """Improved DEC: (reconstruction error) + γ·KL(P‖Q), so that codes keep the structure of the data.

    The error is the autoencoder's, a mean over samples and features.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (n_clusters, latent) initial centers.
        gamma: γ >= 0, weight of the divergence.
        alpha: degrees of freedom of Student's t.
        augment: an augmentation of the samples in both terms; None for none.

    Raises:
        ValueError: centers of another shape; an alpha or gamma out of range.
    """

    trainable: Any = nnx.Param

    def __init__(
        self,
        autoencoder: Autoencoder,
        centers: ArrayLike,
        *,
        gamma: float = 0.1,
        alpha: float = 1.0,
        augment: View | None = None,
    ):
        super().__init__(autoencoder, centers, alpha=alpha, augment=augment)
        self.gamma = float(validation.check_positive("gamma", gamma, zero=True))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch.

        Returns:
            The loss, and its terms "reconstruction" and "clustering", the latter without γ.
        """
        x = apply_view(self.augment, key, batch.x)
        z = self.features(x)
        divergence = dec_loss(self.assign(z), batch.target)
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        return error + self.gamma * divergence, {"reconstruction": error, "clustering": divergence}


class JointClustering(IDEC):
    """IDEC with class labels of some samples: error + γ·KL(P‖Q) + λ·mean(−log q_iy) over the samples with a class y.

    Class y is cluster y: the responsibilities are the class probabilities. A separate classification head could fit the
    labels and leave the clusters as they are; without one the labels must move the clusters. A batch without labels has
    the loss of IDEC.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (n_clusters, latent) initial centers: those of classes first, at the mean codes of their samples.
        gamma: γ >= 0, weight of the divergence.
        weight: λ >= 0, weight of the cross-entropy.
        alpha: degrees of freedom of Student's t.
        augment: an augmentation of the samples in all terms; None for none.

    Raises:
        ValueError: centers of another shape; a number out of range.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        centers: ArrayLike,
        *,
        gamma: float = 0.1,
        weight: float = 1.0,
        alpha: float = 1.0,
        augment: View | None = None,
    ):
        super().__init__(autoencoder, centers, gamma=gamma, alpha=alpha, augment=augment)
        self.weight = validation.check_positive("weight", weight, zero=True)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch, whose ``y`` holds clusters, −1 for samples without a label.

        Returns:
            The loss, and its terms "reconstruction", "clustering" and "classification", without their weights.
        """
        x = apply_view(self.augment, key, batch.x)
        z = self.features(x)
        # log q is computed directly: exp and log again would make −log q infinite for codes far from their class.
        log_responsibilities = student_t_log_assignments(z, self.centers[...], alpha=self.alpha)
        labels = jnp.full(x.shape[0], -1, jnp.int32) if batch.y is None else batch.y
        terms = deep_clustering_loss(
            dec_loss(jnp.exp(log_responsibilities), batch.target),
            log_responsibilities,
            labels,
            clustering_weight=self.gamma,
            classification_weight=self.weight,
        )
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        metrics = {"clustering": terms.clustering, "classification": terms.classification}
        return error + terms.loss, {"reconstruction": error, **metrics}

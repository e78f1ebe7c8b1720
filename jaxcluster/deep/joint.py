"""Clustering of all rows and classification of those whose class is known, in one network.

Sources: X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation, IJCAI
2017, for all but the labels; J. Enguehard, P. O'Halloran and A. Gholipour, Semi-supervised learning with deep embedded
clustering for image classification and segmentation, IEEE Access 7 (2019), for the cross-entropy beside it.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.deep.autoencoder import Autoencoder, View, viewed
from jaxcluster.deep.dec import IDEC
from jaxcluster.deep.objective import Batch
from jaxcluster.losses.dec import dec_loss, student_t_log_assignments
from jaxcluster.losses.joint import deep_clustering_loss
from jaxcluster.types import Array, ArrayLike, Float, KeyArray


class JointClustering(IDEC):
    """IDEC that knows the classes of some rows: error + γ·KL(P‖Q) + λ·mean[−log q_iy], over the rows with a class y.

    Class y is cluster y: the shares of the clusters are what is classified by, and no head of its own stands beside
    them. A head could fit the labels while the clusters stay as they are; so the labels move the clusters, and a row is
    in the cluster that its class has. Without a label in a batch, or any ``y``, it is IDEC.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (k, latent) to begin with: those of classes first, at the mean codes of their rows.
        gamma: γ >= 0, the weight of the divergence.
        weight: λ >= 0, that of the cross-entropy (nats).
        alpha: degrees of freedom of Student's t.
        augment: a view of the rows that stands for them in all terms; None for the rows as they are.

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
        self.weight = check.check_positive("weight", weight, zero=True)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error of a batch, the divergence of its shares from their targets, and the cross-entropy of its labels.

        ``batch.y`` holds clusters, −1 for rows whose class is not known.
        """
        x = viewed(self.augment, key, batch.x)
        z = self.features(x)
        shares = student_t_log_assignments(z, self.centers[...], alpha=self.alpha)
        labels = jnp.full(x.shape[0], -1, jnp.int32) if batch.y is None else batch.y
        terms = deep_clustering_loss(
            dec_loss(jnp.exp(shares), batch.target),
            shares,
            labels,
            clustering_weight=self.gamma,
            classification_weight=self.weight,
        )
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        followed = {"clustering": terms.clustering, "classification": terms.classification}
        return error + terms.loss, {"reconstruction": error, **followed}

"""Deep embedded clustering, and its improved form that keeps the decoder.

Sources: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016 (DEC);
X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation, IJCAI 2017
(IDEC); X. Guo, E. Zhu, X. Liu and J. Yin, Deep embedded clustering with data augmentation, ACML 2018 (`augment`).
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.autoencoder import Autoencoder, View, viewed
from jaxcluster.deep.protocol import Batch, Refreshed
from jaxcluster.losses.dec import (
    dec_loss,
    deep_clustering_loss,
    student_t_assignments,
    student_t_log_assignments,
    target_distribution,
)
from jaxcluster.types import Array, ArrayLike, Float, KeyArray


class DEC(nnx.Module):
    """Sharpens the clusters of an encoder's codes: minimizes KL(P‖Q), P a sharper Q of all rows.

    A `refresh` computes P from the codes of all rows; until the next one it is the target of every batch. The decoder
    stays as it is.

    Args:
        autoencoder: pretrained; its encoder is what is trained.
        centers: (k, latent) to begin with, as k-means finds them among the codes.
        alpha: degrees of freedom of Student's t.
        augment: a view of the rows that their targets shall hold for too; None for the rows as they are.

    Raises:
        ValueError: centers of another shape; an alpha that is not positive.
    """

    def __init__(
        self, autoencoder: Autoencoder, centers: ArrayLike, *, alpha: float = 1.0, augment: View | None = None
    ):
        check.check_positive("alpha", alpha)
        self.autoencoder = autoencoder
        self.centers = nnx.Param(jnp.asarray(check.check_matrix(centers, name="centers"), jnp.float32))
        self.alpha, self.augment = float(alpha), augment

    @property
    def trainable(self):
        """What the optimizer moves: without the decoder, of which the loss does not depend."""
        return nnx.All(nnx.Param, nnx.Not(nnx.PathContains("decoder")))

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each row."""
        return self.autoencoder.encode(x)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """The share of each cluster in each code."""
        return student_t_assignments(z, self.centers[...], alpha=self.alpha)

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> Refreshed:
        """The clusters of all rows, and the distribution that is to be their target."""
        shares = self.assign(z)
        return Refreshed(jnp.argmax(shares, axis=1).astype(jnp.int32), target_distribution(shares))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The divergence of a batch's shares from their targets (nats per row)."""
        shares = self.assign(self.features(viewed(self.augment, key, batch.x)))
        return dec_loss(shares, batch.target), {}


class IDEC(DEC):
    """DEC that goes on reconstructing: error + γ·KL(P‖Q), so that codes keep what tells rows apart.

    The error is the autoencoder's, a mean over rows and columns.

    Args:
        autoencoder: pretrained; all of it is trained.
        centers: (k, latent) to begin with.
        gamma: γ >= 0, the weight of the divergence.
        alpha: degrees of freedom of Student's t.
        augment: a view of the rows that stands for them in both terms; None for the rows as they are.

    Raises:
        ValueError: centers of another shape; an alpha or gamma out of range.
    """

    trainable = nnx.Param

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
        self.gamma = float(check.check_positive("gamma", gamma, zero=True))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error of a batch and γ times the divergence of its shares from their targets."""
        x = viewed(self.augment, key, batch.x)
        z = self.features(x)
        divergence = dec_loss(self.assign(z), batch.target)
        error = self.autoencoder.error(x, self.autoencoder.decoder(z))
        return error + self.gamma * divergence, {"reconstruction": error, "clustering": divergence}


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

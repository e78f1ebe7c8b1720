"""Clustering and classification at once, for networks that cluster all rows and know the classes of some.

Source: the cross-entropy beside a clustering term, as in J. Enguehard, P. O'Halloran and A. Gholipour, Semi-supervised
learning with deep embedded clustering for image classification and segmentation, IEEE Access 7 (2019).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.core.frame import float_dtype
from jaxcluster.losses.inputs import as_labels, as_logits, in_one_dtype, where_rows
from jaxcluster.losses.reduce import reduce
from jaxcluster.types import Array, Float


class JointTerms(NamedTuple):
    """A weighted sum of two losses, and each of them without its weight.

    Attributes:
        loss: () to be differentiated.
        clustering: () the clustering term as it was given.
        classification: () mean cross-entropy of the rows with a label (nats); 0 where there are none.
    """

    loss: Float[Array, ""]
    clustering: Float[Array, ""]
    classification: Float[Array, ""]


def deep_clustering_loss(clustering, logits, labels, *, clustering_weight=1.0, classification_weight=1.0) -> JointTerms:
    """clustering_weight·L + classification_weight·mean[−log softmax(logits)_label], over the rows with a label.

    Args:
        clustering: () L, any clustering loss: `kmeans_loss`, `dec_loss`, `soft_clustering_loss`, ….
        logits: (n, c) of c classes.
        labels: (n,) integers below c; rows of label −1, not known, are left out, whatever their logits are.
        clustering_weight, classification_weight: >= 0. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, negative weights.
    """
    clustering = jnp.asarray(clustering)
    if clustering.ndim:
        raise ValueError(f"clustering must be a scalar, got shape {clustering.shape}. Reduce it over rows first.")
    clustering_weight = check.check_positive("clustering_weight", clustering_weight, zero=True)
    classification_weight = check.check_positive("classification_weight", classification_weight, zero=True)
    logits = as_logits(logits)
    labels = as_labels(labels, *logits.shape)
    known = labels >= 0
    log_shares = jax.nn.log_softmax(where_rows(known, logits), axis=1)
    own = jnp.take_along_axis(log_shares, jnp.where(known, labels, 0)[:, None], axis=1)[:, 0]
    classification = reduce(-own, counted=known)
    clustering, classification = in_one_dtype(clustering.astype(float_dtype(clustering.dtype)), classification)
    shares = [jnp.asarray(weight, clustering.dtype) for weight in (clustering_weight, classification_weight)]
    total = shares[0] * clustering + shares[1] * classification
    return JointTerms(total, clustering, classification)

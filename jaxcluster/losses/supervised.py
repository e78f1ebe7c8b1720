"""The supervised contrastive loss: rows of one label are to find each other among all rows of the batch.

Source: P. Khosla et al., Supervised contrastive learning, NeurIPS 2020, L_out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_labels, as_matrix, where_rows
from jaxcluster.losses.mining import positive_mask
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.distance import normalize, row_products
from jaxcluster.types import Array, Float


def supervised_contrastive_loss(z, labels, *, temperature=0.1) -> Float[Array, ""]:
    """The mean over rows i of −1/|P_i|·Σ_{p∈P_i} log[exp(s_ip/τ) / Σ_{l≠i} exp(s_il/τ)], s the cosine.

    P_i are the other rows with the label of i. Rows without any are left out of the mean, though not of the other rows'
    sums; a batch without any has loss 0. With two views of each row and the rows' own numbers as labels it is
    `jaxcluster.losses.nt_xent_loss`. Memory is n².

    Args:
        z: (n, d) embedded rows, views of one row below each other or not; their lengths do not matter.
        labels: (n,) integers, or concrete strings or objects; rows of label −1, not known, take part in nothing, not
            even as negatives.
        temperature: τ > 0 (cosines are divided by it). Traced.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a temperature that is not positive.
    """
    z = as_matrix(z, name="z")
    n = z.shape[0]
    labels = as_labels(labels, n)
    temperature = jnp.asarray(check.check_positive("temperature", temperature), z.dtype)
    known = labels >= 0
    z = normalize(where_rows(known, z))
    positive = positive_mask(labels)
    count = jnp.sum(positive, axis=1).astype(z.dtype)
    there = count > 0
    logits = row_products(z, z) / temperature
    # A row that is not counted keeps all others, so that its sum is finite too.
    others = (known[None, :] & ~jnp.eye(n, dtype=bool)) | ~there[:, None]
    log_sum = jax.nn.logsumexp(jnp.where(others, logits, -jnp.inf), axis=1)
    own = jnp.sum(jnp.where(positive, logits, 0), axis=1) / jnp.where(there, count, 1)
    return reduce(log_sum - own, counted=there)

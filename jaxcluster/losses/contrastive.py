"""Contrastive losses: of pairs (Hadsell 2006), of two views (NT-Xent, SimCLR), and of labels (supervised contrastive).

>>> import numpy as np
>>> views = np.eye(4)
>>> round(float(nt_xent_loss(views, views, temperature=1.0)), 3)  # log(e + 6) − 1
1.165

Sources: R. Hadsell, S. Chopra and Y. LeCun, Dimensionality reduction by learning an invariant mapping, CVPR 2006;
T. Chen, S. Kornblith, M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual representations,
ICML 2020; P. Khosla et al., Supervised contrastive learning, NeurIPS 2020, L_out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.losses.triplet import positive_mask
from jaxcluster.losses.validation import (
    as_directions,
    as_labels,
    as_paired_samples,
    as_positive,
    as_shaped,
    as_weights,
    check_shape,
    mask_rows,
    promote,
    reduce,
    zero_unweighted,
)
from jaxcluster.ops.differences import length
from jaxcluster.ops.distance import inner_products, normalize
from jaxcluster.types import Array, Float


def contrastive_loss(
    a: Any, b: Any, same: Any, *, margin: Any = 1.0, weights: Any = None, reduction: str = "mean"
) -> Float[Array, "*n"]:
    """½·[y·d² + (1 − y)·max(0, m − d)²] of each pair, d its Euclidean distance and y = 1 for a positive pair.

    A pair of equal samples has gradient 0, also a negative one: no direction increases its distance first.

    Args:
        a, b: (n_pairs, n_features) the samples of each pair; `jaxcluster.losses.pairs_from_labels` lists the pairs of
            a batch.
        same: (n_pairs,) y, booleans or probabilities.
        margin: m > 0, in the units of the samples. Traced.
        weights: (n_pairs,) >= 0, or None for 1 each.
        reduction: "mean", "sum", "none" for (n_pairs,) terms, or "nonzero": the mean of the terms above 0.

    Raises:
        ValueError, TypeError: wrong shapes, a margin that is not positive, an unknown reduction.
    """
    a, b = as_paired_samples(a=a, b=b)
    same = as_shaped(same, a.shape[:1], name="same", of="a")
    a, b, same = promote(a, b, same)
    margin = as_positive("margin", margin, a.dtype)
    weights = as_weights(weights, a.shape[0])
    differences = zero_unweighted(a, weights) - zero_unweighted(b, weights)
    # d² for positive pairs, not length²: its gradient needs no division by d, which may be 0.
    squares = jnp.sum(jnp.square(differences), axis=1)
    hinge = jnp.maximum(margin - length(differences), 0)
    # No term where its factor is 0: a square may be infinite.
    near = jnp.where(same > 0, same * squares, 0)
    apart = jnp.where(same < 1, (1 - same) * jnp.square(hinge), 0)
    return reduce((near + apart) / 2, reduction, weights=weights)


def nt_xent_loss(a: Any, b: Any, *, temperature: Any = 0.5) -> Float[Array, ""]:
    """NT-Xent: the mean over all 2n views of −log[exp(s_ij/τ) / Σ_{l≠i} exp(s_il/τ)], j the other view of i.

    s is the cosine similarity. A batch of one sample has no negatives, and loss 0. A view of zeros has cosine 0 to all,
    and gradient 0. Memory is (2n)².

    Args:
        a, b: (n_samples, n_features) two views of each sample; normalized here.
        temperature: τ > 0, by which cosines are divided. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, or a temperature that is not positive.
    """
    a, b = (as_directions(each, name=name) for each, name in ((a, "a"), (b, "b")))
    a, b = promote(a, check_shape(b, a.shape, name="b", of="a"))
    temperature = as_positive("temperature", temperature, a.dtype)
    n = a.shape[0]
    views = normalize(jnp.concatenate([a, b]))
    logits = inner_products(views, views) / temperature
    # −inf leaves a view out of its own denominator, and its gradient there is exactly 0.
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, logits)
    index = jnp.arange(2 * n, dtype=jnp.int32)
    # Rows i and n + i are the two views of a sample: a shift by n modulo 2n pairs them both ways.
    positive = logits[index, (index + n) % (2 * n)]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)


def supervised_contrastive_loss(z: Any, labels: Any, *, temperature: Any = 0.1) -> Float[Array, ""]:
    """The mean over samples i of −1/|P_i|·Σ_{p∈P_i} log[exp(s_ip/τ) / Σ_{l≠i} exp(s_il/τ)], s the cosine similarity.

    P_i are the other samples with the label of i. Samples without positives are left out of the mean, but stay in the
    denominators of the others; a batch without positives has loss 0. With two views of each sample, labeled by the
    sample's index, it equals `nt_xent_loss`. Memory is n².

    Args:
        z: (n_samples, n_features) embeddings, in any order; normalized here.
        labels: (n_samples,) integers, or concrete strings or objects. Samples of unknown label, −1, take no part, not
            even as negatives.
        temperature: τ > 0, by which cosines are divided. Traced.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are not integers, a temperature that is not positive.
    """
    z = as_directions(z, name="z")
    n = z.shape[0]
    labels = as_labels(labels, n)
    temperature = as_positive("temperature", temperature, z.dtype)
    known = labels >= 0
    z = normalize(mask_rows(known, z))
    positive = positive_mask(labels)
    count = jnp.sum(positive, axis=1).astype(z.dtype)
    has_positive = count > 0
    logits = inner_products(z, z) / temperature
    # Samples without positives sum over everything, so that their log-sum-exp, which is masked, has a finite gradient.
    others = (known[None, :] & ~jnp.eye(n, dtype=bool)) | ~has_positive[:, None]
    log_denominator = jax.nn.logsumexp(jnp.where(others, logits, -jnp.inf), axis=1)
    mean_positive = jnp.sum(jnp.where(positive, logits, 0), axis=1) / jnp.where(has_positive, count, 1)
    return reduce(log_denominator - mean_positive, mask=has_positive)

"""The contrastive loss: pairs that belong together are drawn to one place, others pushed a margin apart.

Source: R. Hadsell, S. Chopra and Y. LeCun, Dimensionality reduction by learning an invariant mapping, CVPR 2006.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_alike, as_matching, as_weights, in_one_dtype, present
from jaxcluster.losses.reduce import reduce
from jaxcluster.ops.differences import length
from jaxcluster.types import Array, Float


def contrastive_loss(a, b, same, *, margin=1.0, weights=None, reduction: str = "mean") -> Float[Array, "*n"]:
    """½·[y·d² + (1 − y)·max(0, m − d)²] of each pair, d its Euclidean distance and y whether it belongs together.

    A pair of equal rows has gradient 0, also where they do not belong together: no direction leads apart.

    Args:
        a, b: (n, d) the two rows of each pair; `jaxcluster.losses.pairs_from_labels` finds pairs in a batch.
        same: (n,) y, booleans or shares between 0 and 1.
        margin: m > 0, in the units of the rows. Traced.
        weights: (n,) >= 0, or None for 1 each.
        reduction: "mean", "sum", "none" for (n,) terms, or "nonzero": the mean of the terms above 0.

    Raises:
        ValueError, TypeError: wrong shapes, a margin that is not positive, an unknown reduction.
    """
    a, b = as_alike(a=a, b=b)
    same = as_matching(same, a.shape[:1], name="same", of="a")
    a, b, same = in_one_dtype(a, b, same)
    margin = jnp.asarray(check.check_positive("margin", margin), a.dtype)
    weights = as_weights(weights, a.shape[0])
    differences = present(a, weights) - present(b, weights)
    squares = jnp.sum(jnp.square(differences), axis=1)
    short = jnp.maximum(margin - length(differences), 0)
    return reduce((same * squares + (1 - same) * jnp.square(short)) / 2, reduction, weights=weights)

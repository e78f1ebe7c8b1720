"""NT-Xent, SimCLR's loss: each view has to find the other view of its row among all views of the batch.

Source: T. Chen, S. Kornblith, M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual
representations, ICML 2020.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.losses.inputs import as_matching, as_matrix, in_one_dtype
from jaxcluster.ops.distance import normalize, row_products
from jaxcluster.types import Array, Float


def nt_xent_loss(a, b, *, temperature=0.5) -> Float[Array, ""]:
    """The mean over all 2n views of −log[exp(s_ij/τ) / Σ_{l≠i} exp(s_il/τ)], j the other view of i, s the cosine.

    Both directions count. A batch of one row has nothing to tell it from, and loss 0. A view of zeros has cosine 0 to
    all, and gradient 0. Memory is (2n)².

    Args:
        a, b: (n, d) two views of each of n rows; their lengths do not matter.
        temperature: τ > 0 (cosines are divided by it). Traced.

    Raises:
        ValueError, TypeError: wrong shapes, or a temperature that is not positive.
    """
    a = as_matrix(a, name="a")
    b = as_matching(b, a.shape, name="b", of="a")
    a, b = in_one_dtype(a, b)
    temperature = jnp.asarray(check.check_positive("temperature", temperature), a.dtype)
    n = a.shape[0]
    views = normalize(jnp.concatenate([a, b]))
    logits = row_products(views, views) / temperature
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, logits)
    index = jnp.arange(2 * n, dtype=jnp.int32)
    own = logits[index, (index + n) % (2 * n)]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - own)

"""The normalized cut of a soft labeling, to be differentiated."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxcluster.ops.affinity import as_affinity, cut_and_volume
from jaxcluster.types import Array, Float


def soft_ncut(assignments: Float[Array, "n k"], affinity: Any) -> Float[Array, ""]:
    """Σ_j cut_j / vol_j = k − Σ_j p_jᵀWp_j / dᵀp_j, for rows that belong to clusters in shares.

    cut_j = p_jᵀW(1 − p_j) is the weight between cluster j and the rest, and vol_j = dᵀp_j, d the row sums of W, all the
    weight that it has. Between 0 and k; for one-hot assignments it is `jaxcluster.spectral.ncut`. A cluster without
    weight adds nothing, and has no gradient.

    Args:
        assignments: shares of each row in k clusters, >= 0; rows sum to 1.
        affinity: symmetric weights W >= 0 as they stand, diagonal included: an (n, n) matrix, traced or not, a concrete
            SciPy sparse one, or a `jaxcluster.ops.affinity.Affinity`, which a loss that is computed often is faster
            with.

    Raises:
        ValueError, TypeError: assignments that are not (n, k); a matrix that is not square, symmetric, finite and
            non-negative, and where.

    Source: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000).
    """
    weights = as_affinity(affinity, any_unit=True)
    assignments = jnp.asarray(assignments)
    if assignments.ndim != 2 or assignments.shape[0] != weights.n:
        raise ValueError(
            f"assignments must have shape ({weights.n}, k), one row for each of the affinity, got {assignments.shape}."
        )
    cut, volume = cut_and_volume(weights, assignments)
    return jnp.sum(jnp.where(volume > 0, cut / jnp.where(volume > 0, volume, 1), 0))

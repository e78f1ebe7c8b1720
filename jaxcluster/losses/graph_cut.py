"""The normalized cut of soft assignments, a differentiable loss.

>>> import jax.numpy as jnp
>>> affinity = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
>>> float(soft_ncut(jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), affinity))  # 1/3 + 1/1
1.3333333730697632
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxcluster.losses.validation import as_floats
from jaxcluster.ops.affinity import as_affinity, cut_and_volume
from jaxcluster.types import Array, Float


def soft_ncut(assignments: Float[Array, "n k"], affinity: Any) -> Float[Array, ""]:
    """Σ_j cut_j / vol_j = k − Σ_j p_jᵀWp_j / dᵀp_j, the normalized cut of soft assignments P.

    cut_j = p_jᵀW(1 − p_j) is the weight between cluster j and the rest, vol_j = dᵀp_j its volume, d the degrees (row
    sums of W). Between 0 and k; for one-hot assignments it is `jaxcluster.spectral.ncut`. A cluster without volume
    adds nothing, and has no gradient.

    Args:
        assignments: (n_samples, n_clusters) P >= 0; rows sum to 1.
        affinity: symmetric weights W >= 0, diagonal included: an (n_samples, n_samples) matrix, traced or not, a
            concrete SciPy sparse one, or a `jaxcluster.ops.affinity.Affinity`, which is faster if the loss is computed
            often.

    Raises:
        ValueError, TypeError: assignments of another shape; a matrix that is not square, symmetric, finite and
            non-negative, and where.

    Source: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000).
    """
    weights = as_affinity(affinity, any_unit=True)
    assignments = as_floats(assignments, name="assignments")
    if assignments.ndim != 2 or assignments.shape[0] != weights.n:
        raise ValueError(
            f"assignments must have shape ({weights.n}, k), one row for each of the affinity, got {assignments.shape}."
        )
    cut, volume = cut_and_volume(weights, assignments)
    # Both sides of the `where`: the quotient of volume 0 would be NaN in the gradient.
    return jnp.sum(jnp.where(volume > 0, cut / jnp.where(volume > 0, volume, 1), 0))

"""What a labeling cuts: the value that spectral clustering approximately minimizes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.ops.affinity import Affinity, as_affinity, cut_and_volume, scale_to_unit
from jaxcluster.ops.graph import check_affinity


def ncut(labels: Any, affinity: Any) -> float:
    """The normalized cut Σ_j cut_j / vol_j of a labeling: 0 where no weight crosses, below the number of clusters.

    cut_j is the weight between the rows of cluster j and all others, vol_j the weight of its rows to all. A cluster
    without weight adds nothing.

    Args:
        labels: (n,) concrete clusters of the rows, any integers.
        affinity: symmetric weights >= 0 as they stand, diagonal included: an (n, n) matrix, dense or SciPy sparse, or a
            `jaxcluster.ops.affinity.Affinity`.

    Raises:
        ValueError, TypeError: labels that are not n integers; a matrix that is not square, symmetric, finite and
            non-negative, and where.

    Source: J. Shi and J. Malik, Normalized cuts and image segmentation, IEEE Trans. PAMI 22 (2000).
    """
    cut, volume, _, _ = _cuts(labels, affinity)
    return float(np.sum(cut[volume > 0] / volume[volume > 0]))


def ratio_cut(labels: Any, affinity: Any) -> float:
    """The ratio cut Σ_j cut_j / n_j of a labeling, n_j the rows of cluster j, in the units of the weights.

    Args:
        labels, affinity: as in `ncut`.

    Raises:
        ValueError, TypeError: as `ncut`.

    Source: L. Hagen and A. B. Kahng, New spectral methods for ratio cut partitioning and clustering, IEEE Trans. CAD 11
    (1992).
    """
    cut, _, counts, exponent = _cuts(labels, affinity)
    return float(np.ldexp(np.sum(cut / counts), 2 * exponent))


def _cuts(labels, affinity):
    """Cut and volume of each cluster in float64, over 4^exponent, its number of rows, and the exponent."""
    if check.is_traced(labels, affinity):
        raise TypeError(
            "the cut of a labeling takes concrete labels and weights: it has no gradient. "
            "jaxcluster.losses.soft_ncut is its differentiable form."
        )
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be (n,) integers, got shape {labels.shape} of {labels.dtype}.")
    with jax.enable_x64(True):
        exponent = 0
        if not isinstance(affinity, Affinity):
            affinity, exponent = scale_to_unit(check_affinity(affinity))
        weights = as_affinity(affinity)
        if len(labels) != weights.n:
            raise ValueError(f"labels has {len(labels)} entries, but the affinity is of {weights.n} rows.")
        _, clusters, counts = np.unique(labels, return_inverse=True, return_counts=True)
        members = jax.nn.one_hot(jnp.asarray(clusters), len(counts), dtype=weights.diagonal.dtype)
        cut, volume = jax.device_get(jax.jit(cut_and_volume)(weights, members))
    return cut.astype(np.float64), volume.astype(np.float64), counts, exponent

"""Soft reset of a network's weights, a part of the way back to fresh ones.

Between clusterings it moves codes enough for k-means to find other clusters, and keeps most of what was learned.

>>> from flax import nnx
>>> from jaxcluster.deep.resets import soft_reset
>>> trained, fresh = nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.Linear(1, 1, rngs=nnx.Rngs(1))
>>> trained.bias[...], fresh.bias[...] = trained.bias[...] + 1, fresh.bias[...] + 3
>>> float(soft_reset(trained, fresh, keep=0.75).bias[0])
1.5

Source: L. Miklautz, T. Klein, K. Sidak, C. Leiber, T. Lang, A. Shkabrii, S. Tschiatschek and C. Plant, Breaking the
reclustering barrier in centroid-based deep clustering, ICLR 2025.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from flax import nnx

from jaxcluster.core import validation

Network = TypeVar("Network", bound=nnx.Module)


def soft_reset(network: Network, fresh: nnx.Module, *, keep: Any) -> Network:
    """A network with parameters keep·θ + (1 − keep)·φ, of θ the network's and φ the fresh network's.

    Args:
        network: is not changed; variables that are no parameters are kept.
        fresh: of the same shape.
        keep: in [0, 1].

    Returns:
        the new network.

    Raises:
        ValueError: keep out of range; a fresh network of another shape.
    """
    if float(validation.check_positive("keep", keep, zero=True)) > 1:
        raise ValueError(f"keep={keep} must be at most 1.")
    changed = nnx.clone(network)
    own, other = nnx.state(changed, nnx.Param), nnx.state(fresh, nnx.Param)
    if jax.tree.map(lambda leaf: leaf.shape, own) != jax.tree.map(lambda leaf: leaf.shape, other):
        raise ValueError("fresh must be a network of the same shape as the one to reset.")
    nnx.update(changed, jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, own, other))
    return changed

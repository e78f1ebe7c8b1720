"""SwAV: soft assignments of samples to prototypes of equal mass.

>>> import numpy as np
>>> from jaxcluster import sinkhorn
>>> scores = np.array([[1.0, 0.8], [0.9, 0.1]])  # both samples are nearest to prototype 0
>>> sinkhorn.swav_assignments(scores).argmax(1).tolist()
[1, 0]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.iterate import trace
from jaxcluster.ops.logsumexp import LOG_SUM_EXP, responsibilities
from jaxcluster.types import Array, Float


class _PotentialState(NamedTuple):
    """Log-scales of rows and prototypes, and the L1 distance of the prototypes' masses from equal before the update."""

    rows: Float[Array, " n"]
    prototypes: Float[Array, " k"]
    residual: Float[Array, ""]

    @property
    def objective(self):
        return self.residual


def swav_assignments(
    scores: Any, epsilon: Any = 0.05, num_iters: int = 3, mask: Any = None, *, axis_name: str | None = None
) -> Float[Array, "n k"]:
    """Soft assignments of samples to k prototypes, after a few Sinkhorn iterations that balance the prototypes.

    An iteration scales each prototype to 1/k of all, then each row to sum 1: softmax(scores/epsilon) by rows, with an
    offset for each prototype. It is in the log domain: no scale of the scores overflows. Differentiable through the
    iterations; the loss of the paper takes it under ``stop_gradient``.

    Args:
        scores: (n_samples, k) similarity of samples to prototypes.
        epsilon: temperature > 0 (units of the scores). Traced.
        num_iters: number of Sinkhorn iterations, static.
        mask: (n_samples,) booleans, False for padding; None for all True.
        axis_name: mapped axis over which the samples are sharded, if any: the prototypes are balanced over all of it.

    Returns:
        (n_samples, k) probabilities; rows sum to 1, padding to 0.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
    """
    scores = validation.check_matrix(scores, name="scores")
    validation.check_positive("epsilon", epsilon)
    num_iters = validation.check_count("num_iters", num_iters)
    n = scores.shape[0]
    mask = jnp.ones(n, bool) if mask is None else validation.check_mask("mask", mask, n)
    if not validation.is_traced(scores, mask):
        validation.check_finite(np.asarray(scores)[np.asarray(mask)], name="scores")
    dtype = float_dtype(scores.dtype)
    if validation.is_traced(scores, mask):
        scores = scores.astype(dtype)
        # Padding may hold anything, NaN too, and no gradient may see it.
        scores = jnp.where(mask[:, None], scores, 0)
        largest = jax.lax.stop_gradient(jnp.max(scores, axis=1))
    else:
        # The largest score of each row is subtracted in float64: of scores near 10⁶ float32 keeps one digit.
        scores = np.where(np.asarray(mask)[:, None], np.asarray(scores, np.float64), 0)
        largest = scores.max(axis=1)
        top = largest[np.asarray(mask)].max(initial=-np.inf)
        largest, below = np.where(np.asarray(mask), largest - top if np.isfinite(top) else 0, 0), largest
        return _assign(
            num_iters,
            axis_name,
            jnp.asarray(scores - below[:, None], dtype),
            jnp.asarray(largest, dtype),
            epsilon,
            mask,
        )
    return _assign(num_iters, axis_name, scores - largest[:, None], largest, epsilon, mask)


@persistent_jit(static_argnums=(0, 1))
def _assign(num_iters, axis_name, scores, largest, epsilon, mask):
    """Assignments by scores less the largest of each row, and these, which count in the first masses only."""
    k, dtype = scores.shape[1], scores.dtype
    epsilon = jnp.asarray(epsilon).astype(dtype)
    absent = jnp.where(mask, 0, -jnp.inf).astype(dtype)[:, None]
    top = _max_across(jnp.max(jnp.where(mask, largest, -jnp.inf)), axis_name)
    lead = jnp.where(mask, largest - jnp.where(jnp.isfinite(top), top, 0), 0) / epsilon
    # A constant of a prototype cancels with its mass: without it one that is far from all rows keeps its digits.
    off = _max_across(jnp.max(scores + absent, axis=0), axis_name)
    logits = jnp.where(mask[:, None], scores - jnp.where(jnp.isfinite(off), off, 0)[None, :], 0) / epsilon
    count = all_reduce(jnp.sum(mask), axis_name).astype(dtype)

    def advance(state):
        masses = all_reduce(responsibilities(logits + state.rows[:, None] + absent)[0], axis_name, LOG_SUM_EXP)
        masses = jnp.where(count > 0, masses, 0)
        off = jnp.sum(jnp.abs(jnp.exp(masses + state.prototypes) / jnp.maximum(count, 1) - 1 / k))
        rows = -responsibilities((logits - masses[None, :]).T)[0]
        return _PotentialState(rows, -masses, off)

    zero = jnp.zeros((), logits.dtype)
    # Computed from the logits: inside shard_map the carry must vary over devices from the first iteration on.
    start = _PotentialState(lead + jnp.zeros_like(logits[:, 0]), jnp.zeros(k, dtype), zero)
    state = trace(advance, start, steps=num_iters).state
    # A softmax, which sums to 1 whatever the rounding of the rows' log-scales.
    return jnp.where(mask[:, None], jax.nn.softmax(logits + state.prototypes[None, :], axis=1), 0)


def _max_across(values, axis_name):
    """Maximum over all devices, a constant to gradients."""
    values = jax.lax.stop_gradient(values)  # before the collective, which has no derivative
    return values if axis_name is None else jax.lax.pmax(values, axis_name)

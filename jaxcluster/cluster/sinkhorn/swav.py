"""SwAV's assignments: rows shared out among prototypes, each of which takes an equal part."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.sinkhorn.rounds import LSE
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import float_dtype
from jaxcluster.core.iterate import trace
from jaxcluster.ops.logsumexp import responsibilities
from jaxcluster.types import Array, Float


class _Shares(NamedTuple):
    """Logits of rows and of prototypes, and how far the parts of the prototypes were from equal before the round."""

    rows: Float[Array, " n"]
    prototypes: Float[Array, " k"]
    residual: Float[Array, ""]

    @property
    def objective(self):
        return self.residual


def swav_assignments(
    scores, epsilon=0.05, rounds: int = 3, mask=None, *, axis_name: str | None = None
) -> Float[Array, "n k"]:
    """Shares of each row in k prototypes after a few rounds that make the parts of the prototypes equal.

    A round scales each prototype to 1/k of all, then each row to sum 1: softmax(scores/epsilon) by rows, with an offset
    for each prototype. In the log domain: no scale of the scores overflows. Differentiable through the rounds;
    the loss of the paper takes it under ``stop_gradient``.

    Args:
        scores: (n, k) similarity of rows to prototypes.
        epsilon: temperature > 0 (units of the scores). Traced.
        rounds: how many, static.
        mask: (n,) booleans, False for rows that do not exist; None for all True.
        axis_name: a mapped axis over which the rows are spread, if any: the parts of prototypes are those of all rows.

    Returns:
        (n, k) shares >= 0; rows sum to 1, those that do not exist to 0.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.

    Source: M. Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.
    """
    scores = check.check_matrix(scores, name="scores")
    check.check_positive("epsilon", epsilon)
    rounds = check.check_count("rounds", rounds)
    n = scores.shape[0]
    mask = jnp.ones(n, bool) if mask is None else check.check_mask("mask", mask, n)
    if not check.is_traced(scores, mask):
        check.check_finite(np.asarray(scores)[np.asarray(mask)], name="scores")
    dtype = float_dtype(scores.dtype)
    if check.is_traced(scores, mask):
        scores = scores.astype(dtype)
        # Rows that do not exist may hold anything, NaN too, and no gradient may see it.
        scores = jnp.where(mask[:, None], scores, 0)
        largest = jax.lax.stop_gradient(jnp.max(scores, axis=1))
    else:
        # The largest score of each row is taken off in float64: of scores near 10⁶ float32 keeps one digit.
        scores = np.where(np.asarray(mask)[:, None], np.asarray(scores, np.float64), 0)
        largest = scores.max(axis=1)
        top = largest[np.asarray(mask)].max(initial=-np.inf)
        largest, below = np.where(np.asarray(mask), largest - top if np.isfinite(top) else 0, 0), largest
        return _assign(
            rounds, axis_name, jnp.asarray(scores - below[:, None], dtype), jnp.asarray(largest, dtype), epsilon, mask
        )
    return _assign(rounds, axis_name, scores - largest[:, None], largest, epsilon, mask)


@partial(jax.jit, static_argnums=(0, 1))
def _assign(rounds, axis_name, scores, largest, epsilon, mask):
    """Of scores less the largest of each row, and these: they count in the first parts of the prototypes alone."""
    k, dtype = scores.shape[1], scores.dtype
    epsilon = jnp.asarray(epsilon).astype(dtype)
    absent = jnp.where(mask, 0, -jnp.inf).astype(dtype)[:, None]
    top = _max_across(jnp.max(jnp.where(mask, largest, -jnp.inf)), axis_name)
    lead = jnp.where(mask, largest - jnp.where(jnp.isfinite(top), top, 0), 0) / epsilon
    # A constant of a prototype goes with its part: without it the scores of one that all rows are far from keep digits.
    off = _max_across(jnp.max(scores + absent, axis=0), axis_name)
    logits = jnp.where(mask[:, None], scores - jnp.where(jnp.isfinite(off), off, 0)[None, :], 0) / epsilon
    count = across(jnp.sum(mask), axis_name).astype(dtype)

    def advance(state):
        parts = across(responsibilities(logits + state.rows[:, None] + absent)[0], axis_name, LSE)
        parts = jnp.where(count > 0, parts, 0)
        off = jnp.sum(jnp.abs(jnp.exp(parts + state.prototypes) / jnp.maximum(count, 1) - 1 / k))
        rows = -responsibilities((logits - parts[None, :]).T)[0]
        return _Shares(rows, -parts, off)

    zero = jnp.zeros((), logits.dtype)
    # Made of the logits: inside shard_map the carry of the rounds must begin as varying over devices as it goes on.
    start = _Shares(lead + jnp.zeros_like(logits[:, 0]), jnp.zeros(k, dtype), zero)
    state = trace(advance, start, steps=rounds).state
    # A softmax, which sums to 1 whatever the potentials of the rows were rounded to.
    return jnp.where(mask[:, None], jax.nn.softmax(logits + state.prototypes[None, :], axis=1), 0)


def _max_across(values, axis_name):
    """The maximum over all devices, a constant to gradients."""
    values = jax.lax.stop_gradient(values)  # before the collective, which has no derivative
    return values if axis_name is None else jax.lax.pmax(values, axis_name)

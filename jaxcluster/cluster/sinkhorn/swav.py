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
from jaxcluster.core.iterate import trace
from jaxcluster.core.rows import float_dtype
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
    return _assign(rounds, axis_name, jnp.asarray(scores, float_dtype(scores.dtype)), epsilon, mask)


@partial(jax.jit, static_argnums=(0, 1))
def _assign(rounds, axis_name, scores, epsilon, mask):
    k = scores.shape[1]
    # Rows that do not exist may hold anything, NaN too, and no gradient may see it.
    logits = jnp.where(mask[:, None], scores, 0) / epsilon
    absent = jnp.where(mask, 0, -jnp.inf).astype(logits.dtype)[:, None]
    count = across(jnp.sum(mask), axis_name)

    def advance(state):
        parts = across(responsibilities(logits + state.rows[:, None] + absent)[0], axis_name, LSE)
        parts = jnp.where(count > 0, parts, 0)
        off = jnp.sum(jnp.abs(jnp.exp(parts + state.prototypes) / jnp.maximum(count, 1) - 1 / k))
        rows = -responsibilities((logits - parts).T)[0]
        return _Shares(rows, -parts, off)

    zero = jnp.zeros((), logits.dtype)
    # Made of the logits: inside shard_map the carry of the rounds must begin as varying over devices as it goes on.
    start = _Shares(jnp.zeros_like(logits[:, 0]), jnp.zeros(k, logits.dtype), zero)
    state = trace(advance, start, steps=rounds).state
    return jnp.where(mask[:, None], jnp.exp(logits + state.rows[:, None] + state.prototypes), 0)

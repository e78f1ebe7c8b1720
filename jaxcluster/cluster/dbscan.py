"""DBSCAN: clusters are what dense rows within a radius of each other make up, and noise is the rest.

The labels are those of the usual depth-first search, to the element, but found in parallel: core rows take the least
label around them, over and over, and what two labels meet in is one cluster. Pairs of blocks that lie wholly in one
cluster are looked at no more, so later rounds cost little. Memory grows with the rows and the pairs of blocks, however
large the radius; of pairs of rows only those are held whose distance float32 cannot tell from the radius.

Source: M. Ester, H.-P. Kriegel, J. Sander and X. Xu, A density-based algorithm for discovering clusters in large
spatial databases with noise, KDD 1996.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.ops.radius import NOBODY, Ball, Near, exact_sums, least_near, look_around, sum_error
from jaxcluster.types import Array, Bool, Fit, Int, Status

METRICS = ("euclidean", "sqeuclidean", "manhattan", "minkowski")
"""Distances by name."""


class DBSCANState(NamedTuple):
    """What makes new rows members of a cluster.

    Attributes:
        core: (n,) which rows have enough weight around them.
        components: (m, d) the core rows, on the host and in the dtype they came in: a float32 would be another row.
        component_labels: (m,) int32 the cluster of each.
    """

    core: Bool[Array, " n"]
    components: np.ndarray
    component_labels: Int[Array, " m"]


def fit(x, *, eps: float, min_samples: float = 5, weights=None, metric: str = "euclidean", p: float = 2.0) -> Fit:
    """Clusters rows by density.

    A row is a core row if the rows at a distance of at most ``eps``, itself among them, weigh ``min_samples`` or more.
    Core rows at most ``eps`` apart are in one cluster; clusters are numbered by their first core row. Another row
    belongs to the first cluster that has a core row near it, or to none. There is no chance in it, and no gradient.

    Args:
        x: (n, d) concrete rows.
        eps: radius, in the units of the metric.
        min_samples: weight of a neighbourhood that makes its row a core row.
        weights: (n,) non-negative row weights; a weight of 2 is the row twice. None for 1 each.
        metric: "euclidean", "sqeuclidean", "manhattan" or "minkowski".
        p: the power of "minkowski", at least 1.

    Returns:
        `Fit` with a `DBSCANState`, labels (n,) int32 with −1 for noise, steps (rounds of merging), status CONVERGED,
        and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or rows that are traced.
    """
    x = _check_rows(x)
    ball = _check_ball(eps, metric, p)
    check.check_positive("min_samples", min_samples)
    if weights is not None:
        weights = check.check_weights(weights, len(x))
    near, mass = look_around(x, ball, weights)
    core = mass >= min_samples
    if weights is not None:
        close = np.abs(mass - min_samples) <= sum_error(near) * mass
        core[close] = exact_sums(near, close, weights) >= min_samples
    labels, rounds = _merge(near, core)
    numbers = np.full(len(x), -1, np.int32)
    if core.any():
        numbers = _numbered(labels)
    state = DBSCANState(jax.device_put(core), x[core], jax.device_put(numbers[core]))
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(numbers), jnp.int32(rounds), jnp.int32(Status.CONVERGED), empty)


def predict(state: DBSCANState, x, *, eps: float, metric: str = "euclidean", p: float = 2.0) -> Int[Array, " n"]:
    """The cluster of each of (n, d) rows: the first that has a core row near it, −1 for none.

    For the rows of the fit these are its labels.

    Args:
        state: of a fit.
        x: concrete rows.
        eps, metric, p: as in the fit.
    """
    x = _check_rows(x)
    components = state.components
    check.check_width(x, components.shape[1])
    near, _ = look_around(np.concatenate([components, x]), _check_ball(eps, metric, p))
    known = np.full(len(components) + len(x), NOBODY, np.int32)
    known[: len(components)] = np.asarray(state.component_labels)
    least = least_near(near, jnp.asarray(near.blocks.places(known, NOBODY)), near.pairs)
    labels = near.blocks.rows(np.asarray(least), len(known))[len(components) :]
    return jnp.asarray(np.where(labels == NOBODY, -1, labels))


def _check_rows(x):
    if check.is_traced(x):
        raise TypeError(
            "DBSCAN takes concrete rows: how many are near each other is known only when they are, and its labels have "
            "no gradient. Call it outside jit, vmap and grad."
        )
    x = np.asarray(check.check_matrix(x))
    check.check_finite(x)
    return x


def _check_ball(eps, metric, p) -> Ball:
    check.check_positive("eps", eps)
    check.check_choice("metric", metric, METRICS)
    if metric == "minkowski" and not p >= 1:
        raise ValueError(f"p={p} must be at least 1: below it Minkowski's formula is not a metric.")
    power = {"euclidean": 2.0, "sqeuclidean": 2.0, "manhattan": 1.0, "minkowski": float(p)}[metric]
    return Ball(power, float(eps) if metric == "sqeuclidean" else float(eps) ** power)


def _merge(near: Near, core: np.ndarray) -> tuple[np.ndarray, int]:
    """The least core row of the cluster of each row, `NOBODY` for noise, and how many rounds it took."""
    n = len(core)
    placed = near.blocks.places(np.where(core, np.arange(n, dtype=np.int32), NOBODY), NOBODY)
    labels, pairs, rounds = jnp.asarray(placed), _unmerged(near.pairs, placed), 0
    while len(pairs):
        labels, changed = _join(labels, least_near(near, labels, pairs), n)
        pairs = _unmerged(pairs, np.asarray(labels)) if changed else pairs[:0]
        rounds += 1
    placed = np.asarray(labels)
    dense, loose = placed != NOBODY, (placed == NOBODY) & (near.blocks.index >= 0)
    first, second = near.pairs.T
    border = near.pairs[loose.any(axis=1)[first] & dense.any(axis=1)[second]]
    if len(border):
        placed = np.where(dense, placed, np.asarray(least_near(near, labels, border)))
    return near.blocks.rows(placed, n), rounds


def _unmerged(pairs, labels):
    """The pairs of blocks between which labels still differ."""
    least, most = labels.min(axis=1), np.where(labels == NOBODY, -1, labels).max(axis=1)
    first, second = pairs.T
    apart = (least[first] != least[second]) | (most[first] != most[second]) | (least[first] != most[first])
    return pairs[apart & (most[first] >= 0) & (most[second] >= 0)]


@partial(jax.jit, static_argnums=2)
def _join(labels, least, n):
    """Every label gives way to the least that it meets, and so on to the end of the chain."""
    core = labels != NOBODY
    at = jnp.where(core, labels, n)
    met = jnp.minimum(labels, least)
    parents = jnp.append(jnp.arange(n, dtype=jnp.int32), NOBODY).at[at].min(jnp.where(core, met, NOBODY))

    def jump(parents):
        return parents.at[:n].set(parents[parents[:n]])

    parents = jax.lax.while_loop(lambda parents: jnp.any(jump(parents) != parents), jump, parents)
    joined = jnp.where(core, parents[at], NOBODY)
    return joined, jnp.any(joined != labels)


def _numbered(labels):
    """Clusters counted from 0 in the order of their first core rows; −1 for noise."""
    known, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.astype(np.int32)
    return np.where(labels == NOBODY, -1, numbers) if known[-1] == NOBODY else numbers

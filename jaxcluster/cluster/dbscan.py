"""DBSCAN: clusters are what dense rows within a radius of each other make up, and noise is the rest.

The labels are those of the usual depth-first search, to the element, but found in parallel: core rows take the least
label around them, over and over, and what two labels meet in is one cluster. Pairs of blocks that lie wholly in one
cluster are looked at no more, so later rounds cost little. Memory grows with the rows and the pairs of blocks, however
large the radius.

Source: M. Ester, H.-P. Kriegel, J. Sander and X. Xu, A density-based algorithm for discovering clusters in large
spatial databases with noise, KDD 1996.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.csgraph

from jaxcluster.core import check
from jaxcluster.ops.block_pairs import NOBODY, room
from jaxcluster.ops.pairwise import Pairwise, Space, concrete_rows, measure, tiles
from jaxcluster.ops.radius import (
    Ball,
    bands,
    dense_rows,
    exact_least,
    least_near,
    least_of_whole,
    prepare,
)
from jaxcluster.types import Array, Bool, Fit, Int, Status


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


def fit(
    x,
    *,
    eps: float,
    min_samples: float = 5,
    weights=None,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
) -> Fit:
    """Clusters rows by density.

    A row is a core row if the rows at a distance of at most ``eps``, itself among them, weigh ``min_samples`` or more.
    Core rows at most ``eps`` apart are in one cluster; clusters are numbered by their first core row. Another row
    belongs to the first cluster that has a core row near it, or to none. There is no chance in it, and no gradient.

    Args:
        x: (n, d) concrete rows; (n, n) distances, dense or SciPy sparse, where the metric is "precomputed".
        eps: radius, in the units of the metric.
        min_samples: weight of a neighbourhood that makes its row a core row.
        weights: (n,) non-negative row weights; a weight of 2 is the row twice. None for 1 each.
        metric, p: see `jaxcluster.ops.pairwise.measure`.

    Returns:
        `Fit` with a `DBSCANState`, labels (n,) int32 with −1 for noise, steps (rounds of merging), status CONVERGED,
        and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or rows that are traced.
    """
    check.check_positive("eps", eps)
    check.check_positive("min_samples", min_samples)
    space = measure(x, metric, p=p)
    if weights is not None:
        weights = check.check_weights(weights, space.n)
    by = _by_blocks if isinstance(space, Space) else _by_rows
    core, labels, rounds = by(space, eps, min_samples, weights)
    numbers = _numbered(labels) if core.any() else np.full(space.n, -1, np.int32)
    # Of a matrix of distances the state keeps the rows too: they are what scikit-learn calls components.
    rows = x if scipy.sparse.issparse(x) else np.asarray(x)
    state = DBSCANState(jax.device_put(core), rows[core], jax.device_put(numbers[core]))
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(numbers), jnp.int32(rounds), jnp.int32(Status.CONVERGED), empty)


def predict(
    state: DBSCANState, x, *, eps: float, metric: str | Callable = "euclidean", p: float = 2.0
) -> Int[Array, " n"]:
    """The cluster of each of (n, d) rows: the first that has a core row near it, −1 for none.

    For the rows of the fit these are its labels.

    Args:
        state: of a fit.
        x: concrete rows.
        eps, metric, p: as in the fit.

    Raises:
        ValueError: the metric is "precomputed", or see `fit`.
    """
    check.check_positive("eps", eps)
    if isinstance(metric, str) and metric == "precomputed":
        raise ValueError("metric='precomputed' knows no distance of new rows. Fit rows and a metric in place of it.")
    x, components = concrete_rows(x), state.components
    check.check_width(x, components.shape[1])
    known = np.full(len(components) + len(x), NOBODY, np.int32)
    known[: len(components)] = np.asarray(state.component_labels)
    space = measure(np.concatenate([components, x]), metric, p=p)
    if isinstance(space, Pairwise):
        least = _least_of_rows(space, eps, known)
    else:
        near = prepare(space.x, Ball(space.power, space.reach(eps)))
        new = near.blocks.places(np.arange(len(known)) >= len(components), False)
        placed, everywhere = near.blocks.places(known, NOBODY), np.ones(len(near.pairs), bool)
        least = near.blocks.rows(_least_of_all(near, placed, everywhere, new), len(known))
    labels = least[len(components) :]
    return jnp.asarray(np.where(labels == NOBODY, -1, labels))


def _by_rows(space: Pairwise, eps, min_samples, weights):
    """Core rows, the least core row of the cluster of each row, and how many rounds it took: all distances a round."""
    weights = np.ones(space.n) if weights is None else np.asarray(weights, float)
    mass = np.concatenate([(space.rows(index) <= eps) @ weights for index in tiles(space.n)])
    core = mass >= min_samples
    labels, rounds = np.where(core, np.arange(space.n, dtype=np.int32), NOBODY), 0
    changed = core.any()
    while changed:
        least = _least_of_rows(space, eps, labels)
        joined, changed = _join(jnp.asarray(labels), jnp.asarray(least), space.n)
        labels, rounds = np.where(core, np.asarray(joined), NOBODY), rounds + 1
    return core, np.where(core, labels, least) if rounds else labels, rounds


def _least_of_rows(space, eps, labels):
    parts = [np.where(space.rows(index) <= eps, labels, NOBODY).min(axis=1) for index in tiles(space.n)]
    return np.concatenate(parts)


def _by_blocks(space: Space, eps, min_samples, weights):
    """The same, by pairs of blocks that are near each other."""
    near = prepare(space.x, Ball(space.power, space.reach(eps)))
    near, core = dense_rows(near, min_samples, weights)
    labels, rounds = _merge(near, core)
    return core, near.blocks.rows(_with_border(near, labels), space.n), rounds


def _merge(near, core):
    """By place, the least core row of the cluster of each core row, `NOBODY` elsewhere; how many rounds it took."""
    n, rounds = len(core), 0
    placed = near.blocks.places(np.where(core, np.arange(n, dtype=np.int32), NOBODY), NOBODY)
    placed = _join_whole(near, placed)
    labels = room(placed, NOBODY)
    for band in bands(near.pairs):
        pairs = _unmerged(near.pairs[band], placed)
        labels, _ = _join(labels, least_near(near, labels, pairs), n)
        placed, rounds = np.asarray(labels)[: len(placed)], rounds + 1
    pairs = _unmerged(near.pairs, placed)
    while len(pairs):
        labels, changed = _join(labels, least_near(near, labels, pairs), n)
        if not changed:
            # Float32 has joined what it can. What it could not tell matters only between what is still apart.
            pairs = _unmerged(near.pairs[near.doubtful], placed)
            least = _doubtful(near, placed, pairs, np.where(placed == NOBODY, -1, placed))
            labels, changed = _join(labels, room(least, NOBODY), n)
        placed = np.asarray(labels)[: len(placed)]
        pairs = _unmerged(near.pairs, placed) if changed else pairs[:0]
        rounds += 1
    return placed, rounds


def _join_whole(near, placed):
    """Core rows of blocks that are wholly near each other have one label."""
    count, dense = len(placed), (placed != NOBODY).any(axis=1)
    ends = near.whole[dense[near.whole].all(axis=1)]
    graph = scipy.sparse.coo_array((np.ones(len(ends), bool), tuple(ends.T)), shape=(count, count))
    parts, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    least = np.full(parts, NOBODY, placed.dtype)
    np.minimum.at(least, part, placed.min(axis=1))
    joined = np.zeros(count, bool)
    joined[ends[:, 0]] = True
    return np.where(joined[:, None] & (placed != NOBODY), least[part][:, None], placed)


def _with_border(near, placed):
    """Gives rows that are not dense to the first cluster near them."""
    dense, loose = placed != NOBODY, (placed == NOBODY) & (near.blocks.index >= 0)
    first, second = near.pairs.T
    wanted = loose.any(axis=1)[first] & dense.any(axis=1)[second]
    return np.where(dense, placed, _least_of_all(near, placed, wanted, loose))


def _least_of_all(near, placed, wanted, loose):
    """The least label near those places that a mask picks, over the pairs of blocks that another picks."""
    sure = np.asarray(least_near(near, room(placed, NOBODY), near.pairs[wanted]))[: len(placed)]
    sure = np.minimum(sure, least_of_whole(near, placed))
    return np.minimum(sure, _doubtful(near, placed, near.pairs[wanted & near.doubtful], np.where(loose, sure, -1)))


def _doubtful(near, placed, pairs, known):
    """Labels less than those known that places may have near them: whether they do is settled on the host."""
    maybe = np.asarray(least_near(near, room(placed, NOBODY), pairs, surely=False))[: len(placed)]
    return exact_least(near, placed, pairs, maybe < known)


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

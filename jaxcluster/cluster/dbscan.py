"""DBSCAN: density-based clusters of core samples within a radius of each other, and noise.

The labels are those of the usual depth-first search, to the element, but found in parallel: core samples take the least
label around them, over and over, and what two labels meet in is one cluster. Pairs of blocks that lie wholly in one
cluster are looked at no more, so later rounds cost little. Memory grows with the samples, however large the radius.
Few samples, and those of which only distances are known, are searched breadth first on the host.

Source: M. Ester, H.-P. Kriegel, J. Sander and X. Xu, A density-based algorithm for discovering clusters in large
spatial databases with noise, KDD 1996.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxcluster.core import memory, validation
from jaxcluster.ops.metric_space import MetricSpace, as_metric_space, concrete_rows
from jaxcluster.ops.neighbors.block_kernels import NO_INDEX
from jaxcluster.ops.neighbors.radius import (
    HOST_PRODUCT_COLUMNS,
    core_mask,
    exact_least_labels,
    least_labels,
    neighbor_mask,
    prepare_blocks,
    radius_query,
    split_weights,
)
from jaxcluster.ops.neighbors.radius_pairs import (
    BANDS,
    BlockValue,
    PairFilter,
    all_pairs,
    as_block_pairs,
    band_pairs,
    whole_only,
)
from jaxcluster.ops.precomputed import distance_matrix
from jaxcluster.types import Array, Bool, Fit, Int, Status

HOST_WORK = 1 << 24
"""Differences, n²·d, up to which the host finds all neighbors sooner than a program for them is compiled."""

HOST_PRODUCTS = 1 << 7
"""The same for squares by matrix products, as a multiple: products are so much faster than differences."""

MASK = 1 << 24
"""Pairs of samples whose neighborhood is held as a mask; of more it is found again when it is asked for."""

TILE = 1 << 22
"""Distances that are held at a time."""


class DBSCANState(NamedTuple):
    """Core samples, by which new samples are labeled.

    Attributes:
        core: (n,) mask of the core samples.
        components: (m, d) the core samples, on the host and in the dtype they came in: a float32 would be another.
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
    """Clusters samples by density.

    A core sample has samples that weigh ``min_samples`` or more at a distance of at most ``eps``, itself among them.
    Core samples at most ``eps`` apart are in one cluster; clusters are numbered by their first core sample. Another
    sample belongs to the first cluster that has a core sample near it, or to none. There is no chance in it, and no
    gradient.

    Args:
        x: (n, d) concrete samples; (n, n) distances, dense or SciPy sparse, where the metric is "precomputed". Of a
            pair whose distance is absent or infinite on one side, the other side counts. Where both are finite and
            differ, a warning tells so: the neighbors of a sample are those of its row, and clusters are what core
            samples lead to, as in scikit-learn.
        eps: radius, in the units of the metric; infinity makes all samples neighbors.
        min_samples: weight of a neighborhood that makes its sample a core sample.
        weights: (n,) finite weights; a weight of 2 is the sample twice, a negative one keeps its neighbors from being
            core samples. None for 1 each. Sums are exact and rounded once to float64.
        metric, p: see `jaxcluster.ops.metric_space.as_metric_space`.

    Returns:
        `Fit` with a `DBSCANState`, labels (n,) int32 with −1 for noise, steps (rounds of merging, or of search), status
        CONVERGED, and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or rows that are traced.
    """
    validation.check_positive("eps", eps)
    validation.check_positive("min_samples", min_samples)
    eps, min_samples = float(eps), float(min_samples)
    if scipy.sparse.issparse(x) and isinstance(metric, str) and metric == "precomputed":
        neighborhood = _graph_neighborhoods(distance_matrix(x, symmetric=False), eps)
    else:
        space = as_metric_space(x, metric, p=p, symmetric=False)
        by_blocks = isinstance(space, MetricSpace) and not _prefers_host(space, space.n)
        neighborhood = space if by_blocks else _mask_neighborhoods(space, eps)
    weights = None if weights is None else _check_weights(weights, neighborhood.n)
    if isinstance(neighborhood, MetricSpace):
        core, labels, rounds = _by_block_pairs(neighborhood, eps, min_samples, weights)
    else:
        core, labels, rounds = _breadth_first(neighborhood, min_samples, weights)
    # Of a matrix of distances the state keeps the rows too: they are what scikit-learn calls components.
    rows = x.tocsr() if scipy.sparse.issparse(x) else np.asarray(x)
    state = DBSCANState(jax.device_put(core), rows[core], jax.device_put(labels[core]))
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(labels), jnp.int32(rounds), jnp.int32(Status.CONVERGED), empty)


def predict(
    state: DBSCANState, x, *, eps: float, metric: str | Callable = "euclidean", p: float = 2.0
) -> Int[Array, " n"]:
    """The cluster of each of (n, d) samples: the first that has a core sample near it, −1 for none.

    For the samples of the fit these are its labels.

    Args:
        state: of a fit.
        x: concrete samples.
        eps, metric, p: as in the fit.

    Raises:
        ValueError: the metric is "precomputed", or see `fit`.
    """
    validation.check_positive("eps", eps)
    eps = float(eps)
    if isinstance(metric, str) and metric == "precomputed":
        raise ValueError("metric='precomputed' knows no distance of new rows. Fit rows and a metric in place of it.")
    x, components = concrete_rows(x), np.asarray(state.components)
    validation.check_width(x, components.shape[1])
    m, n = len(components), len(components) + len(x)
    known = np.full(n, NO_INDEX, np.int32)
    known[:m] = np.asarray(state.component_labels)
    space = as_metric_space(np.concatenate([components, x]), metric, p=p)
    new = np.arange(n) >= m
    if isinstance(space, MetricSpace) and not _prefers_host(space, len(x)):
        data = prepare_blocks(space.x, radius_query(space, eps))
        placed = data.blocks.to_blocks(known, NO_INDEX)
        labels = data.blocks.rows(_label_border(data, placed, data.blocks.to_blocks(new, False)), n)[m:]
    else:
        masks = _mask_neighborhoods(space, eps).masks(np.flatnonzero(new))
        labels = np.concatenate([np.where(mask, known, NO_INDEX).min(axis=1) for mask in masks])
    return jnp.asarray(np.where(labels == NO_INDEX, -1, labels))


def _check_weights(weights, n):
    """(n,) finite float64 weights. They may be negative or all zero: that inhibits core samples, or leaves none."""
    weights = np.asarray(weights)
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, got dtype {weights.dtype}.")
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one a row, got {weights.shape}.")
    validation.check_finite(weights, name="weights")
    return weights.astype(np.float64)


def _prefers_host(space, queries):
    """Whether the host finds the neighbors of so many samples sooner than a program for them is compiled."""
    by_products = space.power == 2 and space.x.shape[1] > HOST_PRODUCT_COLUMNS and space.n**2 <= MASK
    return space.x.size * queries <= HOST_WORK * (HOST_PRODUCTS if by_products else 1)


class _Masks(NamedTuple):
    """Neighborhoods of n samples as rows of a mask.

    Attributes:
        n: number of samples.
        rows: (m,) sample numbers -> (m, n) mask of their neighbors.
    """

    n: int
    rows: Callable[[np.ndarray], np.ndarray]

    def masks(self, index):
        """The masks of some samples, a few at a time."""
        step = max(1, TILE // self.n)
        return (self.rows(index[start : start + step]) for start in range(0, len(index), step))

    def sums(self, values):
        """(n,) sums of (n,) values over the neighborhoods; of none, their sizes."""
        masks = self.masks(np.arange(self.n))
        if values is None:
            return np.concatenate([np.count_nonzero(mask, axis=1) for mask in masks])
        return np.concatenate([mask.astype(np.float64) @ values for mask in masks])

    def reached(self, index):
        """The samples that are neighbors of some of others."""
        reached = np.zeros(self.n, bool)
        for mask in self.masks(index):
            reached |= mask.any(axis=0)
        return np.flatnonzero(reached)


class _Graph(NamedTuple):
    """Neighborhoods of n samples as rows of a sparse matrix: those of its entries that are ones."""

    ones: scipy.sparse.csr_array

    @property
    def n(self):
        """Number of samples."""
        return self.ones.shape[0]

    def sums(self, values):
        """The same."""
        return np.diff(self.ones.indptr) if values is None else self.ones @ values

    def reached(self, index):
        """The same."""
        return np.unique(self.ones[index].indices)


def _mask_neighborhoods(space, eps):
    """Neighborhoods from a space or from distances."""
    if isinstance(space, MetricSpace):
        query = radius_query(space, eps)
        masks = _Masks(space.n, lambda index: neighbor_mask(space.x, index, query))
    else:
        masks = _Masks(space.n, lambda index: space.rows(index) <= eps)
    if space.n**2 > MASK:
        return masks
    held = np.concatenate(list(masks.masks(np.arange(space.n))))
    return _Masks(space.n, held.__getitem__)


def _graph_neighborhoods(matrix, eps):
    """Neighborhoods from sparse distances; a sample is at distance 0 of itself where the matrix does not say."""
    entries = scipy.sparse.coo_array(matrix)
    alone = np.setdiff1d(np.arange(matrix.shape[0]), entries.coords[0][entries.coords[0] == entries.coords[1]])
    data = entries.data <= eps
    index = tuple(np.concatenate([axis[data], alone]) for axis in entries.coords)
    return _Graph(scipy.sparse.csr_array((np.ones(len(index[0])), index), shape=matrix.shape))


def _breadth_first(neighborhood, min_samples, weights):
    """Core samples, labels, and how many rounds a breadth-first search from the core samples in their order took."""
    if weights is None:
        core = neighborhood.sums(None) >= min_samples
    else:
        scale, high, low = split_weights(weights)
        core = neighborhood.sums(high) + neighborhood.sums(low) >= min_samples * scale
    labels, number, rounds = np.full(neighborhood.n, -1, np.int32), 0, 0
    for start in np.flatnonzero(core):
        if labels[start] >= 0:
            continue
        labels[start] = number
        frontier = np.array([start])
        while len(frontier):
            reached = neighborhood.reached(frontier)
            new = reached[labels[reached] < 0]
            labels[new] = number
            frontier, rounds = new[core[new]], rounds + 1
        number += 1
    return core, labels, rounds


def _by_block_pairs(space: MetricSpace, eps, min_samples, weights):
    """The same, by pairs of blocks that are near each other."""
    data = prepare_blocks(space.x, radius_query(space, eps))
    core = core_mask(data, min_samples, weights)
    if not core.any():
        return core, np.full(space.n, -1, np.int32), 0
    labels, rounds = _merge_clusters(data, core)
    loose = (labels == NO_INDEX) & (data.blocks.index >= 0)
    return core, _number_clusters(data.blocks.rows(_label_border(data, labels, loose), space.n)), rounds


def _merge_clusters(data, core):
    """By place, the least core sample of the cluster of each core sample, `NO_INDEX` elsewhere; and how many rounds."""
    n, rounds = len(core), 0
    labels = data.blocks.to_blocks(np.where(core, np.arange(n, dtype=np.int32), NO_INDEX), NO_INDEX)
    is_core = labels != NO_INDEX
    whole = least_labels(
        data, labels, is_core, whole_only(all_pairs(data, _unmerged_pairs(labels))), certain=True
    ).whole
    labels = _propagate(labels, whole, n)
    for band in range(len(BANDS)):
        parts = band_pairs(data, band, _unmerged_pairs(labels))
        least = least_labels(data, labels, is_core, parts, certain=True)
        labels, rounds = _propagate(labels, np.minimum(least.labels, least.whole), n), rounds + 1
    # Whether samples are near each other does not change: after one more look only pairs count where some may be.
    parts, changed = all_pairs(data, _unmerged_pairs(labels)), True
    while changed:
        possible = least_labels(data, labels, is_core, parts, certain=False)
        least = least_labels(data, labels, is_core, as_block_pairs(possible.touching), certain=True).labels
        joined = _propagate(labels, np.minimum(least, possible.whole), n)
        if (joined == labels).all():
            # Float32 has joined what it can. What it could not tell matters only between what is still apart.
            unclear = is_core & (possible.labels < labels)
            if unclear.any():
                joined = _propagate(labels, exact_least_labels(data, labels, unclear, possible.touching), n)
        changed = bool((joined != labels).any())
        labels, rounds = joined, rounds + 1
        unmerged = _unmerged_pairs(labels)
        pairs = possible.touching[unmerged.blocks(*possible.touching.T)]
        parts = chain(as_block_pairs(pairs), whole_only(all_pairs(data, unmerged)))
    return labels, rounds


def _unmerged_pairs(labels):
    """The pairs of blocks between which labels still differ."""
    least, most = labels.min(axis=1), np.where(labels == NO_INDEX, -1, labels).max(axis=1)

    def among(first, second, least, most):
        apart = (least[first] != least[second]) | (most[first] != most[second]) | (least[first] != most[first])
        return apart & (most[first] >= 0) & (most[second] >= 0)

    return PairFilter((BlockValue(least, np.minimum), BlockValue(most, np.maximum)), among)


def _label_border(data, labels, loose):
    """Labels by place; those places that a mask picks take the least label of the core samples near them."""
    core = (labels != NO_INDEX).any(axis=1)
    values = BlockValue(loose.any(axis=1), np.logical_or), BlockValue(core, np.logical_or)
    pair_filter = PairFilter(values, lambda first, second, loose, core: loose[first] & core[second])
    possible = least_labels(data, labels, loose, all_pairs(data, pair_filter), certain=False)
    least = least_labels(data, labels, loose, as_block_pairs(possible.touching), certain=True).labels
    least = np.minimum(least, possible.whole)
    unclear = loose & (possible.labels < least)
    if unclear.any():
        least = np.minimum(least, exact_least_labels(data, labels, unclear, possible.touching))
    return np.where(loose, least, labels)


def _propagate(labels, least, n):
    """Every label gives way to the least that its samples meet, and that to its own, to the end of the chain."""
    core = labels != NO_INDEX
    parents = np.arange(n, dtype=np.int32)
    np.minimum.at(parents, labels[core], np.minimum(labels, least)[core])
    while (parents[parents] != parents).any():
        parents = parents[parents]
    joined = labels.copy()
    joined[core] = parents[labels[core]]
    return joined


def _number_clusters(labels):
    """Clusters counted from 0 in the order of their first core samples; −1 for noise."""
    known, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.astype(np.int32)
    return np.where(labels == NO_INDEX, -1, numbers) if known[-1] == NO_INDEX else numbers


memory.guard_functions(__name__)

"""DBSCAN: clusters of core samples within a radius of each other, and noise.

The labels equal those of the usual depth-first search, but are computed in parallel by label propagation: core
samples take the least label among their neighbors, and labels that meet are merged with pointer jumping. Pairs of
blocks within one cluster are skipped, so later rounds cost little. Memory grows with the number of samples, for any
radius. Few samples, and precomputed distances, are searched breadth first on the host.

>>> import numpy as np
>>> from jaxcluster import dbscan
>>> dbscan.fit(np.array([[0.0], [1.0], [2.0], [9.0]]), eps=1.5, min_samples=2).labels.tolist()
[0, 0, 0, -1]

Source: M. Ester, H.-P. Kriegel, J. Sander and X. Xu, A density-based algorithm for discovering clusters in large
spatial databases with noise, KDD 1996.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.sharding import Mesh

from jaxcluster.core import memory, signals, validation
from jaxcluster.core.processes import gather_parts
from jaxcluster.core.shard import check_mesh
from jaxcluster.core.sparse_input import as_csr, check_rows
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.metric_space import MetricSpace, as_metric_space, concrete_rows, tiles
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
from jaxcluster.ops.neighbors.ring import on_ring, radius_counts
from jaxcluster.ops.precomputed import distance_matrix
from jaxcluster.types import Array, Bool, Fit, Float, Int, Status

__all__ = ["DBSCANState", "fit", "predict"]

HOST_WORK = 1 << 24
"""Differences, n²·d, up to which the host finds all neighbors sooner than a program for them compiles."""

HOST_PRODUCTS = 1 << 7
"""Factor of `HOST_WORK` for squares by matrix products, which are that much faster than differences."""

MAX_MASK_PAIRS = 1 << 24
"""Pairs of samples up to which the neighbor mask is stored; else it is computed on each use."""


def __dir__() -> list[str]:
    return __all__


class DBSCANState(NamedTuple):
    """Core samples, the data for labels of new samples.

    Attributes:
        core: (n,) mask of the core samples.
        components: (m, d) core samples, on the host in the dtype of the input: float32 would change distances.
        component_labels: (m,) int32 cluster of each.
        eps: () float64 radius of the fit, in the units of the metric.
    """

    core: Bool[Array, " n"]
    components: np.ndarray
    component_labels: Int[Array, " m"]
    eps: Float[np.ndarray, ""]


@signals.stoppable()
def fit(
    x: Any,
    *,
    eps: float,
    min_samples: float = 5,
    weights: Any = None,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples by density.

    A core sample has neighbors, itself included, of total weight ``min_samples`` or more within ``eps``. Core samples
    within ``eps`` of each other share a cluster; clusters are numbered by their first core sample. A border sample
    belongs to the first cluster with a core sample within ``eps``; all others are noise. The fit is deterministic and
    has no gradient.

    Args:
        x: (n_samples, n_features) concrete samples, also sparse for Euclidean and cosine distances; or (n_samples,
            n_samples) distances, dense or SciPy sparse, for the metric "precomputed". If one of the two entries of a
            pair is missing or infinite, the other one counts for
            both. Two different finite entries cause a warning, and the neighbors of a sample are those of its row, as
            in scikit-learn.
        eps: radius, in the units of the metric; infinity makes all samples neighbors.
        min_samples: least weight of the neighborhood of a core sample.
        weights: (n_samples,) finite weights; a weight of 2 is the sample twice, a negative one inhibits its neighbors
            from being core samples. None for 1 each. Sums are exact and rounded once to float64.
        metric, p: see `jaxcluster.ops.metric_space.as_metric_space`.
        mesh: over whose devices concrete dense samples are spread, for metrics by matrix products: Euclidean, cosine
            and correlation; None for one device. There weights are None. Where they are those of several processes,
            ``x`` has the samples of this one, and so have the labels; the state is of the samples of all, in the order
            of the processes, and each needs memory for all of them.

    Returns:
        `Fit` with a `DBSCANState`, labels (n_samples,) int32 with −1 for noise, steps (rounds of merging, or of
        search), status CONVERGED, and an empty history.

    Raises:
        ValueError, TypeError: wrong shapes, values or names, NaN or infinity, or traced samples.
    """
    validation.check_positive("eps", eps)
    validation.check_positive("min_samples", min_samples)
    eps, min_samples = float(eps), float(min_samples)
    check_mesh(mesh, x)
    x, weights, own = gather_parts(mesh, x, weights)
    if scipy.sparse.issparse(x) and isinstance(metric, str) and metric == "precomputed":
        neighborhood = _graph_neighborhoods(distance_matrix(x, symmetric=False), eps)
    else:
        space = as_metric_space(x, metric, p=p, symmetric=False)
        by_blocks = isinstance(space, MetricSpace) and not _prefers_host(space, space.n)
        neighborhood = space if by_blocks or mesh is not None else _mask_neighborhoods(space, eps)
    weights = None if weights is None else _check_weights(weights, neighborhood.n)
    if mesh is not None:
        core, labels, rounds = _by_ring(space, eps, min_samples, weights, mesh)
    elif isinstance(neighborhood, MetricSpace):
        core, labels, rounds = _by_block_pairs(neighborhood, eps, min_samples, weights)
    else:
        core, labels, rounds = _breadth_first(neighborhood, min_samples, weights)
    # With precomputed distances the components are rows of the matrix, as in scikit-learn.
    if metric == "precomputed":
        rows = x.tocsr() if scipy.sparse.issparse(x) else np.asarray(x)
    else:
        rows = as_csr(x) if is_sparse(x) else np.asarray(x)
    state = DBSCANState(jax.device_put(core), rows[core], jax.device_put(labels[core]), np.asarray(eps))
    empty = jnp.zeros((0,), jnp.float32)
    return Fit(state, jax.device_put(labels[own]), jnp.int32(rounds), jnp.int32(Status.CONVERGED), empty)


def predict(state: DBSCANState, x: Any, *, metric: str | Callable = "euclidean", p: float = 2.0) -> Int[Array, " n"]:
    """Labels (n_queries,) of samples: the first cluster with a core sample within ``state.eps``, −1 for none.

    For the samples of the fit these are its labels.

    Args:
        state: of a fit.
        x: (n_queries, n_features) concrete samples.
        metric, p: as in the fit.

    Raises:
        ValueError: the metric is "precomputed", or see `fit`.
    """
    eps = float(state.eps)
    if isinstance(metric, str) and metric == "precomputed":
        raise ValueError("metric='precomputed' has no distance of new rows. Fit rows and a metric in place of it.")
    components = state.components
    x = check_rows(x) if is_sparse(x) else concrete_rows(x)
    validation.check_width(x, components.shape[1])
    m, n = components.shape[0], components.shape[0] + x.shape[0]
    labels_of = np.full(n, NO_INDEX, np.int32)
    labels_of[:m] = np.asarray(state.component_labels)
    if is_sparse(x) or is_sparse(components):
        both = scipy.sparse.vstack([scipy.sparse.csr_array(part) for part in (components, x)])
    else:
        both = np.concatenate([np.asarray(components), x])
    space = as_metric_space(both, metric, p=p)
    new = np.arange(n) >= m
    if isinstance(space, MetricSpace) and not _prefers_host(space, n - m):
        data = prepare_blocks(space.x, radius_query(space, eps))
        by_slot = data.blocks.to_blocks(labels_of, NO_INDEX)
        labels = data.blocks.rows(_label_border(data, by_slot, data.blocks.to_blocks(new, False)), n)[m:]
    else:
        masks = _mask_neighborhoods(space, eps).masks(np.flatnonzero(new))
        labels = np.concatenate([np.where(mask, labels_of, NO_INDEX).min(axis=1) for mask in masks])
    return jnp.asarray(np.where(labels == NO_INDEX, -1, labels))


def _check_weights(weights, n):
    """(n,) finite float64 weights, negative ones and zeros included."""
    weights = validation.as_real_array(weights)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each row, got {weights.shape}.")
    validation.check_finite(weights, name="weights")
    return weights.astype(np.float64)


def _prefers_host(space, queries):
    """True if the host finds the neighbors of so many queries sooner than a program for them compiles."""
    by_products = space.power == 2 and space.x.shape[1] > HOST_PRODUCT_COLUMNS and space.n**2 <= MAX_MASK_PAIRS
    return space.x.size * queries <= HOST_WORK * (HOST_PRODUCTS if by_products else 1)


class _Masks(NamedTuple):
    """Neighborhoods of n samples as rows of a mask.

    Attributes:
        n: number of samples.
        rows: (m,) sample numbers -> (m, n) mask of their neighbors.
    """

    n: int
    rows: Callable[[np.ndarray], np.ndarray]

    def numbered(self, index):
        """Numbers of some samples and their masks, in tiles."""
        return ((index[part], self.rows(index[part])) for part in tiles(len(index), self.n))

    def masks(self, index):
        """Masks of some samples, in tiles."""
        return (mask for _, mask in self.numbered(index))

    def sums(self, values):
        """(n,) sums of (n,) values over the neighborhoods; without values their sizes."""
        masks = self.masks(np.arange(self.n))
        if values is None:
            return np.concatenate([np.count_nonzero(mask, axis=1) for mask in masks])
        return np.concatenate([mask.astype(np.float64) @ values for mask in masks])

    def reached(self, index):
        """Numbers of the samples that are neighbors of some others."""
        reached = np.zeros(self.n, bool)
        for mask in self.masks(index):
            reached |= mask.any(axis=0)
        return np.flatnonzero(reached)


class _Graph(NamedTuple):
    """Neighborhoods of n samples as the stored entries of a CSR matrix of ones."""

    ones: Any

    @property
    def n(self):
        """Number of samples."""
        return self.ones.shape[0]

    def sums(self, values):
        """(n,) sums of (n,) values over the neighborhoods; without values their sizes."""
        return np.diff(self.ones.indptr) if values is None else self.ones @ values

    def reached(self, index):
        """Numbers of the samples that are neighbors of some others."""
        return np.unique(self.ones[index].indices)


def _mask_neighborhoods(space, eps, *, stored=True):
    """Neighborhoods in a metric space or by a distance oracle; with ``stored`` computed once where they are few."""
    if isinstance(space, MetricSpace):
        query = radius_query(space, eps)
        masks = _Masks(space.n, lambda index: neighbor_mask(space.x, index, query))
    else:
        masks = _Masks(space.n, lambda index: space.rows(index) <= eps)
    if not stored or space.n**2 > MAX_MASK_PAIRS:
        return masks
    mask = np.concatenate(list(masks.masks(np.arange(space.n))))
    return _Masks(space.n, mask.__getitem__)


def _graph_neighborhoods(matrix, eps):
    """Neighborhoods in a sparse matrix of distances, with 0 for missing entries of the diagonal."""
    entries = scipy.sparse.coo_array(matrix)
    alone = np.setdiff1d(np.arange(matrix.shape[0]), entries.coords[0][entries.coords[0] == entries.coords[1]])
    inside = entries.data <= eps
    index = tuple(np.concatenate([axis[inside], alone]) for axis in entries.coords)
    return _Graph(scipy.sparse.csr_array((np.ones(len(index[0])), index), shape=matrix.shape))


def _breadth_first(neighborhood, min_samples, weights):
    """Breadth-first search from each core sample in order.

    Returns:
        (n,) mask of the core samples; (n,) int32 labels; the number of rounds.
    """
    if weights is None:
        core = neighborhood.sums(None) >= min_samples
    else:
        # Sums of two parts of the weights are exact, whatever their order: a sample at the threshold is a core sample
        # on every path.
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
            # Border samples take the label, and reach no others.
            frontier, rounds = new[core[new]], rounds + 1
        number += 1
    return core, labels, rounds


def _by_block_pairs(space: MetricSpace, eps, min_samples, weights):
    """Core mask, labels and number of rounds, by pairs of near blocks."""
    data = prepare_blocks(space.x, radius_query(space, eps))
    core = core_mask(data, min_samples, weights)
    if not core.any():
        return core, np.full(space.n, -1, np.int32), 0
    labels, rounds = _merge_clusters(data, core)
    unlabeled = (labels == NO_INDEX) & (data.blocks.index >= 0)
    return core, _number_clusters(data.blocks.rows(_label_border(data, labels, unlabeled), space.n)), rounds


def _by_ring(space, eps, min_samples, weights, mesh):
    """The same as `_by_block_pairs` for samples on a ring of devices; pairs at the radius are decided on the host."""
    if weights is not None:
        raise ValueError("weights are not supported with mesh=: their sums are exact on the host only.")
    ring, n = on_ring(space, mesh), space.n
    masks, rows = _mask_neighborhoods(space, eps, stored=False), np.arange(n, dtype=np.int32)
    found = radius_counts(space, ring, eps, np.full(n, NO_INDEX, np.int32))
    core = found.certain >= min_samples
    for index, mask in masks.numbered(np.flatnonzero(~core & (found.possible >= min_samples))):
        core[index] = np.count_nonzero(mask, axis=1) >= min_samples
    labels, changed, rounds = np.where(core, rows, NO_INDEX), True, 0

    def decided(found, mask):
        least = found.least.copy()
        for index, near in masks.numbered(np.flatnonzero(mask & (found.possible_least < least))):
            least[index] = np.where(near, labels, NO_INDEX).min(axis=1)
        return least

    while changed:
        signals.check_stopped()
        found = radius_counts(space, ring, eps, labels)
        merged = _propagate(labels, found.least, n)
        if (merged == labels).all():
            merged = _propagate(labels, decided(found, core & (found.possible_least < labels)), n)
        changed = bool((merged != labels).any())
        labels, rounds = merged, rounds + 1
    return core, _number_clusters(np.where(core, labels, decided(found, ~core))), rounds


def _merge_clusters(data, core):
    """Clusters of core samples by label propagation.

    Returns:
        (b, BLOCK) least core sample of the cluster of each core sample, `NO_INDEX` elsewhere; the number of rounds.
    """
    n, rounds = len(core), 0
    # A label is a row number, and the least of a cluster wins: clusters are numbered by their first core samples.
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
    # Neighbors do not change between rounds: after one pass over all pairs only those in contact are needed.
    parts, changed = all_pairs(data, _unmerged_pairs(labels)), True
    while changed:
        possible = least_labels(data, labels, is_core, parts, certain=False)
        least = least_labels(data, labels, is_core, as_block_pairs(possible.touching), certain=True).labels
        merged = _propagate(labels, np.minimum(least, possible.whole), n)
        if (merged == labels).all():
            # Float32 has merged what it can. Possible neighbors matter only between clusters that still differ.
            undecided = is_core & (possible.labels < labels)
            if undecided.any():
                merged = _propagate(labels, exact_least_labels(data, labels, undecided, possible.touching), n)
        changed = bool((merged != labels).any())
        labels, rounds = merged, rounds + 1
        unmerged = _unmerged_pairs(labels)
        pairs = possible.touching[unmerged.blocks(*possible.touching.T)]
        parts = chain(as_block_pairs(pairs), whole_only(all_pairs(data, unmerged)))
    return labels, rounds


def _unmerged_pairs(labels):
    """Filter of the pairs of blocks between which labels still differ."""
    least, most = labels.min(axis=1), np.where(labels == NO_INDEX, -1, labels).max(axis=1)

    def among(first, second, least, most):
        apart = (least[first] != least[second]) | (most[first] != most[second]) | (least[first] != most[first])
        return apart & (most[first] >= 0) & (most[second] >= 0)

    return PairFilter((BlockValue(least, np.minimum), BlockValue(most, np.maximum)), among)


def _label_border(data, labels, unlabeled):
    """Labels by slot; the slots of a mask take the least label of the core samples near them."""
    core = (labels != NO_INDEX).any(axis=1)
    values = BlockValue(unlabeled.any(axis=1), np.logical_or), BlockValue(core, np.logical_or)
    pair_filter = PairFilter(values, lambda first, second, unlabeled, core: unlabeled[first] & core[second])
    possible = least_labels(data, labels, unlabeled, all_pairs(data, pair_filter), certain=False)
    least = least_labels(data, labels, unlabeled, as_block_pairs(possible.touching), certain=True).labels
    least = np.minimum(least, possible.whole)
    # The host compares only slots whose label would change if a pair within the rounding counted.
    undecided = unlabeled & (possible.labels < least)
    if undecided.any():
        least = np.minimum(least, exact_least_labels(data, labels, undecided, possible.touching))
    return np.where(unlabeled, least, labels)


def _propagate(labels, least, n):
    """Labels after one round: each label is replaced by the least that its samples meet, to the end of the chain."""
    core = labels != NO_INDEX
    parents = np.arange(n, dtype=np.int32)  # union-find over labels, flattened by pointer jumping
    np.minimum.at(parents, labels[core], np.minimum(labels, least)[core])
    while (parents[parents] != parents).any():
        parents = parents[parents]
    merged = labels.copy()
    merged[core] = parents[labels[core]]
    return merged


def _number_clusters(labels):
    """Clusters counted from 0 in the order of their first core samples; −1 for noise."""
    distinct, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.astype(np.int32)
    return np.where(labels == NO_INDEX, -1, numbers) if distinct[-1] == NO_INDEX else numbers


memory.guard_functions(__name__)

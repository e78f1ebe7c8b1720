"""Bisecting k-means: divisive clustering that splits one cluster in two by 2-means until there are k.

The split cluster is that of the largest inertia or of the largest weight. The splits form a binary tree, which new
samples descend.

Source: M. Steinbach, G. Karypis and V. Kumar, A comparison of document clustering techniques, KDD Workshop on Text
Mining 2000.

>>> import jax, jax.numpy as jnp
>>> x = jnp.array([[0.0], [1.0], [9.0], [10.0]])
>>> fit(jax.random.key(0), x, 2, init="k-means++").state.inertia.item()
1.0
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster import lloyd, lloyd_run
from jaxcluster.cluster.lloyd import mean_variance
from jaxcluster.cluster.precision import unresolved_samples, with_precision_status
from jaxcluster.cluster.seeding import FROM_CENTERS, INITS, CenterConstraints, seed_centers, seed_in_chunks
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import best_of, best_run, map_runs
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.padding import padded_clusters, padded_tol
from jaxcluster.core.preparation import finalize, prepare, unpad
from jaxcluster.core.processes import agree_on_status
from jaxcluster.core.shard import axis_of, check_mesh, rows_of, solve_over_rows
from jaxcluster.core.sparse_input import check_rows, check_sparse_samples
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.rows import distances_to_assigned, squared_norms
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published, Status

__all__ = ["STRATEGIES", "BisectingState", "fit", "fit_framed", "predict"]

STRATEGIES = ("biggest_inertia", "largest_cluster")
"""Criteria for the cluster to split next."""


def __dir__() -> list[str]:
    return __all__


class BisectingState(NamedTuple):
    """A finished bisecting k-means.

    Split s divides the samples of cluster ``parents[s]`` between two centers, ``pairs[s]``: those nearer to the first
    keep their label, the others become cluster s + 1.

    Attributes:
        centers: (k, d) cluster centers.
        inertia: () Σ w·‖x − c‖² (data units²).
        weight: (k,) total weight of the samples of each cluster.
        parents: (k-1,) cluster that each split divided.
        pairs: (k-1, 2, d) the two centers of each split.
    """

    centers: Float[Published, "*batch k d"]
    inertia: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    parents: Int[Published, "*batch splits"]
    pairs: Float[Published, "*batch splits 2 d"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The inertia."""
        return self.inertia

    def leave(self, frame: Frame, *, k: int) -> BisectingState:
        """The same state out of the frame of its fit; of padded clusters the first k."""
        return BisectingState(
            centers=frame.leave(unpad(self.centers, k, axis=-2)),
            inertia=frame.unscale(self.inertia, length=2, weight=1),
            weight=frame.unscale(unpad(self.weight, k), weight=1),
            parents=unpad(self.parents, k - 1),
            pairs=frame.leave(unpad(self.pairs, k - 1, axis=-3)),
        )


class _Leaves(NamedTuple):
    """Growing tree: label of each sample; center, inertia and weight of each leaf; splits; inertia after each."""

    labels: Int[Array, " n"]
    centers: Float[Array, "k d"]
    inertia: Float[Array, " k"]
    weight: Float[Array, " k"]
    parents: Int[Array, " splits"]
    pairs: Float[Array, "splits 2 d"]
    history: Float[Array, " splits"]


class _Static(NamedTuple):
    """Static options: they change the compiled program. ``k`` is the number of clusters with their padding."""

    k: int
    init: str
    runs: int
    strategy: str
    lloyd: lloyd.LloydOptions
    narrowed: bool
    capacity: int


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    strategy: str = "biggest_inertia",
    init: str = "random",
    n_init: int = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples by k - 1 splits in two.

    Args:
        key: random key for the initializations of the splits.
        x: (n_samples, n_features), dense or sparse as in ``kmeans.fit``.
        k: number of clusters, static, 1 <= k <= n_samples.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        strategy: cluster to split next, that of "biggest_inertia" or the "largest_cluster" by weight.
        init: initialization of each split, see ``kmeans.fit``.
        n_init: initializations tried for each split; the one of least inertia is used.
        tol, max_steps: of each split, as in ``kmeans.fit``.
        axis_name: the mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread, in the frame of all of them; None for one device.

    Returns:
        `Fit` with a `BisectingState`, labels, steps (the splits, k - 1), status, and the total inertia after each
        split. Status EMPTY_CLUSTERS: there were fewer distinct samples than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = {"weights": weights, "strategy": strategy, "init": init, "n_init": n_init, "axis_name": axis_name}
    return fit_framed(key, x, k, tol=tol, max_steps=max_steps, mesh=mesh, **options)[0]


@signals.keeping_result()
def fit_framed(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any,
    strategy: Any,
    init: str | Callable[[np.ndarray], np.ndarray],
    n_init: Any,
    tol: Any,
    max_steps: Any,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame.

    Args:
        key, x, k, weights, strategy, n_init, tol, max_steps, axis_name: as in `fit`.
        mesh: over whose devices concrete samples are spread, or None.
        init: a name, or a function that returns the (n_init, 2, d) initial centers of a split from the (m, d) samples
            of the cluster to split. It is called between the splits, which then are a program each.

    Returns:
        The fit, and the frame in which it was computed.
    """
    key = validation.check_key(key)
    check_mesh(mesh, x)
    x, k = check_sparse_samples(x, k, axis_name, mesh)
    axis_name = axis_name if mesh is None else axis_of(mesh)
    validation.check_choice("strategy", strategy, STRATEGIES)
    if not callable(init):
        validation.check_choice("init", init, INITS)
    runs = validation.check_count("n_init", n_init)
    tol = validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    if mesh is not None and callable(init):
        raise ValueError("init as a function is not supported with mesh=: pass a name.")
    prepared = prepare(x, weights, axis_name=axis_name, pad_columns=True, mesh=mesh)
    columns, splits = prepared.points.x.shape[1], k - 1
    tol = padded_tol(tol, columns, x.shape[1])
    options = lloyd.LloydOptions(uniform=prepared.unit_weights, axis_name=axis_name)
    name = FROM_CENTERS if callable(init) else init
    padded = None
    if mesh is None and not callable(init):
        # Another split is a step of the same loop: it costs what a fit of fewer clusters saves.
        padded = padded_clusters(k, prepared.points.x.shape[0], 0, key, prepared.points, tol, max_steps)
    static = _Static(padded or k, name, runs, strategy, options, prepared.narrowed, history_capacity(max_steps))
    if mesh is not None:
        specs = rows_of(mesh)
        in_specs = (specs.whole, specs.row, specs.whole, specs.whole, specs.whole)
        arguments = key, prepared.points, splits, tol, max_steps
        fitted, unresolved = solve_over_rows(_fit, static, mesh, in_specs, (specs.fit, specs.row), *arguments)
    elif callable(init):
        rows = x if is_sparse(x) else np.asarray(x)
        fitted, unresolved = _fit_by_splits(static, init, rows, prepared, tol, max_steps)
    elif chunks.is_long(2 * splits * runs * prepared.points.x.size, max_steps, key, prepared.points, tol):
        fitted, unresolved = _fit_in_chunks(static, key, prepared.points, splits, tol, max_steps)
    else:
        fitted, unresolved = _fit(static, key, prepared.points, splits, tol, max_steps)
    fitted = fitted._replace(history=unpad(fitted.history, splits))
    fitted = finalize(fitted, prepared, partial(BisectingState.leave, k=k), length=2, weight=1)
    fitted = with_precision_status(fitted, x, prepared.frame, unresolved, nearest=False)
    return agree_on_status(fitted, mesh), prepared.frame


def predict(state: BisectingState, x: Any, *, frame: Frame | None = None) -> Int[Array, " n"]:
    """Labels of samples that descend the tree of splits, as the samples of the fit did.

    Args:
        state: a finished fit.
        x: (n_samples, n_features).
        frame: of the fit; None for one about the centers.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: another number of features; a gradient with respect to labels, which have none.
    """
    x = check_rows(x)
    validation.check_width(x, state.centers.shape[1])
    prepared = prepare(x, frame=frame_of(state.centers) if frame is None else frame, pad_columns=True)
    parents, pairs = state.parents, prepared.frame.enter(state.pairs)
    rows, columns = prepared.points.x.shape
    if not validation.is_traced(pairs):
        pairs = _with_columns(pairs, columns)
    padded = padded_clusters(len(parents) + 1, rows, rows * columns, state, prepared.points)
    if padded is not None:
        # No sample has the label −1, so that the splits of padding divide nothing.
        extra = (0, padded - 1 - len(parents))
        parents = np.pad(np.asarray(parents), extra, constant_values=-1)
        pairs = np.pad(pairs, (extra, (0, 0), (0, 0)))
    labels = _predict(parents, pairs, prepared.points.x)
    return non_differentiable(prepared.unpad(labels), state, x)


@persistent_jit(static_argnums=0)
def _fit(static, key, points, splits, tol, max_steps):
    norms, tol, leaves = _root(static, points, tol)

    def split(s, leaves):
        parent = _worst(static, leaves)
        return _split(static, jax.random.fold_in(key, s), points, norms, leaves, parent, s, tol, max_steps)

    if static.k > 1:
        leaves = jax.lax.fori_loop(0, splits, split, leaves)
    return _finish(static, points, norms, leaves, splits)


def _fit_in_chunks(static, key, points, splits, tol, max_steps):
    """`_fit` of concrete samples, a call for each split. Where Ctrl-C ends it the clusters that remain are empty."""
    norms, tol, leaves = _root(static, points, tol)
    work = static.runs * points.x.size * (2 + lloyd_run.PASS_CENTERS)
    split = _split_in_chunks if chunks.is_long(work, max_steps, points) else _compiled_split
    for s in range(splits):
        following = None
        if not signals.interrupted():
            following = split(static, key, points, norms, leaves, jnp.int32(s), tol, max_steps)
        if following is None:
            return _interrupted(static, points, norms, leaves, splits, s)
        leaves = following
    return _finish(static, points, norms, leaves, splits)


def _interrupted(static, points, norms, leaves, splits, s):
    """Fit of the first s splits."""
    fitted, unresolved = _finish(static, points, norms, leaves, splits)
    return fitted._replace(steps=jnp.int32(s), status=jnp.int32(Status.INTERRUPTED)), unresolved


@persistent_jit(static_argnums=0)
def _compiled_split(static, key, points, norms, leaves, s, tol, max_steps):
    parent = _worst(static, leaves)
    return _split(static, jax.random.fold_in(key, s), points, norms, leaves, parent, s, tol, max_steps)


def _split_in_chunks(static, key, points, norms, leaves, s, tol, max_steps):
    """`_compiled_split` of many samples; None where Ctrl-C ends it."""
    parent, samples = _compiled_samples(static, points, norms, leaves)

    def run(key):
        centers = seed_in_chunks(key, samples.points, 2, init=static.init)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
        return lloyd_run.run_in_chunks(
            centers, samples, CenterConstraints(), **limits, options=static.lloyd, absolute=True
        )

    fitted = chunks.best_of_starts(run, jax.random.fold_in(key, s), static.runs)
    if int(fitted.status) == Status.INTERRUPTED:
        return None
    return _compiled_children(static, points, samples, leaves, fitted, parent, s)


def _worst_samples(static, points, norms, leaves):
    parent = _worst(static, leaves)
    return parent, _samples_of(points, norms, leaves, parent)


def _fit_by_splits(static, init, x, prepared, tol, max_steps):
    """`_fit` with a function on the host that returns the initial centers of each split."""
    points = prepared.points
    norms, tol, leaves = _root(static, points, tol)
    for s in range(static.k - 1):
        if signals.interrupted():
            return _interrupted(static, points, norms, leaves, static.k - 1, s)
        parent = _worst(static, leaves)
        in_parent = np.asarray(prepared.unpad(leaves.labels)) == int(parent)
        leaves = _split(
            static,
            _with_columns(prepared.frame.enter(init(x[in_parent])), points.x.shape[1]),
            points,
            norms,
            leaves,
            parent,
            jnp.int32(s),
            tol,
            max_steps,
        )
    return _finish(static, points, norms, leaves, static.k - 1)


def _with_columns(centers, columns):
    """Concrete centers (…, d) with as many columns of zeros as pad the samples."""
    centers = np.asarray(centers)
    return np.pad(centers, [(0, 0)] * (centers.ndim - 1) + [(0, columns - centers.shape[-1])])


@partial(jax.jit, static_argnums=0, inline=True)
def _finish(static, points, norms, leaves, splits):
    inertia = jnp.sum(leaves.inertia)
    empty = (leaves.weight <= 0) & (jnp.arange(static.k, dtype=jnp.int32) <= splits)
    status = status_with(Status.CONVERGED, incomplete=jnp.any(empty), objective=inertia)
    unresolved = None
    if static.narrowed:
        squares = distances_to_assigned(points.x, leaves.centers, leaves.labels)
        unresolved = unresolved_samples(points.weight, norms, squares)
    state = BisectingState(leaves.centers, inertia, leaves.weight, leaves.parents, leaves.pairs)
    return Fit(state, leaves.labels, jnp.asarray(splits, jnp.int32), status, leaves.history), unresolved


def _worst(static, leaves):
    """Cluster to split next."""
    return jnp.argmax(leaves.inertia if static.strategy == "biggest_inertia" else leaves.weight).astype(jnp.int32)


@partial(jax.jit, static_argnums=0, inline=True)
def _root(static, points, tol):
    """Squared norms of the samples, tolerance of a split (data units²), and the tree with all samples in cluster 0."""
    d = points.x.shape[1]
    k, axis_name = static.k, static.lloyd.axis_name
    norms = squared_norms(points.x)
    # In units of the variance of all samples, for every split: that of a cluster falls with each split.
    tol = tol * mean_variance(points, norms, axis_name=axis_name)
    labels = jnp.zeros_like(points.weight, jnp.int32)
    sums, weight = all_reduce(cluster_sums(points, labels, k, uniform=static.lloyd.uniform), axis_name)
    centers = sums / jnp.where(weight > 0, weight, 1)[:, None]
    total = all_reduce(points.weight @ distances_to_assigned(points.x, centers, labels), axis_name)
    inertia = jnp.zeros(k, points.x.dtype).at[0].set(total)
    parents, pairs = jnp.zeros(k - 1, jnp.int32), jnp.zeros((k - 1, 2, d), points.x.dtype)
    leaves = _Leaves(labels, centers, inertia, weight, parents, pairs, jnp.zeros(k - 1, points.x.dtype))
    return norms, tol, leaves


@partial(jax.jit, static_argnums=0, inline=True)
def _split(static, key_or_centers, points, norms, leaves, parent, s, tol, max_steps):
    """Split one cluster by a 2-means of its samples.

    ``key_or_centers`` is a random key, or (runs, 2, d) initial centers where ``init`` is a function.
    """
    samples = _samples_of(points, norms, leaves, parent)
    axis_name = static.lloyd.axis_name

    def run(key_or_centers):
        centers = key_or_centers
        if static.init != FROM_CENTERS:
            centers = seed_centers(key_or_centers, samples.points, 2, init=static.init, axis_name=axis_name)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
        return lloyd_run.run(centers, samples, CenterConstraints(), **limits, options=static.lloyd, absolute=True)

    if static.init == FROM_CENTERS:
        fitted = best_of(map_runs(run, key_or_centers))
    else:
        fitted = best_run(run, key_or_centers, static.runs)
    return _with_children(static, points, samples, leaves, fitted, parent, s)


def _samples_of(points, norms, leaves, parent):
    """All samples, as shapes are static; those of other clusters than the parent weigh nothing."""
    return lloyd.Samples(Points(points.x, jnp.where(leaves.labels == parent, points.weight, 0)), norms)


def _with_children(static, points, samples, leaves, fitted, parent, s):
    """The tree after a split."""
    axis_name = static.lloyd.axis_name
    in_parent = leaves.labels == parent
    pair, side = fitted.state.centers, fitted.state.assignment.labels
    # The first child keeps the number of its parent, so that labels of other clusters stay as they are.
    children = jnp.stack([parent, s + 1])
    distance = samples.points.weight * distances_to_assigned(points.x, pair, side)
    inertia = all_reduce(jax.ops.segment_sum(distance, side, 2), axis_name)
    total = leaves.inertia.at[children].set(inertia)
    return _Leaves(
        labels=jnp.where(in_parent & (side == 1), s + 1, leaves.labels),
        centers=leaves.centers.at[children].set(pair),
        inertia=total,
        weight=leaves.weight.at[children].set(fitted.state.stats.weight),
        parents=leaves.parents.at[s].set(parent.astype(jnp.int32)),
        pairs=leaves.pairs.at[s].set(pair),
        history=leaves.history.at[s].set(jnp.sum(total)),
    )


_compiled_samples = persistent_jit(_worst_samples, static_argnums=0)
_compiled_children = persistent_jit(_with_children, static_argnums=0)


@persistent_jit
def _predict(parents, pairs, x):
    def descend(labels, split):
        new, parent, pair = split
        side, _ = nearest(x, pair)
        return jnp.where((labels == parent) & (side == 1), new, labels), None

    # In the order of the splits: a split may divide the cluster that an earlier one made.
    splits = jnp.arange(1, parents.shape[0] + 1, dtype=jnp.int32), parents, pairs
    return jax.lax.scan(descend, jnp.zeros(x.shape[0], jnp.int32), splits)[0]


memory.guard_functions(__name__)

"""k-means: minimize the inertia Σ w_i·‖x_i − c_label_i‖² over k centers by Lloyd's iteration, Euclidean or spherical.

With sample weights, restarts, sweeps over k, frozen centers, and gradients of the fitted centers and inertia.

Sources: S. P. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982); I. S. Dhillon and
D. S. Modha, Concept decompositions for large sparse text data using clustering, Machine Learning 42 (2001), for the
spherical form.

>>> import jax, jax.numpy as jnp
>>> x = jnp.array([[0.0], [1.0], [9.0], [10.0]])
>>> fit(jax.random.key(0), x, 2).state.centers.sort(axis=0).tolist()
[[0.5], [9.5]]
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster import lloyd, lloyd_run, streamed_kmeans
from jaxcluster.cluster.kmeans_state import (
    METRICS,
    KMeansState,
    directions,
    padded_number,
    predict,
    score,
    transform,
    units_of_inertia,
    zero_inactive,
)
from jaxcluster.cluster.lloyd import differentiable_directions, differentiable_means
from jaxcluster.cluster.precision import unresolved_samples, with_precision_status
from jaxcluster.cluster.seeding import (
    FROM_CENTERS,
    INITS,
    CenterConstraints,
    check_centers,
    check_runs,
    seed_centers,
    seed_in_chunks,
)
from jaxcluster.core import chunks, memory, row_loops, signals, validation
from jaxcluster.core.batching import best_run, map_fits, map_runs, vmap_in_chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame
from jaxcluster.core.implicit import NO_GRADIENT_OF_SPARSE_ROWS, non_differentiable
from jaxcluster.core.iterate import DEFAULT_CAPACITY, history_capacity, status_with
from jaxcluster.core.padding import padded_tol
from jaxcluster.core.preparation import finalize, prepare
from jaxcluster.core.processes import agree_on_key, agree_on_status
from jaxcluster.core.row_loops import RowRunner, Run
from jaxcluster.core.shard import axis_of, check_mesh, over_rows, rows_of, solve_over_rows
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_input import check_rows, check_sparse_samples
from jaxcluster.core.sparse_rows import SparseRows
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.ops.rows import distances_to_assigned, squared_norms
from jaxcluster.types import Fit, KeyArray, Points

__all__ = ["METRICS", "KMeansState", "fit", "fit_framed", "predict", "score", "sweep", "transform"]


def __dir__() -> list[str]:
    return __all__


class _Static(NamedTuple):
    """Static options: they change the compiled program."""

    k: int
    init: str
    runs: int
    metric: str
    precision: str | None
    uniform: bool
    narrowed: bool
    capacity: int
    axis_name: str | None = None

    @property
    def spherical(self):
        return self.metric == "cosine"

    @property
    def lloyd(self):
        return lloyd.LloydOptions(self.spherical, self.uniform, matrix_precision(self.precision), self.axis_name)


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    init: Any = "k-means++",
    n_init: int | str = 1,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    metric: str = "sqeuclidean",
    precision: str | None = None,
    frozen: Any = None,
    active: Any = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster samples around k centers that minimize the inertia.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centers and inertia have their
    exact gradient with respect to ``x`` and ``weights`` with labels held fixed: the labels of a fit are constants.

    Args:
        key: random key for the initialization.
        x: (n_samples, n_features), dense or sparse: SciPy's formats, BCOO and BCSR of JAX, and `SparseRows`, which can
            be traced. Sparse rows are not centered, are not spread over devices and give no gradient. Or a source of
            rows (`jaxcluster.datasets.scan`), read in one pass a step.
        k: number of clusters, static, 1 <= k <= n_samples.
        weights: (n_samples,) non-negative sample weights; a sample of weight 0 is labeled but does not count. None for
            1 each.
        init: "k-means++" (greedy), "random" (distinct samples by weight), "k-means||" (few passes, for many devices),
            or (k, n_features) initial centers.
        n_init: runs from different initial centers; the one of least inertia is returned. "auto" is 10 for "random",
            else 1.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features. Traced.
        max_steps: maximum number of steps. Traced.
        metric: "sqeuclidean", or "cosine" for spherical k-means on samples scaled to unit length.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        frozen: centers that never move: a (k,) mask over the initial centers of ``init``, or (m, n_features) centers
            that take the first m places while the rest are seeded around them.
        active: (k,) mask of the centers that take part, for batches of problems with different k. Inactive centers
            have no samples and weight 0.
        axis_name: the mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread, in the frame of all of them; None for one device.

    Returns:
        `Fit` with a `KMeansState`, labels (n_samples,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS: there were fewer distinct samples than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = {"weights": weights, "init": init, "n_init": n_init, "frozen": frozen, "active": active}
    options |= {"tol": tol, "max_steps": max_steps, "metric": metric, "precision": precision, "axis_name": axis_name}
    return fit_framed(key, x, k, **options, mesh=mesh)[0]


@signals.keeping_result()
def fit_framed(
    key: Any,
    x: Any,
    k: Any,
    *,
    weights: Any,
    init: Any,
    n_init: Any,
    tol: Any,
    max_steps: Any,
    metric: Any,
    precision: Any,
    frozen: Any,
    active: Any = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame.

    Returns:
        The fit, and the frame in which it was computed.
    """
    key = validation.check_key(key)
    _check_options(metric, precision, max_steps)
    tol = validation.check_positive("tol", tol, zero=True)
    if isinstance(x, RowSource):
        if not (frozen is None and active is None and axis_name is None and mesh is None):
            raise ValueError("frozen=, active=, axis_name= and mesh= are not supported for a source of rows.")
        runs = check_runs(init if isinstance(init, str) else FROM_CENTERS, n_init)
        options = {"weights": weights, "init": init, "n_init": runs, "metric": metric, "precision": precision}
        fitted, frame = streamed_kmeans.fit_framed(key, x, k, tol=tol, max_steps=max_steps, **options)
        return fitted._replace(state=KMeansState(*fitted.state)), frame
    check_mesh(mesh, x)
    x, k = check_sparse_samples(x, k, axis_name, mesh)
    axis_name = axis_name if mesh is None else axis_of(mesh)
    name, constraints = check_centers(init, frozen, active, k, x.shape[1])
    runs = check_runs(name, n_init)
    prepared = prepare(x, weights, unit_rows=metric == "cosine", axis_name=axis_name, pad_columns=True, mesh=mesh)
    columns = prepared.points.x.shape[1]
    tol = padded_tol(tol, columns, x.shape[1])
    capacity, size = history_capacity(max_steps), prepared.points.x.size
    padded = padded_number(k, prepared, name, mesh, key, constraints, tol, max_steps)
    unit_weights, narrowed = prepared.unit_weights, prepared.narrowed
    static = _Static(padded or k, name, runs, metric, precision, unit_weights, narrowed, capacity, axis_name)
    inside = constraints.padded(k, padded).enter(prepared.frame, static.spherical, columns)
    arguments = key, prepared.points, inside, tol, max_steps
    work, shown = size * (static.k + lloyd_run.PASS_CENTERS), partial(prepared.unscale, **units_of_inertia(metric))
    if mesh is not None and not row_loops.is_long(runs * work, max_steps, mesh):
        specs = rows_of(mesh)
        in_specs = (specs.whole, specs.row, specs.whole, specs.whole, specs.whole)
        fitted, unresolved = solve_over_rows(_fit, static, mesh, in_specs, (specs.fit, specs.row), *arguments)
    elif mesh is not None:
        data = row_loops.digest(mesh, x, (weights,), static, agree_on_key(key, mesh), inside, tol)
        fitted, unresolved = _fit_over_rows(Run(static, mesh, max_steps, work, shown, data), *arguments)
    elif chunks.is_long(runs * work, max_steps, *arguments):
        fitted, unresolved = _fit_in_chunks(static, *arguments, shown)
    else:
        fitted, unresolved = _fit(static, *arguments)
    leave = partial(KMeansState.leave, k=k, spherical=static.spherical)
    fitted = finalize(fitted, prepared, leave, **units_of_inertia(metric))
    centers = fitted.state.centers
    if constraints.movable is not None and not static.spherical:
        # The way into the frame and out of it has rounded them.
        centers = constraints.restore_frozen(centers)
    if constraints.active is not None:
        centers = zero_inactive(centers, constraints.active)
    fitted = fitted._replace(state=fitted.state._replace(centers=centers))
    fitted = with_precision_status(fitted, x, prepared.frame, unresolved)
    return agree_on_status(fitted, mesh), prepared.frame


def sweep(
    key: KeyArray,
    x: Any,
    ks: Any,
    *,
    n_seeds: int = 1,
    weights: Any = None,
    init: str = "k-means++",
    tol: Any = 1e-4,
    max_steps: Any = 300,
    metric: str = "sqeuclidean",
    precision: str | None = None,
) -> Fit:
    """Fit every k in ``ks`` from ``n_seeds`` initializations, in one compiled program.

    Args:
        key: random key for the initializations.
        x: (n_samples, n_features).
        ks: distinct numbers of clusters.
        n_seeds: initializations for each k.
        weights, init, tol, max_steps, metric, precision: as in `fit`.

    Returns:
        A `Fit` whose arrays have two more leading axes, (len(ks), n_seeds). Centers are padded to max(ks); those
        beyond a problem's k are zeros of weight 0.

    Raises:
        ValueError, TypeError: as `fit`, or ``ks`` empty or with repetitions.
    """
    key = validation.check_key(key)
    x = check_rows(x)
    ks = validation.check_every_k(ks, x.shape[0])
    if not ks or len(set(ks)) < len(ks):
        raise ValueError(f"ks={ks} must be one or more distinct numbers of clusters.")
    validation.check_choice("init", init, INITS)
    validation.check_count("n_seeds", n_seeds)
    _check_options(metric, precision, max_steps)
    tol = validation.check_positive("tol", tol, zero=True)
    prepared = prepare(x, weights, unit_rows=metric == "cosine", pad_columns=True)
    tol = padded_tol(tol, prepared.points.x.shape[1], x.shape[1])
    most, shape = max(ks), (len(ks), n_seeds)
    padded = padded_number(most, prepared, init, None, key, tol, max_steps)
    unit_weights, narrowed = prepared.unit_weights, prepared.narrowed
    static = _Static(padded or most, init, 1, metric, precision, unit_weights, narrowed, history_capacity(max_steps))
    counts, index = np.repeat(np.asarray(ks, np.int32), n_seeds), np.arange(len(ks) * n_seeds)
    arguments = key, prepared.points, tol, max_steps, counts, index
    traced = validation.is_traced(*arguments)
    fits = _many_fits(static, len(index), *arguments) if traced else _split_fits(static, *arguments)
    fits, unresolved = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), fits)
    leave = partial(KMeansState.leave, k=most, spherical=static.spherical)
    fits = finalize(fits, prepared, leave, **units_of_inertia(metric))
    active = np.arange(most) < counts.reshape(*shape, 1)
    fits = fits._replace(state=fits.state._replace(centers=zero_inactive(fits.state.centers, active)))
    fits = fits._replace(**{name: jax.device_put(getattr(fits, name)) for name in ("labels", "steps", "status")})
    return with_precision_status(fits, x, prepared.frame, unresolved)


@persistent_jit(static_argnums=0)
def _fit(static, key, points, constraints, tol, max_steps):
    points = directions(points, static.spherical)
    # The iteration has no derivative: `_finish` attaches that of the centers as means of their samples.
    constant = jax.lax.stop_gradient(points)
    samples = lloyd.Samples(constant, squared_norms(constant.x))

    def fit_best(samples, constraints, tol, max_steps, key):
        return best_run(partial(_run, static, samples, constraints, tol, max_steps), key, static.runs)

    fitted = (fit_best if static.axis_name else vmap_in_chunks(fit_best))(samples, constraints, tol, max_steps, key)
    return _finish(static, fitted, points, samples.norms, constraints)


def _fit_in_chunks(static, key, points, constraints, tol, max_steps, shown):
    """`_fit` of concrete samples, one start after the other, which Ctrl-C can end."""
    points, samples = _compiled_samples(static, points)
    end = chunks.End(_compiled_finish, static, points, samples.norms, constraints)
    run = partial(_run_in_chunks, static, samples, constraints, tol, max_steps, shown=shown, end=end)
    return end(chunks.best_of_starts(run, key, static.runs))


def _samples(static, points):
    points = directions(points, static.spherical)
    return points, lloyd.Samples(points, squared_norms(points.x))


_compiled_samples = persistent_jit(_samples, static_argnums=0)


def _fit_over_rows(run, key, points, constraints, tol, max_steps):
    """`_fit_in_chunks` of samples that are spread over the devices of a mesh."""
    specs, key = rows_of(run.mesh), agree_on_key(key, run.mesh)
    arguments = (specs.whole, specs.row, specs.whole, specs.whole)
    loop = lloyd_run.row_loop(_prepare_over_rows, _first_centers, arguments, run.mesh)
    operands = loop.prepared(run, key, points, constraints, tol)

    def one(key):
        fit, limit = loop(run, operands, key, points, constraints, tol)
        places = (loop.fit, specs.whole, specs.whole), loop.fit
        return over_rows(_last_step, None, run.mesh, *places, fit, limit, max_steps)

    fitted = chunks.best_of_starts(one, key, run.static.runs, RowRunner(run.mesh))
    places = (loop.fit, loop.operands), (specs.fit, specs.row)
    return solve_over_rows(_end_over_rows, run.static, run.mesh, *places, fitted, operands)


def _prepare_over_rows(static, key, points, constraints, tol):
    return _samples(static, points)[1], constraints


def _first_centers(static, samples, constraints, key, points, initial, tol):
    return _initial_centers(static, samples.points, constraints, key), tol


def _last_step(_, fit, limit, max_steps):
    return lloyd_run.with_last_step(fit, limit, max_steps)


def _end_over_rows(static, fitted, operands):
    samples, constraints = operands
    return _finish(static, fitted, samples.points, samples.norms, constraints)


def _split_fits(static, key, points, tol, max_steps, counts, index):
    """`_many_fits` of concrete problems, in parts that run at the same time."""

    def one(count, key):
        constraints = CenterConstraints(active=jnp.arange(static.k, dtype=jnp.int32) < count)
        return _fit_in_chunks(static, key, points, constraints, tol, max_steps, None)

    many = partial(_many_fits, static, len(index), key, points, tol, max_steps)
    work = points.x.size * (static.k + lloyd_run.PASS_CENTERS)
    return map_fits(many, one, key, counts, work=work, max_steps=max_steps)


@persistent_jit(static_argnums=(0, 1))
def _many_fits(static, total, key, points, tol, max_steps, counts, index):
    """Fits of several (k, key): ``counts`` centers are active, and ``index`` says which of ``total`` keys is used."""

    def one(count, key):
        constraints = CenterConstraints(active=jnp.arange(static.k, dtype=jnp.int32) < count)
        return _fit(static, key, points, constraints, tol, max_steps)

    return map_runs(one, counts, jax.random.split(key, total)[index])


def run_in_frame(key: KeyArray, points: Points, k: int, *, active=None, axis_name: str | None = None) -> Fit:
    """One k-means of samples that are in a frame already, as the initialization of other methods.

    Args:
        key: random key for k-means++.
        points: in the frame of a fit, traced or not.
        k: number of clusters, static.
        active: (k,) mask of the centers that take part, or None.
        axis_name: the mapped axis over which the samples are spread.

    Returns:
        `Fit` with a `lloyd.LloydState`.
    """
    static = _Static(k, "k-means++", 1, "sqeuclidean", None, False, False, DEFAULT_CAPACITY, axis_name)
    # A seed of another method: gradients go through that method's own solution.
    points = jax.lax.stop_gradient(points)
    samples = lloyd.Samples(points, squared_norms(points.x))
    return _run(static, samples, CenterConstraints(active=active), 1e-4, 300, key)


def run_in_chunks(key: KeyArray, points: Points, k: int, *, active=None) -> Fit:
    """`run_in_frame` of concrete samples, which Ctrl-C can end."""
    static = _Static(k, "k-means++", 1, "sqeuclidean", None, False, False, DEFAULT_CAPACITY)
    _, samples = _compiled_samples(static, points)
    return _run_in_chunks(static, samples, CenterConstraints(active=active), 1e-4, 300, key)


def _run_in_chunks(static, samples, constraints, tol, max_steps, key, **watched):
    """`_run` of concrete samples."""
    centers = constraints.initial
    if centers is None:
        options = {"active": constraints.active, "frozen": constraints.frozen}
        centers = seed_in_chunks(key, samples.points, static.k, init=static.init, **options)
    limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
    return lloyd_run.run_in_chunks(centers, samples, constraints, **limits, options=static.lloyd, **watched)


def _run(static, samples, constraints, tol, max_steps, key):
    """One run from one initialization, on centered samples; its state is a `LloydState`."""
    centers = _initial_centers(static, samples.points, constraints, key)
    limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
    return lloyd_run.run(centers, samples, constraints, **limits, options=static.lloyd)


def _initial_centers(static, points, constraints, key):
    if constraints.initial is not None:
        return constraints.initial
    options = {"active": constraints.active, "frozen": constraints.frozen, "axis_name": static.axis_name}
    return seed_centers(key, points, static.k, init=static.init, **options)


def _finish(static, fitted, points, norms, constraints):
    """Public fit of a run, with exact inertia, gradients and status, in its frame; and the unresolved samples."""
    state, axis_name = fitted.state, static.axis_name
    # The centers are the means over the labels before the last assignment, and have the derivative of those means.
    mean_labels = state.prev_labels
    if constraints.movable is not None:
        mean_labels = jnp.where(constraints.movable[mean_labels], mean_labels, static.k)
    if isinstance(points.x, SparseRows):
        centers = non_differentiable(state.centers, points, message=NO_GRADIENT_OF_SPARSE_ROWS)
    else:
        attach = differentiable_directions if static.spherical else differentiable_means
        centers = attach(axis_name, state.centers, points, mean_labels)
    labels, weight = state.assignment.labels, state.stats.weight
    squares = distances_to_assigned(points.x, centers, labels, spherical=static.spherical)
    inertia = all_reduce(points.weight @ squares, axis_name)
    empty = weight <= 0
    if constraints.active is not None:
        empty &= constraints.active
    status = status_with(fitted.status, objective=inertia, incomplete=jnp.any(empty))
    public = KMeansState(centers, inertia, weight, state.residual)
    unresolved = None
    if static.narrowed and not static.spherical:
        unresolved = unresolved_samples(points.weight, norms, squares)
    return Fit(public, labels, fitted.steps, status, fitted.history), unresolved


_compiled_finish = persistent_jit(_finish, static_argnums=0)


def _check_options(metric, precision, max_steps):
    validation.check_choice("metric", metric, METRICS)
    matrix_precision(precision)
    validation.check_positive("max_steps", max_steps)


memory.guard_functions(__name__)

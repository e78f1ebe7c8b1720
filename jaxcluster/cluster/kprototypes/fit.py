"""k-prototypes: cluster rows of numbers and categories around means and modes.

The cost of a row with a prototype is ‖x − mean‖² + γ·(number of columns whose category differs from the mode).

Sources: Z. Huang, Clustering large data sets with mixed numeric and categorical values, PAKDD 1997; Z. Huang,
Extensions to the k-means algorithm for clustering large data sets with categorical values, Data Mining and Knowledge
Discovery 2 (1998). Prototypes are updated once all rows are assigned, as in Lloyd's iteration.

>>> import jax, jax.numpy as jnp
>>> x, codes = jnp.array([[0.0], [1.0], [9.0], [10.0]]), jnp.array([[0], [0], [1], [1]])
>>> state = fit(jax.random.key(0), x, 2, codes=codes, gamma=1.0, init="cao").state
>>> state.centers.tolist(), state.modes.tolist(), state.inertia.item()
([[0.5], [9.5]], [[0], [1]], 1.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.kprototypes.checks import check_codes, check_gamma, check_init, check_runs, known_codes
from jaxcluster.cluster.kprototypes.iteration import (
    MixedPoints,
    Problem,
    Prototypes,
    assign,
    cost_factors,
    run,
    run_in_chunks,
    step_work,
)
from jaxcluster.cluster.kprototypes.seeding import seed_prototypes
from jaxcluster.cluster.lloyd import differentiable_means
from jaxcluster.cluster.precision import unresolved_samples, with_precision_status
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.batching import best_run
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish
from jaxcluster.core.fold import all_reduce, map_rows
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.padding import pad_active, padded_clusters
from jaxcluster.core.preparation import Prepared, crushed_status, prepare, unpad
from jaxcluster.core.shard import axis_of, check_own_mesh, rows_of, solve_over_rows
from jaxcluster.ops.distance import distances_to_assigned, squared_norms
from jaxcluster.ops.matching import category_slots
from jaxcluster.ops.nearest import tile_size
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published


class KPrototypesState(NamedTuple):
    """Fitted k-prototypes.

    Attributes:
        centers: (k, d) means of the numbers of the clusters.
        modes: (k, q) int32 codes of their heaviest categories, the lowest code of equals.
        inertia: () Σ w·(‖x − c‖² + γ·mismatches) (data units²).
        gamma: () γ, the cost of a mismatch (data units²).
        weight: (k,) total weight of the rows of each cluster.
        residual: () Σ‖Δc‖² + γ·(changed entries of modes) of the last step (data units²); 0 if it changed no label.
    """

    centers: Float[Published, "*batch k d"]
    modes: Int[Array, "*batch k q"]
    inertia: Float[Published, "*batch"]
    gamma: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """The inertia, by which runs are compared."""
        return self.inertia


WEIGHT_BYTES = 12
"""Bytes of the weight of a category in a cluster: float32, of two steps, and while the heaviest is chosen."""


class FitOptions(NamedTuple):
    """Static options: they change the compiled program."""

    k: int
    init: str
    runs: int
    uniform: bool
    capacity: int
    narrowed: bool = False
    axis_name: str | None = None


class Solution(NamedTuple):
    """State of a solution in its frame: prototypes, the two parts of the inertia, weights, and the last shift."""

    prototypes: Prototypes
    squares: Float[Array, "*batch"]
    mismatches: Float[Array, "*batch"]
    objective: Float[Array, "*batch"]
    weight: Float[Array, "*batch k"]
    residual: Float[Array, "*batch"]


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    codes: Any,
    gamma: Any = None,
    weights: Any = None,
    init: Any = "huang",
    n_init: int | str = 1,
    tol: Any = 1e-4,
    max_steps: Any = 100,
    n_categories: Sequence[int] | None = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster rows of numbers and categories around k prototypes.

    A pure function: it works under jit, vmap and shard_map. Centers and inertia have their exact gradient with respect
    to ``x``, ``weights`` and ``gamma`` with labels and modes held fixed.

    Args:
        key: random key for the initialization.
        x: (n_samples, d) numbers; d may be 0.
        k: number of clusters, static, 1 <= k <= n_samples.
        codes: (n_samples, q) integers, the code of the category of each column, from 0; q may be 0.
        gamma: γ >= 0, the squared distance (data units²) that a mismatch counts as. None for half the mean standard
            deviation of the columns of x, as Huang advises; 1 where these are all constant, or there are none. That
            rule is meant for standardized columns: the unit of a deviation is not that of a square.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        init: "huang" (rows near drawn entries), "cao" (frequent rows far from each other, without chance), "random"
            (distinct rows by weight), or a pair of (k, d) initial centers and (k, q) modes.
        n_init: runs from different initial prototypes, in one program; the one of least inertia is returned. "auto" is
            10 for "huang" and "random", else 1.
        tol: stop when Σ‖Δc‖² + γ·(changed entries of modes) <= tol × the mean variance of the columns of x. Traced.
        max_steps: maximum number of steps. Traced.
        n_categories: number of categories of each column, static; None for one more than its largest code. Traced
            codes need it.
        axis_name: the mapped axis over which the rows are spread, inside shard_map.
        mesh: of this process, over whose devices concrete rows are spread; None for one device.

    Returns:
        `Fit` with a `KPrototypesState`, labels (n_samples,) int32, steps, status and the inertia after each step.
        Status EMPTY_CLUSTERS: there were fewer distinct rows than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = {"gamma": gamma, "weights": weights, "init": init, "n_init": n_init, "tol": tol, "mesh": mesh}
    options |= {"max_steps": max_steps, "n_categories": n_categories, "axis_name": axis_name}
    return fit_framed(key, x, k, codes=codes, **options)[0]


@signals.keeping_result()
def fit_framed(
    key: Any,
    x: Any,
    k: Any,
    *,
    codes: Any,
    gamma: Any,
    weights: Any,
    init: Any,
    n_init: Any,
    tol: Any,
    max_steps: Any,
    n_categories: Any = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> tuple[Fit, Frame]:
    """`fit` for callers that need its frame.

    Returns:
        The fit, and the frame in which it was computed.
    """
    x = _numbers(x, codes)
    codes, n_categories = check_codes(codes, n_categories)
    if x.shape[0] != codes.shape[0]:
        raise ValueError(f"x has {x.shape[0]} rows and codes {codes.shape[0]}: one row of each belongs to a sample.")
    gamma = gamma if gamma is None else check_gamma(gamma)
    d = x.shape[1]
    prepared = prepare_mixed(x, codes, weights, axis_name, mesh=check_own_mesh(mesh))
    gamma = default_gamma(prepared, d, axis_name) if gamma is None else gamma
    options = {"gamma": gamma, "init": init, "n_init": n_init, "tol": tol, "max_steps": max_steps, "mesh": mesh}
    options |= {"n_categories": n_categories, "axis_name": axis_name}
    solution, unresolved = solve_checked(key, codes, k, prepared, d, **options)
    public = to_public(solution, prepared, gamma)
    public = public._replace(status=crushed_status(public.status, prepared))
    if d:
        public = with_precision_status(public, x, prepared.frame, unresolved, nearest=False)
    return public, prepared.frame


def solve_checked(
    key, codes, k, prepared: Prepared, d: int, *, gamma, init, n_init, tol, max_steps, n_categories, axis_name, mesh
) -> tuple[Fit, Any]:
    """Solution of prepared rows after a check of the remaining options, in the frame.

    Returns:
        The fit with a `Solution` and padded labels, and the mask of unresolved rows or None.
    """
    key = validation.check_key(key)
    n = codes.shape[0] if axis_name is None else codes.shape[0] * jax.lax.axis_size(axis_name)
    k = validation.check_clusters(k, n)
    tol = validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    name, start = check_init(init, k, d, codes.shape[1])
    runs, capacity = check_runs(name, n_init), history_capacity(max_steps)
    subject = f"the weights of {k:,} clusters in {sum(n_categories):,} categories, of {runs} starts,"
    memory.check(WEIGHT_BYTES * runs * k * sum(n_categories), subject, "Lower k or n_init, or merge rare categories.")
    problem = Problem(
        mixed_points(prepared, d, codes),
        category_slots(n_categories),
        cost_factors(gamma, prepared.frame, codes.shape[1]),
    )
    padded = None if mesh is not None else _padded(k, problem.points, key, start, problem, tol, max_steps)
    problem = problem if padded is None else problem._replace(active=pad_active(None, k, padded))
    if start is not None:
        start = jax.lax.stop_gradient(_enter(start, prepared, padded))
    uniform, narrowed = prepared.unit_weights, prepared.narrowed
    options = FitOptions(padded or k, name, runs, uniform, capacity, narrowed, axis_of(mesh) or axis_name)
    arguments = key, problem, start, tol, max_steps
    if mesh is not None:
        specs = rows_of(mesh)
        in_specs = (specs.whole, Problem._make([specs.row, *[specs.whole] * 3]), *[specs.whole] * 3)
        return solve_over_rows(_solve, options, mesh, in_specs, (specs.fit, specs.row), *arguments)
    if not chunks.is_long(runs * step_work(problem.points, k), max_steps, *arguments):
        return _without_padding(_solve(options, *arguments), k)

    def shown(history):
        return _unscale_objective(history, gamma, prepared.frame, codes.shape[1])

    return _without_padding(_solve_in_chunks(options, *arguments, shown), k)


def _padded(k, points, *arguments):
    """`padded_clusters` of rows of numbers and categories."""
    return padded_clusters(k, points.weight.shape[0], points.x.size + points.codes.size, *arguments)


def _enter(prototypes, prepared, padded):
    """Prototypes of the caller in a frame, followed by copies up to ``padded``; None for no padding."""
    means: Any = prototypes.means
    modes: Any = prototypes.modes.astype(np.int32)
    means = prepared.frame.enter(means) if means.shape[1] else np.zeros(means.shape, prepared.points.x.dtype)
    if padded is not None:
        extra = (0, padded - means.shape[0]), (0, 0)
        means, modes = (np.pad(np.asarray(each), extra, mode="edge") for each in (means, modes))
    return Prototypes(means, modes)


def _without_padding(solved, k):
    """The fit of the first k clusters, and the mask of the unresolved rows."""
    fitted, unresolved = solved
    state = fitted.state
    prototypes = Prototypes(*(unpad(each, k, axis=-2) for each in state.prototypes))
    return fitted._replace(state=state._replace(prototypes=prototypes, weight=unpad(state.weight, k))), unresolved


def to_public(fitted: Fit, prepared: Prepared, gamma) -> Fit:
    """Fit with the state in the caller's coordinates and units, and labels without padding."""
    state, frame = fitted.state, prepared.frame
    d = state.prototypes.means.shape[-1]
    history = _unscale_objective(fitted.history, gamma, frame, state.prototypes.modes.shape[-1])
    residual = frame.unscale(state.residual, length=2)
    wide = np.dtype(np.float64)
    squares = frame.unscale(state.squares, length=2, weight=1, dtype=wide)
    differing = frame.unscale(state.mismatches, weight=1, dtype=wide)
    if validation.is_traced(fitted, prepared, gamma):
        inertia, gamma = (jnp.asarray(each, prepared.dtype) for each in (squares + gamma * differing, gamma))
    else:
        inertia = np.asarray(squares, wide) + np.float64(gamma) * np.asarray(differing, wide)
        inertia, gamma = publish(inertia, prepared.dtype), publish(np.float64(gamma), prepared.dtype)
    centers = frame.leave(state.prototypes.means) if d else state.prototypes.means
    weight = frame.unscale(state.weight, weight=1)
    public = KPrototypesState(centers, state.prototypes.modes, inertia, gamma, weight, residual)
    return fitted._replace(state=public, labels=prepared.unpad(fitted.labels), history=history)


def _unscale_objective(value, gamma, frame, q):
    """Objectives by the factors for sums, in data units² × weight."""
    exponent = cost_factors(gamma, frame, q).exponent
    return frame._replace(weight_exponent=frame.weight_exponent - exponent).unscale(value, length=2, weight=1)


def predict(state: Any, x: Any, *, codes: Any, gamma: Any = None, frame: Frame | None = None) -> Int[Array, " n"]:
    """Index of the prototype of least cost for each row; ties go to the lower index.

    Args:
        state: of a fit; or a pair of (k, d) centers and (k, q) modes.
        x: (n_samples, d) numbers.
        codes: (n_samples, q) integers; a code that no mode has, such as −1, differs from all.
        gamma: γ, the cost of a mismatch (data units²); None for that of the state.
        frame: of the fit that the centers are from; None for one about the centers.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: wrong shapes or values; a gradient with respect to labels, which have none.
    """
    prepared, prototypes, active, points, factors, _ = _in_one_frame(state, x, codes, gamma, None, frame)
    labels = _assign(prototypes, points, factors, active)[0]
    return non_differentiable(prepared.unpad(labels), prototypes.means, x)


def score(
    state: Any, x: Any, *, codes: Any, gamma: Any = None, weights: Any = None, frame: Frame | None = None
) -> Float[Published, ""]:
    """Negative inertia of rows under any prototypes, (), higher is better; arguments as in `fit` and `predict`."""
    prepared, prototypes, active, points, factors, gamma = _in_one_frame(state, x, codes, gamma, weights, frame)
    _, squares, differing = _assign(prototypes, points, factors, active)
    numeric = prepared.unscale(points.weight @ squares, length=2, weight=1)
    value = -(numeric + gamma * prepared.unscale(points.weight @ differing, weight=1))
    return value if validation.is_traced(value) else publish(value, prepared.dtype)


def prepare_mixed(x, codes, weights, axis_name=None, frame: Frame | None = None, mesh: Mesh | None = None) -> Prepared:
    """Prepared numbers and weights; rows without numbers have one column of zeros, which no cost counts."""
    if x.shape[1]:
        if validation.is_traced(codes) and not validation.is_traced(x):
            x = jnp.asarray(x) + 0 * jnp.sum(codes).astype(jnp.float32)  # traced too, and not padded
        return prepare(x, weights, axis_name=axis_name, frame=frame, mesh=mesh)
    like = codes if validation.is_traced(codes) else np.asarray(codes)
    zeros = like[:, :1] * 0 if like.shape[1] else np.zeros((len(like), 1))
    return prepare(zeros.astype(np.float32), weights, axis_name=axis_name, frame=frame, mesh=mesh)


def mixed_points(prepared: Prepared, d: int, codes) -> MixedPoints:
    """Rows in a frame, their codes padded as the numbers are."""
    x, weight = prepared.points
    padded: Any = codes
    short = weight.shape[0] - codes.shape[0]
    if not validation.is_traced(codes):
        padded = np.pad(np.asarray(codes), ((0, short), (0, 0)))  # on the host, where another number compiles nothing
    elif short:
        padded = jnp.pad(codes, ((0, short), (0, 0)))
    return MixedPoints(x if x.shape[1] == d else x[:, :d], padded.astype(np.int32), weight)


def default_gamma(prepared: Prepared, d: int, axis_name: str | None = None):
    """Half the mean standard deviation of the numbers, in data units; 1 where that is 0, or without numbers."""
    if d == 0:
        return 1.0
    x, weight = jax.lax.stop_gradient(tuple(prepared.points))
    concrete = not validation.is_traced(x, weight)
    if concrete:
        x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    weight = weight[:, None]
    total = all_reduce(weight.sum(), axis_name)
    mean = all_reduce((weight * x).sum(axis=0, keepdims=True), axis_name) / total
    deviation = (all_reduce((weight * (x - mean) ** 2).sum(axis=0), axis_name) / total) ** 0.5
    half = deviation.mean() / 2
    if concrete:
        return float(np.ldexp(half, -int(prepared.frame.exponent))) or 1.0
    gamma = prepared.frame.unscale(half, length=1)
    return jnp.where(gamma > 0, gamma, 1)


@persistent_jit(static_argnums=0)
def _solve(options, key, problem, start, tol, max_steps):
    # The iteration has no derivative: `_finish` attaches that of the centers as means of their rows.
    constant = jax.lax.stop_gradient(problem)

    def one(key):
        first = start
        if first is None:
            first = seed_prototypes(key, constant, options.k, init=options.init, axis_name=options.axis_name)
        limits = {"tol": tol, "max_steps": max_steps, "capacity": options.capacity}
        return run(first, constant, **limits, uniform=options.uniform, axis_name=options.axis_name)

    return _finish(options, best_run(one, key, options.runs), problem)


def _solve_in_chunks(options, key, problem, start, tol, max_steps, shown):
    """`_solve` of concrete rows, one start after the other, which Ctrl-C can end."""
    end = chunks.End(_compiled_end, options, problem)
    limits = {"tol": tol, "max_steps": max_steps, "capacity": options.capacity, "uniform": options.uniform}

    def one(key):
        first = _compiled_seeds(key, problem, options.k, init=options.init) if start is None else start
        return run_in_chunks(first, problem, **limits, shown=shown, end=end)

    return end(chunks.best_of_starts(one, key, options.runs))


def _finish(options, fitted, problem):
    """Fit with a `Solution`: exact costs from differences, gradients and the status; and the unresolved rows."""
    points, _, factors, active = problem
    state, axis_name = fitted.state, options.axis_name
    labels, modes = state.assignment.labels, state.prototypes.modes
    means, squares, unresolved = state.prototypes.means, jnp.zeros_like(points.weight), None
    if points.x.shape[1]:
        means = differentiable_means(axis_name, means, Points(points.x, points.weight), state.prev_labels)
        squares = distances_to_assigned(points.x, means, labels)
        if options.narrowed:
            unresolved = unresolved_samples(points.weight, squared_norms(points.x), squares)
    differing = jnp.sum(points.codes != modes[labels], axis=1, dtype=jnp.int32).astype(points.weight.dtype)
    squares_sum, mismatch_sum = all_reduce((points.weight @ squares, points.weight @ differing), axis_name)
    objective = factors.numeric * squares_sum + factors.mismatch * mismatch_sum
    weight = state.stats.weight
    empty = weight <= 0 if active is None else (weight <= 0) & active
    status = status_with(fitted.status, objective=objective, incomplete=jnp.any(empty))
    solution = Solution(Prototypes(means, modes), squares_sum, mismatch_sum, objective, weight, state.residual)
    return Fit(solution, labels, fitted.steps, status, fitted.history), unresolved


_compiled_end = persistent_jit(_finish, static_argnums=0)
_compiled_seeds = persistent_jit(partial(seed_prototypes, axis_name=None), static_argnums=2, static_argnames="init")


@persistent_jit
def _assign(prototypes, points, factors, active):
    k, d = prototypes.means.shape
    n, q = points.codes.shape
    tile = tile_size(jax.ShapeDtypeStruct((n, d + q), points.weight.dtype), k)
    labels = map_rows(lambda rows: assign(prototypes, rows, factors, active)[0], points, tile=tile)
    squares = distances_to_assigned(points.x, prototypes.means, labels) if d else jnp.zeros_like(points.weight)
    differing = jnp.sum(points.codes != prototypes.modes[labels], axis=1, dtype=jnp.int32)
    return labels, squares, differing.astype(squares.dtype)


def _numbers(x, codes):
    """Numbers of rows: a checked matrix, or no column."""
    shape = np.shape(x)
    if len(shape) == 2 and shape[0] and shape[1] == 0:
        return np.zeros(shape, np.float32)
    return validation.check_matrix(x)


def _in_one_frame(prototypes, x, codes, gamma, weights, frame):
    """Prepared rows; prototypes, the mask of those that are no padding, and rows in one frame; the factors; and γ."""
    if isinstance(prototypes, KPrototypesState):
        gamma = prototypes.gamma if gamma is None else gamma
        prototypes = prototypes.centers, prototypes.modes
    if gamma is None:
        raise TypeError("centers and modes without a state need gamma=, the cost of a mismatch.")
    gamma = gamma if validation.is_traced(gamma) else float(gamma)
    means, modes = prototypes
    x = _numbers(x, codes)
    d = x.shape[1]
    if np.shape(means)[1] != d or np.shape(modes)[1] != np.shape(codes)[1]:
        raise ValueError(
            f"rows have {d} columns of numbers and {np.shape(codes)[1]} of categories, but the model was fitted on "
            f"{np.shape(means)[1]} and {np.shape(modes)[1]}."
        )
    codes, modes = known_codes(codes, name="codes"), known_codes(modes, name="modes")
    if frame is None and d:
        frame = frame_of(validation.check_matrix(means, name="centers"))
    prepared = prepare_mixed(x, codes, weights, frame=frame if d else None)
    points = mixed_points(prepared, d, codes)
    k, start = len(modes), Prototypes(validation.check_matrix(means, name="centers") if d else means, modes)
    padded = _padded(k, points, start, gamma, prepared)
    active = None if padded is None else pad_active(None, k, padded)
    factors = cost_factors(gamma, prepared.frame, codes.shape[1])
    return prepared, _enter(start, prepared, padded), active, points, factors, gamma

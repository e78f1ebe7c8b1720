"""Soft k-means in one frame: E-step, M-step, fit from one initialization, responsibilities and free energy.

    E-step   r_ij = softmax_j(−‖x_i − c_j‖² / 2σ²)
    M-step   c_j = Σ_i w_i r_ij x_i / Σ_i w_i r_ij
    free energy   F = −2σ² Σ_i w_i log((1/k) Σ_j exp(−‖x_i − c_j‖² / 2σ²))

EM never raises the free energy. At a small σ² the exponentials underflow, so F is computed as the least distance plus
2σ² times a log-sum-exp of the differences from it; at σ² = 0 it is the inertia, and the responsibilities are one-hot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.inference import map_in_place
from jaxcluster.cluster.gmm.state import scale_in_frame
from jaxcluster.cluster.kmeans_state import padded_number
from jaxcluster.cluster.lloyd import mean_variance
from jaxcluster.cluster.precision import unresolved_about_means, with_precision_status
from jaxcluster.cluster.seeding import CenterConstraints, check_centers, seed_centers
from jaxcluster.cluster.soft_kmeans.state import EMState, SoftKMeansState, SoftStats
from jaxcluster.core import chunks, memory, row_loops, signals, validation
from jaxcluster.core.batching import vmap_in_chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce, fold_rows, map_rows
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.implicit import implicit_fixed_point, with_derivative_of
from jaxcluster.core.iterate import advance, begin, history_capacity, status_with
from jaxcluster.core.preparation import Prepared, finalize, prepare
from jaxcluster.core.processes import agree_on_key, agree_on_status, gather
from jaxcluster.core.row_loops import Run
from jaxcluster.core.shard import axis_of, check_mesh, row_sharding, rows_of, solve_over_rows
from jaxcluster.ops import logsumexp
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import HIGHEST, squared_norms
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, form_of
from jaxcluster.ops.gaussian.covariance_type import product_over_rows, with_ones
from jaxcluster.ops.gaussian.diagonal import square_distances
from jaxcluster.ops.nearest import FAR_RATIO, nearest
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Points, Published

UNDERFLOW_EXPONENT = 750.0
"""Exponent ‖x − c‖²/2σ², beyond that of the nearest center, from which on exp(−exponent) is 0 in float64 too."""

MAX_VARIANCE_EXPONENT = 100
"""A variance above 2¹⁰⁰ in a frame is taken for that: coordinates are below 2⁴⁰, so responsibilities are all 1/k."""


class Static(NamedTuple):
    """Static options: they change the compiled program."""

    k: int
    init: str
    capacity: int
    axis_name: str | None


@signals.keeping_result()
def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    variance: Any,
    weights: Any = None,
    init: Any = "k-means++",
    known: Any = None,
    tol: Any = 1e-4,
    max_steps: Any = 300,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Fit k centers of soft clusters by EM from one initialization.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centers, objective and cluster
    weights have their gradient with respect to ``x``, ``weights`` and ``variance`` by the implicit function theorem; it
    is right where the fit has converged, so ask for a small tol.

    Args:
        key: random key for the initialization.
        x: (n_samples, n_features).
        k: number of clusters, static, 1 <= k <= n_samples.
        variance: σ² >= 0 (data units²); 0 for the hard assignment of Lloyd. Half of the temperature T of
            responsibilities in proportion to exp(−‖x − c‖²/T). Traced.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        init: as in ``kmeans.fit``; seeded centers of clusters with known samples start at the means of these.
        known: (n_samples,) integers, the cluster that has all of a sample, −1 where that is to be found; None for −1
            everywhere.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the features. Traced.
        max_steps: maximum number of steps. Traced.
        axis_name: the mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread; None for one device. Where they are those of several
            processes, ``x`` has the samples of this one, and so have the labels.

    Returns:
        `Fit` with a `SoftKMeansState`, labels (n_samples,) int32 of the nearest center, which are constants for
        gradients, steps, status and the free energy after each step. Status EMPTY_CLUSTERS: some cluster has no
        responsibility, and keeps its center. PRECISION: samples of a cluster differ by less than float32 resolves.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    key = validation.check_key(key)
    x, k = validation.check_samples(x, k, axis_name, check_mesh(mesh, x))
    validation.check_positive("variance", variance, zero=True)
    validation.check_positive("tol", tol, zero=True)
    validation.check_positive("max_steps", max_steps)
    name, constraints = check_centers(init, None, None, k, x.shape[1])
    known = None if known is None else check_known(known, x.shape[0], k)
    prepared = prepare(x, weights, axis_name=axis_name, mesh=mesh)
    points, frame = prepared.points, prepared.frame
    own, known = known, _padded_known(known, prepared, mesh)
    variance = variance_in_frame(frame, variance, points.x.dtype)
    padded = padded_number(k, prepared, name, mesh, key, constraints, known, variance, tol, max_steps)
    static = Static(padded or k, name, history_capacity(max_steps), axis_of(mesh) or axis_name)
    arguments = key, points, constraints.padded(k, padded).enter(frame), known, variance, tol, max_steps
    work = 4 * points.x.size * static.k  # distances, their exponentials and two sums
    shown = partial(prepared.unscale, length=2, weight=1)
    if mesh is not None:
        data = row_loops.digest(
            mesh, x, (weights, own), static, agree_on_key(key, mesh), *arguments[2:3], variance, tol
        )
        fitted = _fit_over_rows(Run(static, mesh, max_steps, work, shown, data), *arguments)
    elif chunks.is_long(work, max_steps, *arguments):
        fitted = long_fit(static, *arguments, work=work, max_steps=max_steps, shown=shown)
    else:
        fitted = _fit(static, *arguments)
    own = prepared.local().points
    unresolved = unresolved_about_means(own, fitted.state.centers, fitted.labels) if prepared.narrowed else None
    fitted = finalize(fitted, prepared, partial(SoftKMeansState.leave, k=k), length=2, weight=1)
    return agree_on_status(with_precision_status(fitted, x, frame, unresolved), mesh)


def free_energy(
    centers: Any, x: Any, variance: Any, *, weights: Any = None, known: Any = None, frame: Frame | None = None
) -> Float[Published, ""]:
    """Free energy −2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²), which `fit` minimizes, of any centers.

    A sample of a known cluster counts with that cluster's term of the sum alone. Differentiable in centers, x, variance
    and weights.

    Args:
        centers: (k, n_features).
        x, variance, weights, known: as in `fit`.
        frame: of the fit that the centers are from; None for one about the centers.
    """
    inside, prepared, variance = _in_one_frame(centers, x, variance, weights, frame)
    known = None if known is None else check_known(known, prepared.n, inside.shape[0])
    known = _padded_known(known, prepared)
    return prepared.unscale(_energy(inside, prepared.points, known, variance), length=2, weight=1)


def responsibilities(centers: Any, x: Any, variance: Any, *, frame: Frame | None = None) -> Float[Published, "n k"]:
    """Responsibilities of k centers for samples; one-hot at variance 0, ties to the lower index.

    Differentiable with respect to centers, x and variance; arguments as in `free_energy`.

    Returns:
        (n_samples, k), rows that sum to 1.
    """
    inside, prepared, variance = _in_one_frame(centers, x, variance, None, frame)
    memory.check_table(prepared.n, inside.shape[0], prepared.dtype, "the responsibilities")
    return prepared.unscale(prepared.unpad(_responsibilities(inside, prepared.points.x, variance), axis=0))


def check_known(known: Any, n: int, k: int) -> Int[Array, " n"]:
    """``known`` as an int32 array of n clusters below k, −1 for none.

    Raises:
        TypeError: it does not hold integers.
        ValueError: another shape, or numbers that are no cluster's.
    """
    if not validation.is_traced(known):
        known = np.asarray(known)
    if known.dtype.kind not in "iu":
        raise TypeError(f"known must hold integers, the cluster of each row or -1 for none, got dtype {known.dtype}.")
    if known.shape != (n,):
        raise ValueError(f"known must have shape ({n},), one a row, got {known.shape}.")
    if not validation.is_traced(known) and (known.min() < -1 or known.max() >= k):
        raise ValueError(f"known must lie between -1 (not known) and {k - 1}, got {known.min()} to {known.max()}.")
    return jnp.asarray(known, jnp.int32)


def soft_assign(
    distance: Float[Array, "k n"], variance: Float[Array, ""], active: Bool[Array, " k"] | None = None
) -> tuple[Float[Array, " n"], Float[Array, "k n"]]:
    """E-step of samples in columns, from squared distances (data units²) to the centers in the mask ``active``.

    Returns:
        (n,) free energy of each sample (data units²), and (k, n) responsibilities.
    """
    # Relative to the least distance, which stands outside of the logarithm: at a small variance energies and
    # responsibilities stay finite, and so do their derivatives.
    k = distance.shape[0]
    if active is not None:
        distance = jnp.where(active[:, None], distance, jnp.inf)
    least = jnp.min(distance, axis=0)
    excess = distance - least[None, :]
    twice = 2 * variance
    # Below this variance the products with it underflow, and the assignment is hard.
    soft = twice > 4 * UNDERFLOW_EXPONENT * jnp.finfo(distance.dtype).tiny
    hard = jnp.arange(k, dtype=jnp.int32)[:, None] == jnp.argmin(distance, axis=0).astype(jnp.int32)[None, :]
    near = jnp.where(soft, excess <= UNDERFLOW_EXPONENT * twice, hard)
    constant = jnp.where(soft, jax.lax.stop_gradient(twice), 1)
    # 1, with the derivative of constant/twice: that of a quotient would square a small variance, and underflow.
    scale = jnp.exp(jnp.log(constant) - jnp.log(jnp.where(soft, twice, 1)))
    logits = jnp.where(near, -jnp.where(near & soft, excess, 0) / constant * scale, -jnp.inf)
    log_sum, responsibilities = logsumexp.responsibilities(logits)
    energy = least + jnp.where(soft, twice, 0) * (_log_count(k, active, distance.dtype) - log_sum)
    return energy, responsibilities


def _log_count(k, active, dtype):
    """Logarithm of the number of centers that take part."""
    return jnp.log(jnp.asarray(k, dtype) if active is None else jnp.sum(active, dtype=dtype))


def soft_stats(
    centers: Float[Array, "k d"],
    columns: em.TransposedPoints,
    variance: Float[Array, ""],
    *,
    known: Int[Array, " n"] | None = None,
    cluster_weight: Float[Array, " k"] | None = None,
    active: Bool[Array, " k"] | None = None,
    axis_name: str | None = None,
) -> SoftStats:
    """E-step of all samples, folded into statistics; responsibilities exist for one tile at a time.

    Args:
        centers, columns: in one frame; samples are columns.
        variance: σ².
        known: the cluster that has all of a sample, −1 where the responsibilities tell.
        cluster_weight: (k,) p for responsibilities in proportion to p·exp(−‖x − c‖²/2σ²).
        active: (k,) mask of the centers that take part; None for all.
        axis_name: the mapped axis over which samples are spread.
    """
    distances = distances_to(centers, variance, cluster_weight)

    # Derivatives compute a tile again: the responsibilities of all samples are never kept.
    @jax.checkpoint
    def tile(rows):
        (x, weight), known = rows
        distance = distances(x)
        energy, r = soft_assign(distance, variance, active)
        if known is not None:
            own = known[None, :] == jnp.arange(centers.shape[0], dtype=jnp.int32)[:, None]
            r = jnp.where(known[None, :] >= 0, own.astype(r.dtype), r)
            log_count = _log_count(centers.shape[0], active, distance.dtype)
            own_energy = jnp.sum(jnp.where(own, distance, 0), axis=0) + 2 * variance * log_count
            energy = jnp.where(known >= 0, own_energy, energy)
        sums = product_over_rows(r * weight[None, :], with_ones(x))
        return SoftStats(sums[:, 1:], sums[:, 0], weight @ energy), ()

    size = em.em_tile(em.EMOptions("spherical"), columns.weight.shape[0], *centers.shape)
    return fold_rows(tile, (columns, known), tile=size, axis=-1, axis_name=axis_name)[0]


def soft_update(stats: SoftStats, centers: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """M-step: weighted means; a cluster without responsibility keeps its center."""
    updated = stats.weight > jnp.finfo(centers.dtype).tiny
    means = stats.sums / jnp.where(updated, stats.weight, 1)[:, None]
    return jnp.where(updated[:, None], means, centers)


def distances_to(
    centers: Float[Array, "k d"], variance: Float[Array, ""], cluster_weight: Float[Array, " k"] | None = None
) -> Callable[[Float[Array, "d n"]], Float[Array, "k n"]]:
    """Function of columns to their squared distances, by products where their rounding is small beside the variance.

    With cluster weights p the distances are less 2σ²·log p, so that responsibilities are in proportion to p.
    """
    k, d = centers.shape
    covariance_type = COVARIANCE_TYPES["spherical"]
    _, factor, _ = covariance_type.factor(jnp.broadcast_to(jax.lax.stop_gradient(variance), (k,)), d)
    form = form_of(covariance_type, centers, factor)
    if cluster_weight is None:
        return lambda x: square_distances(centers, x, form, HIGHEST)
    # Not log 0: the distance would be infinite, and its derivative NaN.
    offset = 2 * variance * jnp.log(jnp.maximum(cluster_weight, jnp.finfo(cluster_weight.dtype).tiny))
    return lambda x: square_distances(centers, x, form, HIGHEST) - offset[:, None]


@persistent_jit(static_argnums=0)
def _fit(static, key, points, constraints, known, variance, tol, max_steps):
    best = partial(run_em, static)
    run = best if static.axis_name else vmap_in_chunks(best)
    fitted = run(*jax.lax.stop_gradient((points, constraints, known, variance, tol)), max_steps, key)
    return finish(fitted, points, known, variance, static.axis_name, constraints.active)


def _fit_over_rows(run, key, points, constraints, known, variance, tol, max_steps):
    """Fit of samples that are spread over the devices of a mesh."""
    static, mesh, specs = run.static, run.mesh, rows_of(run.mesh)
    places = (specs.whole, specs.row, specs.whole, specs.row, specs.whole, specs.whole, specs.whole)
    arguments = agree_on_key(key, mesh), points, constraints, known, variance, tol, max_steps
    if not row_loops.is_long(run.work, max_steps, mesh):
        return solve_over_rows(_fit, static, mesh, places, specs.fit, *arguments)
    operands = em.TransposedPoints._make([specs.column, specs.row]), specs.row, specs.whole, specs.whole
    loop = row_loops.loop_of(_start, _step, places, operands, specs.whole)
    prepared = loop.prepared(run, *arguments)
    fitted, _ = loop(run, prepared, *arguments)
    return solve_over_rows(_end, static, mesh, (loop.fit, operands, *places), specs.fit, fitted, prepared, *arguments)


def run_em(
    static: Static,
    points: Points,
    constraints: CenterConstraints,
    known: Int[Array, " n"] | None,
    variance: Float[Array, ""],
    tol,
    max_steps,
    key: KeyArray,
) -> Fit:
    """EM in a frame, from the initial centers of ``constraints`` or seeded ones; its state is an `EMState`."""
    operands, fit, tol, max_steps = _start(static, key, points, constraints, known, variance, tol, max_steps)
    return advance(partial(_step, static, *operands), fit, tol=tol, max_steps=max_steps)


def _start(static, key, points, constraints, known, variance, tol, max_steps):
    axis_name, centers, active = static.axis_name, constraints.initial, constraints.active
    if centers is None:
        centers = seed_centers(key, points, static.k, init=static.init, active=active, axis_name=axis_name)
        centers = centers if known is None else _means_of_known(centers, points, known, axis_name)
    columns = em.transpose_points(points)
    tol = tol * mean_variance(points, squared_norms(points.x), axis_name=axis_name)
    stats = soft_stats(centers, columns, variance, known=known, active=active, axis_name=axis_name)
    state = EMState(centers, stats, jnp.asarray(jnp.inf, centers.dtype))
    return (columns, known, variance, active), begin(state, static.capacity), tol, max_steps


def _step(static, columns, known, variance, active, state):
    centers = soft_update(state.stats, state.centers)
    stats = soft_stats(centers, columns, variance, known=known, active=active, axis_name=static.axis_name)
    return EMState(centers, stats, jnp.sum(jnp.square(centers - state.centers)))


def _end(static, fitted, operands, key, points, constraints, known, variance, tol, max_steps):
    return finish(fitted, points, known, variance, static.axis_name, constraints.active)


long_fit = chunks.Loop(_start, _step, _end)


def finish(
    fitted: Fit,
    points: Points,
    known: Int[Array, " n"] | None,
    variance: Float[Array, ""],
    axis_name: str | None,
    active: Bool[Array, " k"] | None = None,
) -> Fit:
    """Labels, implicit gradients and status of a run, in its frame.

    Args:
        fitted: of an `EMState`; constant for gradients.
        points: the samples.
        known: as in `fit`.
        variance: σ² of the fit, in the frame.
        axis_name: the mapped axis over which samples are spread.
        active: (k,) mask of the centers that take part; None for all.
    """
    constant, inputs = fitted.state, (points, known, variance, active)
    centers = implicit_fixed_point(partial(_em_map, axis_name), constant.centers, *inputs)
    summary = (constant.stats.weight, constant.stats.energy)
    weight, energy = with_derivative_of(partial(_summary, axis_name), summary, centers, *inputs)
    labels, _ = nearest(jax.lax.stop_gradient(points.x), constant.centers, active=active)
    labels = labels if known is None else jnp.where(known >= 0, known, labels)
    # The threshold of the M-step: a cluster below it keeps its center.
    empty = constant.stats.weight <= jnp.finfo(weight.dtype).tiny
    empty = empty if active is None else empty & active
    status = status_with(fitted.status, incomplete=jnp.any(empty), objective=energy)
    state = SoftKMeansState(centers, energy, weight, constant.residual)
    return Fit(state, labels, fitted.steps, status, fitted.history)


def variance_in_frame(frame: Frame, variance, dtype) -> Float[Array, ""]:
    """σ² (data units²) in a frame, at most 2^`MAX_VARIANCE_EXPONENT`."""
    inside = scale_in_frame(frame, variance, length=2)
    if validation.is_traced(inside):
        return jnp.minimum(inside, 2.0**MAX_VARIANCE_EXPONENT).astype(dtype)
    return jnp.asarray(np.minimum(inside, 2.0**MAX_VARIANCE_EXPONENT).astype(dtype))


def _padded_known(known, prepared: Prepared, mesh: Any = None):
    """Known clusters with −1 for padding, and for all rows of a process that knows none where others know some."""
    if prepared.is_part and gather(known is not None).any():
        known = np.full(prepared.n, -1, np.int32) if known is None else np.asarray(known, np.int32)
        total = prepared.points.weight.shape[0]
        own = np.pad(known, (0, total // jax.process_count() - prepared.n), constant_values=-1)
        return jax.make_array_from_process_local_data(row_sharding(mesh), own, (total,))
    if known is None:
        return None
    extra = (0, prepared.points.weight.shape[0] - known.shape[0])
    if validation.is_traced(known):
        return jnp.pad(known, extra, constant_values=-1)
    return np.pad(np.asarray(known), extra, constant_values=-1)


def _means_of_known(centers, points, known, axis_name):
    """Means of the known samples of each cluster, or its center where it has none."""
    k = centers.shape[0]
    sums, weight = all_reduce(cluster_sums(points, jnp.where(known >= 0, known, k), k), axis_name)
    return jnp.where(weight[:, None] > 0, sums / jnp.where(weight > 0, weight, 1)[:, None], centers)


def _em_map(axis_name, centers, points, known, variance, active):
    """EM step as a function of centers and data, which reverse mode can differentiate."""
    stats = soft_stats(centers, em.transpose_points(points), variance, known=known, active=active, axis_name=axis_name)
    return soft_update(stats, centers)


def _summary(axis_name, centers, points, known, variance, active):
    stats = soft_stats(centers, em.transpose_points(points), variance, known=known, active=active, axis_name=axis_name)
    return stats.weight, stats.energy


def _in_one_frame(centers, x, variance, weights, frame):
    """Centers, samples and σ² in one frame."""
    centers = validation.check_matrix(centers, name="centers")
    x = validation.check_matrix(x)
    validation.check_width(x, centers.shape[1])
    validation.check_positive("variance", variance, zero=True)
    prepared = prepare(x, weights, frame=frame_of(centers) if frame is None else frame)
    dtype = prepared.points.x.dtype
    return prepared.frame.enter(centers).astype(dtype), prepared, variance_in_frame(prepared.frame, variance, dtype)


@persistent_jit
def _energy(centers, points, known, variance):
    return soft_stats(centers, em.transpose_points(points), variance, known=known).energy


@persistent_jit
def _responsibilities(centers, x, variance):
    tile = em.em_tile(em.EMOptions("spherical"), x.shape[0], *centers.shape)
    distances = _relative_distances(centers, variance)
    # The loop in place keeps one copy of the table but has no derivative; `map_rows` has one.
    values = map_in_place(lambda rows: soft_assign(distances(rows.T), variance)[1].T, x, tile)
    return with_derivative_of(partial(_mapped_responsibilities, tile), values, centers, x, variance)


def _mapped_responsibilities(tile, centers, x, variance):
    distances = _relative_distances(centers, variance)
    return map_rows(lambda rows: soft_assign(distances(rows.T), variance)[1].T, x, tile=tile)


def _relative_distances(centers, variance):
    """`distances_to` for a softmax: those of a sample far from all centers are less that to the first one.

    Beside the square of such a distance the differences of the others are lost; ‖c − r‖² − 2(x − r)·(c − r) has none.
    """
    distances, reference = distances_to(centers, variance), centers[:1]
    offsets = centers - reference
    squares = squared_norms(offsets)

    def relative(x):
        squared = distances(x)
        products = squares[:, None] - 2 * jnp.matmul(offsets, x - reference.T, precision=HIGHEST)
        far = jnp.min(squared, axis=0) > FAR_RATIO**2 * jnp.max(squares)
        return jnp.where(far[None, :], products - jnp.min(products, axis=0)[None, :], squared)

    return relative

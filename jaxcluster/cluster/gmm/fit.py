"""Fit of a Gaussian mixture by EM, and sweeps over numbers of components and covariance types."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.gmm import em, em_run
from jaxcluster.cluster.gmm.em_run import StaticOptions, TracedOptions, m_step_params
from jaxcluster.cluster.gmm.inference import (
    host_posterior,
    mixture_components,
    replace_at,
)
from jaxcluster.cluster.gmm.init import (
    METHODS,
    CenteredInit,
    center_init,
    check_init,
    init_specs,
)
from jaxcluster.cluster.gmm.rounding import correct_rounding
from jaxcluster.cluster.gmm.state import (
    GMMState,
    GMMSweep,
    Mixture,
    Ridge,
    check_sparse,
    covariance_type_named,
    n_parameters,
    public_covariances,
    public_history,
    ridge_in_frame,
    to_data_units,
    wide_means,
)
from jaxcluster.core import chunks, row_loops, signals, validation
from jaxcluster.core.batching import best_run, map_fits, map_runs, vmap_in_chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame
from jaxcluster.core.implicit import (
    NO_GRADIENT_OF_SPARSE_ROWS,
    implicit_fixed_point,
    non_differentiable,
    with_derivative_of,
)
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.padding import pad_active
from jaxcluster.core.preparation import Prepared, crushed_status, prepare, unpad
from jaxcluster.core.processes import agree_on_key
from jaxcluster.core.row_loops import RowRunner, Run
from jaxcluster.core.shard import axis_of, check_mesh, rows_of, solve_over_rows
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_input import check_sparse_samples
from jaxcluster.core.sparse_rows import SparseRows, is_sparse
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Points


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    covariance: str = "full",
    weights: Any = None,
    init: Any = "kmeans",
    n_init: int = 1,
    tol: Any = 1e-3,
    max_steps: Any = 100,
    reg_covar: Any = 1e-6,
    missing: bool = False,
    active: Any = None,
    precision: str | None = None,
    unroll: bool = False,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Fit a mixture of k Gaussians by expectation–maximization (EM).

    A pure function: it works under jit, vmap and shard_map and inside other functions. The fitted weights, means and
    covariances have their gradient with respect to ``x`` and ``weights`` by the implicit function theorem, in memory
    that does not grow with the steps; it is right where the fit has converged, so ask for a small tol. The lower bound
    has the gradient of the log-likelihood.

    Args:
        key: random key of the initialization.
        x: (n_samples, n_features) data, for "diag" and "spherical" also sparse as in ``kmeans.fit``; or a source of
            rows (`jaxcluster.datasets.scan`), read in one pass a step.
        k: number of components, static, 1 <= k <= n.
        covariance: "full", "tied" (one matrix for all), "diag" or "spherical". Static.
        weights: (n_samples,) non-negative sample weights; a weight of 2 is the sample twice. None for 1 each.
        init: "kmeans", "k-means++", "random_from_data", "random", (k, d) means, a `GMMInit` (or a tuple or mapping of
            its fields), or the `GMMState` of another fit.
        n_init: number of initializations, of which the fit with the highest lower bound is returned.
        tol: stop when the lower bound (nats per sample) changes by no more than this. Traced.
        max_steps: largest number of steps; 0 returns the initial mixture. Traced, unless ``unroll``.
        reg_covar: added to every variance (data units²). Traced.
        missing: integrate NaN values of ``x`` out. Costs a d×d factorization for each sample.
        active: (k,) mask of the components that take part, for batches of problems with different k. Inactive ones
            have weight 0.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        unroll: take exactly ``max_steps`` steps and differentiate through each of them; memory grows with the steps.
        axis_name: mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread, in the frame of all of them; None for one device.

    Returns:
        `Fit` with a `GMMState`, labels (n_samples,) int32, steps, status and history: the mean negative log-likelihood
        after each step (see `lower_bounds`). Status COLLAPSED: components lost their samples or their variance, and
        ``state.collapsed`` marks them. Status PRECISION: the samples of a component are closer together than float32
        resolves, or rounding lowered the bound.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = em_options(covariance, precision, missing, axis_name)
    return fit_framed(
        key,
        x,
        k,
        options,
        weights=weights,
        init=init,
        n_init=n_init,
        tol=tol,
        max_steps=max_steps,
        reg_covar=reg_covar,
        active=active,
        unroll=unroll,
        mesh=mesh,
    ).fit


class FramedFit(NamedTuple):
    """A fit, the frame of its computation, and its means in the widest float type."""

    fit: Fit
    frame: Frame
    means: np.ndarray | None


@signals.keeping_result()
def fit_framed(
    key,
    x,
    k,
    options: em.EMOptions,
    *,
    weights,
    init,
    n_init,
    tol,
    max_steps,
    reg_covar,
    active=None,
    unroll=False,
    mesh: Mesh | None = None,
) -> FramedFit:
    """`fit`, with its frame and its unrounded means; over the devices of a mesh where one is given."""
    key = validation.check_key(key)
    if isinstance(x, RowSource):
        from jaxcluster.cluster.streamed_gmm import fit_framed as fit_source  # which imports this module

        if active is not None or unroll or options.axis_name is not None or mesh is not None:
            raise ValueError("active=, unroll=, axis_name= and mesh= are not supported for a source of rows.")
        starts = {"weights": weights, "init": init, "n_init": validation.check_count("n_init", n_init)}
        return fit_source(key, x, k, options, **starts, tol=tol, max_steps=max_steps, reg_covar=reg_covar)
    if is_sparse(x):
        check_sparse(x, options.covariance_type, options.missing, k, x.shape[-1])
    check_mesh(mesh, x)
    x, k = check_sparse_samples(x, k, options.axis_name, mesh)
    if mesh is not None:
        options = options._replace(axis_name=axis_of(mesh))
    tol, reg_covar = check_traced_options(tol, max_steps, reg_covar)
    em.check_memory(options, k, x.shape[1], x.dtype)
    checked = check_init(init, options.covariance_type, x.shape[0], k, x.shape[1])
    runs = validation.check_count("n_init", n_init)
    active = None if active is None else validation.check_mask("active", active, k)
    steps = validation.check_count("max_steps", max_steps) if unroll else None
    prepared = prepare(x, weights, missing=options.missing or None, axis_name=options.axis_name, mesh=mesh)
    points, ridge = prepared.points, ridge_in_frame(prepared.frame, reg_covar)
    initial = center_init(checked, prepared.frame, options.covariance_type, ridge, points)
    runs, traced = 1 if initial.complete else runs, TracedOptions(tol, max_steps, ridge.value, active)
    padded = None
    if mesh is None and not unroll and all(each is None for each in initial):
        padded = em.padded_components(options, k, points, key, traced)
    if padded is not None:
        traced = traced._replace(active=pad_active(active, k, padded))
    static = StaticOptions(padded or k, checked.method, runs, options, history_capacity(max_steps), steps)
    arguments = key, points, initial, traced
    work = static.runs * em.step_work(options, points.x.shape, static.k)

    def shown(history):
        n_observed = mean_observed(options._replace(axis_name=None), prepared.local().points)
        return -to_data_units(history, n_observed, -1 * ridge.log_jacobian, prepared.frame)

    if mesh is not None:
        data = row_loops.digest(mesh, x, (weights,), static, agree_on_key(key, mesh), initial, traced)
        solution = _solve_over_rows(Run(static, mesh, max_steps, work, shown, data), *arguments)
    elif steps is None and chunks.is_long(work, max_steps, *arguments):
        solution = solve_in_chunks(static, *arguments, shown)
    else:
        solution = solve(static, *arguments)
    return finalize(options, solution.of_components(k), x, prepared.local(), ridge)


def lower_bounds(fitted: Fit) -> Float[Array | np.ndarray, "*batch capacity"]:
    """Mean log-likelihood of a sample (nats) at each step of a fit; 0 after the last step."""
    return -fitted.history


def em_options(covariance: str, precision: str | None, missing: bool, axis_name: str | None = None) -> em.EMOptions:
    """Checked `EMOptions`."""
    covariance_type_named(covariance)
    if not isinstance(missing, bool):
        raise TypeError(f"missing must be True or False, got {missing!r}.")
    return em.EMOptions(covariance, matrix_precision(precision), missing, axis_name=axis_name)


def check_traced_options(tol, max_steps, reg_covar) -> tuple:
    """Checked options.

    Returns:
        ``tol`` and ``reg_covar`` as floats or arrays of one type, whatever the caller passed.

    Raises:
        ValueError, TypeError: ``tol``, ``max_steps`` or ``reg_covar`` is not a number >= 0.
    """
    validation.check_positive("max_steps", max_steps, zero=True)
    return validation.check_positive("tol", tol, zero=True), validation.check_positive(
        "reg_covar", reg_covar, zero=True
    )


class FrameSolution(NamedTuple):
    """A fit in the frame of its samples.

    Attributes:
        fit: its state is a `GMMState` in the frame.
        log_likelihood: () mean log-density of a sample under that mixture (nats).
        n_observed: () mean number of observed features of a sample.
        far: (n,) mask of samples that are far from every component; see `inference.host_posterior`.
    """

    fit: Fit
    log_likelihood: Float[Array, "*batch"]
    n_observed: int | Float[Array, "*batch"] | Int[Array, "*batch"]
    far: Bool[Array, "*batch n"]

    def of_components(self, k: int) -> FrameSolution:
        """The same without the padding that follows the first k components."""
        state, axis = self.fit.state, self.fit.state.weights.ndim - 1
        if state.weights.shape[-1] == k:
            return self
        weights, collapsed = unpad(state.weights, k), unpad(state.collapsed, k)
        tied = state.covariances.shape[axis] == 1
        covariances = state.covariances if tied else unpad(state.covariances, k, axis=axis)
        means = unpad(state.means, k, axis=-2)
        state = state._replace(weights=weights, means=means, covariances=covariances, collapsed=collapsed)
        return self._replace(fit=self.fit._replace(state=state))


def solve_in_chunks(
    static: StaticOptions, key: KeyArray, points: Points, init: CenteredInit, traced: TracedOptions, shown: Any
) -> FrameSolution:
    """`solve` of concrete samples, one start after the other, which Ctrl-C can end."""
    end = chunks.End(_compiled_end, static, points, traced)
    run = partial(em_run.run_in_chunks, static, points, init, traced, shown=shown, end=end)
    return end(chunks.best_of_starts(run, key, static.runs))


@persistent_jit(static_argnums=0)
def solve(
    static: StaticOptions, key: KeyArray, points: Points, init: CenteredInit, traced: TracedOptions
) -> FrameSolution:
    """Fit of samples in a frame."""
    if static.unrolled is not None:
        fitted = em_run.run(static, points, init, traced, key)
    else:

        def best(points, init, traced, key):
            return best_run(partial(em_run.run, static, points, init, traced), key, static.runs)

        run = best if static.em.axis_name else vmap_in_chunks(best)
        fitted = run(*jax.lax.stop_gradient((points, init, traced)), key)
    return _with_gradients(static, fitted, points, traced)


def _solve_over_rows(run, key, points, init, traced):
    static, mesh, specs = run.static, run.mesh, rows_of(run.mesh)
    out: Any = FrameSolution._make([specs.fit, specs.whole, specs.whole, specs.row])
    if static.unrolled is not None or not row_loops.is_long(run.work, run.max_steps, mesh):
        places = (specs.whole, specs.row, init_specs(specs), specs.whole), out
        return solve_over_rows(solve, static, mesh, *places, key, points, init, traced)
    start = em_run.run_over_rows(run, points, init, traced, key)
    fitted = chunks.best_of_starts(start, agree_on_key(key, mesh), static.runs, RowRunner(mesh))
    places = (em_run.fit_specs(specs), specs.row, specs.whole), out
    return solve_over_rows(_with_gradients, static, mesh, *places, fitted, points, traced)


def finalize(options: em.EMOptions, solution: FrameSolution, x: Any, prepared: Prepared, ridge: Ridge) -> FramedFit:
    """The fit in the caller's coordinates and units, without the labels of padding."""
    fitted, frame, covariance_type = solution.fit, prepared.frame, options.covariance_type
    labels, status, exact = prepared.unpad(fitted.labels), fitted.status, None
    is_traced = validation.is_traced(fitted, frame, ridge)
    if not is_traced:
        labels = _with_far_labels(options, solution, x, prepared, labels)
        status, exact = correct_rounding(fitted, x, prepared, covariance_type, labels)
    status = crushed_status(status, prepared)
    state = fitted.state if is_traced else fitted.state._replace(means=exact)
    public = state.leave(frame, covariance_type, ridge, solution.n_observed)
    # Inactive components have weight 0. Their means are 0 in the caller's coordinates, wherever the origin is.
    if is_traced:
        public = public._replace(means=jnp.where((public.weights > 0)[..., None], public.means, 0))
    elif not (np.asarray(public.weights) > 0).all():
        active = (np.asarray(public.weights) > 0)[..., None]
        public = public._replace(means=publish(np.where(active, public.means, 0), frame.dtype))
    n_observed = (jnp if is_traced else np).asarray(solution.n_observed)[..., None]
    history = to_data_units(fitted.history, n_observed, -1 * ridge.log_jacobian, frame)
    history = public_history(history, fitted.steps, frame)
    fitted = fitted._replace(state=public, labels=labels, status=status, history=history)
    return FramedFit(fitted, frame, None if is_traced else wide_means(exact, frame))


def _with_far_labels(options, solution, x, prepared, labels):
    """Labels (…, n) in which those that an E-step may confuse are computed on the host."""
    far, state = np.asarray(solution.far), solution.fit.state
    for at in map(tuple, np.argwhere(far.any(axis=-1))):
        covariances = state.covariances[at]
        covariances = covariances[0] if options.covariance_type.name == "tied" else covariances
        components = mixture_components(options, state.weights[at], state.means[at], covariances)
        means = np.asarray(state.means[at], np.float64)
        index, posterior = host_posterior(options, components, prepared, x, far[at], means)
        if posterior is not None:
            labels = replace_at(labels, (*at, index), posterior.labels)
    return labels


def _with_gradients(static, fitted, points, traced):
    """A run in its frame with its status, and with gradients by the implicit function theorem unless unrolled."""
    # At a fixed point θ = EM(θ, x), so dθ = (I − ∂EM/∂θ)⁻¹·∂EM/∂x·dx. The bound is stationary in θ at a maximum of
    # the likelihood, but a fit stops before that: its gradient goes through the parameters too.
    options, (state, log_likelihood, far) = static.em, fitted.state
    mixture, bound = state.mixture, state.lower_bound
    if isinstance(points.x, SparseRows):
        parameters, bound = non_differentiable((mixture[:3], bound), points, message=NO_GRADIENT_OF_SPARSE_ROWS)
    elif static.unrolled is None:
        inputs = (points, jnp.asarray(traced.reg, points.x.dtype), traced.active)
        parameters = implicit_fixed_point(partial(_em_map, options), mixture[:3], *inputs)
        bound = with_derivative_of(partial(_bound, options), bound, parameters, *inputs)
    else:
        parameters = mixture[:3]
    weights, means, covariances = parameters
    collapsed = state.collapsed
    if traced.active is not None:
        weights, means = jnp.where(traced.active, weights, 0), jnp.where(traced.active[:, None], means, 0)
        collapsed &= traced.active
    # Without any step the bound is -inf; the status must not be NOT_FINITE for that.
    objective = jnp.where(fitted.steps > 0, bound, log_likelihood)
    status = em.precision_status(fitted.status, state.bound_decrease, objective, traced.tol)
    status = status_with(status, objective=objective, collapsed=jnp.any(collapsed))
    covariances = public_covariances(options.covariance_type, covariances)
    public = GMMState(weights, means, covariances, bound, collapsed, state.residual)
    return FrameSolution(
        fitted._replace(state=public, status=status), log_likelihood, mean_observed(options, points), far
    )


_compiled_end = persistent_jit(_with_gradients, static_argnums=0)


def mean_observed(options, points):
    """Weighted mean number of observed features of a sample."""
    x, weight = jax.lax.stop_gradient(points)
    if not options.missing:
        return x.shape[1]
    observed = jnp.sum(~jnp.isnan(x), axis=1, dtype=x.dtype)
    observed, total = all_reduce((weight @ observed, jnp.sum(weight)), options.axis_name)
    return observed / total


def _em_map(options, parameters, points, reg, active):
    """One EM step as a differentiable function of parameters and data."""
    mixture = _mixture_of(options, parameters)
    options = options._replace(differentiable=True)
    params = m_step_params(options, points, reg, active)
    stats = em.e_step(options, mixture, jax.lax.stop_gradient(mixture.means), em.transpose_points(points))
    return em.m_step(options, stats.moments, jax.lax.stop_gradient(mixture.means), mixture, params)[0][:3]


def _bound(options, parameters, points, reg, active):
    mixture = _mixture_of(options, parameters)
    params = m_step_params(options, points, reg, active)
    stats = em.e_step(options, mixture, mixture.means, em.transpose_points(points))
    return stats.log_likelihood / params.total


def _mixture_of(options, parameters):
    weights, means, covariances = parameters
    _, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    return Mixture(weights, means, covariances, factor)


def sweep(
    key: KeyArray,
    x: Any,
    ks: Any,
    *,
    covariances: Sequence[str] = tuple(COVARIANCE_TYPES),
    n_seeds: int = 1,
    weights: Any = None,
    init: str = "kmeans",
    tol: Any = 1e-3,
    max_steps: Any = 100,
    reg_covar: Any = 1e-6,
    missing: bool = False,
    precision: str | None = None,
) -> GMMSweep:
    """Fits every k in ``ks`` with every covariance type from ``n_seeds`` initializations; one compile for each type.

    Args:
        key: random key; the same initializations for each type.
        x: (n_samples, n_features) data.
        ks: distinct numbers of components.
        covariances: covariance types, or one of them.
        n_seeds: number of initializations for each k.
        weights, init, tol, max_steps, reg_covar, missing, precision: as in ``gmm.fit``; init by name.

    Returns:
        `GMMSweep` with the fits, their log-likelihoods, BIC and AIC.

    Raises:
        ValueError, TypeError: as ``gmm.fit``, or ``ks`` or ``covariances`` empty or with repetitions.
    """
    key = validation.check_key(key)
    x = validation.check_matrix(x)
    ks = validation.check_every_k(ks, x.shape[0])
    covariances = (covariances,) if isinstance(covariances, str) else tuple(covariances)
    for name, values in (("ks", ks), ("covariances", covariances)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name}={list(values)} must be one or more distinct values.")
    validation.check_choice("init", init, METHODS)
    validation.check_count("n_seeds", n_seeds)
    tol, reg_covar = check_traced_options(tol, max_steps, reg_covar)
    options = [em_options(covariance, precision, missing) for covariance in covariances]
    prepared = prepare(x, weights, missing=missing or None)
    ridge = ridge_in_frame(prepared.frame, reg_covar)
    shape = (len(ks), n_seeds)
    traced = TracedOptions(tol, max_steps, ridge.value, None)
    most, capacity = max(ks), history_capacity(max_steps)
    numbers = [em.padded_components(each, most, prepared.points, key, traced) or most for each in options]
    statics = [StaticOptions(k, init, 1, each, capacity) for k, each in zip(numbers, options, strict=True)]
    results = [_of_one_type(static, key, x, prepared, ridge, traced, ks, shape) for static in statics]
    fits = dict(zip(covariances, (fit for fit, _ in results), strict=True))
    log_likelihood = np.stack([mean.reshape(shape) for _, mean in results])
    n = x.shape[0] if weights is None else float(np.sum(np.asarray(weights), dtype=np.float64))
    free = np.array([[n_parameters(name, k, x.shape[1]) for k in ks] for name in covariances])[:, :, None]
    twice = -2 * n * log_likelihood
    return GMMSweep(np.asarray(ks), covariances, fits, log_likelihood, twice + free * np.log(n), twice + 2 * free)


def _of_one_type(static, key, x, prepared, ridge, traced, ks, shape):
    counts, points = np.repeat(np.asarray(ks, np.int32), shape[1]), prepared.points

    def one(count, key):
        active = jnp.arange(static.k, dtype=jnp.int32) < count
        return solve_in_chunks(static, key, points, CenteredInit(), traced._replace(active=active), None)

    many = partial(_many_fits, static, len(counts), key, points, traced)
    work = em.step_work(static.em, points.x.shape, static.k)
    solution = map_fits(many, one, key, counts, work=work, max_steps=traced.max_steps).of_components(max(ks))
    mean = np.asarray(
        to_data_units(
            solution.log_likelihood, solution.n_observed, ridge.log_jacobian, prepared.frame, dtype=np.dtype(float)
        )
    )
    fits = finalize(static.em, solution, x, prepared, ridge).fit
    fits = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), fits)
    labels, steps, status = map(jnp.asarray, (fits.labels, fits.steps, fits.status))
    return fits._replace(labels=labels, steps=steps, status=status), mean


@persistent_jit(static_argnums=(0, 1))
def _many_fits(static, total, key, points, traced, counts, index):
    """Fits with ``counts`` active components each; ``index`` selects their keys out of ``total``."""

    def one(count, key):
        active = jnp.arange(static.k, dtype=jnp.int32) < count
        return solve(static, key, points, CenteredInit(), traced._replace(active=active))

    return map_runs(one, counts, jax.random.split(key, total)[index])

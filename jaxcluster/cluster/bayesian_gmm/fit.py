"""Fit of a Bayesian Gaussian mixture by variational inference."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster.bayesian_gmm import prior as priors
from jaxcluster.cluster.bayesian_gmm.inference import (
    BayesianGMMState,
    bound_shift,
    plug_in,
    posterior_components,
    posterior_in_frame,
    shift_bound,
    state_in_frame,
    with_factor,
)
from jaxcluster.cluster.bayesian_gmm.variational_em import (
    Posterior,
    VBOptions,
    components_of,
    init_state,
    recentered_m_step,
    step,
)
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.fit import FramedFit, check_traced_options, em_options
from jaxcluster.cluster.gmm.inference import far_rows, host_posterior, replace_at
from jaxcluster.cluster.gmm.init import (
    CenteredInit,
    GMMInit,
    center_init,
    check_init,
    cluster_in_chunks,
    init_specs,
    initial_responsibilities,
    one_hot_responsibilities,
)
from jaxcluster.cluster.gmm.rounding import correct_rounding
from jaxcluster.cluster.gmm.state import covariance_type_of, public_history, ridge_in_frame, wide_means
from jaxcluster.core import chunks, row_loops, signals, validation
from jaxcluster.core.batching import best_run, vmap_in_chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import times_power_of_two
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import advance, begin, history_capacity, status_with
from jaxcluster.core.padding import pad_active
from jaxcluster.core.preparation import crushed_status, prepare
from jaxcluster.core.processes import agree_on_key
from jaxcluster.core.row_loops import RowLoop, RowRunner, Run
from jaxcluster.core.shard import axis_of, check_mesh, rows_of, solve_over_rows
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Bool, Fit, Float, KeyArray

PRIOR_TYPES = ("dirichlet_process", "dirichlet_distribution")
"""Prior types of the mixture weights."""


class StaticOptions(NamedTuple):
    """Options that change the compiled program.

    Attributes:
        vb: options of a step.
        k: number of components.
        method: initialization method.
        runs: number of initializations.
        capacity: length of the history.
    """

    vb: VBOptions
    k: int
    method: str
    runs: int
    capacity: int


class TracedOptions(NamedTuple):
    """Options that are traced; ``reg`` is in frame units², and ``active`` a mask of the components but padding."""

    tol: float | Float[Array, ""]
    max_steps: int | Array
    reg: float | Float[Array, ""]
    active: Bool[Array, " k"] | None = None


class InitialState(NamedTuple):
    """Initial parameters in the frame, or the posterior of another fit."""

    init: CenteredInit
    posterior: Posterior | None = None


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
    weight_concentration_prior_type: str = "dirichlet_process",
    weight_concentration_prior: Any = None,
    mean_precision_prior: Any = None,
    mean_prior: Any = None,
    degrees_of_freedom_prior: Any = None,
    covariance_prior: Any = None,
    precision: str | None = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Fits the posterior of a mixture of at most k Gaussians by variational inference.

    Components that the data do not need end with nearly no weight, more of them the smaller
    ``weight_concentration_prior`` is. A pure function: it works under jit, vmap and shard_map and inside other
    functions. It has no gradient; asking for one fails.

    Args:
        key: random key of the initialization.
        x: (n_samples, n_features) data.
        k: number of components, static, 1 <= k <= n.
        covariance: "full", "tied" (one matrix for all), "diag" or "spherical". Static.
        weights: (n_samples,) non-negative sample weights; a weight of 2 is the sample twice. None for 1 each.
        init: "kmeans", "k-means++", "random_from_data", "random", (k, d) means, whose nearest samples are used, a
            ``gmm.GMMInit`` with ``responsibilities``, or the `BayesianGMMState` of another fit to continue.
        n_init: number of initializations, of which the fit with the highest lower bound is returned.
        tol: stop when the lower bound (nats, of all samples) changes by no more than this or its rounding. Traced.
        max_steps: largest number of steps. Traced.
        reg_covar: added to every variance (data units²). Traced.
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution". Static.
        weight_concentration_prior: of the mixture weights; None for 1/k. Traced, as all priors that follow.
        mean_precision_prior: weight of the prior of a mean, in samples; None for 1.
        mean_prior: (d,) prior of the means; None for the mean of the data.
        degrees_of_freedom_prior: of the Wishart prior, > d − 1; None for d.
        covariance_prior: (d, d) full or tied, (d,) diagonal, () spherical; None for that of the data.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        axis_name: mapped axis over which samples are spread, inside shard_map.
        mesh: over whose devices concrete samples are spread, in the frame of all of them; None for one device.

    Returns:
        `Fit` with a `BayesianGMMState`, labels (n_samples,) int32, steps, status and history: the negative lower bound
        after each step. Status COLLAPSED: the covariances of components are singular, and ``state.collapsed`` marks
        them.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = em_options(covariance, precision, False, axis_name)
    prior_params = priors.PriorParams(
        weight_concentration_prior, mean_precision_prior, mean_prior, degrees_of_freedom_prior, covariance_prior
    )
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
        prior_type=weight_concentration_prior_type,
        prior_params=prior_params,
        mesh=mesh,
    ).fit


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
    prior_type,
    prior_params,
    mesh: Mesh | None = None,
) -> FramedFit:
    """`fit`, with its frame and its unrounded means; over the devices of a mesh where one is given."""
    key = validation.check_key(key)
    x, k = validation.check_samples(x, k, options.axis_name, check_mesh(mesh))
    if mesh is not None:
        options = options._replace(axis_name=axis_of(mesh))
    validation.check_choice("weight_concentration_prior_type", prior_type, PRIOR_TYPES)
    vb, covariance_type = VBOptions(options, prior_type == "dirichlet_process"), options.covariance_type
    tol, reg_covar = check_traced_options(tol, max_steps, reg_covar)
    em.check_memory(options, k, x.shape[1], x.dtype)
    prior_params = priors.check_prior(prior_params, covariance_type, x.shape[1])
    if prior_params.weight_concentration is None:
        prior_params = prior_params._replace(weight_concentration=1 / k)
    runs = validation.check_count("n_init", n_init)
    start, state = _check_init(init, vb, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, axis_name=options.axis_name, mesh=mesh)
    points, frame = prepared.points, prepared.frame
    ridge = ridge_in_frame(frame, reg_covar)
    initial = InitialState(
        center_init(start, frame, covariance_type, ridge, points),
        None if state is None else posterior_in_frame(state, frame, points.x.dtype, options.covariance)[1],
    )
    runs, traced = 1 if _is_deterministic(initial) else runs, TracedOptions(tol, max_steps, ridge.value)
    prior, padded = priors.center_prior(prior_params, frame, points.x.dtype), None
    if mesh is None and not _is_deterministic(initial):
        padded = em.padded_components(options, k, points, key, prior, traced)
    if padded is not None:
        traced = traced._replace(active=pad_active(None, k, padded))
    static = StaticOptions(vb, padded or k, start.method, runs, history_capacity(max_steps))
    arguments = key, points, frame.weight_exponent, initial, prior, traced
    work = static.runs * em.step_work(options, points.x.shape, static.k)
    if mesh is not None:
        data = row_loops.digest(mesh, x, (weights,), static, agree_on_key(key, mesh), initial, prior, traced)
        fitted, far = _solve_over_rows(Run(static, mesh, max_steps, work, np.negative, data), *arguments)
    elif chunks.is_long(work, max_steps, *arguments):
        # What observers see is up to a constant, as the last one is.
        fitted, far = _solve_in_chunks(static, *arguments, np.negative)
    else:
        fitted, far = _solve(static, *arguments)
    if padded is not None:
        fitted = fitted._replace(state=fitted.state.of_components(k))
    public = _finalize(options, fitted, far, x, prepared.local(), ridge)
    means = None if validation.is_traced(fitted, frame) else wide_means(fitted.state.means, frame)
    return FramedFit(public, frame, means)


def _solve_over_rows(run, key, points, weight_exponent, initial, params, traced):
    static, mesh, specs = run.static, run.mesh, rows_of(run.mesh)
    places: Any = (
        specs.whole,
        specs.row,
        specs.whole,
        InitialState._make([init_specs(specs), specs.whole]),
        *[specs.whole] * 2,
    )
    arguments = key, points, weight_exponent, initial, params, traced
    if not row_loops.is_long(run.work, run.max_steps, mesh):
        return solve_over_rows(_solve, static, mesh, places, (specs.fit, specs.row), *arguments)
    operands = ((em.TransposedPoints._make([specs.column, specs.row]), specs.whole), specs.row)
    loop = RowLoop(_prepare_over_rows, _begin_over_rows, _step_over_rows, places, operands, specs.whole)
    prepared = loop.prepared(run, *arguments)
    fitted = chunks.best_of_starts(
        lambda key: loop(run, prepared, key, *arguments[1:])[0], agree_on_key(key, mesh), static.runs, RowRunner(mesh)
    )
    ends = (loop.fit, operands, specs.whole), (specs.fit, specs.row)
    return solve_over_rows(_end_over_rows, static, mesh, *ends, fitted, prepared, traced)


def _prepare_over_rows(static, key, points, weight_exponent, initial, params, traced):
    points, prior = _complete_prior(static, points, weight_exponent, params, traced)
    return (em.transpose_points(points), prior), points


def _begin_over_rows(static, operands, key, points, weight_exponent, initial, params, traced):
    (_, prior), points = operands
    return _start(static, points, initial, prior, traced, key)[1], jnp.asarray(traced.tol, points.x.dtype)


def _step_over_rows(static, operands, points, state):
    samples, prior = operands
    return step(static.vb, samples, prior, state)


def _end_over_rows(static, fitted, operands, traced):
    (_, prior), points = operands
    return _end(static, fitted, points, prior, traced)


def _finalize(options, fitted, far, x, prepared, ridge):
    """The fit in the caller's coordinates and units, without the labels of padding."""
    frame, covariance_type = prepared.frame, options.covariance_type
    labels = prepared.unpad(fitted.labels)
    traced = validation.is_traced(fitted, frame, ridge)
    if not traced and np.asarray(far).any():
        # The state is still in the frame of the fit: the identity frame leaves it there.
        identity = Frame(np.zeros(x.shape[1], np.float32))
        _, posterior = posterior_in_frame(fitted.state, identity, prepared.points.x.dtype, covariance_type.name)
        components, means = posterior_components(covariance_type, posterior), np.asarray(fitted.state.means, np.float64)
        index, far_posterior = host_posterior(options, components, prepared, x, far, means)
        labels = labels if far_posterior is None else replace_at(labels, index, far_posterior.labels)
    status = fitted.status if traced else correct_rounding(fitted, x, prepared, covariance_type, labels)[0]
    status = crushed_status(status, prepared)
    k, d = fitted.state.means.shape
    degrees = fitted.state.degrees_of_freedom if traced else np.asarray(fitted.state.degrees_of_freedom)
    total = degrees[0] * k if covariance_type.name == "tied" else degrees.sum()
    shift = bound_shift(frame, total, d)
    history = public_history(shift_bound(fitted.history, -1 * shift, frame), fitted.steps, frame)
    public = fitted.state.leave(frame, covariance_type, ridge, shift)
    return fitted._replace(state=public, labels=labels, status=status, history=history)


def _check_init(init, vb, n, k, d):
    """Checked `GMMInit` of a method, means or responsibilities, and None; or an empty one and the state to continue."""
    if isinstance(init, BayesianGMMState):
        _check_state(init, vb, k, d)
        return GMMInit(), init
    start = check_init(init, vb.em.covariance_type, n, k, d)
    for name in ("weights", "precisions", "state"):
        if getattr(start, name) is not None:
            raise ValueError(f"init must not hold {name}: they follow from the rows and the priors. Pass the others.")
    return start, None


def _check_state(state, vb, k, d):
    covariance_type, _ = covariance_type_of(plug_in(state))
    process = state.weight_concentration.ndim == 2
    names = {covariance_type.name, vb.em.covariance}
    same_type = len(names) == 1 or (k == 1 and names == {"full", "tied"})
    if state.means.shape != (k, d) or not same_type or process != vb.process:
        raise ValueError(
            f"init is a state with means of shape {state.means.shape}, {covariance_type.name} covariances and a "
            f"{PRIOR_TYPES[not process]} prior, but {(k, d)}, {vb.em.covariance!r} and "
            f"{PRIOR_TYPES[not vb.process]!r} are asked for."
        )


def _is_deterministic(initial):
    """True if the initialization uses no random key."""
    init = initial.init
    return initial.posterior is not None or init.means is not None or init.responsibilities is not None


@persistent_jit(static_argnums=0)
def _solve(static, key, points, weight_exponent, initial, params, traced):
    """Fit in the frame, its state a `BayesianGMMState`, and the mask of far samples."""
    options = static.vb.em
    points, prior = _complete_prior(static, points, weight_exponent, params, traced)
    best = partial(_best_run, static)
    run = best if options.axis_name else vmap_in_chunks(best)
    return _end(static, run(points, initial, prior, traced, key), points, prior, traced)


def _solve_in_chunks(static, key, points, weight_exponent, initial, params, traced, shown):
    """`_solve` of concrete samples, one start after the other, which Ctrl-C can end."""
    points, prior = _compiled_prior(static, points, weight_exponent, params, traced)
    options, k = static.vb.em, static.k
    end = chunks.End(_compiled_end, static, points, prior, traced)

    def run(key):
        clustering = None
        if initial.posterior is None:
            clustering = cluster_in_chunks(options, static.method, key, points, initial.init, traced.active, k)
        samples, fit = _compiled_start(static, points, initial, prior, traced, key, clustering)
        end.compile(fit)
        work = em.step_work(options, points.x.shape, k)
        limits = {"tol": traced.tol, "max_steps": traced.max_steps}
        return chunks.resume(chunks.bind(step, static.vb, samples, prior), fit, **limits, work=work, shown=shown)

    return end(chunks.best_of_starts(run, key, static.runs))


def _complete_prior(static, points, weight_exponent, params, traced):
    """Samples with the weights of the caller, and the prior."""
    options, dtype = static.vb.em, points.x.dtype
    # The priors are added to weights as counts of samples, so the frame's power of two is removed from the weights.
    row = times_power_of_two(jnp.ones((), dtype), weight_exponent)
    prior = priors.complete_prior(options, params, points, jnp.asarray(traced.reg).astype(dtype), row)
    return points._replace(weight=times_power_of_two(points.weight, -weight_exponent)), prior


def _end(static, fitted, points, prior, traced):
    options, state = static.vb.em, fitted.state
    components = components_of(state.posterior)
    labels, log_p = em.label(options, components, points.x.T)
    # Without any step the bound is -inf; the status must not be NOT_FINITE for that.
    objective = jnp.where(fitted.steps > 0, state.lower_bound, 0)
    status = em.precision_status(fitted.status, state.bound_decrease, objective, traced.tol)
    status = status_with(status, objective=objective, collapsed=jnp.any(state.collapsed))
    public = state_in_frame(options.covariance_type, state.posterior, prior, *state[1:4])
    return fitted._replace(state=public, labels=labels, status=status), far_rows(options, components, log_p)


def _best_run(static, points, initial, prior, traced, key):
    return best_run(partial(_run, static, points, initial, prior, traced), key, static.runs)


def _run(static, points, initial, prior, traced, key):
    """One run from one initialization; its state is a `VBState`."""
    samples, fit = _start(static, points, initial, prior, traced, key)
    return advance(partial(step, static.vb, samples, prior), fit, tol=traced.tol, max_steps=traced.max_steps)


def _start(static, points, initial, prior, traced, key, clustering=None):
    samples = em.transpose_points(points)
    if initial.posterior is None:
        params = em.MStepParams(all_reduce(jnp.sum(points.weight), static.vb.em.axis_name), prior.reg, traced.active)
        posterior, collapsed = _first_posterior(static, key, points, samples, initial.init, prior, params, clustering)
    else:
        posterior = with_factor(static.vb.em.covariance_type, initial.posterior)
        collapsed = jnp.zeros((static.k,), bool)
    return samples, begin(init_state(posterior, collapsed), static.capacity)


_compiled_prior = persistent_jit(_complete_prior, static_argnums=0)
_compiled_start = persistent_jit(_start, static_argnums=0)
_compiled_end = persistent_jit(_end, static_argnums=0)


def _first_posterior(static, key, points, samples, init, prior, params, clustering):
    """Posterior of the initial responsibilities; that of no samples if their moments overflow."""
    vb, k = static.vb, static.k
    if init.means is not None:
        centers, responsibilities = init.means, one_hot_responsibilities(nearest(points.x, init.means)[0], k)
    else:
        arguments = vb.em, static.method, key, points, init, params, k, clustering
        centers, responsibilities = initial_responsibilities(*arguments)

    # No mixture is known yet (None), but there are no missing values that would need one.
    def moments_about(reference):
        moments, zero = em.stats_from_responsibilities(vb.em, None, reference, samples, responsibilities)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in moments]))
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), moments), zero

    reference = jnp.where(jnp.isfinite(centers), centers, 0)
    updated, _ = recentered_m_step(vb, moments_about, reference, prior, params.active)
    return updated.posterior, updated.collapsed

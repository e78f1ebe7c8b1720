"""Fitting a Gaussian mixture by EM."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import distant_rows, mixture_components, replaced, settle
from jaxcluster.cluster.gmm.resolve import resolve
from jaxcluster.cluster.gmm.start import Given, check_start, enter, first_mixture, mean_square
from jaxcluster.cluster.gmm.state import (
    GMMState,
    Mixture,
    Ridge,
    covariance_type_named,
    public_covariances,
    ridge_in,
    shifted,
    wide_means,
)
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import Frame, Prepared, prepare, publish
from jaxcluster.core.implicit import at_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, iterate, status_with, trace
from jaxcluster.core.restart import best_of, in_groups, many
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Points, Status


class Static(NamedTuple):
    """Options that change the program."""

    k: int
    method: str
    runs: int
    em: em.EMOptions
    capacity: int
    unrolled: int | None = None


class Limits(NamedTuple):
    """Traced options."""

    tol: float | Float[Array, ""]
    max_steps: int | Array
    reg: float | Float[Array, ""]
    active: Bool[Array, " k"] | None


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    covariance: str = "full",
    weights=None,
    init="kmeans",
    n_init: int = 1,
    tol=1e-3,
    max_steps=100,
    reg_covar=1e-6,
    missing: bool = False,
    active=None,
    precision: str | None = None,
    unroll: bool = False,
    axis_name: str | None = None,
) -> Fit:
    """Fits a mixture of k Gaussians by expectation–maximization.

    A pure function: it works under jit, vmap and shard_map and inside other functions. The fitted weights, means and
    covariances have their gradient with respect to ``x`` and ``weights`` by the implicit function theorem, in memory
    that does not grow with the steps; it is right where the fit has converged, so ask for a small tol. The lower bound
    has the gradient of the log-likelihood.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of components, static, 1 <= k <= n.
        covariance: "full", "tied" (one matrix for all), "diag" or "spherical". Static.
        weights: (n,) non-negative row weights; a weight of 2 is the row twice. None for 1 each.
        init: "kmeans", "k-means++", "random_from_data", "random", (k, d) means, a `Start` (or a tuple or mapping of its
            fields), or the `GMMState` of another fit.
        n_init: runs from different starts, of which the highest lower bound wins.
        tol: stop when the lower bound (nats per row) changes by no more, that of the mixture which is returned too.
            Traced.
        max_steps: the most steps taken; 0 for the start itself. Traced, unless ``unroll``.
        reg_covar: added to every variance (data units²). Traced.
        missing: NaN cells of ``x`` are integrated out. Costs a d×d factorization for each row.
        active: (k,) mask of the components that take part, for batches of problems with different k. Inactive ones
            have weight 0.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        unroll: take exactly ``max_steps`` steps and differentiate through each of them; memory grows with the steps.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `GMMState`, labels (n,) int32, steps, status and history: the mean negative log-likelihood after
        each step, whose negative `lower_bounds` gives. Status COLLAPSED says that components lost their rows or their
        spread, and ``state.collapsed`` which; PRECISION that the rows of components are nearer to each other than
        float32 can tell, or that rounding lowered the bound.

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
    ).fit


class Framed(NamedTuple):
    """A fit, the frame in which its rows were compared, and its means with all digits, whatever is published."""

    fit: Fit
    frame: Frame
    means: np.ndarray | None


def fit_framed(
    key, x, k, options: em.EMOptions, *, weights, init, n_init, tol, max_steps, reg_covar, active=None, unroll=False
) -> Framed:
    """`fit` with its frame."""
    key = check.check_key(key)
    x, k = check.check_samples(x, k, options.axis_name)
    tol, reg_covar = check_limits(tol, max_steps, reg_covar)
    em.check_memory(options, k, x.shape[1], x.dtype)
    start = check_start(init, options.covariance_type, x.shape[0], k, x.shape[1])
    runs = check.check_count("n_init", n_init)
    active = check_active(active, k)
    steps = check.check_count("max_steps", max_steps) if unroll else None
    prepared = prepare(x, weights, missing=options.missing or None, axis_name=options.axis_name)
    points, ridge = prepared.points, ridge_in(prepared.frame, reg_covar)
    given = enter(start, prepared.frame, options.covariance_type, ridge, points.weight.shape[0], points.x.dtype)
    static = Static(k, start.method, 1 if given.complete else runs, options, history_capacity(max_steps), steps)
    found = solve(static, key, points, given, Limits(tol, max_steps, ridge.value, active))
    return finalize(options, found, x, prepared, ridge)


def lower_bounds(fitted: Fit) -> Float[Array | np.ndarray, "*batch capacity"]:
    """The mean log-likelihood of a row (nats) at each step of a fit; 0 after the last."""
    return -fitted.history


def em_options(covariance: str, precision: str | None, missing: bool, axis_name: str | None = None) -> em.EMOptions:
    """Checked `EMOptions`."""
    covariance_type_named(covariance)
    if not isinstance(missing, bool):
        raise TypeError(f"missing must be True or False, got {missing!r}.")
    return em.EMOptions(covariance, matrix_precision(precision), missing, axis_name=axis_name)


def check_limits(tol, max_steps, reg_covar) -> tuple:
    """``tol`` and ``reg_covar``, of one type whatever the caller wrote; raises on what are no positive numbers."""
    check.check_positive("max_steps", max_steps, zero=True)
    return check.check_positive("tol", tol, zero=True), check.check_positive("reg_covar", reg_covar, zero=True)


def check_active(active, k: int) -> Bool[Array, " k"] | None:
    """The mask of components as an array, or None."""
    return None if active is None else check.check_mask("active", active, k)


class Solved(NamedTuple):
    """A fit in the frame of its rows.

    Attributes:
        fit: its state is a `GMMState` in the frame.
        log_likelihood: () mean log-density of a row under that mixture (nats).
        cells: () mean number of observed cells of a row.
        distant: (n,) rows that are far from every component; see `compare.settle`.
    """

    fit: Fit
    log_likelihood: Float[Array, "*batch"]
    cells: int | Float[Array, "*batch"] | Int[Array, "*batch"]
    distant: Bool[Array, "*batch n"]


@partial(jax.jit, static_argnums=0)
def solve(static: Static, key: KeyArray, points: Points, start: Given, limits: Limits) -> Solved:
    """The fit of rows in a frame; limits are in its units."""
    if static.unrolled is not None:
        fitted = _run(static, points, start, limits, key)
    else:
        best = partial(_best_run, static)
        run = best if static.em.axis_name else in_groups(best)
        fitted = run(*jax.lax.stop_gradient((points, start, limits)), key)
    return _finish(static, fitted, points, limits)


def finalize(options: em.EMOptions, found: Solved, x: Any, prepared: Prepared, ridge: Ridge) -> Framed:
    """A fit in the caller's coordinates and units, its labels cut to the rows that are real."""
    fitted, frame, covariance_type = found.fit, prepared.frame, options.covariance_type
    labels, status, exact = prepared.trim(fitted.labels), fitted.status, None
    traced = check.is_traced(fitted, frame, ridge)
    if not traced:
        labels = _settled(options, found, x, prepared, labels)
        status, exact = resolve(fitted, x, prepared, covariance_type, labels)
    state = fitted.state if traced else fitted.state._replace(means=exact)
    public = state.leave(frame, covariance_type, ridge, found.cells)
    # Components that take no part have weight 0, and means of 0 wherever the origin is.
    if traced:
        public = public._replace(means=jnp.where((public.weights > 0)[..., None], public.means, 0))
    elif not (np.asarray(public.weights) > 0).all():
        kept = (np.asarray(public.weights) > 0)[..., None]
        public = public._replace(means=publish(np.where(kept, public.means, 0), frame.dtype))
    history = _history(fitted, found.cells, ridge, frame)
    fitted = fitted._replace(state=public, labels=labels, status=status, history=history)
    return Framed(fitted, frame, None if traced else wide_means(exact, frame))


def _settled(options, found, x, prepared, labels):
    """Labels (…, n), those that an E-step could not tell settled on the host."""
    distant, state = np.asarray(found.distant), found.fit.state
    for at in map(tuple, np.argwhere(distant.any(axis=-1))):
        covariances = state.covariances[at]
        covariances = covariances[0] if options.covariance_type.name == "tied" else covariances
        components = mixture_components(options, state.weights[at], state.means[at], covariances)
        means = np.asarray(state.means[at], np.float64)
        index, settled = settle(options, components, prepared, x, distant[at], means)
        if settled is not None:
            labels = replaced(labels, (*at, index), settled.labels)
    return labels


def _history(fitted, cells, ridge, frame):
    """The mean negative log-likelihood (data units) after each step; 0 after the last."""
    traced = check.is_traced(fitted, frame, ridge)
    if not traced and ridge.cell == 0:
        return frame.unscale(fitted.history)
    array = jnp if traced else np
    taken = array.arange(fitted.history.shape[-1], dtype=np.int32) < array.asarray(fitted.steps)[..., None]
    moved = shifted(fitted.history, array.asarray(cells)[..., None], -1 * ridge.cell, frame)
    return jnp.where(taken, moved, 0) if traced else publish(np.where(taken, moved, 0), frame.dtype)


def _best_run(static, points, start, limits, key):
    run = partial(_run, static, points, start, limits)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


class _Found(NamedTuple):
    """An `EMState`; the mean log-density of a row (nats) under the mixture it ends with, and rows far from it."""

    em: em.EMState
    log_likelihood: Float[Array, "*batch"]
    distant: Bool[Array, "*batch n"]

    @property
    def objective(self):
        return self.em.objective


def _run(static, points, start, limits, key):
    """One run from one start; its state is a `_Found`."""
    columns = em.as_columns(points)
    prior = _prior(static.em, points, limits.reg, limits.active)
    once = points._replace(weight=(points.weight > 0).astype(points.x.dtype))
    prior = prior._replace(variance=mean_square(static.em, points), scale=mean_square(static.em, once))
    options = static.em._replace(differentiable=static.unrolled is not None)
    mixture, collapsed = first_mixture(options, static.method, key, points, columns, start, prior, static.k)
    advance = partial(em.step, options, columns, prior)
    state = em.begin(mixture, collapsed, start.last_bound)
    if static.unrolled is not None:
        fitted = trace(advance, state, steps=static.unrolled)
        return _looked_at(options, fitted, columns, prior.total)

    # The steps end with a small change of the bound, which is that of the mixture before the last M-step. The E-step
    # that gives the labels gives the bound of the mixture itself. On a plateau it may be far above: the steps go on.
    def go_on(carry):
        before, _ = carry
        bounds = {"tol": limits.tol, "max_steps": limits.max_steps, "capacity": static.capacity}
        after = iterate(advance, before.state.em, after=before, **bounds)
        found = _looked_at(options, after, columns, prior.total)
        state = found.state.em
        change = jnp.abs(found.state.log_likelihood - state.lower_bound)
        moving = change > limits.tol + em.bound_slack(state.lower_bound)
        moving &= (found.status == Status.CONVERGED) & (state.fall == 0)
        state = state._replace(residual=jnp.where(moving, change, state.residual))
        return found._replace(state=found.state._replace(em=state)), moving

    labels = jnp.where(points.weight > 0, 0, 0).astype(jnp.int32)
    history = jnp.zeros((static.capacity,), points.x.dtype)
    none = Fit(_Found(state, state.lower_bound, labels > 0), labels, jnp.int32(0), jnp.int32(Status.MAX_STEPS), history)
    return jax.lax.while_loop(lambda carry: carry[1], go_on, (none, jnp.asarray(True)))[0]


def _looked_at(options, fitted, columns, total):
    """A fit with the labels of all rows and their mean log-density under its mixture."""
    mixture, columns, total = jax.lax.stop_gradient((fitted.state.mixture, columns, total))
    components = em.components_of(mixture)
    labels, log_p = em.label(options, components, columns.x)
    log_likelihood = columns.weight @ jnp.where(columns.weight > 0, log_p, 0)
    log_likelihood = across(log_likelihood, options.axis_name) / total
    return fitted._replace(
        state=_Found(fitted.state, log_likelihood, distant_rows(options, components, log_p)), labels=labels
    )


def _prior(options, points, reg, active):
    total = across(jnp.sum(points.weight), options.axis_name)
    return em.Prior(total, jnp.asarray(reg, points.x.dtype), active)


def _finish(static, fitted, points, limits):
    """Gradients and the status of a run, in its frame."""
    options, (state, log_likelihood, distant) = static.em, fitted.state
    mixture, bound = state.mixture, state.lower_bound
    if static.unrolled is None:
        inputs = (points, jnp.asarray(limits.reg, points.x.dtype), limits.active)
        parameters = at_fixed_point(partial(_em_map, options), _parameters(mixture), *inputs)
        bound = with_derivative_of(partial(_bound, options), bound, parameters, *inputs)
    else:
        parameters = _parameters(mixture)
    weights, means, covariances = parameters
    collapsed = state.collapsed
    if limits.active is not None:
        weights, means = jnp.where(limits.active, weights, 0), jnp.where(limits.active[:, None], means, 0)
        collapsed &= limits.active
    # Of no step the bound is not known, and that is no fault of the rows.
    known = jnp.where(fitted.steps > 0, bound, log_likelihood)
    status = em.with_precision(fitted.status, state.fall, known, limits.tol)
    status = status_with(status, objective=known, collapsed=jnp.any(collapsed))
    covariances = public_covariances(options.covariance_type, covariances)
    public = GMMState(weights, means, covariances, bound, collapsed, state.residual)
    return Solved(fitted._replace(state=public, status=status), log_likelihood, mean_cells(options, points), distant)


def mean_cells(options, points):
    """Mean number of observed cells of a row."""
    x, weight = jax.lax.stop_gradient(points)
    if not options.missing:
        return x.shape[1]
    observed = jnp.sum(~jnp.isnan(x), axis=1, dtype=x.dtype)
    observed, total = across((weight @ observed, jnp.sum(weight)), options.axis_name)
    return observed / total


def _parameters(mixture):
    return mixture.weights, mixture.means, mixture.covariances


def _em_map(options, parameters, points, reg, active):
    """One step as a function of parameters and data, which reverse mode can follow."""
    mixture = _rebuild(options, parameters)
    options = options._replace(differentiable=True)
    prior = _prior(options, points, reg, active)
    stats = em.em_stats(options, mixture, jax.lax.stop_gradient(mixture.means), em.as_columns(points))
    return _parameters(em.maximize(options, stats.moments, jax.lax.stop_gradient(mixture.means), mixture, prior)[0])


def _bound(options, parameters, points, reg, active):
    mixture = _rebuild(options, parameters)
    prior = _prior(options, points, reg, active)
    stats = em.em_stats(options, mixture, mixture.means, em.as_columns(points))
    return stats.log_likelihood / prior.total


def _rebuild(options, parameters):
    weights, means, covariances = parameters
    _, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    return Mixture(weights, means, covariances, factor)

"""Fitting a Gaussian mixture by EM."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.start import Given, check_start, first_mixture, in_frame, mean_square
from jaxcluster.cluster.gmm.state import GMMState, Mixture, family_named, public_covariances
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.implicit import at_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, iterate, status_with, trace
from jaxcluster.core.restart import best_of, in_groups, many
from jaxcluster.core.rows import place, trim
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.types import Array, Bool, Fit, Float, KeyArray, Points


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
    """Fits a mixture of k Gaussians by expectation–maximisation.

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
        tol: stop when the lower bound (nats per row) changes by no more. Traced.
        max_steps: the most steps taken. Traced, unless ``unroll``.
        reg_covar: added to every variance (data units²). Traced.
        missing: NaN cells of ``x`` are integrated out. Costs a d×d factorisation for each row.
        active: (k,) mask of the components that take part, for batches of problems with different k. Inactive ones
            have weight 0.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        unroll: take exactly ``max_steps`` steps and differentiate through each of them; memory grows with the steps.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `GMMState`, labels (n,) int32, steps, status and history: the mean negative log-likelihood after
        each step, whose negative `lower_bounds` gives. Status COLLAPSED says that components lost their rows or their
        spread; ``state.collapsed`` tells which.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    x = check.check_matrix(x)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    k = check.check_clusters(k, n)
    options = em_options(covariance, precision, missing, axis_name)
    tol, reg_covar = check_limits(tol, max_steps, reg_covar)
    start = check_start(init, options.family, x.shape[0], k, x.shape[1])
    runs = check.check_count("n_init", n_init)
    active = check_active(active, k)
    steps = check.check_count("max_steps", max_steps) if unroll else None
    placed = place(x, weights, missing=missing, axis_name=axis_name)
    given = in_frame(start, placed.origin, placed.points.weight.shape[0])
    static = Static(k, start.method, 1 if given.complete else runs, options, history_capacity(max_steps), steps)
    limits = Limits(tol, max_steps, reg_covar, active)
    fitted, _ = fit_placed(static, key, placed.points, placed.origin, given, limits)
    return fitted._replace(labels=trim(fitted.labels, placed.n))


def lower_bounds(fitted: Fit) -> Float[Array, "*batch capacity"]:
    """The mean log-likelihood of a row (nats) at each step of a fit; NaN after the last."""
    return -fitted.history


def em_options(covariance: str, precision: str | None, missing: bool, axis_name: str | None = None) -> em.EMOptions:
    """Checked `EMOptions`."""
    family_named(covariance)
    if not isinstance(missing, bool):
        raise TypeError(f"missing must be True or False, got {missing!r}.")
    return em.EMOptions(covariance, matrix_precision(precision), missing, axis_name=axis_name)


def check_limits(tol, max_steps, reg_covar) -> tuple:
    """``tol`` and ``reg_covar``, of one type whatever the caller wrote; raises on what are no positive numbers."""
    check.check_positive("max_steps", max_steps)
    return check.check_positive("tol", tol, zero=True), check.check_positive("reg_covar", reg_covar, zero=True)


def check_active(active, k: int) -> Bool[Array, " k"] | None:
    """The mask of components as an array, or None."""
    return None if active is None else check.check_mask("active", active, k)


@partial(jax.jit, static_argnums=0)
def fit_placed(
    static: Static, key: KeyArray, points: Points, origin: Array, start: Given, limits: Limits
) -> tuple[Fit, Float[Array, ""]]:
    """The fit on placed rows, its state in the caller's frame; and the log-likelihood of the rows under it."""
    if static.unrolled is not None:
        fitted = _run(static, points, start, limits, key)
    else:
        best = partial(_best_run, static)
        run = best if static.em.axis_name else in_groups(best)
        fitted = run(*jax.lax.stop_gradient((points, start, limits)), key)
    return _finish(static, fitted, points, origin, limits)


def _best_run(static, points, start, limits, key):
    run = partial(_run, static, points, start, limits)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


def _run(static, points, start, limits, key):
    """One run from one start; its state is an `EMState`."""
    columns = em.as_columns(points)
    prior = _prior(static.em, points, limits.reg, limits.active)
    prior = prior._replace(variance=mean_square(static.em, points, prior.total))
    options = static.em._replace(differentiable=static.unrolled is not None)
    mixture, collapsed = first_mixture(options, static.method, key, points, columns, start, prior, static.k)
    advance = partial(em.step, options, columns, prior)
    state = em.begin(mixture, collapsed)
    if static.unrolled is not None:
        return trace(advance, state, steps=static.unrolled)
    return iterate(advance, state, tol=limits.tol, max_steps=limits.max_steps, capacity=static.capacity)


def _prior(options, points, reg, active):
    total = across(jnp.sum(points.weight), options.axis_name)
    return em.Prior(total, jnp.asarray(reg, points.x.dtype), active)


def _finish(static, fitted, points, origin, limits):
    """From the frame of the iteration to the caller's: labels, gradients, status."""
    options, state = static.em, fitted.state
    family = options.family
    columns = em.as_columns(points)
    mixture, bound = state.mixture, state.lower_bound
    if static.unrolled is None:
        inputs = (points, jnp.asarray(limits.reg, points.x.dtype), limits.active)
        parameters = at_fixed_point(partial(_em_map, options), _parameters(mixture), *inputs)
        bound = with_derivative_of(partial(_bound, options), bound, parameters, *inputs)
    else:
        parameters = _parameters(mixture)
    labels, log_p = em.label(options, jax.lax.stop_gradient(mixture), jax.lax.stop_gradient(columns.x))
    log_likelihood = jnp.sum(jnp.where(points.weight > 0, points.weight * log_p, 0))
    log_likelihood = across(log_likelihood, options.axis_name)
    weights, means, covariances = parameters
    collapsed = state.collapsed
    means = means + origin
    if limits.active is not None:
        weights, means = jnp.where(limits.active, weights, 0), jnp.where(limits.active[:, None], means, 0)
        collapsed &= limits.active
    status = status_with(fitted.status, objective=bound, collapsed=jnp.any(collapsed))
    public = GMMState(weights, means, public_covariances(family, covariances), bound, collapsed, state.residual)
    return Fit(public, labels, fitted.steps, status, fitted.history), log_likelihood


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
    _, factor, _ = options.family.factor(covariances, means.shape[1])
    return Mixture(weights, means, covariances, factor)

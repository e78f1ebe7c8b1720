"""Fitting a Gaussian mixture by variational inference."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.bayesian_gmm import prior as priors
from jaxcluster.cluster.bayesian_gmm.density import posterior_components
from jaxcluster.cluster.bayesian_gmm.posterior import Model, Posterior
from jaxcluster.cluster.bayesian_gmm.state import (
    BayesianGMMState,
    bound_shift,
    frame_state,
    plug_in,
    plus,
    posterior_of,
    with_factor,
)
from jaxcluster.cluster.bayesian_gmm.step import begin, components_of, fit_moments, step
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import distant_rows, replaced, settle
from jaxcluster.cluster.gmm.fit import Framed, check_limits, em_options
from jaxcluster.cluster.gmm.resolve import resolve
from jaxcluster.cluster.gmm.start import Given, Start, check_start, enter, membership, one_hot_membership
from jaxcluster.cluster.gmm.state import covariance_type_of, ridge_in, wide_means
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import Frame, prepare, publish, times_power_of_two
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import best_of, in_groups, many
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, KeyArray

PRIOR_TYPES = ("dirichlet_process", "dirichlet_distribution")
"""Priors of the weights of the components."""


class Static(NamedTuple):
    """Options that change the program."""

    model: Model
    k: int
    method: str
    runs: int
    capacity: int


class Limits(NamedTuple):
    """Traced options."""

    tol: float | Float[Array, ""]
    max_steps: int | Array
    reg: float | Float[Array, ""]


class Opening(NamedTuple):
    """The start of a fit: the arrays of a start, or the posterior of another fit; in the frame."""

    given: Given
    posterior: Posterior | None = None


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
    weight_concentration_prior_type: str = "dirichlet_process",
    weight_concentration_prior=None,
    mean_precision_prior=None,
    mean_prior=None,
    degrees_of_freedom_prior=None,
    covariance_prior=None,
    precision: str | None = None,
    axis_name: str | None = None,
) -> Fit:
    """Fits the posterior of a mixture of at most k Gaussians by variational inference.

    Components that the rows do not need end with next to no weight, more of them the smaller
    ``weight_concentration_prior`` is. A pure function: it works under jit, vmap and shard_map and inside other
    functions. It has no gradient; asking for one fails.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of components, static, 1 <= k <= n.
        covariance: "full", "tied" (one matrix for all), "diag" or "spherical". Static.
        weights: (n,) non-negative row weights; a weight of 2 is the row twice. None for 1 each.
        init: "kmeans", "k-means++", "random_from_data", "random", (k, d) means whose nearest rows are taken, a
            ``gmm.Start`` with ``responsibilities``, or the `BayesianGMMState` of another fit to go on from.
        n_init: runs from different starts, of which the highest lower bound wins.
        tol: stop when the lower bound (nats, of all rows) changes by no more, or by no more than its rounding. Traced.
        max_steps: the most steps taken. Traced.
        reg_covar: added to every variance (data units²). Traced.
        weight_concentration_prior_type: "dirichlet_process" or "dirichlet_distribution". Static.
        weight_concentration_prior: of the shares; None for 1/k. Traced, as all that follow.
        mean_precision_prior: how many rows the prior of a mean weighs as much as; None for 1.
        mean_prior: (d,) prior of the means; None for the mean of the rows.
        degrees_of_freedom_prior: of the Wishart prior, > d − 1; None for d.
        covariance_prior: (d, d) full or tied, (d,) diagonal, () spherical; None for the rows' covariance.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `BayesianGMMState`, labels (n,) int32, steps, status and history: the negative lower bound after
        each step. Status COLLAPSED says that the covariance of components is singular; ``state.collapsed`` tells which.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = em_options(covariance, precision, False, axis_name)
    priors_given = priors.Given(
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
        given=priors_given,
    ).fit


def fit_framed(
    key, x, k, options: em.EMOptions, *, weights, init, n_init, tol, max_steps, reg_covar, prior_type, given
) -> Framed:
    """`fit` with its frame."""
    key = check.check_key(key)
    x, k = check.check_samples(x, k, options.axis_name)
    check.check_choice("weight_concentration_prior_type", prior_type, PRIOR_TYPES)
    model, covariance_type = Model(options, prior_type == "dirichlet_process"), options.covariance_type
    tol, reg_covar = check_limits(tol, max_steps, reg_covar)
    em.check_memory(options, k, x.shape[1], x.dtype)
    given = priors.check_given(given, covariance_type, x.shape[1])
    runs = check.check_count("n_init", n_init)
    start, state = _check_init(init, model, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, axis_name=options.axis_name)
    points, frame = prepared.points, prepared.frame
    ridge = ridge_in(frame, reg_covar)
    opening = Opening(
        enter(start, frame, covariance_type, ridge, points.weight.shape[0], points.x.dtype),
        None if state is None else posterior_of(state, frame, points.x.dtype, options.covariance)[1],
    )
    static = Static(model, k, start.method, 1 if _is_certain(opening) else runs, history_capacity(max_steps))
    limits = Limits(tol, max_steps, ridge.value)
    prior = priors.enter(given, frame, points.x.dtype)
    fitted, distant = _solve(static, key, points, frame.weight_exponent, opening, prior, limits)
    public = _finalize(options, fitted, distant, x, prepared, ridge)
    means = None if check.is_traced(fitted, frame) else wide_means(fitted.state.means, frame)
    return Framed(public, frame, means)


def _finalize(options, fitted, distant, x, prepared, ridge):
    """A fit in the caller's coordinates and units, its labels cut to the rows that are real."""
    frame, covariance_type = prepared.frame, options.covariance_type
    labels = prepared.trim(fitted.labels)
    traced = check.is_traced(fitted, frame, ridge)
    if not traced and np.any(distant):
        origin = Frame(np.zeros(x.shape[1], np.float32))
        _, posterior = posterior_of(fitted.state, origin, prepared.points.x.dtype, covariance_type.name)
        components, means = posterior_components(covariance_type, posterior), np.asarray(fitted.state.means, np.float64)
        index, settled = settle(options, components, prepared, x, distant, means)
        labels = labels if settled is None else replaced(labels, index, settled.labels)
    status = fitted.status if traced else resolve(fitted, x, prepared, covariance_type, labels)[0]
    k, d = fitted.state.means.shape
    degrees = fitted.state.degrees_of_freedom
    total = degrees[0] * k if covariance_type.name == "tied" else degrees.sum()
    shift = bound_shift(frame, total, d)
    taken = jnp.arange(fitted.history.shape[0], dtype=jnp.int32) < fitted.steps
    history = plus(fitted.history, -1 * shift, frame)
    history = jnp.where(taken, history, 0) if traced else publish(np.where(taken, history, 0), frame.dtype)
    public = fitted.state.leave(frame, covariance_type, ridge, shift)
    return fitted._replace(state=public, labels=labels, status=status, history=history)


def _check_init(init, model, n, k, d):
    """A start by a method, by means or by responsibilities; or the state to go on from."""
    if isinstance(init, BayesianGMMState):
        _check_state(init, model, k, d)
        return Start(), init
    start = check_start(init, model.em.covariance_type, n, k, d)
    for name in ("weights", "precisions", "state"):
        if getattr(start, name) is not None:
            raise ValueError(f"init must not hold {name}: they follow from the rows and the priors. Pass the others.")
    return start, None


def _check_state(state, model, k, d):
    covariance_type, _ = covariance_type_of(plug_in(state))
    process = state.weight_concentration.ndim == 2
    names = {covariance_type.name, model.em.covariance}
    same_type = len(names) == 1 or (k == 1 and names == {"full", "tied"})
    if state.means.shape != (k, d) or not same_type or process != model.process:
        raise ValueError(
            f"init is a state with means of shape {state.means.shape}, {covariance_type.name} covariances and a "
            f"{PRIOR_TYPES[not process]} prior, but {(k, d)}, {model.em.covariance!r} and "
            f"{PRIOR_TYPES[not model.process]!r} are asked for."
        )


def _is_certain(opening):
    """Whether chance has no part in the start."""
    given = opening.given
    return opening.posterior is not None or given.means is not None or given.responsibilities is not None


@partial(jax.jit, static_argnums=0)
def _solve(static, key, points, weight_exponent, opening, given, limits):
    """The fit in the frame of its rows, its state a `BayesianGMMState`."""
    options, dtype = static.model.em, points.x.dtype
    # Weights are counts here, beside which the priors count: their unit is taken off again.
    row = times_power_of_two(jnp.ones((), dtype), weight_exponent)
    prior = priors.complete(options, given, points, static.k, jnp.asarray(limits.reg).astype(dtype), row)
    points = points._replace(weight=times_power_of_two(points.weight, -weight_exponent))
    best = partial(_best_run, static)
    run = best if options.axis_name else in_groups(best)
    fitted = run(points, opening, prior, limits, key)
    state = fitted.state
    components = components_of(state.posterior)
    labels, log_p = em.label(options, components, points.x.T)
    known = jnp.where(fitted.steps > 0, state.lower_bound, 0)
    status = em.with_precision(fitted.status, state.fall, known, limits.tol)
    status = status_with(status, objective=known, collapsed=jnp.any(state.collapsed))
    public = frame_state(options.covariance_type, state.posterior, prior, *state[1:4])
    return fitted._replace(state=public, labels=labels, status=status), distant_rows(options, components, log_p)


def _best_run(static, points, opening, prior, limits, key):
    run = partial(_run, static, points, opening, prior, limits)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


def _run(static, points, opening, prior, limits, key):
    """One run from one start; its state is a `VBState`."""
    columns = em.as_columns(points)
    if opening.posterior is None:
        posterior, collapsed = _first_posterior(static, key, points, columns, opening.given, prior)
    else:
        posterior = with_factor(static.model.em.covariance_type, opening.posterior)
        collapsed = jnp.zeros((static.k,), bool)
    advance = partial(step, static.model, columns, prior)
    state = begin(posterior, collapsed)
    return iterate(advance, state, tol=limits.tol, max_steps=limits.max_steps, capacity=static.capacity)


def _first_posterior(static, key, points, columns, given, prior):
    """The posterior of a start; of no rows, where their moments are beyond the dtype."""
    model, k = static.model, static.k
    if given.means is not None:
        centers, members = given.means, one_hot_membership(nearest(points.x, given.means)[0], k)
    else:
        total = across(jnp.sum(points.weight), model.em.axis_name)
        centers, members = membership(model.em, static.method, key, points, given, em.Prior(total, prior.reg), k)

    def moments_about(reference):
        moments, besides = em.given_stats(model.em, None, reference, columns, members)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in moments]))
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), moments), besides

    found, _ = fit_moments(model, moments_about, jnp.where(jnp.isfinite(centers), centers, 0), prior)
    return found.posterior, found.collapsed

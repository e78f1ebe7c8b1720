"""Fitting a Gaussian mixture by variational inference."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.bayesian_gmm import prior as priors
from jaxcluster.cluster.bayesian_gmm.density import label, per_row
from jaxcluster.cluster.bayesian_gmm.posterior import Model
from jaxcluster.cluster.bayesian_gmm.state import BayesianGMMState, plug_in, posterior_of, public_state
from jaxcluster.cluster.bayesian_gmm.step import begin, fit_moments, step
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.fit import check_limits, em_options
from jaxcluster.cluster.gmm.start import Given, Start, check_start, in_frame, membership
from jaxcluster.cluster.gmm.state import Mixture, family_of
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import best_of, in_groups, many
from jaxcluster.core.rows import place, trim
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, KeyArray

PRIOR_TYPES = ("dirichlet_process", "dirichlet_distribution")
"""What the prior of the shares can be."""


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
    """Where a fit starts: from the arrays of a start, or from the state of another fit."""

    given: Given
    state: BayesianGMMState | None = None


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
    x = check.check_matrix(x)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    k = check.check_clusters(k, n)
    options = em_options(covariance, precision, False, axis_name)
    check.check_choice("weight_concentration_prior_type", weight_concentration_prior_type, PRIOR_TYPES)
    model = Model(options, weight_concentration_prior_type == "dirichlet_process")
    tol, reg_covar = check_limits(tol, max_steps, reg_covar)
    given = priors.Given(
        weight_concentration_prior, mean_precision_prior, mean_prior, degrees_of_freedom_prior, covariance_prior
    )
    given = priors.check_given(given, options.family, x.shape[1])
    runs = check.check_count("n_init", n_init)
    start, state = _check_init(init, model, x.shape[0], k, x.shape[1])
    placed = place(x, weights, axis_name=axis_name)
    opening = Opening(in_frame(start, placed.origin, placed.points.weight.shape[0]), state)
    static = Static(model, k, start.method, 1 if _is_certain(opening) else runs, history_capacity(max_steps))
    limits = Limits(tol, max_steps, reg_covar)
    prior = priors.in_frame(given, placed.origin)
    fitted = _fit(static, key, placed.points, placed.origin, opening, prior, limits)
    return fitted._replace(labels=trim(fitted.labels, placed.n))


def _check_init(init, model, n, k, d):
    """A start by a method, by means or by responsibilities; or the state to go on from."""
    if isinstance(init, BayesianGMMState):
        _check_state(init, model, k, d)
        return Start(), init
    start = check_start(init, model.em.family, n, k, d)
    for name in ("weights", "precisions"):
        if getattr(start, name) is not None:
            raise ValueError(f"init must not hold {name}: they follow from the rows and the priors. Pass the others.")
    return start, None


def _check_state(state, model, k, d):
    family, _ = family_of(plug_in(state))
    process = state.weight_concentration.ndim == 2
    names = {family.name, model.em.covariance}
    same_type = len(names) == 1 or (k == 1 and names == {"full", "tied"})
    if state.means.shape != (k, d) or not same_type or process != model.process:
        raise ValueError(
            f"init is a state with means of shape {state.means.shape}, {family.name} covariances and a "
            f"{PRIOR_TYPES[not process]} prior, but {(k, d)}, {model.em.covariance!r} and "
            f"{PRIOR_TYPES[not model.process]!r} are asked for."
        )


def _is_certain(opening):
    """Whether chance has no part in the start."""
    given = opening.given
    return opening.state is not None or given.means is not None or given.responsibilities is not None


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, origin, opening, given, limits):
    options = static.model.em
    prior = priors.complete(options, given, points, static.k, jnp.asarray(limits.reg, points.x.dtype))
    best = partial(_best_run, static)
    run = best if options.axis_name else in_groups(best)
    fitted = run(points, origin, opening, prior, limits, key)
    state = fitted.state
    labels, _ = per_row(static.model, state.posterior, label, points.x.T)
    status = status_with(fitted.status, objective=state.lower_bound, collapsed=jnp.any(state.collapsed))
    public = public_state(options.family, state.posterior, prior, origin, *state[1:])
    return fitted._replace(state=public, labels=labels, status=status)


def _best_run(static, points, origin, opening, prior, limits, key):
    run = partial(_run, static, points, origin, opening, prior, limits)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


def _run(static, points, origin, opening, prior, limits, key):
    """One run from one start; its state is a `VBState`."""
    columns = em.as_columns(points)
    if opening.state is None:
        posterior, collapsed = _first_posterior(static, key, points, columns, opening.given, prior)
    else:
        posterior = posterior_of(opening.state, origin, static.model.em.covariance)[1]
        collapsed = jnp.zeros((static.k,), bool)
    advance = partial(step, static.model, columns, prior)
    state = begin(posterior, collapsed)
    return iterate(advance, state, tol=limits.tol, max_steps=limits.max_steps, capacity=static.capacity)


def _first_posterior(static, key, points, columns, given, prior):
    """The posterior of a start; of no rows, where their moments are beyond the dtype."""
    model, k = static.model, static.k
    if given.means is not None:
        centers, r = given.means, nearest(points.x, given.means)[0]
    else:
        total = across(jnp.sum(points.weight), model.em.axis_name)
        centers, r = membership(model.em, static.method, key, points, given, em.Prior(total, prior.reg), k)
    narrow = _narrow(model.em.family, centers)

    def moments_about(reference):
        moments, besides = em.given_stats(model.em, narrow, reference, columns, r)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in moments]))
        return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), moments), besides

    found, _ = fit_moments(model, moments_about, jnp.where(jnp.isfinite(centers), centers, 0), prior)
    return found.posterior, found.collapsed


def _narrow(family, centers):
    """A mixture whose components are so narrow that moments about them are taken by differences, never by products."""
    k, d = centers.shape
    variance = jnp.asarray(jnp.finfo(centers.dtype).eps ** 2, centers.dtype)
    covariances, factor, _ = family.factor(family.isotropic(variance, k, d).astype(centers.dtype), d)
    return Mixture(jnp.full((k,), 1 / k, centers.dtype), centers, covariances, factor)

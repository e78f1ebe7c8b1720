"""Stepwise EM: mixtures of streams, and of sets too large to be read again and again, by small batches.

A batch's statistics are those of one E-step. They are mixed into the running ones by a step size that falls with the
number of batches, and the mixture is the M-step of what results. The running statistics are the mixture itself, as
shares, means and covariances; two weighted sets of these add up to one whose scatter holds the scatter of the means,
so nothing cancels.

Sources: O. Cappé and E. Moulines, On-line expectation–maximization algorithm for latent data models, J. R. Stat. Soc. B
71 (2009); P. Liang and D. Klein, Online EM for unsupervised models, NAACL 2009, for the step size.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import distant_rows
from jaxcluster.cluster.gmm.fit import Framed, Solved, em_options, finalize, mean_cells
from jaxcluster.cluster.gmm.start import check_start, enter, first_mixture
from jaxcluster.cluster.gmm.state import (
    GMMState,
    Mixture,
    below_largest_variance,
    covariance_type_of,
    frame_of_mixture,
    parts_in_frame,
    public_covariances,
    published_shares,
    ridge_in,
    volume,
    wide_means,
)
from jaxcluster.cluster.minibatch import count_rows, draw_batch, loop_residual, update_ema
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import Frame, bucket, float_dtype, prepare, publish, times_power_of_two
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import CovarianceType, Moments
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Published

SCATTER = {"full": "ki,kj->kij", "tied": "ki,kj->ij", "diag": "ki,ki->ki", "spherical": "ki,ki->k"}
"""How (k, d) vectors times (k, d) vectors become second moments of each type."""


class StepwiseState(NamedTuple):
    """A mixture that batches keep changing, in a frame: small steps of means far from 0 would be lost to rounding.

    Attributes:
        weights: (k,) of each component, summing to 1.
        frame_means: (k, d) in ``frame``.
        frame_covariances: in ``frame``, shaped as in `GMMState`, ``frame_reg`` included.
        frame_reg: () variance in ``frame`` that the last step added to every variance.
        frame: of the first batch.
        steps: () int32, batches after the first.
        lower_bound: () mean log-likelihood of a row (nats) of the last batch, before it changed the mixture; -inf
            before the second batch.
        collapsed: (k,) components that lost their rows or their spread and were kept finite.
    """

    weights: Float[Array, "*batch k"]
    frame_means: Float[Array, "*batch k d"]
    frame_covariances: Float[Array, ...]
    frame_reg: Float[Array, "*batch"]
    frame: Frame
    steps: Int[Array, "*batch"]
    lower_bound: Float[Array, "*batch"]
    collapsed: Bool[Array, "*batch k"]

    @property
    def means(self) -> Float[Published, "*batch k d"]:
        """(k, d) component means."""
        if check.is_traced(self):
            return self.frame.leave(self.frame_means)
        return publish(self.wide_means(), self.frame.dtype)

    @property
    def covariances(self) -> Float[Published, ...]:
        """Covariances (data units²) as in `GMMState`."""
        if check.is_traced(self):
            return self.frame.unscale(self.frame_covariances, length=2)
        return publish(self._unscaled(self.frame_covariances, 2), self.frame.dtype)

    @property
    def reg(self) -> Float[Published, "*batch"]:
        """() what the last step added to every variance (data units²)."""
        if check.is_traced(self):
            return self.frame.unscale(self.frame_reg, length=2)
        return publish(self._unscaled(self.frame_reg, 2), self.frame.dtype)

    def wide_means(self) -> np.ndarray:
        """Concrete component means with all digits, whatever is published."""
        return wide_means(self.frame_means, self.frame)

    def mixture(self) -> GMMState:
        """The mixture for `predict`, `score` and the like. Its residual is infinite: batches show no convergence."""
        infinite = jnp.full_like(self.lower_bound, jnp.inf)
        weights = self.weights if check.is_traced(self) else published_shares(self.weights, self.frame)
        return GMMState(weights, self.means, self.covariances, self.lower_bound, self.collapsed, infinite)

    def _unscaled(self, value, length):
        """``value`` in units of length^length out of the frames, which have the batch's axes, in float64."""
        exponent = np.asarray(self.frame.exponent)
        exponent = exponent.reshape(exponent.shape + (1,) * (np.ndim(value) - exponent.ndim))
        return np.asarray(np.ldexp(np.asarray(value, np.float64), -length * exponent))


class Running(NamedTuple):
    """A mixture in a frame, with the factors that densities need, between two batches."""

    mixture: Mixture
    reg: Float[Array, ""]
    steps: Int[Array, ""]
    lower_bound: Float[Array, ""]
    collapsed: Bool[Array, " k"]


class _Static(NamedTuple):
    """Options that change the program."""

    k: int
    method: str
    em: em.EMOptions
    batch_size: int
    init_size: int
    capacity: int


def start(
    key: KeyArray,
    x,
    k: int,
    *,
    covariance: str = "full",
    weights=None,
    init="kmeans",
    reg_covar=1e-6,
    missing: bool = False,
) -> StepwiseState:
    """The mixture that a stream starts from, found on its first batch.

    Args:
        key: random key for the start.
        x: (n, d) rows, enough of them to tell k components apart.
        k, covariance, weights, init, reg_covar, missing: as in ``gmm.fit``.

    Raises:
        ValueError, TypeError: as ``gmm.fit``.
    """
    key = check.check_key(key)
    x, k = check.check_samples(x, k)
    options = em_options(covariance, None, missing)
    reg_covar = check.check_positive("reg_covar", reg_covar, zero=True)
    chosen = check_start(init, options.covariance_type, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, missing=missing or None)
    frame = below_largest_variance(prepared.frame, reg_covar)
    if frame is not prepared.frame:
        prepared = prepare(x, weights, missing=missing or None, frame=frame)
    points, ridge = prepared.points, ridge_in(prepared.frame, reg_covar)
    given = enter(chosen, prepared.frame, options.covariance_type, ridge, points.weight.shape[0], points.x.dtype)
    static = _Static(k, chosen.method, options, 0, 0, 0)
    return _public(options, _start(static, key, points, given, ridge.value), prepared.frame)


def partial_fit(
    state: StepwiseState, x, *, weights=None, decay=0.7, reg_covar=1e-6, missing: bool = False
) -> StepwiseState:
    """The state after one more batch. A batch whose bound is not finite, or that weighs nothing, changes no parameter.

    Args:
        state: from `start` or an earlier call.
        x: (n, d) rows, any number of them.
        weights: (n,) non-negative, or None. Batches count alike, whatever their rows weigh together.
        decay: in (0.5, 1]: the t-th batch, from 0, is mixed in with step size (t + 2)^-decay. Traced.
        reg_covar, missing: as in ``gmm.fit``.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.frame_means.shape[1])
    check_decay(decay)
    reg_covar = check.check_positive("reg_covar", reg_covar, zero=True)
    covariance_type, _ = covariance_type_of(state.mixture())
    options = em_options(covariance_type.name, None, missing)
    prepared = prepare(x, weights, missing=missing or None, frame=below_largest_variance(state.frame, reg_covar))
    state, points = _in_frame(state, prepared.frame), prepared.points
    ridge = ridge_in(prepared.frame, reg_covar)
    inside = state.weights, state.frame_means, state.frame_covariances, state.frame_reg
    rest = state.steps, state.lower_bound, state.collapsed
    running, cells = _partial_fit(options, inside, rest, points, decay, ridge.value)
    after = _public(options, running, state.frame)
    shift = volume(state.frame, points.x.dtype)
    if not check.is_traced(shift) and shift == 0:
        return after
    # The bound of a batch that has none is that before it, which is in data units already.
    moved = running.lower_bound + cells.astype(points.x.dtype) * shift
    return after._replace(lower_bound=jnp.where(jnp.sum(points.weight) > 0, moved, running.lower_bound))


def stream_of(state: GMMState, *, steps: int = 0, reg_covar=1e-6, frame: Frame | None = None) -> StepwiseState:
    """A fitted mixture as a stream that `partial_fit` goes on with.

    Args:
        state: from ``gmm.fit``.
        steps: how many batches its rows should count for: the more, the less the next batch changes.
        reg_covar: added by the fit to every variance (data units²).
        frame: of the fit; None for one about the means.
    """
    reg_covar = check.check_positive("reg_covar", reg_covar, zero=True)
    frame = below_largest_variance(frame_of_mixture(state, frame), reg_covar)
    dtype = float_dtype(frame.dtype)
    covariance_type, weights, means, covariances = parts_in_frame(state, frame, dtype)
    reg = jnp.asarray(ridge_in(frame, reg_covar).value, dtype)
    bound, collapsed = jnp.asarray(state.lower_bound).astype(dtype), jnp.asarray(state.collapsed)
    covariances = public_covariances(covariance_type, covariances)
    return StepwiseState(weights, means, covariances, reg, frame, jnp.int32(steps), bound, collapsed)


def minibatch_fit(
    key: KeyArray,
    x,
    k: int,
    *,
    covariance: str = "full",
    weights=None,
    batch_size: int = 1024,
    init="kmeans",
    init_size: int | None = None,
    max_epochs=20,
    tol=1e-3,
    max_no_improvement=10,
    decay=0.7,
    reg_covar=1e-6,
    missing: bool = False,
    precision: str | None = None,
    axis_name: str | None = None,
) -> Fit:
    """Fits a mixture by small batches drawn with replacement; needs a few passes where EM needs many.

    Args:
        key: random key for the start and the batches.
        x, k, covariance, weights, init, reg_covar, missing, precision, axis_name: as in ``gmm.fit``.
        batch_size: rows a batch, static.
        init_size: rows that the start is found on; None for three batches, at least 3k. A start by responsibilities
            takes all rows.
        max_epochs: the most batches taken, in passes over the rows. Traced.
        tol: how far (nats per row) the smoothed bound has to rise to count as better. Traced.
        max_no_improvement: stop after so many batches without a better smoothed bound; None switches this off. Traced.
        decay: as in `partial_fit`.

    Returns:
        `Fit` with a `GMMState`, labels of all rows, steps (batches), status, and history: the smoothed mean negative
        log-likelihood of a row after each batch. The state's lower bound is that of all rows under the mixture itself,
        its residual the last change of the smoothed one.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = em_options(covariance, precision, missing, axis_name)
    return minibatch_fit_framed(
        key,
        x,
        k,
        options,
        weights=weights,
        batch_size=batch_size,
        init=init,
        init_size=init_size,
        max_epochs=max_epochs,
        tol=tol,
        max_no_improvement=max_no_improvement,
        decay=decay,
        reg_covar=reg_covar,
    ).fit


def minibatch_fit_framed(
    key,
    x,
    k,
    options: em.EMOptions,
    *,
    weights,
    batch_size,
    init,
    init_size,
    max_epochs,
    tol,
    max_no_improvement,
    decay,
    reg_covar,
) -> Framed:
    """`minibatch_fit` with its frame."""
    key = check.check_key(key)
    axis_name, missing = options.axis_name, options.missing
    x, k = check.check_samples(x, k, axis_name)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    batch_size = check.check_count("batch_size", batch_size)
    init_size = max(3 * batch_size, 3 * k) if init_size is None else init_size
    init_size = min(max(k, check.check_count("init_size", init_size)), n if axis_name else bucket(n))
    check_decay(decay)
    check.check_positive("max_epochs", max_epochs)
    patience = jnp.inf if max_no_improvement is None else max_no_improvement
    for name, value in (("tol", tol), ("max_no_improvement", patience)):
        check.check_positive(name, value, zero=True)
    reg_covar = check.check_positive("reg_covar", reg_covar, zero=True)
    chosen = check_start(init, options.covariance_type, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, missing=missing or None, axis_name=axis_name)
    points, ridge = prepared.points, ridge_in(prepared.frame, reg_covar)
    given = enter(chosen, prepared.frame, options.covariance_type, ridge, points.weight.shape[0], points.x.dtype)
    most = max_epochs if check.is_traced(max_epochs) else max(1, max_epochs * bucket(n) // batch_size)
    static = _Static(k, chosen.method, options, batch_size, init_size, history_capacity(most))
    limits = (tol, max_epochs, jnp.asarray(patience, jnp.float32), decay, ridge.value)
    found = _minibatch_fit(static, key, points, given, limits)
    return finalize(options, found, x, prepared, ridge)


def check_decay(decay) -> None:
    """Raises ValueError unless a concrete ``decay`` lies in (0.5, 1], where stepwise EM converges."""
    check.check_positive("decay", decay)
    if not check.is_traced(decay) and not 0.5 < decay <= 1:
        raise ValueError(f"decay={decay} must be greater than 0.5 and at most 1, for the steps to settle.")


def step_size(steps: Int[Array, ""], decay, dtype) -> Float[Array, ""]:
    """(t + 2)^-decay of the t-th batch, counted from 0."""
    return (steps + 2).astype(dtype) ** -jnp.asarray(decay).astype(dtype)


def step(options: em.EMOptions, state: Running, columns: em.Columns, rate, reg) -> Running:
    """One batch, its statistics mixed into the running ones with the weight ``rate``; 1 makes it a step of EM."""
    covariance_type, before = options.covariance_type, state.mixture
    total = jnp.sum(columns.weight)
    raw = before.covariances - covariance_type.isotropic(state.reg, *before.means.shape).astype(before.means.dtype)

    def mixed(reference):
        batch = em.em_stats(options, before, reference, columns)
        past = moments_of(covariance_type, total * before.weights, before.means - reference, raw)
        moments = jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, past, batch.moments)
        return batch._replace(moments=moments)

    mixture, collapsed, log_likelihood = em.fit_moments(options, mixed, before.means, before, em.Prior(total, reg))
    bound = jnp.where(total > 0, log_likelihood / jnp.where(total > 0, total, 1), state.lower_bound)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in (log_likelihood, *jax.tree.leaves(mixture))]
    sound = (total > 0) & jnp.all(jnp.stack(finite))
    after = Running(mixture, reg, state.steps + 1, bound, collapsed)
    kept = state._replace(steps=after.steps, lower_bound=bound)
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, kept)


def moments_of(
    covariance_type: CovarianceType, weight: Float[Array, " k"], offset: Float[Array, "k d"], covariances: Array
) -> Moments:
    """Moments, about a reference, of weighted components whose means lie ``offset`` from it."""
    first = weight[:, None] * offset
    if covariance_type.name == "tied":
        within = jnp.sum(weight) * covariances
    elif covariance_type.name == "spherical":
        within = weight * covariances * offset.shape[1]
    else:
        within = weight.reshape(-1, *(1,) * (covariances.ndim - 1)) * covariances
    return Moments(weight, first, within + jnp.einsum(SCATTER[covariance_type.name], first, offset, precision=HIGHEST))


@partial(jax.jit, static_argnums=0)
def _start(static, key, points, given, reg):
    return _begin(static, key, points, given, reg)


def _in_frame(state, frame):
    """A stream in another frame of the same origin."""
    if check.is_traced(state, frame):
        return state
    exponent = int(frame.exponent) - int(state.frame.exponent)
    if exponent == 0:
        return state
    return state._replace(
        frame_means=times_power_of_two(state.frame_means, exponent),
        frame_covariances=times_power_of_two(state.frame_covariances, 2 * exponent),
        frame_reg=times_power_of_two(state.frame_reg, 2 * exponent),
        frame=frame,
    )


@partial(jax.jit, static_argnums=0)
def _partial_fit(options, inside, rest, points, decay, reg):
    dtype = points.x.dtype
    weights, means, covariances, old_reg = (leaf.astype(dtype) for leaf in inside)
    steps, bound, collapsed = rest
    covariances = covariances[0] if options.covariance_type.name == "tied" else covariances
    covariances, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    running = Running(Mixture(weights, means, covariances, factor), old_reg, steps, bound.astype(dtype), collapsed)
    rate = step_size(steps, decay, dtype)
    running = step(options, running, em.as_columns(points), rate, jnp.asarray(reg).astype(dtype))
    cells = mean_cells(options, points._replace(weight=jnp.where(jnp.sum(points.weight) > 0, points.weight, 1)))
    return running, jnp.asarray(cells)


@partial(jax.jit, static_argnums=0)
def _minibatch_fit(static, key, points, given, limits):
    tol, max_epochs, patience, decay, reg = limits
    options, dtype = static.em._replace(axis_name=None), points.x.dtype
    n = count_rows(points.weight, static.em.axis_name)
    max_steps = jnp.maximum(1, jnp.floor(max_epochs * (n / static.batch_size)).astype(jnp.int32))
    alpha = jnp.minimum(2 * static.batch_size / (n + 1), 1).astype(dtype)
    start_key, batch_key = jax.random.split(key)

    def advance(search):
        running = search.running
        draw_key = jax.random.fold_in(batch_key, running.steps)
        batch = draw_batch(draw_key, points, static.batch_size, n, static.em.axis_name)
        rate = step_size(running.steps, decay, dtype)
        running = step(options, running, em.as_columns(batch), rate, jnp.asarray(reg).astype(dtype))
        moved = update_ema(search._replace(running=running), -running.lower_bound, alpha, margin=tol)
        before = jnp.where(jnp.isinf(search.smoothed), 0, search.smoothed)
        change = jnp.where(jnp.isinf(search.smoothed), jnp.inf, jnp.abs(moved.smoothed - before))
        residual = loop_residual(moved.stale.astype(patience.dtype) >= patience, moved.smoothed)
        return moved._replace(change=change, residual=residual)

    running = _begin_on_sample(static, start_key, points, n, given, reg)
    infinite, one = jnp.full((), jnp.inf, dtype), jnp.ones((), dtype)
    search = _Search(running, infinite, infinite, jnp.int32(0), infinite, one)
    fitted = iterate(advance, search, tol=0, max_steps=max_steps, capacity=static.capacity)
    return _finish(static, fitted, points)


class _Search(NamedTuple):
    """A mixture with what decides about stopping; the residual is 1 while it should go on."""

    running: Running
    smoothed: Float[Array, ""]
    least: Float[Array, ""]
    stale: Int[Array, ""]
    change: Float[Array, ""]
    residual: Float[Array, ""]

    @property
    def objective(self):
        return self.smoothed


def _begin(static, key, points, given, reg):
    """What the start has of a mixture, as found on some rows; precisions that are given have no ``reg`` in them."""
    reg = jnp.asarray(reg).astype(points.x.dtype)
    prior = em.Prior(across(jnp.sum(points.weight), static.em.axis_name), reg)
    columns = em.as_columns(points)
    mixture, collapsed = first_mixture(static.em, static.method, key, points, columns, given, prior, static.k)
    added = reg if given.covariances is None else jnp.zeros_like(reg)
    return Running(mixture, added, jnp.int32(0), jnp.full_like(reg, -jnp.inf), collapsed)


def _begin_on_sample(static, key, points, n, given, reg):
    sample_key, start_key = jax.random.split(key)
    if given.responsibilities is not None:
        return _begin(static, start_key, points, given, reg)
    sample = draw_batch(sample_key, points, static.init_size, n, static.em.axis_name)
    return _begin(static._replace(em=static.em._replace(axis_name=None)), start_key, sample, given, reg)


def _finish(static, fitted, points):
    """Labels, the bound of all rows and the status, in the frame."""
    options, search = static.em, fitted.state
    mixture, collapsed = search.running.mixture, search.running.collapsed
    components = em.components_of(mixture)
    labels, log_p = em.label(options, components, points.x.T)
    log_likelihood = points.weight @ jnp.where(points.weight > 0, log_p, 0)
    log_likelihood, total = across((log_likelihood, jnp.sum(points.weight)), options.axis_name)
    bound = log_likelihood / total
    covariances = public_covariances(options.covariance_type, mixture.covariances)
    state = GMMState(mixture.weights, mixture.means, covariances, bound, collapsed, search.change)
    status = status_with(fitted.status, objective=bound, collapsed=jnp.any(collapsed))
    fit = Fit(state, labels, fitted.steps, status, fitted.history)
    return Solved(fit, bound, mean_cells(options, points), distant_rows(options, components, log_p))


def _public(options, running, frame):
    mixture, reg, steps, bound, collapsed = running
    covariances = public_covariances(options.covariance_type, mixture.covariances)
    return StepwiseState(mixture.weights, mixture.means, covariances, reg, frame, steps, bound, collapsed)

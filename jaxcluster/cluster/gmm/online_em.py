"""Online (stepwise) EM: mixtures of streams, and of data too large for many passes, by small batches.

The statistics of a batch are those of one E-step. They are averaged into the running statistics with a step size that
decreases with the number of batches, and the mixture is the M-step of the result. The running statistics are stored as
the mixture itself. Adding two weighted sets of means and covariances adds the scatter of the means: nothing cancels.

Sources: O. Cappé and E. Moulines, On-line expectation–maximization algorithm for latent data models, J. R. Stat. Soc. B
71 (2009); P. Liang and D. Klein, Online EM for unsupervised models, NAACL 2009, for the step size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.fit import FramedFit, FrameSolution, em_options, finalize, mean_observed
from jaxcluster.cluster.gmm.inference import far_rows
from jaxcluster.cluster.gmm.init import center_init, check_init, initial_mixture
from jaxcluster.cluster.gmm.state import (
    GMMState,
    Mixture,
    covariance_type_of,
    frame_log_jacobian,
    frame_of_mixture,
    limit_frame,
    parameters_in_frame,
    public_covariances,
    published_weights,
    ridge_in_frame,
    to_data_units,
    wide_means,
)
from jaxcluster.cluster.minibatch import count_rows, draw_batch, loop_residual, update_ema
from jaxcluster.core import chunks, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish, times_power_of_two
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import begin, history_capacity, status_with
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import CovarianceType, Moments
from jaxcluster.types import Array, Bool, Fit, Float, Int, KeyArray, Published

SCATTER_EINSUM = {"full": "ki,kj->kij", "tied": "ki,kj->ij", "diag": "ki,ki->ki", "spherical": "ki,ki->k"}
"""Einsum of two (k, d) operands that gives the second moments of each covariance type."""


class StepwiseState(NamedTuple):
    """State of online EM, in a frame: small steps of means far from 0 would be lost to rounding.

    Attributes:
        weights: (n_components,), summing to 1.
        frame_means: (n_components, n_features) in ``frame``.
        frame_covariances: in ``frame``, shaped as in `GMMState`, ``frame_reg`` included.
        frame_reg: () ``reg_covar`` of the last step (frame units²).
        frame: of the first batch.
        steps: () int32, number of batches after the first.
        lower_bound: () mean log-likelihood (nats per sample) of the last batch under the mixture before it; -inf before
            the second batch.
        collapsed: (n_components,) mask of those that lost their samples or their variance and were kept finite.
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
        """Means (n_components, n_features)."""
        if validation.is_traced(self):
            return self.frame.leave(self.frame_means)
        return publish(self.wide_means(), self.frame.dtype)

    @property
    def covariances(self) -> Float[Published, ...]:
        """Covariances (data units²) as in `GMMState`."""
        if validation.is_traced(self):
            return self.frame.unscale(self.frame_covariances, length=2)
        return publish(self._unscaled(self.frame_covariances, 2), self.frame.dtype)

    @property
    def reg(self) -> Float[Published, "*batch"]:
        """``reg_covar`` of the last step (data units²)."""
        if validation.is_traced(self):
            return self.frame.unscale(self.frame_reg, length=2)
        return publish(self._unscaled(self.frame_reg, 2), self.frame.dtype)

    def wide_means(self) -> np.ndarray:
        """Concrete means as long doubles, without rounding to the dtype of the data."""
        return wide_means(self.frame_means, self.frame)

    def mixture(self) -> GMMState:
        """Mixture for `predict`, `score` and the like. Its residual is infinite: batches do not show convergence."""
        infinite = jnp.full_like(self.lower_bound, jnp.inf)
        weights = self.weights if validation.is_traced(self) else published_weights(self.weights, self.frame)
        return GMMState(weights, self.means, self.covariances, self.lower_bound, self.collapsed, infinite)

    def _unscaled(self, value, length):
        """``value``, in units of data^length, out of the frame, in float64; a batch of states has a batch of frames."""
        exponent = np.asarray(self.frame.exponent)
        exponent = exponent.reshape(exponent.shape + (1,) * (np.ndim(value) - exponent.ndim))
        return np.asarray(np.ldexp(np.asarray(value, np.float64), -length * exponent))


class OnlineState(NamedTuple):
    """State between two batches, with the factors of the covariances; all in the frame."""

    mixture: Mixture
    reg: Float[Array, ""]
    steps: Int[Array, ""]
    lower_bound: Float[Array, ""]
    collapsed: Bool[Array, " k"]


class _StaticOptions(NamedTuple):
    """Options that change the compiled program."""

    k: int
    method: str
    em: em.EMOptions
    batch_size: int
    init_size: int
    capacity: int


def init(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    covariance: str = "full",
    weights: Any = None,
    init: Any = "kmeans",
    reg_covar: Any = 1e-6,
    missing: bool = False,
) -> StepwiseState:
    """State of online EM after its first batch, on which the mixture is initialized.

    Args:
        key: random key of the initialization.
        x: (n_samples, n_features) first batch, large enough to separate k components.
        k, covariance, weights, init, reg_covar, missing: as in ``gmm.fit``.

    Raises:
        ValueError, TypeError: as ``gmm.fit``.
    """
    key = validation.check_key(key)
    x, k = validation.check_samples(x, k)
    options = em_options(covariance, None, missing)
    reg_covar = validation.check_positive("reg_covar", reg_covar, zero=True)
    checked = check_init(init, options.covariance_type, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, missing=missing or None)
    frame = limit_frame(prepared.frame, reg_covar)
    if frame is not prepared.frame:
        prepared = prepare(x, weights, missing=missing or None, frame=frame)
    points, ridge = prepared.points, ridge_in_frame(prepared.frame, reg_covar)
    initial = center_init(checked, prepared.frame, options.covariance_type, ridge, points)
    static = _StaticOptions(k, checked.method, options, 0, 0, 0)
    return _public_state(options, _init_jitted(static, key, points, initial, ridge.value), prepared.frame)


def partial_fit(
    state: StepwiseState, x: Any, *, weights: Any = None, decay: Any = 0.7, reg_covar: Any = 1e-6, missing: bool = False
) -> StepwiseState:
    """State after one more batch. A batch of total weight 0, or with a bound that is not finite, changes no parameter.

    Args:
        state: from `init`, `from_fit` or an earlier call.
        x: (n_samples, n_features) batch of any size.
        weights: (n_samples,) non-negative, or None. All batches count the same, whatever their total weight.
        decay: in (0.5, 1]: the t-th batch, from 0, has step size (t + 2)^-decay. Traced.
        reg_covar, missing: as in ``gmm.fit``.

    Raises:
        ValueError, TypeError: wrong shapes or values, before anything is traced.
    """
    x = validation.check_matrix(x)
    validation.check_width(x, state.frame_means.shape[1])
    check_decay(decay)
    reg_covar = validation.check_positive("reg_covar", reg_covar, zero=True)
    covariance_type, _ = covariance_type_of(state.mixture())
    options = em_options(covariance_type.name, None, missing)
    prepared = prepare(x, weights, missing=missing or None, frame=limit_frame(state.frame, reg_covar))
    # A larger reg_covar than before may need a frame with a smaller exponent.
    state, points = _rescale(state, prepared.frame), prepared.points
    ridge = ridge_in_frame(prepared.frame, reg_covar)
    parameters = state.weights, state.frame_means, state.frame_covariances, state.frame_reg
    progress = state.steps, state.lower_bound, state.collapsed
    online, n_observed = _partial_fit(options, parameters, progress, points, decay, ridge.value)
    new_state = _public_state(options, online, state.frame)
    shift = frame_log_jacobian(state.frame, points.x.dtype)
    if not validation.is_traced(shift) and shift == 0:
        return new_state
    # A batch without a bound keeps that of the state, which is in data units already.
    bound = online.lower_bound + n_observed.astype(points.x.dtype) * shift
    return new_state._replace(lower_bound=jnp.where(jnp.sum(points.weight) > 0, bound, online.lower_bound))


def from_fit(state: GMMState, *, steps: int = 0, reg_covar: Any = 1e-6, frame: Frame | None = None) -> StepwiseState:
    """State of online EM from a fitted mixture, for `partial_fit`.

    Args:
        state: from ``gmm.fit``.
        steps: number of batches that the fit counts for: the larger, the smaller the steps that follow.
        reg_covar: of the fit (data units²).
        frame: of the fit; None for a frame about the means.
    """
    reg_covar = validation.check_positive("reg_covar", reg_covar, zero=True)
    frame = limit_frame(frame_of_mixture(state, frame), reg_covar)
    dtype = float_dtype(frame.dtype)
    covariance_type, weights, means, covariances = parameters_in_frame(state, frame, dtype)
    reg = jnp.asarray(ridge_in_frame(frame, reg_covar).value, dtype)
    bound, collapsed = jnp.asarray(state.lower_bound).astype(dtype), jnp.asarray(state.collapsed)
    covariances = public_covariances(covariance_type, covariances)
    return StepwiseState(weights, means, covariances, reg, frame, jnp.int32(steps), bound, collapsed)


def minibatch_fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    covariance: str = "full",
    weights: Any = None,
    batch_size: int = 1024,
    init: Any = "kmeans",
    init_size: int | None = None,
    max_epochs: Any = 20,
    tol: Any = 1e-3,
    max_no_improvement: Any = 10,
    decay: Any = 0.7,
    reg_covar: Any = 1e-6,
    missing: bool = False,
    precision: str | None = None,
    axis_name: str | None = None,
) -> Fit:
    """Fits a mixture by online EM on small batches drawn with replacement; a few epochs do for the many steps of EM.

    Args:
        key: random key of the initialization and the batches.
        x, k, covariance, weights, init, reg_covar, missing, precision, axis_name: as in ``gmm.fit``.
        batch_size: number of samples in a batch, static.
        init_size: number of samples for the initialization; None for three batches, at least 3k. An initialization by
            responsibilities uses all samples.
        max_epochs: largest number of batches, in epochs (passes over the data). Traced.
        tol: rise of the smoothed bound (nats per sample) that counts as an improvement. Traced.
        max_no_improvement: early stopping after so many batches without an improvement; None for none. Traced.
        decay: as in `partial_fit`.

    Returns:
        `Fit` with a `GMMState`, labels (n_samples,), steps (batches), status, and history: the smoothed mean negative
        log-likelihood after each batch. The state's lower bound is that of all samples under the final mixture, its
        residual the last change of the smoothed bound.

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


@signals.keeping_result()
def minibatch_fit_framed(
    key, x, k, options, *, weights, batch_size, init, init_size, max_epochs, tol, max_no_improvement, decay, reg_covar
) -> FramedFit:
    """`minibatch_fit`, with its frame and its unrounded means."""
    key = validation.check_key(key)
    axis_name, missing = options.axis_name, options.missing
    x, k = validation.check_samples(x, k, axis_name)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    batch_size = validation.check_count("batch_size", batch_size)
    init_size = max(3 * batch_size, 3 * k) if init_size is None else init_size
    init_size = min(max(k, validation.check_count("init_size", init_size)), n if axis_name else padded_size(n))
    check_decay(decay)
    validation.check_positive("max_epochs", max_epochs)
    patience = jnp.inf if max_no_improvement is None else max_no_improvement
    for name, value in (("tol", tol), ("max_no_improvement", patience)):
        validation.check_positive(name, value, zero=True)
    reg_covar = validation.check_positive("reg_covar", reg_covar, zero=True)
    checked = check_init(init, options.covariance_type, x.shape[0], k, x.shape[1])
    prepared = prepare(x, weights, missing=missing or None, axis_name=axis_name)
    points, ridge = prepared.points, ridge_in_frame(prepared.frame, reg_covar)
    initial = center_init(checked, prepared.frame, options.covariance_type, ridge, points)
    most = max_epochs if validation.is_traced(max_epochs) else max(1, max_epochs * padded_size(n) // batch_size)
    static = _StaticOptions(k, checked.method, options, batch_size, init_size, history_capacity(most))
    traced = (tol, max_epochs, jnp.asarray(patience, jnp.float32), decay, ridge.value)
    work = em.step_work(options, (batch_size, x.shape[1]), k)

    def shown(history):
        return -to_data_units(history, mean_observed(options, points), -1 * ridge.log_jacobian, prepared.frame)

    solution = _minibatch_fit(static, key, points, initial, traced, work=work, max_steps=most, shown=shown)
    return finalize(options, solution, x, prepared, ridge)


def check_decay(decay) -> None:
    """Raises ValueError unless a concrete ``decay`` lies in (0.5, 1], for which online EM converges."""
    validation.check_positive("decay", decay)
    if not validation.is_traced(decay) and not 0.5 < decay <= 1:
        raise ValueError(f"decay={decay} must be greater than 0.5 and at most 1, for online EM to converge.")


def step_size(steps: Int[Array, ""], decay, dtype) -> Float[Array, ""]:
    """Step size (t + 2)^-decay of the t-th batch, from 0."""
    return (steps + 2).astype(dtype) ** -jnp.asarray(decay).astype(dtype)


def step(options: em.EMOptions, state: OnlineState, samples: em.TransposedPoints, rate, reg) -> OnlineState:
    """One batch of online EM; with ``rate`` 1 it is a step of EM on the batch.

    Args:
        options: static options.
        state: before the batch.
        samples: the batch.
        rate: step size: weight of the batch's statistics against the running ones.
        reg: added to every variance (frame units²).
    """
    covariance_type, mixture = options.covariance_type, state.mixture
    total = jnp.sum(samples.weight)
    raw = mixture.covariances - covariance_type.isotropic(state.reg, *mixture.means.shape).astype(mixture.means.dtype)

    # The running statistics are those of the mixture without its ridge, scaled to the weight of the batch.
    def averaged_stats(reference):
        batch = em.e_step(options, mixture, reference, samples)
        past = moments_of_components(covariance_type, total * mixture.weights, mixture.means - reference, raw)
        moments = jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, past, batch.moments)
        return batch._replace(moments=moments)

    new_mixture, collapsed, log_likelihood = em.recentered_m_step(
        options, averaged_stats, mixture.means, mixture, em.MStepParams(total, reg)
    )
    bound = jnp.where(total > 0, log_likelihood / jnp.where(total > 0, total, 1), state.lower_bound)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in (log_likelihood, *jax.tree.leaves(new_mixture))]
    sound = (total > 0) & jnp.all(jnp.stack(finite))
    updated = OnlineState(new_mixture, reg, state.steps + 1, bound, collapsed)
    unchanged = state._replace(steps=updated.steps, lower_bound=bound)
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), updated, unchanged)


def moments_of_components(
    covariance_type: CovarianceType, weight: Float[Array, " k"], offset: Float[Array, "k d"], covariances: Array
) -> Moments:
    """Moments of weighted components about a reference, from which their means differ by ``offset``."""
    first = weight[:, None] * offset
    if covariance_type.name == "tied":
        within = jnp.sum(weight) * covariances
    elif covariance_type.name == "spherical":
        within = weight * covariances * offset.shape[1]
    else:
        within = weight.reshape(-1, *(1,) * (covariances.ndim - 1)) * covariances
    between = jnp.einsum(SCATTER_EINSUM[covariance_type.name], first, offset, precision=HIGHEST)
    return Moments(weight, first, within + between)


@persistent_jit(static_argnums=0)
def _init_jitted(static, key, points, initial, reg):
    return _init_state(static, key, points, initial, reg)


def _rescale(state, frame):
    """The state in a frame of the same origin and another exponent."""
    if validation.is_traced(state, frame):
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


@persistent_jit(static_argnums=0)
def _partial_fit(options, parameters, progress, points, decay, reg):
    dtype = points.x.dtype
    weights, means, covariances, old_reg = (leaf.astype(dtype) for leaf in parameters)
    steps, bound, collapsed = progress
    covariances = covariances[0] if options.covariance_type.name == "tied" else covariances
    covariances, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    online = OnlineState(Mixture(weights, means, covariances, factor), old_reg, steps, bound.astype(dtype), collapsed)
    rate = step_size(steps, decay, dtype)
    online = step(options, online, em.transpose_points(points), rate, jnp.asarray(reg).astype(dtype))
    # Equal weights in a batch of weight 0, whose mean would be 0/0; its bound is not used.
    n_observed = mean_observed(options, points._replace(weight=jnp.where(jnp.sum(points.weight) > 0, points.weight, 1)))
    return online, jnp.asarray(n_observed)


def _start(static, key, points, initial, traced):
    tol, max_epochs, patience, decay, reg = traced
    dtype = points.x.dtype
    n = count_rows(points.weight, static.em.axis_name)
    max_steps = jnp.maximum(1, jnp.floor(max_epochs * (n / static.batch_size)).astype(jnp.int32))
    # Weight of a batch in the moving average, as in scikit-learn's MiniBatchKMeans: a span of n/batch_size batches.
    alpha = jnp.minimum(2 * static.batch_size / (n + 1), 1).astype(dtype)
    init_key, batch_key = jax.random.split(key)
    online = _init_on_subset(static, init_key, points, n, initial, reg)
    infinite, one = jnp.full((), jnp.inf, dtype), jnp.ones((), dtype)
    search = _MinibatchState(online, infinite, infinite, jnp.int32(0), infinite, one)
    operands = batch_key, points, n, alpha, tol, patience, decay, reg
    return operands, begin(search, static.capacity), 0, max_steps


def _batch_step(static, batch_key, points, n, alpha, tol, patience, decay, reg, search):
    options, dtype, online = static.em._replace(axis_name=None), points.x.dtype, search.online
    draw_key = jax.random.fold_in(batch_key, online.steps)
    batch = draw_batch(draw_key, points, static.batch_size, n, static.em.axis_name)
    rate = step_size(online.steps, decay, dtype)
    online = step(options, online, em.transpose_points(batch), rate, jnp.asarray(reg).astype(dtype))
    updated = update_ema(search._replace(online=online), -online.lower_bound, alpha, margin=tol)
    # The first smoothed bound has no change; inf − inf would be NaN.
    previous = jnp.where(jnp.isinf(search.smoothed), 0, search.smoothed)
    change = jnp.where(jnp.isinf(search.smoothed), jnp.inf, jnp.abs(updated.smoothed - previous))
    residual = loop_residual(updated.stale.astype(patience.dtype) >= patience, updated.smoothed)
    return updated._replace(change=change, residual=residual)


class _MinibatchState(NamedTuple):
    """State of online EM with that of early stopping; the residual is 1 until it stops."""

    online: OnlineState
    smoothed: Float[Array, ""]
    least: Float[Array, ""]
    stale: Int[Array, ""]
    change: Float[Array, ""]
    residual: Float[Array, ""]

    @property
    def objective(self):
        return self.smoothed


def _init_state(static, key, points, initial, reg):
    """Initial state from samples. Precisions of the caller get no ``reg`` added, others do."""
    reg = jnp.asarray(reg).astype(points.x.dtype)
    params = em.MStepParams(all_reduce(jnp.sum(points.weight), static.em.axis_name), reg)
    samples = em.transpose_points(points)
    mixture, collapsed = initial_mixture(static.em, static.method, key, points, samples, initial, params, static.k)
    added = reg if initial.covariances is None else jnp.zeros_like(reg)
    return OnlineState(mixture, added, jnp.int32(0), jnp.full_like(reg, -jnp.inf), collapsed)


def _init_on_subset(static, key, points, n, initial, reg):
    sample_key, init_key = jax.random.split(key)
    if initial.responsibilities is not None:
        return _init_state(static, init_key, points, initial, reg)
    sample = draw_batch(sample_key, points, static.init_size, n, static.em.axis_name)
    return _init_state(static._replace(em=static.em._replace(axis_name=None)), init_key, sample, initial, reg)


def _end(static, fitted, operands, key, points, initial, traced):
    """The fit in its frame, with labels and the lower bound of all samples."""
    options, search = static.em, fitted.state
    mixture, collapsed = search.online.mixture, search.online.collapsed
    components = em.components_of(mixture)
    labels, log_p = em.label(options, components, points.x.T)
    log_likelihood = points.weight @ jnp.where(points.weight > 0, log_p, 0)
    log_likelihood, total = all_reduce((log_likelihood, jnp.sum(points.weight)), options.axis_name)
    bound = log_likelihood / total
    covariances = public_covariances(options.covariance_type, mixture.covariances)
    state = GMMState(mixture.weights, mixture.means, covariances, bound, collapsed, search.change)
    status = status_with(fitted.status, objective=bound, collapsed=jnp.any(collapsed))
    fit = Fit(state, labels, fitted.steps, status, fitted.history)
    return FrameSolution(fit, bound, mean_observed(options, points), far_rows(options, components, log_p))


_minibatch_fit = chunks.Loop(_start, _batch_step, _end)


def _public_state(options, online, frame):
    mixture, reg, steps, bound, collapsed = online
    covariances = public_covariances(options.covariance_type, mixture.covariances)
    return StepwiseState(mixture.weights, mixture.means, covariances, reg, frame, steps, bound, collapsed)

"""EM of a row source: the steps of `jaxcluster.gmm` with the samples read block by block.

Each E-step is one pass over the source. The host adds the moments of the blocks up in float64; see
`jaxcluster.core.streaming`. Initial parameters are found on a sample of the rows.

>>> import numpy as np
>>> from jaxcluster.core.sources import ArraySource
>>> x = np.array([[0.0], [1.0], [9.0], [10.0]])
>>> fitted = fit_framed(jax.random.key(0), ArraySource(x), 2, em_options("spherical", None, False))
>>> np.sort(fitted.means.astype(float), axis=0).round(3).tolist()
[[0.5], [9.5]]
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.fit import FramedFit, check_traced_options, em_options
from jaxcluster.cluster.gmm.inference import (
    far_rows,
    host_posterior,
    mixture_components,
    replace_at,
)
from jaxcluster.cluster.gmm.init import (
    CenteredInit,
    center_init,
    check_init,
    cluster_in_chunks,
    initial_mixture,
    mean_feature_variance,
)
from jaxcluster.cluster.gmm.recentering import SHIFT_ERROR
from jaxcluster.cluster.gmm.rounding import correct_rounding
from jaxcluster.cluster.gmm.state import GMMState, public_covariances, ridge_in_frame, to_data_units, wide_means
from jaxcluster.core import signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.iterate import status_with
from jaxcluster.core.loop_checkpoints import SourceLoop
from jaxcluster.core.preparation import Prepared
from jaxcluster.core.sources import RowSource
from jaxcluster.core.streaming import PassInterrupted, StepWatch, Stream, evenly, host_fit, mean_variance
from jaxcluster.ops.distance import squared_norms
from jaxcluster.types import Array, Float, KeyArray, Points, Status

__all__ = ["em_options", "fit_framed"]

LAST_PASS_SECONDS = 0.5
"""Seconds that a pass for the labels may take after Ctrl-C, which should be answered within a second."""


def fit_framed(
    key: KeyArray,
    source: RowSource,
    k: int,
    options: em.EMOptions,
    *,
    weights: Any = None,
    init: Any = "kmeans",
    n_init: int = 1,
    tol: Any = 1e-3,
    max_steps: Any = 100,
    reg_covar: Any = 1e-6,
    block_bytes: int | None = None,
) -> FramedFit:
    """Fit a mixture of k Gaussians to the rows of a source.

    Args:
        key: random key of the initialization.
        source: (n_samples, n_features) rows.
        k: number of components.
        options: of the steps; see `em_options`.
        weights: (n_samples,) non-negative weights in memory, or None for 1 each.
        init: as in `gmm.fit`, on a sample of `streaming.SAMPLED_ROWS` rows; not responsibilities.
        n_init: number of initializations, of which the fit with the highest lower bound is returned.
        tol, max_steps, reg_covar: as in `gmm.fit`.
        block_bytes: bytes of a block on the device; None for `streaming.BLOCK_BYTES`.

    Returns:
        `FramedFit` with NumPy arrays. Where Ctrl-C ended the fit and a pass takes long, the labels are -1.

    Raises:
        ValueError, TypeError: as `gmm.fit`; `SourceError` for a source that changes or cannot be read.
        MemoryError: see `Stream`.
    """
    k = validation.check_clusters(k, source.shape[0])
    tol, reg_covar = check_traced_options(tol, max_steps, reg_covar)
    em.check_memory(options, k, source.shape[1], source.dtype)
    checked = check_init(init, options.covariance_type, source.shape[0], k, source.shape[1])
    if checked.responsibilities is not None:
        raise ValueError("init= has responsibilities of each row, which a source of rows does not take: pass means.")
    seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
    stream = Stream(source, weights, missing=options.missing or None, block_bytes=block_bytes, seed=seed)
    ridge = ridge_in_frame(stream.frame, reg_covar)
    sample = stream.sample_points()
    initial = center_init(checked, stream.frame, options.covariance_type, ridge, sample)
    params, n_observed = _parameters(stream, options, ridge.value)
    best: Any = None
    for run in range(1 if initial.complete else n_init):
        run_key = key if n_init == 1 else jax.random.split(key, n_init)[run]
        watch = StepWatch(int(max_steps), partial(_shown, stream.frame, n_observed, ridge))
        clustering = None
        if stream.n > len(stream.sample):  # small sources need no program more
            clustering = cluster_in_chunks(options, checked.method, run_key, sample, initial, None, k)
        mixture, collapsed = _initial(options, checked.method, k, run_key, sample, initial, params.reg, clustering)
        start = em.init_state(mixture, collapsed, initial.previous_bound)
        fitted = _run(stream, options, params, start, float(tol), int(max_steps), watch, kept=best is not None)
        if fitted is not None and (best is None or fitted[0].state.lower_bound > best[0].state.lower_bound):
            best = fitted
        if signals.interrupted():
            best = best[0]._replace(status=np.int32(Status.INTERRUPTED)), *best[1:]
            break
    fitted, _, far = best
    stream.interruptible = False
    return _published(stream, options, ridge, fitted, far, n_observed)


def _parameters(stream, options, reg):
    """Parameters of the M-step, and the mean number of observed features, from one pass."""
    (total, counts, *sums), _ = stream.fold(partial(_moments, options))
    (weight, norms, first), (unweighted, plain_norms, plain_first), observed = total, counts, sums[0]
    variance = mean_variance(weight, norms, first)
    plain = mean_variance(unweighted, plain_norms, plain_first)
    dtype = stream.compute_dtype
    params = em.MStepParams(jnp.asarray(weight, dtype), jnp.asarray(reg, dtype))
    params = params._replace(variance=jnp.asarray(variance, dtype), unweighted_variance=jnp.asarray(plain, dtype))
    return params, stream.d if not options.missing else float(observed / weight)


def _shown(frame, n_observed, ridge, history):
    """Lower bounds in the caller's units, of objectives in the frame."""
    return -to_data_units(history, n_observed, -1 * ridge.log_jacobian, frame, dtype=np.dtype(float))


def _run(stream, options, params, state, tol, max_steps, watch, *, kept):
    """EM from initial parameters: a `Fit` in the frame, the log-likelihood, and the mask of far samples.

    None where Ctrl-C ends it before its first step and a run before is ``kept``.
    """
    saved, seconds = SourceLoop(stream, (options, state.mixture.means.shape)), np.inf
    state, steps, history = saved.restore(state)
    try:
        while True:
            while float(state.residual) > tol and steps < max_steps:
                begin = time.perf_counter()
                state = _step(stream, options, params, state)
                steps, seconds = steps + 1, time.perf_counter() - begin
                history.append(float(state.objective))
                watch.add(steps, history[-1])
                saved.after_step(state, history)
            # As in memory: after a plateau the mixture of the last M-step may be much better than the bound before it.
            log_likelihood, (labels, far) = stream.fold(partial(_label, options), state.mixture)
            log_likelihood = log_likelihood / float(params.total)
            bound = float(state.lower_bound)
            change = abs(log_likelihood - bound)
            unfinished = change > tol + float(em.bound_slack(jnp.asarray(bound, stream.compute_dtype)))
            converged = float(state.residual) <= tol and float(state.bound_decrease) == 0
            if not (unfinished and steps < max_steps and converged):
                break
            state = state._replace(residual=jnp.asarray(change, stream.compute_dtype))
    except signals.Stopped:
        saved.stop(state, history)
        raise
    except PassInterrupted:
        saved.stop(state, history)
        if steps == 0:
            if kept:
                return None
            raise
        log_likelihood, (labels, far) = _labels_after_interrupt(stream, options, params, state, seconds)
    public, status = _finish(options, state, jnp.int32(steps), jnp.asarray(log_likelihood, stream.compute_dtype), tol)
    return jax.device_get(host_fit(public, labels, steps, status, history)), log_likelihood, far


def _labels_after_interrupt(stream, options, params, state, seconds):
    """Log-likelihood, labels and far samples by one pass more, if the last one took few ``seconds``; else labels −1."""
    if seconds > LAST_PASS_SECONDS:
        return float(state.lower_bound), (np.full(stream.n, -1, np.int32), np.zeros(stream.n, bool))
    stream.interruptible = False
    log_likelihood, per_row = stream.fold(partial(_label, options), state.mixture)
    return log_likelihood / float(params.total), per_row


def _step(stream, options, params, state):
    """`em.step`: the moments are computed again if the means moved too far from the reference."""
    reference = state.mixture.means
    for _ in range(2):
        stats, _ = stream.fold(partial(_e_step, options), state.mixture, reference)
        stats = jax.tree.map(lambda leaf: jnp.asarray(leaf, stream.compute_dtype), stats)
        update, far = _m_step(options, params, state, reference, stats)
        if not far:
            break
        reference = update[0].means
    return _accept(options, params, state, *update)


def _published(stream, options, ridge, fitted, far, n_observed):
    """The fit in the caller's coordinates and units."""
    frame, covariance_type = stream.frame, options.covariance_type
    state, labels = fitted.state, _with_far_labels(stream, options, fitted, far)
    index = _examined(stream, labels)
    status, means = np.asarray(fitted.status), np.asarray(state.means, np.float64)
    if len(index):
        x = stream.rows(index)
        points = stream.points_of(index, x)
        prepared = Prepared(points, frame, len(index), False, stream.dtype, stream.narrowed)
        status, means = correct_rounding(fitted, x, prepared, covariance_type, labels[index])
    public = state._replace(means=means).leave(frame, covariance_type, ridge, n_observed)
    history = to_data_units(fitted.history, n_observed, -1 * ridge.log_jacobian, frame, dtype=np.dtype(float))
    return FramedFit(host_fit(public, labels, fitted.steps, status, history), frame, wide_means(means, frame))


def _with_far_labels(stream, options, fitted, far):
    """Labels in which those that an E-step may confuse are computed on the host."""
    index, state = np.flatnonzero(far), fitted.state
    if not len(index):
        return fitted.labels
    covariances = state.covariances[0] if options.covariance_type.name == "tied" else state.covariances
    components = mixture_components(options, state.weights, state.means, covariances)
    labels = fitted.labels
    for part in np.array_split(index, -(-len(index) // stream.block_rows)):
        x = stream.rows(part)
        prepared = Prepared(stream.points_of(part, x), stream.frame, len(part), False, stream.dtype, stream.narrowed)
        mask = np.zeros(prepared.points.weight.shape[0], bool)
        mask[: len(part)] = True
        at, posterior = host_posterior(options, components, prepared, x, mask, np.asarray(state.means, np.float64))
        if posterior is not None:
            labels = replace_at(labels, (part[at],), posterior.labels)
    return labels


def _examined(stream, labels):
    """Indices of samples of positive weight, spread evenly, in which rounding is examined; none without rounding."""
    if not stream.narrowed or labels[0] < 0:
        return np.empty(0, int)
    return evenly(np.arange(stream.n) if stream.weights is None else np.flatnonzero(stream.weights))


# Kernels: one block of samples, and the steps between passes ----------------------------------------------------------


@persistent_jit(static_argnums=0)
def _moments(options: em.EMOptions, points: Points) -> Any:
    x, weight = points
    filled = jnp.where(jnp.isnan(x), 0, x) if options.missing else x
    observed = weight @ jnp.sum(~jnp.isnan(x), axis=1, dtype=x.dtype) if options.missing else 0
    norms = squared_norms(filled)

    def sums(weight):
        return jnp.sum(weight), weight @ norms, jnp.sum(filled * weight[:, None], axis=0)

    return (sums(weight), sums((weight > 0).astype(x.dtype)), observed), ()


@persistent_jit(static_argnums=(0, 1, 2))
def _initial(
    options: em.EMOptions,
    method: str,
    k: int,
    key: KeyArray,
    sample: Points,
    init: CenteredInit,
    reg: Array,
    clustering: Any,
) -> Any:
    """`initial_mixture` of the sample."""
    params = em.MStepParams(jnp.sum(sample.weight), reg, None, mean_feature_variance(options, sample))
    columns = em.transpose_points(sample)
    return initial_mixture(options, method, key, sample, columns, init, params, k, clustering)


@persistent_jit(static_argnums=0)
def _e_step(options: em.EMOptions, points: Points, mixture: Any, reference: Float[Array, "k d"]) -> Any:
    return em.e_step(options, mixture, reference, em.transpose_points(points)), ()


@persistent_jit(static_argnums=0)
def _m_step(options: em.EMOptions, params: em.MStepParams, state: em.EMState, reference: Array, stats: Any) -> Any:
    mixture, collapsed, shift = em.m_step(options, stats.moments, reference, state.mixture, params)
    far = jnp.max(shift) * jnp.finfo(reference.dtype).eps > SHIFT_ERROR
    return (mixture, collapsed, stats.log_likelihood), far


@persistent_jit(static_argnums=0)
def _accept(options, params, state, mixture, collapsed, log_likelihood):
    return em.accept(options, params, state, mixture, collapsed, log_likelihood)


@persistent_jit(static_argnums=0)
def _label(options: em.EMOptions, points: Points, mixture: Any) -> Any:
    components = em.components_of(mixture)
    samples = em.transpose_points(points)
    labels, log_p = em.label(options, components, samples.x)
    log_likelihood = samples.weight @ jnp.where(samples.weight > 0, log_p, 0)
    return log_likelihood, (labels, far_rows(options, components, log_p))


@persistent_jit(static_argnums=0)
def _finish(options, state, steps, log_likelihood, tol):
    """Public state in the frame, and its status."""
    finished = jnp.where(state.residual <= tol, Status.CONVERGED, Status.MAX_STEPS)
    status = jnp.where(jnp.isnan(state.residual), Status.NOT_FINITE, finished).astype(jnp.int32)
    objective = jnp.where(steps > 0, state.lower_bound, log_likelihood)
    status = em.precision_status(status, state.bound_decrease, objective, tol)
    status = status_with(status, objective=objective, collapsed=jnp.any(state.collapsed))
    weights, means, covariances, _ = state.mixture
    covariances = public_covariances(options.covariance_type, covariances)
    return GMMState(weights, means, covariances, state.lower_bound, state.collapsed, state.residual), status

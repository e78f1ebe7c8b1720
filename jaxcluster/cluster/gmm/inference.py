"""Inference with a mixture: labels, responsibilities, log-densities, sampling and information criteria.

An E-step in the working precision is right for nearly all samples. Far from every component its rounding may confuse
components: concrete samples out there are computed on the host (`jaxcluster.ops.gaussian.far`), and traced ones are
scaled back until their squares do not overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import (
    GMMState,
    check_sparse,
    covariance_type_of,
    frame_log_jacobian,
    frame_of_mixture,
    means_on_host,
    n_parameters_of,
    pad_components,
    parameters_in_frame,
    to_data_units,
)
from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import float_dtype, publish
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import Frame
from jaxcluster.core.implicit import non_differentiable, with_derivative_of
from jaxcluster.core.preparation import Prepared, prepare, unpad
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_input import check_rows
from jaxcluster.core.sparse_rows import SparseRows, is_sparse
from jaxcluster.core.streaming import over_blocks
from jaxcluster.ops.gaussian import Components, far
from jaxcluster.ops.gaussian.covariance_type import LOG_2PI
from jaxcluster.ops.gaussian.sparse import as_columns
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Published

SAMPLE_TILE = 1 << 24
"""Upper bound for the elements of the Cholesky factors that are gathered for a tile of drawn samples."""

MAX_COORDINATE_LOG2 = 38
"""Samples beyond 2³⁸ in a frame are computed on the host: to include them, `prepare` would scale all others down."""

MAX_DEVIATIONS_LOG2 = 56
"""Traced samples beyond 2⁵⁶ standard deviations are scaled back to there: 2¹⁵ squares of 2¹¹² are within float32."""


@over_blocks
def predict(state: GMMState, x: Any, *, missing: bool = False, frame: Frame | None = None) -> Int[Array, " n"]:
    """Most probable component of each sample, (n_samples,); ties go to the lower index.

    Args:
        state: a mixture.
        x: (n_samples, n_features) data.
        missing: integrate NaN values out.
        frame: of the fit of the mixture; None for a frame about its means.

    Raises:
        ValueError, TypeError: a wrong number of features; a gradient with respect to labels, which have none.
    """
    return non_differentiable(_posterior(state, x, missing=missing, frame=frame).labels(), state, x)


@over_blocks
def predict_proba(
    state: GMMState, x: Any, *, missing: bool = False, frame: Frame | None = None
) -> Float[Published, "n k"]:
    """Responsibilities (n_samples, n_components): probability of each component given the sample; see `predict`."""
    return _posterior(state, x, missing=missing, frame=frame).responsibilities()


@over_blocks
def score_samples(
    state: GMMState, x: Any, *, missing: bool = False, frame: Frame | None = None
) -> Float[Published, " n"]:
    """Log-density of each sample (nats), (n_samples,), of its observed features if some are missing; see `predict`."""
    return _posterior(state, x, missing=missing, frame=frame).log_p()


def score(
    state: GMMState, x: Any, *, weights: Any = None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """Weighted mean log-density of the samples (nats per sample): higher is better.

    Args:
        state, x, missing, frame: as in `predict`.
        weights: (n_samples,) non-negative, or None for 1 each.
    """
    if isinstance(x, RowSource):
        log_p = score_samples(state, x, missing=missing, frame=frame)
        weights = np.ones(len(x)) if weights is None else validation.check_weights(weights, len(x))
        return publish(_mean(log_p, weights), log_p.dtype)
    return mean_log_p(_posterior(state, x, weights, missing=missing, frame=frame))


def negative_log_likelihood(
    state: GMMState, x: Any, *, weights: Any = None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """Weighted mean negative log-density of the samples (nats per sample): a loss.

    Differentiable with respect to the state's weights, means and covariances and to ``x``, for any `GMMState`, not
    only a fitted one.
    """
    return _linear(score(state, x, weights=weights, missing=missing, frame=frame), -1.0, 0.0)


def aic(
    state: GMMState, x: Any, *, weights: Any = None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """Akaike information criterion −2·log L + 2·p: lower is better. A sample of weight w counts w times."""
    mean, n = score(state, x, weights=weights, missing=missing, frame=frame), _total_weight(x, weights)
    return _linear(mean, -2 * n, 2.0 * n_parameters_of(state))


def bic(
    state: GMMState, x: Any, *, weights: Any = None, missing: bool = False, frame: Frame | None = None
) -> Float[Published, ""]:
    """Bayesian (Schwarz) information criterion −2·log L + p·log n: lower is better; see `aic`."""
    mean, n = score(state, x, weights=weights, missing=missing, frame=frame), _total_weight(x, weights)
    log_n = jnp.log(n) if validation.is_traced(n) else math.log(n)
    return _linear(mean, -2 * n, log_n * n_parameters_of(state))


def sample(key: KeyArray, state: GMMState, n: int) -> tuple[Float[Published, "n d"], Int[Array, " n"]]:
    """Draws samples from a mixture.

    Args:
        key: random key.
        state: a mixture.
        n: number of samples, static.

    Returns:
        Samples (n_samples, n_features), and the component of each, (n_samples,) int32.
    """
    key = validation.check_key(key)
    n = validation.check_count("n", n)
    frame = frame_of_mixture(state)
    covariance_type, weights, means, covariances = parameters_in_frame(state, frame, float_dtype(frame.dtype))
    x, labels = _sample(covariance_type.name, n, key, weights, means, covariances)
    return frame.leave(x), labels


def mean_log_p(posterior: FramedPosterior) -> Float[Published, ""]:
    """Weighted mean log-density of the samples (nats per sample); in float64 if concrete."""
    log_p, weight = posterior.log_p(), posterior.prepared.unpad(posterior.prepared.points.weight)
    if validation.is_traced(log_p, weight):
        return jnp.sum(jnp.where(weight > 0, weight * log_p, 0)) / jnp.sum(weight)
    return publish(_mean(log_p, weight), posterior.prepared.dtype)


def _mean(log_p, weight):
    """Weighted mean in float64; a log-density that does not count may be −∞."""
    weight = np.asarray(weight, np.float64)
    counted = weight > 0
    return np.asarray(np.average(np.asarray(log_p, np.float64)[counted], weights=weight[counted]))


def _posterior(state, x, weights=None, *, missing=False, frame=None):
    """`FramedPosterior` of a caller's samples under a mixture."""
    prepared, x, outside = rows_in_frame(state, x, weights, missing=missing, frame=frame)
    options = em.EMOptions(covariance_type_of(state)[0].name, missing=missing)
    k, parameters = state.means.shape[0], (state.weights, state.means, state.covariances)
    if (padded := em.padded_components(options, k, prepared.points, parameters, prepared.frame)) is not None:
        state = pad_components(state, padded)
    _, *parts = parameters_in_frame(state, prepared.frame, prepared.points.x.dtype)
    return FramedPosterior(options, mixture_components(options, *parts), prepared, x, outside, state.means, k)


def _linear(mean, factor, term):
    """factor·mean + term as an array: NumPy alone would return a scalar."""
    if validation.is_traced(mean, factor):
        return jnp.asarray(factor).astype(mean.dtype) * mean + jnp.asarray(term).astype(mean.dtype)
    return publish(np.asarray(factor * np.asarray(mean, np.float64) + term), mean.dtype)


def _total_weight(x, weights):
    """Number of samples, each counted by its weight."""
    if weights is None:
        return np.shape(x)[0]
    if validation.is_traced(weights):
        return jnp.sum(weights)
    return float(np.sum(np.asarray(weights), dtype=np.float64))


@persistent_jit(static_argnums=(0, 1))
def _sample(covariance, n, key, weights, means, covariances):
    covariance_type = em.EMOptions(covariance).covariance_type
    k, d = means.shape
    label_key, noise_key = jax.random.split(key)
    labels = jax.random.categorical(label_key, em.log_weights(weights), shape=(n,)).astype(jnp.int32)
    noise = jax.random.normal(noise_key, (n, d), means.dtype)
    if covariance in ("diag", "spherical"):
        deviations = jnp.sqrt(jnp.broadcast_to(covariances.reshape(k, -1), (k, d)))
        return means[labels] + noise * deviations[labels], labels
    lower = jnp.linalg.cholesky(covariance_type.dense(covariances, k, d))

    def draw(rows):
        noise, labels = rows
        return means[labels] + jnp.einsum("nij,nj->ni", lower[labels], noise)

    return map_rows(draw, (noise, labels), tile=tile_rows(n, d * d, SAMPLE_TILE)), labels


class FramedPosterior(NamedTuple):
    """Samples and components in one frame; its methods compute the posterior.

    Attributes:
        options: of the E-step.
        components: in the frame.
        prepared: samples in the frame.
        x: samples of the caller.
        outside: indices of samples too far for the frame; None for none, or in a traced computation.
        means: means of the components in the caller's coordinates.
        k: number of components without padding.
    """

    options: em.EMOptions
    components: Components
    prepared: Prepared
    x: Any
    outside: np.ndarray | None
    means: Any
    k: int

    def labels(self) -> Int[Array, " n"]:
        """Most probable component of each sample; ties go to the lower index."""
        labels, _, far_mask = _label(self.options, self.components, self.prepared.points.x)
        labels = self.prepared.unpad(labels)
        index, posterior = self._far_posterior(far_mask)
        return labels if posterior is None else replace_at(labels, index, posterior.labels)

    def log_p(self) -> Float[Published, " n"]:
        """Log-density of each sample (nats, in data units)."""
        _, log_p, far_mask = _label(self.options, self.components, self.prepared.points.x)
        frame, dtype, log_jacobian = self.prepared.frame, self.prepared.dtype, frame_log_jacobian(self.prepared.frame)
        public = self.prepared.unpad(
            to_data_units(log_p, self._n_observed(log_jacobian), log_jacobian, frame, dtype=dtype)
        )
        index, posterior = self._far_posterior(far_mask)
        if posterior is None:
            return public
        wide = np.array(public, np.float64)
        observed = (~np.isnan(np.asarray(self.x)[index])).sum(axis=1) if self.options.missing else self.x.shape[1]
        wide[index] = posterior.log_p + log_jacobian * observed
        return publish(wide, dtype)

    def responsibilities(self) -> Float[Published, "n k"]:
        """Responsibilities; concrete ones sum to 1 in the caller's dtype."""
        memory.check_table(self.prepared.n, self.k, self.prepared.dtype, "the responsibilities")
        r, far_mask = _responsibilities(self.options, self.components, self.prepared.points.x)
        r = unpad(self.prepared.unpad(r, axis=0), self.k, axis=1)
        if validation.is_traced(r):
            return r
        index, posterior = self._far_posterior(far_mask)
        if posterior is None and r.dtype == self.prepared.dtype:
            return r
        wide = np.array(r, self.prepared.dtype)
        if posterior is not None:
            wide[index] = posterior.responsibilities[:, : self.k]
        return publish(wide / wide.sum(axis=1, keepdims=True), self.prepared.dtype)

    def _far_posterior(self, far_mask):
        """Indices of the samples to replace, and their posterior by `host_posterior`; or None, None."""
        if validation.is_traced(far_mask, self.components):
            return None, None
        means = means_on_host(self.means, self.prepared.frame)
        return host_posterior(self.options, self.components, self.prepared, self.x, far_mask, means, self.outside)

    def _n_observed(self, log_jacobian):
        """Number of observed features of each sample; d if none is missing, or if the log-Jacobian is 0."""
        x = self.prepared.points.x
        if not self.options.missing or (not validation.is_traced(log_jacobian) and log_jacobian == 0):
            return x.shape[1]
        return jnp.sum(~jnp.isnan(x), axis=1, dtype=x.dtype) if validation.is_traced(x) else (~np.isnan(x)).sum(axis=1)


def rows_in_frame(
    state: Any, x: Any, weights: Any = None, *, missing: bool = False, frame: Frame | None = None
) -> tuple[Prepared, Any, np.ndarray | None]:
    """Samples of a caller in the frame in which they are compared with a mixture.

    Args:
        state: with the weights, means and covariances of the mixture.
        x: (n_samples, n_features) data.
        weights: (n_samples,), or None.
        missing: integrate NaN values out.
        frame: of the fit of the mixture; None for a frame about its means.

    Returns:
        The samples in the frame, the checked samples of the caller, and the indices of those too far for the frame.

    Raises:
        ValueError, TypeError: wrong shapes or values, or a number of features other than that of the means.
    """
    x = check_rows(x)
    validation.check_width(x, state.means.shape[1])
    check_sparse(x, covariance_type_of(state)[0], missing, *state.means.shape)
    frame = frame_of_mixture(state, frame)
    near, outside = (x, None) if validation.is_traced(x, weights, frame) else _split_out_of_frame(x, frame)
    return prepare(near, weights, missing=missing or None, frame=frame), x, outside


def host_posterior(
    options: em.EMOptions,
    components: Components,
    prepared: Prepared,
    x: Any,
    far_mask: Bool[Published, " m"],
    means: np.ndarray,
    outside: np.ndarray | None = None,
) -> tuple[np.ndarray | None, far.FarPosterior | None]:
    """Posterior, by differences on the host, of the samples that an E-step may confuse.

    Args:
        options: of the E-step.
        components: concrete, in the frame of the samples.
        prepared: samples in the frame.
        x: samples of the caller.
        far_mask: samples, padding included, that are far from every component.
        means: of the components, in the frame, in float64: a far sample may be the mean of its own component.
        outside: indices of samples that were left out of ``prepared``.

    Returns:
        The indices of these samples and their posterior; None, None if there are no such samples.
    """
    selected, far_mask = np.zeros(prepared.n, bool), np.asarray(far_mask)[: prepared.n]
    if far_mask.any():
        selected |= far_mask
        selected &= np.asarray(_ambiguous(options, components, prepared.points.x))[: prepared.n]
    if outside is not None:
        selected[outside] = True
    index = np.flatnonzero(selected)
    if not index.size:
        return None, None
    frame, components = prepared.frame, components._replace(means=means)
    # ldexp(x, e) − ldexp(origin, e), as for means: a sample equal to a mean stays equal to it in the frame.
    origin = np.ldexp(np.asarray(frame.origin).astype(np.longdouble), frame.exponent)

    def of_rows(part):
        rows = x[part].toarray() if is_sparse(x) else np.asarray(x)[part]
        inside = np.ldexp(rows.astype(np.longdouble), frame.exponent) - origin
        return far.posterior_by_differences(options.covariance_type, components, inside)

    size = max(1, far.CHUNK_ELEMENTS // x.shape[1]) if is_sparse(x) else index.size
    parts = [of_rows(index[start : start + size]) for start in range(0, index.size, size)]
    return index, far.FarPosterior(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def replace_at(values: Published, index: Any, others: np.ndarray) -> Published:
    """Copy of the values with those at ``index`` replaced."""
    out = np.array(values)
    out[index] = others
    return jax.device_put(out)


def far_rows(options: em.EMOptions, components: Components, log_p: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Mask of the samples so far from every component that an E-step may confuse components."""
    d = components.means.shape[1]
    limit = far.distance_limit(float(jnp.finfo(log_p.dtype).eps), d)
    # An upper bound for the log-density of any sample, at a mean. Observed blocks have log |R| <= d·log max|R|, or 0.
    if options.missing:
        log_root = jnp.log(jnp.max(jnp.abs(components.factor.root)))
        largest_log_p = jnp.max(components.log_weights) + d * jnp.maximum(log_root, 0)
    else:
        largest_log_p = jnp.max(components.log_weights + components.factor.log_det) - d * LOG_2PI / 2
    # Negated, so that a log-density that is NaN or -inf counts as far.
    return ~(largest_log_p - log_p <= limit)


@persistent_jit(static_argnums=0)
def mixture_components(options: em.EMOptions, weights: Array, means: Array, covariances: Array) -> Components:
    """Components of a mixture, from its parameters in a frame."""
    covariances, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    return Components(em.log_weights(weights), means, covariances, factor)


def _split_out_of_frame(x, frame):
    """Samples with those beyond 2^`MAX_COORDINATE_LOG2` replaced by the origin, and the indices of these; or None."""
    if is_sparse(x):  # whose products are of stored entries alone: `prepare` scales them all
        return x, None
    host = np.asarray(x)
    exponent = MAX_COORDINATE_LOG2 - int(frame.exponent)
    limit = math.ldexp(1.0, exponent) if exponent < 1024 else math.inf
    origin = np.asarray(frame.origin, np.float64)
    lowest, highest = float(np.fmin.reduce(host, axis=None)), float(np.fmax.reduce(host, axis=None))
    with np.errstate(over="ignore"):
        bound = max(highest - origin.min(), origin.max() - lowest)
    if not (bound > limit and np.isfinite([lowest, highest]).all()):
        return x, None
    with np.errstate(over="ignore"):
        outside = np.fmax.reduce(np.abs(host.astype(np.float64) - origin), axis=1) > limit
    return np.where(outside[:, None], frame.origin, host), np.flatnonzero(outside)


def _scale_far(components, x):
    """Samples divided by a scale, 1 for nearly all, so that their squares do not overflow; and the scales."""
    sparse = isinstance(x, SparseRows)
    size = x.largest() if sparse else jnp.max(jnp.where(jnp.isnan(x), 0, jnp.abs(x)), axis=1)
    largest = jnp.max(jnp.abs(components.factor.root))
    scale = jax.lax.stop_gradient(jnp.maximum(size * 2.0**-MAX_DEVIATIONS_LOG2 * jnp.maximum(largest, 1), 1))
    return x.scaled(1 / scale) if sparse else x / scale[:, None], scale


@persistent_jit(static_argnums=0)
def _label(options, components, x):
    x, scale = _scale_far(components, x)
    labels, log_p = em.label(options, components, as_columns(x))
    # A scaled sample is so far away that its log-density is −q/2, quadratic in the scale, and nothing else matters.
    return labels, log_p * scale * scale, far_rows(options, components, log_p)


@persistent_jit(static_argnums=0)
def _responsibilities(options, components, x):
    x, _ = _scale_far(components, x)
    tile = em.tile_of(options, as_columns(x), components.means)
    posterior = em.row_posterior(options, components)

    def of_tile(rows):
        log_p, r, _ = posterior(as_columns(rows))
        return r.T, far_rows(options, components, log_p)

    if isinstance(x, SparseRows):
        return map_rows(of_tile, x, tile=tile)
    r, far_mask = map_in_place(of_tile, x, tile)
    return with_derivative_of(partial(_tiled_responsibilities, options, tile), r, components, x), far_mask


def _tiled_responsibilities(options, tile, components, x):
    posterior = em.row_posterior(options, components)
    return map_rows(lambda rows: posterior(rows.T).responsibilities.T, x, tile=tile)


def map_in_place(row_function: Callable[[Float[Array, "t d"]], Any], x: Float[Array, "n d"], tile: int) -> Any:
    """Applies ``row_function`` to tiles of samples and writes each result in place; it has no derivative."""
    # Concatenated tiles would hold an output as large as n×k twice. The last tile starts early enough to be whole, and
    # computes some samples a second time. A derivative would keep the output of each tile.
    n = x.shape[0]
    tile = min(tile, n)
    shapes = jax.eval_shape(row_function, jax.ShapeDtypeStruct((tile, x.shape[1]), x.dtype))
    # Zeros that vary over the devices of a mapped axis if the samples do, as fori_loop under shard_map demands.
    zero = jnp.where(x[0, 0] == 0, 0, 0)
    out = jax.tree.map(lambda leaf: jnp.full((n, *leaf.shape[1:]), zero.astype(leaf.dtype), leaf.dtype), shapes)
    x, out = jax.lax.stop_gradient((x, out))

    def put(index, out):
        start = jnp.minimum(index * tile, n - tile)
        parts = jax.lax.stop_gradient(row_function(jax.lax.dynamic_slice_in_dim(x, start, tile)))
        return jax.tree.map(lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0), out, parts)

    return jax.lax.fori_loop(0, -(-n // tile), put, out)


@persistent_jit(static_argnums=0)
def _ambiguous(options, components, x):
    """Mask of the samples for which, by rounded logits, more than one component may have a responsibility above 0."""
    logits_of = em.joint_log_densities(options, components)
    eps, max_log_weight = float(jnp.finfo(x.dtype).eps), jnp.max(components.log_weights)

    # A difference of two logits q/2 below their maximum is rounded by up to 16·eps·q/2. The slack is twice that.
    def of_tile(rows):
        logits, _ = logits_of(as_columns(rows))
        max_logit = jnp.max(logits, axis=0)
        slack = 32 * eps * jnp.abs(max_log_weight - max_logit) + far.NEGLIGIBLE_LOG_RATIO
        near = jnp.sum((logits >= (max_logit - slack)[None, :]).astype(jnp.int32), axis=0)
        return (near > 1) | ~jnp.isfinite(max_logit)

    return map_rows(of_tile, x, tile=em.tile_of(options, as_columns(x), components.means))

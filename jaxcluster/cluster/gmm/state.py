"""States of a mixture, in the frame of the computation and as users see them, and what leads from one to the other.

The computation runs in a *frame*: samples are centered, and scaled by 2^e so that a typical coordinate is near 1. A
log-density in data units is that in the frame plus e·log 2 for each observed feature, the log-Jacobian.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.dtypes import float_dtype, publish, times_power_of_two
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.memory import format_bytes
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, CovarianceType, Factor
from jaxcluster.types import Array, Bool, Fit, Float, Published

MAX_VARIANCE_LOG2 = 100
"""Variances in a frame are at most 2¹⁰⁰, so that the sum of 2²⁴ of them is within float32. Coordinates are below 2⁴⁰:
no variance of data matters beside a larger ``reg_covar``."""


class Mixture(NamedTuple):
    """Weighted Gaussians in a frame, with the factors of their covariances.

    Attributes:
        weights: (k,), summing to 1.
        means: (k, d).
        covariances: in the shape of their type.
        factor: of the covariances.
    """

    weights: Float[Array, "*batch k"]
    means: Float[Array, "*batch k d"]
    covariances: Float[Array, ...]
    factor: Factor


class GMMState(NamedTuple):
    """A fitted mixture.

    Attributes:
        weights: (n_components,), summing to 1.
        means: (n_components, n_features).
        covariances: (k, d, d) full, (1, d, d) tied, (k, d) diagonal or (k,) spherical: the shape tells the type.
        lower_bound: () mean log-likelihood of a sample (nats) before the last step, as scikit-learn defines it.
        collapsed: (n_components,) mask of those that lost their samples or their variance and were kept finite.
        residual: () change of the lower bound in the last step.
    """

    weights: Float[Published, "*batch k"]
    means: Float[Published, "*batch k d"]
    covariances: Float[Published, ...]
    lower_bound: Float[Published, "*batch"]
    collapsed: Bool[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """Mean negative log-likelihood of a sample (nats), by which runs are compared."""
        return -self.lower_bound

    def leave(self, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, n_observed: Any) -> GMMState:
        """The same mixture in the caller's coordinates and units.

        Args:
            frame: of the fit.
            covariance_type: of the mixture.
            ridge: of the fit.
            n_observed: mean number of observed features of a sample.
        """
        return GMMState(
            published_weights(self.weights, frame),
            frame.leave(self.means),
            ridge.leave(covariance_type, self.covariances, frame),
            to_data_units(self.lower_bound, n_observed, ridge.log_jacobian, frame),
            self.collapsed,
            frame.unscale(self.residual),
        )


class GMMSweep(NamedTuple):
    """Fits of a sweep with their information criteria; m is ``len(ks)``, c is ``len(covariances)``.

    Attributes:
        ks: (m,) numbers of components.
        covariances: (c,) covariance types.
        fits: by type, a `Fit` whose arrays have two more leading axes, (m, n_seeds). Components are padded to max(ks)
            places; those beyond a problem's k have weight 0.
        log_likelihood: (c, m, n_seeds) float64 mean log-likelihood of a sample (nats).
        bic, aic: (c, m, n_seeds) float64; lower is better.
    """

    ks: np.ndarray
    covariances: tuple[str, ...]
    fits: dict[str, Fit]
    log_likelihood: np.ndarray
    bic: np.ndarray
    aic: np.ndarray

    def best(self, criterion: str = "bic") -> tuple[int, str, int]:
        """Model of the least "bic" or "aic".

        Returns:
            Number of components, covariance type, and index of the initialization.
        """
        validation.check_choice("criterion", criterion, ("bic", "aic"))
        values = getattr(self, criterion)
        which_type, which_k, seed = np.unravel_index(np.nanargmin(values), values.shape)
        return int(self.ks[which_k]), self.covariances[which_type], int(seed)


def published_weights(weights: Any, frame: Frame) -> Published:
    """Mixture weights (…, k) for the caller; concrete ones sum to 1 in the caller's dtype."""
    # Computed in float32 they sum to 1 within 1e-7: too coarse for float64 data, where scikit-learn's ``weights_init``
    # rejects such weights.
    if validation.is_traced(weights, frame):
        return frame.unscale(weights)
    wide = np.asarray(weights, np.float64)
    total = wide.sum(axis=-1, keepdims=True)
    return publish(wide / np.where(total > 0, total, 1), frame.dtype)


def wide_means(means: Any, frame: Frame) -> np.ndarray:
    """Concrete means (…, k, d) of a frame in the caller's coordinates, as long doubles."""
    # In the caller's dtype a mean far from 0 is rounded to the spacing of floats there, which may change the label of a
    # sample near a boundary.
    exponent = np.asarray(frame.exponent)[..., None, None]
    origin = np.asarray(frame.origin).astype(np.longdouble)[..., None, :]
    return np.ldexp(np.asarray(means).astype(np.longdouble), -exponent) + origin


def enter_means(means: Any, frame: Frame) -> Any:
    """Means in a frame; those of `wide_means` enter without rounding in between."""
    wide = not validation.is_traced(means, frame) and np.asarray(means).dtype.itemsize > 8
    return means_on_host(means, frame) if wide else frame.enter(means)


def means_on_host(means: Any, frame: Frame) -> np.ndarray:
    """Concrete means in a frame, as float64."""
    origin = np.asarray(frame.origin).astype(np.longdouble)
    centered = np.ldexp(np.asarray(means).astype(np.longdouble), frame.exponent) - np.ldexp(origin, frame.exponent)
    return centered.astype(np.float64)


class Ridge(NamedTuple):
    """``reg_covar`` in a frame, and the log-Jacobian of the frame.

    Attributes:
        reg: () added to every variance (data units²).
        value: () the same in frame units², at most 2^`MAX_VARIANCE_LOG2`.
        log_jacobian: () log-density in data units less that in the frame, for each observed feature (nats).
        clipped: () True if ``value`` is less than ``reg`` because of the limit.
    """

    reg: Any
    value: Any
    log_jacobian: Any
    clipped: Any

    def leave(self, covariance_type: CovarianceType, covariances: Any, frame: Frame) -> Published:
        """Covariances of a fit (…), in data units² and the shape of `GMMState`."""
        leaving = frame.unscale(covariances, length=2)
        traced = validation.is_traced(self, covariances, frame)
        if not traced and not self.clipped:
            return leaving
        # Subtract the clipped ridge of the frame, and add reg_covar itself in data units.
        array = jnp if traced else np
        one = array.ones((), covariances.dtype)
        if covariance_type.name in ("full", "tied"):
            one = array.eye(covariances.shape[-1], dtype=covariances.dtype)
        one = one.reshape((1,) * (covariances.ndim - one.ndim) + one.shape)
        scatter = frame.unscale(covariances - self.value * one, length=2)
        public = array.asarray(scatter) + self.reg * one
        return jnp.where(self.clipped, public, leaving) if traced else publish(public, frame.dtype)


def ridge_in_frame(frame: Frame, reg: Any) -> Ridge:
    """`Ridge` of a frame; in float64 on the host if frame and ``reg`` are concrete."""
    largest = 2.0**MAX_VARIANCE_LOG2
    value = scale_in_frame(frame, reg, length=2)
    if not validation.is_traced(value):
        # A clipped ridge dominates all covariances: the density per feature changes by √(value/reg), not by 2^e.
        clipped = bool(value > largest)
        log_jacobian = (math.log(largest) - math.log(reg)) / 2 if clipped else frame_log_jacobian(frame)
        return Ridge(float(reg), float(min(value, largest)), float(log_jacobian), clipped)
    log_reg = jnp.log(jnp.where(reg > 0, reg, 1)) if validation.is_traced(reg) else math.log(reg) if reg > 0 else 0.0
    reg = jnp.asarray(reg).astype(value.dtype)
    clipped = value > largest
    clipped_jacobian = (math.log(largest) - jnp.asarray(log_reg).astype(value.dtype)) / 2
    return Ridge(
        reg,
        jnp.minimum(value, largest),
        jnp.where(clipped, clipped_jacobian, frame_log_jacobian(frame, value.dtype)),
        clipped,
    )


def limit_frame(frame: Frame, variance: Any) -> Frame:
    """Frame whose exponent is lowered until a concrete variance (data units²) is below 2^`MAX_VARIANCE_LOG2`."""
    if validation.is_traced(frame, variance) or variance == 0:
        return frame
    highest = (MAX_VARIANCE_LOG2 - int(np.frexp(float(variance))[1])) // 2
    return frame if int(frame.exponent) <= highest else frame._replace(exponent=highest)


def scale_in_frame(frame: Frame, number: Any, *, length: int) -> Any:
    """Number in units of data^length, in units of a frame; a concrete number may be beyond the range of float32."""
    if not validation.is_traced(frame) or validation.is_traced(number):
        return frame.scale(number, length=length)
    mantissa, exponent = np.frexp(np.float64(number))
    dtype = float_dtype(frame.dtype)
    return times_power_of_two(jnp.asarray(mantissa.astype(dtype)), int(exponent) + length * frame.exponent)


def frame_log_jacobian(frame: Frame, dtype: np.dtype | None = None) -> Any:
    """Log-density in data units less that in the frame, for each feature (nats); of ``dtype`` if traced."""
    if not validation.is_traced(frame.exponent):
        return int(frame.exponent) * math.log(2)
    return jnp.asarray(frame.exponent).astype(dtype or jnp.float32) * math.log(2)


def to_data_units(
    log_p: Any, n_observed: Any, log_jacobian: Any, frame: Frame, *, dtype: np.dtype | None = None
) -> Published:
    """Log-densities (nats) in data units, from those in a frame of samples with ``n_observed`` observed features."""
    if validation.is_traced(log_p, n_observed, log_jacobian, frame):
        return log_p + jnp.asarray(n_observed).astype(log_p.dtype) * jnp.asarray(log_jacobian).astype(log_p.dtype)
    if log_jacobian == 0:
        return frame.unscale(log_p, dtype=dtype)
    return publish(
        np.asarray(log_p, np.float64) + np.asarray(n_observed, np.float64) * log_jacobian, dtype or frame.dtype
    )


def public_history(history: Any, steps: Any, frame: Frame) -> Published:
    """Objectives (…, capacity) of a fit for the caller: 0 after the last step, which has no other unit."""
    traced = validation.is_traced(history, steps, frame)
    array = jnp if traced else np
    valid = array.arange(history.shape[-1], dtype=np.int32) < array.asarray(steps)[..., None]
    history = array.where(valid, history, 0)
    return history if traced else publish(history, frame.dtype)


def covariance_type_named(covariance: str) -> CovarianceType:
    """Covariance type of this name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    validation.check_choice("covariance", covariance, COVARIANCE_TYPES)
    return COVARIANCE_TYPES[covariance]


def check_sparse(x: Any, covariance_type: CovarianceType, missing: bool, k: int, d: int) -> None:
    """Raise TypeError for sparse samples where a mixture takes dense ones, with the bytes of its covariances."""
    if not is_sparse(x):
        return
    if missing:
        raise TypeError(
            "x is sparse, and missing=True takes dense rows: in a sparse matrix an absent entry is 0. Pass "
            "missing=False."
        )
    if covariance_type.name in ("full", "tied"):
        matrices = k if covariance_type.name == "full" else 1
        raise TypeError(
            f"x is sparse, and {covariance_type.name} covariances take dense rows: {matrices:,} "
            f"{'matrices' if matrices > 1 else 'matrix'} of {d:,} columns take "
            f"{format_bytes(8.0 * matrices * d * d)}. Pass covariance='diag' or 'spherical' (covariance_type of the "
            f"estimator). {validation.dense_remedy(x, 'x')}"
        )


def n_parameters(covariance: str, k: int, d: int) -> int:
    """Number of free parameters: covariances, means, and k − 1 weights."""
    return covariance_type_named(covariance).n_parameters(k, d) + k * d + k - 1


def n_parameters_of(state: GMMState) -> int:
    """Number of free parameters of a mixture."""
    covariance_type, _ = covariance_type_of(state)
    return n_parameters(covariance_type.name, *state.means.shape)


def public_covariances(covariance_type: CovarianceType, covariances: Array) -> Array:
    """Covariances in the shape of `GMMState`: (1, d, d) if tied."""
    return covariances[None] if covariance_type.name == "tied" else covariances


def frame_of_mixture(state: Any, frame: Frame | None = None) -> Frame:
    """Frame in which samples are compared with a mixture.

    Args:
        state: with the weights, means and covariances of the mixture.
        frame: of its fit; its exponent is lowered if the covariances are too large for it. None for a frame in which
            means and standard deviations of a typical component are near 1.
    """
    means, deviations = _means_and_deviations(state)
    if frame is None:
        array = jnp if validation.is_traced(means, deviations) else np
        # Of means far apart in standard deviations distances are by differences: all digits of x count.
        return frame_of(array.concatenate([means, means - deviations, means + deviations]), digits=True)
    return frame if validation.is_traced(deviations) else limit_frame(frame, float(deviations.max()) ** 2)


def _means_and_deviations(state):
    """Means and standard deviations (k, d) of the components with a positive weight."""
    covariance_type, covariances = covariance_type_of(state)
    k, d = state.means.shape
    if validation.is_traced(state.means, state.weights, covariances):
        values = jax.lax.stop_gradient((state.weights, state.means, covariances))
        weights, means, covariances = map(jnp.asarray, values)
        variances = jnp.maximum(variances_of(covariance_type, covariances, k, d), 0).astype(means.dtype)
        # Shapes are static under jit: components of weight 0 are replaced by the heaviest one instead of removed.
        heaviest = jnp.argmax(weights)
        active = (weights > 0)[:, None]
        means = jnp.where(active, means, means[heaviest][None])
        return means, jnp.sqrt(jnp.where(active, variances, variances[heaviest][None]))
    active = np.asarray(state.weights) > 0
    active = active if active.any() else np.ones(k, bool)
    means = np.asarray(state.means)
    means = means.astype(np.float64) if means.dtype.itemsize > 8 else means
    variances = np.maximum(np.asarray(variances_of(covariance_type, np.asarray(covariances, np.float64), k, d)), 0)
    # In the dtype of the means, which decides about the precision of the computation.
    return means[active], np.sqrt(variances[active]).astype(means.dtype)


def variances_of(covariance_type: CovarianceType, covariances: Any, k: int, d: int) -> Any:
    """Variances of the features, (k, d), of covariances in the shape of their type."""
    array = jnp if validation.is_traced(covariances) else np
    if covariance_type.name in ("full", "tied"):
        covariances = array.diagonal(covariances, axis1=-2, axis2=-1)
    if covariance_type.name == "spherical":
        covariances = covariances[:, None]
    return array.broadcast_to(covariances if covariances.ndim == 2 else covariances[None], (k, d))


def pad_components(state: Any, padded: int) -> GMMState:
    """The same concrete mixture of ``padded`` components: those beyond its own weigh 0."""
    k = state.means.shape[0]

    def pad(array):
        return np.pad(np.asarray(array), [(0, padded - k)] + [(0, 0)] * (np.ndim(array) - 1), mode="edge")

    tied = covariance_type_of(state)[0].name == "tied"
    covariances = state.covariances if tied else pad(state.covariances)
    weights = np.pad(np.asarray(state.weights), (0, padded - k))
    return GMMState(weights, pad(state.means), covariances, np.zeros(()), np.zeros(padded, bool), np.zeros(()))


def parameters_in_frame(state: Any, frame: Frame, dtype: np.dtype) -> tuple[CovarianceType, Array, Array, Array]:
    """Parameters of a mixture in a frame.

    Returns:
        Covariance type, weights, means and covariances; the arrays are of ``dtype``.
    """
    covariance_type, covariances = covariance_type_of(state)
    covariances = frame.scale(covariances, length=2)
    arrays = state.weights, enter_means(state.means, frame), covariances
    if not validation.is_traced(arrays):
        arrays = (np.asarray(each).astype(dtype) for each in arrays)
    weights, means, covariances = (jnp.asarray(each).astype(dtype) for each in arrays)
    return covariance_type, weights, means, covariances


def covariance_type_of(state: GMMState) -> tuple[CovarianceType, Published]:
    """Covariance type of a state, inferred from shapes.

    Returns:
        The type, and the covariances in its shape.
    """
    k, d = state.means.shape
    shape = np.shape(state.covariances)
    if shape == (1, d, d) and k > 1:
        return COVARIANCE_TYPES["tied"], state.covariances[0]
    for name in ("full", "diag", "spherical"):
        if shape == COVARIANCE_TYPES[name].shape(k, d):
            return COVARIANCE_TYPES[name], state.covariances
    raise ValueError(
        f"covariances of shape {shape} fit no type for means of shape {(k, d)}: full is {(k, d, d)}, tied {(1, d, d)}, "
        f"diag {(k, d)}, spherical {(k,)}."
    )

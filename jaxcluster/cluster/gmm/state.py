"""A mixture as its iteration sees it, and as its users do."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.frame import Frame, float_dtype, frame_of, publish, times_power_of_two
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, CovarianceType, Factor
from jaxcluster.types import Array, Bool, Float, Published

LARGEST_VARIANCE = 100
"""Variances in a frame are at most 2¹⁰⁰: the sum of 2²⁴ of them is within float32. Beside a larger ``reg_covar`` no
variance of rows counts, as coordinates are below 2⁴⁰."""


class Mixture(NamedTuple):
    """Weighted Gaussians in a frame, with the factors that their densities need.

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
        weights: (k,) share of each component, summing to 1.
        means: (k, d).
        covariances: (k, d, d) full, (1, d, d) tied, (k, d) diagonal or (k,) spherical: the shape tells the type.
        lower_bound: () mean log-likelihood of a row (nats) before the last step, as scikit-learn defines it.
        collapsed: (k,) components that lost their rows or their spread and were kept finite.
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
        """The mean negative log-likelihood, by which runs are compared."""
        return -self.lower_bound

    def leave(self, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, cells: Any) -> GMMState:
        """The same mixture out of the frame of its fit.

        Args:
            frame: of the fit.
            covariance_type: the type of the covariances.
            ridge: of the fit.
            cells: mean number of observed cells of a row.
        """
        return GMMState(
            published_shares(self.weights, frame),
            frame.leave(self.means),
            ridge.leave(covariance_type, self.covariances, frame),
            shifted(self.lower_bound, cells, ridge.cell, frame),
            self.collapsed,
            frame.unscale(self.residual),
        )


def published_shares(weights: Any, frame: Frame) -> Published:
    """Shares (…, k) as they are published: concrete ones sum to 1 as closely as the dtype of the caller allows.

    In float32 they sum to 1 within 1e-7, which float64 rows show, and which scikit-learn's ``weights_init`` refuses.
    """
    if check.is_traced(weights, frame):
        return frame.unscale(weights)
    wide = np.asarray(weights, np.float64)
    total = wide.sum(axis=-1, keepdims=True)
    return publish(wide / np.where(total > 0, total, 1), frame.dtype)


def wide_means(means: Any, frame: Frame) -> np.ndarray:
    """Concrete means (…, k, d) of a frame in the caller's coordinates, in the widest float there is.

    As published, a mean far from 0 is rounded to the spacing of numbers there, which a label near a boundary may show.
    """
    exponent = np.asarray(frame.exponent)[..., None, None]
    origin = np.asarray(frame.origin).astype(np.longdouble)[..., None, :]
    return np.ldexp(np.asarray(means).astype(np.longdouble), -exponent) + origin


def enter_means(means: Any, frame: Frame) -> Any:
    """Means in a frame; those of `wide_means` keep their digits."""
    wide = not check.is_traced(means, frame) and np.asarray(means).dtype.itemsize > 8
    return means_on_host(means, frame) if wide else frame.enter(means)


def means_on_host(means: Any, frame: Frame) -> np.ndarray:
    """Concrete means in a frame, in float64."""
    origin = np.asarray(frame.origin).astype(np.longdouble)
    moved = np.ldexp(np.asarray(means).astype(np.longdouble), frame.exponent) - np.ldexp(origin, frame.exponent)
    return moved.astype(np.float64)


class Ridge(NamedTuple):
    """``reg_covar`` and what a change of units does to a log-density.

    Attributes:
        reg: () added to every variance (data units²).
        value: () the same in units of the frame, at most 2^`LARGEST_VARIANCE`.
        cell: () log-density in data units less that in the frame, for each cell of a row (nats).
        cut: () whether ``value`` is less than ``reg``.
    """

    reg: Any
    value: Any
    cell: Any
    cut: Any

    def leave(self, covariance_type: CovarianceType, covariances: Any, frame: Frame) -> Published:
        """Covariances (…) of a fit, in the shape that `GMMState` has them in, in data units²."""
        leaving = frame.unscale(covariances, length=2)
        traced = check.is_traced(self, covariances, frame)
        if not traced and not self.cut:
            return leaving
        # The ridge that was used in the frame is taken off, and the one that was asked for is added.
        array = jnp if traced else np
        one = array.ones((), covariances.dtype)
        if covariance_type.name in ("full", "tied"):
            one = array.eye(covariances.shape[-1], dtype=covariances.dtype)
        one = one.reshape((1,) * (covariances.ndim - one.ndim) + one.shape)
        rest = frame.unscale(covariances - self.value * one, length=2)
        mended = array.asarray(rest) + self.reg * one
        return jnp.where(self.cut, mended, leaving) if traced else publish(mended, frame.dtype)


def ridge_in(frame: Frame, reg: Any) -> Ridge:
    """``reg_covar`` in a frame. Number of the host: both at once, in float64."""
    largest = 2.0**LARGEST_VARIANCE
    value = scaled(frame, reg, length=2)
    if not check.is_traced(value):
        cut = bool(value > largest)
        cell = (math.log(largest) - math.log(reg)) / 2 if cut else volume(frame)
        return Ridge(float(reg), float(min(value, largest)), float(cell), cut)
    log_reg = jnp.log(jnp.where(reg > 0, reg, 1)) if check.is_traced(reg) else math.log(reg) if reg > 0 else 0.0
    reg = jnp.asarray(reg).astype(value.dtype)
    cut = value > largest
    lost = (math.log(largest) - jnp.asarray(log_reg).astype(value.dtype)) / 2
    return Ridge(reg, jnp.minimum(value, largest), jnp.where(cut, lost, volume(frame, value.dtype)), cut)


def below_largest_variance(frame: Frame, variance: Any) -> Frame:
    """The frame, or one whose exponent is so much lower that a concrete variance (data units²) is within its limit."""
    if check.is_traced(frame, variance) or variance == 0:
        return frame
    highest = (LARGEST_VARIANCE - int(np.frexp(float(variance))[1])) // 2
    return frame if int(frame.exponent) <= highest else frame._replace(exponent=highest)


def scaled(frame: Frame, number: Any, *, length: int) -> Any:
    """A number in the caller's units in those of a frame; one of the host may be beyond the range of float32."""
    if not check.is_traced(frame) or check.is_traced(number):
        return frame.scale(number, length=length)
    mantissa, exponent = np.frexp(np.float64(number))
    dtype = float_dtype(frame.dtype)
    return times_power_of_two(jnp.asarray(mantissa.astype(dtype)), int(exponent) + length * frame.exponent)


def volume(frame: Frame, dtype: np.dtype | None = None) -> Any:
    """Log-density of a cell in data units less that in the frame (nats); of ``dtype`` if it is traced."""
    if not check.is_traced(frame.exponent):
        return int(frame.exponent) * math.log(2)
    return jnp.asarray(frame.exponent).astype(dtype or jnp.float32) * math.log(2)


def shifted(log_p: Any, cells: Any, cell: Any, frame: Frame, *, dtype: np.dtype | None = None) -> Published:
    """Log-densities of rows in a frame as those in data units (nats); ``cells`` of each are observed."""
    if check.is_traced(log_p, cells, cell, frame):
        return log_p + jnp.asarray(cells).astype(log_p.dtype) * jnp.asarray(cell).astype(log_p.dtype)
    if cell == 0:
        return frame.unscale(log_p, dtype=dtype)
    return publish(np.asarray(log_p, np.float64) + np.asarray(cells, np.float64) * cell, dtype or frame.dtype)


def covariance_type_named(covariance: str) -> CovarianceType:
    """The type of covariance of this name; ValueError lists the known ones."""
    check.check_choice("covariance", covariance, COVARIANCE_TYPES)
    return COVARIANCE_TYPES[covariance]


def public_covariances(covariance_type: CovarianceType, covariances: Array) -> Array:
    """Covariances as `GMMState` has them."""
    return covariances[None] if covariance_type.name == "tied" else covariances


def frame_of_mixture(state: Any, frame: Frame | None = None) -> Frame:
    """The frame in which a mixture, known by its weights, means and covariances, is compared with rows.

    Args:
        state: of the mixture.
        frame: of its fit; its exponent is lowered where the covariances are too large for it. None for one in which a
            typical component is near 1.
    """
    means, deviations = _means_and_deviations(state)
    if frame is None:
        array = jnp if check.is_traced(means, deviations) else np
        return frame_of(array.concatenate([means, means - deviations, means + deviations]))
    return frame if check.is_traced(deviations) else below_largest_variance(frame, float(deviations.max()) ** 2)


def _means_and_deviations(state):
    """Means and standard deviations (k, d) of the components that have a weight, in float64 if they are concrete."""
    covariance_type, covariances = covariance_type_of(state)
    k, d = state.means.shape
    if check.is_traced(state.means, state.weights, covariances):
        held = jax.lax.stop_gradient((state.weights, state.means, covariances))
        weights, means, covariances = map(jnp.asarray, held)
        variances = jnp.maximum(variances_of(covariance_type, covariances, k, d), 0).astype(means.dtype)
        heaviest = jnp.argmax(weights)
        kept = (weights > 0)[:, None]
        means = jnp.where(kept, means, means[heaviest][None])
        return means, jnp.sqrt(jnp.where(kept, variances, variances[heaviest][None]))
    kept = np.asarray(state.weights) > 0
    kept = kept if kept.any() else np.ones(k, bool)
    means = np.asarray(state.means)
    means = means.astype(np.float64) if means.dtype.itemsize > 8 else means
    variances = np.maximum(np.asarray(variances_of(covariance_type, np.asarray(covariances, np.float64), k, d)), 0)
    # In the dtype of the means, which tells in what precision they are compared.
    return means[kept], np.sqrt(variances[kept]).astype(means.dtype)


def variances_of(covariance_type: CovarianceType, covariances: Any, k: int, d: int) -> Any:
    """(k, d) variances of the columns, of covariances in the shape of their type."""
    array = jnp if check.is_traced(covariances) else np
    if covariance_type.name in ("full", "tied"):
        covariances = array.diagonal(covariances, axis1=-2, axis2=-1)
    if covariance_type.name == "spherical":
        covariances = covariances[:, None]
    return array.broadcast_to(covariances if covariances.ndim == 2 else covariances[None], (k, d))


def parts_in_frame(state: Any, frame: Frame, dtype: np.dtype) -> tuple[CovarianceType, Array, Array, Array]:
    """A mixture in a frame: its type of covariance, weights, means and covariances, as arrays of ``dtype``."""
    covariance_type, covariances = covariance_type_of(state)
    covariances = frame.scale(covariances, length=2)
    parts = state.weights, enter_means(state.means, frame), covariances
    if not check.is_traced(parts):
        parts = (np.asarray(each).astype(dtype) for each in parts)
    return covariance_type, *(jnp.asarray(each).astype(dtype) for each in parts)


def covariance_type_of(state: GMMState) -> tuple[CovarianceType, Published]:
    """The type of a state's covariances, by their shape, and the covariances in the shape of their type."""
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

"""Priors of a Bayesian mixture: parameters of the caller, and scikit-learn's defaults from the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.bayesian_gmm.variational_em import Prior
from jaxcluster.cluster.gmm import em
from jaxcluster.core import validation
from jaxcluster.core.fold import all_reduce, fold_rows
from jaxcluster.core.frame import Frame
from jaxcluster.ops.gaussian import DIFFERENCES, CovarianceType
from jaxcluster.ops.gaussian.full import positive_definite
from jaxcluster.types import Array, Float, Points


class PriorParams(NamedTuple):
    """Parameters of a prior; those that are None are set from the data and the number of components."""

    weight_concentration: Any = None
    mean_precision: Any = None
    mean: Any = None
    degrees_of_freedom: Any = None
    covariance: Any = None


def check_prior(params: PriorParams, covariance_type: CovarianceType, d: int) -> PriorParams:
    """Checked parameters, as arrays of the shapes in `Prior`.

    Raises:
        ValueError, TypeError: a wrong shape, a number that is not positive, too few degrees of freedom, a covariance
            that is not symmetric positive definite.
    """
    for name in ("weight_concentration", "mean_precision", "degrees_of_freedom"):
        value = getattr(params, name)
        if value is not None:
            validation.check_positive(f"{name}_prior", value)
    # A Wishart distribution of d×d matrices has a density for more than d − 1 degrees of freedom.
    degrees = params.degrees_of_freedom
    if degrees is not None and not validation.is_traced(degrees) and not degrees > d - 1:
        raise ValueError(f"degrees_of_freedom_prior={degrees} must be greater than {d - 1} for {d} columns.")
    mean = _array("mean_prior", params.mean, (d,))
    covariance = _array("covariance_prior", params.covariance, _shape(covariance_type, d))
    if covariance is not None and not validation.is_traced(covariance):
        _check_definite(covariance)
    return params._replace(mean=mean, covariance=covariance)


def center_prior(params: PriorParams, frame: Frame, dtype: np.dtype) -> PriorParams:
    """Parameters in a frame, as arrays of ``dtype``."""
    mean = None if params.mean is None else frame.enter(params.mean)
    covariance = None if params.covariance is None else frame.scale(params.covariance, length=2)

    def as_array(value):
        return jnp.asarray(value if validation.is_traced(value) else np.asarray(value).astype(dtype)).astype(dtype)

    return jax.tree.map(as_array, params._replace(mean=mean, covariance=covariance))


def complete_prior(
    options: em.EMOptions, params: PriorParams, points: Points, reg: Float[Array, ""], row: Float[Array, ""]
) -> Prior:
    """Prior with scikit-learn's defaults for the parameters that are None.

    The caller has set the concentration, since its default depends on the number of components. The other defaults are
    a mean precision of 1, the mean of the data, d degrees of freedom, and the unbiased covariance of the data, to which
    ``reg`` is added if it is singular. A sample of weight w counts w times.

    Args:
        options: of EM.
        params: checked, in the frame.
        points: samples in the frame.
        reg: added to every variance (frame units²).
        row: () weight in the frame of a sample of weight 1.
    """
    d, dtype = points.x.shape[1], points.x.dtype
    mean, covariance = params.mean, params.covariance
    if mean is None or covariance is None:
        data_mean, data_covariance = _mean_and_covariance(options, points, reg, row)
        mean = data_mean if mean is None else mean
        covariance = data_covariance if covariance is None else covariance

    def default(value, otherwise):
        return jnp.asarray(otherwise, dtype) if value is None else value

    return Prior(
        weight_concentration=params.weight_concentration,
        mean_precision=default(params.mean_precision, 1),
        mean=mean,
        degrees_of_freedom=default(params.degrees_of_freedom, d),
        covariance=covariance,
        reg=reg,
    )


def _mean_and_covariance(options, points, reg, row):
    """Mean and covariance of the data; 0 and 1 if they overflow, as then the status of the fit tells."""
    covariance_type, samples, d = options.covariance_type, em.transpose_points(points), points.x.shape[1]
    total, sums = all_reduce((jnp.sum(points.weight), points.weight @ points.x), options.axis_name)
    center = (sums / total)[None]

    def tile(samples):
        return covariance_type.moments(samples.weight[None], center, samples.x, jnp.asarray(DIFFERENCES, jnp.int32)), ()

    size = em.em_tile(options, points.weight.shape[0], 1, d)
    moments, _ = fold_rows(tile, samples, tile=size, axis=-1, axis_name=options.axis_name)
    delta = moments.first / total
    # Bessel's correction n/(n − 1); weights that sum to less than 2 samples would make the denominator 0 or negative.
    unbiased = total / jnp.maximum(total - row, total / 2)
    covariance = covariance_type.covariances(moments, delta, moments.weight) * unbiased
    finite = jnp.all(jnp.isfinite(covariance)) & jnp.all(jnp.isfinite(delta))
    one = covariance_type.isotropic(jnp.ones_like(total), 1, d)
    covariance = jnp.where(finite, covariance, one)
    # The prior must have a Cholesky factor: a singular covariance gets ``reg`` added.
    sound = positive_definite(covariance_type.dense(covariance, 1, d)[0])
    covariance = covariance + jnp.where(sound, 0, reg) * one
    mean = jnp.where(finite, (center + delta)[0], 0)
    return mean.astype(samples.x.dtype), covariance.reshape(_shape(covariance_type, d)).astype(samples.x.dtype)


def _shape(covariance_type, d):
    shape = covariance_type.shape(1, d)
    return shape if covariance_type.name == "tied" else shape[1:]


def _array(name, value, shape):
    if value is None:
        return None
    value = value if validation.is_traced(value) else np.asarray(value)
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {value.dtype}.")
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}.")
    if not validation.is_traced(value):
        validation.check_finite(value, name=name)
    return value


def _check_definite(covariance):
    values = np.asarray(covariance, np.float64)
    if values.ndim < 2:
        if not (values > 0).all():
            raise ValueError(f"covariance_prior must be positive; its least variance is {values.min():.4g}.")
        return
    if not np.allclose(values, values.T, rtol=0, atol=1e-5 * np.abs(values).max()):
        raise ValueError("covariance_prior must be symmetric.")
    least = np.linalg.eigvalsh(values)[0]
    if not least > 0:
        raise ValueError(f"covariance_prior must be positive definite; its least eigenvalue is {least:.4g}.")

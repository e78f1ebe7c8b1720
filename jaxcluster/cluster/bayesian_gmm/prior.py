"""Priors of a mixture, those that a caller gives and those that are made of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.bayesian_gmm.posterior import Prior
from jaxcluster.cluster.gmm import em
from jaxcluster.core import check
from jaxcluster.core.fold import across, fold_rows
from jaxcluster.core.frame import Frame
from jaxcluster.ops.gaussian import DIFFERENCES, CovarianceType
from jaxcluster.ops.gaussian.full import positive_definite
from jaxcluster.types import Array, Float, Points


class Given(NamedTuple):
    """The given part of a prior; None for what follows from the rows and the number of components."""

    weight_concentration: Any = None
    mean_precision: Any = None
    mean: Any = None
    degrees_of_freedom: Any = None
    covariance: Any = None


def check_given(given: Given, covariance_type: CovarianceType, d: int) -> Given:
    """The same with arrays of checked shapes and values; `Prior` tells the shapes.

    Raises:
        ValueError, TypeError: a wrong shape, a number that is not positive, too few degrees of freedom, a covariance
            that is not symmetric positive definite.
    """
    for name in ("weight_concentration", "mean_precision", "degrees_of_freedom"):
        value = getattr(given, name)
        if value is not None:
            check.check_positive(f"{name}_prior", value)
    degrees = given.degrees_of_freedom
    if degrees is not None and not check.is_traced(degrees) and not degrees > d - 1:
        raise ValueError(f"degrees_of_freedom_prior={degrees} must be greater than {d - 1} for {d} columns.")
    mean = _array("mean_prior", given.mean, (d,))
    covariance = _array("covariance_prior", given.covariance, _shape(covariance_type, d))
    if covariance is not None and not check.is_traced(covariance):
        _check_definite(covariance)
    return given._replace(mean=mean, covariance=covariance)


def enter(given: Given, frame: Frame, dtype: np.dtype) -> Given:
    """The same in a frame, as arrays of ``dtype``."""
    mean = None if given.mean is None else frame.enter(given.mean)
    covariance = None if given.covariance is None else frame.scale(given.covariance, length=2)

    def place(value):
        return jnp.asarray(value if check.is_traced(value) else np.asarray(value).astype(dtype)).astype(dtype)

    return jax.tree.map(place, given._replace(mean=mean, covariance=covariance))


def complete(
    options: em.EMOptions, given: Given, points: Points, k: int, reg: Float[Array, ""], row: Float[Array, ""]
) -> Prior:
    """The prior, what is not given of it as scikit-learn has it.

    These are: a concentration of 1/k, one row's precision of the mean, the mean of the rows, d degrees of freedom, and
    the rows' unbiased covariance, to which ``reg`` is added where it is singular. A row of weight w counts w times.

    Args:
        row: () weight of a row that counts once, in the frame.
    """
    d, dtype = points.x.shape[1], points.x.dtype
    mean, covariance = given.mean, given.covariance
    if mean is None or covariance is None:
        found_mean, found_covariance = _of_rows(options, points, reg, row)
        mean = found_mean if mean is None else mean
        covariance = found_covariance if covariance is None else covariance

    def default(value, otherwise):
        return jnp.asarray(otherwise, dtype) if value is None else value

    return Prior(
        weight_concentration=default(given.weight_concentration, 1 / k),
        mean_precision=default(given.mean_precision, 1),
        mean=mean,
        degrees_of_freedom=default(given.degrees_of_freedom, d),
        covariance=covariance,
        reg=reg,
    )


def _of_rows(options, points, reg, row):
    """Mean and covariance of the rows; 0 and 1 in place of numbers beyond the dtype, of which the status tells."""
    covariance_type, columns, d = options.covariance_type, em.as_columns(points), points.x.shape[1]
    total, sums = across((jnp.sum(points.weight), points.weight @ points.x), options.axis_name)
    about = (sums / total)[None]

    def tile(columns):
        return covariance_type.moments(columns.weight[None], about, columns.x, jnp.asarray(DIFFERENCES, jnp.int32)), ()

    size = em.em_tile(options, points.weight.shape[0], 1, d)
    moments, _ = fold_rows(tile, columns, tile=size, axis=-1, axis_name=options.axis_name)
    delta = moments.first / total
    # One less than the rows; where weights are shares that sum to 1 or so, not less than half of them.
    unbiased = total / jnp.maximum(total - row, total / 2)
    covariance = covariance_type.covariances(moments, delta, moments.weight) * unbiased
    finite = jnp.all(jnp.isfinite(covariance)) & jnp.all(jnp.isfinite(delta))
    one = covariance_type.isotropic(jnp.ones_like(total), 1, d)
    covariance = jnp.where(finite, covariance, one)
    sound = positive_definite(covariance_type.dense(covariance, 1, d)[0])
    covariance = covariance + jnp.where(sound, 0, reg) * one
    mean = jnp.where(finite, (about + delta)[0], 0)
    return mean.astype(columns.x.dtype), covariance.reshape(_shape(covariance_type, d)).astype(columns.x.dtype)


def _shape(covariance_type, d):
    shape = covariance_type.shape(1, d)
    return shape if covariance_type.name == "tied" else shape[1:]


def _array(name, value, shape):
    if value is None:
        return None
    value = value if check.is_traced(value) else np.asarray(value)
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {value.dtype}.")
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}.")
    if not check.is_traced(value):
        check.check_finite(value, name=name)
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

"""What rounding on the way into a frame took from the components of a fit, seen on the host in the caller's digits.

Coordinates are rounded by up to eps/2 of themselves. Means and variances tell which components lie so far out that this
counts beside their spread; of these alone the rows are looked at.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm.state import variances_of
from jaxcluster.core.frame import Prepared
from jaxcluster.ops.gaussian import CovarianceType
from jaxcluster.types import Fit, Int, Published, Status

RESOLUTION = 0.05
"""Rounding errors of coordinates up to this share of a component's standard deviation are taken for resolved: they add
less than 1/400 of themselves squared to its variance."""


def resolve(
    fitted: Fit, x: Any, prepared: Prepared, covariance_type: CovarianceType, labels: Int[Published, "*batch n"]
) -> tuple[Int[Published, "*batch"], np.ndarray]:
    """The status of a fit, and its means with what rounding took from them.

    PRECISION says that the rows of a component differ, and were rounded by more than its spread bears. Rows that are
    equal, such as a far one that is alone in its component, have lost nothing: the mean is where they are.

    Args:
        fitted: concrete, in the frame, its state with means (…, k, d) and covariances.
        x: the rows of the caller.
        prepared: the rows in the frame.
        covariance_type: the type of the covariances.
        labels: of the rows that are real.

    Returns:
        The status, and means (…, k, d) in the frame, in float64.
    """
    state = fitted.state
    means = np.array(state.means, np.float64)
    if not prepared.narrowed:
        return fitted.status, means
    status, (k, d) = np.array(fitted.status), means.shape[-2:]
    eps = float(jnp.finfo(prepared.points.x.dtype).eps)
    weight = np.asarray(prepared.points.weight)[: prepared.n]
    for at in np.ndindex(status.shape):
        covariances = np.asarray(state.covariances[at], np.float64)
        covariances = covariances[0] if covariance_type.name == "tied" else covariances
        deviations = np.sqrt(np.maximum(variances_of(covariance_type, covariances, k, d), 0))
        coarse = (eps * np.abs(means[at]) > RESOLUTION * deviations).any(axis=1)
        for j in np.flatnonzero(coarse):
            members = np.flatnonzero((np.asarray(labels[at]) == j) & (weight > 0))
            if not members.size:
                continue
            rows, errors = _errors(x, prepared, members)
            means[at][j] += np.average(errors, axis=0, weights=weight[members])
            lost = np.sqrt(np.mean(np.square(errors), axis=0)) > RESOLUTION * deviations[j]
            if status[at] != Status.NOT_FINITE and (lost & (rows != rows[:1]).any(axis=0)).any():
                status[at] = Status.PRECISION
    return jax.device_put(status.astype(np.int32)), means


def _errors(x, prepared, members):
    """Some rows of the caller, and by how much they were rounded, in the frame; 0 for a missing cell."""
    rows, frame = np.asarray(x)[members], prepared.frame
    wide = rows.astype(np.longdouble) - np.asarray(frame.origin).astype(np.longdouble)
    errors = np.ldexp(wide, frame.exponent) - np.asarray(prepared.points.x)[members]
    return np.nan_to_num(rows), np.nan_to_num(errors).astype(np.float64)

"""Means of a fit, corrected for the rounding of coordinates on the way into its frame."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm.state import variances_of
from jaxcluster.core.preparation import Prepared
from jaxcluster.core.sparse_input import as_csr
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.ops.gaussian import CovarianceType
from jaxcluster.types import Fit, Int, Published, Status

MAX_ROUNDING_RATIO = 0.05
"""Rounding error of coordinates, in standard deviations of a component, up to which a component counts as resolved: it
adds less than (1/20)² = 1/400 to the variance."""


def correct_rounding(
    fitted: Fit, x: Any, prepared: Prepared, covariance_type: CovarianceType, labels: Int[Published, "*batch n"]
) -> tuple[Int[Published, "*batch"], np.ndarray]:
    """Means of a fit, corrected for the rounding of coordinates on the way into the frame, and its status.

    The status is PRECISION if the samples of a component differ and their rounding is large beside its variance. Equal
    samples, such as an outlier that is alone in its component, lose nothing: the corrected mean is where they are.

    Args:
        fitted: concrete, in the frame, its state with means (…, k, d) and covariances.
        x: samples of the caller.
        prepared: samples in the frame.
        covariance_type: of the mixture.
        labels: (…, n), without padding.

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
    # Coordinates are rounded by up to eps/2 of themselves. Means and deviations show for which components this matters;
    # only their samples are examined.
    for at in np.ndindex(status.shape):
        covariances = np.asarray(state.covariances[at], np.float64)
        covariances = covariances[0] if covariance_type.name == "tied" else covariances
        deviations = np.sqrt(np.maximum(variances_of(covariance_type, covariances, k, d), 0))
        suspect = eps * np.abs(means[at]) > MAX_ROUNDING_RATIO * deviations
        # One of several processes does not see all samples: there the state alone decides, alike in all of them.
        if prepared.is_part and suspect.any() and status[at] != Status.NOT_FINITE:
            status[at] = Status.PRECISION
        for j in () if prepared.is_part else np.flatnonzero(suspect.any(axis=1)):
            assigned = np.flatnonzero((np.asarray(labels[at]) == j) & (weight > 0))
            if not assigned.size:
                continue
            columns = np.flatnonzero(suspect[j]) if is_sparse(x) else slice(None)
            rows, errors = _rounding_errors(x, prepared, assigned, columns)
            means[at][j, columns] += np.average(errors, axis=0, weights=weight[assigned])
            lost = np.sqrt(np.mean(np.square(errors), axis=0)) > MAX_ROUNDING_RATIO * deviations[j, columns]
            if status[at] != Status.NOT_FINITE and (lost & (rows != rows[:1]).any(axis=0)).any():
                status[at] = Status.PRECISION
    return jax.device_put(status.astype(np.int32)), means


def _rounding_errors(x, prepared, assigned, columns):
    """Samples of the caller, and their rounding errors in the frame; both 0 for missing values."""
    frame, inside = prepared.frame, prepared.points.x
    if is_sparse(x):
        rows, inside = (as_csr(each)[assigned][:, columns].toarray() for each in (x, inside))
    else:
        rows, inside = (np.asarray(each)[assigned] for each in (x, inside))
    wide = rows.astype(np.longdouble) - np.asarray(frame.origin).astype(np.longdouble)[columns]
    errors = np.ldexp(wide, frame.exponent) - inside
    return np.nan_to_num(rows), np.nan_to_num(errors).astype(np.float64)

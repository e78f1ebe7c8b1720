"""Gaussian log-densities and moments for tiles of samples, for each covariance type."""

from jaxcluster.ops.gaussian.covariance_type import (
    DIFFERENCES,
    EXPANDED,
    HALF_EXPANDED,
    CovarianceType,
    Factor,
    Moments,
    form_of,
    log_densities,
)
from jaxcluster.ops.gaussian.diagonal import DIAGONAL_COVARIANCE, SPHERICAL_COVARIANCE
from jaxcluster.ops.gaussian.far import Components
from jaxcluster.ops.gaussian.full import FULL_COVARIANCE, TIED_COVARIANCE

COVARIANCE_TYPES: dict[str, CovarianceType] = {
    each.name: each for each in (FULL_COVARIANCE, TIED_COVARIANCE, DIAGONAL_COVARIANCE, SPHERICAL_COVARIANCE)
}
"""Covariance types by the names that users write."""

__all__ = [
    "COVARIANCE_TYPES",
    "DIFFERENCES",
    "EXPANDED",
    "HALF_EXPANDED",
    "Components",
    "CovarianceType",
    "Factor",
    "Moments",
    "form_of",
    "log_densities",
]

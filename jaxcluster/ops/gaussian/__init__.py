"""Gaussian densities and moments for tiles of rows, one module a type of covariance."""

from jaxcluster.ops.gaussian.diagonal import DIAGONAL_COVARIANCE
from jaxcluster.ops.gaussian.family import (
    DIFFERENCES,
    PRODUCTS,
    Factor,
    Family,
    Moments,
    form_of,
    log_densities,
)
from jaxcluster.ops.gaussian.far import Components
from jaxcluster.ops.gaussian.full import FULL_COVARIANCE
from jaxcluster.ops.gaussian.spherical import SPHERICAL_COVARIANCE
from jaxcluster.ops.gaussian.tied import TIED_COVARIANCE

FAMILIES: dict[str, Family] = {
    family.name: family for family in (FULL_COVARIANCE, TIED_COVARIANCE, DIAGONAL_COVARIANCE, SPHERICAL_COVARIANCE)
}
"""Types of covariance by the names that users write."""

__all__ = [
    "DIFFERENCES",
    "FAMILIES",
    "PRODUCTS",
    "Components",
    "Factor",
    "Family",
    "Moments",
    "form_of",
    "log_densities",
]

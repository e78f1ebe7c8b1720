"""Covariances of a mixture as scikit-learn keeps them, and what they say of a plane and of a column.

The smaller types are never spread out to (k, d, d).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.core.check import check_choice

SHAPES = {"full": "kdd", "tied": "dd", "diag": "kd", "spherical": "k"}
"""Axes of the covariances of each type: components and columns."""


def as_covariances(covariances: Any, covariance_type: str, k: int, d: int) -> np.ndarray:
    """float64 covariances of k components in d columns; tied ones may have an axis of 1 before, as a `GMMState` does.

    Raises ValueError for another type or shape.
    """
    check_choice("covariance_type", covariance_type, SHAPES)
    covariances = np.asarray(covariances, np.float64)
    if covariance_type == "tied" and covariances.shape[:-2] == (1,):
        covariances = covariances[0]
    shape = tuple({"k": k, "d": d}[axis] for axis in SHAPES[covariance_type])
    if covariances.shape != shape:
        raise ValueError(
            f"covariances {covariances.shape} do not fit {k} components of {d} columns: "
            f"{covariance_type!r} ones must be {shape}."
        )
    return covariances


def project(covariances: np.ndarray, covariance_type: str, k: int, basis: np.ndarray) -> np.ndarray:
    """(k, p, p) covariances BᵀΣB along the columns of a (d, p) basis."""
    if covariance_type == "full":
        return np.einsum("da,kde,eb->kab", basis, covariances, basis, optimize=True)
    if covariance_type == "tied":
        return np.repeat((basis.T @ covariances @ basis)[None], k, axis=0)
    if covariance_type == "diag":
        return np.einsum("da,kd,db->kab", basis, covariances, basis, optimize=True)
    return covariances[:, None, None] * (basis.T @ basis)


def deviations(covariances: np.ndarray, covariance_type: str, k: int, d: int) -> np.ndarray:
    """(k, d) standard deviations of each column; NaN where a variance is negative."""
    if covariance_type in ("full", "tied"):
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    elif covariance_type == "spherical":
        covariances = covariances[:, None]
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.broadcast_to(covariances, (k, d)))

"""Number of clusters that small fits share, so that another k compiles nothing.

A fit of k clusters is computed with more of them, all but the first k inactive: a search over k is one program. The
number of samples is padded for the same reason, by `jaxcluster.core.preparation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.core import validation
from jaxcluster.types import Bool

MIN_CLUSTERS = 8
"""Clusters that the smallest fits are padded to."""

MAX_STEP_WORK = 1 << 22
"""Products and sums of a step up to which inactive clusters cost less than another program: about a millisecond."""


def padded_clusters(k: int, rows: int, work: float, *arguments: Any) -> int | None:
    """Number of clusters, inactive ones among them, that a fit of k clusters is computed with: a power of two.

    Args:
        k: number of clusters.
        rows: number of samples with their padding; there are no more clusters than these.
        work: products and sums of a step for each cluster.
        arguments: of the fit.

    Returns:
        The number, at least k; None where nothing is padded, as arguments are traced or the step takes long.
    """
    padded = min(max(MIN_CLUSTERS, 1 << (k - 1).bit_length()), rows)
    return None if validation.is_traced(*arguments) or work * padded > MAX_STEP_WORK else padded


def pad_active(active: Any, k: int, padded: int) -> Bool[np.ndarray, " padded"]:
    """Mask of the active ones of ``padded`` clusters: the first k, or those of them in the mask ``active``."""
    mask = np.zeros(padded, bool)
    mask[:k] = True if active is None else np.asarray(active)
    return mask

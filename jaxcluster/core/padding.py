"""Numbers of clusters and of features that small fits share, so that another shape compiles nothing.

A fit of k clusters is computed with more of them, all but the first k inactive: a search over k is one program. Columns
of zeros change no distance: data of other columns run the programs that earlier data have left in the disk cache. The
number of samples is padded for the same reason, by `jaxcluster.core.preparation`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.types import Array, Bool

MIN_CLUSTERS = 8
"""Clusters that the smallest fits are padded to."""

MAX_STEP_WORK = 1 << 22
"""Products and sums of a step up to which inactive clusters cost less than another program: about a millisecond."""


MAX_COLUMNS = 64
"""Columns up to which they are padded: wider data are rarely of a width of their own, and take longer."""

MAX_ENTRIES = 1 << 18
"""Entries of data up to which half as many more cost less than another program."""


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


def pad_active(active: Any, k: int, padded: int) -> Bool[Array, " padded"]:
    """Mask of the active ones of ``padded`` clusters: the first k, or those of them in the mask ``active``."""
    mask = np.zeros(padded, bool)
    mask[:k] = True if active is None else np.asarray(active)
    return jnp.asarray(mask)


def padded_tol(tol: Any, columns: int, d: int) -> Any:
    """Tolerance in units of the mean variance, which columns of zeros lower: by d / ``columns`` for d features."""
    return tol if columns == d else tol * (columns / d)


def padded_columns(n: int, d: int) -> int:
    """Number of columns that d columns of n samples are padded to: two sizes for each power of two."""
    if d > MAX_COLUMNS or n * d > MAX_ENTRIES:
        return d
    power = 1 << (d - 1).bit_length()
    return 3 * power // 4 if power >= 4 and d <= 3 * power // 4 else power

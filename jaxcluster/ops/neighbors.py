"""The nearest rows of each row, exactly: in float64, the nearer first, and of equally near ones the lower number."""

from __future__ import annotations

import numpy as np

from jaxcluster.core import check
from jaxcluster.ops.pairwise import Pairwise, Space, tiles


def nearest_rows(space: Space | Pairwise, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of n rows to each, itself among them.

    Returns:
        (n, k) int32 row numbers and (n, k) float64 distances.

    Raises:
        ValueError: k is not between 1 and n.
    """
    k = check.check_clusters(k, space.n)
    parts = [_select(space.rows(index), k) for index in tiles(space.n)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _select(distances, k):
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order.astype(np.int32), np.take_along_axis(distances, order, axis=1)

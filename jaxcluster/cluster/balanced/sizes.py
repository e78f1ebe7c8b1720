"""How many rows clusters may have: the bounds, and the sizes that prices stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """Bounds of the sizes of k clusters of n rows; some sizes within them add up to n.

    Attributes:
        n: how many rows there are.
        least: (k,) int64 the fewest rows of each cluster.
        most: (k,) int64 the most.
    """

    n: int
    least: np.ndarray
    most: np.ndarray

    def wanted(self, counts: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """(k,) the sizes that prices stand for, where rows choose by cost − price.

        Prices solve the problem if a cluster whose price is above 0 has its least rows, one whose price is below 0 its
        most, and one without a price any number between (complementary slackness).
        """
        return np.where(prices > 0, self.least, np.where(prices < 0, self.most, np.clip(counts, self.least, self.most)))

    def missed(self, counts: np.ndarray, prices: np.ndarray) -> int:
        """How many rows at least have to move before sizes and prices fit."""
        wanted = self.wanted(counts, prices)
        return int(np.maximum(counts - wanted, 0).sum()) + max(0, int(wanted.sum()) - self.n)

    def value(self, prices: np.ndarray) -> float:
        """What the bounds add to the dual value, beside the sum of each row's least cost − price."""
        return float(np.where(prices > 0, self.least, self.most) @ prices)

    def level(self, prices: np.ndarray) -> np.ndarray:
        """``prices`` moved by one number for all to where their dual value is highest.

        Rows choose by differences of prices alone, so that no label changes. Of clusters by falling price one becomes
        free: those before it have their least rows, those after it their most, and it takes what that leaves.
        """
        order = np.argsort(-prices, kind="stable")
        least, most = self.least[order], self.most[order]
        totals = np.cumsum(least) + most.sum() - np.cumsum(most)
        return prices - prices[order[np.argmax(totals <= self.n)]]


def check_sizes(size_min: Any, size_max: Any, n: int, k: int) -> Sizes:
    """The bounds of k clusters of n rows.

    Args:
        size_min, size_max: a number of rows, or (k,) numbers, one a cluster. None for both is sizes that differ by one
            at most; for one of them it is no bound.
        n: how many rows there are.
        k: how many clusters.

    Raises:
        ValueError, TypeError: bounds that are not integers, negative, the wrong way round, or that n rows cannot keep.
    """
    if size_min is None and size_max is None:
        return Sizes(n, np.full(k, n // k), np.full(k, -(-n // k)))
    least = _bound("size_min", 0 if size_min is None else size_min, k)
    most = _bound("size_max", n if size_max is None else size_max, k)
    if (least > most).any():
        at = int(np.argmax(least > most))
        where = "" if np.ndim(size_min) == np.ndim(size_max) == 0 else f" for cluster {at}"
        raise ValueError(f"size_min={least[at]} must not exceed size_max={most[at]}{where}.")
    if (held := int(most.sum())) < n:
        raise ValueError(
            f"{_total('size_max', size_max, k)} hold {held} rows, {n - held} fewer than the {n} given. Raise size_max, "
            "or ask for more clusters."
        )
    if (asked := int(least.sum())) > n:
        raise ValueError(
            f"{_total('size_min', size_min, k)} need {asked} rows, {asked - n} more than the {n} given. Lower "
            "size_min, or ask for fewer clusters."
        )
    return Sizes(n, least, most)


def _bound(name, value, k):
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer, or ({k},) integers, got {value!r} of type {type(value).__name__}.")
    if array.shape not in ((), (k,)):
        raise ValueError(f"{name} must be one number, or ({k},), one a cluster, got shape {array.shape}.")
    if (array < 0).any():
        raise ValueError(f"{name}={array.min()} must be at least 0.")
    return np.array(np.broadcast_to(array, k), np.int64)


def _total(name, value, k):
    return f"{name}={value} × {k} clusters" if np.ndim(value) == 0 else f"The {name} of {k} clusters"

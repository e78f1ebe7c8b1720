"""The mutual information to expect by chance, over all pairs of labelings with given cluster sizes."""

from __future__ import annotations

import numpy as np

TAIL = 40.0
"""Counts whose probability is below e^−40, far under float64's resolution, are not summed."""

CHUNK = 1 << 18
"""Terms evaluated at a time, so that the temporaries stay in cache."""


def expected_mutual_information(row_totals: np.ndarray, col_totals: np.ndarray) -> float:
    """E[MI] in nats of a table with these margins, rows assigned at random.

    The count m in a cell of margins a and b is hypergeometric, and the cell contributes E[m/n · log(n·m / (a·b))].
    Three things make the sum fast and exact: cells of equal margins are summed once; m runs only where a Bernstein
    bound leaves any probability; and the probabilities come from the ratios of neighbors, normalized to 1, which
    needs no factorial (at n = 10⁶ the logarithm of one loses 9 of float64's 16 digits).

    Args:
        row_totals: (r,) positive integers, rows of each class.
        col_totals: (c,) positive integers, rows of each cluster, with the same sum n.

    Source: Vinh, Epps and Bailey, Information theoretic measures for clusterings comparison, 2010, equation 24a.
    """
    n = float(row_totals.sum())
    a, row_copies = np.unique(row_totals, return_counts=True)
    b, col_copies = np.unique(col_totals, return_counts=True)
    a, b = (side.ravel().astype(np.float64) for side in np.meshgrid(a, b, indexing="ij"))
    copies = np.outer(row_copies, col_copies).ravel()

    low, high = _window(a, b, n)
    order = np.argsort(high - low)
    total, start = 0.0, 0
    while start < order.size:
        cells = order[start : start + _cells_that_fit(high - low, order, start)]
        total += float(np.dot(copies[cells], _cell_terms(a[cells], b[cells], low[cells], high[cells], n)))
        start += cells.size
    return total


def _window(a, b, n):
    """The counts of a cell with probability above e^−TAIL, by Bernstein's inequality, cut to the possible ones."""
    mean = a * b / n
    variance = mean * (1 - np.maximum(a, b) / n)
    reach = TAIL / 3 + np.sqrt(TAIL**2 / 9 + 2 * TAIL * variance)
    low = np.maximum(np.floor(mean - reach), np.maximum(0, a + b - n))
    high = np.minimum(np.ceil(mean + reach), np.minimum(a, b))
    return low, high


def _cells_that_fit(width, order, start):
    """How many of the next cells, in order of width, make up a chunk as wide as its widest."""
    most = width[order[start : start + CHUNK]] + 1
    return max(1, int(np.searchsorted(most * np.arange(1, most.size + 1), CHUNK, side="right")))


def _cell_terms(a, b, low, high, n):
    """E[m/n · log(n·m / (a·b))] of each cell."""
    a, b, low, high = a[:, None], b[:, None], low[:, None], high[:, None]
    m = low + np.arange(int((high - low).max()) + 1)
    ratio = np.where(m < high, (a - m) * (b - m), 0) / ((m + 1) * (n - a - b + m + 1))
    with np.errstate(divide="ignore"):
        log_probability = np.cumsum(np.log(ratio), axis=1)
    log_probability = np.concatenate([np.zeros_like(low), log_probability[:, :-1]], axis=1)
    probability = np.exp(log_probability - log_probability.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    surprise = np.log(n * np.maximum(m, 1) / (a * b))
    return np.sum(probability * m * surprise, axis=1) / n

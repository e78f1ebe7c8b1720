"""Prices of clusters: each row goes where cost − price is least, and sizes follow the prices.

Such a labeling is the cheapest of all that have its sizes, whatever the prices. The prices that make sizes right are
those of the highest dual value, a concave function; Newton's method nears them, for which sizes are taken for smooth
functions of prices: the rows that hardly prefer one cluster to another say how many change over when a price rises.
Potentials by Sinkhorn's iteration are prices too, but it takes many more passes, of exponentials, to come as near as a
few passes of comparisons do here. NumPy compares as fast as XLA does on a CPU, and has float64 where JAX has not.

Source: J. Kitagawa, Q. Mérigot and B. Thibert, Convergence of a Newton algorithm for semi-discrete optimal transport,
J. Eur. Math. Soc. 21 (2019); here with borders of cells that are counted from rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.cluster.balanced.sizes import Sizes

BLOCK = 1 << 17
"""Costs that are looked at together: in float64 they stay in a core's cache."""

BORDER = 8
"""Rows a cluster, at least, from which the density at the borders is counted."""

ANCHOR = 0.1
"""What is added to a cluster's density, in rows within the width: one far from all others has no border of its own."""

REACH = 4
"""How far a price may move in one step, in widths of the border: the linear model does not see further."""

EXACT = 1e-3
"""Relative error to which the linear model is solved, which is not that near to the truth itself."""

STEPS = 50
"""The most Newton steps; hardly any start needs half of them."""

SHORTEST = 1 / 256
"""The part of a step that is not halved further: prices that do not rise by it are as good as they get."""


class Choice(NamedTuple):
    """What rows choose by prices.

    Attributes:
        labels: (n,) int32 the cluster each row goes to.
        second: (n,) int32 the one it would go to next, where ``gap`` is within ``reach``.
        gap: (n,) how much dearer that is, or less where it is beyond ``reach``; infinite where there is one cluster.
        least: (n,) what its cluster costs each row, without the price.
        counts: (k,) how many rows each cluster has.
        total: the sum of each row's least cost − price.
        reach: gaps are exact up to this; those beyond it are at least what ``gap`` says, and larger than this.
    """

    labels: np.ndarray
    second: np.ndarray
    gap: np.ndarray
    least: np.ndarray
    counts: np.ndarray
    total: float
    reach: float


def choose(costs: np.ndarray, prices: np.ndarray) -> Choice:
    """The least and second least cost − price of every row, in float64; ties go to the lower index."""
    n, k = costs.shape
    labels, second, gap, least = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n), np.empty(n)
    step = max(1, BLOCK // k)
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        labels[block], second[block], gap[block], least[block] = _look(costs[block], prices)
    return _choice(labels, second, gap, least, prices, np.inf)


def choose_again(costs: np.ndarray, last: Choice, before: np.ndarray, prices: np.ndarray, reach: float) -> Choice:
    """What rows choose after the prices ``before``, by which they made their last choice, have become ``prices``.

    A gap shrinks by no more than other prices rise beyond that of the row's cluster. Only rows are looked at whose gap
    may now be within ``reach`` (0 or more).
    """
    change = prices - before
    gap = last.gap - (change.max() - change)[last.labels]
    rows = np.flatnonzero(gap <= reach)
    if 2 * len(rows) > len(gap):
        return choose(costs, prices)
    labels, second, least = last.labels.copy(), last.second.copy(), last.least.copy()
    labels[rows], second[rows], gap[rows], least[rows] = _look(costs[rows], prices)
    return _choice(labels, second, gap, least, prices, reach)


def ascend(costs: np.ndarray, sizes: Sizes, prices: np.ndarray) -> tuple[np.ndarray, Choice]:
    """Prices of a higher dual value, and what rows choose by them.

    Stops where so few rows are left to move that moving them costs less than another step.
    """
    prices = sizes.level(prices)
    choice, share = choose(costs, prices), 1.0
    for _ in range(STEPS):
        missed = sizes.missed(choice.counts, prices)
        if missed <= len(prices) // 2 or share < SHORTEST:
            break
        change, width = _newton_step(choice, sizes, prices, missed)
        if not change.any():
            break
        tried = sizes.level(_kept_in_sign(prices + share * change, choice, sizes, prices))
        new = choose_again(costs, choice, prices, tried, width)
        if new.total + sizes.value(tried) > choice.total + sizes.value(prices):
            prices, choice, share = tried, new, min(1.0, 2 * share)
        else:
            share /= 4
    return prices, choice


def _look(costs, prices):
    """Of some rows the labels, the second choices, their gaps, and the costs of the labels."""
    net = costs - prices
    rows = np.arange(len(net))
    labels = net.argmin(axis=1)
    lowest = net[rows, labels]
    net[rows, labels] = np.inf
    second = net.argmin(axis=1)
    return labels, second, net[rows, second] - lowest, costs[rows, labels]


def _choice(labels, second, gap, least, prices, reach):
    counts = np.bincount(labels, minlength=len(prices))
    return Choice(labels, second, gap, least, counts, float(least.sum() - counts @ prices), reach)


def _newton_step(choice, sizes, prices, missed):
    """(k,) by how much prices should change for the sizes to be right, if sizes were linear in them.

    Clusters that are free, with a size within their bounds, stay free. Also returns the width of the borders, within
    which rows were counted.
    """
    k, n = len(prices), len(choice.gap)
    few = min(n, max(2 * missed, BORDER * k)) - 1
    width = min(np.partition(choice.gap, few)[few], choice.reach)
    if not 0 < width < np.inf:
        return np.zeros(k), width
    close = np.flatnonzero(choice.gap <= width)
    pairs = np.bincount(choice.labels[close] * k + choice.second[close], minlength=k * k).reshape(k, k)
    flow = (pairs + pairs.T) / (2 * width)
    slope = np.diag(flow.sum(axis=1) + ANCHOR / width) - flow
    short = sizes.wanted(choice.counts, prices) - choice.counts
    priced = np.flatnonzero((prices != 0) | (short != 0))
    change = np.zeros(k)
    change[priced] = _solved(slope[np.ix_(priced, priced)], short[priced].astype(np.float64))
    return np.clip(change, -REACH * width, REACH * width), width


def _solved(slope, short):
    """The solution of slope @ change = short to within `EXACT`, by conjugate gradients scaled by the diagonal.

    SciPy's own take several times as long for systems as small as these, and LAPACK's threads wait for busy cores.
    """
    scale, slope = 1 / slope.diagonal(), scipy.sparse.csr_array(slope)
    change, rest = np.zeros_like(short), short
    direction = scaled = scale * rest
    power = rest @ scaled
    enough = EXACT**2 * power
    for _ in range(2 * len(short)):
        if power <= enough:
            break
        image = slope @ direction
        length = power / (direction @ image)
        change, rest = change + length * direction, rest - length * image
        scaled = scale * rest
        power, last = rest @ scaled, power
        direction = scaled + (power / last) * direction
    return change


def _kept_in_sign(tried, choice, sizes, prices):
    """Prices that stop at 0 on their way to the other sign: what a cluster wants jumps there.

    Where the jump is of one row at most, the way is free.
    """
    side = np.where(prices == 0, sizes.wanted(choice.counts, prices) - choice.counts, prices)
    return np.where((tried * side < 0) & (sizes.most > sizes.least + 1), 0, tried)

"""Size bounds of clusters, and Newton's method on the dual of the assignment under them.

The assignment is a semi-discrete transport problem: minimize Σ_i cost[i, label_i] with lower <= sizes <= upper. With a
dual variable u_j for each size, every sample goes where cost − u is least; whatever u, such labels are the cheapest of
all that have their sizes. The dual value

    g(u) = Σ_i min_j (cost[i, j] − u_j) + Σ_j (lower_j·max(u_j, 0) + upper_j·min(u_j, 0))

is concave; its supergradient is the target sizes less the present ones. Newton's method takes sizes for smooth
functions of u: the samples near a border between two cells say how many change over when a dual variable rises.
Potentials from Sinkhorn's iteration are dual variables too, but it takes many more passes, of exponentials, to come as
near as a few passes of comparisons do here. NumPy compares as fast as XLA on a CPU, and has float64 where JAX has not.

Source: J. Kitagawa, Q. Mérigot and B. Thibert, Convergence of a Newton algorithm for semi-discrete optimal transport,
J. Eur. Math. Soc. 21 (2019); here the measures of the borders of cells are counted from samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jaxcluster.core import signals

BLOCK_ELEMENTS = 1 << 17
"""Costs in a block: in float64 they stay in a core's cache."""

MIN_BORDER_SAMPLES = 8
"""Least number of samples per cluster from which the density at the borders is counted."""

REGULARIZATION = 0.1
"""Term on the diagonal of the Hessian, in samples within the border width: it is singular for a cluster that is far
from all others and has no border."""

MAX_STEP_WIDTHS = 4
"""Radius of the trust region: largest change of a dual variable in one step, in border widths, beyond which the linear
model does not hold."""

CG_TOLERANCE = 1e-3
"""Relative residual at which conjugate gradients stop: the linear model is no nearer to the truth itself."""

MAX_NEWTON_STEPS = 50
"""Bound on the Newton steps; hardly any start needs half of them."""

MIN_STEP_LENGTH = 1 / 256
"""Step length below which the line search gives up: dual variables that do not rise by it are as good as they get."""


class SizeBounds(NamedTuple):
    """Bounds on the sizes of k clusters of n samples; some sizes within them add up to n.

    Attributes:
        n: number of samples.
        lower: (k,) int64 least size of each cluster.
        upper: (k,) int64 largest size.
    """

    n: int
    lower: np.ndarray
    upper: np.ndarray

    def target_sizes(self, sizes: np.ndarray, duals: np.ndarray) -> np.ndarray:
        """(k,) sizes that satisfy complementary slackness, those nearest to ``sizes``.

        Dual variables are optimal if a cluster with u > 0 has its lower bound, one with u < 0 its upper bound, and one
        with u = 0 any size between.
        """
        free = np.clip(sizes, self.lower, self.upper)
        return np.where(duals > 0, self.lower, np.where(duals < 0, self.upper, free))

    def infeasibility(self, sizes: np.ndarray, duals: np.ndarray) -> int:
        """Least number of samples that have to move before sizes and dual variables fit."""
        target = self.target_sizes(sizes, duals)
        return int(np.maximum(sizes - target, 0).sum()) + max(0, int(target.sum()) - self.n)

    def dual_term(self, duals: np.ndarray) -> float:
        """Term of the bounds in the dual value."""
        return float(np.where(duals > 0, self.lower, self.upper) @ duals)

    def maximize_shift(self, duals: np.ndarray) -> np.ndarray:
        """``duals`` plus the one constant that maximizes the dual value.

        Samples choose by differences of dual variables, so no label changes. Of the clusters by falling dual variable
        one becomes free (u = 0): those before it have their lower bound, those after it their upper bound.
        """
        order = np.argsort(-duals, kind="stable")
        lower, upper = self.lower[order], self.upper[order]
        totals = np.cumsum(lower) + upper.sum() - np.cumsum(upper)
        return duals - duals[order[np.argmax(totals <= self.n)]]


class DualAssignment(NamedTuple):
    """Assignment of samples to the cluster of least cost − u.

    Attributes:
        labels: (n,) int32.
        second: (n,) int32 cluster of the second least cost − u, where ``margin`` is within ``exact_to``.
        margin: (n,) by how much the second is dearer, or less where that is beyond ``exact_to``; infinite for k = 1.
        cost: (n,) cost of each sample in its cluster.
        sizes: (k,) of the clusters.
        value: Σ_i min_j (cost − u), the term of the samples in the dual value.
        exact_to: margins are exact up to this; a margin beyond it is a lower bound that is larger than this.
    """

    labels: np.ndarray
    second: np.ndarray
    margin: np.ndarray
    cost: np.ndarray
    sizes: np.ndarray
    value: float
    exact_to: float


def assign_by_duals(costs: np.ndarray, duals: np.ndarray) -> DualAssignment:
    """Assign every sample to the cluster of least cost − u, in float64; ties go to the lower index."""
    n, k = costs.shape
    labels, second, margin, cost = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n), np.empty(n)
    step = max(1, BLOCK_ELEMENTS // k)
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        labels[block], second[block], margin[block], cost[block] = _two_least(costs[block], duals)
    return _assignment(labels, second, margin, cost, duals, np.inf)


def update_assignment(
    costs: np.ndarray, prev: DualAssignment, prev_duals: np.ndarray, duals: np.ndarray, exact_to: float
) -> DualAssignment:
    """`assign_by_duals` from the assignment by other dual variables, with margins that are exact up to ``exact_to``.

    A margin shrinks by no more than the dual variables of other clusters rise beyond that of the sample's cluster. So
    only samples are compared again whose margin may now be within ``exact_to`` (0 or more).
    """
    change = duals - prev_duals
    margin = prev.margin - (change.max() - change)[prev.labels]
    rows = np.flatnonzero(margin <= exact_to)
    if 2 * len(rows) > len(margin):
        return assign_by_duals(costs, duals)
    labels, second, cost = prev.labels.copy(), prev.second.copy(), prev.cost.copy()
    labels[rows], second[rows], margin[rows], cost[rows] = _two_least(costs[rows], duals)
    return _assignment(labels, second, margin, cost, duals, exact_to)


def maximize_dual(costs: np.ndarray, bounds: SizeBounds, duals: np.ndarray) -> tuple[np.ndarray, DualAssignment]:
    """Damped Newton steps on the dual variables from a start.

    They stop where so few samples are left to move that moving them costs less than another step.

    Args:
        costs: (n, k) finite costs.
        bounds: on the sizes.
        duals: (k,) float64 start.

    Returns:
        (k,) dual variables of a higher dual value, and the assignment by them.
    """
    duals = bounds.maximize_shift(duals)
    assignment, step_length = assign_by_duals(costs, duals), 1.0
    for _ in range(MAX_NEWTON_STEPS):
        signals.check_stopped()
        infeasibility = bounds.infeasibility(assignment.sizes, duals)
        # A few samples too many are moved sooner by shortest paths than by further Newton steps.
        if infeasibility <= len(duals) // 2 or step_length < MIN_STEP_LENGTH:
            break
        change, width = _newton_step(assignment, bounds, duals, infeasibility)
        if not change.any():
            break
        trial = _stop_at_zero(duals + step_length * change, assignment, bounds, duals)
        trial = bounds.maximize_shift(trial)
        new = update_assignment(costs, assignment, duals, trial, width)
        # The dual is concave: a step that raises it is nearer to the optimum, whatever its length.
        if new.value + bounds.dual_term(trial) > assignment.value + bounds.dual_term(duals):
            duals, assignment, step_length = trial, new, min(1.0, 2 * step_length)
        else:
            step_length /= 4
    return duals, assignment


def _two_least(costs, duals):
    """Labels, second clusters, margins and costs of some samples; see `DualAssignment`."""
    reduced = costs - duals
    rows = np.arange(len(reduced))
    labels = reduced.argmin(axis=1)
    least = reduced[rows, labels]
    reduced[rows, labels] = np.inf
    second = reduced.argmin(axis=1)
    return labels, second, reduced[rows, second] - least, costs[rows, labels]


def _assignment(labels, second, margin, cost, duals, exact_to):
    sizes = np.bincount(labels, minlength=len(duals))
    return DualAssignment(labels, second, margin, cost, sizes, float(cost.sum() - sizes @ duals), exact_to)


def _newton_step(assignment, bounds, duals, infeasibility):
    """Newton step: (k,) change of the dual variables that would make sizes right if sizes were linear in them.

    Free clusters (u = 0) whose size is within their bounds stay free. Also returns the border width: samples whose
    margin is within it are counted as those at the borders.
    """
    k, n = len(duals), len(assignment.margin)
    rank = min(n, max(2 * infeasibility, MIN_BORDER_SAMPLES * k)) - 1
    # Wide enough to hold the samples that have to move: a narrower border would be counted from noise.
    width = min(np.partition(assignment.margin, rank)[rank], assignment.exact_to)
    if not 0 < width < np.inf:
        return np.zeros(k), width
    border = np.flatnonzero(assignment.margin <= width)
    pairs = assignment.labels[border] * k + assignment.second[border]
    counts = np.bincount(pairs, minlength=k * k).reshape(k, k)
    # The negative Hessian of the dual is the Laplacian of a graph on the clusters: its edges are the densities of
    # samples at the borders, counted on both sides of them, in samples per unit of u.
    density = (counts + counts.T) / (2 * width)
    hessian = np.diag(density.sum(axis=1) + REGULARIZATION / width) - density
    gradient = bounds.target_sizes(assignment.sizes, duals) - assignment.sizes
    constrained = np.flatnonzero((duals != 0) | (gradient != 0))
    change = np.zeros(k)
    change[constrained] = _conjugate_gradients(
        hessian[np.ix_(constrained, constrained)], gradient[constrained].astype(np.float64)
    )
    return np.clip(change, -MAX_STEP_WIDTHS * width, MAX_STEP_WIDTHS * width), width


def _conjugate_gradients(matrix, target):
    """Solution of matrix @ x = target to within `CG_TOLERANCE`, by conjugate gradients with a Jacobi preconditioner.

    SciPy's own take several times as long for systems as small as these, and LAPACK's threads wait for busy cores.
    """
    inverse_diagonal, matrix = 1 / matrix.diagonal(), scipy.sparse.csr_array(matrix)
    solution, residual = np.zeros_like(target), target
    direction = preconditioned = inverse_diagonal * residual
    energy = residual @ preconditioned
    tolerance = CG_TOLERANCE**2 * energy
    for _ in range(2 * len(target)):
        if energy <= tolerance:
            break
        image = matrix @ direction
        length = energy / (direction @ image)
        solution, residual = solution + length * direction, residual - length * image
        preconditioned = inverse_diagonal * residual
        energy, prev_energy = residual @ preconditioned, energy
        direction = preconditioned + (energy / prev_energy) * direction
    return solution


def _stop_at_zero(trial, assignment, bounds, duals):
    """Dual variables that stop at 0 on the way to the other sign, where the target size jumps.

    Where it jumps by one sample at most, they may cross.
    """
    gradient = bounds.target_sizes(assignment.sizes, duals) - assignment.sizes
    side = np.where(duals == 0, gradient, duals)
    return np.where((trial * side < 0) & (bounds.upper > bounds.lower + 1), 0, trial)


def check_sizes(size_min: Any, size_max: Any, n: int, k: int) -> SizeBounds:
    """Check bounds on the sizes of k clusters of n samples.

    Args:
        size_min, size_max: a number of samples, or (k,) numbers. None for both is sizes that differ by one at most;
            None for one of them is no bound.
        n: number of samples.
        k: number of clusters.

    Raises:
        ValueError, TypeError: bounds that are not integers, negative, the wrong way round, or infeasible for n samples.
    """
    if size_min is None and size_max is None:
        return SizeBounds(n, np.full(k, n // k), np.full(k, -(-n // k)))
    least, most = 0 if size_min is None else size_min, n if size_max is None else size_max
    lower, upper = _check_bound("size_min", least, k), _check_bound("size_max", most, k)
    if (lower > upper).any():
        at = int(np.argmax(lower > upper))
        where = "" if np.ndim(least) == np.ndim(most) == 0 else f" for cluster {at}"
        raise ValueError(f"size_min={lower[at]} must not exceed size_max={upper[at]}{where}.")
    if (total := int(upper.sum())) < n:
        raise ValueError(
            f"{_in_words('size_max', size_max, k)} hold {total} rows, {n - total} fewer than the {n} given. Raise "
            "size_max, or ask for more clusters."
        )
    if (total := int(lower.sum())) > n:
        raise ValueError(
            f"{_in_words('size_min', size_min, k)} need {total} rows, {total - n} more than the {n} given. Lower "
            "size_min, or ask for fewer clusters."
        )
    return SizeBounds(n, lower, upper)


def _check_bound(name, value, k):
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer, or ({k},) integers, got {value!r} of type {type(value).__name__}.")
    if array.shape not in ((), (k,)):
        raise ValueError(f"{name} must be one number, or ({k},), one a cluster, got shape {array.shape}.")
    if (array < 0).any():
        raise ValueError(f"{name}={array.min()} must be at least 0.")
    return np.array(np.broadcast_to(array, k), np.int64)


def _in_words(name, value, k):
    return f"{name}={value} × {k} clusters" if np.ndim(value) == 0 else f"The {name} of {k} clusters"

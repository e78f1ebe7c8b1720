"""Trials of statuses: where a fit says that it converged, its optimality condition is checked in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import hard_data
import jax
import numpy as np
from hard_data import Problem

import jaxcluster as jc
from bench.trials.kinds import NotFinal, Trial, attempted, large_groups, lengths, rounding
from jaxcluster import sinkhorn, soft_kmeans
from jaxcluster.types import Status

KIND = "truth"

NEAR_TIE = 1e-4
"""Tolerance of an assignment: the relative excess of its squared distance over that to the nearest center."""


def problems() -> Iterator[tuple[str, Problem, int]]:
    """Samples with a name, and clusters to ask for, which need not be those that are there."""
    plain, crowded = hard_data.blobs(), hard_data.crowded()
    yield "blobs", plain, 3
    yield "blobs, too many clusters", plain, 9
    yield "overlapping", crowded, 7
    yield "offset 1e9", hard_data.at(crowded, 1e9), 5
    yield "far sample 1e5", hard_data.with_far_sample(crowded, 1e5), 5
    yield "far sample 1e9", hard_data.with_far_sample(crowded, 1e9), 5
    yield "two far groups", hard_data.two_far_groups(hard_data.blobs(4), 1e5), 7
    yield "samples × 1e-30", hard_data.in_unit(crowded, 1e-30), 5
    yield "float16", hard_data.in_dtype(crowded, np.float16), 5
    for name, problem in hard_data.odd_columns(crowded):
        yield f"odd column: {name}", problem, 5


def trials() -> Iterator[Trial]:
    """Every method with a status on every problem, and transport."""
    checks: dict[str, Callable[[Problem, int], str]] = {
        "kmeans": partial(_lloyd, lambda k: jc.KMeans(k, tol=0, max_iter=1000, random_state=0)),
        "kmeans-random": partial(_lloyd, lambda k: jc.KMeans(k, init="random", tol=0, max_iter=1000, random_state=1)),
        "constrained-kmeans": partial(_lloyd, lambda k: jc.ConstrainedKMeans(k, tol=0, max_iter=1000, random_state=0)),
        "balanced-kmeans": _balanced,
        "kmedoids": partial(_medoids, {}),
        "kmedoids-manhattan": partial(_medoids, {"metric": "manhattan"}),
        "soft-kmeans": _soft,
        **{f"gmm-{covariance}": partial(_mixture, covariance) for covariance in ("full", "tied", "diag", "spherical")},
    }
    for case, problem, k in problems():
        for method, check in checks.items():
            yield Trial(KIND, method, case, partial(attempted, partial(check, problem, k)))
    for case, arguments in transports():
        yield Trial(KIND, "sinkhorn", case, partial(attempted, partial(_transport, *arguments)))


def _lloyd(make: Callable[[int], Any], problem: Problem, k: int) -> str:
    """A fixed point of Lloyd's iteration: every sample at its nearest center, every center the mean of its samples."""
    model = make(k).fit(problem.x)
    if model.status_ != Status.CONVERGED:
        return ""
    x, centers = np.asarray(problem.x, np.longdouble), np.asarray(model.cluster_centers_, np.longdouble)
    labels = model.labels_
    squares = hard_data.squared_distances(x, centers)
    own, nearest = squares[np.arange(len(x)), labels], squares.min(axis=1)
    off = rounding(centers, x)
    slack = (
        NEAR_TIE * own + 1e-6 * np.square(problem.unit) + 2 * (off[labels] + off[squares.argmin(axis=1)]) * np.sqrt(own)
    )
    far = int((own - nearest > slack).sum())
    if far:
        return f"CONVERGED, and {far} samples are not at their nearest center"
    sizes = np.bincount(labels, minlength=k)
    if not sizes.all():
        return f"CONVERGED with {int((sizes == 0).sum())} empty clusters"
    means = hard_data.means(x, labels, k)
    spread = np.sqrt(np.array([np.square(x[labels == j] - means[j]).sum(axis=1).mean() for j in range(k)]))
    shift = np.sqrt(np.square(means - centers).sum(axis=1))
    wrong = shift > 1e-3 * (spread + problem.unit) + off
    return (
        f"CONVERGED, and {int(wrong.sum())} centers are not means, by {float(shift.max()):.3g}" if wrong.any() else ""
    )


def _balanced(problem: Problem, k: int) -> str:
    model = jc.BalancedKMeans(k, random_state=0).fit(problem.x)
    sizes = np.bincount(model.labels_, minlength=k)
    if np.ptp(sizes) > (len(problem.x) % k > 0):
        return f"sizes {sizes.tolist()}"
    if model.status_ != Status.CONVERGED:
        return ""
    means = hard_data.means(problem.x, model.labels_, k)
    x = np.asarray(problem.x, np.longdouble)
    variance = x.var(axis=0).mean()
    shift = np.square(means - np.asarray(model.cluster_centers_, np.longdouble)).sum()
    limit = 4 * 1e-4 * variance + np.square(rounding(model.cluster_centers_, x)).sum()
    return "" if shift <= limit else f"CONVERGED, and the centers are {float(np.sqrt(shift)):.3g} from the means"


def _medoids(options: dict[str, Any], problem: Problem, k: int) -> str:
    """No exchange of one medoid for another sample lowers the loss."""
    model = jc.KMedoids(k, random_state=0, **options).fit(problem.x)
    if model.status_ != Status.CONVERGED:
        return ""
    x = np.asarray(problem.x, np.longdouble)
    power = 1 if options else 2
    distances = np.array([lengths(x - row, power) for row in x])
    medoids = model.medoid_indices_
    loss = distances[:, medoids].min(axis=1).sum()
    if not abs(np.longdouble(model.inertia_) - loss) <= 1e-3 * loss:
        return f"inertia_ is {model.inertia_:.6g}; by differences it is {float(loss):.6g}"
    best = loss
    for j in range(k):
        kept = distances[:, np.delete(medoids, j)].min(axis=1, initial=np.inf)
        best = min(best, np.minimum(kept[:, None], distances).sum(axis=0).min())
    return "" if best >= loss * (1 - 1e-3) else f"CONVERGED at {float(loss):.6g}; a swap gives {float(best):.6g}"


def _soft(problem: Problem, k: int) -> str:
    """Centers that are the means of the responsibilities that they lead to."""
    variance = float(problem.unit) ** 2
    fitted = soft_kmeans.fit(jax.random.key(0), problem.x, k, variance=variance, tol=1e-6)
    if int(fitted.status) != Status.CONVERGED:
        return ""
    x, centers = np.asarray(problem.x, np.longdouble), np.asarray(fitted.state.centers, np.longdouble)
    logits = -hard_data.squared_distances(x, centers) / (2 * np.longdouble(variance))
    responsibilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    responsibilities /= responsibilities.sum(axis=1, keepdims=True)
    means = responsibilities.T @ x / np.maximum(responsibilities.sum(axis=0), 1e-300)[:, None]
    shift = np.square(np.where(responsibilities.sum(axis=0)[:, None] > 1e-6, means - centers, 0)).sum()
    limit = 10 * 1e-6 * x.var(axis=0).mean() + 1e-6 * variance + np.square(rounding(centers, x)).sum()
    return "" if shift <= limit else f"CONVERGED, and a step moves the centers by {float(np.sqrt(shift)):.3g}"


def _mixture(covariance: str, problem: Problem, k: int) -> str:
    """One E-step and M-step in float64 from the published parameters raises the bound by no more than tol."""
    unit = problem.unit
    model = jc.GaussianMixture(
        k, covariance_type=covariance, reg_covar=1e-3 * unit**2, tol=1e-3, max_iter=500, random_state=0
    ).fit(problem.x)
    if model.status_ != Status.CONVERGED:
        return ""
    large = large_groups(problem)
    x = np.asarray(problem.x, np.longdouble)
    origin = np.median(np.asarray(problem.x, np.float64), axis=0)
    x = ((x - origin) / unit).astype(float)
    means = ((np.asarray(model.means_, np.longdouble) - origin) / unit).astype(float)
    covariances = _whole(covariance, np.asarray(model.covariances_, np.longdouble) / np.longdouble(unit) ** 2, k, x)
    before, responsibilities = _expect(x, model.weights_, means, covariances)
    if not np.isfinite(before):
        return f"CONVERGED, and the bound of the published parameters is {before}"
    shift = x.shape[1] * np.log(unit)
    if not abs(before - shift - model.lower_bound_) <= 0.01 * max(1, abs(before)):
        return f"lower_bound_ is {model.lower_bound_:.6g}; in float64 the parameters have {before - shift:.6g}"
    counts = responsibilities.sum(axis=0) + 1e-300
    means = responsibilities.T @ x / counts[:, None]
    centered = x[:, None, :] - means
    full = np.einsum("nk,nki,nkj->kij", responsibilities, centered, centered) / counts[:, None, None]
    full = _restrict(covariance, full, counts) + 1e-3 * np.eye(x.shape[1])
    after, _ = _expect(x, counts / len(x), means, full)
    gained = after - before
    return "" if gained <= 0.02 or not large.any() else f"CONVERGED, and another step raises the bound by {gained:.3g}"


def _whole(covariance, given, k, x):
    eye = np.eye(x.shape[1])
    return {
        "full": lambda: given,
        "tied": lambda: np.broadcast_to(given, (k, *given.shape)),
        "diag": lambda: given[:, :, None] * eye,
        "spherical": lambda: given[:, None, None] * eye,
    }[covariance]().astype(float)


def _restrict(covariance, full, counts):
    d = full.shape[1]
    if covariance == "tied":
        return np.broadcast_to(np.einsum("k,kij->ij", counts, full) / counts.sum(), full.shape)
    if covariance == "diag":
        return full * np.eye(d)
    if covariance == "spherical":
        return np.trace(full, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
    return full


def _expect(x, weights, means, covariances):
    """The mean log-likelihood and the responsibilities."""
    logs = np.full((len(x), len(means)), -np.inf)
    for j, (weight, mean, covariance) in enumerate(zip(weights, means, covariances, strict=True)):
        values, vectors = np.linalg.eigh(covariance)
        if weight <= 0 or not values.min() > 0:
            continue
        squares = np.square((x - mean) @ vectors / np.sqrt(values)).sum(axis=1)
        logs[:, j] = np.log(weight) - (squares + np.log(values).sum() + x.shape[1] * np.log(2 * np.pi)) / 2
    highest = logs.max(axis=1, keepdims=True)
    total = highest[:, 0] + np.log(np.exp(logs - highest).sum(axis=1))
    return float(total.mean()), np.exp(logs - total[:, None])


def transports() -> Iterator[tuple[str, tuple]]:
    """Costs, weights, ε and tol, with a name."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12, 3))
    costs = hard_data.squared_distances(x, y).astype(float)
    for epsilon in (1.0, 0.1, 0.01):
        yield f"squared distances, ε = {epsilon}", (costs, None, None, epsilon)
    squares = hard_data.squared_distances
    wide = squares(np.array([[0.0], [1.0], [1000.0]]), np.array([[0.5], [1.5], [-1000.0]])).astype(float)
    yield "a pair a thousand away, ε = 0.01", (wide, None, None, 0.01)
    near = squares(np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [1.7], [3.1]])).astype(float)
    for epsilon in (1e-4, 1e-10):
        yield f"ε = {epsilon}", (near, None, None, epsilon)
    huge = np.array([[0, 1e4], [1, 2], [3, 1e4]])
    yield "two costs of 1e4", (huge, np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4]), 0.1)
    yield "two costs of 1e9", (np.where(huge == 1e4, 1e9, huge), np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4]), 0.1)
    forbidden = np.where(huge == 1e4, np.inf, huge)
    yield "two infinite costs", (forbidden, np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4]), 0.1)
    yield "costs + 1e6", (np.array([[0.0, 1.0], [1.0, 0.0]]) + 1e6, None, None, 0.1)
    yield "costs − 1e9", (costs - 1e9, None, None, 0.1)


def _transport(costs, a, b, epsilon):
    """The marginals and the cost of the plan, which is made in long double of the potentials that are returned."""
    solved = sinkhorn.solve_cost(costs, a=a, b=b, epsilon=epsilon, tol=1e-3, max_steps=20_000)
    right, cost = _exact_transport(costs, a, b, epsilon)
    plan = np.asarray(sinkhorn.plan_cost(solved, costs), np.longdouble)
    rows, columns = right.sum(axis=1), right.sum(axis=0)
    error = np.abs(plan.sum(axis=1) - rows).sum() + np.abs(plan.sum(axis=0) - columns).sum()
    if int(solved.status) == Status.CONVERGED and not error <= 4e-3:
        return f"CONVERGED with an error of {float(error):.3g} in the sums of the plan"
    if int(solved.status) != Status.CONVERGED:
        raise NotFinal(f"{Status(int(solved.status)).name} after {int(solved.steps)} rounds")
    spread = max(1.0, float(np.ptp(costs[np.isfinite(costs)])))
    if not abs(float(solved.transport_cost) - float(cost)) <= 5e-3 * spread + 1e-6 * abs(float(cost)):
        return f"the cost is {float(solved.transport_cost):.8g} for {float(cost):.8g}"
    return ""


def _exact_transport(costs, a, b, epsilon):
    """The plan and its cost by rounds in long double, ε lowered step by step."""
    costs = np.asarray(costs, np.longdouble)
    n, m = costs.shape
    a = np.full(n, 1 / np.longdouble(n)) if a is None else np.asarray(a, np.longdouble)
    b = np.full(m, 1 / np.longdouble(m)) if b is None else np.asarray(b, np.longdouble)
    shift = costs[np.isfinite(costs)].min()
    shifted = costs - shift
    f, g = np.zeros(n, np.longdouble), np.zeros(m, np.longdouble)
    step = np.longdouble(max(float(shifted[np.isfinite(shifted)].max()), epsilon))
    while True:
        for _ in range(200 if step > epsilon else 5000):
            f = -step * _log_sum((g - shifted) / step + np.log(b), 1)
            g = -step * _log_sum((f[:, None] - shifted) / step + np.log(a)[:, None], 0)
        if step <= epsilon:
            break
        step = max(step / 2, np.longdouble(epsilon))
    plan = a[:, None] * b * np.exp((f[:, None] + g - shifted) / step)
    return plan, np.where(plan > 0, plan * np.where(np.isfinite(costs), costs, 0), 0).sum()


def _log_sum(values, axis):
    highest = values.max(axis=axis, keepdims=True)
    highest = np.where(np.isfinite(highest), highest, 0)
    return np.squeeze(highest, axis) + np.log(np.exp(values - highest).sum(axis=axis))

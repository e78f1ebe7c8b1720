"""Transport between two clouds: problems, and Sinkhorn's iteration in NumPy's float64 as the oracle."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from jaxcluster.types import Status

SHORT, LONG = {"max_steps": 500}, {"max_steps": 8000}
"""Limits of iterations. The length of the history is part of a program: with two limits, tests share two programs."""


def random_clouds():
    """20 and 15 samples of 6 features, and weights with a zero on either side."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6)), rng.normal(0.4, 1.2, size=(15, 6))
    a, b = rng.uniform(0.2, 1, 20), rng.uniform(0.2, 1, 15)
    a[3] = b[7] = 0
    return x, y, a / a.sum(), b / b.sum()


def squares(x, y):
    return np.square(x[:, None] - y).sum(2)


def textbook(costs, a, b, epsilon, rho_a=np.inf, rho_b=np.inf, error=1e-9):
    """Sinkhorn in float64, ε halved from the largest cost down: f, g, plan, ⟨P, C⟩, primal.

    One round in the log domain is followed by up to 100 rounds with its density of the plan. They are far cheaper, and
    exact while the potentials stay within 100·ε of those of the density.
    """

    def give(rho, strength):
        return strength if np.isinf(rho) else strength * rho / (rho + strength)

    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    g, strength = np.zeros(len(b)), max(epsilon, np.abs(costs).max())
    step, enough = np.inf, error * max(1, np.abs(costs).max())
    for _ in range(400):
        f = -give(rho_a, strength) * logsumexp((g - costs) / strength + log_b, axis=1)
        g = -give(rho_b, strength) * logsumexp((f[:, None] - costs) / strength + log_a[:, None], axis=0)
        if strength > epsilon:
            strength = max(epsilon, strength / 2)
            continue
        density, at_f, at_g = np.exp((f[:, None] + g - costs) / epsilon), f, g
        for _ in range(100):
            f = -give(rho_a, epsilon) * (np.log(density @ (b * np.exp((g - at_g) / epsilon))) - at_f / epsilon)
            columns = (a * np.exp((f - at_f) / epsilon)) @ density
            last, g = g, -give(rho_b, epsilon) * (np.log(columns) - at_g / epsilon)
            step = np.abs(g - last).max()
            if step < enough or max(np.abs(f - at_f).max(), np.abs(g - at_g).max()) > 100 * epsilon:
                break
        if step < enough:
            break
    plan = a[:, None] * b * np.exp((f[:, None] + g - costs) / epsilon)
    cost = (plan * costs).sum()
    primal = cost + epsilon * divergence_of(plan, np.outer(a, b))
    primal += 0 if np.isinf(rho_a) else rho_a * divergence_of(plan.sum(1), a)
    primal += 0 if np.isinf(rho_b) else rho_b * divergence_of(plan.sum(0), b)
    if np.isinf(rho_a) and np.isinf(rho_b):
        shift = (a @ f - b @ g) / (a.sum() + b.sum())
        f, g = f - shift, g + shift
    return f, g, plan, cost, primal


def divergence_of(p, q):
    """Generalized KL(p | q)."""
    support = p > 0
    return (p[support] * np.log(p[support] / q[support])).sum() - p.sum() + q.sum()


def swav_textbook(scores, epsilon, num_iters):
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    for _ in range(num_iters):
        q /= q.sum(1, keepdims=True) * q.shape[0]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


def check_marginals(solved, plan, a, b, tol):
    """Assert that a solution is CONVERGED, and that the sums of its plan in float64 are within the tolerance."""
    assert int(solved.status) == Status.CONVERGED
    plan = np.asarray(plan, float)
    error = np.abs(plan.sum(1) - a).sum() / np.sum(a) + np.abs(plan.sum(0) - b).sum() / np.sum(b)
    assert error <= tol

"""Sinkhorn's iteration: two sets of rows, and as many rounds in each peer. The value is the cost of moving, ⟨P, C⟩.

Every call begins with the rows: their costs are part of the work.
"""

from __future__ import annotations

import importlib
import warnings
from functools import partial

import jax
import numpy as np

from bench import data
from bench.cases import Case
from bench.peers import OTT, POT, POT_LOG, Answer, Call


def clouds(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draw n samples from each of two normal distributions, the second with another mean and a smaller variance.

    Returns:
        Both sets of samples, each (n, d).
    """
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((case.n, case.d), np.float32) for _ in range(2))
    return x, np.float32(0.8) * y + np.float32(0.5)


def pot(x: np.ndarray, y: np.ndarray, epsilon: float, steps: int, *, method: str = "sinkhorn") -> Call:
    """POT on NumPy arrays: its kernel form, or the one in the log domain; in float32, as the rows are."""
    ot = importlib.import_module("ot")
    even = np.full(len(x), 1 / len(x), np.float32)

    def call() -> Answer:
        costs = ot.dist(x, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = ot.sinkhorn(even, even, costs, epsilon, method=method, numItermax=steps, stopThr=0)
        return Answer(float(np.sum(plan * costs, dtype=np.float64)))

    return call


def ott(x: np.ndarray, y: np.ndarray, epsilon: float, steps: int) -> Call:
    """OTT-JAX in the log domain, compiled as a whole, on clouds of points without tiles."""
    pointcloud = importlib.import_module("ott.geometry.pointcloud")
    linear = importlib.import_module("ott.solvers.linear")
    arrays = data.place(x), data.place(y)

    @jax.jit
    def solve(x, y):
        geometry = pointcloud.PointCloud(x, y, epsilon=epsilon)
        # It looks at its error every so many rounds, and takes no fewer.
        limits = {
            "threshold": 0.0,
            "min_iterations": steps,
            "max_iterations": steps,
            "inner_iterations": min(10, steps),
        }
        out = linear.solve(geometry, **limits)
        return out.primal_cost

    return lambda: Answer(float(solve(*arrays)))


PEERS = {POT_LOG: partial(pot, method="sinkhorn_log"), POT: pot, OTT: ott}

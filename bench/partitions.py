"""k-medoids and balanced k-means: what every side is given, and each peer's call.

A call of k-medoids begins with the rows: their distances are part of the work. Every side starts from the same rows.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np

from bench.peers import CONSTRAINED, KMEDOIDS, Answer, Call


def starting_medoids(n: int, k: int) -> np.ndarray:
    """K distinct row numbers."""
    return np.random.default_rng(1).choice(n, k, replace=False).astype(np.int64)


def rust_fasterpam(x: np.ndarray, start: np.ndarray) -> Call:
    """FasterPAM in the kmedoids package, on the float32 distances that scikit-learn makes of the rows."""
    kmedoids = importlib.import_module("kmedoids")
    from sklearn.metrics import euclidean_distances

    def call() -> Answer:
        fit = kmedoids.fasterpam(euclidean_distances(x), start.astype(np.uint64))
        return Answer(float(fit.loss), np.asarray(fit.labels))

    return call


def min_cost_flow(x: np.ndarray, start: np.ndarray, sizes: tuple[int, int], steps: int) -> Call:
    """Balanced k-means in k-means-constrained, which solves each assignment as a flow of least cost.

    It stops where the centers do, as ours does, or after as many steps.
    """
    kmeans = importlib.import_module("k_means_constrained").KMeansConstrained

    def call() -> Answer:
        bounds = {"size_min": sizes[0], "size_max": sizes[1]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = kmeans(len(start), init=start, n_init=1, max_iter=steps, tol=0, **bounds).fit(x)
        return Answer(float(fit.inertia_), None, int(fit.n_iter_))

    return call


FASTERPAM = {KMEDOIDS: rust_fasterpam}
BALANCED = {CONSTRAINED: min_cost_flow}

"""Trials of what is given in place of samples: weights, distances and costs in any unit, whole or one-sided."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import hard_data
import numpy as np
import scipy.sparse
import sklearn.cluster
from sklearn.neighbors import kneighbors_graph

import jaxcluster as jc
from bench.trials.kinds import Trial, attempted
from bench.trials.methods import EPS, SMALLEST
from jaxcluster import sinkhorn

FACTORS = (1.0, 2.0**60, 2.0**-60, 1e30, 1e-30, 1e40, 1e-40, 1e100, 1e-100)

KIND = "graph"


def trials() -> Iterator[Trial]:
    """Every method that takes a graph, in every unit."""
    problem = hard_data.blobs()
    distances = np.sqrt(hard_data.squared_distances(problem.x, problem.x).astype(float))
    weights = np.exp(-0.05 * distances**2)
    for factor in FACTORS:
        name = f"× {factor:.3g}"
        yield _trial("spectral", f"weights {name}", _spectral, weights * factor, problem.y)
        for method, (ours, theirs) in _density(factor).items():
            yield _trial(method, f"distances {name}", _labels, ours, distances * factor, theirs, distances)
            sparse = kneighbors_graph(problem.x, 15, mode="distance")
            if method != "hdbscan":
                both = sparse.maximum(sparse.T)
                yield _trial(method, f"one-sided graph {name}", _labels, ours, sparse * factor, theirs, both)
        yield _trial("kmedoids", f"distances {name}", _medoids, distances * factor, problem.y)
        yield _trial("sinkhorn", f"costs {name}", _transport, distances[:20, 20:50], factor)
    four = kneighbors_graph([[0.0], [1.0], [2.1], [3.3]], 2, mode="distance")
    yield _trial("dbscan", "one-sided graph of four samples", _four_samples, four)
    whole = partial(sklearn.cluster.DBSCAN, 1e155)
    yield _trial("dbscan", "eps of 1e155", _labels, jc.DBSCAN(1e155), problem.x, whole(), problem.x)
    order = sklearn.cluster.OPTICS(cluster_method="dbscan", max_eps=1e200, eps=1e200)
    ours = jc.OPTICS(cluster_method="dbscan", max_eps=1e200, eps=1e200)
    yield _trial("optics-dbscan", "max_eps of 1e200", _labels, ours, problem.x, order, problem.x)


def _trial(method, case, function, *arguments):
    return Trial(KIND, method, case, partial(attempted, partial(function, *arguments)))


def _density(factor):
    given = {"metric": "precomputed"}
    by_radius = {"cluster_method": "dbscan", "max_eps": 2 * EPS}
    scaled = {"cluster_method": "dbscan", "max_eps": 2 * EPS * factor}
    return {
        "dbscan": (jc.DBSCAN(EPS * factor, **given), sklearn.cluster.DBSCAN(eps=EPS, **given)),
        "optics-dbscan": (
            jc.OPTICS(eps=EPS * factor, **scaled, **given),
            sklearn.cluster.OPTICS(eps=EPS, **by_radius, **given),
        ),
        "optics-xi": (
            jc.OPTICS(min_samples=SMALLEST, **given),
            sklearn.cluster.OPTICS(min_samples=SMALLEST, **given),
        ),
        "hdbscan": (jc.HDBSCAN(SMALLEST, **given), sklearn.cluster.HDBSCAN(SMALLEST, copy=True, **given)),
    }


def _labels(ours, given, theirs, plain):
    labels = ours.fit(given.copy()).labels_
    right = theirs.fit(plain.copy()).labels_
    if not hard_data.same_partition(labels, right):
        return f"another partition: {np.unique(labels, return_counts=True)} for {np.unique(right, return_counts=True)}"
    return ""


def _spectral(weights, y):
    labels = jc.SpectralClustering(3, affinity="precomputed", random_state=0).fit(weights).labels_
    return "" if hard_data.same_partition(labels, y) else f"another partition: {np.bincount(labels)}"


def _medoids(distances, y):
    model = jc.KMedoids(3, metric="precomputed", random_state=0).fit(distances)
    if not hard_data.same_partition(model.labels_, y):
        return f"another partition: {np.bincount(model.labels_)}"
    right = distances[np.arange(len(y)), model.medoid_indices_[model.labels_]].sum()
    return "" if abs(model.inertia_ - right) <= 1e-3 * right else f"inertia_ {model.inertia_:.6g} for {right:.6g}"


def _transport(costs, factor):
    plain = sinkhorn.solve_cost(costs, epsilon=0.5, tol=1e-4)
    scaled = sinkhorn.solve_cost(costs * factor, epsilon=0.5 * factor, tol=1e-4)
    ratio = np.float64(scaled.transport_cost) / np.float64(plain.transport_cost) / factor
    if not abs(ratio - 1) <= 1e-3:
        return f"the cost is {float(scaled.transport_cost):.6g}, which is {ratio:.6g} of what it should be"
    if int(scaled.status) != 0:
        return f"status {int(scaled.status)}"
    return ""


def _four_samples(graph):
    labels = jc.DBSCAN(1.15, min_samples=2, metric="precomputed").fit(scipy.sparse.csr_array(graph)).labels_
    return "" if labels.tolist() == [0, 0, 0, -1] else f"labels {labels.tolist()} for [0, 0, 0, -1]"

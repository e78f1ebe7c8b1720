"""Methods under trial: each is made for a problem, its parameters in the units of the samples, and has an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import algorithms
import jax
import numpy as np
import sklearn.cluster
import sklearn.mixture
from hard_data import Problem, lloyd

import jaxcluster as jc
from jaxcluster.types import Status

EPS = 3.0
"""Radius, in standard deviations of a blob, in which nearly every sample has its neighbors."""

SMALLEST = 10
"""Samples of the smallest group that a method by density or by neighbors can find."""

NO_ORIGIN = "directions are taken from the origin"
PRIOR = "the prior is set by where the samples lie"


class Method(NamedTuple):
    """A method under trial.

    Attributes:
        make: of a problem, an object with `fit`, ``labels_`` and ``status_``.
        oracle: of a problem, the right labels; by default those that the problem has.
        exact: whether the numbers of the clusters are those of the oracle, or only the partition.
        only: whether it can be tried on a problem.
        exempt: kinds that say nothing of it, with the reason.
        from_start: whether it begins at the start of the problem, so that its labels are known where groups overlap.
        weighted: whether samples have weights.
        large: whether groups below `SMALLEST` are not compared.
        traced: whether it runs in a program of the caller, in float32.
    """

    make: Callable[[Problem], Any]
    oracle: Callable[[Problem], np.ndarray] = lambda problem: problem.y
    exact: bool = False
    only: Callable[[Problem], bool] = lambda problem: True
    exempt: Mapping[str, str] = MappingProxyType({})
    from_start: bool = False
    weighted: bool = True
    large: bool = False
    traced: bool = False


class Functional:
    """A functional fit with the attributes of an estimator; inside a program of the caller where ``traced``."""

    def __init__(self, fit: Callable[..., Any], k: int | None, *, traced: bool = False) -> None:
        self.function, self.k, self.traced = fit, k, traced

    def fit(self, x: Any, sample_weight: Any = None) -> Functional:
        """Calls the function, with samples in float32 where it is traced."""
        fit = self.function
        if self.k is not None:
            fit = partial(_keyed, self.function, self.k)
        if self.traced:
            x = np.asarray(x, np.float32)
            fit = _jitted(self.function, self.k)
        fitted = fit(x) if sample_weight is None else fit(x, weights=sample_weight)
        self.labels_ = np.asarray(fitted.labels)
        self.status_ = Status(int(fitted.status))
        self.state = fitted.state
        return self


def _keyed(function, k, x, **options):
    return function(jax.random.key(0), x, k, **options)


_PROGRAMS: dict[tuple, Callable[..., Any]] = {}


def _jitted(function, k):
    """One program for a function and a number of clusters, whatever the problem."""
    name = (getattr(function, "func", function), str(getattr(function, "keywords", "")), k)
    if name not in _PROGRAMS:
        _PROGRAMS[name] = jax.jit(lambda x, **options: _keyed(function, k, x, **options))
    return _PROGRAMS[name]


class Pairs(jc.ConstrainedKMeans):
    """Constrained k-means that is told two samples which belong together."""

    def __init__(self, pairs: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.pairs = pairs

    def fit(self, x: Any, y: Any = None, sample_weight: Any = None) -> Pairs:
        """Fits with the pair."""
        return super().fit(x, sample_weight=sample_weight, must_link=self.pairs)


def first_pair(problem: Problem) -> list[list[int]]:
    """Two samples of the largest group."""
    largest = np.bincount(problem.y).argmax()
    return [np.flatnonzero(problem.y == largest)[:2].tolist()]


def large_groups(problem: Problem) -> np.ndarray:
    """Mask of the samples in groups of at least `SMALLEST` samples."""
    return np.bincount(problem.y)[problem.y] >= SMALLEST


def count_large(problem: Problem, least: int = SMALLEST) -> int:
    """Groups of ``least`` samples at least."""
    return int((np.bincount(problem.y) >= least).sum())


def equal_sizes(problem: Problem) -> bool:
    """True if all groups have the same size."""
    return np.ptp(np.bincount(problem.y)) == 0


def lloyd_labels(problem: Problem) -> np.ndarray:
    """Labels of Lloyd's iteration from the start."""
    return lloyd(problem.x, problem.start)[0]


def by_peer(make: Callable[[], Any]) -> Callable[[Problem], np.ndarray]:
    """Labels that scikit-learn gives the samples in float64, in units and at a place that cost it no digits."""

    def labels(problem):
        x = np.asarray(problem.x, np.longdouble)
        return make().fit_predict(((x - x[len(x) // 2]) / problem.unit).astype(np.float64))

    return labels


def mixture(covariance: str, problem: Problem) -> Any:
    """A mixture that is given its whole start: equal weights, the start of the problem, and blobs of unit variance."""
    k, d = problem.k, problem.x.shape[1]
    precision = 1 / problem.unit**2
    return jc.GaussianMixture(
        k,
        covariance_type=covariance,
        weights_init=np.full(k, 1 / k),
        means_init=problem.start,
        precisions_init={
            "full": np.tile(precision * np.eye(d), (k, 1, 1)),
            "tied": precision * np.eye(d),
            "diag": np.full((k, d), precision),
            "spherical": np.full(k, precision),
        }[covariance],
        reg_covar=1e-6 * problem.unit**2,
        random_state=0,
    )


def variational(library: Any, problem: Problem, **options: Any) -> Any:
    """A variational mixture whose prior is set in the units of the problem, near its samples."""
    x = np.asarray(problem.x, np.float64)
    return library.BayesianGaussianMixture(
        n_components=problem.k,
        mean_prior=np.median(x, axis=0),
        mean_precision_prior=1e-3,
        covariance_prior=problem.unit**2 * np.eye(x.shape[1]),
        reg_covar=1e-6 * problem.unit**2,
        random_state=0,
        **options,
    )


CENTERS = {
    "kmeans": Method(
        lambda p: jc.KMeans(p.k, init=p.start, n_init=1, tol=0), oracle=lloyd_labels, exact=True, from_start=True
    ),
    "kmeans-plus-plus": Method(lambda p: jc.KMeans(p.k, n_init=5, random_state=0)),
    "minibatch-kmeans": Method(
        lambda p: jc.MiniBatchKMeans(p.k, init=p.start, batch_size=64, reassignment_ratio=0, random_state=0)
    ),
    "bisecting-kmeans": Method(lambda p: jc.BisectingKMeans(p.k, init="k-means++", n_init=3, random_state=0)),
    "balanced-kmeans": Method(
        lambda p: jc.BalancedKMeans(p.k, init=p.start, n_init=1, random_state=0), only=equal_sizes, weighted=False
    ),
    "constrained-kmeans": Method(
        lambda p: Pairs(first_pair(p), n_clusters=p.k, init=p.start, n_init=1, random_state=0)
    ),
    "kmedoids": Method(lambda p: jc.KMedoids(p.k, random_state=0)),
    "kmedoids-manhattan": Method(lambda p: jc.KMedoids(p.k, metric="manhattan", random_state=0)),
    "kmedoids-p20": Method(lambda p: jc.KMedoids(p.k, metric="minkowski", p=20, random_state=0)),
    "kmedoids-clara": Method(lambda p: jc.KMedoids(p.k, method="clara", random_state=0)),
}

MIXTURES = {
    **{
        f"gmm-{covariance}": Method(partial(mixture, covariance))
        for covariance in ("full", "tied", "diag", "spherical")
    },
    "bayesian-gmm": Method(partial(variational, jc), weighted=False),
}

GRAPHS = {
    # A sample alone is no cluster of a graph: the diagonal of its Laplacian is 1 there, as scikit-learn has it.
    "spectral-rbf": Method(
        lambda p: jc.SpectralClustering(count_large(p, 2), gamma=0.05 / p.unit**2, random_state=0),
        large=True,
        weighted=False,
    ),
    "spectral-neighbors": Method(
        lambda p: jc.SpectralClustering(count_large(p), affinity="nearest_neighbors", random_state=0),
        large=True,
        weighted=False,
    ),
}

DENSITY = {
    "dbscan": Method(
        lambda p: jc.DBSCAN(EPS * p.unit),
        oracle=by_peer(lambda: sklearn.cluster.DBSCAN(eps=EPS)),
        exact=True,
        exempt={"weights": "min_samples is a weight"},
    ),
    "optics-dbscan": Method(
        lambda p: jc.OPTICS(cluster_method="dbscan", eps=EPS * p.unit),
        oracle=by_peer(lambda: sklearn.cluster.OPTICS(cluster_method="dbscan", eps=EPS)),
        exact=True,
        weighted=False,
    ),
    "optics-xi": Method(
        lambda p: jc.OPTICS(min_samples=SMALLEST),
        oracle=by_peer(lambda: sklearn.cluster.OPTICS(min_samples=SMALLEST)),
        exact=True,
        weighted=False,
    ),
    "hdbscan": Method(
        lambda p: jc.HDBSCAN(SMALLEST),
        oracle=by_peer(lambda: sklearn.cluster.HDBSCAN(SMALLEST, copy=True)),
        weighted=False,
    ),
}


def _functional(name, options, *, traced=False, **facts):
    def make(problem):
        return Functional(partial(algorithms.ALGORITHMS[name].fit, **options(problem)), problem.k, traced=traced)

    return Method(make, traced=traced, **facts)


def _plain(problem):
    return {}


def _mixture(problem):
    """Options of a mixture; it starts at the problem's means, since another start may merge two groups."""
    return {"reg_covar": 1e-6 * problem.unit**2, "init": jc.gmm.GMMInit(means=problem.start)}


FUNCTIONAL = {
    "kmeans-restarts": (lambda p: {"n_init": 5}, {}),
    "kmeans-parallel": (_plain, {}),
    "kmeans-cosine": (
        _plain,
        {"exempt": dict.fromkeys(("offset", "far sample", "odd column", "two far groups", "dtype"), NO_ORIGIN)},
    ),
    "soft-kmeans": (lambda p: {"variance": p.unit**2, "init": p.start}, {}),
    "gmm": (_mixture, {}),
    "gmm-diag": (_mixture, {}),
    "bisecting": (lambda p: {"n_init": 3}, {}),
    "kmedoids": (_plain, {}),
}

FUNCTIONS = {
    **{f"f:{name}": _functional(name, options, **facts) for name, (options, facts) in FUNCTIONAL.items()},
    **{
        f"jit:{name}": _functional(name, options, traced=True, **facts)
        for name, (options, facts) in FUNCTIONAL.items()
        if name in ("kmeans-restarts", "soft-kmeans", "gmm", "bisecting")
    },
}

METHODS: dict[str, Method] = {**CENTERS, **MIXTURES, **GRAPHS, **DENSITY, **FUNCTIONS}

"""The computation of each kind of case, on our side and on its peers': from NumPy arrays to NumPy results.

On an accelerator the rows lie on the device before the clock starts, on every side that runs there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcluster
from bench import categories, data, density, mixtures, networks, partitions, peers, transport
from bench.cases import Case
from bench.peers import CLUSTPY, LIGHTLY, LOOP, SKLEARN, Answer, Call
from bench.unsupervised import clustergan, deepcluster, swav

OURS = "jaxcluster"


class Work(NamedTuple):
    """The calls to time, and how it is told that they compute the same.

    Attributes:
        tolerance: relative difference of the values at which two sides still agree.
        probe: the same work cut short, on which labels are compared instead.
    """

    ours: Call
    peers: Mapping[str, Call]
    tolerance: float = 1e-3
    probe: Work | None = None
    data: str = "generated"
    merit: bool = False
    """True if the value is a quality score of a random computation: ours may be better than a peer's, but not worse."""

    @property
    def sides(self) -> dict[str, Call]:
        """Every side by its name, ours first."""
        return {OURS: self.ours, **self.peers}


LABEL_TOLERANCE = 1e-3
"""Share of rows that may be labeled otherwise: float32 sums differ in their order, and rows lie between centers."""


def labels_differ(ours: Answer, theirs: Answer) -> float | None:
    """The share of rows that two answers label otherwise, where both have labels."""
    if ours.labels is None or theirs.labels is None:
        return None
    return float(np.mean(ours.labels != theirs.labels))


def disagreement(ours: Answer, theirs: Answer, tolerance: float, *, merit: bool = False) -> str | None:
    """The reason that two results are not of the same computation, or None if they are; for ``merit`` see `Work`."""
    apart = theirs.value - ours.value if merit else abs(ours.value - theirs.value)
    if not apart <= tolerance * max(abs(theirs.value), 1e-6):
        return f"ours is {ours.value:.8g}, theirs {theirs.value:.8g}"
    if None not in (ours.steps, theirs.steps) and ours.steps != theirs.steps:
        return f"ours took {ours.steps} iterations, theirs {theirs.steps}"
    differing = labels_differ(ours, theirs)
    if differing is not None and differing > LABEL_TOLERANCE:
        return f"{differing:.2%} of the labels differ"
    return None


def compare(work: Work, ours: Answer, theirs: Mapping[str, Answer]) -> dict[str, dict[str, Any]]:
    """Disagreement of each peer's result with ours, and the fraction of labels that differ."""
    if work.probe is None:
        return {
            name: {
                "disagreement": disagreement(ours, answer, work.tolerance, merit=work.merit),
                "labels_differ": labels_differ(ours, answer),
            }
            for name, answer in theirs.items()
        }
    reports = compare(work.probe, work.probe.ours(), {name: call() for name, call in work.probe.peers.items()})
    for name, answer in theirs.items():
        mismatch = disagreement(ours._replace(labels=None), answer, work.tolerance)
        reports[name]["disagreement"] = reports[name]["disagreement"] or mismatch
    return reports


def lloyd(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Lloyd's iterations from given rows.

    Where clusters overlap, a row that rounding puts on the other side of a tie moves two centers, and they move more
    rows: two correct float32 runs part by several percent of the labels in ten iterations, at the same inertia. So
    labels are compared after one iteration, inertia and the number of iterations after all.
    """
    x, source = data.rows(case, folder)
    theirs = {name: build for name, build in peers.LLOYD.items() if name in found}
    return _lloyd_from(data.starting_rows(x, case.k), x, case.steps, theirs)._replace(data=source)


def sparse_lloyd(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Lloyd's iterations on sparse rows from means of 50 rows each; what is compared is that of `lloyd`.

    From single rows, most of which share no word with another, nearly all first distances would be equal.
    """
    x = data.texts(case)
    groups = np.random.default_rng(1).permutation(case.n)[: 50 * case.k].reshape(case.k, 50)
    start = np.stack([x[np.sort(group)].mean(axis=0) for group in groups]).astype(np.float32)
    return _lloyd_from(start, x, case.steps, {SKLEARN: peers.sklearn_lloyd} if SKLEARN in found else {})


def _lloyd_from(start: np.ndarray, x: Any, steps: int, theirs: Mapping[str, Callable[..., Call]]) -> Work:
    samples, key = data.place(x), jax.random.key(0)

    def ours(steps: int) -> Answer:
        fit = jaxcluster.kmeans.fit(key, samples, len(start), init=start, tol=0.0, max_steps=steps)
        return Answer(float(fit.state.inertia), np.asarray(fit.labels), int(fit.steps))

    def work(steps: int) -> Work:
        return Work(partial(ours, steps), {name: build(x, start, steps) for name, build in theirs.items()})

    return work(steps)._replace(probe=work(1))


def em(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """EM steps of a Gaussian mixture from given parameters.

    Memberships are soft, so that rounding does not grow as it does in Lloyd's iterations, and labels are compared after
    all of them. By the last step the bound still rises by more than its tolerance: one step less would be seen.
    """
    x, source = data.rows(case, folder)
    start, samples, key = mixtures.start(x, case.k, case.covariance), data.place(x), jax.random.key(0)

    def ours() -> Answer:
        fit = jaxcluster.gmm.fit(
            key,
            samples,
            case.k,
            covariance=case.covariance,
            init=start._asdict(),
            tol=0.0,
            max_steps=case.steps,
            reg_covar=mixtures.RIDGE,
        )
        return Answer(float(fit.state.lower_bound), np.asarray(fit.labels), int(fit.steps))

    theirs = {
        name: build(x, start, case.covariance, case.steps) for name, build in mixtures.EM.items() if name in found
    }
    return Work(ours, theirs, tolerance=1e-5, data=source)


def by_density(
    peers_of: Mapping[str, Callable[..., Call | None]], fit: Callable[..., Any]
) -> Callable[[Case, Mapping[str, str], Path | None], Work]:
    """Clusters by density: the same labels, but for rows whose distances decide in the last bit.

    Args:
        peers_of: each peer's call for the rows, and the radius of a case that has one; None for what it cannot do.
        fit: ours.
    """

    def build(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
        x = data.dense_blobs(case)
        radius = {} if case.eps is None else {"eps": case.eps}
        theirs = {name: make(x, **radius) for name, make in peers_of.items() if name in found}
        theirs = {name: call for name, call in theirs.items() if call is not None and name not in case.without}
        return Work(lambda: density.answer(fit(x, min_samples=density.MIN_SAMPLES, **radius).labels), theirs, 0)

    return build


def hdbscan(x: np.ndarray, min_samples: int) -> Any:
    """Ours, with clusters of as few rows as make one dense."""
    return jaxcluster.hdbscan.fit(x, min_cluster_size=min_samples, min_samples=min_samples)


def spectral(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Spectral clustering on the graph of 10 nearest rows. The value is how well the labels match what was drawn.

    The random streams of k-means differ, and so may the labels of rows between clusters.
    """
    x, truth = data.blobs(case)

    def answer(labels: np.ndarray) -> Answer:
        return Answer(float(jaxcluster.metrics.adjusted_rand_score(truth, np.asarray(labels))))

    def ours() -> Answer:
        graph = {"affinity": "nearest_neighbors", "n_neighbors": 10}
        return answer(jaxcluster.spectral.fit(jax.random.key(0), x, case.k, **graph).labels)

    def theirs() -> Answer:
        from sklearn.cluster import SpectralClustering

        graph = {"affinity": "nearest_neighbors", "n_neighbors": 10}
        return answer(SpectralClustering(case.k, random_state=0, n_jobs=-1, **graph).fit(x).labels_)

    return Work(ours, {SKLEARN: theirs} if SKLEARN in found and SKLEARN not in case.without else {}, tolerance=0.01)


def nystrom(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Spectral clustering from 200 landmarks, by a kernel as wide as a blob. No peer has it."""
    x, truth = data.blobs(case)

    def ours() -> Answer:
        fit = jaxcluster.spectral.nystrom(jax.random.key(0), x, case.k, gamma=0.5 / case.d, landmarks=200)
        return Answer(float(jaxcluster.metrics.adjusted_rand_score(truth, np.asarray(fit.labels))))

    return Work(ours, {})


def kmedoids(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """k-medoids from given rows, until no swap lowers the loss, distances included.

    Rounding that decides one swap leads to another optimum: losses are compared, within one percent.
    """
    x, _ = data.blobs(case)
    start = partitions.starting_medoids(case.n, case.k)
    samples, key = data.place(x), jax.random.key(0)

    def ours() -> Answer:
        fit = jaxcluster.kmedoids.fit(key, samples, case.k, init=start)
        np.asarray(fit.labels)
        return Answer(float(fit.state.loss))

    theirs = {name: build(x, start) for name, build in partitions.FASTERPAM.items() if name in found}
    theirs = {name: _without_labels(call) for name, call in theirs.items()}
    return Work(ours, theirs, tolerance=0.01)


def kprototypes(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """k-prototypes from given rows, until no label changes.

    The peer updates a prototype after each row that it moves: inertias are compared, within one percent.
    """
    rows = categories.mixed(case)
    start, key = categories.first_of_each(rows, case.k), jax.random.key(0)
    init = rows.numbers[start], rows.codes[start]
    counts = (categories.CATEGORIES,) * rows.codes.shape[1]

    def ours() -> Answer:
        fit = jaxcluster.kprototypes.fit(
            key, rows.numbers, case.k, codes=rows.codes, gamma=categories.GAMMA, init=init, tol=0.0, n_categories=counts
        )
        np.asarray(fit.labels)
        return Answer(float(fit.state.inertia))

    theirs = {name: build(rows, start) for name, build in categories.PROTOTYPES.items() if name in found}
    return Work(ours, theirs, tolerance=0.01)


def gower_medoids(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """k-medoids by Gower's distance from given rows of a table, distances included."""
    rows = categories.mixed(case)
    start, table = categories.first_of_each(rows, case.k), rows.table
    options = {"metric": "gower", "metric_params": {"categorical": rows.categorical}, "init": start}

    def ours() -> Answer:
        return Answer(jaxcluster.KMedoids(case.k, **options).fit(table).inertia_)

    theirs = {name: build(rows, start) for name, build in categories.MEDOIDS.items() if name in found}
    return Work(ours, {name: call for name, call in theirs.items() if call is not None}, tolerance=0.01)


def balanced(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Lloyd's steps with assignments to clusters of equal size, from given rows."""
    x, _ = data.blobs(case)
    sizes = (case.n // case.k, -(-case.n // case.k))
    start, samples, key = data.starting_rows(x, case.k), data.place(x), jax.random.key(0)

    def ours() -> Answer:
        fit = jaxcluster.balanced.fit(key, samples, case.k, init=start, tol=0.0, max_steps=case.steps)
        is_balanced = np.isin(np.bincount(np.asarray(fit.labels), minlength=case.k), sizes).all()
        return Answer(float(fit.state.inertia) if is_balanced else np.nan)

    theirs = {
        name: _without_labels(build(x, start, sizes, case.steps))
        for name, build in partitions.BALANCED.items()
        if name in found
    }
    return Work(ours, theirs, tolerance=0.01)


def sinkhorn(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Rounds of Sinkhorn's iteration between two sets of rows, costs included, in float32."""
    x, y = transport.clouds(case)
    arrays = data.place(x), data.place(y)

    def ours() -> Answer:
        solved = jaxcluster.sinkhorn.solve(
            *arrays, epsilon=case.eps, tol=0.0, max_steps=case.steps, epsilon_decay=None, omega=1.0
        )
        return Answer(float(solved.transport_cost))

    theirs = {
        name: build(x, y, case.eps, case.steps)
        for name, build in transport.PEERS.items()
        if name in found and name not in case.without
    }
    return Work(ours, theirs)


def trained(
    ours: networks.Build, theirs: Mapping[str, networks.Build], tolerance: float
) -> Callable[[Case, Mapping[str, str], Path | None], Work]:
    """A network trained for as many steps on every side, which each draws its own weights and order of rows."""

    def build(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
        x, truth = data.pixels(case)
        calls = {name: make(case, x, truth) for name, make in theirs.items() if name in found}
        return Work(ours(case, data.place(x), truth), calls, tolerance, merit=True)

    return build


def _in_torch(module: str, name: str) -> networks.Build:
    """A function of a module that is imported only if PyTorch is installed."""

    def build(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
        return getattr(importlib.import_module(f"bench.unsupervised.torch_{module}"), name)(case, x, truth)

    return build


def _without_labels(call: Call) -> Call:
    """Two optima of nearly the same worth may differ in many labels: only the worth is compared."""
    return lambda: call()._replace(labels=None, steps=None)


def sweep(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """K-means++ and Lloyd to convergence for k from 2 up and every seed, against a loop; mean inertias are compared.

    The random streams differ, so the two means agree only as samples of one distribution do.
    """
    x, source = data.rows(case, folder)
    samples, key, ks = data.place(x), jax.random.key(0), range(2, case.k + 1)
    tol, most = 1e-4, 100

    def ours() -> Answer:
        fit = jaxcluster.kmeans.sweep(key, samples, ks, n_seeds=case.seeds, tol=tol, max_steps=most)
        np.asarray(fit.labels)
        return Answer(float(np.mean(fit.state.inertia)))

    def loop() -> Answer:
        kmeans_class = peers.estimator(SKLEARN)
        fits = (
            kmeans_class(k, init="k-means++", n_init=1, max_iter=most, tol=tol, random_state=seed).fit(x)
            for k in ks
            for seed in range(case.seeds)
        )
        return Answer(float(np.mean([fit.inertia_ for fit in fits])))

    return Work(ours, {SKLEARN: loop} if SKLEARN in found else {}, tolerance=0.02, data=source)


def small(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
    """Many small problems in one vmap, against a loop, each to convergence from the same rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.problems, case.n, case.d), np.float32)
    x += 3 * rng.standard_normal((case.problems, case.k, case.d), np.float32)[:, np.arange(case.n) % case.k]
    starts = np.stack([data.starting_rows(problem, case.k) for problem in x])
    samples, key = data.place(x), jax.random.key(0)
    tol, most = 1e-4, 300

    @jax.jit
    @jax.vmap
    def fit_all(rows, start):
        fit = jaxcluster.kmeans.fit(key, rows, case.k, init=start, tol=tol, max_steps=most)
        return fit.state.inertia, fit.labels

    def ours() -> Answer:
        inertia, labels = fit_all(samples, starts)
        return Answer(float(np.mean(inertia)), np.asarray(labels).ravel())

    def loop() -> Answer:
        kmeans_class = peers.estimator(SKLEARN)
        fits = [
            kmeans_class(case.k, init=start, n_init=1, max_iter=most, tol=tol).fit(rows)
            for rows, start in zip(x, starts, strict=True)
        ]
        return Answer(float(np.mean([fit.inertia_ for fit in fits])), np.concatenate([fit.labels_ for fit in fits]))

    return Work(ours, {SKLEARN: loop} if SKLEARN in found else {})


def score(name: str, arguments: Callable[[Case], tuple]) -> Callable[[Case, Mapping[str, str], Path | None], Work]:
    """A metric by its name, which is the same on both sides, of arguments made for the case."""

    def build(case: Case, found: Mapping[str, str], folder: Path | None) -> Work:
        inputs = arguments(case)
        arrays = tuple(map(data.place, inputs))

        def ours() -> Answer:
            return Answer(float(getattr(jaxcluster.metrics, name)(*arrays)))

        def theirs() -> Answer:
            import sklearn.metrics

            return Answer(float(getattr(sklearn.metrics, name)(*inputs)))

        return Work(ours, {SKLEARN: theirs} if SKLEARN in found else {})

    return build


class Kind(NamedTuple):
    """A kind of case: how its rows of the table are titled, and what makes its calls."""

    title: str
    build: Callable[[Case, Mapping[str, str], Path | None], Work]


WORKS = {
    "lloyd": Kind("Lloyd ×{steps}, {n:,}×{d}, k = {k:,}", lloyd),
    "sparse_lloyd": Kind("Lloyd ×{steps}, texts of {n:,}×{d:,} words, sparse, k = {k}", sparse_lloyd),
    "em": Kind("EM ×{steps}, {n:,}×{d}, k = {k}, {covariance}", em),
    "dbscan": Kind("DBSCAN, {n:,}×{d}, eps = {eps}", by_density(density.DBSCAN, jaxcluster.dbscan.fit)),
    "optics": Kind("OPTICS, {n:,}×{d}", by_density(density.OPTICS, jaxcluster.optics.fit)),
    "hdbscan": Kind("HDBSCAN, {n:,}×{d}", by_density(density.HDBSCAN, hdbscan)),
    "spectral": Kind("Spectral clustering, {n:,}×{d}, k = {k}", spectral),
    "nystrom": Kind("Spectral clustering by Nyström, {n:,}×{d}, k = {k}", nystrom),
    "kmedoids": Kind("k-medoids, {n:,}×{d}, k = {k}", kmedoids),
    "kprototypes": Kind("k-prototypes, {n:,}×{d}, half of them categories, k = {k}", kprototypes),
    "gower_medoids": Kind("k-medoids by Gower, {n:,}×{d}, half of them categories, k = {k}", gower_medoids),
    "sinkhorn": Kind("Sinkhorn ×{steps}, {n:,}² of {d} columns, ε = {eps}", sinkhorn),
    "balanced": Kind("Balanced k-means ×{steps}, {n:,}×{d}, k = {k}", balanced),
    "dec": Kind(
        "DEC, {n:,}×{d}, k = {k}, epochs: {steps} + {steps}, batch {batch}",
        trained(networks.our_dec, {CLUSTPY: networks.clustpy_dec}, tolerance=0.01),
    ),
    "vade": Kind(
        "VaDE, {n:,}×{d}, k = {k}, epochs: {steps} + {steps}, batch {batch}",
        trained(networks.our_vade, {CLUSTPY: networks.clustpy_vade}, tolerance=0.01),
    ),
    "clustergan": Kind(
        "ClusterGAN, {n:,}×{d}, k = {k}, epochs: {steps}, batch {batch}",
        trained(clustergan.dense, {LOOP: _in_torch("clustergan", "dense")}, tolerance=0.01),
    ),
    "clustergan_images": Kind(
        "ClusterGAN of images, {n:,}×{d}, k = {k}, epochs: {steps}, batch {batch}",
        trained(clustergan.images, {LOOP: _in_torch("clustergan", "images")}, tolerance=0.01),
    ),
    "swav": Kind(
        "SwAV, {n:,}×{d}, k = {k}, epochs: {steps}, batch {batch}",
        trained(swav.ours, {LIGHTLY: _in_torch("swav", "loop")}, tolerance=0.01),
    ),
    "deepcluster": Kind(
        "DeepCluster, {n:,}×{d}, k = {k}, epochs: {steps}, batch {batch}",
        trained(deepcluster.ours, {LOOP: _in_torch("deepcluster", "loop")}, tolerance=0.01),
    ),
    "sweep": Kind("k-means, {n:,}×{d}, k = 2 … {k}, {seeds} seeds each", sweep),
    "small": Kind("{problems:,} k-means problems of {n:,}×{d}, k = {k}", small),
    "silhouette": Kind("Silhouette, {n:,}×{d}, k = {k}", score("silhouette_score", data.blobs)),
    "davies_bouldin": Kind("Davies–Bouldin, {n:,}×{d}, k = {k}", score("davies_bouldin_score", data.blobs)),
    "ari": Kind("Adjusted Rand, {n:,} labels, {k} clusters", score("adjusted_rand_score", data.label_pairs)),
    "nmi": Kind("NMI, {n:,} labels, {k} clusters", score("normalized_mutual_info_score", data.label_pairs)),
}


def title(case: Case) -> str:
    """The title of a case in the table."""
    return WORKS[case.work].title.format(**vars(case))

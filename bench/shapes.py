"""The best ARI of each method on shapes: ``python -m bench.shapes --data DIR`` measures, ``bench.table`` shows.

Each method is given the true number of clusters if it takes one, and otherwise the best of a few settings, chosen by
the truth: what it can see at its best, not what it finds unguided. Rings and moons are generated; DIR may hold
``benchmark_suite.npz`` for more. Methods that are to be scikit-learn's to the label are compared with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn.cluster
from scipy.spatial import cKDTree
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

import jaxcluster as jc
from bench import peers
from bench.provenance import provenance
from bench.records import RESULTS, append
from bench.table import shapes_markdown

FOLDER = RESULTS / "shapes"

SUITE = "benchmark_suite"

Options = Mapping[str, Any]


class Shape(NamedTuple):
    """Rows, and the labelings that are right for them; 0 marks rows that belong nowhere."""

    x: np.ndarray
    truths: np.ndarray

    @property
    def k(self) -> int:
        """Clusters of the first labeling."""
        return int(self.truths[0].max())

    def score(self, labels: np.ndarray) -> float:
        """The greatest ARI to a labeling, over the rows that belong somewhere."""
        return max(adjusted_rand_score(truth[truth > 0], labels[truth > 0]) for truth in self.truths)


class Method(NamedTuple):
    """An estimator, the settings to choose from, and scikit-learn's estimator if its labels must be the same."""

    make: Callable[..., Any]
    settings: Callable[[Shape], Iterator[Options]]
    oracle: Callable[..., Any] | None = None


def grid(**choices: Sequence[Any]) -> Iterator[Options]:
    """Every combination of some choices."""
    return (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))


def radii(shape: Shape) -> Iterator[Options]:
    """Radii for DBSCAN: what the fifth nearest rows are within."""
    fifth = cKDTree(shape.x).query(shape.x, 5)[0][:, -1]
    return grid(eps=np.unique(np.quantile(fifth, [0.5, 0.75, 0.9, 0.95, 0.98, 1])) * 1.001)


def graphs(shape: Shape) -> Iterator[Options]:
    """Degrees of a graph for spectral clustering."""
    return grid(n_neighbors=[5, 10, 20])


def xis(shape: Shape) -> Iterator[Options]:
    """Steepness and sizes for OPTICS."""
    return grid(min_samples=[5, 15], xi=[0.01, 0.05, 0.1], min_cluster_size=[None, 0.05])


def sizes(shape: Shape) -> Iterator[Options]:
    """Smallest clusters and ways to choose for HDBSCAN."""
    return grid(min_cluster_size=[5, 10, 25, 50], cluster_selection_method=["eom", "leaf"])


def given_k(shape: Shape) -> Iterator[Options]:
    """Nothing to choose."""
    return grid()


METHODS = {
    "k-means": Method(lambda k: jc.KMeans(k, n_init=10, random_state=0), given_k),
    "Gaussian mixture": Method(lambda k: jc.GaussianMixture(k, n_init=5, random_state=0), given_k),
    "spectral": Method(
        lambda k, **options: jc.SpectralClustering(k, affinity="nearest_neighbors", random_state=0, **options), graphs
    ),
    "DBSCAN": Method(
        lambda k, **options: jc.DBSCAN(**options), radii, lambda **options: sklearn.cluster.DBSCAN(**options)
    ),
    "OPTICS": Method(
        lambda k, **options: jc.OPTICS(**options), xis, lambda **options: sklearn.cluster.OPTICS(**options)
    ),
    "HDBSCAN": Method(
        lambda k, **options: jc.HDBSCAN(**options),
        sizes,
        lambda **options: sklearn.cluster.HDBSCAN(copy=True, **options),
    ),
}


def shapes(folder: Path | None) -> Iterator[tuple[str, Shape]]:
    """Rings and moons, and those of the suite."""
    yield "rings", Shape(*_one_truth(make_circles(1_500, factor=0.5, noise=0.05, random_state=0)))
    yield "moons", Shape(*_one_truth(make_moons(1_500, noise=0.07, random_state=0)))
    if folder is not None:
        with np.load(folder / f"{SUITE}.npz") as archive:
            for name in (name[:-2] for name in archive.files if name.endswith(".X")):
                yield name, Shape(archive[f"{name}.X"].astype(np.float64), archive[f"{name}.y"])


def _one_truth(drawn):
    x, y = drawn
    return x, y[None] + 1


def measure(shape: Shape) -> dict[str, dict[str, Any]]:
    """The best ARI of each method, its settings, and with these settings the ARI to scikit-learn's labels."""
    found = {}
    for name, method in METHODS.items():
        tried = []
        for options in method.settings(shape):
            labels = np.asarray(method.make(shape.k, **options).fit_predict(shape.x))
            tried.append((shape.score(labels), options, labels))
        ari, options, labels = max(tried, key=lambda one: one[0])
        found[name] = {"ari": ari, "settings": {key: _plain(value) for key, value in options.items()}}
        if method.oracle is not None:
            theirs = method.oracle(**options).fit_predict(shape.x)
            found[name]["ari_to_sklearn"] = adjusted_rand_score(theirs, labels)
            found[name]["labels_differ"] = float(np.mean(theirs != labels))
    return found


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every shape, and appends a record of it to the committed results."""
    parser = argparse.ArgumentParser(prog="python -m bench.shapes", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"folder with {SUITE}.npz, for more shapes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="shapes to measure")
    parser.add_argument("--out", type=Path, help="JSON lines to append to (in bench/results/shapes)")
    options = parser.parse_args(arguments)
    made = provenance(peers.installed(jax.default_backend()), quick=False)
    out = options.out or FOLDER / f"{jax.default_backend()}-{made['date'][:10]}.jsonl"
    records = []
    for name, shape in shapes(options.data):
        if options.only and name not in options.only:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        records.append({"case": name, "n": len(shape.x), "d": shape.x.shape[1], "k": shape.k})
        records[-1] |= {"methods": measure(shape), "data": "generated", "provenance": made}
        append(out, records[-1])
    print(shapes_markdown(records))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

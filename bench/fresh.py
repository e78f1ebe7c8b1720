"""Time of a fresh process from import to labels: ``python -m bench.fresh`` beside scikit-learn, one process a call.

Ours runs with an empty disk cache of compiled programs ("cold") and with one that an earlier process has filled
("warm"). The sides take turns. A grid search is one call: 6 values of k in 5 folds, and the fit of the best.
"""

from __future__ import annotations

import argparse
import compileall
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append
from bench.table import fresh_markdown

FOLDER = RESULTS / "fresh"

SIDES = ("scikit-learn", "warm", "cold")

COLD_CALLS = 3
"""Calls with an empty disk cache, whose times differ little from one another."""


class FreshCase(NamedTuple):
    """An estimator, ours and scikit-learn's of the same parameters, on drawn samples.

    Attributes:
        name: of the case.
        estimator: name of the class, the same on both sides.
        module: of scikit-learn.
        options: of both.
        n, d: numbers of samples and of features.
        grid: name of the parameter of a grid search; None for one fit.
    """

    name: str
    estimator: str
    module: str
    options: dict[str, Any]
    n: int = 1_000
    d: int = 10
    grid: str | None = None


SEEDED = {"random_state": 0}

CASES = (
    FreshCase("kmeans", "KMeans", "cluster", {"n_clusters": 5, **SEEDED}),
    FreshCase("minibatch-kmeans", "MiniBatchKMeans", "cluster", {"n_clusters": 5, **SEEDED}),
    FreshCase("bisecting-kmeans", "BisectingKMeans", "cluster", {"n_clusters": 5, **SEEDED}),
    FreshCase("gmm", "GaussianMixture", "mixture", {"n_components": 5, **SEEDED}),
    FreshCase("bayesian-gmm", "BayesianGaussianMixture", "mixture", {"n_components": 5, **SEEDED}),
    FreshCase("dbscan", "DBSCAN", "cluster", {"eps": 3.0}),
    FreshCase("hdbscan", "HDBSCAN", "cluster", {"copy": True}),
    FreshCase("optics", "OPTICS", "cluster", {}),
    FreshCase(
        "spectral", "SpectralClustering", "cluster", {"n_clusters": 5, "affinity": "nearest_neighbors", **SEEDED}
    ),
    FreshCase("kmeans-large", "KMeans", "cluster", {"n_clusters": 5, **SEEDED}, n=100_000, d=20),
    FreshCase("gmm-large", "GaussianMixture", "mixture", {"n_components": 5, **SEEDED}, n=100_000, d=20),
    FreshCase("kmeans-grid", "KMeans", "cluster", {"n_init": 1, **SEEDED}, grid="n_clusters"),
    FreshCase("gmm-grid", "GaussianMixture", "mixture", SEEDED, grid="n_components"),
)

PROGRAM = """
import time
start = time.perf_counter()
import numpy as np
from {module} import {estimator}
model = {estimator}(**{options!r})
if {grid!r} is not None:
    from sklearn.model_selection import GridSearchCV
    model = GridSearchCV(model, {{{grid!r}: [2, 3, 4, 5, 6, 7]}}, cv=5)
x = np.load({rows!r})
labels = model.fit(x).predict(x) if {grid!r} is not None else model.fit_predict(x)
assert len(np.asarray(labels)) == len(x)
print(time.perf_counter() - start)
"""
"""Program of a process, which prints the seconds from its first line to the labels."""


def program(case: FreshCase, side: str, rows: Path) -> str:
    """Source of the program of a side."""
    ours = side != "scikit-learn"
    options = {name: value for name, value in case.options.items() if not (ours and name == "copy")}
    module = "jaxcluster" if ours else f"sklearn.{case.module}"
    return PROGRAM.format(module=module, estimator=case.estimator, options=options, grid=case.grid, rows=str(rows))


def seconds_of(source: str, cache: Path) -> float:
    """Seconds that a fresh process takes, its disk cache in a folder."""
    unset = ("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", source]
    return float(subprocess.run(command, env=env, cwd=cache, capture_output=True, text=True, check=True).stdout)


def draw(case: FreshCase, quick: bool) -> np.ndarray:
    """Samples of a case: five blobs that overlap a little."""
    rng = np.random.default_rng(0)
    n = min(case.n, 200) if quick else case.n
    return rng.normal(size=(n, case.d)) + 5 * rng.normal(size=(5, case.d))[rng.integers(5, size=n)]


def measure(case: FreshCase, repeats: int, quick: bool) -> dict[str, Any]:
    """Seconds of each side: ``repeats`` warm calls and calls of scikit-learn in turns, then cold ones."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        np.save(base / "rows.npy", draw(case, quick))
        sources = {side: program(case, side, base / "rows.npy") for side in SIDES}
        caches = {side: base / side for side in SIDES}
        for cache in caches.values():
            cache.mkdir()
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        seconds_of(sources["scikit-learn"], caches["scikit-learn"])  # from here on its files are in memory
        seconds["cold"].append(seconds_of(sources["warm"], caches["warm"]))  # fills the cache of the warm calls
        for _ in range(repeats):
            for side in ("warm", "scikit-learn"):
                seconds[side].append(seconds_of(sources[side], caches[side]))
        for number in range(min(repeats, COLD_CALLS) - 1):
            (cache := base / f"cold{number}").mkdir()
            seconds["cold"].append(seconds_of(sources["cold"], cache))
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    ratios = {side: medians[side] / medians["scikit-learn"] for side in ("warm", "cold")}
    return {"case": case.name, "n": case.n, "d": case.d, "seconds": seconds, "medians": medians, "ratios": ratios}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the chosen cases and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.fresh", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="cases to run; * and ? match")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each side; at most three of the cold one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; never recorded")
    parser.add_argument("--write", action="store_true", help="record the outcome in bench/results/fresh")
    options = parser.parse_args(arguments)
    # An installation compiles the sources; a checkout where Python may not write bytecode would do so in each process.
    compileall.compile_dir(ROOT / "jaxcluster", quiet=2)
    made, records = provenance({}, quick=options.quick), []
    for case in CASES:
        if any(fnmatch(case.name, pattern) for pattern in options.only):
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            records.append({**measure(case, options.repeats, options.quick), "data": "generated", "provenance": made})
            if options.write and not options.quick:
                append(FOLDER / f"{jax.default_backend()}-{made['date'][:10]}.jsonl", records[-1])
    print(fresh_markdown(records))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

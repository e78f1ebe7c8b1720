"""Deep estimators with their defaults on tables, beside scikit-learn's k-means and Gaussian mixture on the scaled rows.

``python -m bench.small_tables --data DIR`` measures `jaxcluster.deep.start.fit_start` alone, whose labels an estimator
with select="stable" keeps, on all tables; ``--methods DEC VaDE`` trains estimators. Classes only score the labels: the
constants of the choice come from `bench.generated_tables`, other seeds of which are reported too, by themselves.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs, make_classification
from sklearn.mixture import GaussianMixture

import jaxcluster as jc
from bench import generated_tables
from bench.provenance import provenance
from bench.records import RESULTS, append
from jaxcluster import metrics
from jaxcluster.deep.start import fit_start
from jaxcluster.estimators.deep.scaling import scaled

REPORTED_SEEDS = (100,)
"""Seeds of the generated tables that are reported: not those that constants were chosen on."""


class Table(NamedTuple):
    """Samples with classes.

    Attributes:
        name: of the table.
        x: (n_samples, n_features).
        y: (n_samples,) classes, 0 for samples that are not scored.
        k: number of classes.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    k: int


def tables(folder: Path | None) -> Iterator[Table]:
    """Yield the tables of scikit-learn, of its generators, of the benchmark suite and of `bench.generated_tables`."""
    for load in (load_iris, load_wine, load_breast_cancer, load_digits):
        x, y = load(return_X_y=True)
        yield Table(load.__name__.removeprefix("load_"), x, y + 1, int(y.max()) + 1)
    for seed in range(3):
        x, y = make_classification(2_000, 12, n_informative=6, n_classes=4, class_sep=2.0, random_state=seed)
        yield Table(f"make_classification {seed}", x, y + 1, 4)
        x, y = make_blobs(2_000, 8, centers=6, cluster_std=np.linspace(1, 4, 6), random_state=seed)
        yield Table(f"make_blobs {seed}", x, y + 1, 6)
    if folder is not None:
        with np.load(folder / "benchmark_suite.npz") as archive:
            for name in sorted(key.removesuffix(".X") for key in archive if key.endswith(".X")):
                y = np.atleast_2d(archive[f"{name}.y"])[0]
                yield Table(name, np.float64(archive[f"{name}.X"]), y, np.unique(y[y > 0]).size)
    for seed in REPORTED_SEEDS:
        for name, (x, y, k) in generated_tables.tables(seed).items():
            yield Table(f"generated {name} {seed}", x, y + 1, k)


def score(table: Table, labels: np.ndarray) -> float:
    """Adjusted Rand index of the samples with a class."""
    known = table.y > 0
    return float(metrics.adjusted_rand_score(table.y[known], np.asarray(labels)[known]))


def measure(method: str, table: Table, seed: int) -> dict[str, Any]:
    """The scores of one fit, and those of k-means and the mixture on the same scaled samples."""
    rows, _ = scaled(table.x, "auto")
    rows = np.float64(rows)
    begin, load = time.perf_counter(), os.getloadavg()[0]
    if method == "start":
        start = fit_start(jax.random.key(seed), rows, table.k)
        labels, more = start.predict(rows), {"kind": start.name}
    else:
        model = getattr(jc, method)(table.k, random_state=seed).fit(table.x)
        labels, more = model.labels_, {"chosen": model.chosen_}
    spent = time.perf_counter() - begin
    mixture = GaussianMixture(table.k, n_init=5, random_state=seed)
    return {
        "ari": score(table, labels),
        "k-means": score(table, KMeans(table.k, n_init=10, random_state=seed).fit_predict(rows)),
        "mixture": score(table, mixture.fit_predict(rows)),
        **more,
        "seconds": round(spent, 1),
        "load_at_start": round(load, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs methods and seeds on tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.small_tables", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with benchmark_suite.npz")
    parser.add_argument("--methods", nargs="+", default=("start",), help="start, or names of deep estimators")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="tables whose names hold one of these")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--commit", help="the commit to record where there is no repository")
    parser.add_argument("--results", type=Path, default=RESULTS / "small_tables")
    options = parser.parse_args(arguments)
    origin = provenance({}, quick=False, commit=options.commit)
    for table in tables(options.data):
        if options.only and not any(part in table.name for part in options.only):
            continue
        for method in options.methods:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs = [measure(method, table, seed) for seed in options.seeds]
            mean = {name: float(np.mean([run[name] for run in runs])) for name in ("ari", "k-means", "mixture")}
            record = {
                "case": f"{method}-{table.name}",
                "method": method,
                "data": table.name,
                "sizes": {"n": len(table.x), "d": table.x.shape[1], "k": table.k},
                "mean": mean,
                "difference": mean["ari"] - max(mean["k-means"], mean["mixture"]),
                "runs": runs,
                "provenance": origin,
            }
            append(options.results / f"{origin['platform']}-{origin['date'][:10]}.jsonl", record)
            print(record["case"], {name: round(value, 3) for name, value in mean.items()}, flush=True)


if __name__ == "__main__":
    main()

"""Heads on embeddings beside k-means on the same features, with default settings: accuracy over seeds.

``python -m bench.heads digits``, or ``python -m bench.heads mnist --file mnist.npz``, whose first 50 principal
components of 10,000 training rows are the features. Nothing is chosen by the classes: they only score the labels.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import jaxcluster as jc
from bench.provenance import provenance
from bench.records import RESULTS, append
from jaxcluster import metrics

COMPONENTS, ROWS, CLASSES = 50, 10_000, 10
"""Principal components of a set, rows drawn from a file, and number of classes of every set."""

METHODS = ("KMeans", "TEMI", "SCAN", "TURTLE", "ContrastiveClustering", "N2D")


def features(name: str, file: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of a set.

    Returns:
        (n, 50) features and (n,) classes.
    """
    if file is None:
        if name != "digits":
            raise SystemExit(f"{name} is no built-in set: pass --file with an .npz of x_train and y_train.")
        x, y = load_digits(return_X_y=True)
    else:
        data = np.load(file)
        chosen = np.sort(np.random.default_rng(0).permutation(len(data["y_train"]))[:ROWS])
        x, y = data["x_train"].reshape(len(data["y_train"]), -1)[chosen] / 255, data["y_train"][chosen]
    return PCA(COMPONENTS, random_state=0).fit_transform(x), np.asarray(y)


def measure(method: str, name: str, x: np.ndarray, y: np.ndarray, seed: int, commit: str | None) -> dict[str, Any]:
    """The record of one fit."""
    options = {"n_init": 10} if method == "KMeans" else {}
    model = getattr(jc, method)(CLASSES, random_state=seed, **options)
    begin, load = time.perf_counter(), os.getloadavg()[0]
    labels = model.fit_predict(x)
    return {
        "case": f"{method}-{name}-{seed}",
        "method": method,
        "data": f"{name}-pca{COMPONENTS}",
        "n": len(x),
        "seed": seed,
        "parameters": "defaults" if not options else str(options),
        "accuracy": float(metrics.clustering_accuracy(y, labels)),
        "nmi": float(metrics.normalized_mutual_info_score(y, labels)),
        "ari": float(metrics.adjusted_rand_score(y, labels)),
        "status": model.status_.name,
        "seconds": round(time.perf_counter() - begin, 1),
        "load_at_start": round(load, 1),
        "provenance": provenance({}, quick=False, commit=commit),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs methods and seeds on one set."""
    parser = argparse.ArgumentParser(prog="python -m bench.heads", description=__doc__)
    parser.add_argument("data", help="digits, or a name for --file")
    parser.add_argument("--file", type=Path, help="an .npz of x_train, y_train, pixels from 0 to 255")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--commit", help="the commit to record where there is no repository")
    parser.add_argument("--results", type=Path, default=RESULTS / "heads")
    options = parser.parse_args(arguments)
    x, y = features(options.data, options.file)
    for method in options.methods:
        for seed in options.seeds:
            record = measure(method, options.data, x, y, seed, options.commit)
            origin = record["provenance"]
            append(options.results / f"{origin['platform']}-{origin['date'][:10]}.jsonl", record)
            print({name: record[name] for name in ("case", "accuracy", "nmi", "status", "seconds")}, flush=True)


if __name__ == "__main__":
    main()

"""Runs the protocol: deep methods on a set of images over seeds, with the frozen settings.

``python -m bench.deep mnist.npz --seeds 0 1 2 --work runs/deep`` pretrains one autoencoder a seed for all methods,
and adds a record a method and seed to ``bench/results/deep``, with its curve, its start beside it and its seconds. What
was stopped goes on from its checkpoints, and a record that is there is not made again. Classes only score the labels.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.deep import methods, settings
from bench.images import images
from bench.provenance import provenance
from bench.records import RESULTS, append, read
from bench.timing import timed
from jaxcluster import deep, metrics
from jaxcluster.checkpoint import Checkpoints

PUBLISHED = {
    "mnist": {"autoencoder": 0.81, "dec": 0.843, "idec": 0.881, "dcn": 0.83, "dec-da": 0.985, "vade": 0.9446},
    "fashion_mnist": {"dec-da": 0.586},
}
"""Accuracy in the papers, of a set."""


def scores(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy by the best matching, normalized mutual information and adjusted Rand index."""
    return {
        "accuracy": float(metrics.clustering_accuracy(truth, labels)),
        "nmi": float(metrics.normalized_mutual_info_score(truth, labels)),
        "ari": float(metrics.adjusted_rand_score(truth, labels)),
    }


def data_name(path: Path, rows: int | None) -> str:
    """Name of a set, or of so many images of it: a part has records, networks and checkpoints of its own."""
    return path.stem if rows is None else f"{path.stem}-{rows}"


def measure(method: str, path: Path, *, seed: int, epochs: int, work: Path, rows: int | None = None) -> dict[str, Any]:
    """The record of a method with a seed.

    Args:
        method: of `settings.METHODS`.
        path: of the set of images.
        seed: of the networks and of the training.
        epochs: the most epochs of a training.
        work: folder of pretrained networks and checkpoints.
        rows: so many images drawn at random; None for all.
    """
    x, truth, _ = images(path, rows=rows)
    chosen, name, load = settings.frozen(), data_name(path, rows), os.getloadavg()[0]
    work /= name
    network = partial(methods.pretrained, x, seed, chosen.pretraining, work, augmented=method == "dec-da")
    pretraining, autoencoder = timed(network)
    starting, start = timed(partial(methods.start_on, autoencoder, x, seed, chosen.start))
    record = {
        "case": f"{method}-{name}-{seed}",
        "method": method,
        "data": name,
        "n": len(x),
        "seed": seed,
        "settings": chosen._asdict(),
        "start": {"k-means": scores(truth, start.simple), chosen.start: scores(truth, start.labels)},
        "published": PUBLISHED.get(path.stem, {}).get(method),
    }
    if method == "autoencoder":
        # Its record has both kinds of start; a network that was found in the folder says nothing of its time.
        for kind in set(settings.STARTS) - {"k-means", chosen.start}:
            record["start"][kind] = scores(truth, methods.start_on(autoencoder, x, seed, kind).labels)
        return record | scores(truth, start.labels) | {"seconds": round(starting), "pretraining_s": round(pretraining)}
    curve: list[dict[str, Any]] = []

    def follow(report: deep.EpochReport) -> None:
        curve.append(dict(report.record) | {"accuracy": float(metrics.clustering_accuracy(truth, report.labels))})
        print(curve[-1], flush=True)

    run = {"checkpoints": Checkpoints(work / f"{method}-{seed}", every=5), "resume": True, "callbacks": [follow]}
    training = partial(methods.train, method, autoencoder, x, start, chosen, seed, epochs=epochs, **run)
    seconds, result = timed(training)
    return (
        record
        | scores(truth, result.labels)
        | {
            "status": result.status.name,
            "curve": curve,
            "seconds": round(seconds),
            "load_at_start": round(load, 1),
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs methods and seeds on one set."""
    parser = argparse.ArgumentParser(prog="python -m bench.deep", description=__doc__)
    parser.add_argument("data", type=Path, help="an .npz of x_train, y_train, x_test, y_test, pixels from 0 to 255")
    parser.add_argument("--methods", nargs="+", default=settings.METHODS[:4], choices=settings.METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--epochs", type=int, default=100, help="the most looks at all samples, or passes of VaDE")
    parser.add_argument("--rows", type=int, help="so many images only; such records are quick ones")
    parser.add_argument("--commit", help="the commit to record where there is no repository")
    parser.add_argument("--work", type=Path, default=Path("runs/deep"), help="for networks and checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS / "deep")
    options = parser.parse_args(arguments)
    made = provenance({}, quick=options.rows is not None, commit=options.commit)
    there = {record["case"] for record in read(options.results)}
    for seed in options.seeds:
        for method in options.methods:
            if f"{method}-{data_name(options.data, options.rows)}-{seed}" in there:
                continue
            record = measure(
                method, options.data, seed=seed, epochs=options.epochs, work=options.work, rows=options.rows
            )
            append(options.results / f"{made['platform']}-{made['date'][:10]}.jsonl", record | {"provenance": made})
            print({name: record[name] for name in ("case", "accuracy", "nmi", "start", "seconds")}, flush=True)


if __name__ == "__main__":
    main()

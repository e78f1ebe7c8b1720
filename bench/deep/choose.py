"""Chooses the settings of the protocol without labels, and freezes them in ``settings.json``.

``python -m bench.deep.choose --data DIR`` runs each setting with several seeds on scikit-learn's digits and on 10,000
images of Fashion-MNIST, and takes the one whose seeds agree best: each seed has its own initial weights, order of
samples and clusters, so what all of them find belongs to the data. The agreement is the mean adjusted Rand index of the
labels of two seeds. Kinds of pretraining and of start are chosen together, then one learning rate for all methods.
Classes are never read.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from bench.deep import methods
from bench.deep.settings import FILE, PRETRAINING, RATED, RATES, STARTS, Settings
from bench.images import images
from bench.provenance import provenance
from jaxcluster import metrics

ROWS = 10_000
"""Images of Fashion-MNIST that settings are chosen on."""

EPOCHS, RATE_SEEDS = 5, 2
"""The most epochs of a training here, and seeds of each rate."""


def sets(folder: Path, rows: int) -> dict[str, np.ndarray]:
    """The samples that settings are chosen on."""
    return {
        "digits": np.float32(load_digits().data / 16),
        "fashion_mnist": images(folder / "fashion_mnist.npz", rows=rows).x,
    }


def agreement(runs: Sequence[np.ndarray]) -> float:
    """Mean adjusted Rand index of two runs."""
    return float(np.mean([metrics.adjusted_rand_score(*pair) for pair in itertools.combinations(runs, 2)]))


def starts(data: dict[str, np.ndarray], seeds: Sequence[int], work: Path) -> list[dict]:
    """One line for each kind of pretraining and of start: the agreement of seeds on each set, and silhouettes."""
    lines = []
    for kind in PRETRAINING:
        found = {start: {} for start in STARTS}
        for name, x in data.items():
            networks = [methods.pretrained(x, seed, kind, work / name) for seed in seeds]
            for start in STARTS:
                runs = [methods.start_on(net, x, seed, start) for net, seed in zip(networks, seeds, strict=True)]
                found[start][name] = {
                    "agreement": agreement([run.labels for run in runs]),
                    "silhouette": float(np.mean([_silhouette(run) for run in runs])),
                }
                print("pretraining", kind, "start", start, name, found[start][name], flush=True)
        lines += [{"pretraining": kind, "start": start, "sets": found[start]} for start in STARTS]
    return lines


def rates(data: dict[str, np.ndarray], seeds: Sequence[int], pretraining: str, start: str, work: Path) -> list[dict]:
    """One line for each rate: the agreement of seeds on each set with each method."""
    lines = []
    for rate in RATES:
        settings, found = Settings(pretraining, start, rate), {}
        for (name, x), method in itertools.product(data.items(), RATED):
            runs = []
            for seed in seeds:
                net = methods.pretrained(x, seed, pretraining, work / name)
                begin = methods.start_on(net, x, seed, start)
                runs.append(methods.train(method, net, x, begin, settings, seed, epochs=EPOCHS).labels)
            found[f"{method} {name}"] = {"agreement": agreement(runs)}
            print("rate", rate, method, name, found[f"{method} {name}"], flush=True)
        lines.append({"rate": rate, "sets": found})
    return lines


def best(lines: Sequence[dict]) -> dict:
    """The line with the greatest mean agreement; of equals the first."""
    return max(lines, key=lambda line: np.mean([each["agreement"] for each in line["sets"].values()]))


def _silhouette(run):
    size = min(2_000, len(run.codes))
    return float(metrics.silhouette_score(run.codes, run.labels, sample_size=size, random_state=0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Chooses and freezes."""
    parser = argparse.ArgumentParser(prog="python -m bench.deep.choose", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with fashion_mnist.npz")
    parser.add_argument("--rows", type=int, default=ROWS, help="images of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=(100, 101, 102), help="seeds that are not reported")
    parser.add_argument("--work", type=Path, default=Path("runs/deep/choose"), help="for networks")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    data = sets(options.data, options.rows)
    tried = starts(data, options.seeds, options.work)
    start = best(tried)
    rated = rates(data, options.seeds[:RATE_SEEDS], start["pretraining"], start["start"], options.work)
    settings = Settings(start["pretraining"], start["start"], best(rated)["rate"])
    record = {
        "settings": settings._asdict(),
        "chosen_by": "agreement of seeds, mean over the sets",
        "seeds": list(options.seeds),
        "starts": tried,
        "rates": rated,
        "provenance": provenance({}, quick=False),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

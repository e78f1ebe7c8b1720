"""A service in miniature: a saved model labels rows that arrive in lots of mixed sizes, from several threads.

    python examples/serve.py --requests 1000000

Sizes are padded to a few (`jaxcluster.core.preparation.padded_size`), so that a handful of programs answer every
request. They are compiled before the first one arrives. What is printed shows that neither memory nor memory maps grow.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import jaxcluster
from jaxcluster.core.programs import memory_maps

LARGEST = 1000
"""Rows of the largest request."""


class Service:
    """A model that any number of threads may ask.

    Args:
        model: the folder of a saved model, or ``model`` within a run of ``jaxcluster fit``.
        largest: rows of the largest request.
    """

    def __init__(self, model: Path, largest: int = LARGEST) -> None:
        self.model = jaxcluster.load(model)
        self.width = self.model.n_features_in_
        for size in range(1, largest + 1):  # sizes that share a program cost microseconds once it is there
            self.predict(np.zeros((size, self.width), np.float32))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The cluster of each row."""
        return self.model.predict(rows)


def ask(service: Service, requests: int, seed: int, expected: dict[int, np.ndarray], rows: np.ndarray) -> int:
    """Sends requests of random sizes, and compares the answers with those of one thread alone; how many were wrong."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(requests):
        size = int(rng.integers(1, LARGEST + 1))
        wrong += not np.array_equal(service.predict(rows[:size]), expected[LARGEST][:size])
    return wrong


def saved_model(folder: Path) -> Path:
    """A small model to serve, where none was given."""
    jaxcluster.KMeans(10, random_state=0).fit(jaxcluster.datasets.load("digits").x).save(folder / "model")
    return folder / "model"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Runs the service against its own requests, and prints what it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a saved model; without it one of the digits is fitted")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        service = Service(options.model or saved_model(Path(folder)))
    print(f"warm after {time.perf_counter() - begin:.1f} s")
    rows = np.random.default_rng(0).normal(8, 5, size=(LARGEST, service.width)).astype(np.float32)
    expected = {LARGEST: service.predict(rows)}
    process, wrong, parts = psutil.Process(), 0, 10
    share = max(1, options.requests // (parts * options.threads))
    with ThreadPoolExecutor(options.threads) as threads:
        for part in range(parts):
            begin = time.perf_counter()
            seeds = range(part * options.threads, (part + 1) * options.threads)
            wrong += sum(threads.map(lambda seed: ask(service, share, seed, expected, rows), seeds))
            rate = share * options.threads / (time.perf_counter() - begin)
            memory = process.memory_info().rss / 1e6
            print(
                f"{(part + 1) * share * options.threads:>9,} requests, {rate:,.0f} a second, {wrong} wrong; "
                f"{memory_maps():,} memory maps, {memory:,.0f} MB, {threading.active_count()} threads"
            )
    return {"wrong": wrong, "maps": memory_maps(), "bytes": process.memory_info().rss}


if __name__ == "__main__":
    main()

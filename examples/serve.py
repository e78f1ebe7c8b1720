"""A service in miniature: a saved model labels rows that arrive in batches of mixed sizes, from several threads.

    python examples/serve.py --requests 1000000

Sizes are padded to a few (`jaxcluster.core.preparation.padded_size`), so that a handful of programs answer every
request. They are compiled before the first one arrives. What is printed shows that neither memory nor memory maps grow.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import jaxcluster
from jaxcluster.core.programs import memory_maps

LARGEST = 1000
"""Rows of the largest request."""

PARTS = 10
"""Lines that are printed, each after as many requests."""


class Service:
    """A model that any number of threads may call.

    Args:
        model: the folder of a saved model, or ``model`` within a run of ``jaxcluster fit``.
        largest: rows of the largest request.
    """

    def __init__(self, model: Path, largest: int = LARGEST) -> None:
        self.model = jaxcluster.load(model)
        self.width = self.model.n_features_in_
        # Rows without names: those of the fit may have had some, and every request would be warned of.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        for size in range(1, largest + 1):  # sizes that share a program cost microseconds once it is there
            self.predict(np.zeros((size, self.width), np.float32))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The cluster of each row."""
        return self.model.predict(rows)


def ask(service: Service, requests: int, seed: int, expected: dict[int, np.ndarray], rows: np.ndarray) -> int:
    """Number of wrong answers to requests of random sizes, beside those of one thread alone."""
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
    """Run the service against its own requests, and print its rate and its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a saved model; without it one of the digits is fitted")
    parser.add_argument("--requests", type=int, default=100_000, help="number of requests, at least 10 for each thread")
    parser.add_argument("--threads", type=int, default=4, help="number of threads that send requests")
    parser.add_argument("--json", type=Path, help="a file for what was measured")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.requests < PARTS * options.threads:
        parser.error(f"--threads must be at least 1, and --requests at least {PARTS} for each thread.")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        try:
            service = Service(options.model or saved_model(Path(folder)))
        except (OSError, ValueError) as error:
            parser.error(str(error))
    print(f"warm after {time.perf_counter() - begin:.1f} s")
    rows = np.random.default_rng(0).normal(8, 5, size=(LARGEST, service.width)).astype(np.float32)
    expected = {LARGEST: service.predict(rows)}
    process, wrong, early = psutil.Process(), 0, 0
    share = options.requests // (PARTS * options.threads)
    with ThreadPoolExecutor(options.threads) as threads:
        for part in range(PARTS):
            begin = time.perf_counter()
            seeds = range(part * options.threads, (part + 1) * options.threads)
            wrong += sum(threads.map(lambda seed: ask(service, share, seed, expected, rows), seeds))
            rate = share * options.threads / (time.perf_counter() - begin)
            memory = process.memory_info().rss
            early = early or memory
            print(
                f"{(part + 1) * share * options.threads:>9,} requests, {rate:,.0f} a second, {wrong} wrong; "
                f"{memory_maps():,} memory maps, {memory / 1e6:,.0f} MB, {threading.active_count()} threads"
            )
    measured = {"requests": PARTS * share * options.threads, "threads": options.threads, "wrong": wrong}
    measured |= {"maps": memory_maps(), "early_bytes": early, "bytes": process.memory_info().rss}
    if options.json:
        options.json.write_text(json.dumps(measured))
    return measured


if __name__ == "__main__":
    main()

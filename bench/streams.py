"""Fits of rows that are read block by block, beside fits in memory: ``python -m bench.streams --rows 20000000``.

Each fit runs in a process of its own, which reports the seconds of a step and its largest resident memory. The rows are
uniform noise about k centers, in files that are written once and removed at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from bench import peers
from bench.memory import resident
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append

FOLDER = RESULTS / "streams"

FEATURES, CLUSTERS = 32, 100

WRITTEN = 1 << 18
"""Rows that are drawn and written at a time."""

STEPS = (2, 6)
"""Numbers of steps of the two fits whose difference is the time of a step."""

METHODS = ("kmeans", "gmm-diag")
SOURCES = ("memory", "npy", "parquet")


def write(folder: Path, rows: int) -> None:
    """Write the rows as an .npy file and as a folder of Parquet files."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLUSTERS, FEATURES)).astype(np.float32) * 2
    (folder / "parquet").mkdir()
    out = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, FEATURES))
    for start in range(0, rows, WRITTEN):
        count = min(WRITTEN, rows - start)
        x = centers[rng.integers(CLUSTERS, size=count)] + rng.random((count, FEATURES), np.float32) - np.float32(0.5)
        out[start : start + count] = x
        table = pa.table({f"x{j}": x[:, j] for j in range(FEATURES)})
        parquet.write_table(table, folder / "parquet" / f"{start:012d}.parquet", compression="NONE")
    out.flush()


def child(method: str, source: str, folder: Path) -> dict[str, float]:
    """Seconds of a step and largest resident bytes of a fit in this process."""
    from jaxcluster import gmm, kmeans
    from jaxcluster.datasets import scan

    x = scan(folder / ("parquet" if source == "parquet" else "x.npy"))
    first = next(iter(x.blocks(1 << 16)))[:CLUSTERS]
    if source == "memory":
        x = np.load(folder / "x.npy")
    key, seconds = jax.random.key(0), []

    def fit(steps):
        if method == "kmeans":
            return kmeans.fit(key, x, CLUSTERS, init=first, tol=0, max_steps=steps)
        return gmm.fit(key, x, CLUSTERS, init=first, covariance="diag", tol=0, max_steps=steps)

    for steps in (1, *STEPS):
        start = time.perf_counter()
        jax.block_until_ready(fit(steps).labels)
        seconds.append(time.perf_counter() - start)
    step = (seconds[2] - seconds[1]) / (STEPS[1] - STEPS[0])
    # Not getrusage's, which begins with the peak of the process that started this one.
    peak = resident("VmHWM")
    return {"step_s": step, "fit_s": seconds[2], "first_fit_s": seconds[0], "peak_bytes": peak}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every method on every source, and appends a record of it to the committed results."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of rows (default 1,000,000)")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, help="fits to measure")
    parser.add_argument("--write", action="store_true", help="record the outcome in bench/results/streams")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        method, source, folder = options.child
        print(json.dumps(child(method, source, Path(folder))))
        return 0
    made = provenance(peers.installed(jax.default_backend()), quick=False)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.rows)
        for method in options.methods:
            record = {"case": f"{method}-{options.rows}x{FEATURES}", "k": CLUSTERS, "data": "generated"}
            for source in SOURCES:
                command = [sys.executable, "-m", "bench.streams", "--child", method, source, folder]
                done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                record[source] = json.loads(done.stdout.splitlines()[-1])
                rate = options.rows / record[source]["step_s"]
                peak = record[source]["peak_bytes"] / 2**20
                print(f"{method} from {source}: {rate:,.0f} rows a second, {peak:,.0f} MiB at most", flush=True)
            if options.write:
                made["date"] = provenance((), quick=False)["date"]
                append(FOLDER / f"{jax.default_backend()}-{made['date'][:10]}.jsonl", record | {"provenance": made})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

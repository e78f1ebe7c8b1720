"""All that a lent accelerator can show, in one command: ``python -m bench.gpu --minutes 10``.

In this order, as far as the time goes: the rates that the chip reaches (matrix products, copies), each method against
its oracle in float64, the cases of the bench with peers, and deep methods on images for five seeds. Each result is
written when it is there; at the limit the command stops with what it has. On a CPU, ``--quick`` shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a peer's memory lies beside ours

import jax
import jax.numpy as jnp

from bench import __main__ as bench
from bench import peers
from bench.cases import Case, select
from bench.provenance import provenance
from bench.records import RESULTS, append
from bench.timing import timed

SAMPLES = ("float32", "float32 + 1e4", "1e+06", "samples × 2^60")
"""Cases of `bench.trials` on which each method is compared with its oracle, one round of all methods for each."""

CORRECTNESS_SHARE, TIMES_SHARE = 0.35, 0.8
"""Fractions of the time after which the comparison with oracles, and the timing of cases, begin nothing new."""

SIDE, ENTRIES = 8192, 1 << 28
"""Rows of the matrices whose product is timed (0.8 GB for three in float32), and float32 entries that are copied."""

SEEDS = 5
"""Seeds of each deep method."""


@dataclass
class Session:
    """A run with a limit: what was found, where it is written, and how much of the time is over."""

    seconds: float
    out: Path | None
    made: dict[str, Any]
    begin: float = field(default_factory=time.perf_counter)
    counts: dict[str, int] = field(default_factory=dict)
    failed: bool = False

    @property
    def used(self) -> float:
        """Fraction of the time that is over."""
        return (time.perf_counter() - self.begin) / self.seconds

    def add(self, part: str, record: dict[str, Any], folder: str = "gpu") -> None:
        """Print a result, and write it where results are kept."""
        self.counts[part] = self.counts.get(part, 0) + 1
        record = {"part": part, **record}
        print(json.dumps(record, ensure_ascii=False), flush=True)
        if self.out is not None:
            name = f"{self.made['platform']}-{self.made['date'][:10]}.jsonl"
            append(self.out / folder / name, record | {"provenance": self.made})

    def close(self) -> str:
        """The last line: number of results of each part."""
        parts = ", ".join(f"{count} of {part}" for part, count in self.counts.items())
        return f"{parts or 'nothing'}, in {time.perf_counter() - self.begin:.0f} of {self.seconds:.0f} s"


def measure_ceilings(session: Session, side: int, entries: int) -> None:
    """Measure the rates that the chip reaches: TFLOP/s of matrix products, and GB/s of a copy (read and written)."""
    for dtype, precision in ((jnp.float32, "highest"), (jnp.float32, "default"), (jnp.bfloat16, "default")):
        a, b = jax.random.normal(jax.random.key(0), (2, side, side), dtype)
        product = jax.jit(partial(jnp.matmul, precision=precision))
        rate = 2 * side**3 / _least_seconds(lambda product=product, a=a, b=b: product(a, b)) / 1e12
        session.add("ceilings", {"case": f"matmul {a.dtype.name} {precision}", "tflops": round(rate, 3)})
    x, increment = jnp.zeros(entries, jnp.float32), jax.jit(lambda x: x + 1)
    rate = 2 * x.nbytes / _least_seconds(lambda: increment(x)) / 1e9
    session.add("ceilings", {"case": "copy", "gigabytes_per_s": round(rate, 1)})


def _least_seconds(call: Callable[[], jax.Array], repeats: int = 5) -> float:
    call().block_until_ready()
    return min(timed(lambda: call().block_until_ready())[0] for _ in range(repeats))


def compare_with_oracles(session: Session, methods: Sequence[str], cases: Sequence[str] = SAMPLES) -> None:
    """Try each method on each case against its oracle in float64, case by case."""
    from bench.trials.registry import trials

    known = [trial for trial in trials() if any(fnmatch(trial.method, pattern) for pattern in methods)]
    for case in cases:
        for trial in known:
            if session.used > CORRECTNESS_SHARE:
                return
            if trial.case == case:
                begin = time.perf_counter()
                verdict, note = trial.run()
                record = {"case": f"{trial.kind}: {case}", "method": trial.method, "verdict": verdict, "note": note}
                session.add("correctness", record | {"seconds": round(time.perf_counter() - begin, 2)})
                session.failed |= verdict == "wrong"


def operations(case: Case) -> tuple[float, float] | None:
    """Count the least work of a case.

    Lloyd: products of samples and centers in each step, and once more for the last labels. EM: in each step the
    products with a triangular matrix and the upper triangle of the second moments (full), or two products with the
    means and two with the variances (diag). Silhouettes and medoids: the products of all pairs of samples.

    Returns:
        Floating-point operations, and bytes read; None for work without such a count.
    """
    n, d, k, passes = case.n, case.d, case.k, case.steps + 1
    rows = 4.0 * n * d
    if case.work == "lloyd":
        return 2.0 * n * d * k * passes, rows * passes
    if case.work == "em":
        products = 2 * d**2 if case.covariance == "full" else 8 * d
        return float(n) * k * products * passes, rows * passes
    if case.work in ("silhouette", "kmedoids"):
        return 2.0 * n * n * d, rows
    return None


def time_cases(session: Session, cases: Iterator[Case], data: Path | None, *, cpu_peers: bool) -> None:
    """Time cases beside the peers that are installed, with rates, the time of compiling, and peak memory."""
    found = peers.installed(session.made["platform"], cpu_peers=cpu_peers)
    session.made["versions"] |= found
    for case in cases:
        if session.used > TIMES_SHARE:
            return
        try:
            before = _peak_bytes()
            record = bench.measure(case, found, folder=data, repeats=None)
        except Exception as error:  # one case that a chip cannot hold must not cost the others
            session.add("failures", {"case": case.name, "error": f"{type(error).__name__}: {str(error)[:300]}"})
            session.failed = True
            continue
        session.failed |= any(peer.get("disagreement") for peer in record["peers"].values())
        ours, least = record["ours"], operations(case)
        if "median_s" in ours:
            ours["compile_s"] = ours["first_call_s"] - ours["median_s"]
            if least is not None:
                ours["tflops"], ours["gigabytes_per_s"] = (
                    value / ours["median_s"] / unit for value, unit in zip(least, (1e12, 1e9), strict=True)
                )
        if (after := _peak_bytes()) is not None and before is not None and after > before:
            ours["peak_bytes"] = after  # of the process so far: only a case that raises it is known to need it
        session.add("times", record, folder="")


def _peak_bytes() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def train_deep(session: Session, data: Path, work: Path, epochs: int) -> None:
    """Train the deep methods on MNIST, seed by seed, until the time is over."""
    from bench.deep.__main__ import measure
    from bench.deep.settings import METHODS

    for seed in range(SEEDS):
        for method in METHODS:
            record = measure(method, data / "mnist.npz", seed=seed, epochs=epochs, work=work)
            session.add("deep", {**record, "provenance": session.made}, folder="deep")


def run(options: argparse.Namespace) -> int:
    """Run all parts."""
    made = provenance({}, quick=options.quick, commit=options.commit)
    session = Session(60 * options.minutes, options.out, made)

    def stop() -> None:
        print(f"The time is over: {session.close()}.", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(int(session.failed))  # from a thread: the main one may be inside a kernel

    watch = threading.Timer(session.seconds, stop)
    watch.daemon = True
    watch.start()
    try:
        measure_ceilings(session, 256 if options.quick else SIDE, 1 << 16 if options.quick else ENTRIES)
        compare_with_oracles(session, options.methods)
        cases = (bench.shrink(case) if options.quick else case for case in select(options.only, made["platform"]))
        time_cases(session, cases, options.data, cpu_peers=options.cpu_peers)
        if options.data is not None and (options.data / "mnist.npz").exists():
            train_deep(session, options.data, options.work, options.epochs)
    finally:
        watch.cancel()
    print(session.close(), file=sys.stderr)
    return int(session.failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the time allows; 1 if anything failed, was wrong or disagreed with a peer, 2 for a wrong name."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="when to stop, with what is there (10)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases to time; * and ? match")
    parser.add_argument("--methods", nargs="+", default=["*"], metavar="NAME", help="methods to compare with oracles")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; never published")
    parser.add_argument("--cpu-peers", action="store_true", help="with the peers that run on the processor alone")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with mnist.npz, for deep methods on images")
    parser.add_argument("--epochs", type=int, default=300, help="most looks at all images, or passes of VaDE (300)")
    parser.add_argument("--work", type=Path, default=Path("runs/deep"), help="for networks and checkpoints")
    parser.add_argument("--out", type=Path, help="folder of results (bench/results; none for --quick)")
    parser.add_argument("--commit", help="the commit to record where there is no repository")
    options = parser.parse_args(arguments)
    options.out = options.out or (None if options.quick else RESULTS)
    try:
        select(options.only, jax.default_backend())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return run(options)


if __name__ == "__main__":
    raise SystemExit(main())

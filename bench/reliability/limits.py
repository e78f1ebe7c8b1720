"""Limits of a process: too little memory, and memory maps after many shapes and requests."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.checkout import quick_to_compile
from bench.provenance import ROOT
from bench.reliability.trial import Bench, Trial, follow, one_line, run

LIMITED = """
import resource, sys
sys.path.insert(0, {root!r})
from jaxcluster.__main__ import main
import jax, jaxcluster
jaxcluster.KMeans(2).fit([[0.0], [1.0]])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {free}, used + {free}))
main()
"""

WORKS = {
    "kmedoids": ("blobs:n=30000", "--k", "3", "--max-iter", "2"),
    "kmeans": ("blobs:n=2000000,d=16", "--k", "3", "--max-iter", "2"),
    "gmm": ("blobs:n=4000,d=2500", "--k", "5", "--max-iter", "2"),
    "spectral": ("blobs:n=30000", "--k", "3", "--affinity", "nearest_neighbors", "--n-neighbors", "2000"),
    "balanced-kmeans": ("blobs:n=200000", "--k", "200", "--max-iter", "2"),
    "n2d": ("blobs:n=30000", "--k", "3", "--n-neighbors", "2000", "--epochs", "1"),
    "dbscan": ("blobs:n=100000", "--eps", "100"),
    "optics": ("blobs:n=30000", "--min-samples", "5000"),
    "hdbscan": ("blobs:n=30000", "--min-samples", "5000"),
}
"""Fits that may need more memory than there is."""

MOST_MAPS = 20_000
"""Memory maps that a process may have: the system ends it at 65,530."""

EARLY = 100
"""Shapes after which memory must be flat, or after the first release of programs, where that comes later."""

GROWTH = 1.15
"""Allowed ratio of the most memory after the first `EARLY` shapes, or after the last request, to that until then, or
after the first tenth of the requests."""

PATIENT_SECONDS_A_REQUEST = 0.05
"""Seconds of patience for each request, on a machine that others use too."""


def little_memory(bench: Bench, name: str) -> Iterator[Trial]:
    """Work for which the process may not have the memory: one line that says so, and never a death."""
    for free in (1 << 30, 3 << 29):
        program = ("-c", LIMITED.format(root=str(ROOT), free=free))
        done = run("fit", name, *WORKS[name], "--no-report", "--out", bench.place() / "run", program=program)
        report = f"{name}: exit {done.code}, {done.stderr[-300:]!r}"
        if done.code is None:
            yield Trial("hung", report)
        elif done.code == 0:
            yield Trial("survived")
        else:
            yield (Trial("named") if one_line(done) and " left. " in done.stderr else Trial("crashed", report))


def many_shapes(bench: Bench, name: str) -> Iterator[Trial]:
    """Many shapes in one process: memory maps stay few, and memory does not grow once programs are released."""
    words = (name, bench.shapes, EARLY, 60 * bench.minutes)
    program = ("-m", "bench.reliability.shapes")
    done = follow(*words, program=program, env=quick_to_compile(), patience=120 * bench.minutes + 120)
    if done.code is None:
        yield Trial("hung", name)
        return
    if done.code != 0:
        yield Trial("crashed", f"{name}: exit {done.code}, {done.stderr[-1000:]!r}")
        return
    measured = json.loads(done.stdout)
    if measured["shapes"] < min(bench.shapes, 2 * EARLY):
        print(f"{name}: {measured['shapes']} shapes say nothing: raise --minutes", file=sys.stderr, flush=True)
        return
    early, late = measured["early_bytes"], measured["late_bytes"]
    if late > GROWTH * early and not measured["releases"] and measured["maps"] > GROWTH * measured["early_maps"]:
        print(f"{name}: programs are still added, and none was released: raise --shapes or --minutes", file=sys.stderr)
        return
    report = (
        f"{name}, {measured['shapes']:,} shapes: {measured['maps']:,} maps at most, {measured['releases']} releases, "
        f"{early / 1e6:,.0f} MB at most at first, {late / 1e6:,.0f} MB at most later"
    )
    print(report, file=sys.stderr, flush=True)
    fine = measured["maps"] < MOST_MAPS and late <= GROWTH * early
    yield Trial("survived" if fine else "lost", report, measured)


def service(bench: Bench, name: str) -> Iterator[Trial]:
    """A service in threads: requests of mixed sizes are answered as one thread alone would, in the same memory."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "measured.json"
        words = ("--requests", bench.requests, "--json", written)
        program = (str(ROOT / "examples" / "serve.py"),)
        done = run(*words, program=program, patience=PATIENT_SECONDS_A_REQUEST * bench.requests + 600)
        if done.code is None:
            yield Trial("hung", name)
        elif done.code != 0:
            yield Trial("crashed", f"exit {done.code}, {done.stderr[-300:]!r}")
        else:
            measured = json.loads(written.read_text())
            fine = measured["maps"] < MOST_MAPS and measured["bytes"] <= GROWTH * measured["early_bytes"]
            verdict = "wrong" if measured["wrong"] else "survived" if fine else "lost"
            yield Trial(verdict, done.stdout[-1000:], measured)

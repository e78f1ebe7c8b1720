"""Tries kinds of trouble, part by part: ``python -m bench.reliability --only signals:kmeans "bit flips" --write``.

Prints the table and what was bad; the exit code is 1 if anything was. With ``--write`` each part is recorded as soon as
it is done, and docs/reliability.md and docs/devices.md are written from all records, so that a long run may be done in
pieces.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.progress import progress
from bench.provenance import provenance
from bench.records import append, published, read
from bench.reliability.commands import kills, signals, two_at_once
from bench.reliability.damage import bit_flips, cut_files, full_disks
from bench.reliability.interrupts import FAMILIES, interrupts
from bench.reliability.jobs import METHODS, jobs
from bench.reliability.limits import WORKS, little_memory, many_shapes, service
from bench.reliability.models import hostile_models
from bench.reliability.page import FOLDER, markdown, write_page
from bench.reliability.strangers import COMMANDS, strangers
from bench.reliability.trial import BAD, FITS, Bench, Kind
from jaxcluster.estimators import ESTIMATORS

KINDS = {
    "signals": Kind(signals, tuple(FITS)),
    "kills": Kind(kills, tuple(FITS)),
    "two at once": Kind(two_at_once, tuple(FITS)),
    "Ctrl-C in Python": Kind(interrupts, tuple(FAMILIES)),
    "jobs": Kind(jobs, METHODS),
    "bit flips": Kind(bit_flips, ("kmeans", "dec")),
    "cut files": Kind(cut_files, ("kmeans", "dec")),
    "full disks": Kind(full_disks, tuple(FITS)),
    "strange files and places": Kind(strangers, tuple(COMMANDS)),
    "hostile models": Kind(hostile_models, tuple(ESTIMATORS)),
    "little memory": Kind(little_memory, tuple(WORKS)),
    "many shapes": Kind(many_shapes, tuple(ESTIMATORS)),
    "a service": Kind(service, ("predict",)),
}


def chosen(words: Sequence[str]) -> list[tuple[str, str]]:
    """Parts by their kind, from ``KIND`` or ``KIND:PART``.

    Raises:
        ValueError: no such kind or part.
    """
    pairs = []
    for word in words:
        kind, _, part = word.partition(":")
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind. The kinds are {', '.join(KINDS)}.")
        if part and part not in KINDS[kind].parts:
            raise ValueError(f"{part!r} is no part of {kind}. Its parts are {', '.join(KINDS[kind].parts)}.")
        pairs += [(kind, each) for each in ((part,) if part else KINDS[kind].parts)]
    return pairs


def try_part(bench: Bench, kind: str, part: str) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Try one part, and print what was bad.

    Returns:
        The number of trials by verdict, and what was measured.
    """
    counts: Counter[str] = Counter()
    measured = []
    with progress(lambda: f"{kind}: {part}: {dict(counts)}"):
        for trial in KINDS[kind].trials(bench, part):
            counts[trial.verdict] += 1
            if trial.measured:
                measured.append(trial.measured)
            if trial.verdict in BAD:
                print(f"{kind}: {part}: {trial.verdict}: {trial.details}", flush=True)
    print(f"{kind}: {part}: {dict(counts)}", file=sys.stderr, flush=True)
    return counts, measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trials, prints the table and what was bad."""
    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    kinds = "; ".join(f"{kind}: {', '.join(KINDS[kind].parts)}" for kind in KINDS)
    parser.add_argument("--only", nargs="+", default=list(KINDS), metavar="KIND[:PART]", help=kinds)
    parser.add_argument("--missing", action="store_true", help="leave out parts that were recorded already")
    parser.add_argument("--repeats", type=int, default=10, help="trials of each command of a kind")
    parser.add_argument("--shapes", type=int, default=1000, help="distinct shapes in one process")
    parser.add_argument("--minutes", type=float, default=60, help="most minutes of the shapes of an estimator")
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests to the service")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits")
    parser.add_argument("--write", action="store_true", help="record each part, and write docs/reliability.md")
    options = parser.parse_args(arguments)
    try:
        pairs = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    # A shell in the background lets its processes ignore Ctrl-C, and so would those that are started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.missing:
        known = {(record["case"], record["data"]) for record in published(read(FOLDER))}
        pairs = [pair for pair in pairs if pair not in known]
    totals: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.repeats, options.seed, options.shapes, options.requests, options.minutes)
        for kind, part in pairs:
            made = provenance({}, quick=False)
            counts, measured = try_part(bench, kind, part)
            totals[kind] = totals.get(kind, Counter()) + counts
            if options.write and counts:
                record = {"case": kind, "data": part, "counts": dict(counts), "provenance": made}
                append(FOLDER / f"cpu-{made['date'][:10]}.jsonl", record | ({"measured": measured} if measured else {}))
                write_page()
    print(markdown(totals))
    return 1 if any(counts[verdict] for counts in totals.values() for verdict in BAD) else 0


if __name__ == "__main__":
    raise SystemExit(main())

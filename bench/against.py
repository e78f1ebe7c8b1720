"""Times this checkout beside one of its own commits: ``python -m bench.against REF --only lloyd*``.

Each side has a process of its own, in which the case is built and called once before any call is timed. The sides take
turns, so that what slows the machine down slows both. Exits with 1 where a case is slower than the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cases import Case, select, shrink
from bench.checkout import commit_of, source
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append
from bench.timing import alternate, summary, timed

LIMIT = 0.05
"""Share of the time before by which a case may be slower."""

CALL = "call"


@contextmanager
def side(folder: Path, case: Case, data: Path | None):
    """A process with the package of a folder; gives a function that has it make one call and returns its seconds."""
    command = [sys.executable, "-m", "bench.against", "--serve", json.dumps(asdict(case))]
    command += [] if data is None else ["--data", str(data.resolve())]
    # The folder's own package comes first, as the current folder; the bench is always that of this checkout.
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=env, **pipes) as process:

        def call() -> dict[str, Any]:
            process.stdin.write(f"{CALL}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"The process of {folder} ended; what it printed is above.")
            return json.loads(answer)

        try:
            yield call
        finally:
            process.stdin.close()


def serve(case: Case, data: Path | None) -> None:
    """The process of one side: makes a timed call for each line of its input."""
    from bench.works import OURS, WORKS

    call = WORKS[case.work].build(case, {}, data).sides[OURS]
    for _ in sys.stdin:
        seconds, answer = timed(call)
        print(json.dumps({"seconds": seconds, "value": float(answer.value)}), flush=True)


def measure(case: Case, before: Path, data: Path | None, repeats: int | None) -> dict[str, Any]:
    """Times one case on both sides."""
    sides: dict[str, Any] = {"now": ROOT, "before": before}
    with ExitStack() as stack:
        calls = {name: stack.enter_context(side(folder, case, data)) for name, folder in sides.items()}
        first = {name: call() for name, call in calls.items()}
        answers: dict[str, list] = {name: [] for name in calls}

        def record(name):
            answers[name].append(calls[name]()["seconds"])

        alternate({name: lambda name=name: record(name) for name in calls}, repeats or case.repeats)
    found = {
        name: {"first_call_s": first[name]["seconds"], **summary(answers[name]), "value": first[name]["value"]}
        for name in calls
    }
    pairs = zip(answers["now"], answers["before"], strict=True)
    return {"case": case.name, **found, "change": statistics.median(now / then for now, then in pairs) - 1}


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table, a row a case."""
    head = ("Case", "Before, s", "Now, s", "Change", "First call before, s", "now, s")
    rows = [head, ("---", *["---:"] * 5)]
    for record in records:
        now, before = record["now"], record["before"]
        medians = (f"{side['median_s']:.4f}" for side in (before, now))
        firsts = (f"{side['first_call_s']:.2f}" for side in (before, now))
        rows.append((record["case"], *medians, f"{record['change']:+.1%}", *firsts))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen cases and prints the table; 1 if one of them is slower than `LIMIT` allows."""
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("ref", nargs="?", help="the commit to compare with")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases to run; * and ? match")
    parser.add_argument("--repeats", type=int, help="timed calls of each side (the case's own number without it)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; never recorded")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with mnist.npz, for real rows instead")
    parser.add_argument("--write", action="store_true", help="record the outcome in bench/results/against")
    parser.add_argument("--serve", metavar="CASE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(Case(**json.loads(options.serve)), options.data)
        return 0
    try:
        cases, commit = select(options.only, "cpu"), commit_of(options.ref)
    except ValueError as error:
        parser.error(str(error))
    if commit is None:
        parser.error("name the commit to compare with.")
    made, records = provenance({}, quick=options.quick), []
    with source(commit) as folder:
        for case in map(shrink, cases) if options.quick else cases:
            records.append(measure(case, folder, options.data, options.repeats))
            print(f"{case.name}: {records[-1]['change']:+.1%}", file=sys.stderr, flush=True)
            if options.write and not options.quick:
                record = records[-1] | {"against": commit, "provenance": made}
                append(RESULTS / "against" / f"cpu-{made['date'][:10]}.jsonl", record)
    print(markdown(records))
    return int(any(record["change"] > LIMIT for record in records))


if __name__ == "__main__":
    raise SystemExit(main())

"""The runner: ``python -m bench --help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# JAX would take most of an accelerator's memory for itself, and a peer runs beside it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from bench import memory, peers
from bench.cases import Case, select, shrink
from bench.peers import Answer
from bench.provenance import provenance
from bench.records import RESULTS, append
from bench.table import markdown, memory_markdown, seconds, size
from bench.timing import alternate, summary, timed
from bench.works import OURS, WORKS, compare, title


def measure(case: Case, found: Mapping[str, str], *, folder: Path | None, repeats: int | None) -> dict[str, Any]:
    """Times one case: a first call of every side, whose answers must agree, then rounds of all that do."""
    work = WORKS[case.work].build(case, found, folder)
    first = {name: timed(call) for name, call in work.sides.items()}
    seen = compare(work, first[OURS][1], {name: first[name][1] for name in work.peers})
    agreeing = {name: call for name, call in work.sides.items() if name == OURS or not seen[name]["disagreement"]}
    times = alternate(agreeing, repeats or case.repeats)
    sides = {name: side(*first[name], times.get(name, [])) for name in work.sides}
    ours = sides.pop(OURS)
    for name, peer in sides.items():
        peer.update(seen[name], ratio=peer["median_s"] / ours["median_s"] if name in agreeing else None)
    ratios = {name: peer["ratio"] for name, peer in sides.items() if peer["ratio"] is not None}
    best = min(ratios, key=ratios.get, default=None)
    return {
        "case": case.name,
        "title": title(case),
        "data": work.data,
        "sizes": {name: getattr(case, name) for name in ("n", "d", "k", "steps", "seeds", "problems")},
        "ours": ours,
        "peers": sides,
        "best_peer": best,
        "ratio": ratios.get(best),
        "target": case.target.get(jax.default_backend()),
    }


def side(first_call_s: float, answer: Answer, seconds: list[float]) -> dict[str, Any]:
    """The record of one side: its first call (with compilation), its timed calls, and its result."""
    steps = {} if answer.steps is None else {"steps": answer.steps}
    return {"first_call_s": first_call_s, **summary(seconds), "value": answer.value, **steps}


def options_from(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Times jaxcluster beside its peers.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases to run; * and ? match")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; never published")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead, each side in a process")
    parser.add_argument("--repeats", type=int, help="timed calls of every side (the case's own number without it)")
    parser.add_argument("--no-cpu-peers", action="store_true", help="leave out the peers that run on the CPU")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with mnist.npz, for real rows instead")
    parser.add_argument("--out", type=Path, help="JSON lines to append to (in bench/results; none for --quick)")
    parser.add_argument("--commit", help="the commit to record where there is no repository")
    return parser.parse_args(arguments)


def results_file(options: argparse.Namespace, name: str) -> Path | None:
    """The file to append records to: ``--out`` if it is given, else the committed results; None for a quick run."""
    if options.out is not None or options.quick:
        return options.out
    return RESULTS / "memory" / name if options.memory else RESULTS / name


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen cases one after the other; 1 if any peer disagreed with us, 2 for a wrong name."""
    options, platform = options_from(arguments), jax.default_backend()
    try:
        cases = select(options.only, platform)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{case.name:16} {title(case)}" for case in cases))
        return 0
    if options.memory and not memory.possible(platform):
        print("--memory asks Linux for the memory of a process: run it there, with JAX_PLATFORMS=cpu.", file=sys.stderr)
        return 2

    cpu_peers = not options.no_cpu_peers
    found = peers.installed(platform, cpu_peers=cpu_peers)
    for name in peers.missing(platform, cpu_peers=cpu_peers):
        print(f"{name} is not installed: left out.", file=sys.stderr)
    made = provenance(found, quick=options.quick, commit=options.commit)
    out = results_file(options, f"{platform}-{made['date'][:10]}.jsonl")

    records = []
    for case in map(shrink, cases) if options.quick else cases:
        print(f"{title(case)} ...", end=" ", flush=True, file=sys.stderr)
        if options.memory:
            record = memory.measure(case, found, options.data)
            print(size(record["ours"]["peak_bytes"]), file=sys.stderr)
        else:
            record = measure(case, found, folder=options.data, repeats=options.repeats)
            print(seconds(record["ours"]["median_s"]), file=sys.stderr)
        records.append(record | {"provenance": made})
        if out is not None:
            append(out, records[-1])
    print(memory_markdown(records) if options.memory else markdown(records))
    return int(any(peer.get("disagreement") for record in records for peer in record["peers"].values()))


if __name__ == "__main__":
    raise SystemExit(main())

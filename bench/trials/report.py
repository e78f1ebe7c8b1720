"""Outcomes of trials: counted by kind, and those that are not right listed by method."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.records import RESULTS
from jaxcluster.core.compilation import clear_programs

FOLDER = RESULTS / "trials"

MEMORY_MAPS = 20_000
"""Maps from which the compiled programs are let go: each holds dozens of them, and Linux gives a process 65,530."""


class Outcome(NamedTuple):
    """The outcome of one trial."""

    kind: str
    method: str
    case: str
    verdict: str
    note: str


def counts(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Number of cases, methods and trials of each kind, and of trials that were right, not final, or wrong."""
    found = {}
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind]
        found[kind] = {
            "cases": len({outcome.case for outcome in of_kind}),
            "methods": len({outcome.method for outcome in of_kind}),
            "trials": len(of_kind),
            **{verdict: sum(each.verdict == verdict for each in of_kind) for verdict in ("right", "said", "wrong")},
        }
    return found


def listed(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The trials that are not right."""
    return [outcome._asdict() for outcome in outcomes if outcome.verdict != "right"]


def failures(outcomes: Sequence[Outcome]) -> str:
    """The trials that are not right, method by method."""
    rest = [outcome for outcome in outcomes if outcome.verdict != "right"]
    lines = []
    for method in sorted({outcome.method for outcome in rest}):
        of_method = [outcome for outcome in rest if outcome.method == method]
        lines.append(f"{method}: {len(of_method)} of {sum(each.method == method for each in outcomes)}")
        lines += [f"  {each.kind} | {each.case} | {each.verdict}: {each.note}" for each in of_method]
    return "\n".join(lines)


def let_programs_go() -> None:
    """Forgets compiled programs where they have become too many."""
    maps = Path("/proc/self/maps")
    if maps.exists():
        with maps.open() as lines:
            crowded = sum(1 for _ in lines) > MEMORY_MAPS
        if crowded:
            clear_programs()
            gc.collect()

"""Ctrl-C in fits of Python, each family in a fresh process (`bench.reliability.families`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from bench.checkout import quick_to_compile
from bench.reliability.families import FAMILIES
from bench.reliability.trial import PATIENCE, Bench, Trial, crowd, run

PROMISED_SECONDS = 1.0
"""Seconds in which a fit ends after Ctrl-C once its programs are compiled, and the slack that a trial allows it."""

UNIT_SECONDS = 10.0
"""Seconds of an epoch, or of a pass over a source, that is finished first, at most."""


def interrupts(bench: Bench, name: str) -> Iterator[Trial]:
    """Ctrl-C at random moments of a fit: a usable result that says so, or KeyboardInterrupt where the docs say that."""
    family = FAMILIES[name]
    for _ in range(max(1, bench.repeats // 10)):
        words = (name, bench.random.randrange(1 << 30))
        program = ("-m", "bench.reliability.families")
        done = run(*words, program=program, env=quick_to_compile(), patience=3 * PATIENCE)
        if done.code is None:
            yield Trial("hung", name)
            continue
        if done.code != 0:
            yield Trial("crashed", f"{name}: exit {done.code}, {done.stderr[-1000:]!r}")
            continue
        measured = json.loads(done.stdout.splitlines()[-1])
        print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
        limit = crowd() * (2 * PROMISED_SECONDS + (UNIT_SECONDS if family.unit else 0))
        for number, answer in enumerate(measured["answers"]):
            last = number == len(measured["answers"]) - 1
            expected = "raised" if family.raises else "interrupted"
            report = f"{name}, signal {number + 1}: {answer}, of at most {limit:.1f} s"
            if answer["outcome"] != expected:
                yield Trial("wrong", report)
            elif last and answer["seconds"] > limit:
                yield Trial("hung", report)
            else:
                yield Trial("survived", measured={"family": name, **answer} if last else None)

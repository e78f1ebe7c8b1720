"""Commands that are stopped or killed at random moments, and two of them at once."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from bench.reliability.trial import (
    CHECKPOINTED,
    FITS,
    NOTICE,
    STOPPED,
    Bench,
    Done,
    Trial,
    crowd,
    one_line,
    results,
    run,
    start,
    wait,
)


def signals(bench: Bench, name: str) -> Iterator[Trial]:
    """SIGTERM and Ctrl-C at random moments: two seconds to save and end, then the run goes on to the same labels."""
    yield from _killed(bench, name, (signal.SIGTERM, signal.SIGINT))


def kills(bench: Bench, name: str) -> Iterator[Trial]:
    """SIGKILL at random moments, then the same command once more."""
    yield from _killed(bench, name, (signal.SIGKILL,))


def _killed(bench: Bench, name: str, numbers: Sequence[signal.Signals]) -> Iterator[Trial]:
    words = FITS[name]
    reference, seconds = bench.reference(name)
    for number in numbers:
        for _ in range(bench.repeats):
            out = bench.place() / "run"
            process = start(*words, "--out", out, "--quiet")
            time.sleep(bench.random.uniform(0.3, 1.0) * seconds)
            process.send_signal(number)
            done = wait(process, 20)
            yield _verdict_of_kill(done, number, name, words, out, reference)
            shutil.rmtree(out.parent)


def _verdict_of_kill(done, number, name, words, out, reference):
    report = f"{name}, {number.name}: exit {done.code} after {done.seconds:.1f} s, {done.stderr.strip()[-300:]!r}"
    if done.code is None:
        return Trial("hung", report)
    if done.code not in (0, STOPPED[number]):
        return Trial("crashed", report)
    if number != signal.SIGKILL and done.code and done.seconds > NOTICE * crowd():
        return Trial("hung", report)
    if done.code == 0 or results(out, name) is not None:
        again = Done(0, "")
    else:
        partial = out.with_name("run.partial")
        resume = ("--resume",) if list(partial.rglob("checkpoint-*/manifest.json")) else ("--overwrite",)
        if number != signal.SIGKILL and name in CHECKPOINTED and "checkpoints are kept" in done.stderr:
            resume = ("--resume",)
        again = run(*words, "--out", out, "--quiet", *resume)
    if again.code is None:
        return Trial("hung", f"{report}; again: hung")
    if again.code != 0:
        return Trial("lost" if one_line(again) else "crashed", f"{report}; again: {again.stderr[-300:]!r}")
    if results(out, name) != results(reference, name):
        return Trial("wrong", f"{report}: other results")
    remaining = sorted(entry.name for entry in out.parent.iterdir())
    allowed = [["run"]] if again.seconds or number != signal.SIGKILL else [["run"], [".run.jaxcluster", "run"]]
    return Trial("survived") if remaining in allowed else Trial("lost", f"{report}: leaves {remaining}")


def two_at_once(bench: Bench, name: str) -> Iterator[Trial]:
    """The same command twice at the same time, with --overwrite: one writes, the other is told who does."""
    words = FITS[name]
    reference, _ = bench.reference(name)
    for _ in range(max(1, bench.repeats // 2)):
        out = bench.place() / "run"
        both = [start(*words, "--out", out, "--quiet", "--overwrite") for _ in range(2)]
        done = [wait(process) for process in both]
        codes = Counter(each.code for each in done)
        if None in codes:
            yield Trial("hung", name)
        elif any(each.code not in (0, 2) for each in done):
            yield Trial("crashed", f"{name}: {[each.stderr[-200:] for each in done]}")
        elif results(out, name) != results(reference, name):
            yield Trial("wrong", f"{name}: other results")
        elif codes[2] and not any("is being written by process" in each.stderr for each in done):
            yield Trial("lost", f"{name}: {[each.stderr[-200:] for each in done]}")
        else:
            yield Trial("named" if codes[2] else "survived")
        shutil.rmtree(out.parent)

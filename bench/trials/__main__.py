"""Trials of every method on samples that nobody looked at: prints what fails, and writes README's table if asked.

Exits with 1 if a trial is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase

from bench.checkout import commit_of, quick_to_compile, source


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trials and prints the table and the failures."""
    parser = argparse.ArgumentParser(prog="python -m bench.trials", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="KIND", help="kinds to try, '*' for any letters")
    parser.add_argument("--method", nargs="+", default=["*"], metavar="NAME", help="methods to try")
    parser.add_argument("--case", nargs="+", default=["*"], metavar="NAME", help="cases to try")
    parser.add_argument("--x64", action="store_true", help="with jax_enable_x64")
    parser.add_argument("--ref", metavar="NAME", help="a commit to try in place of the checkout")
    parser.add_argument("--list", action="store_true", help="name the trials and run none")
    parser.add_argument("--write", action="store_true", help="record the outcome in bench/results/trials")
    options = parser.parse_args(arguments)
    try:
        commit = commit_of(options.ref)
    except ValueError as error:
        parser.error(str(error))
    with source(options.ref) as folder:
        if options.ref:
            sys.path[:0] = [str(folder), str(folder / "tests" / "helpers"), str(folder / "tests")]
        return run(options, commit)


def run(options: argparse.Namespace, commit: str | None) -> int:
    """Runs the chosen trials."""
    import jax

    from bench.progress import progress
    from bench.provenance import provenance
    from bench.records import append
    from bench.table import trials_markdown
    from bench.trials import report
    from bench.trials.registry import trials

    if options.x64:
        jax.config.update("jax_enable_x64", True)
    chosen = [trial for trial in trials() if _chosen(trial, options)]
    if options.list:
        print("\n".join(" | ".join(trial[:3]) for trial in chosen))
        return 0
    made = provenance({}, quick=False, commit=commit)
    outcomes, begin = [], time.perf_counter()
    names = [" | ".join(trial[:3])[:90] for trial in chosen] + ["done"]
    with progress(lambda: f"{len(outcomes)} of {len(chosen)} trials, {names[len(outcomes)]}"):
        for trial in chosen:
            outcomes.append(report.Outcome(*trial[:3], *trial.run()))
            if outcomes[-1].verdict != "right":
                print(" | ".join(outcomes[-1]), flush=True)
            report.let_programs_go()
    print(report.failures(outcomes))
    print(trials_markdown({"kinds": report.counts(outcomes)}))
    print(f"{len(outcomes)} trials in {time.perf_counter() - begin:.0f} seconds", file=sys.stderr)
    if options.write:
        case = "trials in float64" if options.x64 else "trials"
        record = {"case": case, "data": "generated", "kinds": report.counts(outcomes)}
        record |= {"failures": report.listed(outcomes), "provenance": made}
        append(report.FOLDER / f"cpu-{made['date'][:10]}.jsonl", record)
    return 1 if any(outcome.verdict == "wrong" for outcome in outcomes) else 0


def _chosen(trial, options):
    patterns = options.only, options.method, options.case
    return all(
        any(fnmatchcase(value, f"*{word}*") for word in words) for value, words in zip(trial[:3], patterns, strict=True)
    )


if __name__ == "__main__":
    os.environ |= quick_to_compile()  # read when JAX is imported
    raise SystemExit(main())

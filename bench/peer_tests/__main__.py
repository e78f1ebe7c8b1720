"""scikit-learn's own tests on our classes and scores: ``python -m bench.peer_tests`` runs them and says what fails.

Exits with 1 if a test fails for which `bench.peer_tests.reasons` has no reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sklearn

from bench.checkout import commit_of, quick_to_compile, source
from bench.peer_tests import page
from bench.peer_tests.reasons import REASONS
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append, read

FOLDER = RESULTS / "peer_tests"

PEER = Path(sklearn.__file__).parent

FILES = (
    "cluster/test_k_means.py",
    "cluster/test_bisect_k_means.py",
    "cluster/test_dbscan.py",
    "cluster/test_optics.py",
    "cluster/test_hdbscan.py",
    "cluster/test_spectral.py",
    "mixture/test_gaussian_mixture.py",
    "mixture/test_bayesian_mixture.py",
    "mixture/test_mixture.py",
    "metrics/cluster/test_common.py",
    "metrics/cluster/test_supervised.py",
    "metrics/cluster/test_unsupervised.py",
)
"""Files of tests, their folders' ``tests`` left out."""

SECONDS = 3_600
"""The longest that a file may take."""

NO_TESTS = 5
"""The exit code of pytest where an expression selects no test of a file."""

IDS = 8
"""Parametrizations of a test that are printed."""


def location(file: str) -> Path:
    """The path of a test file in the scikit-learn package."""
    folder, name = file.rsplit("/", 1)
    return PEER / folder / "tests" / name


def selected(patterns: Sequence[str] | None) -> list[str]:
    """The files whose names have one of the words in them, or all that are there."""
    present = [file for file in FILES if location(file).exists()]
    chosen = [file for file in present if not patterns or any(word in file.replace("_", "") for word in patterns)]
    if not chosen:
        raise ValueError(f"no file matches {' '.join(patterns or ())}; there are {', '.join(present)}.")
    return chosen


def environment(cache: str) -> dict[str, str]:
    """Variables of the child: a processor, little optimization and a shared cache, since most of the time is XLA's."""
    return (
        os.environ
        | quick_to_compile()
        | {
            "MPLBACKEND": "Agg",
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            "SKLEARN_RUN_FLOAT32_TESTS": "1",
            "SKLEARN_TESTS_GLOBAL_RANDOM_SEED": "42",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )


def run(file: str, folder: Path, cache: str, extra: Sequence[str], *, show: bool = False) -> list[dict[str, Any]]:
    """Outcomes of the tests of one file on the package in a folder."""
    with tempfile.TemporaryDirectory(prefix="peer-tests-") as temporary:
        out, settings = Path(temporary) / "outcomes.jsonl", Path(temporary) / "pytest.ini"
        settings.write_text("[pytest]\n")
        command = [sys.executable, str(Path(__file__).with_name("child.py")), str(folder), str(out)]
        command += [str(location(file)), "-c", str(settings), f"--rootdir={PEER}", f"--confcutdir={PEER}", "-q"]
        command += ["-p", "no:cacheprovider", "--tb=short" if show else "--tb=line", "--disable-warnings", *extra]
        stdout = None if show else subprocess.DEVNULL
        try:
            done = subprocess.run(command, env=environment(cache), cwd=temporary, stdout=stdout, timeout=SECONDS)
            ended = done.returncode
        except subprocess.TimeoutExpired:
            ended = f"more than {SECONDS} seconds"
        outcomes = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if ended not in ((0, 1, NO_TESTS) if extra else (0, 1)):
        error = f"pytest ended with {ended} after {len(outcomes)} tests"
        outcomes.append({"test": "file", "outcome": "failed", "error": error, "ours": True})
    return outcomes


def summary(file: str, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of one file: counts over the tests that call our code, and the error of each failing test."""
    ours = [each for each in outcomes if each["ours"] and each["outcome"] in ("passed", "failed")]
    failures = {each["test"]: each["error"] for each in ours if each["outcome"] == "failed"}
    return {
        "case": file,
        "data": "generated",
        "tests": len(ours),
        "passed": len(ours) - len(failures),
        "failed": len(failures),
        "skipped": sum(each["outcome"] in ("skipped", "xfailed") for each in outcomes),
        "not_ours": sum(not each["ours"] and each["outcome"] in ("passed", "failed") for each in outcomes),
        "failures": failures,
    }


def without_reason(record: Mapping[str, Any]) -> dict[str, str]:
    """The failures of a file that no reason explains."""
    names = {test: f"{record['case']}::{test}" for test in record["failures"]}
    return {
        name: record["failures"][test]
        for test, name in names.items()
        if not any(reason.explains(name, record["failures"][test]) for reason in REASONS)
    }


def stale(file: str, outcomes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tests of a file that a reason names and that pass on our code, and patterns that name no test of it."""
    passed = [f"{file}::{each['test']}" for each in outcomes if each["outcome"] == "passed" and each["ours"]]
    known = [f"{file}::{each['test']}" for each in outcomes]
    of_file = [reason for reason in REASONS if reason.tests.startswith(f"{file}::")]
    idle = [f"{reason.tests} (no such test)" for reason in of_file if not any(map(reason.names, known))]
    return [test for test in passed if any(reason.names(test) for reason in of_file)] + idle


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the files, prints what passes and what fails and why, and records it if asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.peer_tests", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="files with one of these words: hdbscan kmeans …")
    parser.add_argument("--ref", metavar="NAME", help="a commit to test in place of the checkout")
    parser.add_argument("--tests", metavar="EXPRESSION", help="tests to run, as pytest's -k has it; never recorded")
    parser.add_argument("--show", action="store_true", help="print what pytest prints")
    parser.add_argument("--all", action="store_true", help="list the failures that have a reason too")
    parser.add_argument(
        "--write", action="store_true", help=f"record in {FOLDER.relative_to(ROOT)}, and write the docs"
    )
    options = parser.parse_args(arguments)
    if options.write and options.tests:
        parser.error("--write needs whole files: leave out --tests.")
    try:
        files, commit = selected(options.only), commit_of(options.ref)
    except ValueError as error:
        parser.error(str(error))
    made = provenance({}, quick=False, commit=commit)
    extra = ["-k", options.tests] if options.tests else []
    unexplained: dict[str, str] = {}
    with source(options.ref) as folder, tempfile.TemporaryDirectory(prefix="peer-tests-") as cache:
        for file in files:
            print(f"{file} ...", file=sys.stderr, flush=True)
            outcomes = run(file, folder, cache, extra, show=options.show)
            record = summary(file, outcomes)
            new = without_reason(record)
            unexplained |= new
            print(
                f"{file}: {record['passed']} of {record['tests']} pass, {record['failed']} fail, {len(new)} of them "
                f"without a reason; {record['not_ours']} do not call our code, {record['skipped']} are skipped",
                flush=True,
            )
            _print_groups(record["failures"] if options.all else {name.partition("::")[2]: new[name] for name in new})
            if options.ref is None and not options.tests:
                for test in stale(file, outcomes):
                    print(f"  stale reason: {test}")
            if options.write:
                append(FOLDER / f"cpu-{made['date'][:10]}.jsonl", record | {"provenance": made})
    if options.write:
        page.write(read(FOLDER))
    return 1 if unexplained else 0


def _print_groups(failures: Mapping[str, str]) -> None:
    """Prints the failures, those with the same error but for its numbers together, the commonest first."""
    groups: dict[str, list[str]] = {}
    for test, error in failures.items():
        groups.setdefault(re.sub(r"[-+]?\d[\d.e+-]*", "…", error), []).append(test)
    for tests in sorted(groups.values(), key=len, reverse=True):
        print(f"  {len(tests)} × {failures[tests[0]]}")
        for function, count in Counter(test.partition("[")[0] for test in tests).items():
            ids = [test.partition("[")[2].removesuffix("]") for test in tests if test.partition("[")[0] == function]
            print(
                f"      {function}" + (f": {count} of {', '.join(ids[:IDS])}" + " …" * (count > IDS) if ids[0] else "")
            )


if __name__ == "__main__":
    raise SystemExit(main())

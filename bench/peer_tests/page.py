"""The page of the docs that shows how many of scikit-learn's own tests pass, and why the rest does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peer_tests.reasons import CATEGORIES, REASONS
from bench.provenance import ROOT

PAGE = ROOT / "docs" / "peer-tests.md"


def write(records: Sequence[Mapping[str, Any]], path: Path = PAGE) -> None:
    """Writes the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(records))


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page from all records, oldest first: of each file the first and the last one."""
    first: dict[str, Mapping[str, Any]] = {}
    last: dict[str, Mapping[str, Any]] = {}
    for record in records:
        first.setdefault(record["case"], record)
        last[record["case"]] = record
    return "\n".join(
        ["# scikit-learn's own tests", "", *_introduction(first, last), *_table(first, last), *_exceptions(last)]
    )


def _introduction(first, last):
    versions = {record["provenance"]["versions"]["scikit-learn"] for record in last.values()}
    return [
        f"scikit-learn {', '.join(sorted(versions))} ships tests of its estimators and scores.",
        "This command runs them with the classes and scores of jaxcluster under scikit-learn's names, and writes this",
        "page:",
        "",
        "```sh",
        "python -m bench.peer_tests --write",
        "```",
        "",
        "Only tests that call jaxcluster are counted. *Before* is the first record of a file, *now* the last one.",
        "Below the table, every test that fails now has its reason.",
        "",
        f"Before: {_origin(first)}. Now: {_origin(last)}.",
        "",
    ]


def _origin(records):
    made = [record["provenance"] for record in records.values()]
    commits = sorted({each["commit"][:10] + (" with local changes" if each["dirty"] else "") for each in made})
    dates = sorted({each["date"][:10] for each in made})
    return f"commit {', '.join(commits)}, {', '.join(dates)}"


def _table(first, last):
    rows = [
        f"| {file} | {first[file]['passed']} | {first[file]['failed']} | {now['passed']} | {now['failed']} |"
        for file, now in last.items()
    ]
    sums = [
        sum(each[key] for each in some.values())
        for some, key in ((first, "passed"), (first, "failed"), (last, "passed"), (last, "failed"))
    ]
    return [
        "| File | Passed before | Failed before | Passed now | Failed now |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        f"| **All** | {' | '.join(map(str, sums))} |",
        "",
    ]


def _exceptions(last):
    failures = {f"{file}::{test}": error for file, record in last.items() for test, error in record["failures"].items()}
    groups = {reason: [test for test, error in failures.items() if reason.explains(test, error)] for reason in REASONS}
    explained = {test for tests in groups.values() for test in tests}
    lines = ["## Why the rest fails", ""]
    for category, meaning in CATEGORIES.items():
        entries = [(reason, tests) for reason, tests in groups.items() if reason.category == category and tests]
        if entries:
            count = len({test for _, tests in entries for test in tests})
            lines += [
                f"### {category[0].upper()}{category[1:]}: {count} test{'s' * (count != 1)}",
                "",
                meaning,
                "",
                "| Tests | How many | Reason |",
                "| --- | ---: | --- |",
            ]
            lines += [f"| `{reason.tests}` | {len(tests)} | {reason.sentence} |" for reason, tests in entries]
            lines.append("")
    rest = [test for test in failures if test not in explained]
    if rest:
        lines += ["### Without a reason", "", *(f"- `{test}`" for test in rest), ""]
    return lines

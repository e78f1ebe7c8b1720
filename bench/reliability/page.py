"""The tables of docs/reliability.md, and of faults in docs/devices.md, from the records."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.provenance import ROOT
from bench.records import RESULTS, published, read
from bench.reliability.trial import VERDICTS
from bench.table import _lines, _origin, replaced, size

WHOLE = "generated"
"""The part of a record that is of a whole kind."""

FOLDER, PAGE, JOBS_PAGE = (
    RESULTS / "reliability",
    ROOT / "docs" / "reliability.md",
    ROOT / "docs" / "devices.md",
)


def markdown(kinds: Mapping[str, Mapping[str, int]]) -> str:
    """The table of trials, a row a kind."""
    rows = [("Kind", "Tried", *(verdict.capitalize() for verdict in VERDICTS)), ("---", *["---:"] * 7)]
    for kind, counts in [*kinds.items(), ("**All**", sum((Counter(each) for each in kinds.values()), Counter()))]:
        rows.append((kind, f"{sum(counts.values()):,}", *(f"{counts.get(verdict, 0):,}" for verdict in VERDICTS)))
    return _lines(rows)


def shapes_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of estimators that were fitted to many shapes, a row an estimator."""
    titles = "Estimator", "Shapes", "Most maps", "Releases", "Most memory until the first", "Most memory later"
    rows = [titles, ("---", *["---:"] * 5)]
    for record in records:
        for each in record["measured"]:
            peaks = size(each["early_bytes"]), size(each["late_bytes"])
            counts = each["shapes"], each["maps"], each.get("releases", 0)
            rows.append((f"`{each['estimator']}`", *(f"{count:,}" for count in counts), *peaks))
    return _lines(rows)


def service_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on each service that was tried."""
    return "\n\n".join(
        f"`examples/serve.py`: {each['requests']:,} requests from {each['threads']} threads, {each['wrong']:,} wrong; "
        f"{each['maps']:,} memory maps, {size(each['early_bytes'])} after the first tenth of them and "
        f"{size(each['bytes'])} at the end."
        for record in records
        for each in record["measured"]
    )


def jobs_markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of jobs that lost a process, a row a fault."""
    tried = sum((Counter(each["counts"]) for each in records), Counter())
    measured = [each for record in records for each in record["measured"]]
    titles = "Fault", "Survived", "Steps lost", "Seconds to the end", "Seconds to go on"
    rows = [titles, ("---", *["---:"] * 4)]
    for fault in dict.fromkeys(each["fault"] for each in measured):
        of_fault = [each for each in measured if each["fault"] == fault]
        ranges = (_range([each[name] for each in of_fault]) for name in ("steps_lost", "end_seconds", "go_on_seconds"))
        rows.append((fault, str(len(of_fault)), *ranges))
    return f"{_lines(rows)}\n\nTried {tried.total()}, survived {tried['survived']}."


def _range(values: Sequence[float]) -> str:
    span = f" ({min(values):g} to {max(values):g})" if len(values) > 1 else ""
    return f"{statistics.median(values):g}{span}"


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """The number of trials by verdict, of all parts of each kind."""
    kinds: dict[str, Counter[str]] = {}
    for record in records:
        kinds[record["case"]] = kinds.get(record["case"], Counter()) + Counter(record["counts"])
    return kinds


def latest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The latest record of each part; one of a whole kind, as they were once written, where its parts have none."""
    chosen = published(records)
    divided = {record["case"] for record in chosen if record["data"] != WHOLE}
    return [record for record in chosen if record["data"] != WHOLE or record["case"] not in divided]


def write_page() -> None:
    """Puts the latest record of each part into the docs."""
    records = latest(read(FOLDER))
    shapes, services = (
        [record for record in records if record["case"] == kind] for kind in ("many shapes", "a service")
    )
    text = replaced(PAGE.read_text(), f"{_origin(records)}\n\n{markdown(totals(records))}", "reliability")
    for block, chosen, show in (("shapes", shapes, shapes_markdown), ("service", services, service_markdown)):
        text = replaced(text, f"{_origin(chosen)}\n\n{show(chosen)}" if chosen else "", block)
    PAGE.write_text(text)
    jobs = [record for record in records if record["case"] == "jobs"]
    table = f"{_origin(jobs)}\n\n{jobs_markdown(jobs)}" if jobs else ""
    JOBS_PAGE.write_text(replaced(JOBS_PAGE.read_text(), table, "jobs"))

"""Records of runs: JSON lines, a line a case, in ``bench/results``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.provenance import ROOT

RESULTS = ROOT / "bench" / "results"


def append(path: Path, record: dict[str, Any]) -> None:
    """One more line of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lines:
        lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of every run in the folder, oldest first."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines())
    return sorted((json.loads(line) for line in lines if line), key=lambda record: record["provenance"]["date"])


def published(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The latest full-size record of each case on each device, data included; never one from a quick run."""
    latest: dict[tuple, dict[str, Any]] = {}
    for record in records:
        made = record["provenance"]
        if not made["quick"]:
            latest[made["platform"], made["device"], made["cores"], record["case"], record["data"]] = record
    return list(latest.values())

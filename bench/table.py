"""Tables of committed results, on the pages that show them: ``python -m bench.table`` writes, ``--check`` compares."""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.deep.settings import METHODS as DEEP
from bench.provenance import ROOT
from bench.records import RESULTS, published, read

HEAD = ("Work", "jaxcluster", "Peers", "Ratio", "Target", "First call")
MEMORY_HEAD = ("Peak memory beside the rows", "jaxcluster", "Peers")
LIBRARIES = {"jax": "JAX", "numpy": "NumPy", "scikit-learn": "scikit-learn"}


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of times, a row a record."""
    return _lines([HEAD, ("---", "---:", "---", "---:", "---:", "---:"), *map(_row, records)])


def memory_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of peak memory, a row a record."""
    return _lines([MEMORY_HEAD, ("---", "---:", "---"), *map(_memory_row, records)])


def sections(times: Sequence[dict[str, Any]], memory: Sequence[dict[str, Any]] = ()) -> str:
    """The tables of each device, under a line that says where its figures come from."""
    parts = []
    for device in dict.fromkeys(_device(record) for record in (*times, *memory)):
        timed, sized = ([record for record in records if _device(record) == device] for records in (times, memory))
        parts.append(f"**{device}** — {_origin([*timed, *sized])}")
        parts += [show(here) for show, here in ((markdown, timed), (memory_markdown, sized)) if here]
    return "\n\n".join(parts)


def shapes_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of the best ARI of each method, a row a shape; the best of the row in bold."""
    names = list(dict.fromkeys(name for record in records for name in record["methods"]))
    head = [("Shape", "Rows", *names), ("---", "---:", *["---:"] * len(names))]
    return _lines([*head, *(_shape_row(record, names) for record in records)])


def shapes_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of shapes, under a line that says where its figures come from."""
    return f"{_origin(records)}\n\n{shapes_markdown(records)}" if records else ""


def fresh_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of fresh processes, a row a case."""
    head = ("Case", "Samples", "scikit-learn, s", "Ours, warm, s", "Ours, cold, s", "Warm ratio", "Cold ratio")
    return _lines([head, ("---", *["---:"] * 6), *map(_fresh_row, records)])


def fresh_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of fresh processes on each device, under a line that says where its figures come from."""
    parts = []
    for device in dict.fromkeys(map(_device, records)):
        here = [record for record in records if _device(record) == device]
        parts += [f"**{device}** — {_origin(here)}", fresh_markdown(here)]
    return "\n\n".join(parts)


def _fresh_row(record):
    medians = (f"{record['medians'][side]:.2f}" for side in ("scikit-learn", "warm", "cold"))
    ratios = (f"{record['ratios'][side]:.2f}" for side in ("warm", "cold"))
    return (record["case"], f"{record['n']:,}×{record['d']}", *medians, *ratios)


def growth_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of times as the work grows, a row a family: the largest problem, and the slopes on log axes."""
    head = ("Family grows in", "Sizes", "Ours at the largest", "Theory", "Ours", "Peers")
    return _lines([head, ("---", "---", "---:", "---:", "---:", "---"), *map(_growth_row, records)])


def growth_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of growth, under a line that says where its figures come from."""
    return f"{_origin(records)}\n\n{growth_markdown(records)}" if records else ""


def _growth_row(record):
    ours, *peers = record["seconds"]
    sizes = sorted(int(size) for size in record["seconds"][ours])
    slopes = {side: "—" if slope is None else f"{slope:.2f}" for side, slope in record["slopes"].items()}
    last = {int(size): value for size, value in record["seconds"][ours].items()}[sizes[-1]]
    theirs = "; ".join(f"{side} {slopes[side]}" for side in peers) or "—"
    return (
        record["case"],
        f"{sizes[0]:,} to {sizes[-1]:,}",
        seconds(last),
        f"{record['exponent']:g}",
        slopes[ours],
        theirs,
    )


def deep_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of deep methods on sets of images, a row a set and method: means and deviations over seeds."""
    head = ("Data", "Method", "Seeds", "Accuracy", "NMI", "ARI", "k-means on codes", "EM on codes", "Published", "Time")
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault((record["data"], record["method"]), []).append(record)
    rows = [_deep_row(found[each]) for each in sorted(found, key=lambda each: (each[0], DEEP.index(each[1])))]
    return _lines([head, ("---", "---", *["---:"] * 8), *rows])


def deep_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of deep methods, under a line that says where its figures come from."""
    return f"{_origin(records)}\n\n{deep_markdown(records)}" if records else ""


def features_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of methods that learn without labels, a row a run: clusters, and what features tell."""
    head = ("Method", "Data", "Steps", "Accuracy", "NMI", "k-means on features", "Linear probe", "Time")
    rows = [head, ("---", "---", *["---:"] * 6), *map(_features_row, sorted(records, key=lambda each: each["case"]))]
    return _lines(rows)


def features_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of features, under a line that says where its figures come from."""
    return f"{_origin(records)}\n\n{features_markdown(records)}" if records else ""


def trials_markdown(record: dict[str, Any]) -> str:
    """One table of trials, a row a kind: how many were tried, were right, said that they were not, or were wrong."""
    keys = ("cases", "methods", "trials", "right", "said", "wrong")
    rows = [("Kind", "Cases", "Methods", "Trials", "Right", "Said so", "Wrong"), ("---", *["---:"] * len(keys))]
    rows += [(kind, *(f"{count[key]:,}" for key in keys)) for kind, count in record["kinds"].items()]
    rows.append(("All", "", "", *(f"{sum(count[key] for count in record['kinds'].values()):,}" for key in keys[2:])))
    return _lines(rows)


def trials_section(records: Sequence[dict[str, Any]]) -> str:
    """The latest table of trials of each dtype, on whatever machine, under a line that says where it comes from."""
    latest = {record["provenance"]["dtype"]: record for record in _by_date(records)}
    return "\n\n".join(f"{_origin([record])}\n\n{trials_markdown(record)}" for record in latest.values())


def streams_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of fits of a source, a row a method and source: rows a second, and memory of the whole process."""
    head = ("Fit", "Rows from", "Rows a second", "of those in memory", "Peak memory of the process")
    rows = [head, ("---", "---", "---:", "---:", "---:")]
    for record in records:
        memory_s = record["memory"]["step_s"]
        n = int(record["case"].rsplit("-", 1)[1].split("x")[0])
        rows += [
            (
                record["case"] + f", k = {record['k']}",
                {"memory": "an array", "npy": "an .npy file", "parquet": "Parquet files"}[source],
                f"{n / record[source]['step_s']:,.0f}",
                f"{memory_s / record[source]['step_s']:.2f}×",
                size(record[source]["peak_bytes"]),
            )
            for source in ("memory", "npy", "parquet")
        ]
    return _lines(rows)


def streams_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of streams, under a line that says where its figures come from."""
    return f"{_origin(records)}\n\n{streams_markdown(records)}" if records else ""


def scaling_markdown(records: Sequence[dict[str, Any]]) -> str:
    """One table of k-means over devices and processes: seconds of a step, and those of the plan."""
    head = ("Devices", "Processes", "Rows", "Step", "Predicted", "Measured / predicted", "Collectives of a step")
    rows = [head, (*["---:"] * 6, "---")]
    for record in records:
        # Of a case such as "kmeans-400000x32-2d1p".
        n, _, devices, processes = re.findall(r"\d+", record["case"])
        kinds = Counter(record.get("collectives", ()))
        rows.append(
            (
                devices,
                processes,
                f"{int(n):,}",
                seconds(record["step_s"]),
                seconds(record["planned_step_s"]),
                f"{record['step_s'] / record['planned_step_s']:.2f}",
                ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "—",
            )
        )
    return _lines(rows)


def scaling_section(records: Sequence[dict[str, Any]]) -> str:
    """The table of devices and processes, under a line that says where its figures come from."""
    measured = [record for record in records if record["case"].startswith("kmeans-")]
    return f"{_origin(measured)}\n\n{scaling_markdown(measured)}" if measured else ""


def replaced(text: str, table: str, block: str = "bench") -> str:
    """``text`` with the table between the two markers of a block.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    start, end = f"<!-- {block}:start -->", f"<!-- {block}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"expected {start} and {end} once each, in this order: add them where the table belongs.")
    before, after = text.partition(start)[0], text.partition(end)[2]
    return f"{before}{start}\n{table}\n{end}{after}" if table else f"{before}{start}\n{end}{after}"


def seconds(value: float | None) -> str:
    """A duration in three digits, in the unit that suits it."""
    if value is None:
        return "—"
    return f"{value:#.3g} s" if value >= 0.1 else f"{value * 1e3:#.3g} ms"


def size(value: int) -> str:
    """A number of bytes in megabytes."""
    return f"{value / 1e6:,.0f} MB"


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    ours, ratio = record["ours"], record["ratio"]
    return (
        _title(record),
        seconds(ours.get("median_s")),
        "; ".join(_peer(name, peer) for name, peer in record["peers"].items()) or "—",
        "—" if ratio is None else f"{ratio:.2f}×",
        _target(record),
        seconds(ours["first_call_s"]),
    )


def _memory_row(record: dict[str, Any]) -> tuple[str, ...]:
    peers = (f"{name} {size(peer['peak_bytes'])}" for name, peer in record["peers"].items())
    return _title(record), size(record["ours"]["peak_bytes"]), "; ".join(peers) or "—"


def _shape_row(record: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    aris = {name: found["ari"] for name, found in record["methods"].items()}
    best = round(max(aris.values()), 2)
    shown = {name: f"**{ari:.2f}**" if round(ari, 2) == best else f"{ari:.2f}" for name, ari in aris.items()}
    return record["case"], f"{record['n']:,}×{record['d']}", *(shown.get(name, "—") for name in names)


def _deep_row(runs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    def over_seeds(values: Sequence[float | None]) -> str:
        known = [value for value in values if value is not None]
        spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
        return f"{statistics.mean(known):.3f}{spread}" if known else "—"

    first = runs[0]
    return (
        f"{first['data']}, {first['n']:,} rows",
        first["method"],
        str(len(runs)),
        *(over_seeds([run[score] for run in runs]) for score in ("accuracy", "nmi", "ari")),
        *(over_seeds([run["start"].get(kind, {}).get("accuracy") for run in runs]) for kind in ("k-means", "mixture")),
        "—" if first["published"] is None else f"{first['published']:g}",
        f"{statistics.mean(run['seconds'] for run in runs) / 60:.0f} min",
    )


def _features_row(record: dict[str, Any]) -> tuple[str, ...]:
    features = record["features"]

    def each(name: str) -> str:
        trained, untrained, pixels = (features[what][name] for what in ("trained", "untrained", "pixels"))
        return f"{trained:.3f} (untrained {untrained:.3f}, pixels {pixels:.3f})"

    return (
        record["method"],
        f"{record['data']}, {record['n']:,} rows",
        f"{record['steps']:,} of {record['full_steps']:,}",
        f"{record['accuracy']:.3f}",
        f"{record['nmi']:.3f}",
        each("kmeans_accuracy"),
        each("probe"),
        f"{record['seconds'] / 60:.0f} min",
    )


def _title(record: dict[str, Any]) -> str:
    return record["title"] + ("" if record["data"] == "generated" else f" ({record['data']})")


def _target(record: dict[str, Any]) -> str:
    target, peers = record["target"], record["peers"]
    if target is None:
        return "—"
    if not isinstance(target, Mapping):
        return _aim(target, record["ratio"])
    ratios = {name: peers.get(name, {}).get("ratio") for name in target}
    return "; ".join(f"{name} {_aim(least, ratios[name])}" for name, least in target.items())


def _aim(least: float, ratio: float | None) -> str:
    if ratio is None:
        return f"≥ {least:g} (not measured)"
    return f"≥ {least:g}" + ("" if ratio >= least else " (not met)")


def _peer(name: str, peer: dict[str, Any]) -> str:
    if peer["disagreement"]:
        return f"{name} **disagrees: {peer['disagreement']}**"
    return f"{name} {seconds(peer.get('median_s'))} ({peer['ratio']:.2f}×)"


def _device(record: dict[str, Any]) -> str:
    made = record["provenance"]
    return made["device"] if made["platform"] != "cpu" else f"{made['device']}, {made['cores']} cores"


def _by_date(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda record: record["provenance"]["date"])


def _origin(records: Sequence[dict[str, Any]]) -> str:
    made = [record["provenance"] for record in records]
    commits = sorted({entry["commit"][:10] + (" with local changes" if entry["dirty"] else "") for entry in made})
    dates = sorted({entry["date"][:10] for entry in made})
    libraries = sorted({f"{shown} {entry['versions'][name]}" for entry in made for name, shown in LIBRARIES.items()})
    return f"{made[0]['dtype']}; {', '.join(libraries)}; commit {', '.join(commits)}; {', '.join(dates)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tables, or with ``--check`` says which page does not have the present ones."""
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the pages")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is not up to date")
    options = parser.parse_args(arguments)
    folders = ("", "memory", "shapes", "deep", "images", "trials", "fresh", "growth", "streams", "scaling")
    found = (published(read(options.results / folder)) for folder in folders)
    times, memory, shapes, deep, images, trials, fresh, growth, streams, scaling = found
    pages = {
        "README.md": {"trials": trials_section(trials)},
        "bench/README.md": {
            "bench": sections(times, memory),
            "fresh": fresh_section(fresh),
            "growth": growth_section(growth),
            "shapes": shapes_section(shapes),
            "deep": deep_section(deep),
            "images": features_section(images),
        },
        "docs/streaming.md": {"streams": streams_section(streams)},
        "docs/devices.md": {"scaling": scaling_section(scaling)},
    }
    stale = []
    for page, tables in pages.items():
        text = new = (options.root / page).read_text()
        for block, shown in tables.items():
            new = replaced(new, shown, block)
        if new != text:
            stale.append(page)
            if not options.check:
                (options.root / page).write_text(new)
    if options.check and stale:
        print(f"{' and '.join(stale)} do not show bench/results: run make bench-table.", file=sys.stderr)
    return int(options.check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())

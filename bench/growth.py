"""Time as the work grows, beside the peers: ``python -m bench.growth --write``.

Each family grows in the number of samples, of features, or of clusters, everything else as it was; its slope on log
axes, over the larger half of the sizes, stands beside the exponent of theory. ``--write`` records the times, and draws
``docs/pictures/growth.png``. A side stops growing where a call has taken `LONGEST` seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bench import peers
from bench.cases import Case, shrink
from bench.peers import FAST_HDBSCAN, GMMX, KMEDOIDS, OTT, POT, SKLEARN, WANG
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append, published, read
from bench.table import growth_markdown
from bench.timing import timed
from bench.works import OURS, WORKS

FOLDER = RESULTS / "growth"
PICTURE = ROOT / "docs" / "pictures" / "growth.png"

LONGEST = 4.0
"""Seconds of a call after which a side is not tried on larger problems."""

REPEATS = 3
"""Calls after the first one; the least time counts."""

SHOWN = (SKLEARN, GMMX, WANG, FAST_HDBSCAN, KMEDOIDS, POT, OTT)
"""Peers that are timed."""


class Growth(NamedTuple):
    """A family whose work grows.

    Attributes:
        name: of the panel.
        case: the problem from which it grows.
        axis: attribute of the case that grows, "n", "d" or "k".
        sizes: its values.
        exponent: of the time, by theory, where sizes are large.
    """

    name: str
    case: Case
    axis: str
    sizes: Sequence[int]
    exponent: float


def powers(first: int, last: int, step: int = 1) -> Sequence[int]:
    """2^first to 2^last."""
    return [1 << power for power in range(first, last + 1, step)]


LLOYD = Case("lloyd", "lloyd", n=1 << 15, d=32, k=64, steps=5)
EM = Case("em", "em", n=1 << 14, d=16, k=16, steps=5, covariance="full")
PLANE = {"d": 2, "k": 20}

FAMILIES = (
    Growth("k-means, samples", LLOYD, "n", powers(10, 20, 2), 1),
    Growth("k-means, features", LLOYD, "d", powers(2, 10, 2), 1),
    Growth("k-means, clusters", LLOYD, "k", powers(2, 10, 2), 1),
    Growth("mixture, samples", EM, "n", powers(9, 17, 2), 1),
    Growth("mixture, features", EM, "d", powers(2, 6), 2),
    Growth("mixture, clusters", EM, "k", powers(1, 6), 1),
    Growth("DBSCAN, samples", Case("dbscan", "dbscan", n=1, eps=0.5, **PLANE), "n", powers(9, 17, 2), 1),
    Growth("HDBSCAN, samples", Case("hdbscan", "hdbscan", n=1, **PLANE), "n", powers(9, 17, 2), 1),
    Growth("OPTICS, samples", Case("optics", "optics", n=1, **PLANE), "n", powers(9, 14), 2),
    Growth("spectral, samples", Case("spectral", "spectral", n=1, d=16, k=10), "n", powers(9, 14), 2),
    Growth("k-medoids, samples", Case("kmedoids", "kmedoids", n=1, d=16, k=10), "n", powers(9, 14), 2),
    Growth("silhouette, samples", Case("silhouette", "silhouette", n=1, d=32, k=10), "n", powers(9, 15), 2),
    Growth("Sinkhorn, samples", Case("sinkhorn", "sinkhorn", n=1, d=32, eps=5.0, steps=20), "n", powers(7, 12), 2),
)


def measure(family: Growth, found: Mapping[str, str]) -> dict[str, Any]:
    """Least seconds of each side at each size, as far as it is tried, and the slopes."""
    seconds: dict[str, dict[int, float]] = {}
    stopped: set[str] = set()
    for size in family.sizes:
        case = replace(family.case, **{family.axis: size})
        for side, call in WORKS[case.work].build(case, found, None).sides.items():
            if side in stopped:
                continue
            call()
            least = timed(call)[0]
            if least <= LONGEST:
                least = min(least, *(timed(call)[0] for _ in range(REPEATS - 1)))
            seconds.setdefault(side, {})[size] = least
            if least > LONGEST:
                stopped.add(side)
        if OURS in stopped:
            break
    return {
        "case": family.name,
        "data": "generated",
        "axis": family.axis,
        "fixed": {name: getattr(family.case, name) for name in ("n", "d", "k") if name != family.axis},
        "exponent": family.exponent,
        "seconds": seconds,
        "slopes": {side: slope(times) for side, times in seconds.items()},
    }


def slope(times: Mapping[int, float]) -> float | None:
    """Exponent of the time over the larger half of the sizes, by least squares of logarithms; None for one size."""
    kept = sorted(times)[len(times) // 2 - (len(times) == 2) :]
    if len(kept) < 2:
        return None
    return float(np.polyfit(np.log(kept), np.log([times[size] for size in kept]), 1)[0])


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a panel for each family: time against size on log axes, our line and the peers'."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    columns = 3
    rows = -(-len(records) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 2.7 * rows), layout="constrained", squeeze=False)
    sides = list(dict.fromkeys(side for record in records for side in record["seconds"]))
    colors = {side: f"C{number}" for number, side in enumerate(sides)}
    for panel, record in zip(axes.flat, records, strict=False):
        for side, times in record["seconds"].items():
            sizes = sorted(map(int, times))
            values = [{int(size): value for size, value in times.items()}[size] for size in sizes]
            ours = side == OURS
            panel.loglog(
                sizes, values, "o-" if ours else "s--", color=colors[side], lw=2 if ours else 1, ms=4, label=side
            )
        sizes = sorted(map(int, record["seconds"][OURS]))
        panel.set_xticks(sizes[::2], [f"{size:,}" for size in sizes[::2]], fontsize=8)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(NullFormatter())
        shown = record["slopes"][OURS]
        panel.set_title(f"{record['case']} (slope {shown:.1f}, theory {record['exponent']:g})", fontsize=10)
        panel.set_xlabel({"n": "samples", "d": "features", "k": "clusters"}[record["axis"]], fontsize=9)
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(records) :]:
        panel.set_axis_off()
    for panel in axes[:, 0]:
        panel.set_ylabel("seconds", fontsize=9)
    handles = {
        label: line for panel in axes.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="lower right", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, facecolor="white")
    plt.close(figure)


def tiny(family: Growth) -> Growth:
    """The first two sizes of a family, and everything else small."""
    case = replace(shrink(family.case), steps=2, k=min(family.case.k, 3))
    return family._replace(case=case, sizes=family.sizes[:2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen families and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="families to run; * and ? match")
    parser.add_argument("--quick", action="store_true", help="two sizes of each, to see that it runs; never recorded")
    parser.add_argument("--write", action="store_true", help="record the times in bench/results/growth, and draw them")
    options = parser.parse_args(arguments)
    installed = peers.installed(jax.default_backend())
    found = {name: version for name, version in installed.items() if name in SHOWN}
    made, records = provenance(found, quick=options.quick), []
    for family in FAMILIES:
        if any(fnmatch(family.name, pattern) for pattern in options.only):
            print(f"{family.name} ...", file=sys.stderr, flush=True)
            records.append({**measure(tiny(family) if options.quick else family, found), "provenance": made})
            if options.write and not options.quick:
                append(FOLDER / f"{made['platform']}-{made['date'][:10]}.jsonl", records[-1])
    print(growth_markdown(records))
    if options.write and not options.quick:
        draw(published(read(FOLDER)), PICTURE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

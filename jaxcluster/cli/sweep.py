"""``jaxcluster sweep``: many numbers of clusters, scored, so that one can be chosen."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import typer

from jaxcluster.cli import graph_options as graph
from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import MistakeError, mistakes
from jaxcluster.cli.inputs import Rows, Source, describe, read
from jaxcluster.core import signals

if TYPE_CHECKING:
    from rich.console import Console

TABLE, RESULTS = "sweep.csv", "sweep.json"

FILES = {
    runs.REPORT: "the curves: open it in a browser",
    TABLE: "the scores of each k",
    RESULTS: "the same, with those of every start and the choices",
    "config.json": "all that is needed to run this again",
}
"""What is in a sweep's folder, and what for."""


class Algo(StrEnum):
    """What can be swept."""

    kmeans = "kmeans"
    kmedoids = "kmedoids"
    gmm = "gmm"


METHODS = {algo: f"jaxcluster.cli.sweep_{algo.value}" for algo in Algo}
"""Where each is swept: a module with a function ``run`` that returns a `Sweep`."""

TAKEN = {
    Algo.kmeans: ("init", "max_steps", "tol", "metric", "precision"),
    Algo.kmedoids: ("init", "max_steps", "tol", "metric"),
    Algo.gmm: ("init", "max_steps", "tol", "covariances", "reg_covar", "missing", "precision"),
}
"""Options that mean something to each, as the library calls them."""

SPELLED = {"max_steps": "--max-iter", "covariances": "--covariance", "reg_covar": "--reg-covar"}
"""Options that are called otherwise here."""


@runtime_checkable
class Sweep(Protocol):
    """A finished sweep, whatever was swept."""

    rows: Rows
    ks: list[int]
    seeds: int
    seconds: dict[str, float]

    def lead(self) -> str:
        """What was swept, in a sentence, for the report."""

    def lines(self) -> list[dict[str, Any]]:
        """Lines of the table, all with the same names; None for what is undefined."""

    def details(self) -> dict[str, Any]:
        """The table with the scores of every start, and the choices; to be written as JSON."""

    def shown(self) -> tuple[str, Sequence[str], Sequence[Sequence[Any]]]:
        """A title, heads and lines for a terminal; text stands in the last column."""

    def remarks(self) -> list[str]:
        """What must be known of the scores, and what they say, in a sentence each."""

    def pictures(self) -> list[str]:
        """Figures for the report, as HTML."""

    def tables(self) -> list[str]:
        """Tables for the report, as HTML."""


def sweep(
    data: opt.Data,
    *,
    k: Annotated[
        str,
        typer.Option(
            "--k", "-k", metavar="KS", show_default=False, help="2:15 for 2 to 15, 2:20:3 for every third, or 2,4,8."
        ),
    ],
    out: opt.Out,
    algo: Annotated[Algo, typer.Option(help="What to fit: k-means, k-medoids or mixtures.")] = Algo.kmeans,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Starts for each k; the best one counts.")] = 5,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    columns: opt.Columns = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            rich_help_panel=opt.INPUT,
            show_default=False,
            help="The column that holds the known classes, so that it is not clustered.",
        ),
    ] = None,
    weights: opt.Weights = None,
    key: opt.Key = None,
    header: opt.Header = None,
    delimiter: opt.Delimiter = None,
    decimal: opt.Decimal = None,
    encoding: opt.Encoding = None,
    init: opt.Init = None,
    max_iter: opt.MaxIter = None,
    tol: opt.Tol = None,
    metric: graph.DistanceChoice = None,
    covariance: Annotated[
        list[opt.Covariance] | None,
        typer.Option(
            metavar="full|tied|diag|spherical",
            rich_help_panel=opt.METHOD,
            show_default=False,
            help="A shape of a mixture's components to try; may be repeated. All four, unless given.",
        ),
    ] = None,
    reg_covar: opt.RegCovar = None,
    missing: opt.Missing = None,
    precision: opt.PrecisionChoice = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
) -> None:
    """Try many numbers of clusters with k-means, k-medoids or mixtures of Gaussians, all at once, to choose one.

    For example:

      jaxcluster sweep digits --k 2:15 --out runs/how-many

      jaxcluster sweep iris --k 1:9 --algo gmm --out runs/mixtures

      jaxcluster sweep iris --k 2:9 --algo kmedoids --metric manhattan --out runs/medoids
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.folder import check_folder, claimed_folder
    from jaxcluster.cli.run import add_report
    from jaxcluster.cli.runtime import start
    from jaxcluster.cli.sweep_report import write_sweep_report

    ks = parse_ks(k)
    given = {
        "init": init,
        "max_steps": max_iter,
        "tol": tol,
        "metric": metric and metric.value,
        "precision": precision.value if precision is opt.Precision.fast else None,
        "covariances": [each.value for each in dict.fromkeys(covariance or ())] or None,
        "reg_covar": reg_covar,
        "missing": missing,
    }
    options = _taken(algo, {name: value for name, value in given.items() if value is not None})
    check_folder(out, overwrite=overwrite)
    start()
    source = Source(data, key, columns, truth, weights, header, delimiter, decimal, encoding)
    ways = {"metric": options.get("metric"), "missing": missing or (False if algo is Algo.gmm else None)}
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        with stage("read", f"Reading {data}"), mistakes():
            rows = read(source, scale.value, **ways)
        console.note(rows.dataset.notes, quiet=quiet)
        result = import_module(METHODS[algo]).run(stage, rows, ks, seeds, seed, options)
        with claim.folder() as folder, stage("write", "Writing"), mistakes():
            config = _config(algo, result, options | {"seed": seed}, describe(source, rows.dataset))
            _write(folder, result, config)
        if not no_report:
            again = runs.command_line() + ("" if overwrite else " --overwrite")
            signals.set_stop_message(f"the results in {out} are complete but for their report. To try again: {again}")
            add_report(stage, again, lambda: write_sweep_report(out.resolve() / runs.REPORT, result, config))
    _show(console.stdout(quiet), result, out)


def parse_ks(text: str) -> list[int]:
    """Numbers of clusters, ascending: "2:5" is 2, 3, 4, 5, "2:10:4" is 2, 6, 10, and commas join such parts.

    Raises:
        MistakeError: anything else, or a number below 1.
    """
    ks: set[int] = set()
    for part in text.split(","):
        try:
            bounds = [int(number) for number in part.split(":")]
        except ValueError:
            bounds = []
        if not 1 <= len(bounds) <= 3 or min(bounds) < 1:
            raise MistakeError(f"--k {text!r} must be like 2:15 or 2,4,8: numbers of clusters, at least 1.")
        start, stop, step = (*bounds, bounds[0], 1)[:3] if len(bounds) == 1 else (*bounds, 1)[:3]
        ks.update(range(start, stop + 1, step))
    if not ks:
        raise MistakeError(f"--k {text!r} holds no number: write the lesser one first, as in 2:15.")
    return sorted(ks)


def _taken(algo: Algo, options: Mapping[str, Any]) -> dict[str, Any]:
    """``options``, unless one of them means nothing to the method."""
    spelled = {name: SPELLED.get(name, f"--{name}") for taken in TAKEN.values() for name in taken}
    for name in options:
        if name not in TAKEN[algo]:
            known = ", ".join(spelled[each] for each in TAKEN[algo])
            raise MistakeError(f"{spelled[name]} means nothing to {algo.value}; what it takes is {known}.")
    return dict(options)


def _config(algo: Algo, result: Sweep, options: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    from jaxcluster.cli import runtime

    return {
        "command": runs.command_line(),
        "algorithm": algo.value,
        "ks": result.ks,
        "seeds": result.seeds,
        "parameters": options,
        "data": data,
        "scaling": result.rows.scaling.to_json(),
        "versions": runtime.versions(),
        "device": runtime.device(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": dict(result.seconds),
    }


def _write(folder: Path, result: Sweep, config: dict[str, Any]) -> None:
    from jaxcluster.cli.folder import write_config, write_json

    lines = result.lines()
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    write_json(folder / RESULTS, result.details())
    write_config(folder, config)


def _show(out: Console, result: Sweep, folder: Path) -> None:
    from jaxcluster.cli.console import say, show_table

    title, heads, lines = result.shown()
    show_table(out, title, heads, lines, text=(len(heads) - 1,))
    for remark in result.remarks():
        say(out, remark)
    say(out, f"\nWritten to {folder}:", "bold")
    for name, purpose in FILES.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")

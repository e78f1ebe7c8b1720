"""``jaxcluster sweep``: fits and scores for many numbers of clusters, so that one can be chosen."""

from __future__ import annotations

import csv
import html
import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, as_options, user_errors
from jaxcluster.cli.inputs import Rows, Source, describe, imputation_entry, read
from jaxcluster.core import signals

if TYPE_CHECKING:
    from rich.console import Console

    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.sweep_results import SweepResult, Table

TABLE, RESULTS = "sweep.csv", "sweep.json"

FILES = {
    runs.REPORT: "the curves: open it in a browser",
    TABLE: "the scores of each k",
    RESULTS: "the same, with those of every start and the choices",
    "config.json": "all that is needed to run this again",
}
"""Files in the folder of a sweep, and their purpose."""

MOST_KS = 1000
"""Numbers of clusters of a part of a list, at most: each is a fit."""

AS_FIT = "as in the help of fit: jaxcluster fit METHOD --help"

OPTIONS = {
    "init": "--init",
    "max_steps": "--max-iter",
    "tol": "--tol",
    "metric": "--metric",
    "covariances": "--covariance",
    "reg_covar": "--reg-covar",
    "missing": "--missing",
    "precision": "--precision",
}
"""Options of methods, by the argument of the library's functions named ``sweep`` that each stands for."""


Truth = Annotated[
    str | None,
    opt.option(metavar="COLUMN", help="The column that holds the known classes, so that it is not clustered."),
]


class SweepTask(NamedTuple):
    """A sweep as it was asked for.

    Attributes:
        method: name of the method.
        ks: numbers of clusters, ascending.
        seeds: starts for each.
        seed: of the first start.
        options: arguments of the library's sweep by name.
        source: of the rows.
        scale: one of `jaxcluster.datasets.SCALINGS`.
    """

    method: str
    ks: list[int]
    seeds: int
    seed: int
    options: dict[str, Any]
    source: Source
    scale: str


@opt.gather("source", Source, list(opt.SOURCE), truth=Truth)
def sweep(
    *,
    k: Annotated[
        str,
        typer.Option(
            "--k", "-k", metavar="KS", show_default=False, help="2:15 for 2 to 15, 2:20:3 for every third, or 2,4,8."
        ),
    ],
    out: opt.Out,
    algo: Annotated[str, typer.Option(metavar="kmeans|kmedoids|gmm|kmodes|kprototypes", help="The method.")] = "kmeans",
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Starts for each k; the best one counts.")] = 5,
    seed: opt.Seed = 0,
    scale: opt.Scaling = opt.Scale.none,
    source: Source,
    init: Annotated[str | None, opt.option(metavar="NAME", panel=opt.METHOD, help=f"Initialization, {AS_FIT}.")] = None,
    max_iter: Annotated[
        int | None, opt.option(metavar="N", min=1, panel=opt.METHOD, help="Maximum number of steps of a run.")
    ] = None,
    tol: Annotated[float | None, opt.option(metavar="X", min=0, panel=opt.METHOD, help=f"Tolerance, {AS_FIT}.")] = None,
    metric: Annotated[
        str | None,
        opt.option(metavar="NAME", panel=opt.METHOD, help=f"Metric of k-means or k-medoids, {AS_FIT}."),
    ] = None,
    covariance: Annotated[
        list[str] | None,
        opt.option(
            metavar="full|tied|diag|spherical",
            panel=opt.METHOD,
            help="A type of covariance of mixtures to try; may be repeated. All four, unless given.",
        ),
    ] = None,
    reg_covar: Annotated[
        float | None,
        opt.option(metavar="X", min=0, panel=opt.METHOD, help="Added to every variance of mixtures (data units²)."),
    ] = None,
    missing: Annotated[
        bool | None,
        opt.option(
            "--missing", panel=opt.METHOD, help="Fit mixtures to rows with missing cells: these are integrated out."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        opt.option(
            metavar="none|fast",
            panel=opt.METHOD,
            help="fast: matrix products of less precision, faster on accelerators.",
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    no_report: opt.NoReport = False,
    quiet: opt.Quiet = False,
) -> None:
    """Try many numbers of clusters with k-means, k-medoids or mixtures of Gaussians, all at once, to choose one.

    For example:

      jaxcluster sweep digits --k 2:15 --out runs/how-many

      jaxcluster sweep iris --k 1:9 --algo gmm --out runs/mixtures

      jaxcluster sweep iris --k 2:9 --algo kmedoids --metric manhattan --out runs/medoids

      jaxcluster sweep customers.csv --k 2:6 --algo kprototypes --scale standard --out runs/mixed
    """
    from jaxcluster.cli import console, runtime
    from jaxcluster.cli.output_dir import check_folder, claimed_folder, files_of
    from jaxcluster.cli.table_checks import check_columns
    from jaxcluster.estimators import ESTIMATORS

    ks = parse_ks(k)
    given = {"init": init, "max_steps": max_iter, "tol": tol, "metric": metric, "covariances": covariance or None}
    given |= {"reg_covar": reg_covar, "missing": missing, "precision": precision}
    options = library_options(algo, {name: value for name, value in given.items() if value is not None})
    check_folder(out, overwrite=overwrite, inputs=files_of(source.data, source.truth, source.weights))
    runtime.start()
    task = SweepTask(algo, ks, seeds, seed, options, source, scale.value)
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        rows, result = _run(stage, task)
        config = _config(task, rows, result)
        with claim.folder() as folder, stage("write", "Writing"), user_errors():
            config |= {"written": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": dict(stage.seconds)}
            _write(folder, result, config)
        if not no_report:
            again = runs.command_line() + ("" if overwrite else " --overwrite")
            signals.set_stop_message(f"the results in {out} are complete but for their report. To try again: {again}")
            runs.add_report(stage, again, lambda: write_report(out.resolve() / runs.REPORT, result, rows, config))
    _show(console.stdout(quiet), result, out)
    check_columns(rows, max(ks), info=ESTIMATORS.info(algo), metric=options.get("metric"))


def _run(stage: Stages, task: SweepTask) -> tuple[Rows, SweepResult]:
    """Read the rows, and fit and score all numbers of clusters."""
    from jaxcluster.cli.sweep_results import SWEEPS, sweep_mixed, takes_categories

    mixed = takes_categories(task.method, task.options.get("metric"))
    options = _reading(task, mixed)
    with stage("read", f"Reading {task.source.data}"), user_errors():
        rows = read(task.source, task.scale, **options)
        if rows.is_sparse and task.method == "gmm":
            raise UserError(
                f"--algo gmm takes dense rows, and those of {task.source.data} are sparse: take kmeans or kmedoids."
            )
    stage.note(rows.dataset.notes)
    sweep_rows = partial(sweep_mixed, task.method) if mixed else SWEEPS[task.method]
    return rows, sweep_rows(stage, rows, task.ks, task.seeds, task.seed, task.options)


def _reading(task: SweepTask, mixed: bool) -> dict[str, Any]:
    """Options of `jaxcluster.cli.inputs.read` for a method."""
    from jaxcluster.cli.fit_pipeline import reading_options
    from jaxcluster.cli.sweep_results import make

    if mixed:
        return reading_options(make(task.method, task.ks[0], task.seeds, task.seed, task.options))
    unset = False if "missing" in library_arguments(task.method) else None
    return {"metric": task.options.get("metric"), "missing": task.options.get("missing") or unset}


def _config(task: SweepTask, rows: Rows, result: SweepResult) -> dict[str, Any]:
    """Everything that another run of the sweep needs, for config.json."""
    from jaxcluster.cli import runtime

    return {
        "command": runs.command_line(),
        "algorithm": task.method,
        "ks": result.ks,
        "seeds": result.seeds,
        "parameters": task.options | {"seed": task.seed},
        "data": describe(task.source, rows.dataset),
        "scaling": rows.scaling.to_json(),
        **imputation_entry(rows),
        "versions": runtime.versions(),
        "device": runtime.device(),
    }


def parse_ks(text: str) -> list[int]:
    """Numbers of clusters, ascending: ranges as ``start:stop`` or ``start:stop:step``, the stop included, with commas.

    >>> parse_ks("2:5"), parse_ks("2:10:4"), parse_ks("2:3,9")
    ([2, 3, 4, 5], [2, 6, 10], [2, 3, 9])

    Raises:
        UserError: anything else, a number below 1, or too many numbers.
    """
    ks: set[int] = set()
    for part in text.split(","):
        try:
            bounds = [int(number) for number in part.split(":")]
        except ValueError:
            bounds = []
        if not 1 <= len(bounds) <= 3 or min(bounds) < 1:
            raise UserError(f"--k {text!r} must be like 2:15 or 2,4,8: numbers of clusters, at least 1.")
        start, stop, step = (*bounds, bounds[0], 1)[:3] if len(bounds) == 1 else (*bounds, 1)[:3]
        if (stop - start) // step >= MOST_KS or len(ks) >= MOST_KS:  # of a set that memory may not hold
            raise UserError(f"--k {text!r} has more than {MOST_KS:,} numbers of clusters. Name fewer, or every tenth.")
        ks.update(range(start, stop + 1, step))
    if not ks:
        raise UserError(f"--k {text!r} holds no number: write the lesser one first, as in 2:15.")
    return sorted(ks)


def library_arguments(method: str) -> list[str]:
    """Arguments of `OPTIONS` that the sweep of a method takes.

    Raises:
        UserError: a method that cannot be swept.
    """
    import jaxcluster
    from jaxcluster.cli.sweep_results import MIXED, PARAMETERS, SWEEPS
    from jaxcluster.core.validation import check_choice
    from jaxcluster.estimators import ESTIMATORS

    with user_errors():
        check_choice("--algo", method, [*SWEEPS, *MIXED])
    if method in MIXED:
        known = inspect.signature(ESTIMATORS[method]).parameters
        return [name for name, parameter in PARAMETERS.items() if parameter in known]
    taken = inspect.signature(getattr(jaxcluster, method).sweep).parameters
    return [name for name in OPTIONS if name in taken]


def library_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the sweep of a method from the options that were given.

    Args:
        method: that is swept.
        given: values by argument.

    Raises:
        UserError: an option without a meaning for the method, or a word that it does not take.
    """
    from jaxcluster.core.validation import check_choice
    from jaxcluster.estimators import ESTIMATORS

    arguments, choices = library_arguments(method), ESTIMATORS.info(method).choices
    options = {}
    for name, value in given.items():
        if name not in arguments:
            known = ", ".join(OPTIONS[each] for each in arguments)
            raise UserError(f"{OPTIONS[name]} means nothing to {method}; what it takes is {known}.")
        words = choices.get("covariance_type" if name == "covariances" else name)
        for word in value if isinstance(value, list) else [value]:
            if words is not None:
                with user_errors():
                    check_choice(OPTIONS[name], word, words)
        options[name] = list(dict.fromkeys(value)) if isinstance(value, list) else value
    return {name: value for name, value in options.items() if value != "none"}


def _write(folder: Path, result: SweepResult, config: dict[str, Any]) -> None:
    from jaxcluster.cli.output_dir import write_config, write_json

    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, result.lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(result.lines)
    write_json(folder / RESULTS, result.to_json())
    write_config(folder, config)


def _show(out: Console, result: SweepResult, folder: Path) -> None:
    from jaxcluster.cli.console import say, show_table

    title, heads, lines = result.shown
    show_table(out, title, heads, lines, text=(len(heads) - 1,))
    for remark in result.remarks:
        say(out, remark)
    say(out, f"\nWritten to {folder}:", "bold")
    for name, purpose in FILES.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")


def write_report(path: Path, result: SweepResult, rows: Rows, config: dict[str, Any]) -> None:
    """Write the curves and scores of a sweep as one HTML file, on the template of a fit's report."""
    from jaxcluster.core.atomic import write_atomic
    from jaxcluster.report import tables
    from jaxcluster.report.context import CLUSTERED_AS
    from jaxcluster.report.figures import figure
    from jaxcluster.report.page import page, section

    machine = {**config["device"], **config["versions"]}
    cards = (tables.facts(runs.summarize_config(config), "Configuration"), tables.facts(machine, "Machine"))
    facts = "".join(f'<div class="card">{card}</div>' for card in cards)
    remarks = html.escape(" ".join(result.remarks))
    scaled = CLUSTERED_AS.get(rows.scaling.how)
    notes = [as_options(note) for note in rows.dataset.notes]
    notes += [f"All is of the rows as they were clustered: {scaled}."] if scaled else []
    head = "".join(f'<p class="note">{html.escape(note[:1].upper() + note[1:])}</p>' for note in notes)
    curves = "".join(figure(curve.draw, curve.description, **curve.options) for curve in result.curves)
    tables_shown = "".join(map(_table, result.tables))
    body = [
        head,
        section("Curves", remarks, f'<div class="pictures">{curves}</div>'),
        section("Scores", "Of the best start of each.", tables_shown),
        section("What was run", "", f'<div class="columns">{facts}</div>'),
    ]
    written = datetime.fromisoformat(config["written"])
    footer = f"Written by jaxcluster {config['versions']['jaxcluster']} on {written:%Y-%m-%d %H:%M} UTC."
    filled = page(f"How many clusters in {rows.dataset.name}?", result.lead, body, footer)
    write_atomic(path, filled.encode())


def _table(table: Table) -> str:
    """A table of a sweep as HTML."""
    from jaxcluster.report import tables

    lines = [
        (name, ["—" if value is None else tables.number(value) for value in values]) for name, values in table.lines
    ]
    options = {"css": ""} if table.caption is None else {"caption": table.caption}
    return tables.grid(table.title, table.heads, lines, **options)

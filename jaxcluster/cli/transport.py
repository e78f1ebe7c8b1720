"""``jaxcluster transport``: what it costs to move one set of rows onto another, and which goes where."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jaxcluster.cli import options as opt
from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import UserError, user_errors

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.console import Stages
    from jaxcluster.datasets import Dataset

RESULT, POTENTIALS, PLAN, CONFIG = "transport.json", "potentials.npz", "plan.npy", "config.json"

FILES = {
    RESULT: "the costs, and how the iteration ended",
    POTENTIALS: "what moving a row of X (f) and of Y (g) is worth: they make the plan",
    PLAN: "how much goes from each row of X to each of Y",
    "plan.svg": "a picture of it",
    CONFIG: "all that is needed to run this again",
}
"""What is in the folder of a transport, and what for."""

MOST_ENTRIES = 4_000_000
"""Beyond so many pairs of rows the plan is not written out."""

DRAWN = 400
"""Rows of either side in the picture, drawn at random where there are more."""


class Cost(StrEnum):
    """What moving a row costs, as `jaxcluster.ops.distance.METRICS` has it."""

    sqeuclidean = "sqeuclidean"
    euclidean = "euclidean"
    manhattan = "manhattan"
    cosine = "cosine"


class Moved(NamedTuple):
    """A finished transport: both sets of rows, the solution as NumPy arrays, the plan where it is not too large."""

    x: Dataset
    y: Dataset
    transport: Any
    plan: np.ndarray | None
    divergence: float | None


def transport(
    x: Annotated[str, typer.Argument(metavar="X", show_default=False, help="The rows to move: as DATA of fit.")],
    y: Annotated[str, typer.Argument(metavar="Y", show_default=False, help="Where to: rows with as many columns.")],
    *,
    epsilon: Annotated[
        float,
        typer.Option(
            metavar="E",
            show_default=False,
            help="How much the plan may blur, in units of the cost; a hundredth of the mean cost is sharp.",
        ),
    ],
    out: opt.Out,
    cost: Annotated[Cost, typer.Option(help="What it costs to move a row.")] = Cost.sqeuclidean,
    rho: Annotated[
        float | None,
        typer.Option(
            metavar="R", show_default=False, help="Let mass appear and vanish at this price, in units of the cost."
        ),
    ] = None,
    divergence: Annotated[
        bool, typer.Option("--divergence", help="Sinkhorn's divergence too: 0 between equal sets, whatever E.")
    ] = False,
    max_iter: Annotated[int, typer.Option(metavar="N", min=1, help="The most rounds.")] = 5000,
    tol: Annotated[float, typer.Option(metavar="T", min=0, help="How far sums may be off, as a share.")] = 1e-3,
    header: opt.Header = None,
    delimiter: opt.Delimiter = None,
    decimal: opt.Decimal = None,
    encoding: opt.Encoding = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Move one set of rows onto another at the least cost, by Sinkhorn's iteration; write costs, potentials and plan.

    For example:

      jaxcluster transport moons:n=300 circles:n=300 --epsilon 0.05 --out runs/moved
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.output_dir import check_folder, claimed_folder
    from jaxcluster.cli.runtime import start

    check_folder(out, overwrite=overwrite)
    start()
    options = {"cost": cost.value, "epsilon": epsilon, "rho": rho, "tol": tol, "max_steps": max_iter}
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        with stage("read", f"Reading {x} and {y}"), user_errors():
            layout = {"header": header, "delimiter": delimiter, "decimal": decimal, "encoding": encoding}
            both = _read(x, layout), _read(y, layout)
        for each in both:
            stage.note(each.notes)
        with stage("fit", f"Moving {len(both[0].x):,} rows onto {len(both[1].x):,}"), user_errors():
            moved = _move(*both, options, divergence=divergence)
        with claim.folder() as folder, user_errors():
            _write(stage, folder, moved, {"x": x, "y": y, **options})
    _show(console.stdout(quiet), moved, out)


def _read(name: str, layout: dict[str, Any]) -> Dataset:
    """The rows of a file; what is told of the layout of text tables holds for each of the two that is one."""
    from jaxcluster.core.validation import check_finite
    from jaxcluster.datasets.loading import is_text_table, load

    dataset = load(name, **(layout if is_text_table(name) else {}))
    check_finite(dataset.x, name=dataset.name, columns=dataset.columns)
    return dataset


def _move(x: Dataset, y: Dataset, options: dict[str, Any], *, divergence: bool) -> Moved:
    import jax
    import numpy as np

    from jaxcluster import sinkhorn

    if x.x.shape[1] != y.x.shape[1]:
        raise UserError(
            f"{x.name} has {x.x.shape[1]} columns and {y.name} {y.x.shape[1]}: a cost needs as many in both."
        )
    rest = {name: value for name, value in options.items() if name != "rho"}
    rho = options["rho"]
    solved = sinkhorn.solve(x.x, y.x, rho_a=rho, rho_b=rho, **rest)
    plan = None
    if len(x.x) * len(y.x) <= MOST_ENTRIES:
        plan = np.asarray(sinkhorn.plan(solved, x.x, y.x, cost=options["cost"]))
    apart = float(sinkhorn.divergence(x.x, y.x, rho=rho, **rest)) if divergence else None
    return Moved(x, y, jax.device_get(solved), plan, apart)


def _numbers(moved: Moved) -> dict[str, Any]:
    """The costs and how it ended, as JSON has them."""
    from jaxcluster.types import Status

    found = moved.transport
    costs = {name: float(getattr(found, name)) for name in ("transport_cost", "regularized_cost", "error")}
    costs |= {} if moved.divergence is None else {"divergence": moved.divergence}
    costs = {name: value if math.isfinite(value) else None for name, value in costs.items()}
    return {**costs, "steps": int(found.steps), "status": Status(int(found.status)).name}


def _write(stage: Stages, folder: Path, moved: Moved, options: dict[str, Any]) -> None:
    import numpy as np

    from jaxcluster.cli import runtime
    from jaxcluster.cli.output_dir import write_config, write_json

    with stage("write", "Writing"):
        np.savez(folder / POTENTIALS, f=moved.transport.f, g=moved.transport.g)
        write_json(folder / RESULT, _numbers(moved))
        if moved.plan is not None:
            np.save(folder / PLAN, moved.plan)
            _draw(folder / "plan.svg", moved)
        config = {"command": runs.command_line(), "parameters": options, "versions": runtime.versions()}
        config |= {"device": runtime.device(), "written": datetime.now(UTC).isoformat(timespec="seconds")}
        write_config(folder, config | {"seconds": dict(stage.seconds)})


def _draw(path: Path, moved: Moved) -> None:
    from matplotlib.figure import Figure

    from jaxcluster import plots
    from jaxcluster.plots.style import sample_indices, subset_note

    rows, columns = sample_indices(len(moved.x.x), DRAWN), sample_indices(len(moved.y.x), DRAWN, seed=1)
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    ax = figure.add_subplot()
    plots.transport_plan(moved.plan[rows][:, columns], moved.x.x[rows], moved.y.x[columns], ax=ax)
    part = subset_note(len(rows) + len(columns), len(moved.x.x) + len(moved.y.x))
    if part:
        ax.set_title(f"Part of the plan{part}", loc="left", fontsize=12, fontweight="bold")
    figure.savefig(path, metadata={"Date": None})


def _show(out: Console, moved: Moved, folder: Path) -> None:
    from jaxcluster.cli.console import complain, say, show_table
    from jaxcluster.types import Status

    numbers = _numbers(moved)
    titles = {
        "transport_cost": "cost of moving",
        "regularized_cost": "the same with entropy",
        "divergence": "Sinkhorn's divergence",
        "error": "sums off by, as a share",
        "steps": "rounds",
    }
    rows = [(title, numbers[name]) for name, title in titles.items() if name in numbers]
    title = f"{len(moved.x.x):,} rows of {moved.x.name} onto {len(moved.y.x):,} of {moved.y.name}"
    show_table(out, title, ("", ""), rows)
    say(out, f"Written to {folder}:", "bold")
    for name, purpose in FILES.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")
    if numbers["status"] == Status.MAX_STEPS.name:
        complain("Warning", "the plan's sums are still off. Raise --max-iter, --tol or --epsilon.", "yellow")
    elif numbers["status"] in (Status.PRECISION.name, Status.NOT_FINITE.name):
        complain("Error", "costs are too large beside --epsilon for the precision of the plan. Raise it.", "red")
        raise typer.Exit(1)

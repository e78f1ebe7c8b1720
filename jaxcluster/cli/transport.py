"""``jaxcluster transport``: entropic optimal transport of one set of rows onto another, by Sinkhorn's iteration."""

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
from jaxcluster.cli.inputs import LAYOUT

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from jaxcluster.cli.console import Stages
    from jaxcluster.datasets import Dataset
    from jaxcluster.types import Absent

RESULT, POTENTIALS, PLAN, CONFIG = "transport.json", "potentials.npz", "plan.npy", "config.json"

FILES = {
    RESULT: "the costs, and how the iteration ended",
    POTENTIALS: "dual potentials of the rows of X (f) and of Y (g), which determine the plan",
    PLAN: "the mass that goes from each row of X to each of Y",
    "plan.svg": "a picture of it",
    CONFIG: "all that is needed to run this again",
}
"""Files in the folder of a transport, and their purpose."""

MAX_PLAN_ENTRIES = 4_000_000
"""Entries of the largest plan that is written out: 16 MB in float32."""

FIGURE_ROWS = 400
"""Rows of either side in the figure, a random sample if there are more."""


class Cost(StrEnum):
    """Cost of moving a row, one of `jaxcluster.ops.distance.METRICS`."""

    sqeuclidean = "sqeuclidean"
    euclidean = "euclidean"
    manhattan = "manhattan"
    cosine = "cosine"


class TransportResult(NamedTuple):
    """A finished transport.

    Attributes:
        x, y: the two sets of rows.
        solution: of `jaxcluster.sinkhorn.solve`, as NumPy arrays.
        plan: (n_x, n_y), None where it is too large.
        divergence: Sinkhorn's divergence, None unless it was asked for.
    """

    x: Dataset
    y: Dataset
    solution: Any
    plan: np.ndarray | Absent
    divergence: float | None


@opt.gather("layout", dict, LAYOUT)
def transport(
    x: Annotated[str, typer.Argument(metavar="X", show_default=False, help="The rows to move: as DATA of fit.")],
    y: Annotated[
        str, typer.Argument(metavar="Y", show_default=False, help="The rows to move them onto, with as many columns.")
    ],
    *,
    epsilon: Annotated[
        float,
        typer.Option(
            metavar="E",
            show_default=False,
            help="Entropic regularization, in units of the cost; a hundredth of the mean cost gives a sharp plan.",
        ),
    ],
    out: opt.Out,
    cost: Annotated[Cost, typer.Option(help="Cost of moving a row.")] = Cost.sqeuclidean,
    rho: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            show_default=False,
            help="Unbalanced transport: the price of mass that appears or vanishes, in units of the cost.",
        ),
    ] = None,
    divergence: Annotated[
        bool, typer.Option("--divergence", help="Sinkhorn's divergence too: 0 between equal sets, whatever E.")
    ] = False,
    max_iter: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of iterations.")] = 5000,
    tol: Annotated[
        float, typer.Option(metavar="T", min=0, help="Marginal error to stop at, as a fraction of the mass.")
    ] = 1e-3,
    layout: dict[str, Any],
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
) -> None:
    """Move one set of rows onto another at the least cost, by Sinkhorn's iteration; write costs, potentials and plan.

    For example:

      jaxcluster transport moons:n=300 circles:n=300 --epsilon 0.05 --out runs/moved
    """
    from jaxcluster.cli import console
    from jaxcluster.cli.output_dir import check_folder, claimed_folder, files_of
    from jaxcluster.cli.runtime import start

    check_folder(out, overwrite=overwrite, inputs=files_of(x, y))
    start()
    options = {"cost": cost.value, "epsilon": epsilon, "rho": rho, "tol": tol, "max_steps": max_iter}
    with claimed_folder(out, overwrite=overwrite) as claim, console.stages(quiet) as stage:
        with stage("read", f"Reading {x} and {y}"), user_errors():
            both = _read(x, layout), _read(y, layout)
        for each in both:
            stage.note(each.notes)
        with stage("fit", f"Moving {len(both[0].x):,} rows onto {len(both[1].x):,}"), user_errors():
            result = _move(*both, options, divergence=divergence)
        with claim.folder() as folder, user_errors():
            _write(stage, folder, result, {"x": x, "y": y, **options})
    _show(console.stdout(quiet), result, out)


def _read(name: str, layout: dict[str, Any]) -> Dataset:
    """The rows of a file; the layout is for text tables alone."""
    from jaxcluster.core.validation import check_finite
    from jaxcluster.datasets.loading import is_text_table, load

    dataset = load(name, **(layout if is_text_table(name) else {}))
    check_finite(dataset.x, name=dataset.name, columns=dataset.columns)
    return dataset


def _move(x: Dataset, y: Dataset, options: dict[str, Any], *, divergence: bool) -> TransportResult:
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
    # The solution holds potentials alone, O(n_x + n_y); the plan has n_x · n_y entries.
    plan = None
    if len(x.x) * len(y.x) <= MAX_PLAN_ENTRIES:
        plan = np.asarray(sinkhorn.plan(solved, x.x, y.x, cost=options["cost"]))
    apart = float(sinkhorn.divergence(x.x, y.x, rho=rho, **rest)) if divergence else None
    return TransportResult(x, y, jax.device_get(solved), plan, apart)


def _numbers(result: TransportResult) -> dict[str, Any]:
    """Costs, steps and status, as JSON has them."""
    from jaxcluster.types import Status

    solution = result.solution
    costs = {name: float(getattr(solution, name)) for name in ("transport_cost", "regularized_cost", "error")}
    costs |= {} if result.divergence is None else {"divergence": result.divergence}
    costs = {name: value if math.isfinite(value) else None for name, value in costs.items()}
    return {**costs, "steps": int(solution.steps), "status": Status(int(solution.status)).name}


def _write(stage: Stages, folder: Path, result: TransportResult, options: dict[str, Any]) -> None:
    import numpy as np

    from jaxcluster.cli import runtime
    from jaxcluster.cli.output_dir import write_config, write_json

    with stage("write", "Writing"):
        np.savez(folder / POTENTIALS, f=result.solution.f, g=result.solution.g)
        write_json(folder / RESULT, _numbers(result))
        if result.plan is not None:
            np.save(folder / PLAN, result.plan)
            _draw(folder / "plan.svg", result)
        parameters = {name: runs.as_json(value) for name, value in options.items()}
        config = {"command": runs.command_line(), "parameters": parameters, "versions": runtime.versions()}
        config |= {"device": runtime.device(), "written": datetime.now(UTC).isoformat(timespec="seconds")}
        write_config(folder, config | {"seconds": dict(stage.seconds)})


def _draw(path: Path, result: TransportResult) -> None:
    from matplotlib.figure import Figure

    from jaxcluster import plots
    from jaxcluster.plots.style import sample_indices, subset_note

    rows, columns = sample_indices(len(result.x.x), FIGURE_ROWS), sample_indices(len(result.y.x), FIGURE_ROWS, seed=1)
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    ax = figure.add_subplot()
    plots.transport_plan(result.plan[rows][:, columns], result.x.x[rows], result.y.x[columns], ax=ax)
    part = subset_note(len(rows) + len(columns), len(result.x.x) + len(result.y.x))
    if part:
        ax.set_title(f"Part of the plan{part}", loc="left", fontsize=12, fontweight="bold")
    figure.savefig(path, metadata={"Date": None})


def _show(out: Console, result: TransportResult, folder: Path) -> None:
    from jaxcluster.cli.console import complain, say, show_table
    from jaxcluster.types import Status

    numbers = _numbers(result)
    titles = {
        "transport_cost": "transport cost",
        "regularized_cost": "regularized cost",
        "divergence": "Sinkhorn's divergence",
        "error": "marginal error, as a fraction",
        "steps": "iterations",
    }
    rows = [(title, numbers[name]) for name, title in titles.items() if name in numbers]
    title = f"{len(result.x.x):,} rows of {result.x.name} onto {len(result.y.x):,} of {result.y.name}"
    show_table(out, title, ("", ""), rows)
    say(out, f"Written to {folder}:", "bold")
    for name, purpose in FILES.items():
        if (folder / name).exists():
            say(out, f"  {name:15}{purpose}")
    if numbers["status"] == Status.MAX_STEPS.name:
        complain(
            "Warning", "the marginal error of the plan is above --tol. Raise --max-iter, --tol or --epsilon.", "yellow"
        )
    elif numbers["status"] in (Status.PRECISION.name, Status.NOT_FINITE.name):
        complain("Error", "costs are too large beside --epsilon for the precision of the plan. Raise it.", "red")
        raise typer.Exit(1)

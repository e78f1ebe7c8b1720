"""``jaxcluster plan``: operations, memory, bytes between devices and seconds of a fit, before it runs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from jaxcluster.cli import runtime
from jaxcluster.cli.errors import user_errors


class Method(StrEnum):
    """Methods that can be planned; `jaxcluster.planning.METHODS`."""

    kmeans = "kmeans"
    gmm_full = "gmm-full"
    gmm_tied = "gmm-tied"
    gmm_diag = "gmm-diag"
    gmm_spherical = "gmm-spherical"
    silhouette = "silhouette"


class Chip(StrEnum):
    """Accelerators; `jaxcluster.core.machine.CHIPS`."""

    v5e = "v5e"
    v5p = "v5p"
    v6e = "v6e"
    a100 = "a100"
    h100 = "h100"
    h200 = "h200"


class Start(StrEnum):
    """Initializations; `jaxcluster.planning.INITS`."""

    plus_plus = "k-means++"
    parallel = "k-means||"
    random = "random"


def plan(
    method: Annotated[Method, typer.Argument(show_default=False, help="Method to plan.")],
    *,
    n: Annotated[int, typer.Option(metavar="N", min=1, show_default=False, help="Number of rows.")],
    d: Annotated[int, typer.Option(metavar="D", min=1, show_default=False, help="Number of columns.")],
    k: Annotated[int, typer.Option(metavar="K", min=1, help="Number of clusters.")] = 1,
    devices: Annotated[int, typer.Option(metavar="N", min=1, help="Devices that the rows are spread over.")] = 1,
    chip: Annotated[
        Chip | None, typer.Option(show_default=False, help="An accelerator; without it this machine is measured.")
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of steps.")] = 100,
    init: Annotated[Start, typer.Option(help="Initialization.")] = Start.plus_plus,
    fast: Annotated[bool, typer.Option("--fast", help="Products in the fastest precision of the device.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict the operations, memory, bytes and seconds of a fit, before it runs.

    Rates of accelerators are the peaks that their makers publish: a run takes longer. For example:

      jaxcluster plan kmeans --n 1000000000 --d 128 --k 32768 --devices 64 --chip h100 --init "k-means||"
    """
    from jaxcluster import planning
    from jaxcluster.cli import console

    if chip is None:
        runtime.start()
    options = {"devices": devices, "steps": steps, "init": init.value, "precision": "fast" if fast else None}
    with user_errors():
        planned = planning.plan(method.value, n, d, k, chip=None if chip is None else chip.value, **options)
    if as_json:
        typer.echo(json.dumps(planned._asdict() | {"rates": planned.rates._asdict(), "fits": planned.fits}))
        return
    title = f"{method.value} of {n:,} rows × {d:,} columns" + (f", k = {k:,}" if method != Method.silhouette else "")
    console.show_table(console.stdout(), title, ("", ""), planning.as_rows(planned), text=(0, 1))

"""``jaxcluster launch``: a command as several processes of one job on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jaxcluster.cli.errors import UserError


def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND", show_default=False, help="A command, without jaxcluster.")
    ],
    processes: Annotated[
        int, typer.Option("--processes", "-p", metavar="N", min=1, help="Number of processes, on the CPU.")
    ] = 2,
) -> None:
    """Run a fit as several processes, each with its part of the rows.

    One of them prints and writes. Where one ends with an error or is killed, the job ends. On many machines let Slurm,
    Open MPI or Kubernetes start the command, with --distributed.

    For example:

      jaxcluster launch --processes 2 -- fit kmeans rows.npy --k 10 --out runs/rows
    """
    from jaxcluster import distributed

    if command[0] != "fit":
        raise UserError(f"launch runs fit, and not {command[0]}.")
    try:
        distributed.launch([sys.executable, "-m", "jaxcluster", *command], processes)
    except distributed.LaunchError as error:
        raise UserError(str(error)) from error

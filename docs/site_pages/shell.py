"""Run the commands of the pages of methods, each as it is shown, on the data that it names.

Two things are made small: methods that train a network get some rows of noise and one epoch, and their reports are left
out. Files that a command names are written from the rows of the method's script.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jaxcluster.estimators import CLASSES
from jaxcluster.estimators.registry import ESTIMATORS
from site_pages.methods import code
from site_pages.scripts import scripts

FILES = {"rows.csv": "X", "must.csv": "must", "cannot.csv": "cannot", "answers.csv": "X", "table.csv": "table"}
"""Files that commands name, and the names of their rows in the first cell of the script."""

FEW = "blobs:n=200,d=64,k=10"
"""Rows in place of the digits, for networks; 64 columns are an image of 8 × 8 too."""

ONE_EPOCH = {"epochs": "--epochs 1", "pretrain_epochs": "--pretrain-epochs 1"}
"""Options of one epoch, by the parameter that a method has."""


def commands() -> dict[str, tuple[str, str]]:
    """The command of each method's page, and the first cell of its script, by the name of the method."""
    own = {script.path.stem: script for script in scripts() if script.folder == "methods"}
    found = {}
    for name in CLASSES:
        shown = re.search(r"^```sh\n(.*?)^```$", code(ESTIMATORS.info(name), own.get(name)), re.DOTALL | re.MULTILINE)
        if shown:
            found[name] = shown[1], own[name].cells().get("Estimator", "") if name in own else ""
    return found


def small(name: str, command: str) -> str:
    """The command as it is run: of a method that trains a network, on a few rows for one epoch."""
    known = ESTIMATORS[name]().get_params()
    if not known.keys() & ONE_EPOCH.keys():
        return command
    command = command.strip().replace(" digits ", f" {FEW} ")
    for parameter, option in ONE_EPOCH.items():
        if parameter in known:
            command = re.sub(rf" {option[:-2]} \d+", "", command) + f" {option}"
    return command + " --no-report\n"


def write_files(command: str, cell: str) -> None:
    """Write the files that a command names into the working directory, from what the cell of a script makes."""
    named = [file for file in FILES if f" {file}" in command]
    if not named:
        return
    import pandas as pd

    made: dict = {}
    exec(compile(cell, "cell", "exec"), made)
    for file in named:
        rows = made[FILES[file]]
        if not isinstance(rows, pd.DataFrame):
            rows = np.asarray(rows)
            rows = pd.DataFrame(rows, columns=[f"column {at}" for at in range(rows.shape[1])])
        rows.to_csv(Path(file), index=False)

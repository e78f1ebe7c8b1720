"""Helpers of the tests of the command line, which call it in this process, and without touching JAX's configuration."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from jaxcluster.cli import app

N, D, K = 120, 4, 3
UNITS = np.array([1, 1000, 0.01, 1], np.float32)
"""The columns have such different units that a fit without scaling sees the second alone."""

NAMES = ("width", "weight", "depth", "height")


def call(*words: object, code: int = 0) -> Result:
    """Runs ``jaxcluster`` with these words; it must exit with ``code``."""
    with pytest.MonkeyPatch.context() as patch:
        # The compilation cache is set up here, and would stay on for all tests that this process still runs.
        patch.setattr("jaxcluster.cli.runtime.start", lambda: None)
        result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refuse(*words: object) -> str:
    """Runs ``jaxcluster`` on a mistake: exit code 2, nothing on stdout, and one line on stderr, which is returned."""
    result = call(*words, code=2)
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .+\n", result.stderr), result.stderr
    return result.stderr


def rows_and_species(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples around K centers, with features in different units.

    Returns:
        The samples, (N, D), and the name of the species of each, (N,).
    """
    rng = np.random.default_rng(seed)
    species = rng.permutation(np.arange(N) % K)
    centers = np.array([[0, 0, 0, 0], [8, 0.5, 8, 0], [0, 0.5, 8, 8]])
    rows = (centers[species] + rng.normal(size=(N, D))) * UNITS
    return rows.astype(np.float32), np.array(["lily", "rose", "tulip"])[species]


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> Path:
    """A table of named columns."""
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_labels(path: Path) -> np.ndarray:
    """The labels of a file that ``jaxcluster`` wrote; its rows are numbered from 0."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(len(rows)))
    return np.array([int(row["label"]) for row in rows])


def assert_same_labels(path: Path | str, other: Path | str) -> None:
    """Two files of labels agree, whatever stands beside the labels."""
    np.testing.assert_array_equal(read_labels(Path(path)), read_labels(Path(other)))


def write_flowers(folder: Path) -> Path:
    """A table of numbers in different units, and a column of text that holds the truth."""
    x, species = rows_and_species()
    return write_csv(folder / "flowers.csv", {**dict(zip(NAMES, x.T, strict=True)), "species": species})


def standardized_rows() -> np.ndarray:
    """The rows of that table, standardized in float64."""
    x = rows_and_species()[0].astype(np.float64)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def read_json(path: Path) -> dict:
    """A file of JSON."""
    return json.loads(path.read_text())

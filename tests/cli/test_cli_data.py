"""Command line on files that nobody looked at: long numbers, odd layouts, missing cells, any unit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import assert_same_labels, call, refuse

import jaxcluster
from jaxcluster.cli import summary
from jaxcluster.cli.errors import as_options
from jaxcluster.types import Status

HALVES = np.arange(40) >= 20
QUICK = ("--quiet", "--no-report", "--overwrite")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels_of(out: str) -> np.ndarray:
    with Path(out, "labels.csv").open() as file:
        return np.array([int(row["label"]) for row in csv.DictReader(file)])


def assert_halves(labels: np.ndarray) -> None:
    assert labels[0] != labels[-1]
    np.testing.assert_array_equal(labels == labels[-1], HALVES)


# Long numbers ---------------------------------------------------------------------------------------------------


def long_rows(start: int, step: float) -> list[str]:
    return [f"{start + (i >= 20) * 60 + i % 3},{(i % 2) * step:g}" for i in range(40)]


@pytest.mark.parametrize("start", [1_700_000_000, 10**12, 10**18], ids=["seconds", "millions", "ids"])
@pytest.mark.parametrize("step", [0.1, 1], ids=["fraction", "integer"])
def test_digits_of_long_numbers_count(start, step):
    Path("rows.csv").write_text("\n".join(long_rows(start, step)))
    call("fit", "kmeans", "rows.csv", "--k", 2, "--out", "run", *QUICK)
    assert_halves(labels_of("run"))
    call("predict", "run", "rows.csv", "--out", "predicted.csv", "--quiet")
    assert_same_labels("predicted.csv", "run/labels.csv")
    inertia = json.loads(Path("run", "metrics.json").read_text())["internal"]["inertia"]
    small = np.array([[float(cell) for cell in line.split(",")] for line in long_rows(0, step)])
    expected = sum(np.square(small[half] - small[half].mean(0)).sum() for half in (HALVES, ~HALVES))
    assert inertia == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "longdouble"])
def test_digits_of_long_numbers_count_in_arrays(dtype):
    start = 10**9 if dtype == "float64" else 10**18
    small = np.array([[float(cell) for cell in line.split(",")] for line in long_rows(0, 1)])
    rows = np.array(small, dtype) + np.array(start, dtype)
    np.save("rows.npy", rows)
    np.savez("rows.npz", rows=rows)
    for name in ("rows.npy", "rows.npz"):
        call("fit", "kmeans", name, "--k", 2, "--out", "run", *QUICK)
        assert_halves(labels_of("run"))
    call("sweep", "rows.npy", "--k", "2,3", "--seeds", 2, "--out", "swept", *QUICK)
    inertia = json.loads(Path("swept", "sweep.json").read_text())["scores"][0]["inertia"]
    assert inertia == pytest.approx(
        sum(np.square(small[half] - small[half].mean(0)).sum() for half in (HALVES, ~HALVES)), rel=1e-5
    )


@pytest.mark.parametrize("how", ["standard", "minmax"])
def test_scaling_is_of_all_digits(how):
    rows = np.array([[float(cell) for cell in line.split(",")] for line in long_rows(1_700_000_000, 0.1)])
    rows[:, 1] = HALVES
    np.save("rows.npy", rows)
    call("fit", "kmeans", "rows.npy", "--k", 2, "--scale", how, "--out", "run", *QUICK)
    assert_halves(labels_of("run"))
    model, scaling = jaxcluster.load("run/model"), json.loads(Path("run", "config.json").read_text())["scaling"]
    centers = model.cluster_centers_ * scaling["factor"] + scaling["shift"]
    expected = [rows[labels_of("run") == j].mean(0) for j in (0, 1)]
    np.testing.assert_allclose(centers[:, 0] - 1.7e9, np.array(expected)[:, 0] - 1.7e9, atol=1e-4)


def test_long_numbers_are_said_to_be_moved():
    Path("rows.csv").write_text("\n".join(long_rows(10**18, 0.1)))
    result = call("fit", "kmeans", "rows.csv", "--k", 2, "--out", "run", "--no-report")
    assert "Note: integers beyond 2^53 are clustered as differences to those of one row" in result.stderr
    notes = json.loads(Path("run", "config.json").read_text())["data"]["notes"]
    assert any("2^53" in note for note in notes)


@pytest.mark.parametrize("unit", [1e-30, 1e25, 1e30])
def test_the_unit_of_the_rows_does_not_matter(unit):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3)) + 8 * (np.arange(60) % 2)[:, None]
    np.save("rows.npy", (rows * unit).astype(np.float32))
    report = () if unit == 1e30 else ("--no-report",)
    out = call("fit", "kmeans", "rows.npy", "--k", 2, "--out", "run", "--overwrite", *report)
    assert out.stderr == ""
    labels = labels_of("run")
    np.testing.assert_array_equal(labels == labels[0], np.arange(60) % 2 == 0)
    assert "0.0000   0 up" not in out.stdout.split("Davies")[0]


# Layouts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> np.ndarray:
    """(30, 3) rows, written to files with headers of numbers, an index, and in other ways."""
    rows = np.random.default_rng(0).normal(size=(30, 3)).round(3) + 9 * (np.arange(30) % 2)[:, None]
    frame = pd.DataFrame(rows, columns=["2019", "2020", "2021"])
    frame.to_csv("years.csv", index=False)
    frame.to_csv("index.csv")
    frame.rename(columns={"2019": "größe"}).to_csv("german.csv", sep=";", decimal=",", encoding="latin-1", index=False)
    np.savetxt("plain.csv", rows, fmt="%.3f", delimiter=",")
    return rows


def test_decisions_are_told_with_their_override(table):
    result = call("fit", "kmeans", "index.csv", "--k", 2, "--out", "run", "--no-report")
    first, second = result.stderr.splitlines()
    assert first.startswith("Note: the first line (2019, 2020, 2021) is taken for the names of columns; pass --no-head")
    assert second.startswith("Note: the first column (number 0, without a name) numbers the rows (0, …, 29)")
    assert "--columns" in second
    config = json.loads(Path("run", "config.json").read_text())["data"]
    assert (config["rows"], config["column_names"], len(config["notes"])) == (30, ["2019", "2020", "2021"], 2)
    assert call("fit", "kmeans", "index.csv", "--k", 2, "--out", "run", *QUICK).stderr == ""
    call("predict", "run", "index.csv", "--out", "predicted.csv", "--quiet")
    assert_same_labels("predicted.csv", "run/labels.csv")


def test_the_layout_can_be_told_to_every_command(table):
    call("fit", "kmeans", "plain.csv", "--k", 2, "--out", "run", *QUICK)
    expected = labels_of("run")
    layout = ("--header", "--delimiter", "semicolon", "--decimal", ",", "--encoding", "latin-1")
    call("fit", "kmeans", "german.csv", "--k", 2, "--out", "run", *layout, *QUICK)
    np.testing.assert_array_equal(labels_of("run"), expected)
    for words in (layout, ()):  # the second time the layout is the run's
        call("predict", "run", "german.csv", *words, "--out", "predicted.csv", "--overwrite", "--quiet")
        assert_same_labels("predicted.csv", "run/labels.csv")
    call("sweep", "german.csv", "--k", 2, "--seeds", 1, "--out", "swept", *layout, *QUICK)
    assert json.loads(Path("swept", "config.json").read_text())["data"]["rows"] == 30
    transport = call("transport", "german.csv", "plain.csv", "--epsilon", 1, "--out", "moved", "--max-iter", 50)
    assert "(größe, 2020, 2021)" not in transport.stderr
    assert "30 rows of german.csv onto 30 of plain.csv" in transport.stdout

    call("fit", "kmeans", "years.csv", "--k", 2, "--out", "run", "--no-header", *QUICK)
    assert len(labels_of("run")) == 31
    np.savetxt("truth.csv", 2019 + np.arange(31) % 2, fmt="%d")
    assert "31 rows" in call("score", "run/labels.csv", "truth.csv", "--no-header").stdout
    assert "31 labels and truth.csv 30" in refuse("score", "run/labels.csv", "truth.csv", "--header")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("years.csv", "--delimiter", "ab"), "delimiter 'ab' cannot separate fields"),
        (("years.csv", "--decimal", ";"), "decimal mark ';' is not known"),
        (("years.csv", "--encoding", "utf9"), "encoding 'utf9' is not known"),
        (("iris", "--no-header"), r"iris is no text table.*\(--header\)"),
    ],
)
def test_layouts_that_make_no_sense(table, words, message):
    import re

    assert re.search(message, refuse("fit", "kmeans", *words, "--k", 2, "--out", "run"))


def test_weights_are_found_by_name_and_by_place(table):
    weights = np.r_[np.ones(29), 500]
    frame = pd.DataFrame(np.column_stack([table, weights]), columns=["a", "b", "c", "w"])
    frame.to_csv("weighted.csv")
    expected = jaxcluster.KMeans(2, n_init=10, random_state=0).fit(table, sample_weight=weights)
    for words in (("--weights", "w"), ("--weights", 4), ("--weights", -1, "--columns", "a,b,c")):
        call("fit", "kmeans", "weighted.csv", "--k", 2, *words, "--out", "run", *QUICK)
        np.testing.assert_allclose(jaxcluster.load("run/model").cluster_centers_, expected.cluster_centers_, rtol=1e-6)
    shown = call("fit", "kmeans", "weighted.csv", "--k", 2, "--weights", "w", "--out", "run", *QUICK[1:]).stdout
    assert "Weights count in the fit and its objective; other scores count each row once." in shown
    assert "is both left out and chosen" in refuse(
        "fit", "kmeans", "weighted.csv", "--k", 2, "--weights", "w", "--columns", "a,w", "--out", "new"
    )


def test_pairs_of_rows_may_begin_with_zero_and_one(table):
    Path("pairs.csv").write_text("0,1\n20,21\n22,23\n")
    call(*("fit", "constrained-kmeans", "plain.csv", "--k", 2, "--must-link", "pairs.csv", "--out", "run"), *QUICK)
    labels = labels_of("run")
    for a, b in ((0, 1), (20, 21), (22, 23)):
        assert labels[a] == labels[b]


def test_predict_finds_columns_of_one_name(table):
    Path("twice.csv").write_text("a,a,b\n" + "".join(f"{','.join(map(str, row))}\n" for row in table))
    call("fit", "kmeans", "twice.csv", "--k", 2, "--out", "run", *QUICK)
    Path("other.csv").write_text("b,a,a\n" + "".join(f"{row[2]},{row[0]},{row[1]}\n" for row in table))
    for name in ("twice.csv", "other.csv"):
        call("predict", "run", name, "--out", "predicted.csv", "--overwrite", "--quiet")
        assert_same_labels("predicted.csv", "run/labels.csv")


# Missing cells --------------------------------------------------------------------------------------------------


def test_a_saved_model_finds_its_columns_by_name():
    frame = pd.DataFrame({"a": HALVES * 9.0 + np.arange(40) % 3, "b": np.arange(40) % 2 * 0.1})
    frame[["b", "a"]].assign(c=1).to_csv("turned.csv", index=False)
    jaxcluster.KMeans(2, random_state=0).fit(frame).save("named")
    call("predict", "named", "turned.csv", "--out", "labels.csv", "--quiet")
    assert_halves(pd.read_csv("labels.csv").label.to_numpy())
    jaxcluster.KMeans(2, random_state=0).fit(frame.to_numpy()).save("nameless")
    frame.to_csv("names.csv", index=False)
    assert "are taken in their order: 'a', 'b'" in call("predict", "nameless", "names.csv").stderr


def test_a_mixture_takes_missing_cells(table):
    table[np.random.default_rng(1).random(table.shape) < 0.1] = np.nan
    table[3, 2] = np.nan
    pd.DataFrame(table, columns=["a", "b", "c"]).to_csv("holes.csv", index=False)
    message = refuse("fit", "gmm", "holes.csv", "--k", 2, "--out", "run")
    assert "NaN values in columns 'a', 'b', 'c'" in message
    assert "or pass --missing" in message
    assert "or pass --missing ignore" in refuse("fit", "kmeans", "holes.csv", "--k", 2, "--out", "run")
    assert "--missing" not in refuse("fit", "dbscan", "holes.csv", "--eps", 2, "--out", "run")
    assert "gmm and kmeans take rows with missing cells" in refuse(
        "fit", "dbscan", "holes.csv", "--eps", 2, "--missing", "--out", "run"
    )

    words = ("fit", "gmm", "holes.csv", "--k", 2, "--missing", "--scale", "standard", "--covariance", "diag")
    result = call(*words, "--out", "run")
    labels = labels_of("run")
    np.testing.assert_array_equal(labels == labels[0], np.arange(30) % 2 == 0)
    assert "scores by distance are left out" in result.stdout
    assert "Missing cells are drawn at the mean of their column." in Path("run", "report.html").read_text()
    scores = json.loads(Path("run", "metrics.json").read_text())["internal"]
    assert scores["silhouette"] is None
    assert np.isfinite(scores["bic"])
    call("predict", "run", "holes.csv", "--out", "predicted.csv", "--quiet")
    assert_same_labels("predicted.csv", "run/labels.csv")

    sweep = ("sweep", "holes.csv", "--k", "1,2", "--seeds", 1, "--covariance", "diag", "--out", "swept", *QUICK)
    assert "or pass --missing" in refuse(*sweep, "--algo", "gmm")
    assert "--missing means nothing to kmeans" in refuse(*sweep[:6], "--missing", "--out", "swept")
    call(*sweep, "--algo", "gmm", "--missing")
    assert json.loads(Path("swept", "sweep.json").read_text())["choices"]["bic"]["k"] == 2


# What is said ---------------------------------------------------------------------------------------------------


def test_an_objective_is_called_by_its_metric(table):
    np.save("rows.npy", table[:, :2])  # two columns are drawn without t-SNE
    for words, title in (
        (("kmedoids", "--metric", "manhattan"), "Sum of distances"),
        (("kmeans", "--metric", "cosine"), "Sum of cosine distances"),
        (("kmeans",), "Inertia"),
    ):
        result = call("fit", words[0], "rows.npy", "--k", 2, *words[1:], "--out", "run", "--overwrite")
        assert title in result.stdout
        page = Path("run", "report.html").read_text()
        assert title in page
        assert ("squared" in page) == (title == "Inertia")
        assert ("Inertia" in page) == (title == "Inertia")
        assert "inertia" in json.loads(Path("run", "metrics.json").read_text())["internal"]
    shown = call("sweep", "rows.npy", "--k", "2,3", "--seeds", 1, "--metric", "cosine", "--out", "swept").stdout
    assert "Sum of cosine distances" in shown
    assert "nertia" not in shown


def test_noise_alone_is_not_called_converged(table):
    np.save("rows.npy", table[:, :2])
    result = call("fit", "dbscan", "rows.npy", "--eps", 1e-9, "--out", "run")
    assert "converged" not in result.stdout
    page = Path("run", "report.html").read_text()
    assert "converged" not in page
    assert "all noise" in page
    assert "Every row is noise" in page
    assert "all of them noise" in page
    call("fit", "dbscan", "rows.npy", "--eps", 3, "--out", "run", "--overwrite")
    assert "converged" not in Path("run", "report.html").read_text()  # for nothing iterates


class Ended:
    """An estimator of which nothing is known but how it ended."""

    def __init__(self, status: Status, **parameters):
        self.status_, self.parameters = status, {"tol": 1e-4, **parameters}
        self.tol = self.parameters["tol"]

    def get_params(self, deep: bool = True) -> dict:
        return self.parameters


@pytest.mark.parametrize("status", Status)
def test_every_ending_but_convergence_is_a_warning(status, capsys):
    from jaxcluster.report.context import SHELL

    summary.warn_of_ending(Ended(status), warned=False)
    stderr = capsys.readouterr().err
    assert stderr == ("" if status == Status.CONVERGED else f"Warning: {SHELL[status]}\n")
    summary.warn_of_ending(Ended(status), warned=True)
    assert bool(capsys.readouterr().err) == (status == Status.MAX_STEPS)  # it alone is not said by estimators
    assert "=" not in stderr.replace("JAX_ENABLE_X64=1", "")


def test_empty_clusters_and_repeated_rows(capsys):
    from jaxcluster.cli.inputs import Rows
    from jaxcluster.cli.sweep_results import warn_of_status

    x = np.repeat(np.eye(3), 4, axis=0)
    empty = np.full((2, 1), Status.EMPTY_CLUSTERS)
    warn_of_status(empty, ["3", "4"], [3, 4], Rows(None, x, None, None), before=" for k = ")
    stderr = capsys.readouterr().err.splitlines()
    assert stderr[0] == "Warning: there are fewer distinct rows than clusters for k = 4."
    assert stderr[1].startswith("Warning: some starts left clusters empty for k = 3, though there are enough")
    weights = np.repeat([1.0, 1, 0], 4)
    warn_of_status(empty, ["3", "4"], [3, 4], Rows(None, x, None, weights), before=" for k = ")
    assert capsys.readouterr().err == "Warning: there are fewer distinct rows than clusters for k = 3, 4.\n"


def test_words_of_the_library_become_options():
    text = as_options("Pass header=False, delimiter=';' or missing=True (columns=), not n_init=2.")
    assert text == "Pass --no-header, --delimiter ';' or --missing (--columns), not n_init=2."
    assert as_options("with jax.config.update('jax_enable_x64', True).") == "with JAX_ENABLE_X64=1 before the command."

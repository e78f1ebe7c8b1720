"""Command line: the files of a run, its predictions and scores, against the library itself."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from command_line import (
    NAMES,
    D,
    K,
    N,
    assert_same_labels,
    call,
    read_json,
    read_labels,
    rows_and_species,
    standardized_rows,
    write_csv,
    write_flowers,
)
from sklearn import metrics as oracle

import jaxcluster
from jaxcluster import metrics
from jaxcluster.estimators import ESTIMATORS

ROOT = Path(__file__).parents[2]
FILES = {"config.json", "history.jsonl", "labels.csv", "metrics.json", "model", "report.html"}


@pytest.fixture(scope="session")
def flowers(tmp_path_factory) -> Path:
    return write_flowers(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def words(flowers) -> tuple:
    """The run that these tests look at, but for where it is written to."""
    return ("fit", "kmeans", flowers, "--k", K, "--truth", "species", "--scale", "standard", "--seed", 3, "--n-init", 2)


@pytest.fixture(scope="session")
def finished(words, tmp_path_factory):
    """The folder of a finished run, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "new" / "flowers"
    return out, call(*words, "--out", out)


@pytest.fixture(scope="session")
def run(finished) -> Path:
    return finished[0]


@pytest.fixture(scope="session")
def scaled() -> np.ndarray:
    return standardized_rows()


@pytest.fixture(scope="session")
def estimator(scaled) -> jaxcluster.KMeans:
    """The estimator that the run should have fitted."""
    return jaxcluster.KMeans(K, n_init=2, random_state=3).fit(scaled)


def test_a_run_leaves_all_its_files_and_nothing_else(run):
    assert {entry.name for entry in run.iterdir()} == FILES
    assert [entry.name for entry in run.parent.iterdir()] == [run.name]
    assert [entry.name for entry in run.parent.parent.iterdir()] == ["new"]


def test_the_labels_are_the_estimators(run, estimator):
    np.testing.assert_array_equal(read_labels(run / "labels.csv"), estimator.labels_)


def test_loaded_model_takes_rows_in_their_units(run, estimator):
    model = jaxcluster.load(run / "model")
    np.testing.assert_allclose(model.cluster_centers_, estimator.cluster_centers_, atol=1e-5)
    rows = pandas.DataFrame(rows_and_species()[0], columns=NAMES)
    np.testing.assert_array_equal(model.predict(rows), estimator.labels_)


def test_the_scores_are_those_of_the_metrics(run, estimator, scaled):
    species = rows_and_species()[1]
    scores, labels = read_json(run / "metrics.json"), estimator.labels_
    assert scores["silhouette_rows"] == N
    assert scores["internal"] == pytest.approx(
        {
            "inertia": estimator.inertia_,
            "silhouette": oracle.silhouette_score(scaled, labels),
            "davies_bouldin": oracle.davies_bouldin_score(scaled, labels),
            "calinski_harabasz": oracle.calinski_harabasz_score(scaled, labels),
        },
        rel=1e-4,
    )
    assert scores["external"] == {
        "accuracy": metrics.clustering_accuracy(species, labels),
        "adjusted_rand": metrics.adjusted_rand_score(species, labels),
        "adjusted_mutual_info": metrics.adjusted_mutual_info_score(species, labels),
        "normalized_mutual_info": metrics.normalized_mutual_info_score(species, labels),
        "v_measure": metrics.v_measure_score(species, labels),
        "purity": metrics.purity_score(species, labels),
    }


def test_the_history_has_a_line_a_step(run, estimator):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, estimator.n_iter_ + 1))
    np.testing.assert_allclose([line["objective"] for line in lines], estimator.history_, rtol=1e-5)


def test_the_configuration_tells_the_same_data_apart(run, flowers):
    config = read_json(run / "config.json")
    x = np.array([[float(str(cell)) for cell in row] for row in rows_and_species()[0]])  # as they stand in the file
    assert config["algorithm"] == "kmeans"
    assert config["parameters"] == jaxcluster.KMeans(K, n_init=2, random_state=3).get_params()
    assert config["data"]["sha256"] == hashlib.sha256(x.tobytes()).hexdigest()
    assert config["data"]["column_names"] == list(NAMES)
    assert (config["data"]["rows"], config["data"]["width"]) == (N, D)
    np.testing.assert_allclose(config["scaling"]["shift"], x.mean(0), rtol=1e-14)
    assert config["versions"]["jaxcluster"] == jaxcluster.__version__
    assert config["device"]["backend"] == "cpu"


def test_the_recorded_command_gives_the_run_again(run, tmp_path):
    command = shlex.split(read_json(run / "config.json")["command"])
    assert command[0] == "jaxcluster"
    command[command.index(str(run))] = str(tmp_path / "again")
    call(*command[1:], "--no-report")
    for name in ("labels.csv", "metrics.json", "history.jsonl"):
        assert (tmp_path / "again" / name).read_text() == (run / name).read_text()
    assert not (tmp_path / "again" / "report.html").exists()


def test_the_report_is_one_page(run):
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "KMeans on flowers.csv" in page
    assert "--scale standard" in page
    assert "<h2>What the clusters are</h2>" in page
    assert "</html>" in page


def test_output_fits_a_terminal_and_is_plain_elsewhere(finished):
    run, result = finished
    lines = [line for line in result.stdout.splitlines() if str(run) not in line]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    for name in ("Accuracy", "Silhouette", *FILES):
        assert name in result.stdout
    shown = f"{read_json(run / 'metrics.json')['external']['accuracy']:.4f}"
    assert any(line.startswith("Accuracy") and shown in line for line in lines)


def test_predict_takes_columns_and_scaling_of_the_run(run, estimator, tmp_path):
    x, _ = rows_and_species(seed=1)
    shuffled = {name: x[:, NAMES.index(name)] for name in reversed(NAMES)}
    new = write_csv(tmp_path / "new.csv", {"note": np.array(["?"] * N), **shuffled})
    old = rows_and_species()[0].astype(np.float64)
    expected = estimator.predict(((x - old.mean(0)) / old.std(0)).astype(np.float32))
    assert np.mean(expected == estimator.predict(x)) < 0.9  # or else the scaling would not be seen here

    result = call("predict", run, new, "--out", tmp_path / "labels.csv", "--report", tmp_path / "drift.html")
    shown = (tmp_path / "drift.html").read_text()
    assert all(f'<th scope="row">{name}</th>' in shown for name in NAMES)
    assert "far from every center" in shown
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv"), expected)
    for cluster, count in enumerate(np.bincount(expected)):
        assert f"{cluster}{count:7}" in result.stdout

    np.save(tmp_path / "new.npy", x)
    call("predict", run / "model", tmp_path / "new.npy", "--out", tmp_path / "labels.npy", "--quiet")
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), expected)


def test_predict_takes_a_model_without_a_run(estimator, scaled, tmp_path):
    estimator.save(tmp_path / "saved")
    np.save(tmp_path / "x.npy", scaled)
    call("predict", tmp_path / "saved", tmp_path / "x.npy", "--out", tmp_path / "out" / "labels.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), estimator.labels_)


def test_predict_takes_lists_in_a_column_of_parquet(scaled, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"embedding": list(scaled), "note": ["?"] * N, "class": ["a", "b"] * (N // 2)})
    parquet.write_table(table, tmp_path / "x.parquet")
    words = ("--columns", "embedding", "--truth", "class", "--no-report")
    call("fit", "kmeans", tmp_path / "x.parquet", "--k", K, *words, "--out", tmp_path / "run")
    call("predict", tmp_path / "run", tmp_path / "x.parquet", "--out", tmp_path / "labels.csv")
    assert_same_labels(tmp_path / "labels.csv", tmp_path / "run" / "labels.csv")


def test_score_compares_two_files(run, flowers, estimator, tmp_path):
    result = call("score", run / "labels.csv", flowers, "--truth-column", "species", "--json", tmp_path / "scores.json")
    species = rows_and_species()[1]
    scores = read_json(tmp_path / "scores.json")
    assert scores == read_json(run / "metrics.json")["external"]
    assert scores["adjusted_rand"] == pytest.approx(oracle.adjusted_rand_score(species, estimator.labels_))
    assert f"{scores['adjusted_rand']:.4f}" in result.stdout


def test_weights_from_a_column_are_not_clustered(scaled, tmp_path):
    weights = np.random.default_rng(2).integers(0, 3, N).astype(np.float32)
    weights[rows_and_species()[1] == "rose"] = 0
    expected = jaxcluster.KMeans(K, n_init=10, random_state=0).fit(scaled, sample_weight=weights)
    assert np.any(expected.labels_ != jaxcluster.KMeans(K, n_init=10, random_state=0).fit(scaled).labels_)
    table = write_csv(tmp_path / "x.csv", {"w": weights, **dict(zip(NAMES, scaled.T, strict=True))})
    np.save(tmp_path / "x.npy", np.column_stack([scaled[:, :2], weights, scaled[:, 2:], np.arange(N) % 2]))
    np.save(tmp_path / "w.npy", weights)
    np.save(tmp_path / "rows.npy", scaled)
    for data, extra in (
        (table, ("--weights", "w")),
        (table, ("--weights", "w", "--columns", ",".join(NAMES))),
        (tmp_path / "x.npy", ("--weights", "2", "--truth", "-1")),
        (tmp_path / "rows.npy", ("--weights", tmp_path / "w.npy")),
    ):
        call("fit", "kmeans", data, "--k", K, *extra, "--out", tmp_path / "run", "--overwrite", "--no-report")
        np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
        assert read_json(tmp_path / "run" / "config.json")["data"]["width"] == D


def test_options_and_parameters_reach_the_estimator(scaled, tmp_path):
    np.save(tmp_path / "x.npy", scaled)
    common = ("--k", K, "--quiet", "--no-report", "--overwrite", "--out", tmp_path / "run")
    given = ("--batch-size", 64, "--param", "max-no-improvement=7", "--param", "init_size=none")
    assert call("fit", "minibatch-kmeans", tmp_path / "x.npy", *common, *given).output == ""
    chosen = read_json(tmp_path / "run" / "config.json")["parameters"]
    assert (chosen["batch_size"], chosen["max_no_improvement"], chosen["init_size"]) == (64, 7, None)

    call("fit", "kmeans", tmp_path / "x.npy", *common, "--metric", "cosine", "--tol", "0.5", "--max-iter", 7)
    expected = jaxcluster.KMeans(K, n_init=10, random_state=0, metric="cosine", tol=0.5, max_iter=7).fit(scaled)
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
    silhouette = read_json(tmp_path / "run" / "metrics.json")["internal"]["silhouette"]
    assert silhouette == pytest.approx(oracle.silhouette_score(scaled, expected.labels_, metric="cosine"), abs=1e-5)


def test_info_tells_what_runs_here():
    import jax

    shown = call("info").stdout
    for fact in (jaxcluster.__version__, jax.__version__, "cpu", *ESTIMATORS):
        assert fact in shown


@pytest.mark.parametrize("command", ["", "fit", "predict", "score", "sweep", "info"])
def test_every_command_has_help(command):
    shown = call(*command.split(), "--help").stdout
    assert f"jaxcluster {command}".strip() in shown
    assert max(map(len, shown.splitlines())) <= 80


def start(*words: object, **environment: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own, as a user starts it."""
    program = [sys.executable, "-m", "jaxcluster", *map(str, words)]
    variables = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | environment
    return subprocess.run(program, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_a_process_of_its_own_keeps_what_it_compiles(words, run, tmp_path):
    done = start(*words, "--no-report", "--out", tmp_path / "run", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "labels.csv").read_text() == (run / "labels.csv").read_text()
    assert any((tmp_path / "cache" / "jaxcluster" / jaxcluster.__version__).iterdir())
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache", "run"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full")
def test_a_full_disk_behind_stdout_is_named():
    with open("/dev/full", "w") as full:
        program = [sys.executable, "-m", "jaxcluster", "--help"]
        done = subprocess.run(program, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "Error: standard output: No space left on device.\n")


@pytest.mark.parametrize("command", ["", "fit"])
def test_help_is_quick_to_come(command):
    program = (
        "import atexit, sys, jaxcluster; before = set(sys.modules); from jaxcluster.cli import app; "
        "atexit.register(lambda: print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))); "
        "app()"
    )
    words = [sys.executable, "-c", program, *command.split(), "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = done.stdout.splitlines()[-1].split()
    assert "typer" in loaded
    heavy = {"jax", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas", "safetensors"}
    assert not heavy & set(loaded)

"""What the command line does: every file of a run, its predictions, scores and sweeps, against the library itself."""

from __future__ import annotations

import csv
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
from command_line import NAMES, D, K, N, call, read_labels, rows_and_species, write_csv
from sklearn import metrics as oracle

import jaxcluster
from jaxcluster import datasets, metrics, model_selection
from jaxcluster.cli import options
from jaxcluster.cli.parameters import parse
from jaxcluster.cli.sweep import parse_ks
from jaxcluster.estimators import ESTIMATORS
from jaxcluster.ops.gaussian import COVARIANCE_TYPES

ROOT = Path(__file__).parents[1]
FILES = {"config.json", "history.jsonl", "labels.csv", "metrics.json", "model", "report.html"}


@pytest.fixture(scope="session")
def flowers(tmp_path_factory) -> Path:
    """A table of numbers in different units, and a column of text that holds the truth."""
    x, species = rows_and_species()
    columns = {**dict(zip(NAMES, x.T, strict=True)), "species": species}
    return write_csv(tmp_path_factory.mktemp("data") / "flowers.csv", columns)


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
    """The rows of the run, standardized in float64."""
    x = rows_and_species()[0].astype(np.float64)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


@pytest.fixture(scope="session")
def estimator(scaled) -> jaxcluster.KMeans:
    """What the run should have fitted."""
    return jaxcluster.KMeans(K, n_init=2, random_state=3).fit(scaled)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_all_its_files_and_nothing_else(run):
    assert {entry.name for entry in run.iterdir()} == FILES
    assert [entry.name for entry in run.parent.iterdir()] == [run.name]
    assert [entry.name for entry in run.parent.parent.iterdir()] == ["new"]


def test_the_labels_are_the_estimators(run, estimator):
    np.testing.assert_array_equal(read_labels(run / "labels.csv"), estimator.labels_)


def test_the_model_loads_and_takes_rows_in_their_own_units(run, estimator):
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
    assert "</html>" in page


def test_what_is_printed_fits_a_terminal_and_is_plain_without_one(finished):
    run, result = finished
    lines = [line for line in result.stdout.splitlines() if str(run) not in line]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    for name in ("Accuracy", "Silhouette", *FILES):
        assert name in result.stdout
    shown = f"{read_json(run / 'metrics.json')['external']['accuracy']:.4f}"
    assert any(line.startswith("Accuracy") and shown in line for line in lines)


def test_predict_takes_the_columns_and_the_scaling_of_the_run(run, estimator, tmp_path):
    x, _ = rows_and_species(seed=1)
    shuffled = {name: x[:, NAMES.index(name)] for name in reversed(NAMES)}
    new = write_csv(tmp_path / "new.csv", {"note": np.array(["?"] * N), **shuffled})
    old = rows_and_species()[0].astype(np.float64)
    expected = estimator.predict(((x - old.mean(0)) / old.std(0)).astype(np.float32))
    assert np.mean(expected == estimator.predict(x)) < 0.9  # or else the scaling would not be seen here

    result = call("predict", run, new, "--out", tmp_path / "labels.csv")
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
    assert (tmp_path / "labels.csv").read_text() == (tmp_path / "run" / "labels.csv").read_text()


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
    expected = jaxcluster.KMeans(K, random_state=0).fit(scaled, sample_weight=weights)
    assert np.any(expected.labels_ != jaxcluster.KMeans(K, random_state=0).fit(scaled).labels_)
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


def test_weights_count_in_the_scores_of_a_mixture(scaled, tmp_path):
    weights = np.random.default_rng(2).integers(0, 3, N).astype(np.float32)
    np.save(tmp_path / "x.npy", scaled)
    np.save(tmp_path / "w.npy", weights)
    given = ("--weights", tmp_path / "w.npy", "--quiet", "--no-report")
    call("fit", "gmm", tmp_path / "x.npy", "--k", K, *MIXTURE_OPTIONS, *given, "--out", tmp_path / "run")
    expected = ESTIMATORS["gmm"](K, random_state=0, **MIXTURE).fit(scaled, sample_weight=weights)
    scores = read_json(tmp_path / "run" / "metrics.json")["internal"]
    log_p = expected.score_samples(scaled)
    assert scores["log_likelihood"] == pytest.approx(np.average(log_p, weights=weights), rel=1e-4)
    assert scores["bic"] == pytest.approx(expected.bic(scaled, sample_weight=weights), rel=1e-4)
    assert scores["aic"] == pytest.approx(expected.aic(scaled, sample_weight=weights), rel=1e-4)
    free = K * D + K * D + K - 1
    assert scores["aic"] == pytest.approx(-2 * log_p @ weights + 2 * free, rel=1e-4)


def test_options_and_parameters_reach_the_estimator(scaled, tmp_path):
    np.save(tmp_path / "x.npy", scaled)
    common = ("--k", K, "--quiet", "--no-report", "--overwrite", "--out", tmp_path / "run")
    given = ("--batch-size", 64, "--param", "max-no-improvement=7", "--param", "init_size=none")
    assert call("fit", "minibatch-kmeans", tmp_path / "x.npy", *common, *given).output == ""
    chosen = read_json(tmp_path / "run" / "config.json")["parameters"]
    assert (chosen["batch_size"], chosen["max_no_improvement"], chosen["init_size"]) == (64, 7, None)

    call("fit", "kmeans", tmp_path / "x.npy", *common, "--metric", "cosine", "--tol", "0.5", "--max-iter", 7)
    expected = jaxcluster.KMeans(K, random_state=0, metric="cosine", tol=0.5, max_iter=7).fit(scaled)
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
    silhouette = read_json(tmp_path / "run" / "metrics.json")["internal"]["silhouette"]
    assert silhouette == pytest.approx(oracle.silhouette_score(scaled, expected.labels_, metric="cosine"), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("10", "auto", 10),
        ("auto", "auto", "auto"),
        ("1", 0.5, 1.0),
        ("1e3", 300, 1000),
        ("None", 10, None),
        ("TRUE", False, True),
        ("0.25", None, 0.25),
        ("random", "k-means++", "random"),
    ],
)
def test_a_parameter_has_the_type_of_its_default(text, default, value):
    parsed = parse("name", text, default)
    assert (parsed, type(parsed)) == (value, type(value))


def test_the_choices_on_offer_are_those_of_the_library():
    assert sorted(options.Scale) == sorted(datasets.SCALINGS)
    assert sorted(options.Covariance) == sorted(COVARIANCE_TYPES)


MIXTURE = {"covariance_type": "diag", "reg_covar": 1e-5, "init_params": "random_from_data", "max_iter": 60, "tol": 1e-4}
MIXTURE_OPTIONS = (
    *("--covariance", "diag", "--reg-covar", 1e-5, "--init", "random_from_data"),
    *("--max-iter", 60, "--tol", 1e-4),
)


@pytest.fixture(scope="session")
def mixture(flowers, tmp_path_factory):
    """The folder of a run that fitted a mixture, and what was printed."""
    out = tmp_path_factory.mktemp("mixtures") / "run"
    data = (flowers, "--truth", "species", "--scale", "standard", "--seed", 3)
    return out, call("fit", "gmm", *data, "--k", K, *MIXTURE_OPTIONS, "--out", out)


@pytest.fixture(scope="session")
def gaussians(scaled):
    """What that run should have fitted."""
    return ESTIMATORS["gmm"](K, random_state=3, **MIXTURE).fit(scaled)


def test_a_mixture_leaves_the_files_of_any_run(mixture, gaussians, scaled):
    run, result = mixture
    assert {entry.name for entry in run.iterdir()} == FILES
    chosen = read_json(run / "config.json")["parameters"]
    assert {name: chosen[name] for name in MIXTURE} == MIXTURE
    assert chosen["n_components"] == K
    np.testing.assert_array_equal(read_labels(run / "labels.csv"), gaussians.labels_)
    history = [json.loads(line)["objective"] for line in (run / "history.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(history, gaussians.lower_bounds_, rtol=1e-5)
    np.testing.assert_allclose(jaxcluster.load(run / "model").means_, gaussians.means_, atol=1e-5)
    assert max(len(line) for line in result.stdout.splitlines() if str(run) not in line) <= 80
    assert result.stderr == ""


def test_a_mixture_is_scored_by_its_likelihood(mixture, gaussians, scaled):
    run, result = mixture
    scores = read_json(run / "metrics.json")["internal"]
    assert list(scores)[:4] == ["log_likelihood", "bic", "aic", "silhouette"]
    expected = {"log_likelihood": np.mean(gaussians.score_samples(scaled))}
    expected |= {"bic": gaussians.bic(scaled), "aic": gaussians.aic(scaled)}
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    free = K * D + K * D + K - 1
    assert scores["bic"] == pytest.approx(-2 * N * scores["log_likelihood"] + free * np.log(N), rel=1e-4)
    for word in ("Log-likelihood", "BIC", "AIC", "nats per row, higher is better"):
        assert word in result.stdout


def test_the_report_of_a_mixture_shows_its_components(mixture):
    page = (mixture[0] / "report.html").read_text()
    for word in ("GaussianMixture on flowers.csv", "<h2>Components</h2>", "Curve of the lower bound (nats per row)"):
        assert word in page
    assert "inertia" not in page


def test_predict_takes_a_mixture(mixture, flowers, tmp_path):
    call("predict", mixture[0], flowers, "--out", tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text() == (mixture[0] / "labels.csv").read_text()


def test_a_variational_mixture_has_a_lower_bound(flowers, scaled, tmp_path):
    data = (flowers, "--truth", "species", "--scale", "standard")
    words = ("--covariance", "diag", "--init", "random_from_data", "--max-iter", 300, "--quiet")
    call("fit", "bayesian-gmm", *data, "--k", 6, *words, "--out", tmp_path / "run")
    scores = read_json(tmp_path / "run" / "metrics.json")["internal"]
    options = {"covariance_type": "diag", "init_params": "random_from_data", "max_iter": 300}
    expected = ESTIMATORS["bayesian-gmm"](6, random_state=0, **options).fit(scaled)
    assert scores["lower_bound"] == pytest.approx(expected.lower_bound_, rel=1e-4)
    assert scores["log_likelihood"] == pytest.approx(np.mean(expected.score_samples(scaled)), rel=1e-4)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Curve of the lower bound (up to a constant)" in page


@pytest.mark.parametrize(
    ("text", "ks"),
    [("2:5", [2, 3, 4, 5]), ("2:10:4", [2, 6, 10]), ("8,2,4", [2, 4, 8]), ("3", [3]), ("2:3,9", [2, 3, 9])],
)
def test_numbers_of_clusters(text, ks):
    assert parse_ks(text) == ks


def test_a_sweep_finds_the_number_of_clusters(flowers, scaled, tmp_path):
    out = tmp_path / "sweep"
    data = (flowers, "--truth", "species", "--scale", "standard")
    result = call("sweep", *data, "--k", "1:5", "--seeds", 2, "--seed", 1, "--out", out)
    assert {entry.name for entry in out.iterdir()} == {"config.json", "report.html", "sweep.csv", "sweep.json"}
    with (out / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    results = read_json(out / "sweep.json")
    assert [int(line["k"]) for line in lines] == [1, 2, 3, 4, 5] == [line["k"] for line in results["scores"]]
    assert lines[0]["silhouette"] == ""

    import jax

    fits = jaxcluster.kmeans.sweep(jax.random.key(1), scaled, [1, 2, 3, 4, 5], n_seeds=2)
    expected = model_selection.score_sweep(scaled, [1, 2, 3, 4, 5], fits)
    np.testing.assert_allclose([line["inertias"] for line in results["scores"]], fits.state.inertia, rtol=1e-4)
    np.testing.assert_allclose([float(line["inertia"]) for line in lines], expected.inertia, rtol=1e-4)
    np.testing.assert_allclose([float(line["silhouette"]) for line in lines[1:]], expected.silhouette[1:], atol=1e-4)
    assert results["choices"] == {"silhouette": 3, "elbow": 3}
    assert "Both rules choose k = 3." in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(out) not in line) <= 80
    assert "elbow at k = 3" in (out / "report.html").read_text()


TYPES = ("diag", "spherical")


@pytest.fixture(scope="module")
def mixtures(flowers, tmp_path_factory):
    """The folder of a sweep over mixtures, and what was printed."""
    out = tmp_path_factory.mktemp("sweeps") / "mixtures"
    data = (flowers, "--truth", "species", "--scale", "standard")
    types = [word for name in TYPES for word in ("--covariance", name)]
    words = ("--algo", "gmm", "--k", "1:4", "--seeds", 2, "--seed", 1, "--max-iter", 200, *types)
    return out, call("sweep", *data, *words, "--out", out)


def test_a_sweep_of_mixtures_finds_the_number_of_components(mixtures, scaled):
    import jax

    out, ks = mixtures[0], [1, 2, 3, 4]
    assert {entry.name for entry in out.iterdir()} == {"config.json", "report.html", "sweep.csv", "sweep.json"}
    with (out / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    key = jax.random.key(1)
    expected = jaxcluster.gmm.sweep(key, scaled, ks, covariances=TYPES, n_seeds=2, max_steps=200)
    assert [(line["covariance"], int(line["k"])) for line in lines] == [(name, k) for name in TYPES for k in ks]
    for name in ("bic", "aic", "log_likelihood"):
        best = np.take_along_axis(getattr(expected, name), expected.bic.argmin(2)[..., None], 2).ravel()
        np.testing.assert_allclose([float(line[name]) for line in lines], best, rtol=1e-4)
    results = read_json(out / "sweep.json")
    np.testing.assert_allclose([line["bics"] for line in results["scores"]], expected.bic.reshape(8, 2), rtol=1e-4)
    assert (results["choices"]["bic"]["k"], results["choices"]["bic"]["covariance"]) == expected.best()[:2]
    assert results["choices"]["bic"]["k"] == K


def test_a_sweep_of_mixtures_says_what_it_chose(mixtures):
    out, result = mixtures
    config, chosen = read_json(out / "config.json"), read_json(out / "sweep.json")["choices"]["bic"]
    assert (config["algorithm"], config["parameters"]["covariances"]) == ("gmm", list(TYPES))
    assert f"least at k = {K} ({chosen['covariance']})" in result.stdout
    assert f"{chosen['value']:.4f}" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(out) not in line) <= 80
    page = (out / "report.html").read_text()
    for word in (f"least at k = {K}, {chosen['covariance']}", "BIC by type of covariance", "AIC by type of covariance"):
        assert word in page


@pytest.fixture
def swept():
    """A finished sweep in which nothing is known of the mixtures of k = 4."""
    from jaxcluster.cli.inputs import Rows
    from jaxcluster.cli.sweep_gmm import GMMSweep

    x = np.zeros((9, 2), np.float32)
    bic = np.array([[[9.0, 8.0], [5.0, np.nan], [np.nan, np.nan]], [[7.0, 7.0], [5.0, 6.0], [np.inf, np.nan]]])
    rows = Rows(datasets.Dataset("rows", x), x, None, None)
    return GMMSweep(rows, [2, 3, 4], 2, {}, ("full", "tied"), bic, bic - 1, -bic)


def test_mixtures_that_came_to_nothing_are_left_out(swept):
    assert swept.choices()["bic"] == {"k": 3, "covariance": "full", "value": 5.0}
    assert [line["bic"] for line in swept.lines()] == [8, 5, None, 7, 5, None]
    assert [line["log_likelihood"] for line in swept.lines()] == [-8, -5, None, -7, -5, None]
    json.dumps(swept.details(), allow_nan=False)
    assert swept.shown()[2][2] == [4, None, None, ""]
    assert swept.remarks() == ["BIC and AIC are least at k = 3 (full). Lower is better."]
    nothing = swept._replace(bic=swept.bic * np.nan, aic=swept.aic * np.nan)
    assert nothing.choices() == {"bic": None, "aic": None}
    assert "nothing to choose by" in nothing.remarks()[0]
    assert nothing.pictures() == []


def test_the_most_components_tried_are_pointed_out(swept):
    few = swept._replace(ks=[2, 3], bic=swept.bic[:, :2], aic=-swept.aic[:, :2])
    assert few.remarks()[0] == "The BIC is least at k = 3 (full), the AIC at k = 2 (full). Lower is better."
    assert few.remarks()[1] == "k = 3 is the most that was tried: try more."
    assert len(few._replace(ks=[3], bic=few.bic[:, 1:], aic=few.aic[:, 1:]).remarks()) == 1


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
    assert any((tmp_path / "cache" / "jaxcluster" / "xla").iterdir())
    assert {entry.name for entry in tmp_path.iterdir()} == {"cache", "run"}


def test_help_is_quick_to_come():
    program = (
        "import sys, jaxcluster; before = set(sys.modules); import jaxcluster.cli; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    heavy = {"jax", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas", "safetensors"}
    assert not heavy & set(done.stdout.split())

"""The command line with methods that find out how many clusters there are, and that call rows noise."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from command_line import call, read_labels, refuse
from sklearn import metrics as oracle
from sklearn.datasets import make_moons

import jaxcluster
from jaxcluster.cli.fit_pipeline import _many_small_clusters

N, EPS = 200, 0.25
ALWAYS = {"config.json", "labels.csv", "metrics.json", "model"}


@pytest.fixture(scope="module")
def moons() -> tuple[np.ndarray, np.ndarray]:
    """Two moons and a few samples far from both.

    Returns:
        The samples, and the moon of each.
    """
    x, y = make_moons(N, noise=0.04, random_state=0)
    x[:4] = [[4, 4], [-4, 4], [4, -4], [-4, -4]]
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def data(moons, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "moons.npy", moons[0])
    np.save(folder / "truth.npy", moons[1])
    np.save(folder / "weights.npy", np.random.default_rng(1).integers(1, 4, N))
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run of DBSCAN, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ("--truth", data / "truth.npy", "--eps", EPS, "--min-samples", 4)
    return out, call("fit", "dbscan", data / "moons.npy", *words, "--out", out)


@pytest.fixture(scope="module")
def expected(moons) -> jaxcluster.DBSCAN:
    """The estimator that the run should have fitted."""
    return jaxcluster.DBSCAN(EPS, min_samples=4).fit(moons[0])


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_its_files_and_no_history(finished, expected):
    out, result = finished
    assert {entry.name for entry in out.iterdir()} == ALWAYS | {"report.html"}
    assert "history.jsonl" not in result.stdout
    for name in ALWAYS:
        assert name in result.stdout
    np.testing.assert_array_equal(read_labels(out / "labels.csv"), expected.labels_)
    assert read_json(out / "config.json")["parameters"] == expected.get_params()


def test_the_summary_says_what_was_found(finished, expected):
    noise = int(np.sum(expected.labels_ == -1))
    assert noise == 4
    assert finished[1].stdout.splitlines()[0] == "2 clusters of 98 rows; 4 rows are noise (2.0%)."
    assert finished[1].stderr == ""
    assert max(len(line) for line in finished[1].stdout.splitlines() if str(finished[0]) not in line) <= 80


def test_scores_without_noise_or_with_it_as_a_cluster(finished, expected, moons):
    (x, y), labels, scores = moons, expected.labels_, read_json(finished[0] / "metrics.json")
    kept = labels >= 0
    assert (scores["clusters"], scores["noise_rows"], scores["silhouette_rows"]) == (2, 4, N - 4)
    assert scores["internal"] == pytest.approx(
        {
            "silhouette": oracle.silhouette_score(x[kept], labels[kept]),
            "davies_bouldin": oracle.davies_bouldin_score(x[kept], labels[kept]),
            "calinski_harabasz": oracle.calinski_harabasz_score(x[kept], labels[kept]),
        },
        rel=1e-4,
    )
    assert scores["external"]["adjusted_rand"] == pytest.approx(oracle.adjusted_rand_score(y, labels))
    assert "Against the truth, noise as one more cluster" in finished[1].stdout
    assert "Without the truth, of the rows in clusters" in finished[1].stdout


def test_score_says_what_noise_counts_as(finished, data):
    result = call("score", finished[0] / "labels.csv", data / "truth.npy")
    assert f"{N} rows against the truth, noise as one more cluster" in result.stdout
    assert "noise" not in call("score", data / "truth.npy", data / "truth.npy").stdout


def test_silhouette_is_of_the_methods_distances(data, moons, tmp_path):
    words = ("--eps", 0.3, "--metric", "manhattan", "--quiet", "--no-report", "--seed", 5)
    call("fit", "dbscan", data / "moons.npy", *words, "--out", tmp_path / "run")
    labels = jaxcluster.DBSCAN(0.3, metric="manhattan").fit_predict(moons[0])
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), labels)
    kept = labels >= 0
    expected = oracle.silhouette_score(moons[0][kept], labels[kept], metric="manhattan")
    assert read_json(tmp_path / "run" / "metrics.json")["internal"]["silhouette"] == pytest.approx(expected, abs=1e-5)


def test_nothing_but_noise_is_told_with_what_to_do(data, tmp_path):
    out = tmp_path / "run"
    result = call("fit", "dbscan", data / "moons.npy", "--eps", 1e-4, "--out", out)
    assert result.stdout.startswith(f"No clusters: all {N} rows are noise.\n")
    assert result.stderr == "Warning: every row is noise: raise --eps, or lower --min-samples.\n"
    assert set(read_json(out / "metrics.json")["internal"].values()) == {None}
    assert "noise" in (out / "report.html").read_text()
    assert "the cluster of each row\n" in result.stdout
    assert "every row of" in refuse("profile", out)


def test_predict_says_how_many_rows_are_in_no_cluster(finished, expected, moons, tmp_path):
    new = np.concatenate([moons[0][4:], [[9, 9]]]).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    result = call("predict", finished[0], tmp_path / "new.npy", "--out", tmp_path / "labels.csv")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv"), expected.predict(new))
    assert re.search(r"^ +noise +1 +0\.5%$", result.stdout, re.MULTILINE)


def test_weights_are_taken(data, moons, tmp_path):
    words = ("--eps", 0.12, "--min-samples", 9, "--weights", data / "weights.npy", "--quiet", "--no-report")
    call("fit", "dbscan", data / "moons.npy", *words, "--out", tmp_path / "run")
    weights = np.load(data / "weights.npy")
    labels = jaxcluster.DBSCAN(0.12, min_samples=9).fit_predict(moons[0], sample_weight=weights)
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), labels)
    assert np.any(labels != jaxcluster.DBSCAN(0.12, min_samples=9).fit_predict(moons[0]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dbscan", "--k", 2), "dbscan finds out how many clusters there are: leave out --k"),
        (("dbscan", "--n-init", 2), "dbscan: parameter 'n_init' is not known; there are: algorithm, eps"),
        (("dbscan", "--max-iter", 2), "dbscan: parameter 'max_iter' is not known"),
        (("dbscan", "--xi", 0.1), "dbscan: parameter 'xi' is not known"),
        (("dbscan", "--eps", 0), "eps=0.0 must be greater than 0"),
        (("dbscan", "--eps", "wide"), "'--eps': 'wide' is not a number"),
        (("dbscan", "--min-samples", "few"), "min_samples='few' must be a number"),
        (("dbscan", "--metric", "euclid"), "--metric.*manhattan"),
        (("optics", "--k", 2), "optics finds out how many clusters there are"),
        (("optics", "--weights", "0"), "optics counts each row once: leave out --weights"),
        (("optics", "--xi", 2), "xi=2.0 must be at most 1"),
        (("optics", "--cluster-selection-method", "leaf"), "optics: parameter 'cluster_selection_method' is not known"),
        (("hdbscan", "--min-cluster-size", 1), "min_cluster_size=1 must be at least 2"),
        (("hdbscan", "--min-samples", 0), "min_samples=0 must be at least 1"),
        (("hdbscan", "--eps", 1), "hdbscan: parameter 'eps' is not known"),
        (("spectral",), "spectral needs a number of clusters: pass --k"),
        (("spectral", "--k", 2, "--weights", "0"), "spectral counts each row once: leave out --weights"),
        (("spectral", "--k", 2, "--gamma", 0), "gamma=0.0 must be greater than 0"),
        (("spectral-embedding",), "no clusters. Use SpectralEmbedding in Python"),
        (("kmeans", "--k", 2, "--eps", 0.3), "kmeans: parameter 'eps' is not known"),
        (("kmeans", "--k", 2, "--metric", "manhattan"), "'manhattan' is not known; choose one of 'sqeuclidean'"),
    ],
)
def test_words_that_make_no_sense(data, tmp_path, words, message):
    line = refuse("fit", words[0], data / "moons.npy", *words[1:], "--out", tmp_path / "run")
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


def test_optics_run_leaves_its_order(data, moons, tmp_path):
    words = ("--min-samples", "0.02", "--cluster-method", "dbscan", "--eps", EPS, "--max-eps", 2)
    result = call("fit", "optics", data / "moons.npy", *words, "--out", tmp_path / "run")
    chosen = {"min_samples": 0.02, "cluster_method": "dbscan", "eps": EPS, "max_eps": 2.0}
    expected = jaxcluster.OPTICS(**chosen).fit(moons[0])
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
    assert read_json(tmp_path / "run" / "config.json")["parameters"] == expected.get_params()
    assert "4 rows are noise" in result.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    for word in ("<h2>Density</h2>", "Reachability of each row, in order", f"eps {EPS}", "left out of the others"):
        assert word in page
    assert "OPTICS cannot label new rows" in refuse("predict", tmp_path / "run", data / "moons.npy")


def test_hdbscan_leaves_its_trees_and_labels_new_rows(data, moons, tmp_path):
    words = (
        "--min-cluster-size",
        12,
        "--min-samples",
        4,
        "--cluster-selection-method",
        "leaf",
        "--metric",
        "manhattan",
    )
    result = call("fit", "hdbscan", data / "moons.npy", *words, "--out", tmp_path / "run")
    chosen = {"min_samples": 4, "cluster_selection_method": "leaf", "metric": "manhattan"}
    expected = jaxcluster.HDBSCAN(12, **chosen).fit(moons[0])
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
    assert read_json(tmp_path / "run" / "config.json")["parameters"] == expected.get_params()
    columns = np.loadtxt(tmp_path / "run" / "labels.csv", delimiter=",", skiprows=1, usecols=(2, 3)).T
    assert (tmp_path / "run" / "labels.csv").read_text().startswith("row,label,probability,outlier_score\n")
    np.testing.assert_allclose(columns, [expected.probabilities_, expected.outlier_scores_], atol=1e-6)
    assert f"{np.sum(expected.labels_ == -1)} rows are noise" in result.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    for word in ("<h2>Tree</h2>", "Condensed tree of", "of groups of at least 12 rows", "mutual reachability"):
        assert word in page
    call("predict", tmp_path / "run", data / "moons.npy", "--out", tmp_path / "new.csv")
    np.testing.assert_array_equal(read_labels(tmp_path / "new.csv"), expected.predict(moons[0]))


def test_a_tree_that_never_splits_is_drawn(data, tmp_path):
    result = call("fit", "hdbscan", data / "moons.npy", "--min-cluster-size", 150, "--out", tmp_path / "run")
    advice = "Warning: every row is noise: lower --min-cluster-size.\n"
    assert result.stderr == advice
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Condensed tree of 1 cluster, " in page
    assert "Dendrogram" not in page


@pytest.mark.parametrize(
    ("parameters", "labels", "hint"),
    [
        ({}, np.repeat(np.arange(-1, 19), [50, *[5] * 19]), True),
        ({}, np.repeat([-1, 0, 1], [50, 50, 50]), False),
        ({"min_cluster_size": 5}, np.repeat(np.arange(-1, 19), [50, *[5] * 19]), False),
        ({}, np.full(50, -1), False),
    ],
)
def test_splinters_of_optics_get_a_hint(parameters, labels, hint):
    estimator = jaxcluster.OPTICS(**parameters)
    estimator.labels_ = labels
    assert [("--min-cluster-size" in line) for line in _many_small_clusters(estimator)] == [True] * hint


def test_an_infinite_parameter_is_told(data, tmp_path):
    words = ("--xi", 0.1, "--min-cluster-size", 20, "--quiet", "--no-report")
    call("fit", "optics", data / "moons.npy", *words, "--out", tmp_path / "run")
    chosen = read_json(tmp_path / "run" / "config.json")["parameters"]
    assert (chosen["max_eps"], chosen["xi"], chosen["min_cluster_size"]) == ("inf", 0.1, 20)
    assert jaxcluster.load(tmp_path / "run" / "model").max_eps == np.inf


def test_spectral_run_has_a_graph(data, moons, tmp_path):
    words = ("--k", 2, "--affinity", "nearest_neighbors", "--n-neighbors", 8, "--assign-labels", "cluster_qr")
    result = call("fit", "spectral", data / "moons.npy", *words, "--out", tmp_path / "run")
    chosen = {"affinity": "nearest_neighbors", "n_neighbors": 8, "assign_labels": "cluster_qr", "random_state": 0}
    expected = jaxcluster.SpectralClustering(2, **chosen)
    with pytest.warns(UserWarning, match="not connected") if "not connected" in result.stderr else nullcontext():
        expected.fit(moons[0])
    np.testing.assert_array_equal(read_labels(tmp_path / "run" / "labels.csv"), expected.labels_)
    assert read_json(tmp_path / "run" / "config.json")["parameters"] == expected.get_params()
    assert "for jaxcluster.load in Python" in result.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    for word in ("<h2>Graph</h2>", "Least 8 eigenvalues of the Laplacian", "between clusters"):
        assert word in page
    assert "SpectralClustering cannot label new rows" in refuse("predict", tmp_path / "run", data / "moons.npy")

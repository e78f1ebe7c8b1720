"""The command line with k-medoids, with bounds on clusters, and with optimal transport."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import call, read_labels, refuse, rows_and_species, write_csv

import jaxcluster
from jaxcluster import sinkhorn
from jaxcluster.cli.inputs import read_pairs
from jaxcluster.cli.transport import Cost
from jaxcluster.ops import distance


@pytest.fixture(scope="module")
def flowers() -> np.ndarray:
    """(120, 4) rows in three groups."""
    x, _ = rows_and_species()
    return (x / x.std(axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def data(flowers, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "flowers.npy", flowers)
    np.save(folder / "truth.npy", rows_and_species()[1])
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run of k-medoids, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ("--k", 3, "--metric", "manhattan", "--truth", data / "truth.npy", "--out", out)
    return out, call("fit", "kmedoids", data / "flowers.npy", *words)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_medoids_are_found_saved_and_shown(finished, flowers):
    out, result = finished
    expected = jaxcluster.KMedoids(3, metric="manhattan", random_state=0).fit(flowers)
    np.testing.assert_array_equal(read_labels(out / "labels.csv"), expected.labels_)
    assert read_json(out / "config.json")["parameters"] == expected.get_params()
    assert read_json(out / "metrics.json")["internal"]["inertia"] == pytest.approx(expected.inertia_)
    assert re.match(r"3 clusters of .* rows; converged after \d+ steps?\.\n", result.stdout)
    page = (out / "report.html").read_text()
    for word in ("<h2>Medoids</h2>", "Medoids and their rows", "A disc is a cluster's medoid.", "sum of distances"):
        assert word in page
    np.testing.assert_array_equal(jaxcluster.load(out / "model").medoid_indices_, expected.medoid_indices_)


def test_medoids_label_new_rows(finished, data, flowers, tmp_path):
    np.save(tmp_path / "new.npy", flowers[::7])
    call("predict", finished[0], tmp_path / "new.npy", "--out", tmp_path / "labels.npy")
    labels = read_labels(finished[0] / "labels.csv")
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels[::7])


def test_samples_are_looked_at_on_request(data, tmp_path):
    words = ("--k", 3, "--method", "clara", "--seed", 4, "--n-init", 2, "--quiet", "--no-report")
    call("fit", "kmedoids", data / "flowers.npy", *words, "--out", tmp_path / "run")
    chosen = read_json(tmp_path / "run" / "config.json")["parameters"]
    assert (chosen["method"], chosen["n_init"], chosen["random_state"]) == ("clara", 2, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("kmedoids",), "kmedoids needs a number of clusters: pass --k"),
        (("kmedoids", "--k", 121), "n_samples=120 should be >= n_clusters=121"),
        (("kmedoids", "--k", 2, "--init", "k-means++"), "init='k-means.*' is not known; choose one of 'build'"),
        (("kmedoids", "--k", 2, "--method", "pam"), "--method.*fasterpam"),
        (("kmeans", "--k", 2, "--method", "clara"), "kmeans: parameter 'method' is not known"),
        (("kmeans", "--k", 2, "--size-min", 3), "kmeans: parameter 'size_min' is not known"),
        (("kmeans", "--k", 2, "--must-link", "pairs.npy"), "--must-link means nothing to kmeans"),
        (("balanced-kmeans", "--k", 4, "--size-max", 20), "40 fewer than the 120 given"),
        (("balanced-kmeans", "--k", 4, "--weights", "0"), "balanced-kmeans counts each row once"),
        (("constrained-kmeans", "--k", 4, "--must-link", "none.npy"), "none.npy"),
    ],
)
def test_words_that_make_no_sense(data, tmp_path, words, message):
    line = refuse("fit", words[0], data / "flowers.npy", *words[1:], "--out", tmp_path / "run")
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


def test_clusters_of_one_size(data, flowers, tmp_path):
    call("fit", "balanced-kmeans", data / "flowers.npy", "--k", 3, "--quiet", "--out", tmp_path / "even")
    labels = read_labels(tmp_path / "even" / "labels.csv")
    assert np.bincount(labels).tolist() == [40, 40, 40]
    np.testing.assert_array_equal(labels, jaxcluster.BalancedKMeans(3, random_state=0).fit(flowers).labels_)
    assert "40" in (tmp_path / "even" / "report.html").read_text()
    words = ("--k", 3, "--size-min", 20, "--size-max", 60, "--quiet", "--no-report")
    call("fit", "balanced-kmeans", data / "flowers.npy", *words, "--out", tmp_path / "bounded")
    chosen = read_json(tmp_path / "bounded" / "config.json")["parameters"]
    assert (chosen["size_min"], chosen["size_max"]) == (20, 60)


def test_pairs_hold(data, flowers, tmp_path):
    must, cannot = np.array([[0, 1], [1, 2]]), np.array([[0, 5]])
    np.save(tmp_path / "must.npy", must)
    pairs = write_csv(tmp_path / "cannot.csv", {"a": cannot[:, 0], "b": cannot[:, 1]})
    words = ("--k", 3, "--must-link", tmp_path / "must.npy", "--cannot-link", pairs, "--quiet", "--no-report")
    call("fit", "constrained-kmeans", data / "flowers.npy", *words, "--out", tmp_path / "run")
    labels = read_labels(tmp_path / "run" / "labels.csv")
    assert labels[0] == labels[1] == labels[2] != labels[5]
    expected = jaxcluster.ConstrainedKMeans(3, random_state=0).fit(flowers, must_link=must, cannot_link=cannot)
    np.testing.assert_array_equal(labels, expected.labels_)


def test_pairs_that_contradict_each_other_are_named(data, tmp_path):
    np.save(tmp_path / "pairs.npy", np.array([[3, 7]]))
    links = ("--must-link", tmp_path / "pairs.npy", "--cannot-link", tmp_path / "pairs.npy")
    words = ("constrained-kmeans", data / "flowers.npy", "--k", 3, *links, "--out", tmp_path / "run")
    assert re.search(r"\b3\b.*\b7\b", refuse("fit", *words))


def test_a_sweep_chooses_by_the_medoid_silhouette(data, flowers, tmp_path, key):
    out = tmp_path / "sweep"
    result = call("sweep", data / "flowers.npy", "--k", "2:5", "--algo", "kmedoids", "--out", out)
    expected = jaxcluster.kmedoids.sweep(key, flowers, [2, 3, 4, 5])
    with (out / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    np.testing.assert_allclose([float(line["medoid_silhouette"]) for line in lines], expected.silhouette, rtol=1e-6)
    np.testing.assert_allclose([float(line["loss"]) for line in lines], expected.fits.state.loss, rtol=1e-6)
    assert read_json(out / "sweep.json")["choices"]["medoid_silhouette"] == expected.k == 3
    assert "The medoid silhouette is highest at k = 3" in result.stdout
    page = (out / "report.html").read_text()
    assert "Medoid silhouette by number of clusters" in page
    assert "Sum of distances by number of clusters" in page


def test_a_sweep_from_one_cluster_has_no_silhouette(data, tmp_path):
    line = refuse("sweep", data / "flowers.npy", "--k", "1:3", "--algo", "kmedoids", "--out", tmp_path / "sweep")
    assert "each at least 2" in line


def test_rows_are_moved(data, flowers, tmp_path):
    np.save(tmp_path / "y.npy", flowers[:50] + 1)
    out, options = tmp_path / "run", ("--epsilon", 0.1, "--cost", "euclidean", "--divergence")
    result = call("transport", data / "flowers.npy", tmp_path / "y.npy", *options, "--out", out)
    found, y = read_json(out / "transport.json"), flowers[:50] + 1
    expected = sinkhorn.solve(flowers, y, cost="euclidean", epsilon=0.1)
    assert found["transport_cost"] == pytest.approx(float(expected.transport_cost), rel=1e-5)
    assert found["divergence"] == pytest.approx(
        float(sinkhorn.divergence(flowers, y, cost="euclidean", epsilon=0.1)), rel=1e-4
    )
    assert found["status"] == "CONVERGED"
    np.testing.assert_allclose(np.load(out / "plan.npy").sum(0), np.full(50, 1 / 50), rtol=1e-2)
    np.testing.assert_allclose(np.load(out / "potentials.npz")["g"], expected.g, atol=1e-5)
    assert read_json(out / "config.json")["parameters"]["cost"] == "euclidean"
    assert (out / "plan.svg").read_text().count("<path") > 50
    for word in ("transport cost", "Sinkhorn's divergence", "plan.npy"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("iris", "wine", "--epsilon", 1), "iris has 4 columns and wine 13"),
        (("iris", "iris", "--epsilon", 0), "epsilon=0.0 must be greater than 0"),
        (("iris", "iris", "--epsilon", 1, "--rho", 0), "rho_a=0.0 must be greater than 0"),
        (("iris", "iris"), "Missing option '--epsilon'"),
        (("iris", "iris", "--epsilon", 1, "--cost", "far"), "--cost.*euclidean"),
    ],
)
def test_transports_that_make_no_sense(tmp_path, words, message):
    line = refuse("transport", *words, "--out", tmp_path / "run")
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


def test_an_end_before_the_sums_are_right_is_told(data, tmp_path):
    words = ("--epsilon", 0.01, "--max-iter", 2, "--quiet", "--out", tmp_path / "run")
    result = call("transport", data / "flowers.npy", data / "flowers.npy", *words)
    assert result.stderr.startswith("Warning: the marginal error of the plan is above --tol. Raise --max-iter")


def test_pairs_are_two_columns_of_row_numbers(data, tmp_path):
    pairs = write_csv(tmp_path / "pairs.csv", {"a": np.array([0, 5]), "b": np.array([1, 7])})
    np.testing.assert_array_equal(read_pairs(pairs, "--must-link"), [[0, 1], [5, 7]])


def test_the_costs_on_offer_are_those_of_the_library():
    assert {*Cost} <= set(distance.METRICS)

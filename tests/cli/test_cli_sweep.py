"""`jaxcluster sweep`: its scores, choices and files, against the library."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import K, call, read_json, standardized_rows, write_flowers

import jaxcluster
from jaxcluster import model_selection
from jaxcluster.cli import run
from jaxcluster.cli.errors import UserError
from jaxcluster.cli.sweep import parse_ks
from jaxcluster.cli.sweep_results import gmm_result, kmeans_result


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    return write_flowers(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def scaled() -> np.ndarray:
    return standardized_rows()


@pytest.mark.parametrize(
    ("text", "ks"),
    [("2:5", [2, 3, 4, 5]), ("2:10:4", [2, 6, 10]), ("8,2,4", [2, 4, 8]), ("3", [3]), ("2:3,9", [2, 3, 9])],
)
def test_numbers_of_clusters(text, ks):
    assert parse_ks(text) == ks


def test_more_numbers_than_anyone_tries_are_refused():
    with pytest.raises(UserError, match="more than 1,000 numbers of clusters"):
        parse_ks("2:100000000000")


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


def test_sweep_of_mixtures_finds_the_number(mixtures, scaled):
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
    """Arguments of a result in which nothing is known of the mixtures of k = 4."""

    bic = np.array([[[9.0, 8.0], [5.0, np.nan], [np.nan, np.nan]], [[7.0, 7.0], [5.0, 6.0], [np.inf, np.nan]]])
    return {"n": 9, "ks": [2, 3, 4], "seeds": 2, "covariances": ("full", "tied"), "bic": bic, "aic": bic - 1} | {
        "log_likelihood": -bic
    }


def test_mixtures_that_came_to_nothing_are_left_out(swept):
    result = gmm_result(**swept)
    assert result.choices["bic"] == {"k": 3, "covariance": "full", "value": 5.0}
    assert [line["bic"] for line in result.lines] == [8, 5, None, 7, 5, None]
    assert [line["log_likelihood"] for line in result.lines] == [-8, -5, None, -7, -5, None]
    json.dumps(result.to_json(), allow_nan=False)
    assert result.shown[2][2] == [4, None, None, ""]
    assert result.remarks == ["BIC and AIC are least at k = 3 (full). Lower is better."]
    nothing = gmm_result(**swept | {"bic": swept["bic"] * np.nan, "aic": swept["aic"] * np.nan})
    assert nothing.choices == {"bic": None, "aic": None}
    assert "nothing to choose by" in nothing.remarks[0]
    assert nothing.curves == []


def test_the_most_components_tried_are_pointed_out(swept):
    few = swept | {"ks": [2, 3], "bic": swept["bic"][:, :2], "aic": -swept["aic"][:, :2]}
    remarks = gmm_result(**few).remarks
    assert remarks[0] == "The BIC is least at k = 3 (full), the AIC at k = 2 (full). Lower is better."
    assert remarks[1] == "k = 3 is the most that was tried: try more."
    assert len(gmm_result(**few | {"ks": [3], "bic": few["bic"][:, 1:], "aic": few["aic"][:, 1:]}).remarks) == 1


def test_numbers_beyond_float64_are_written_as_none():
    undefined = np.full(2, np.nan)
    scores = model_selection.SweepScores(np.array([2, 3]), np.zeros(2, int), np.full(2, np.inf), *[undefined] * 3)
    result = kmeans_result(60, [2, 3], 1, scores, np.full((2, 1), np.inf), "inertia")
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["scores"][0]["inertias"] == [None]
    assert result.choices == {"silhouette": None, "elbow": None}
    assert (run.as_json(np.inf), run.finite(np.inf), run.finite(0.5)) == ("inf", None, 0.5)

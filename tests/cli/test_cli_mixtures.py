"""The command line with mixtures of Gaussians: options, files, scores and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from command_line import D, K, N, assert_same_labels, call, read_json, read_labels, standardized_rows, write_flowers

import jaxcluster
from jaxcluster.estimators import ESTIMATORS

FILES = {"config.json", "history.jsonl", "labels.csv", "metrics.json", "model", "report.html"}

MIXTURE = {"covariance_type": "diag", "reg_covar": 1e-5, "init_params": "random_from_data", "max_iter": 60, "tol": 1e-4}
MIXTURE_OPTIONS = (
    *("--covariance", "diag", "--reg-covar", 1e-5, "--init", "random_from_data"),
    *("--max-iter", 60, "--tol", 1e-4, "--n-init", 1),  # three starts end at one optimum, in any order of components
)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    return write_flowers(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def scaled() -> np.ndarray:
    return standardized_rows()


@pytest.fixture(scope="module")
def mixture(flowers, tmp_path_factory):
    """The folder of a run that fitted a mixture, and what was printed."""
    out = tmp_path_factory.mktemp("mixtures") / "run"
    data = (flowers, "--truth", "species", "--scale", "standard", "--seed", 3)
    return out, call("fit", "gmm", *data, "--k", K, *MIXTURE_OPTIONS, "--out", out)


@pytest.fixture(scope="module")
def gaussians(scaled):
    """The estimator that the run should have fitted."""
    return ESTIMATORS["gmm"](K, n_init=1, random_state=3, **MIXTURE).fit(scaled)


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


def test_predict_takes_a_mixture(mixture, flowers, gaussians, scaled, tmp_path):
    call("predict", mixture[0], flowers, "--proba", "--out", tmp_path / "labels.csv")
    assert_same_labels(tmp_path / "labels.csv", mixture[0] / "labels.csv")
    proba = gaussians.predict_proba(scaled)
    predicted, fitted = pandas.read_csv(tmp_path / "labels.csv"), pandas.read_csv(mixture[0] / "labels.csv")
    assert list(fitted) == ["row", "label", "probability"]
    np.testing.assert_allclose(fitted["probability"], proba.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(predicted[[f"probability_{j}" for j in range(K)]], proba, atol=1e-4)


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


def test_weights_count_in_the_scores_of_a_mixture(scaled, tmp_path):
    weights = np.random.default_rng(2).integers(0, 3, N).astype(np.float32)
    np.save(tmp_path / "x.npy", scaled)
    np.save(tmp_path / "w.npy", weights)
    given = ("--weights", tmp_path / "w.npy", "--quiet", "--no-report")
    call("fit", "gmm", tmp_path / "x.npy", "--k", K, *MIXTURE_OPTIONS, *given, "--out", tmp_path / "run")
    expected = ESTIMATORS["gmm"](K, n_init=3, random_state=0, **MIXTURE).fit(scaled, sample_weight=weights)
    scores = read_json(tmp_path / "run" / "metrics.json")["internal"]
    log_p = expected.score_samples(scaled)
    assert scores["log_likelihood"] == pytest.approx(np.average(log_p, weights=weights), rel=1e-4)
    assert scores["bic"] == pytest.approx(expected.bic(scaled, sample_weight=weights), rel=1e-4)
    assert scores["aic"] == pytest.approx(expected.aic(scaled, sample_weight=weights), rel=1e-4)
    free = K * D + K * D + K - 1
    assert scores["aic"] == pytest.approx(-2 * log_p @ weights + 2 * free, rel=1e-4)

"""Choosing k: the rules against geometry and known answers, the scores of a sweep against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from jaxcluster import kmeans, model_selection

KS = [2, 4, 6]
SEEDS = 2


@pytest.fixture(scope="module")
def fits(blobs):
    import jax

    return kmeans.sweep(jax.random.key(1), blobs.x, KS, n_seeds=SEEDS)


@pytest.fixture(scope="module")
def scores(blobs, fits):
    return model_selection.score_sweep(blobs.x, KS, fits)


def farthest_below_chord(ks, inertias):
    """The same rule by plain geometry: distance from the line through both ends, on the unit square."""
    points = np.column_stack([ks, inertias]).astype(float)
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    start, chord = points[0], points[-1] - points[0]
    offset = points - start
    distance = (offset[:, 0] * chord[1] - offset[:, 1] * chord[0]) / np.hypot(*chord)
    return ks[np.argmax(distance)]


@pytest.mark.parametrize("seed", range(5))
def test_the_elbow_is_farthest_from_the_chord(seed):
    rng = np.random.default_rng(seed)
    ks = np.sort(rng.choice(np.arange(1, 40), 8, replace=False))
    inertias = np.cumsum(rng.exponential(size=8) ** 3)[::-1] + 0.5 / ks
    inertias = 1e4 * inertias / ks
    expected = farthest_below_chord(ks, inertias)
    assert model_selection.elbow(ks, inertias) == expected
    order = rng.permutation(8)
    assert model_selection.elbow(ks[order], inertias[order]) == expected


def test_the_elbow_depends_on_neither_unit():
    ks, inertias = np.arange(1, 8), np.array([100, 60, 20, 15, 12, 10, 9])
    assert model_selection.elbow(ks, inertias) == 3
    assert model_selection.elbow(ks * 10, inertias * 1e-6 + 5) == 30


@pytest.mark.parametrize(
    "inertias",
    [[5, 4, 3, 2], [5, 5, 5, 5], [1, 2, 3, 9], [9, 8.9, 8, 1]],
    ids=["straight", "flat", "rising", "concave"],
)
def test_a_curve_without_a_bend_has_no_elbow(inertias):
    assert model_selection.elbow([1, 2, 3, 4], inertias) is None


def test_two_points_have_no_elbow():
    assert model_selection.choose_k([2, 3], [9, 1], "elbow") is None


@pytest.mark.parametrize(
    ("rule", "expected"), [("silhouette", 5), ("calinski_harabasz", 5), ("davies_bouldin", 2), ("elbow", 3)]
)
def test_each_rule_looks_for_its_own_extreme(rule, expected):
    values = [1.0, 9.0, 2.0, 1.5] if rule == "elbow" else [9.0, 1.0, 3.0, 9.0]
    ks = [5, 2, 3, 4] if rule == "elbow" else [6, 2, 3, 5]
    assert model_selection.choose_k(ks, values, rule) == expected


def test_undefined_scores_are_left_out():
    assert model_selection.choose_k([1, 2, 3], [np.nan, 0.1, 0.3]) == 3
    assert model_selection.choose_k([1, 2, 3], [np.inf, 0.3, 0.1], "davies_bouldin") == 3
    with pytest.raises(ValueError, match="none of the 2 values is finite"):
        model_selection.choose_k([1, 2], [np.nan, np.nan])


@pytest.mark.parametrize(
    ("ks", "values", "rule", "message"),
    [
        ([2, 3], [1.0, 2.0], "silhuette", "Did you mean 'silhouette'"),
        ([2, 3], [1.0], "silhouette", r"\(2,\) and \(1,\)"),
        ([[2, 3]], [[1.0, 2.0]], "silhouette", "must be 1-D"),
    ],
)
def test_wrong_arguments_say_what_was_seen(ks, values, rule, message):
    with pytest.raises(ValueError, match=message):
        model_selection.choose_k(ks, values, rule)


def test_a_sweep_is_scored_by_the_best_start_of_each_k(blobs, fits, scores):
    inertia = np.asarray(fits.state.inertia)
    assert inertia.shape == (len(KS), SEEDS)
    np.testing.assert_array_equal(scores.ks, KS)
    np.testing.assert_array_equal(scores.best, inertia.argmin(1))
    np.testing.assert_array_equal(scores.inertia, inertia.min(1).astype(np.float64))
    for i, best in enumerate(scores.best):
        labels = np.asarray(fits.labels[i, best])
        np.testing.assert_allclose(scores.silhouette[i], oracle.silhouette_score(blobs.x, labels), atol=1e-5)
        np.testing.assert_allclose(scores.davies_bouldin[i], oracle.davies_bouldin_score(blobs.x, labels), rtol=1e-4)
        expected = oracle.calinski_harabasz_score(blobs.x, labels)
        np.testing.assert_allclose(scores.calinski_harabasz[i], expected, rtol=1e-4)


def test_every_rule_finds_the_clusters_that_were_made(scores):
    for rule in ("silhouette", "davies_bouldin", "calinski_harabasz"):
        assert model_selection.choose_k(KS, getattr(scores, rule), rule) == 4
    assert model_selection.choose_k(KS, scores.inertia, "elbow") == 4


def test_cosine_scores_look_at_directions_alone(blobs):
    lengths = np.random.default_rng(0).uniform(0.1, 10, (len(blobs.x), 1)).astype(np.float32)
    scores = model_selection.internal_scores(blobs.x * lengths, blobs.y, metric="cosine")
    unit = blobs.x / np.linalg.norm(blobs.x, axis=1, keepdims=True)
    expected = {
        "silhouette": oracle.silhouette_score(blobs.x, blobs.y, metric="cosine"),
        "davies_bouldin": oracle.davies_bouldin_score(unit, blobs.y),
        "calinski_harabasz": oracle.calinski_harabasz_score(unit, blobs.y),
    }
    assert scores == pytest.approx(expected, rel=1e-4)


def test_silhouette_of_many_rows_is_of_a_sample(blobs):
    rows = model_selection.sampled_rows(300, 100, 3)
    assert len(np.unique(rows)) == 100
    assert set(rows) <= set(range(300))
    assert np.any(rows != model_selection.sampled_rows(300, 100, 4))
    scores = model_selection.internal_scores(blobs.x, blobs.y, sample=100, seed=3)
    assert scores["silhouette"] == pytest.approx(oracle.silhouette_score(blobs.x[rows], blobs.y[rows]), abs=1e-5)
    assert scores["davies_bouldin"] == pytest.approx(oracle.davies_bouldin_score(blobs.x, blobs.y), rel=1e-4)


@pytest.mark.parametrize("labels", [np.zeros(300, int), np.arange(300)], ids=["one cluster", "a cluster a row"])
def test_scores_that_are_undefined_are_nan(blobs, labels):
    assert np.isnan(list(model_selection.internal_scores(blobs.x, labels).values())).all()

"""Estimators with one center per cluster agree with scikit-learn's, and with the functions that they call."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pytest
import sklearn.cluster
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster.cluster import balanced, bisecting, constrained, kmeans, minibatch
from jaxcluster.estimators import ESTIMATORS, BisectingKMeans, KMeans, MiniBatchKMeans
from jaxcluster.estimators.base import CenterEstimator
from jaxcluster.types import Status

CENTERS = [name for name in ESTIMATORS if issubclass(ESTIMATORS[name], CenterEstimator)]
"""Estimators that label rows by the nearest center."""

SETS = {"iris": (load_iris, 3), "wine": (load_wine, 3), "digits": (load_digits, 10)}

# What scikit-learn's own three estimators are excused from: a weighted row is drawn by other random numbers than its
# copies. The contract tests of the functions hold both to the same start instead.
EXCUSED = {f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")}

# The cheapest starts: what there is to compile is most of the cost of a check.
CHECKED = [
    KMeans(n_clusters=3, init="random", n_init=1),
    MiniBatchKMeans(n_clusters=3, init="random", n_init=1, batch_size=8),
    BisectingKMeans(n_clusters=3),
]


@parametrize_with_checks(CHECKED)
def test_scikit_learn_contract(estimator, check):
    if getattr(check, "func", check).__name__ in EXCUSED:
        pytest.xfail("random streams differ between weights and copies")
    check(estimator)


@pytest.fixture(scope="module", params=SETS)
def case(request):
    """A real set, weights for its rows, and starting centers that both libraries are given."""
    load, k = SETS[request.param]
    x = load().data
    rng = np.random.default_rng(5)
    return x, rng.integers(1, 5, len(x)).astype(float), x[rng.choice(len(x), k, replace=False)], k


@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans_of_the_same_start_is_scikit_learns(case, weighted):
    x, weights, init, k = case
    weights = weights if weighted else None
    ours = KMeans(k, init=init, n_init=1).fit(x, sample_weight=weights)
    theirs = sklearn.cluster.KMeans(k, init=init, n_init=1).fit(x, sample_weight=weights)
    assert np.mean(ours.labels_ == theirs.labels_) >= 0.999
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-4)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-3, atol=1e-3)
    assert np.mean(ours.predict(x[::2]) == theirs.predict(x[::2])) >= 0.999
    np.testing.assert_allclose(ours.transform(x[:40]), theirs.transform(x[:40]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.score(x, sample_weight=weights), theirs.score(x, sample_weight=weights), rtol=1e-4)


@pytest.mark.parametrize("name", ["cluster_centers_", "labels_", "inertia_", "n_iter_", "n_features_in_"])
def test_attributes_have_scikit_learns_types(blobs, name):
    ours = getattr(KMeans(4, random_state=0).fit(blobs.x), name)
    theirs = getattr(sklearn.cluster.KMeans(4, random_state=0).fit(blobs.x), name)
    assert isinstance(ours, type(theirs))
    if isinstance(ours, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert ours.flags.writeable


def test_partial_fit_equals_scikit_learn(blobs):
    options = {"init": blobs.x[:4], "n_init": 1, "reassignment_ratio": 0.0}
    ours, theirs = MiniBatchKMeans(4, **options), sklearn.cluster.MiniBatchKMeans(4, **options)
    weights = np.random.default_rng(2).uniform(0.5, 2, 300)
    for batch in np.split(np.arange(300), 3):
        ours.partial_fit(blobs.x[batch], sample_weight=weights[batch])
        theirs.partial_fit(blobs.x[batch], sample_weight=weights[batch])
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-4)
    assert ours.n_steps_ == theirs.n_steps_ == len(ours.history_) == 3


@pytest.mark.parametrize("name", CENTERS)
def test_separate_clusters_as_in_scikit_learn(blobs, name):
    cls = ESTIMATORS[name]
    ours = cls(4, n_init=3, random_state=0).fit(blobs.x)
    # What scikit-learn has no class for is k-means with bounds that four even blobs keep to by themselves.
    theirs = getattr(sklearn.cluster, cls.__name__, sklearn.cluster.KMeans)(4, n_init=3, random_state=0).fit(blobs.x)
    assert adjusted_rand_score(blobs.y, ours.labels_) == adjusted_rand_score(blobs.y, theirs.labels_) == 1
    # Mini-batch centers are noisy means, so their inertia is a little above the least.
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=0.02 if cls is MiniBatchKMeans else 1e-4)
    if cls is not BisectingKMeans:  # its tree decides
        # Beside the squares of samples so far away, those of the centers are lost in float32.
        far = blobs.x.astype(np.longdouble) * 1e9
        exact = np.square(far[:, None] - ours.cluster_centers_).sum(axis=-1).argmin(axis=1)
        np.testing.assert_array_equal(ours.predict(far.astype(float)), exact)


FUNCTIONS = {
    "kmeans": lambda key, x: kmeans.fit(key, x, 4, n_init=3),
    "minibatch-kmeans": lambda key, x: minibatch.fit(key, x, 4, n_init=3, batch_size=300),
    "bisecting-kmeans": lambda key, x: bisecting.fit(key, x, 4, n_init=3),
    "balanced-kmeans": lambda key, x: balanced.fit(key, x, 4, n_init=3),
    "constrained-kmeans": lambda key, x: constrained.fit(key, x, 4, n_init=3),
}


@pytest.mark.parametrize("name", CENTERS)
def test_numbers_are_those_of_the_function(blobs, name):
    estimator = ESTIMATORS[name](4, n_init=3, random_state=7).fit(blobs.x)
    fit = FUNCTIONS[name](jax.random.key(7), blobs.x)
    np.testing.assert_array_equal(estimator.cluster_centers_, fit.state.centers)
    np.testing.assert_array_equal(estimator.labels_, fit.labels)
    np.testing.assert_array_equal(estimator.history_, fit.history[: int(fit.steps)])
    assert estimator.inertia_ == float(fit.state.inertia)
    assert estimator.status_ == int(fit.status)
    np.testing.assert_array_equal(estimator.predict(blobs.x), estimator.labels_)


def test_the_cosine_metric_reaches_every_function(blobs):
    start = blobs.x[:4]
    estimator = KMeans(4, init=start, metric="cosine").fit(blobs.x)
    fit = kmeans.fit(jax.random.key(0), blobs.x, 4, init=start, metric="cosine")
    np.testing.assert_array_equal(estimator.cluster_centers_, fit.state.centers)
    np.testing.assert_array_equal(estimator.predict(blobs.x), fit.labels)
    unit = blobs.x / np.linalg.norm(blobs.x, axis=1, keepdims=True)
    np.testing.assert_allclose(estimator.transform(blobs.x), 1 - unit @ estimator.cluster_centers_.T, atol=1e-5)
    np.testing.assert_allclose(estimator.score(blobs.x), -estimator.inertia_, rtol=1e-5)


def test_a_row_without_direction_is_in_cluster_0(blobs):
    """Its cosine distance to all centers is the same, and ties go to the lower index, in the fit as in predict."""
    x = blobs.x.copy()
    x[-1] = 0
    estimator = KMeans(4, init=blobs.x[:4], metric="cosine").fit(x)
    assert estimator.labels_[-1] == 0
    np.testing.assert_array_equal(estimator.predict(x), estimator.labels_)


def test_frozen_centers_stay(blobs):
    start = blobs.centers + 1
    estimator = KMeans(4, init=start, frozen=[True, False, True, False]).fit(blobs.x)
    np.testing.assert_array_equal(estimator.cluster_centers_[::2], start[::2])
    assert np.abs(estimator.cluster_centers_[1::2] - start[1::2]).min() > 0.1


def test_elkan_gives_the_result_of_lloyd(blobs):
    lloyd, elkan = (KMeans(4, algorithm=name, random_state=0).fit(blobs.x) for name in ("lloyd", "elkan"))
    np.testing.assert_array_equal(lloyd.cluster_centers_, elkan.cluster_centers_)


def test_x_is_never_changed(blobs):
    x = blobs.x.astype(np.float64)
    KMeans(4, copy_x=False, random_state=0).fit(x)
    np.testing.assert_array_equal(x, blobs.x)


@pytest.mark.parametrize("cls", [KMeans, MiniBatchKMeans, BisectingKMeans])
def test_fewer_distinct_rows_than_clusters_are_told(cls):
    with pytest.warns(ConvergenceWarning, match="X has 2 distinct rows of positive weight: pass fewer clusters"):
        model = cls(4, random_state=0).fit(np.repeat(np.eye(2), 10, axis=0))
    assert model.status_ == Status.EMPTY_CLUSTERS


@pytest.mark.parametrize("cls", [KMeans, MiniBatchKMeans])
def test_a_callable_is_called_as_scikit_learn_calls_it(blobs, cls):
    calls = []

    def start(x, n_clusters, random_state):
        calls.append(random_state)
        return x[random_state.choice(len(x), n_clusters, replace=False)]

    estimator = cls(4, init=start, n_init=2, random_state=0).fit(blobs.x)
    assert len(calls) == 2
    assert isinstance(calls[0], np.random.RandomState)
    assert adjusted_rand_score(blobs.y, estimator.labels_) > 0.5
    np.testing.assert_array_equal(clone(estimator).fit(blobs.x).labels_, estimator.labels_)


def test_each_split_starts_from_a_callable(blobs):
    X = blobs.x.astype(np.float64)
    clusters = []

    def start(x, n_clusters, random_state):
        clusters.append(x)
        return x[random_state.choice(len(x), n_clusters, replace=False)]

    model = BisectingKMeans(n_clusters=3, init=start, n_init=2, random_state=0).fit(X)
    assert len(clusters) == 4
    np.testing.assert_array_equal(clusters[0], X)
    first, second = (X[model.labels_ == j] for j in (1, 2))
    kept = X[model.labels_ != 1] if model._tree["parents"][1] == 0 else np.concatenate([first, second])
    assert sorted(map(tuple, clusters[2])) == sorted(map(tuple, kept))
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    means = [X[model.labels_ == j].mean(0) for j in range(3)]
    np.testing.assert_allclose(model.cluster_centers_, means, rtol=1e-5, atol=1e-5)
    wrong = BisectingKMeans(n_clusters=3, init=lambda x, k, random_state: x[:3])
    with pytest.raises(ValueError, match="does not match the number of clusters 2"):
        wrong.fit(X)


def test_the_best_start_of_a_callable_wins(blobs):
    given = iter([np.repeat(blobs.x[:1], 4, axis=0) + np.arange(4)[:, None] * 0.01, blobs.centers])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = KMeans(4, init=lambda x, k, random_state: next(given), n_init=2).fit(blobs.x)
    best = KMeans(4, init=blobs.centers, n_init=1).fit(blobs.x)
    assert estimator.inertia_ == best.inertia_


def test_history_ends_at_the_inertia(blobs):
    estimator = KMeans(4, random_state=0).fit(blobs.x)
    assert estimator.history_.shape == (estimator.n_iter_,)
    assert np.all(np.diff(estimator.history_) <= 1e-3)
    np.testing.assert_allclose(estimator.history_[-1], estimator.inertia_, rtol=1e-4)


def test_verbose_prints_a_line_a_step(blobs, capsys):
    estimator = KMeans(4, random_state=0, verbose=1).fit(blobs.x)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == estimator.n_iter_ + 2
    assert lines[0] == "Initialization complete"
    assert lines[1].startswith("Iteration 0, inertia ")
    assert lines[-1] == f"Converged at iteration {estimator.n_iter_ - 1}: strict convergence."


@pytest.mark.parametrize("name", CENTERS)
def test_the_repr_says_what_was_fitted(blobs, name):
    estimator = ESTIMATORS[name](4, random_state=0)
    unfitted = repr(estimator)
    assert unfitted == f"{type(estimator).__name__}(n_clusters=4, random_state=0)"
    estimator.fit(blobs.x)
    assert repr(estimator).startswith(f"{unfitted} fitted on 300×5: inertia {estimator.inertia_:.4g}, ")
    assert repr(estimator).endswith(" converged")
    assert "fitted on 300×5" in estimator._repr_html_()


def test_labels_are_left_out_on_request(blobs):
    estimator = MiniBatchKMeans(4, random_state=0, compute_labels=False).fit(blobs.x)
    labeled = MiniBatchKMeans(4, random_state=0).fit(blobs.x)
    assert not hasattr(estimator, "labels_")
    assert estimator.inertia_ == labeled.inertia_
    assert "fitted on 5 columns" in repr(estimator)
    assert not hasattr(MiniBatchKMeans(4, compute_labels=False).partial_fit(blobs.x[:100]), "inertia_")


def test_partial_fit_goes_on_from_a_fit(blobs):
    estimator = MiniBatchKMeans(4, random_state=0).fit(blobs.x)
    steps, seen = estimator.n_steps_, estimator._stream_state["counts"].sum()
    estimator.partial_fit(blobs.x[:100])
    assert estimator.n_steps_ == steps + 1 == len(estimator.history_)
    assert estimator._stream_state["counts"].sum() == seen + 100
    assert estimator.status_ == Status.MAX_STEPS


@pytest.mark.parametrize("name", ["kmeans", "bisecting-kmeans"])
def test_too_few_distinct_rows_are_warned_of(name):
    x = np.repeat(np.eye(3, 5), 100, axis=0)
    message = r"Number of distinct clusters \(3\) found smaller than n_clusters \(4\).*duplicate.*fewer clusters"
    with pytest.warns(ConvergenceWarning, match=message):
        estimator = ESTIMATORS[name](4, random_state=0).fit(x)
    assert estimator.status_ == Status.EMPTY_CLUSTERS


def test_squares_beyond_float32_are_no_matter(blobs):
    estimator = KMeans(4, random_state=0).fit(blobs.x * np.float32(1e37))
    assert estimator.status_ == Status.CONVERGED
    assert adjusted_rand_score(blobs.y, estimator.labels_) == 1
    np.testing.assert_allclose(estimator.inertia_ * 1e-74, KMeans(4, random_state=0).fit(blobs.x).inertia_, rtol=1e-5)


def test_max_steps_is_a_status_and_no_warning(blobs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = KMeans(4, init=blobs.x[:4], n_init=1, max_iter=1).fit(blobs.x)
    assert estimator.status_ == Status.MAX_STEPS
    assert repr(estimator).endswith("1 step, step limit reached")


def test_given_centers_run_once_whatever_n_init_says(blobs):
    with pytest.warns(RuntimeWarning, match="only one init in KMeans instead of n_init=5"):
        KMeans(4, init=blobs.centers, n_init=5).fit(blobs.x)


def test_a_small_init_size_is_raised_with_a_warning(blobs):
    with pytest.warns(RuntimeWarning, match="init_size=2 should be larger than n_clusters=4"):
        MiniBatchKMeans(4, init=blobs.centers, init_size=2).fit(blobs.x)

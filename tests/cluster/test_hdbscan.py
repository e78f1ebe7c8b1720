"""HDBSCAN finds what scikit-learn's finds, and places new rows by the definitions of the package hdbscan."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris, load_wine, make_blobs, make_moons

from jaxcluster.cluster import hdbscan
from jaxcluster.cluster.hdbscan.inference import nearest_reachable, query_distances
from jaxcluster.cluster.hdbscan.tree import cluster_to_label
from jaxcluster.types import Status


def theirs(x, min_cluster_size=5, **options):
    return sklearn.cluster.HDBSCAN(min_cluster_size, copy=True, **options).fit(x)


def assert_same(x, min_cluster_size=5, **options):
    """Labels and probabilities, the labels of the same rows as new ones, and cuts."""
    fit = hdbscan.fit(x, min_cluster_size=min_cluster_size, **options)
    expected = theirs(x, min_cluster_size, **options)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    np.testing.assert_allclose(hdbscan.probabilities(fit.state), expected.probabilities_, rtol=1e-9)
    np.testing.assert_array_equal(hdbscan.approximate_predict(fit.state, x)[0], expected.labels_)
    for distance in np.quantile(fit.state.merges[:, 2], [0.2, 0.8, 0.97]):
        cut = hdbscan.dbscan_clustering(fit.state, distance + 1e-6, min_cluster_size=4)
        np.testing.assert_array_equal(cut, expected.dbscan_clustering(distance + 1e-6, 4))
    return fit


SETS = {
    "blobs": make_blobs(600, 2, centers=5, random_state=1)[0],
    "moons": make_moons(400, noise=0.08, random_state=0)[0],
    "uniform": np.random.default_rng(2).uniform(size=(700, 2)),
    "wide": make_blobs(500, 10, centers=4, random_state=2)[0],
    "iris": load_iris().data,
    "wine": load_wine().data,
    "one dense cluster": np.random.default_rng(0).normal(size=(400, 3)) * np.array([[1e-3]] * 200 + [[1.0]] * 200),
    "all rows equal": np.full((40, 2), 7.0),
    "copies of a few rows": np.random.default_rng(1).normal(size=(6, 2)).repeat(7, axis=0),
    "a heap of copies among others": np.concatenate([np.zeros((9, 2)), np.random.default_rng(1).normal(size=(40, 2))]),
    "two rows": np.array([[0.0], [1.0]]),
    "far from the origin": make_moons(300, noise=0.05, random_state=0)[0] + 1e5,
}


@pytest.mark.parametrize("min_cluster_size", [5, 15])
@pytest.mark.parametrize("name", SETS)
def test_labels_are_scikit_learns(name, min_cluster_size):
    x = SETS[name]
    fit = assert_same(x, min_cluster_size, min_samples=min(5, len(x)))
    assert fit.labels.dtype == np.int32
    assert int(fit.status) == Status.CONVERGED
    assert int(fit.steps) == len(x) - 1


OPTIONS = [
    {"min_samples": 1},
    {"min_samples": 12},
    {"cluster_selection_method": "leaf"},
    {"allow_single_cluster": True},
    {"allow_single_cluster": True, "cluster_selection_method": "leaf"},
    {"max_cluster_size": 60},
    {"max_cluster_size": 60, "cluster_selection_method": "leaf"},
    {"alpha": 0.6},
]


@pytest.mark.parametrize("name", ["blobs", "uniform", "wide", "wine"])
def test_labels_of_many_rows_are_scikit_learns(name, monkeypatch):
    """As if there were many: by Borůvka."""
    monkeypatch.setattr("jaxcluster.ops.spanning_tree.PRIM_ROWS", 100)
    assert_same(SETS[name], 8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["blobs", "moons", "uniform", "wine"])
def test_options(name, options):
    assert_same(SETS[name], 6, **options)


@pytest.mark.parametrize("metric", ["manhattan", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("name", ["blobs", "moons", "wine"])
def test_other_metrics(name, metric):
    x = SETS[name]
    fit = hdbscan.fit(x, min_cluster_size=8, metric=metric)
    expected = theirs(x, 8, metric=metric)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    # 1 − cos of rows that point the same way has few digits left.
    tolerance = {"atol": 1e-4} if metric == "cosine" else {"rtol": 1e-9}
    np.testing.assert_allclose(hdbscan.probabilities(fit.state), expected.probabilities_, **tolerance)


def test_minkowski():
    fit = hdbscan.fit(SETS["moons"], metric="minkowski", p=3)
    np.testing.assert_array_equal(fit.labels, theirs(SETS["moons"], metric="minkowski", metric_params={"p": 3}).labels_)


@pytest.mark.parametrize("name", ["blobs", "moons", "uniform"])
def test_distances_in_place_of_rows(name):
    x = SETS[name][:300]
    distances = cdist(x, x)
    fit = assert_same(distances, 7, metric="precomputed", min_samples=4)
    measured = hdbscan.fit(x, min_cluster_size=7, min_samples=4, metric=cdist)
    np.testing.assert_array_equal(measured.labels, fit.labels)
    full = scipy.sparse.csr_array(distances)  # all but the distances from each row to itself
    sparse = hdbscan.fit(full, min_cluster_size=7, min_samples=4, metric="precomputed")
    np.testing.assert_array_equal(sparse.labels, fit.labels)


def in_two_parts():
    distances = np.full((16, 16), np.inf)
    for part in (slice(0, 8), slice(8, 16)):
        x = np.random.default_rng(part.start).normal(size=(8, 2))
        distances[part, part] = cdist(x, x)
    return distances


def test_disconnected_parts_are_joined_at_infinity():
    with pytest.warns(UserWarning, match="2 parts with no known distance"):
        fit = hdbscan.fit(in_two_parts(), min_cluster_size=4, metric="precomputed")
    with pytest.warns(UserWarning, match="infinity"):
        expected = theirs(in_two_parts(), 4, metric="precomputed")
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    assert np.isinf(fit.state.merges[-1, 2])


def test_sparse_distances_of_two_parts_are_refused():
    distances = in_two_parts()
    sparse = scipy.sparse.csr_array(np.where(np.isinf(distances), 0, distances))
    with pytest.raises(ValueError, match="1 of the 15 edges.*2 parts with no known distance"):
        hdbscan.fit(sparse, min_cluster_size=4, metric="precomputed")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_other_types_of_numbers(dtype):
    assert_same((SETS["blobs"] * 1e6).astype(dtype), 8)


def test_clusters_do_not_split_below_epsilon():
    """Two pairs of groups: the groups of each are 1 apart, the pairs 10."""
    group = np.arange(8) * 0.01
    x = np.concatenate([group, group + 1, group + 10, group + 11])[:, None]
    by_epsilon = {0.0: 4, 0.5: 4, 2.0: 2, 20.0: 2}
    for epsilon, count in by_epsilon.items():
        for method in ("eom", "leaf"):
            options = {"cluster_selection_method": method, "cluster_selection_epsilon": epsilon}
            assert hdbscan.fit(x, **options).labels.max() + 1 == count
    labels = hdbscan.fit(x, cluster_selection_epsilon=20.0, allow_single_cluster=True).labels
    np.testing.assert_array_equal(labels, np.zeros(32))


def test_rows_below_epsilon_of_one_cluster_are_noise():
    x = np.append(np.arange(20) * 0.1, 9.0)[:, None]
    options = {"min_cluster_size": 5, "allow_single_cluster": True}
    fit = hdbscan.fit(x, cluster_selection_epsilon=1.0, **options)
    np.testing.assert_array_equal(fit.labels, [0] * 20 + [-1])
    labels, strengths = hdbscan.approximate_predict(fit.state, [[0.95], [5.0], [8.9]])
    np.testing.assert_array_equal(labels, [0, -1, -1])
    np.testing.assert_array_equal(strengths > 0, [True, False, False])


@pytest.fixture(scope="module")
def split():
    """A fit, and new rows near and far."""
    x = SETS["uniform"]
    rng = np.random.default_rng(9)
    return hdbscan.fit(x, min_cluster_size=10, min_samples=4).state, rng.uniform(-0.2, 1.2, size=(80, 2))


def plainly_met(state, x):
    """The row each reaches first, of several the nearest, and the density at which it does."""
    distances = cdist(x, state.x)
    core = np.sort(distances, axis=1)[:, state.min_samples - 1]
    reach = np.maximum(np.maximum(distances, state.core), core[:, None])
    least = reach.min(axis=1)
    return np.where(reach == least[:, None], distances, np.inf).argmin(axis=1), 1 / least


def test_new_rows_join_the_row_they_reach_first(split):
    state, x = split
    tree = state.condensed
    parents, births = tree.parents_and_births()
    clusters, levels = tree.row_exits()
    numbers = cluster_to_label(tree, state.selected - tree.n)
    labels, strengths = hdbscan.approximate_predict(state, x)
    assert (labels >= 0).any()
    assert (labels == -1).any()
    for i, (neighbor, level) in enumerate(zip(*plainly_met(state, x), strict=True)):
        cluster = clusters[neighbor]
        while levels[neighbor] > level and cluster > 0 and births[cluster] >= level:
            cluster = parents[cluster]
        assert labels[i] == numbers[cluster]
        last = tree.cluster_deaths()[state.selected[labels[i]] - tree.n]
        expected = min(level, last) / last if labels[i] >= 0 else 0.0
        np.testing.assert_allclose(strengths[i], expected, rtol=1e-12)


@pytest.mark.parametrize(
    "metric", ["euclidean", "cosine", "precomputed", cdist], ids=lambda m: getattr(m, "__name__", m)
)
def test_new_rows_by_any_metric(metric):
    x, new = SETS["blobs"][:300], SETS["blobs"][300:330]
    given = metric == "precomputed"
    fit = hdbscan.fit(cdist(x, x) if given else x, metric=metric)
    labels, strengths = hdbscan.approximate_predict(fit.state, cdist(new, x) if given else new)
    assert ((strengths > 0) == (labels >= 0)).all()
    if metric != "cosine":
        expected = hdbscan.approximate_predict(hdbscan.fit(x).state, new)
        np.testing.assert_array_equal(labels, expected[0])
        np.testing.assert_allclose(strengths, expected[1], rtol=1e-12)


def test_a_new_row_without_direction_is_far_from_all():
    x = np.concatenate([make_blobs(40, 2, centers=[[9, 1], [1, 9]], random_state=0)[0], [[-5.0, -5.0]]])
    state = hdbscan.fit(x, metric="cosine").state
    labels, _ = hdbscan.approximate_predict(state, [[0.0, 0.0], [18.0, 2.0]])
    assert labels[0] == -1
    assert labels[1] >= 0


def test_dense_far_row_is_reached_before_nearer_ones():
    """The four rows that are looked at first are thin, and what is dense lies just beyond them."""
    thin = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 1.4], [0.0, -1.4]])
    dense = np.array([[-1.5, 0.0]]) + 1e-3 * np.random.default_rng(0).normal(size=(20, 2))
    x = np.concatenate([thin * 10, dense * 10, [[90.0, 0.0], [0.0, 90.0]]])
    state = hdbscan.fit(x, min_samples=3, allow_single_cluster=True).state._replace(min_samples=2)
    neighbors, levels = plainly_met(state, np.zeros((1, 2)))
    assert np.argsort(cdist(np.zeros((1, 2)), x)[0])[:4].tolist() == [0, 1, 2, 3]
    assert neighbors[0] >= 4
    found, reach = nearest_reachable(state, query_distances(state, np.zeros((1, 2))))
    np.testing.assert_array_equal(found, neighbors)
    np.testing.assert_allclose(1 / reach, levels, rtol=1e-12)


def test_outlier_scores_are_glosh(split):
    tree = split[0].condensed
    parents, _ = tree.parents_and_births()
    clusters, levels = tree.row_exits()
    expected = np.empty(tree.n)
    for row in range(tree.n):
        below = {clusters[row]}
        for cluster in range(tree.clusters):
            below |= {cluster} if parents[cluster] in below else set()
        expected[row] = 1 - levels[row] / tree.lambda_val[np.isin(tree.parent - tree.n, list(below))].max()
    np.testing.assert_allclose(hdbscan.outlier_scores(split[0]), expected, atol=1e-15)
    assert 0 < expected.max() < 1


def test_lone_row_scores_highest_and_copies_zero():
    x = np.concatenate([np.zeros((9, 2)), make_blobs(50, 2, centers=[[5, 5]], random_state=0)[0], [[40.0, 40.0]]])
    scores = hdbscan.outlier_scores(hdbscan.fit(x).state)
    assert scores.argmax() == len(x) - 1
    np.testing.assert_array_equal(scores[:9], np.zeros(9))


def plain_memberships(state, x=None):
    """The definition, row by row and cluster by cluster."""
    tree, selected = state.condensed, (state.selected - state.condensed.n).tolist()
    parents, births = tree.parents_and_births()
    clusters, levels = tree.row_exits()
    last = tree.cluster_deaths()
    if x is not None:
        neighbors, levels_of_new = plainly_met(state, x)
        clusters, levels = clusters[neighbors], np.minimum(levels[neighbors], levels_of_new)

    def line(cluster):
        return [cluster] if cluster == 0 else [cluster, *line(parents[cluster])]

    trace = 1e-8 * last[np.isfinite(last)].max()
    exemplars = []
    for cluster in selected:
        leaves = [each for each in range(tree.clusters) if each not in parents and cluster in line(each)]
        own, left = tree.row_exits()
        exemplars.append(state.x[[row for row in range(tree.n) if own[row] in leaves and left[row] == last[own[row]]]])
    rows = state.x if x is None else x
    out = np.empty((len(rows), len(selected)))
    all_scores = np.empty_like(out)
    heights = np.empty_like(out)
    for i, (cluster, level) in enumerate(zip(clusters, levels, strict=True)):
        for j, other in enumerate(selected):
            mine, its = line(cluster), line(other)
            within = cluster in its or other in mine
            heights[i, j] = level if within else births[next(each for each in mine if parents[each] in its)]
            margin = max(last[cluster] - heights[i, j], trace if last[cluster] <= heights[i, j] else 0)
            all_scores[i, j] = np.exp(-(last[cluster] + trace) / heights[i, j]) if x is None else last[cluster] / margin
    for i in range(len(rows)):
        near = 1 / np.maximum([cdist(rows[i : i + 1], group).min() for group in exemplars], 1e-300)
        outlying = np.exp(all_scores[i] - all_scores[i].max())
        near, outlying = near / near.sum(), outlying / outlying.sum()
        odds = near * outlying if x is None else np.sqrt(near) * outlying**2
        most = max(last[selected[heights[i].argmax()]], levels[i]) + (0 if x is None else trace)
        out[i] = odds / odds.sum() * heights[i].max() / most
    return out


def test_membership_vectors_are_their_definition(split):
    state, x = split
    for rows in (None, x):
        vectors = hdbscan.membership_vectors(state, rows)
        np.testing.assert_allclose(vectors, plain_memberships(state, rows), rtol=1e-9, atol=1e-12)
        assert (vectors.sum(axis=1) <= 1 + 1e-12).all()
    inside = state.labels >= 0
    own = hdbscan.membership_vectors(state)[inside].argmax(axis=1)
    assert (own == state.labels[inside]).mean() > 0.9


@pytest.mark.parametrize("name", ["all rows equal", "copies of a few rows", "a heap of copies among others"])
@pytest.mark.parametrize("allow_single_cluster", [False, True])
def test_copies_leave_nothing_undefined(name, allow_single_cluster):
    x = SETS[name]
    state = hdbscan.fit(x, allow_single_cluster=allow_single_cluster).state
    for rows in (None, x, x + 0.01):
        vectors = hdbscan.membership_vectors(state, rows)
        assert vectors.shape == (len(x), len(state.selected))
        assert np.isfinite(vectors).all()
    scores = hdbscan.outlier_scores(state)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_centers_are_weighted_means_and_medoids():
    state = hdbscan.fit(SETS["blobs"], min_cluster_size=10).state
    expected = theirs(SETS["blobs"], 10, store_centers="both")
    np.testing.assert_allclose(hdbscan.centroids(state), expected.centroids_, rtol=1e-12)
    np.testing.assert_array_equal(hdbscan.medoids(state), expected.medoids_)
    noise = hdbscan.fit(SETS["two rows"], min_samples=1).state
    assert hdbscan.centroids(noise).shape == hdbscan.medoids(noise).shape == (0, 1)


def test_the_order_of_rows_only_names_clusters():
    x = make_blobs(300, 2, centers=4, cluster_std=0.5, random_state=3)[0]
    order = np.random.default_rng(0).permutation(300)
    labels, shuffled = np.asarray(hdbscan.fit(x).labels), np.asarray(hdbscan.fit(x[order]).labels)
    pairs = set(zip(labels[order].tolist(), shuffled.tolist(), strict=True))
    assert len(pairs) == len(np.unique(labels)) == 4


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.eye(9), {"min_cluster_size": 1}, "min_cluster_size=1 must be at least 2"),
        (np.eye(9), {"min_samples": 0}, "min_samples=0 must be at least 1"),
        (np.eye(9), {"min_samples": 10}, r"min_samples \(10\) must be at most n_samples=9"),
        (np.eye(4), {}, r"min_samples \(5\) must be at most n_samples=4.*smaller min_samples"),
        (np.eye(9), {"max_cluster_size": 0}, "max_cluster_size=0 must be at least 1"),
        (np.eye(9), {"alpha": 0}, "alpha=0 must be greater than 0"),
        (np.eye(9), {"cluster_selection_epsilon": -1.0}, "cluster_selection_epsilon=-1.0 must be at least 0"),
        (np.eye(9), {"cluster_selection_method": "eon"}, "'eon' is not known.*'leaf'.*Did you mean 'eom'"),
        (np.eye(9), {"metric": "euclid"}, "'euclid' is not known.*Did you mean 'euclidean'"),
        (np.ones((1, 3)), {}, "n_samples=1, but HDBSCAN needs at least 2"),
        (np.array([[np.nan, 1]] * 6), {}, "6 NaN"),
        (np.ones(3), {}, "2-D"),
        (np.ones((6, 5)), {"metric": "precomputed"}, "square"),
        (np.arange(36.0).reshape(6, 6), {"metric": "precomputed"}, "symmetric"),
        (-np.ones((6, 6)), {"metric": "precomputed"}, "must not be negative"),
    ],
)
def test_bad_input(x, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        hdbscan.fit(x, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda state: hdbscan.approximate_predict(state, np.ones((2, 3))), "x has 3 columns.*fitted on 2"),
        (lambda state: hdbscan.membership_vectors(state, [[np.inf]]), "x has 1 columns.*fitted on 2"),
        (lambda state: hdbscan.dbscan_clustering(state, 0.0), "cut_distance=0.0 must be greater than 0"),
        (
            lambda state: hdbscan.dbscan_clustering(state, 1.0, min_cluster_size=0),
            "min_cluster_size=0 must be at least 1",
        ),
    ],
)
def test_bad_input_after_the_fit(split, call, message):
    with pytest.raises(ValueError, match=message):
        call(split[0])


def test_new_distances_must_be_from_all_rows():
    distances = cdist(SETS["iris"], SETS["iris"])
    state = hdbscan.fit(distances, metric="precomputed").state
    with pytest.raises(ValueError, match=r"shape \(2, 9\).*all 150 rows"):
        hdbscan.approximate_predict(state, np.ones((2, 9)))
    with pytest.raises(ValueError, match="NaN or negative"):
        hdbscan.approximate_predict(state, -distances)
    with pytest.raises(ValueError, match="no centers where metric='precomputed'"):
        hdbscan.medoids(state)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad], ids=["jit", "grad"])
def test_under_a_transformation_it_says_why_not(transform):
    with pytest.raises(TypeError, match="its labels have no gradient"):
        transform(lambda x: hdbscan.fit(x, min_samples=2).labels.sum().astype(float))(np.eye(5))

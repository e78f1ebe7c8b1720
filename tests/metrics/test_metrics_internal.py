"""Scores of a labeling by its rows: equal to scikit-learn's, small in memory, and indifferent to unit and offset."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from jax_switches import LEAKS, STRICT, switched
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris

from jaxcluster import metrics
from jaxcluster.metrics import internal, silhouette
from jaxcluster.metrics.contingency import encode
from jaxcluster.sharding import row_mesh

N, D, K = 300, 6, 5
RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(K, D)) * 2
Y = RNG.integers(0, K, N)
X = (CENTERS[Y] + RNG.normal(size=(N, D))).astype(np.float32)
NAMES = ["euclidean", "sqeuclidean", "cosine", "manhattan"]
SCORES = ["silhouette_score", "davies_bouldin_score", "calinski_harabasz_score"]

LABELINGS = {
    "good": Y,
    "random": RNG.integers(0, 3, N),
    "two": (X[:, 0] > 0).astype(np.int8),
    "more": np.arange(N) // 38,
    "almost_all_distinct": np.maximum(np.arange(N), 1),
    "one_singleton": np.where(np.arange(N) == 7, 9, Y),
    "strings": np.array(["setosa", "b", "c", "versicolor", "e"])[Y],
    "negative": Y * 1000 - 1,
    "unbalanced": (np.arange(N) >= 270).astype(int),
}


def exact(x, labels, metric="euclidean", **options):
    """scikit-learn's silhouettes of float64 distances taken from differences, without cancellation."""
    x = np.asarray(x, np.float64)
    return oracle.silhouette_samples(cdist(x, x, metric, **options), labels, metric="precomputed")


@pytest.mark.parametrize("labeling", LABELINGS)
@pytest.mark.parametrize("metric", NAMES)
def test_silhouettes_equal_scikit_learns(metric, labeling):
    labels = LABELINGS[labeling]
    expected = oracle.silhouette_samples(X.astype(np.float64), labels, metric=metric)
    result = metrics.silhouette_samples(X, labels, metric=metric)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
    assert metrics.silhouette_score(X, labels, metric=metric) == pytest.approx(expected.mean(), abs=1e-6)


def test_devices_share_the_tiles_of_silhouettes(monkeypatch):
    monkeypatch.setattr(silhouette, "FUSED_ELEMENTS", 1 << 11)  # five tiles for two devices
    spread = metrics.silhouette_samples(X[:299], Y[:299], mesh=row_mesh())
    np.testing.assert_allclose(spread, exact(X[:299], Y[:299]), atol=2e-6)
    with pytest.raises(ValueError, match="'precomputed' is computed on the host: leave out mesh"):
        metrics.silhouette_score(cdist(X, X), Y, metric="precomputed", mesh=row_mesh())


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_minkowski_silhouettes_equal_scikit_learns(p):
    expected = oracle.silhouette_samples(X.astype(np.float64), Y, metric="minkowski", p=p)
    np.testing.assert_allclose(metrics.silhouette_samples(X, Y, metric="minkowski", p=p), expected, atol=2e-6)


@pytest.mark.parametrize("labeling", LABELINGS)
@pytest.mark.parametrize("name", SCORES[1:])
def test_scatter_scores_equal_scikit_learns(name, labeling):
    expected = getattr(oracle, name)(X.astype(np.float64), LABELINGS[labeling])
    assert getattr(metrics, name)(X, LABELINGS[labeling]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_real_rows(name):
    x, y = load_iris(return_X_y=True)
    assert getattr(metrics, name)(x, y) == pytest.approx(getattr(oracle, name)(x, y), rel=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_arrays_of_any_kind_are_taken(name):
    score = getattr(metrics, name)
    expected = score(X, Y)
    assert isinstance(expected, float)
    assert score(jnp.asarray(X), jnp.asarray(Y)) == expected
    assert score(X.tolist(), Y.tolist()) == pytest.approx(expected, rel=1e-6)
    assert score(np.asfortranarray(X)[::1], Y) == expected
    integers = np.round(X * 10).astype(np.int16)
    assert score(integers, Y) == pytest.approx(getattr(oracle, name)(integers.astype(float), Y), rel=1e-6)


def test_a_callable_metric():
    def chebyshev(x, y):
        return jnp.max(jnp.abs(x[:, None] - y[None, :]), axis=-1)

    np.testing.assert_allclose(metrics.silhouette_samples(X, Y, metric=chebyshev), exact(X, Y, "chebyshev"), atol=2e-6)
    by_row = jax.vmap(jax.vmap(lambda a, b: jnp.sum(jnp.abs(a - b)), (None, 0)), (0, None))
    np.testing.assert_allclose(metrics.silhouette_samples(X, Y, metric=by_row), exact(X, Y, "cityblock"), atol=2e-6)
    with pytest.raises(ValueError, match=r"metric gave shape \(2,\) for matrices of 2 and 3 rows, and .* for two rows"):
        metrics.silhouette_samples(X, Y, metric=lambda x, y: jnp.sum(x, axis=1))


@pytest.mark.parametrize("labeling", LABELINGS)
def test_precomputed_distances(labeling, monkeypatch):
    monkeypatch.setattr(internal, "TILE_ELEMENTS", 7 * N)
    distances = cdist(X, X) * RNG.uniform(1, 2, (N, N))  # of row i in row i: the matrix need not be symmetric
    labels = LABELINGS[labeling]
    expected = oracle.silhouette_samples(distances, labels, metric="precomputed")
    np.testing.assert_allclose(
        metrics.silhouette_samples(distances, labels, metric="precomputed"), expected, atol=1e-12
    )
    single = metrics.silhouette_samples(jnp.asarray(distances, jnp.float32), labels, metric="precomputed")
    np.testing.assert_allclose(single, expected, atol=2e-6)


def test_precomputed_distances_are_checked():
    with pytest.raises(ValueError, match="must be square"):
        metrics.silhouette_samples(X, Y, metric="precomputed")
    with pytest.raises(ValueError, match=r"must not be negative: X\[0, 1\] is -1"):
        metrics.silhouette_score(np.eye(4) - 1, [0, 0, 1, 1], metric="precomputed")
    with pytest.raises(ValueError, match=r"non-zero elements on the diagonal, 1\.0 the largest"):
        metrics.silhouette_samples(np.ones((N, N)), Y, metric="precomputed")
    counts = np.abs(np.arange(N)[:, None] - np.arange(N))
    expected = oracle.silhouette_samples(counts, Y, metric="precomputed")
    np.testing.assert_allclose(metrics.silhouette_samples(counts, Y, metric="precomputed"), expected, atol=1e-12)


@pytest.mark.parametrize("offset", [1e4, 1e6])
@pytest.mark.parametrize("name", SCORES)
def test_an_offset_costs_no_digits(name, offset):
    shifted = X + np.float32(offset)
    near = shifted.astype(np.float64) - offset
    assert getattr(metrics, name)(shifted, Y) == pytest.approx(getattr(oracle, name)(near, Y), rel=1e-5)
    # In float64 an offset leaves the digits of the rows alone, though they are computed in float32.
    wide = X.astype(np.float64) + 100 * offset
    assert getattr(metrics, name)(wide, Y) == pytest.approx(getattr(oracle, name)(X.astype(np.float64), Y), rel=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
def test_offset_silhouettes_row_by_row(metric):
    shifted = X + np.float32(1e4)
    named = "cityblock" if metric == "manhattan" else metric
    np.testing.assert_allclose(
        metrics.silhouette_samples(shifted, Y, metric=metric), exact(shifted, Y, named), atol=1e-5
    )


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_tight_clusters_far_apart(metric):
    centers = CENTERS * 1e5
    centers[1] = centers[0] + 1.5  # two that touch, a hundred thousand of their widths away from the others
    x = (centers[Y] + RNG.normal(size=(N, D))).astype(np.float32)
    np.testing.assert_allclose(metrics.silhouette_samples(x, Y, metric=metric), exact(x, Y, metric), atol=1e-5)
    near = x.astype(np.float64)
    assert metrics.calinski_harabasz_score(x, Y) == pytest.approx(oracle.calinski_harabasz_score(near, Y), rel=1e-5)
    touching = [np.flatnonzero(c == Y) for c in (0, 1)]
    within = [np.linalg.norm(near[own] - near[own].mean(0), axis=1).mean() for own in touching]
    ratio = sum(within) / np.linalg.norm(near[touching[0]].mean(0) - near[touching[1]].mean(0))
    assert metrics.davies_bouldin_score(x, Y) == pytest.approx(2 * ratio / K, rel=1e-3)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
@pytest.mark.parametrize("name", SCORES)
def test_the_unit_does_not_matter(name, unit):
    assert getattr(metrics, name)(X * np.float32(unit), Y) == pytest.approx(getattr(metrics, name)(X, Y), rel=1e-5)


@pytest.mark.parametrize("copies", [1, 2])
def test_distance_to_copies_is_zero(copies):
    # Of the few distances within a cluster those that should be 0 would weigh if they were only nearly 0.
    x = np.repeat(RNG.normal(size=(40, 64)).astype(np.float32) + 30, copies, axis=0)
    labels = np.arange(len(x)) // (2 * copies)
    np.testing.assert_allclose(metrics.silhouette_samples(x, labels), exact(x, labels), atol=2e-6)
    apart = np.repeat(x[::copies], 2, axis=0)
    for metric in ("euclidean", "sqeuclidean"):
        result = metrics.silhouette_samples(apart, np.arange(80) // 2, metric=metric)
        np.testing.assert_array_equal(result, np.ones(80))


@pytest.mark.parametrize("metric", NAMES)
def test_rows_that_are_all_equal_score_zero(metric):
    x = np.full((50, 3), 0.1)
    np.testing.assert_array_equal(metrics.silhouette_samples(x, np.arange(50) % 4, metric=metric), np.zeros(50))


def test_rows_of_zeros_have_cosine_distance_one():
    x = X.copy()
    x[::50] = 0
    expected = oracle.silhouette_samples(x.astype(np.float64), Y, metric="cosine")
    np.testing.assert_allclose(metrics.silhouette_samples(x, Y, metric="cosine"), expected, atol=2e-6)


def test_scores_without_scatter():
    x = np.repeat([[0.1, 0.3], [5.0, 7.0]], 5, axis=0)
    labels = np.repeat([0, 1], 5)
    assert metrics.davies_bouldin_score(x, labels) == oracle.davies_bouldin_score(x, labels) == 0.0
    assert metrics.calinski_harabasz_score(x, labels) == oracle.calinski_harabasz_score(x, labels) == 1.0
    cross = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])  # two clusters with one mean
    assert metrics.davies_bouldin_score(cross, [0, 0, 1, 1]) == oracle.davies_bouldin_score(cross, [0, 0, 1, 1]) == 0.0
    assert metrics.calinski_harabasz_score(cross, [0, 0, 1, 1]) == 0.0


def test_a_million_rows():
    n, k = 1_000_000, 7
    rng = np.random.default_rng(3)
    y = rng.integers(0, k, n)
    x = (rng.normal(size=(k, 3))[y] + rng.normal(size=(n, 3)) + 100).astype(np.float32)
    wide = x.astype(np.float64)
    counts = np.bincount(y)
    means = np.stack([np.bincount(y, wide[:, j]) for j in range(3)], axis=1) / counts[:, None]
    squared = np.sum((wide - means[y]) ** 2, axis=1)
    between = counts @ np.sum((means - wide.mean(axis=0)) ** 2, axis=1)
    calinski_harabasz = between / (k - 1) / (squared.sum() / (n - k))
    assert metrics.calinski_harabasz_score(x, y) == pytest.approx(calinski_harabasz, rel=1e-6)
    within = np.bincount(y, np.sqrt(squared)) / counts
    ratios = (within[:, None] + within) / (cdist(means, means) + np.diag([np.inf] * k))
    assert metrics.davies_bouldin_score(x, y) == pytest.approx(ratios.max(axis=1).mean(), rel=1e-6)


def test_tiles_and_blocks_do_not_matter(monkeypatch):
    many = np.repeat(X, 4, axis=0) + RNG.normal(size=(4 * N, D)).astype(np.float32)
    labels = np.tile(Y, 4)
    whole = {metric: metrics.silhouette_samples(many, labels, metric=metric) for metric in ("euclidean", "manhattan")}
    for name in ("FUSED_ELEMENTS", "CACHED_ELEMENTS"):
        monkeypatch.setattr(silhouette, name, 32 * 97)  # 97 rows, the last tile overlapping the one before
    monkeypatch.setattr(silhouette, "BLOCK_SIZES", (32,))
    for metric, expected in whole.items():
        np.testing.assert_allclose(metrics.silhouette_samples(many, labels, metric=metric), expected, atol=2e-6)


@pytest.mark.parametrize("name", SCORES)
def test_another_size_in_the_bucket_compiles_nothing(name, compiles):
    score = getattr(metrics, name)
    score(X, Y)
    with compiles() as seen:
        score(X[:-7], Y[:-7])
        score(X, np.arange(N) % 3)
        score(X, np.arange(N) % 8)
    assert seen.count == 0


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "manhattan"])
def test_silhouettes_never_build_all_distances(metric):
    n = 8192
    x = RNG.normal(size=(n, 16)).astype(np.float32)
    arguments, program = silhouette.silhouette_arguments(x, encode(np.arange(n) % 10), metric, 2.0) or ((), {})
    compiled = silhouette.tiled_silhouettes.lower(*arguments, **program).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 / 8
    assert f"{n},{n}]" not in compiled.as_text()
    if metric == "euclidean" and jax.default_backend() == "cpu":  # fused: not even a tile of distances is written
        assert compiled.memory_analysis().temp_size_in_bytes < 10 * x.nbytes


def test_a_sample_of_the_rows():
    for state in (0, np.random.RandomState(5)):
        expected = oracle.silhouette_score(X, Y, sample_size=100, random_state=state)
        again = np.random.RandomState(5) if state else state
        assert metrics.silhouette_score(X, Y, sample_size=100, random_state=again) == pytest.approx(expected, abs=1e-6)
    distances = cdist(X, X)
    expected = oracle.silhouette_score(distances, Y, metric="precomputed", sample_size=100, random_state=3)
    result = metrics.silhouette_score(distances, Y, metric="precomputed", sample_size=100, random_state=3)
    assert result == pytest.approx(expected, abs=1e-12)


def test_random_states_of_a_sample(key):
    def sampled(state):
        return metrics.silhouette_score(X, Y, sample_size=100, random_state=state)

    assert sampled(key) == sampled(key) != sampled(jax.random.key(1))
    assert sampled(np.random.default_rng(2)) == sampled(np.random.default_rng(2))
    assert sampled(None) != sampled(None)
    assert metrics.silhouette_score(X, Y, sample_size=10 * N) == pytest.approx(metrics.silhouette_score(X, Y), abs=1e-6)
    with pytest.raises(ValueError, match="sample_size=0"):
        metrics.silhouette_score(X, Y, sample_size=0)
    with pytest.raises(ValueError, match="sample_size=True"):
        metrics.silhouette_score(X, Y, sample_size=True)


@pytest.mark.parametrize("name", [*SCORES, "silhouette_samples"])
def test_bad_input_is_refused(name):
    score = getattr(metrics, name)
    with pytest.raises(
        ValueError,
        match=r"Number of labels is 1. Valid values are 2 to n_samples - 1 \(inclusive\), and n_samples is 300",
    ):
        score(X, np.zeros(N))
    with pytest.raises(ValueError, match="Number of labels is 300"):
        score(X, np.arange(N))
    with pytest.raises(ValueError, match="X has 300 rows but labels has 299"):
        score(X, Y[1:])
    with pytest.raises(ValueError, match="labels must be 1D"):
        score(X, Y[:, None])
    with pytest.raises(ValueError, match="2-D"):
        score(X[:, 0], Y)
    with pytest.raises(TypeError, match="not numeric"):
        score(np.full((N, 2), "a"), Y)
    for dtype in (np.float32, np.float64):
        broken = X.astype(dtype)
        broken[4, 2] = np.nan
        with pytest.raises(ValueError, match="1 NaN values in column 2"):
            score(broken, Y)
    with pytest.raises(TypeError, match=r"needs concrete arrays.*soft_silhouette"):
        jax.jit(lambda x: score(x, Y))(X)


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match=r"metric='euclidian' is not known.*Did you mean 'euclidean'"):
        metrics.silhouette_score(X, Y, metric="euclidian")
    with pytest.raises(ValueError, match=r"p=0.5 must be at least 1"):
        metrics.silhouette_score(X, Y, metric="minkowski", p=0.5)
    with pytest.raises(ValueError, match="metric='yule' is not known.*function of two matrices"):
        metrics.soft_silhouette(X, np.eye(K)[Y], metric="yule")


def test_float64_where_it_is_on():
    with jax.enable_x64(True):
        x = X.astype(np.float64) + 1e4
        result = metrics.silhouette_samples(x, Y)
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, exact(x, Y), atol=1e-11)
        for name in SCORES[1:]:
            assert getattr(metrics, name)(x, Y) == pytest.approx(getattr(oracle, name)(x - 1e4, Y), rel=1e-10)


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_scores_ignore_order_names_and_unit(seed, k):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, N - k)])
    order, names = rng.permutation(N), rng.permutation(50)
    for name in SCORES:
        score = getattr(metrics, name)
        value = score(X, labels)
        assert score(X[order] * np.float32(rng.uniform(0.1, 10)), names[labels][order]) == pytest.approx(
            value, rel=1e-4, abs=1e-6
        )
    samples = metrics.silhouette_samples(X, labels)
    assert (np.abs(samples) <= 1).all()
    np.testing.assert_allclose(metrics.silhouette_samples(X[order], labels[order]), samples[order], atol=2e-6)


# Rows that nobody looked at: on the host, and on the device as if they were many.

UNUSUAL = {
    "offset": lambda x: x.astype(float) + 1e9,
    "far offset": lambda x: np.round(x.astype(float) * 256) / 256 + 1e12,
    "far row": lambda x: np.where(np.arange(len(x))[:, None] == 3, 1e9, x.astype(float)),
    "farther row": lambda x: np.where(np.arange(len(x))[:, None] == 3, 1e12, x.astype(float)),
    "odd column": lambda x: np.column_stack([x.astype(float), 1e5 * (np.arange(len(x)) % 2)]),
    "sentinel": lambda x: np.column_stack([x.astype(float), 1e9 * (np.arange(len(x)) % 97 == 5)]),
    "constant": lambda x: np.column_stack([x.astype(float), np.full(len(x), 1e9)]),
    "two far groups": lambda x: x + 1e6 * (np.arange(len(x))[:, None] % 2 - 0.5),
    "tiny": lambda x: x.astype(float) * 1e-30,
    "huge": lambda x: x.astype(float) * 1e30,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(jnp.bfloat16),
    "long double": lambda x: x.astype(np.longdouble) + 1e9,
    "integers": lambda x: (100 * x).astype(np.int64) + 10**18,
}


def long_double(x):
    """The rows about the first of them, so that float64 differences are exact enough."""
    x = np.asarray(x).astype(np.longdouble)
    return (x - x[0]).astype(np.float64)


@pytest.fixture(params=[True, False], ids=["host", "device"])
def either_side(request, monkeypatch):
    """Runs a test with few rows, and with few rows as if they were many."""
    if not request.param:
        monkeypatch.setattr(internal, "MAX_HOST_OPERATIONS", 0)


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.usefixtures("either_side")
def test_silhouettes_of_unusual_rows(kind):
    x = UNUSUAL[kind](X)
    for metric in ("euclidean", "sqeuclidean", "manhattan", "chebyshev"):
        expected = exact(long_double(x), Y, "cityblock" if metric == "manhattan" else metric)
        result = metrics.silhouette_samples(x, Y, metric=metric)
        np.testing.assert_allclose(result, expected, atol=5e-6, err_msg=metric)
        assert result.dtype == (np.float32 if kind in ("float16", "bfloat16") else np.float64)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_scatter_scores_of_unusual_rows(kind):
    x = UNUSUAL[kind](X)
    near = long_double(x)
    near /= np.abs(near).max()  # scikit-learn takes distances below 1e-8 for 0
    for name in SCORES[1:]:
        assert getattr(metrics, name)(x, Y) == pytest.approx(getattr(oracle, name)(near, Y), rel=1e-8)


def test_one_far_row_of_seven():
    x = np.array([[0, 0], [1, 0], [0, 1], [3, 0], [4, 0], [3, 1], [1e9, 1e9]])
    labels = [0, 0, 0, 1, 1, 1, 2]
    result = metrics.silhouette_samples(x, labels)
    np.testing.assert_allclose(result, exact(x, labels), atol=1e-9)
    np.testing.assert_allclose(result, [0.705, 0.5, 0.648, 0.632, 0.674, 0.569, 0], atol=6e-4)
    assert metrics.davies_bouldin_score(x, labels) == pytest.approx(oracle.davies_bouldin_score(x, labels), rel=1e-9)


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize("metric", ["cosine", "correlation"])
def test_silhouettes_of_bundles_of_directions(metric):
    """Angles of 1e-6 between rows of all lengths, one of zeros, and one that points elsewhere."""
    rows = np.linspace(1, 3, D) + 1e-6 * X
    rows[5], rows[7] = 0, -rows[0]
    lengths = 10.0 ** RNG.uniform(-30, 30, (N, 1))
    unit = np.where(lengths > 0, rows, 0) - (rows.mean(axis=1, keepdims=True) if metric == "correlation" else 0)
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = unit / np.where(norms > 0, norms, 1)
    distances = cdist(unit, unit, "sqeuclidean") / 2
    distances[5], distances[:, 5] = 1, 1
    np.fill_diagonal(distances, 0)
    expected = oracle.silhouette_samples(distances, Y, metric="precomputed")
    np.testing.assert_allclose(metrics.silhouette_samples(rows * lengths, Y, metric=metric), expected, atol=1e-4)


@pytest.mark.usefixtures("either_side")
@pytest.mark.parametrize("p", [20, 1000, np.inf])
def test_minkowski_silhouettes_of_any_power(p):
    x = RNG.normal(size=(50, 2)) * 0.5 + np.repeat([[0, 0], [4, 4]], 25, axis=0)
    apart = np.abs(x[:, None] - x)
    largest = apart.max(axis=2)
    unit = np.where(largest > 0, largest, 1)[..., None]
    distances = largest if p == np.inf else largest * np.sum((apart / unit) ** p, axis=2) ** (1 / p)
    y = np.repeat([0, 1], 25)
    expected = oracle.silhouette_samples(np.where(largest > 0, distances, 0), y, metric="precomputed")
    for scale in (1, 1e20):
        result = metrics.silhouette_samples(x * scale, y, metric="minkowski", p=p)
        np.testing.assert_allclose(result, expected, atol=5e-6)


@pytest.mark.parametrize("metric", ["canberra", "braycurtis", "hamming", "jaccard", "l1", "l2"])
def test_other_metrics_of_scikit_learn(metric):
    x = np.abs(np.round(X.astype(float))) + (1e9 if metric == "hamming" else 0)
    expected = oracle.silhouette_samples(x != 0 if metric == "jaccard" else x, Y, metric=metric)
    np.testing.assert_allclose(metrics.silhouette_samples(x, Y, metric=metric), expected, atol=1e-9)


def test_haversine_silhouettes():
    places = RNG.uniform([-1.5, -3], [1.5, 3], (N, 2))
    from sklearn.metrics.pairwise import haversine_distances

    expected = oracle.silhouette_samples(haversine_distances(places), Y, metric="precomputed")
    np.testing.assert_allclose(metrics.silhouette_samples(places, Y, metric="haversine"), expected, atol=1e-9)
    with pytest.raises(ValueError, match="2 columns"):
        metrics.silhouette_samples(X, Y, metric="haversine")


def test_callables_that_jax_cannot_trace():
    expected = exact(X, Y)
    for metric in (cdist, lambda a, b: float(np.sqrt(np.sum((a - b) ** 2))), lambda a, b: np.linalg.norm(a - b)):
        rows = np.concatenate([X[Y == 0][:20], X[Y == 1][:20]])
        labels = np.repeat([0, 1], 20)
        np.testing.assert_allclose(
            metrics.silhouette_samples(rows, labels, metric=metric), exact(rows, labels), atol=1e-6
        )
    shifted = X.astype(float) + 1e9  # float32 would not tell these rows apart
    result = metrics.silhouette_samples(shifted, Y, metric=lambda a, b: np.abs(a[:, None] - b).max(axis=2))
    np.testing.assert_allclose(result, exact(long_double(shifted), Y, "chebyshev"), atol=1e-6)
    assert expected.shape == result.shape


def test_scores_of_many_rows_under_jaxs_switches(monkeypatch):
    """As if there were many: test_switches.py has those of few, and the soft silhouette."""
    monkeypatch.setattr(internal, "MAX_HOST_OPERATIONS", 0)
    with switched(STRICT | LEAKS):
        for name in SCORES:
            assert np.isfinite(getattr(metrics, name)(X[:60], Y[:60]))
        for metric in ("cosine", "manhattan"):
            assert np.isfinite(metrics.silhouette_samples(X[:60], Y[:60], metric=metric)).all()


@pytest.mark.parametrize("far", [1e200, 1.7e308])
def test_a_far_row_leaves_the_scores_of_others(far):
    # Davies–Bouldin's ratios are the same where far rows lie at 1e40, whose squares float64 holds.
    near, away = (np.vstack([X[:60], np.full((2, D), each)]).astype(np.float64) for each in (1e40, far))
    away[-1], near[-1] = -away[-1], -near[-1]
    y = np.r_[Y[:60], K, K + 1]
    for metric in ("euclidean", "manhattan", "sqeuclidean"):
        expected = oracle.silhouette_samples(X[:60].astype(np.float64), Y[:60], metric=metric)
        np.testing.assert_allclose(metrics.silhouette_samples(away, y, metric=metric)[:60], expected, atol=1e-6)
    np.testing.assert_allclose(metrics.davies_bouldin_score(away, y), oracle.davies_bouldin_score(near, y), rtol=1e-6)
    assert metrics.calinski_harabasz_score(away, y) == np.inf


@pytest.mark.parametrize("far", [1e20, 1e35, 1e200])
def test_a_far_row_beside_many_rows(far, monkeypatch):
    monkeypatch.setattr(internal, "MAX_HOST_OPERATIONS", 0)
    found = metrics.silhouette_samples(np.vstack([X, np.full((1, D), far)]), np.r_[Y, K])
    np.testing.assert_allclose(found[:N], oracle.silhouette_samples(X, Y), atol=1e-5)

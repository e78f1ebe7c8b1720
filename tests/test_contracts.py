"""The promises that every registered algorithm keeps."""

from __future__ import annotations

import inspect
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms import ALGORITHMS, FINDERS, MIN_RAND_INDEX, TRANSPORTS, taking
from sklearn.metrics import adjusted_rand_score
from tolerances import assert_near
from transport_problems import LONG, SHORT, random_clouds

import jaxcluster as jc
from jaxcluster.cluster import lloyd
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.kmedoids import distances
from jaxcluster.cluster.kprototypes import iteration
from jaxcluster.core.preparation import padded_size, prepare
from jaxcluster.ops import nearest
from jaxcluster.sharding import fit_sharded
from jaxcluster.types import Algorithm, Status

K = 4


def promised(promise: str) -> list[str]:
    return [name for name, algorithm in ALGORITHMS.items() if promise not in algorithm.exempt]


TRACED = [name for name in promised("traced") if name != "kmeans"]
"""Algorithms that are compiled inside another program. Of k-means those are its variants: one run by k-means||, one run
by k-means++ of directions, and three runs by k-means++ of rows, each of them what the plain one does."""


@pytest.fixture
def rows(blobs, request):
    return blobs.x + np.asarray(ALGORITHMS[request.getfixturevalue("name")].shift, np.float32)


@pytest.fixture(scope="module")
def weights(blobs):
    return np.random.default_rng(3).integers(1, 4, len(blobs.x)).astype(np.float32)


@pytest.fixture(scope="module")
def cloud():
    """One broad cloud with outliers, of the shape of the blobs: no start and no step is clear-cut."""
    rng = np.random.default_rng(1)
    return rng.standard_t(3, size=(300, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def repeats():
    """Repetitions of each of the first 290 samples: one, two or three, and 320 in all.

    320 samples are padded to the same length as 300, so that all run in programs that other tests have compiled.
    """
    return np.random.default_rng(3).permutation(np.repeat([1, 2, 3], [270, 10, 10]))


def same_partition(a, b, least: float = 1) -> bool:
    return adjusted_rand_score(np.asarray(a), np.asarray(b)) >= least


def first_of(state, *attributes):
    return np.asarray(next(getattr(state, name) for name in attributes if hasattr(state, name)))


def representatives(fit):
    """Representatives of the clusters: centers, the means of a mixture, or the eigenvalues of an embedding."""
    return first_of(fit.state, "centers", "means", "eigenvalues")


def objective(fit):
    """The minimized objective: inertia, mean negative log-likelihood of a mixture, or sum of the eigenvalues."""
    return first_of(fit.state, "inertia", "objective", "eigenvalues").sum()


def weighted(name, weights):
    """The argument ``weights`` for an algorithm that has one, and none for the others."""
    return {"weights": weights} if ALGORITHMS[name].takes("weights") else {}


def assert_same_fit(a, b, rows=slice(None)):
    """Equality of two fits, the second of repeated or permuted rows of the first."""
    np.testing.assert_array_equal(np.asarray(a.labels)[rows], b.labels)
    assert_near(objective(a), objective(b), "objective")
    assert_near(representatives(a), representatives(b), "coordinates")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_finds_separate_blobs(name, rows, blobs, key):
    fit = ALGORITHMS[name].fit(key, rows, K)
    assert same_partition(fit.labels, blobs.y)
    assert fit.labels.shape == (len(rows),)
    assert fit.labels.dtype == jnp.int32
    assert np.asarray(fit.labels).max() < K
    if name in promised("predict"):
        np.testing.assert_array_equal(ALGORITHMS[name].predict(fit.state, rows), fit.labels)


WITHOUT = {
    **dict.fromkeys(("bisecting", "dbscan", "kmedoids", "soft_kmeans", "spectral"), ("score",)),
    **dict.fromkeys(("hdbscan", "optics"), ("predict", "score")),
}
"""Functions of the protocol that modules do not have; the protocol holds the reasons."""


def parameters(function):
    """Names of the parameters that are passed by position; all others can be passed by name only."""
    named = inspect.signature(function).parameters.values()
    return [each.name for each in named if each.kind != each.KEYWORD_ONLY]


@pytest.mark.parametrize("name", [name for name in jc._MODULES if jc._MODULES[name].startswith("jaxcluster.cluster.")])
def test_functional_modules_follow_the_protocol(name):
    module = getattr(jc, name)
    assert name in Algorithm.__doc__ or name not in WITHOUT
    if name == "sinkhorn":
        assert "sinkhorn: ``solve(x, y)``" in Algorithm.__doc__
        assert parameters(module.solve) == ["x", "y"]
        return
    if name == "neighbor_embedding":
        assert "neighbor_embedding: ``fit(key, x, n_components)`` and ``transform(state, x)``" in Algorithm.__doc__
        assert (parameters(module.fit), parameters(module.transform)) == (["key", "x", "n_components"], ["state", "x"])
        return
    assert parameters(module.fit) == (["x"] if name in FINDERS else ["key", "x", "k"])
    assert inspect.signature(module.fit).return_annotation == "Fit"
    for function in {"predict", "score"} - {*WITHOUT.get(name, ())}:
        assert parameters(getattr(module, function)) == ["state", "x"]
    assert not any(hasattr(module, function) for function in WITHOUT.get(name, ()))


@pytest.mark.parametrize("name", TRACED)
def test_jit_and_vmap_equal_eager_in_any_tile(name, rows, weights, key, monkeypatch):
    # Eager rows are padded and centered on the host, traced rows are not: two ways to one answer.
    # No other test traces this number of rows, so neither finds what the other has traced.
    x, options = rows[:293], weighted(name, weights[:293])
    keys = jax.random.split(key, 3)
    batch = np.float32([1.0, 2.0, 0.5])[:, None, None] * x
    eager = [ALGORITHMS[name].fit(keys[i], batch[i], K, **options) for i in range(3)]
    asked = []

    def small(*shape):
        asked.append(shape)
        return 37

    for module in (lloyd, nearest, iteration):
        monkeypatch.setattr(module, "tile_size", lambda x, k: small(x.shape[0]))
    monkeypatch.setattr(em, "em_tile", lambda options, n, k, d: small(n))
    clara = sys.modules["jaxcluster.cluster.kmedoids.clara"]  # beside a function of its name
    monkeypatch.setattr(clara, "tile_rows", lambda n, columns, budget: small(n))
    monkeypatch.setattr(distances, "tile_divisor", small)
    together = jax.jit(jax.vmap(lambda key, x: ALGORITHMS[name].fit(key, x, K, **options)))(keys, batch)
    assert (len(x),) in asked
    for i, one in enumerate(eager):
        assert_same_fit(one, jax.tree.map(lambda leaf, i=i: leaf[i], together))


@pytest.mark.parametrize("name", [name for name in taking("axis_name") if name in TRACED])
def test_sharded_equals_single(name, rows, weights, key):
    n = 300 if name == "kmeans-restarts" else 299  # divide evenly, and do not
    x, w = rows[:n], weights[:n]
    single = ALGORITHMS[name].fit(key, x, K, weights=w)
    # A function without ``mesh=``, so that it is called inside shard_map; the estimators are tested with ``mesh=``.
    sharded = fit_sharded(lambda *data, **options: ALGORITHMS[name].fit(*data, **options), key, x, K, weights=w)
    assert jax.device_count() == 2
    assert_same_fit(single, sharded)


def test_sharded_keeps_digits_at_an_offset(blobs, weights, key):
    x, w = np.asarray(blobs.x[:299], np.float64) + 1e9, weights[:299]
    sharded = fit_sharded(jc.kmeans.fit, key, x, K, weights=w)
    assert sharded.state.centers.dtype == np.float64
    assert_same_fit(jc.kmeans.fit(key, x, K, weights=w), sharded)


@pytest.mark.parametrize("name", [name for name in promised("repetition") if name in taking("weights")])
def test_weight_equals_repetition(name, rows, repeats, key):
    rows = rows[: len(repeats)]
    assert padded_size(len(rows)) == padded_size(int(repeats.sum())) == padded_size(300)
    single = ALGORITHMS[name].fit(key, rows, K, weights=repeats)
    repeated = ALGORITHMS[name].fit(key, np.repeat(rows, repeats, axis=0), K)
    assert_same_fit(single, repeated, np.repeat(np.arange(len(rows)), repeats))


@pytest.mark.parametrize("name", taking("weights"))
def test_rows_of_weight_zero_do_not_count(name, rows, key):
    outliers = np.full((20, rows.shape[1]), 500, np.float32) * np.arange(1, 21, dtype=np.float32)[:, None]
    x = np.concatenate([rows, outliers])
    w = np.concatenate([np.ones(len(rows)), np.zeros(20)])
    fit = ALGORITHMS[name].fit(key, x, K, weights=w)
    assert np.abs(representatives(fit)).max() < 20
    assert np.isfinite(objective(fit))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(name, dtype, rows, key):
    with jax.enable_x64(True):
        x = rows.astype(dtype)
        assert prepare(x).points.x.dtype == dtype
        run = partial(ALGORITHMS[name].fit, key, k=K)
        fit = jax.eval_shape(run, x) if name in promised("traced") else run(x)  # known before XLA compiles
        assert {leaf.dtype for leaf in jax.tree.leaves(fit) if leaf.dtype.kind == "f"} == {np.dtype(dtype)}
        assert fit.labels.dtype == np.int32


@pytest.mark.parametrize("name", promised("objective"))
def test_objective_never_rises(name, cloud, key):
    fit = ALGORITHMS[name].fit(key, cloud, K, tol=0.0)
    history = np.asarray(fit.history)
    taken = int(fit.steps)
    assert np.isfinite(history[:taken]).all()
    assert not history[taken:].any()
    assert (np.diff(history[:taken]) <= 1e-5 * np.abs(history[: taken - 1])).all()
    assert_near(history[taken - 1], objective(fit), "objective")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_second_call_compiles_nothing(name, rows, compiles):
    keys = jax.random.split(jax.random.key(7), 2)
    n, other = 300, 290
    assert padded_size(n) == padded_size(other)
    jax.block_until_ready(ALGORITHMS[name].fit(keys[0], rows[:n], K, tol=1e-4))
    other_rows = np.ascontiguousarray(rows[:other])
    second, k = keys[1], K - 1 if ALGORITHMS[name].padded else K
    with compiles() as seen:
        jax.block_until_ready(ALGORITHMS[name].fit(second, other_rows, k, tol=1e-3))
    assert seen.count == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_permuting_rows_permutes_labels(name, rows, key):
    order = np.random.default_rng(5).permutation(len(rows))
    fit = ALGORITHMS[name].fit(key, rows, K)
    permuted = ALGORITHMS[name].fit(key, rows[order], K)
    assert same_partition(np.asarray(fit.labels)[order], permuted.labels)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_same_key_same_answer(name, cloud, key):
    a, b = (ALGORITHMS[name].fit(key, cloud, K) for _ in range(2))
    assert all(
        np.array_equal(p, q, equal_nan=True) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("name", [*ALGORITHMS, *FINDERS, *TRANSPORTS])
def test_memory_that_runs_out_is_one_sentence(name, blobs, key, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    fit = {
        **{name: partial(each.fit, key, blobs.x, K) for name, each in ALGORITHMS.items()},
        **{name: partial(each.fit, blobs.x) for name, each in FINDERS.items()},
        **{name: partial(solve, blobs.x, blobs.x) for name, solve in TRANSPORTS.items()},
    }[name]
    monkeypatch.setattr(jax, "device_put", fail)
    with pytest.raises(
        MemoryError, match=r"^this took more memory than there was: .* left\. Pass fewer rows"
    ) as caught:
        fit()
    assert isinstance(caught.value.__cause__, jax.errors.JaxRuntimeError)


@pytest.mark.parametrize("name", promised("offset"))
def test_offset_of_ten_thousand(name, blobs, key):
    fit = ALGORITHMS[name].fit(key, blobs.x + np.float32(1e4), K)
    assert same_partition(fit.labels, blobs.y)


BAD_INPUT = [
    (np.ones(5, np.float32), 2, {}, "2-D"),
    (np.ones((0, 2), np.float32), 1, {}, "no rows"),
    (np.ones((3, 0), np.float32), 1, {}, "no columns"),
    (np.array([["a", "b"]]), 1, {}, "not numeric"),
    (jax.random.split(jax.random.key(0), (3, 2)), 1, {}, "x holds random keys"),
    ([[1, 2], [3]], 1, {}, "rows have different lengths"),
    (np.ones((3, 2)) * 1j, 1, {}, "Complex data not supported"),
    (np.ma.masked_equal(np.eye(3), 1), 1, {}, "masked array with 3 masked entries"),
    (np.array([[1, np.nan], [np.inf, 2]]), 1, {}, "1 NaN and 1 infinity values in columns 0, 1"),
    (np.ones((3, 2)), 4, {}, r"n_samples=3 should be >= k=4"),
    (np.ones((3, 2)), 0, {}, "k=0 must be at least 1"),
    (np.ones((3, 2)), 2, {"weights": [1, -1, 1]}, "must not be negative: 1 are"),
    (np.ones((3, 2)), 2, {"weights": [0, 0, 0]}, "weights: all are zero"),
    (np.ones((3, 2)), 2, {"weights": [1, 1]}, r"shape \(3,\)"),
    (np.ones((3, 2)), 2, {"tol": -1.0}, "tol=-1.0 must be at least 0"),
    (np.ones((3, 2)), 2, {"init": "kmeans++"}, r"init='kmeans\+\+' is not known; choose one of '"),
]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, i)
        for name, each in ALGORITHMS.items()
        for i, (_, _, options, _) in enumerate(BAD_INPUT)
        if each.takes(*options)
    ],
)
def test_bad_input(name, case, key):
    x, k, options, message = BAD_INPUT[case]
    with pytest.raises((ValueError, TypeError), match=message):
        ALGORITHMS[name].fit(key, x, k, **options)


# Methods that find out how many clusters there are ---------------------------------------------------------------


@pytest.mark.parametrize("name", FINDERS)
def test_finders_find_separate_blobs(name, blobs):
    fit = FINDERS[name].fit(blobs.x)
    assert same_partition(fit.labels, blobs.y)
    assert (fit.labels.shape, fit.labels.dtype) == ((300,), np.int32)
    assert int(fit.status) == Status.CONVERGED
    assert not np.asarray(fit.history).any()


@pytest.mark.parametrize("name", FINDERS)
def test_finders_label_alike_in_any_order(name, blobs):
    order = np.random.default_rng(5).permutation(300)
    labels, permuted = FINDERS[name].fit(blobs.x).labels, FINDERS[name].fit(blobs.x[order]).labels
    assert same_partition(np.asarray(labels)[order], permuted, MIN_RAND_INDEX.get(name, 1))


@pytest.mark.parametrize("name", FINDERS)
def test_finders_take_any_numbers_and_leave_them_alone(name, blobs):
    labels = FINDERS[name].fit(blobs.x).labels
    for x in (blobs.x.astype(np.float64), jnp.asarray(blobs.x), blobs.x.tolist(), np.asfortranarray(blobs.x)):
        np.testing.assert_array_equal(FINDERS[name].fit(x).labels, labels)
    x = blobs.x.astype(np.float64)
    FINDERS[name].fit(x)
    np.testing.assert_array_equal(x, blobs.x)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("offset", [1e4, -1e7])
def test_finders_do_not_mind_an_offset(name, blobs, offset):
    x = blobs.x.astype(np.float64)
    np.testing.assert_array_equal(FINDERS[name].fit(x + offset).labels, FINDERS[name].fit(x).labels)


@pytest.mark.parametrize("name", [name for name, finder in FINDERS.items() if finder.weighted])
def test_weights_of_finders_equal_repetition(name, blobs, repeats):
    x = blobs.x[: len(repeats)]
    weighted = FINDERS[name].fit(x, weights=repeats)
    repeated = FINDERS[name].fit(np.repeat(x, repeats, axis=0))
    assert same_partition(np.repeat(np.asarray(weighted.labels), repeats), repeated.labels)


@pytest.mark.parametrize("name", [*FINDERS, *(name for name in ALGORITHMS if name not in promised("traced"))])
@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap], ids=["jit", "grad", "vmap"])
def test_methods_say_why_they_take_no_traced_rows(name, blobs, transform, key):
    rows = jnp.asarray(blobs.x)[None] if transform is jax.vmap else jnp.asarray(blobs.x)
    fit = FINDERS[name].fit if name in FINDERS else partial(ALGORITHMS[name].fit, key, k=K)
    with pytest.raises(TypeError, match="takes concrete rows.*labels have no gradient.*outside jit, vmap and grad"):
        transform(lambda x: fit(x).labels.sum().astype(float))(rows)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(5), "2-D"),
        (np.ones((0, 2)), "no rows"),
        (np.ones((3, 0)), "no columns"),
        (np.array([["a", "b"]]), "not numeric"),
        (np.ones((3, 2)) * 1j, "Complex data not supported"),
        (np.array([[1, np.nan], [np.inf, 2]]), "1 NaN and 1 infinity values in columns 0, 1"),
    ],
)
def test_finders_refuse_bad_rows(name, x, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FINDERS[name].fit(x)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclid"}, "metric='euclid' is not known.*Did you mean 'euclidean'"),
        ({"metric": "minkowski", "p": 0.5}, "p=0.5 must be at least 1"),
        ({"metric": "precomputed"}, r"needs a square matrix of distances, got shape \(300, 5\)"),
        ({"min_samples": 0}, "min_samples=0 must be"),
        ({"min_samples": -1}, "min_samples=-1 must be"),
    ],
)
def test_finders_refuse_bad_options(name, blobs, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        FINDERS[name].fit(blobs.x, **options)


# Transport between two clouds ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clouds():
    return random_clouds()


def assert_same_transport(one, two, order=slice(None)):
    assert_near(np.asarray(one.f)[order], two.f, "coordinates")
    assert_near(one.regularized_cost, two.regularized_cost, "objective")


@pytest.mark.parametrize("name", TRANSPORTS)
def test_transport_under_jit_and_vmap(name, clouds):
    x, y, _, _ = (jnp.asarray(each, jnp.float32) for each in clouds)
    many = jnp.stack([x, x[::-1] * 1.3, x + 1])
    run = partial(TRANSPORTS[name], y=y, tol=1e-5, **SHORT)
    batched = jax.jit(jax.vmap(run))(many)
    for i, one in enumerate(many):
        assert_same_transport(run(one), jax.tree.map(lambda leaf, i=i: leaf[i], batched))


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("wide", [False, True])
def test_transport_is_alike_in_any_order_and_origin(name, wide, clouds):
    x, y, a, b = clouds
    order = np.random.default_rng(5).permutation(len(x))
    solve = partial(TRANSPORTS[name], b=b, tol=1e-10 if wide else 1e-5, **SHORT)
    with jax.enable_x64(wide):
        plain = solve(x, y, a=a)
        assert_same_transport(plain, solve(x + 1e5, y + 1e5, a=a))
        assert_same_transport(plain, solve(x[order], y, a=a[order]), order)


@pytest.mark.parametrize("name", TRANSPORTS)
def test_transported_weight_equals_repetition(name, clouds):
    x, y, _, b = clouds
    counts = np.arange(20) % 3 + 1
    repeated = TRANSPORTS[name](np.repeat(x, counts, axis=0), y, b=b, tol=1e-5, **SHORT)
    single = TRANSPORTS[name](x, y, a=counts / counts.sum(), b=b, tol=1e-5, **SHORT)
    assert_same_transport(single, repeated, np.repeat(np.arange(20), counts))


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_of_transport_is_kept(name, dtype, clouds):
    with jax.enable_x64(True):
        solved = jax.eval_shape(TRANSPORTS[name], *(each.astype(dtype) for each in clouds[:2]))
        assert {leaf.dtype for leaf in jax.tree.leaves(solved) if leaf.dtype.kind == "f"} == {np.dtype(dtype)}


@pytest.mark.parametrize("name", TRANSPORTS)
def test_second_transport_compiles_nothing(name, clouds, compiles):
    x, y, _, _ = clouds
    TRANSPORTS[name](x, y, omega=1.0, max_steps=4100)
    with compiles() as seen:
        TRANSPORTS[name](x[:-2], y[:-1], **{"epsilon": 0.4, "tol": 1e-4, "omega": 1.2, "epsilon_decay": 0.7, **LONG})
    assert seen.count == 0

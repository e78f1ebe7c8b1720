"""Samples nobody looked at: frames, and what every algorithm promises about dtypes, units, offsets and far samples."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms import ALGORITHMS, FINDERS, taking
from hard_data import (
    FAR,
    FLOATS,
    INTEGERS,
    at,
    blobs,
    in_dtype,
    in_unit,
    odd_columns,
    same_partition,
    squared_distances,
    two_far_groups,
    with_far_sample,
)
from jax_switches import IN_64_BITS, LEAKS, STRICT, switched

from jaxcluster import HDBSCAN, BayesianGaussianMixture, GaussianMixture, KMeans, KMedoids, Status, kmeans
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.preparation import prepare
from jaxcluster.ops.nearest import nearest

PLAIN = blobs(k=4, size=75, d=5)
"""Samples of the shape that all contracts have, so that they share their programs."""

DIRECTIONS = {"kmeans-cosine"}
"""Algorithms to which the origin means something, so that an offset or a far sample is another problem."""

UNITLESS = {*ALGORITHMS} - {"soft-kmeans", "gmm", "gmm-diag", "bayesian-gmm", "spectral"}
"""Algorithms without a parameter in the unit of the samples, such as a variance that is added or the width of a
kernel."""

PLACED = [name for name in ALGORITHMS if name not in DIRECTIONS]


def labels_of(name, problem, **options):
    fit = ALGORITHMS[name].fit(jax.random.key(0), problem.x, problem.k, **options)
    return np.asarray(fit.labels)


# Frames ------------------------------------------------------------------------------------------------------------


def test_the_origin_is_among_most_samples():
    x = np.concatenate([np.ones((90, 2)), np.full((30, 2), 1e12)])
    np.testing.assert_array_equal(prepare(x).frame.origin, [1, 1])
    np.testing.assert_array_equal(jax.jit(lambda x: prepare(x).frame.origin)(x.astype(np.float32)), [1, 1])


@pytest.mark.parametrize("unit", [1.0, 2.0**-60, 2.0**60, 1e-30, 1e30, 1e-300, 1e300])
def test_samples_in_a_frame_are_near_1(unit):
    x = PLAIN.x * unit
    prepared = prepare(x)
    inside = np.asarray(prepared.points.x)[: len(x)]
    assert 2.0**-21 < np.median(np.abs(inside).max(axis=1)) < 2.0**21
    np.testing.assert_allclose(prepared.frame.leave(inside), x, rtol=1e-6, atol=1e-6 * unit)


def test_integers_beyond_float64_keep_differences():
    x = 10**18 + np.arange(5).reshape(-1, 1)
    inside = np.asarray(prepare(x).points.x)[:5, 0]
    np.testing.assert_array_equal(np.diff(inside), 1)


def test_a_frame_of_a_fit_reaches_farther_samples():
    frame = prepare(PLAIN.x).frame
    prepared = prepare(np.full((1, 5), 1e30), frame=frame)
    assert np.isfinite(prepared.points.x).all()
    np.testing.assert_allclose(prepared.frame.leave(prepared.points.x[:1]), 1e30, rtol=1e-6)
    with pytest.warns(UserWarning, match="1e\\+30 away from the others"):
        prepare(np.vstack([PLAIN.x, np.full((1, 5), 1e30)]), frame=frame)


@pytest.mark.parametrize("unit", [1e-46, 1e-8, 3.0, 1e40])
def test_weights_in_a_frame_have_a_mean_near_1(unit):
    prepared = prepare(PLAIN.x, np.full(len(PLAIN.x), unit))
    assert 1 <= float(prepared.points.weight[0]) < 2
    np.testing.assert_allclose(prepared.frame.unscale(np.asarray(prepared.points.weight[0]), weight=1), unit, rtol=1e-6)


def test_results_have_the_dtype_of_the_samples():
    for dtype in (np.float16, np.float32):
        assert prepare(PLAIN.x.astype(dtype)).dtype == np.float32
    for dtype in (np.float64, np.longdouble, np.int32, bool):
        assert prepare(PLAIN.x.astype(dtype)).dtype == np.float64
    assert prepare(jnp.ones((3, 2), jnp.int32)).dtype == np.float32


def test_numbers_beyond_float32_become_float64():
    frame = Frame(np.zeros(2, np.float32), exponent=100)
    assert frame.unscale(jnp.float32(1), length=2).dtype == np.float64
    np.testing.assert_allclose(frame.unscale(jnp.float32(1), length=2), 2.0**-200, rtol=1e-12)


# Nearest centers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "d", "n"), [(4, 3, 500), (9, 8, 500), (30, 16, 500)])
@pytest.mark.parametrize("kind", ["near", "far center", "far groups", "tight", "far samples"])
def test_nearest_centers_are_those_of_float64(kind, k, d, n):
    rng = np.random.default_rng(0)
    centers = 10 * rng.normal(size=(k, d))
    if kind == "far center":
        centers[-1] = 1e6
    elif kind == "far groups":
        centers[: k // 2] += 1e5
        centers[k // 2 :] -= 1e5
    elif kind == "tight":
        centers = 100 + centers * 1e-3
    x = centers[rng.integers(0, k, n)] + rng.normal(size=(n, d)) * (1e-3 if kind == "tight" else 1)
    if kind == "far samples":  # beside their squares, those of the centers are lost
        x[::3] *= 10.0 ** rng.integers(3, 12, (len(x[::3]), 1))
    x, centers = x.astype(np.float32), centers.astype(np.float32)
    labels, squares = jax.jit(nearest)(x, centers)
    exact = squared_distances(x, centers)
    np.testing.assert_array_equal(labels, exact.argmin(axis=1))
    np.testing.assert_allclose(squares, exact.min(axis=1).astype(float), rtol=2e-4)


def test_memory_is_that_of_a_tile():
    # 2²⁸ distances and more; only compiled, not run. A round number of rows is that of the fit below.
    for n, d, k in ((100_003, 96, 3000), (1_000_003, 3, 300)):
        x, centers = jax.ShapeDtypeStruct((n, d), jnp.float32), jax.ShapeDtypeStruct((k, d), jnp.float32)
        compiled = jax.jit(nearest).lower(x, centers).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 128e6 + 16 * n


def test_a_fit_writes_no_distances():
    n, d, k = 400_000, 16, 1000
    x = jax.ShapeDtypeStruct((n, d), jnp.float32)
    compiled = jax.jit(lambda x: kmeans.fit(jax.random.key(0), x, k)).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 128e6 + 32 * n


# Promises of every algorithm ---------------------------------------------------------------------------------------


# Spectral clustering begins with float64 whatever the dtype: forty of its fits would show no more.
@pytest.mark.parametrize("name", [name for name in PLACED if name != "spectral"])
def test_any_dtype_gives_the_labels_of_float64(name):
    for dtype in (*FLOATS, *INTEGERS):
        problem = in_dtype(PLAIN, dtype)
        wide = problem._replace(x=problem.x.astype(np.float64))
        assert same_partition(labels_of(name, problem), labels_of(name, wide)), np.dtype(dtype)
    problem = PLAIN._replace(x=PLAIN.x > np.median(PLAIN.x, axis=0))
    wide = problem._replace(x=problem.x.astype(np.float64))
    assert same_partition(labels_of(name, problem), labels_of(name, wide)), "bool"


@pytest.mark.parametrize("name", sorted(UNITLESS - DIRECTIONS))
def test_the_unit_of_the_samples_is_no_matter(name):
    for unit in (2.0**-60, 2.0**60, 1e-30, 1e30):
        for dtype in (np.float64, np.float32):
            problem = in_unit(PLAIN, unit)
            problem = problem._replace(x=problem.x.astype(dtype))
            assert same_partition(labels_of(name, problem), problem.y), (unit, dtype)


# A prior counts as so many samples: of a Bayesian mixture the unit of the weights says how many there are.
@pytest.mark.parametrize("name", [name for name in taking("weights") if name != "bayesian-gmm"])
def test_the_unit_of_the_weights_is_no_matter(name):
    x = PLAIN.x + (8 if name in DIRECTIONS else 0)
    weights = (np.full(len(x), unit) for unit in (1.0, 1e-40, 1e40))
    fits = [ALGORITHMS[name].fit(jax.random.key(0), x, PLAIN.k, weights=each) for each in weights]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit.labels, fits[0].labels)
        assert int(fit.status) == int(fits[0].status)


@pytest.mark.parametrize("name", PLACED)
def test_an_offset_is_no_matter(name):
    for offset, dtype in ((1e4, np.float32), (1e9, np.float64), (1e12, np.float64)):
        problem = at(PLAIN, offset, dtype)
        assert same_partition(labels_of(name, problem), problem.y), offset


ALONE = [name for name in PLACED if name in {"kmeans", "kmeans-restarts", "kmeans-parallel", "kmedoids"}]
"""Algorithms that give one far sample a cluster of its own whatever they start from."""


@pytest.mark.parametrize("name", ALONE)
def test_one_far_sample_is_no_matter_to_the_others(name):
    for distance in FAR:
        problem = with_far_sample(PLAIN, distance)
        options = {"init": problem.start} if name == "kmeans" else {}
        assert same_partition(labels_of(name, problem, **options), problem.y), distance


@pytest.mark.parametrize("name", [name for name in PLACED if name not in {"spectral", "kmedoids", "clara"}])
def test_a_mark_beyond_float32_is_said(name):
    """The largest float32 is a common mark for missing values; what squares nothing measures it."""
    problem = with_far_sample(PLAIN, -float(np.finfo(np.float32).max), place=len(PLAIN.x))
    with pytest.warns(UserWarning, match=r"numbers 3\.4e\+38 away from the others.*make it NaN"):
        fit = ALGORITHMS[name].fit(jax.random.key(0), problem.x, PLAIN.k)
    assert int(fit.status) == Status.PRECISION
    # In all samples it is as good as any other number.
    marked, plain = np.array(PLAIN.x), np.array(PLAIN.x)
    marked[:, 0], plain[:, 0] = problem.x[-1, 0], 0
    np.testing.assert_array_equal(*(labels_of(name, PLAIN._replace(x=x)) for x in (marked, plain)))


@pytest.mark.parametrize("name", ["kmeans", "kmeans-restarts", "kmedoids"])
def test_an_odd_column_is_no_matter(name):
    for what, problem in odd_columns(PLAIN):
        options = {"init": problem.start} if name == "kmeans" else {}
        assert same_partition(labels_of(name, problem, **options), problem.y), what


@pytest.mark.parametrize("name", ["kmeans", "kmeans-restarts", "kmedoids"])
def test_far_groups_are_told_apart(name):
    for distance in (1e3, 1e5):
        problem = two_far_groups(PLAIN, distance)
        options = {"init": problem.start} if name == "kmeans" else {}
        assert same_partition(labels_of(name, problem, **options), problem.y), distance


@pytest.mark.parametrize("name", FINDERS)
def test_finders_in_any_dtype_unit_and_far_samples(name):
    fit = FINDERS[name].fit
    for dtype in (np.float16, np.float64, np.longdouble, np.int64):
        problem = in_dtype(PLAIN, dtype)
        # Within eps of the registry's setting the blobs are found in their own unit.
        x = problem.x if np.dtype(dtype).kind == "f" else problem.x.astype(float) / problem.unit
        assert same_partition(fit(x).labels, fit(problem.x.astype(np.float64) / problem.unit).labels), dtype
    plain = np.asarray(fit(PLAIN.x).labels)
    for distance in FAR:
        far = with_far_sample(PLAIN, distance, place=len(PLAIN.x))  # the last in the order of OPTICS
        np.testing.assert_array_equal(np.asarray(fit(far.x).labels)[:-1], plain)


@pytest.mark.parametrize("name", [*PLACED, *FINDERS])
def test_integers_beyond_float64_keep_their_labels(name):
    near = np.round(4 * PLAIN.x).astype(np.int64)
    for x in (near + 2**62, (near + 2**62).astype(np.uint64) + np.uint64(2**62)):
        if name in FINDERS:
            labels, plain = (FINDERS[name].fit(rows).labels for rows in (x, near))
        else:
            labels, plain = (labels_of(name, PLAIN._replace(x=rows)) for rows in (x, near))
        np.testing.assert_array_equal(labels, plain)


@pytest.mark.parametrize("model", [KMeans(4, random_state=0), KMedoids(4, random_state=0), HDBSCAN()], ids=repr)
def test_integers_beyond_float64_are_predicted(model):
    x = np.round(4 * PLAIN.x).astype(np.int64) + 2**62
    if isinstance(model, KMeans):  # float64 holds no centers so near each other
        with pytest.warns(match="subtract what integers beyond 2\\^53 have in common"):
            model.fit(x)
        assert model.status_ == Status.PRECISION
    else:
        np.testing.assert_array_equal(model.fit(x).predict(x), model.labels_)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_switches_of_jax_may_be_on(name):
    """A fit in 32 bits; of one in 64 bits, and with a look for leaked tracers, the trace, where they would be seen."""
    x = (PLAIN.x + 8).astype(np.float32)

    def fit(x):
        return ALGORITHMS[name].fit(jax.random.key(0), x, PLAIN.k)

    with switched(STRICT):
        assert int(fit(x).status) != Status.NOT_FINITE
    with switched(STRICT | IN_64_BITS | LEAKS):
        labels = jax.eval_shape(fit, x).labels if "traced" not in ALGORITHMS[name].exempt else fit(x).labels
        assert labels.shape == (len(x),)


# Truth in statuses -------------------------------------------------------------------------------------------------


def test_converged_means_a_fixed_point_in_float64():
    for problem in (PLAIN, at(PLAIN, 1e9), with_far_sample(PLAIN, 1e9), two_far_groups(PLAIN, 1e5)):
        fit = kmeans.fit(jax.random.key(1), problem.x, problem.k, tol=0)
        assert int(fit.status) == Status.CONVERGED
        squares = squared_distances(problem.x, fit.state.centers)
        np.testing.assert_array_equal(fit.labels, squares.argmin(axis=1))


def test_samples_beyond_float32_have_a_remedy():
    problem = two_far_groups(PLAIN, 1e9)
    fit = kmeans.fit(jax.random.key(0), problem.x, 4)
    assert int(fit.status) == Status.PRECISION
    with pytest.warns(match="differ by less than float32 can tell apart.*Scale the columns.*jax_enable_x64"):
        KMeans(4, n_init=1, random_state=0).fit(problem.x)
    with jax.enable_x64(True):
        fit = kmeans.fit(jax.random.key(0), problem.x, 4, init=problem.start)
    assert int(fit.status) == Status.CONVERGED
    assert same_partition(fit.labels, problem.y)


def test_duplicates_far_away_have_lost_nothing():
    x = np.repeat([[0.1, 0.2], [1e9, 0.3]], 20, axis=0)
    assert int(kmeans.fit(jax.random.key(0), x, 2).status) == Status.CONVERGED


@pytest.mark.parametrize("offset", [0.0, 1e9, 1e12])
def test_predict_transform_and_score_of_a_fit(offset):
    problem = with_far_sample(at(PLAIN, offset), offset + 1e6)
    model = KMeans(problem.k, init=problem.start, n_init=1).fit(problem.x)
    np.testing.assert_array_equal(model.predict(problem.x), model.labels_)
    np.testing.assert_allclose(model.score(problem.x), -model.inertia_, rtol=1e-6)
    exact = np.sqrt(squared_distances(problem.x, model.cluster_centers_).astype(float))
    # The far center is as exact as float32 holds it in the frame.
    np.testing.assert_allclose(model.transform(problem.x), exact, rtol=2e-4, atol=0.1)
    np.testing.assert_array_equal(
        kmeans.predict(model.cluster_centers_, problem.x, frame=frame_of(model.cluster_centers_)), model.labels_
    )


# What no precision holds --------------------------------------------------------------------------------------------


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no extended precision on this platform")
def test_lost_digits_of_extended_precision_are_said():
    x = PLAIN.x.astype(np.longdouble)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KMeans(PLAIN.k, n_init=1, random_state=0).fit(x + 1e9)
    with pytest.warns(match="digits in .* that float64 does not hold.*Subtract one row from all"):
        KMeans(PLAIN.k, n_init=1, random_state=0).fit(x + 1e17)


def test_weights_that_count_as_nothing_are_said():
    weights = np.ones(len(PLAIN.x))
    weights[0] = 1e45
    with pytest.warns(match=f"{len(PLAIN.x) - 1} weights are positive, but too small beside the largest for float32"):
        kmeans.fit(jax.random.key(0), PLAIN.x, 2, weights=weights)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
@pytest.mark.parametrize("model", [GaussianMixture, BayesianGaussianMixture])
def test_variances_beyond_float64_are_refused(model, unit):
    with pytest.raises(ValueError, match="variances of the columns of X are beyond float64.*Scale the columns"):
        model(2, reg_covar=0, random_state=0).fit(PLAIN.x * unit)

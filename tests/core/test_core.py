"""The drivers: loops, folds, restarts, checks, and the way of rows to the device."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcluster.cluster import dbscan
from jaxcluster.core import validation
from jaxcluster.core.batching import best_of, map_runs
from jaxcluster.core.dtypes import exponent_of, publish
from jaxcluster.core.fold import MAX, MIN, SUM, fold_rows, map_rows, tile_rows
from jaxcluster.core.implicit import implicit_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, iterate, trace
from jaxcluster.core.padding import MAX_STEP_WORK, pad_active, padded_clusters, padded_columns
from jaxcluster.core.preparation import SMALL_ROWS, padded_size, prepare, unpad
from jaxcluster.losses.validation import as_weights
from jaxcluster.metrics import confusion_matrix
from jaxcluster.types import Fit, Status


class Halving(NamedTuple):
    value: jax.Array
    residual: jax.Array

    @property
    def objective(self):
        return self.value


def halve(state):
    return Halving(state.value / 2, state.value / 2)


START = Halving(jnp.float32(8), jnp.float32(jnp.inf))


def test_a_concrete_array_is_checked_inside_jit():
    least, below = jnp.asarray(0.5), jnp.asarray(-0.5)
    assert jax.jit(lambda x: x * validation.check_positive("epsilon", least))(2.0) == 1
    with pytest.raises(ValueError, match="epsilon=-0.5 must be greater than 0"):
        jax.jit(lambda x: x * validation.check_positive("epsilon", below))(2.0)


def test_iterate_stops_at_tol_and_keeps_the_history():
    fit = iterate(halve, START, tol=1.0, max_steps=50, capacity=8)
    assert int(fit.steps) == 3
    assert Status(int(fit.status)) is Status.CONVERGED
    np.testing.assert_array_equal(fit.history, [4, 2, 1, *[0] * 5])


def test_iterate_stops_at_max_steps():
    fit = iterate(halve, START, tol=0.0, max_steps=2, capacity=8)
    assert int(fit.steps) == 2
    assert Status(int(fit.status)) is Status.MAX_STEPS


def test_iterate_outlives_its_history():
    fit = iterate(halve, START, tol=0.0, max_steps=6, capacity=4)
    assert int(fit.steps) == 6
    np.testing.assert_array_equal(fit.history, [4, 2, 1, 0.5])


def test_nan_is_never_convergence():
    fit = iterate(lambda state: Halving(state.value, state.value * jnp.nan), START, tol=1.0, max_steps=9, capacity=8)
    assert int(fit.steps) == 1
    assert Status(int(fit.status)) is Status.NOT_FINITE


def test_trace_agrees_with_iterate_and_differentiates():
    fit = trace(halve, START, steps=3)
    np.testing.assert_array_equal(fit.history, [4, 2, 1])
    gradient = jax.grad(lambda v: trace(halve, Halving(v, v), steps=3).state.value)(jnp.float32(8))
    assert gradient == 0.125


@pytest.mark.parametrize(("max_steps", "capacity"), [(1, 512), (300, 512), (512, 512), (513, 1024), (10**12, 1 << 20)])
def test_history_capacity_hardly_ever_changes(max_steps, capacity):
    assert history_capacity(max_steps) == capacity


@given(n=st.integers(1, 10_000), cost=st.integers(1, 500), budget=st.integers(1, 20_000))
def test_tiles_cover_the_rows_within_the_budget(n, cost, budget):
    tile = tile_rows(n, cost, budget)
    assert 1 <= tile <= n
    assert tile * cost <= budget or tile == 1


@pytest.mark.parametrize("tile", [None, 1, 7, 10, 23, 100])
@pytest.mark.parametrize(("monoid", "reduce"), [(SUM, np.sum), (MIN, np.min), (MAX, np.max)])
def test_fold_does_not_depend_on_the_tile(tile, monoid, reduce):
    rows = np.random.default_rng(0).uniform(1, 2, 20).astype(np.float32)
    whole = {SUM: jnp.sum, MIN: jnp.min, MAX: jnp.max}[monoid]
    total, doubled = fold_rows(lambda x: (whole(x), 2 * x), jnp.asarray(rows), tile=tile, monoid=monoid)
    np.testing.assert_allclose(total, reduce(rows), rtol=1e-6)
    np.testing.assert_array_equal(doubled, 2 * rows)


def test_map_rows_keeps_the_order_of_a_tree():
    x = jnp.arange(13.0)
    out = map_rows(lambda rows: rows["a"] + rows["b"], {"a": x, "b": 2 * x}, tile=4)
    np.testing.assert_array_equal(out, 3 * x)


@pytest.mark.parametrize("tile", [None, 1, 5, 13, 20])
def test_rows_may_lie_side_by_side(tile):
    x = jnp.arange(26.0).reshape(2, 13)
    weight = jnp.arange(13.0)

    def sums(rows):
        x, weight = rows
        return x @ weight, {"scaled": x * weight, "index": weight}

    total, per_row = fold_rows(sums, (x, weight), tile=tile, axis=-1)
    np.testing.assert_allclose(total, np.asarray(x) @ np.asarray(weight))
    np.testing.assert_array_equal(per_row["scaled"], x * weight)
    np.testing.assert_array_equal(per_row["index"], weight)


def test_fixed_point_has_its_equations_derivative():
    # s = a·s + b has s = b/(1 − a).
    def solved(a, b):
        return implicit_fixed_point(lambda s, a, b: a * s + b, b / (1 - a), a, b)

    a, b = jnp.float32(0.5), jnp.float32(3)
    assert solved(a, b) == 6
    np.testing.assert_allclose(jax.grad(solved, argnums=(0, 1))(a, b), [12, 2], rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(solved, (a, b), (jnp.float32(1), jnp.float32(1)))[1], 14, rtol=1e-5)
    many_a = jnp.asarray([0.5, 0.25, -0.5])
    np.testing.assert_allclose(jax.vmap(jax.grad(solved), (0, None))(many_a, b), 3 / (1 - many_a) ** 2, rtol=1e-5)


def test_a_fixed_point_may_be_a_tree():
    # s = A·s + c and t = t/2 + Σ s + c₀: s = (I − A)⁻¹·c, t = 2·(Σ s + c₀). Integers have no derivative.
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(3, 3)) / 4, jnp.float32)
    c = jnp.asarray(rng.normal(size=3), jnp.float32)
    exact = np.linalg.inv(np.eye(3) - np.asarray(matrix, np.float64))
    solution = exact @ np.asarray(c, np.float64)
    reached = 2 * (solution.sum() + float(c[0]))

    def step(state, matrix, c, count):
        s, t = state["s"], state["t"]
        return {"s": matrix @ s + c * count, "t": t / 2 + jnp.sum(s) + c[0]}

    def value(matrix, c):
        start = {"s": jnp.asarray(solution, jnp.float32), "t": jnp.float32(reached)}
        found = implicit_fixed_point(step, start, matrix, c, jnp.int32(1))
        return found["t"] + found["s"] @ jnp.asarray([1.0, 2, 3])

    np.testing.assert_allclose(value(matrix, c), reached + solution @ [1, 2, 3], rtol=1e-6)
    of_matrix, of_c = jax.jit(jax.grad(value, argnums=(0, 1)))(matrix, c)
    adjoint = exact.T @ np.array([3, 4, 5])
    np.testing.assert_allclose(of_c, adjoint + np.array([2, 0, 0]), rtol=1e-4)
    np.testing.assert_allclose(of_matrix, np.outer(adjoint, solution), rtol=1e-4, atol=1e-5)


def test_value_with_the_derivative_of_another_function():
    def value(x):
        return with_derivative_of(jnp.sin, jnp.float32(7), x)

    assert value(jnp.float32(0.5)) == 7
    np.testing.assert_allclose(jax.grad(value)(jnp.float32(0.5)), np.cos(0.5), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(value)))(jnp.float32(0.5)), -np.sin(0.5), rtol=1e-6)


def test_best_of_takes_the_earlier_of_equals():
    state = Halving(jnp.asarray([3.0, 1.0, jnp.nan, 1.0]), jnp.zeros(4))
    fits = Fit(state, None, jnp.arange(4), jnp.zeros(4, jnp.int32), jnp.zeros((4, 2)))
    assert int(best_of(fits).steps) == 1


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_many_runs_equal_a_loop(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    out = map_runs(lambda a, b: a * b, jnp.arange(3.0), jnp.arange(3.0))
    np.testing.assert_array_equal(out, [0, 1, 4])


@given(n=st.integers(1, 10**9), least=st.sampled_from([8, 128]))
def test_bucket_holds_n_with_little_to_spare(n, least):
    size = padded_size(n, least)
    assert n <= size <= max(least, n + 8, n + n // (2 if n <= SMALL_ROWS else 8) + 1)
    assert padded_size(size, least) == size


@given(k=st.integers(1, 10**4), work=st.integers(1, 10**6))
def test_padded_clusters_hold_k_where_steps_are_short(k, work):
    padded = padded_clusters(k, 10**5, work)
    if padded is None:
        assert work * max(8, 2 * k) > MAX_STEP_WORK
    else:
        assert k <= padded <= max(8, 2 * k)
        assert padded_clusters(padded, 10**5, work) == padded
        assert np.flatnonzero(pad_active(None, k, padded)).tolist() == list(range(k))


@given(n=st.integers(1, 10**6), d=st.integers(1, 200))
def test_padded_columns_hold_d_with_little_to_spare(n, d):
    padded = padded_columns(n, d)
    assert d <= padded <= d + d // 2
    assert padded == d or (padded <= 64 and padded_columns(1, padded) == padded)


def test_prepare_moves_pads_and_weighs():
    x = np.arange(20, dtype=np.float64).reshape(10, 2) + 1e4
    prepared = prepare(x)
    assert prepared.n == 10
    assert prepared.points.x.shape == (padded_size(10), 2)
    assert prepared.points.x.dtype == jnp.float32
    np.testing.assert_array_equal(prepared.frame.origin, x[4])  # the lower median of each column
    np.testing.assert_array_equal(prepared.points.x[:10], x - x[4])
    np.testing.assert_array_equal(prepared.points.weight, [1] * 10 + [0] * (padded_size(10) - 10))
    assert prepared.unit_weights
    assert prepare(x, np.ones(10)).unit_weights
    assert not prepare(x, np.repeat([0, 1], 5)).unit_weights


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, bool])
def test_prepare_takes_any_real_numbers(dtype):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    prepared = prepare(x, center=False)
    assert prepared.points.x.dtype == jnp.float32
    np.testing.assert_array_equal(prepared.points.x[:3], x.astype(np.float32))


def test_prepare_leaves_the_callers_array_alone():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    before = x.copy()
    prepare(x)
    np.testing.assert_array_equal(x, before)


def test_trim_cuts_one_axis():
    padded = jnp.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(unpad(padded, 5), padded[:, :5])
    np.testing.assert_array_equal(unpad(padded, 1, axis=0), padded[:1])


def test_choice_lists_the_known_and_guesses():
    with pytest.raises(
        ValueError, match=r"metric='cosin' is not known; choose one of 'cosine', 'l2'. Did you mean 'cosine'"
    ):
        validation.check_choice("metric", "cosin", ["cosine", "l2"])


@pytest.mark.parametrize("value", [2.5, "3", True, None])
def test_a_count_is_an_integer(value):
    with pytest.raises(TypeError, match="k must be an integer, got"):
        validation.check_count("k", value)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), ("a", TypeError), ([1, 2], TypeError), (np.nan, ValueError)]
)
def test_a_positive_number(value, error):
    with pytest.raises(error, match="tol"):
        validation.check_positive("tol", value)


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int64(2), np.array(2.0)], ids=lambda value: type(value).__name__
)
def test_numbers_of_every_type_are_one_to_a_program(value, compiles):
    double = jax.jit(lambda value: 2 * value)
    double(2.0)
    with compiles() as seen:
        doubled = double(validation.check_positive("tol", value))
    assert (float(doubled), seen.count) == (4, 0)


class Shared:
    """An array that is shared by DLPack alone, as those of other frameworks are."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        lambda w: w.astype(object),
        lambda w: np.array([*map(Fraction, w)]),
        Shared,
        lambda w: w.astype(">f8"),
    ],
)
def test_weights_are_numbers_of_any_kind(make):
    weights = np.array([1.0, 0.5, 2.0])
    checked = validation.check_weights(make(weights), 3)
    np.testing.assert_array_equal(checked, weights)
    assert checked.dtype.isnative


@pytest.mark.parametrize(
    "weights",
    [[None] * 3, np.ma.masked_equal([1, 2, 3], 2), [[1], [2, 3]], np.ones(3) * 1j, [1, "2", 3], np.ones(3, "m8[s]")],
)
def test_what_is_no_weight_is_refused(weights):
    for check in (
        lambda: validation.check_weights(weights, 3),
        lambda: as_weights(weights, 3),
        lambda: confusion_matrix([0, 1, 1], [0, 1, 1], sample_weight=weights),
        lambda: dbscan.fit(np.eye(3), eps=1.0, weights=weights),
    ):
        with pytest.raises((TypeError, ValueError), match="weights? (must be real|has 1 masked|holds sequences)"):
            check()


def test_finite_matrix_with_overflowing_sum_passes():
    validation.check_finite(np.full((4, 2), 3e38, np.float32))


def test_many_bad_columns_are_cut_short():
    x = np.full((2, 20), np.nan)
    with pytest.raises(ValueError, match=r"40 NaN values in columns 0, 1, 2, 3, 4, 5, 6, 7 …"):
        validation.check_finite(x)


@pytest.mark.parametrize("wide", [False, True])
def test_exponents_are_those_of_frexp(wide):
    with jax.enable_x64(wide):
        x = 10.0 ** np.arange(-300 if wide else -37, 301 if wide else 38)
        x = np.concatenate([x, -x, [0, 0.5, 1, 2]]).astype(np.float64 if wide else np.float32)
        np.testing.assert_array_equal(exponent_of(jnp.asarray(x)), np.frexp(x)[1])


def test_a_key_is_one_random_key():
    key = jax.random.key(0)
    assert validation.check_key(key) is key
    validation.check_key(jax.random.PRNGKey(0))
    jax.vmap(validation.check_key)(jax.random.split(key, 2))
    for wrong in (0, None, jax.random.split(key, 2), np.zeros((2, 2))):
        with pytest.raises(TypeError, match=r"key must be one random key, such as jax.random.key\(0\), got "):
            validation.check_key(wrong)


def test_subnormal_results_keep_their_digits():
    assert publish(np.float64(3e-45), np.dtype(np.float32)) == 3e-45  # float32 has 2.8e-45
    assert publish(np.float32(3e-45), np.dtype(np.float32)).dtype == np.float32
    assert publish(np.arange(2), np.dtype(np.int32)).dtype == np.int32


def test_integers_of_python_keep_their_digits():
    large = np.array([[10**18], [10**18 + 1]], object)
    assert validation.narrow_objects(large).tolist() == large.tolist()
    for cells in (large * 10**7, np.hstack([large, large * 0.5])):  # beyond 64 bits, and beside fractions
        with pytest.warns(UserWarning, match="integers of more digits than float64 holds"):
            assert validation.narrow_objects(cells).dtype == np.float64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validation.narrow_objects(np.array([[10**25], [2 * 10**25]], object))  # the lost digits distinguish nothing
        validation.check_rounding(np.array([[2**60], [2**61]]))
    with pytest.warns(UserWarning, match="ids has integers of more digits"):
        validation.check_rounding(np.array([[2**63], [2**63 + 1]], np.uint64), name="ids")


def test_a_constant_loses_no_difference():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validation.widen(np.full((3, 1), 0.1, np.longdouble) / 3)

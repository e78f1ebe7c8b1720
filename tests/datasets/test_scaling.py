"""Scaling, against scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import preprocessing

from jaxcluster.datasets import SCALINGS, DataError, Scaling, scale

ROWS = np.random.default_rng(0).normal([0, 1e4, -3, 5], [1, 1, 50, 0], (40, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("how", "oracle"),
    [
        ("standard", preprocessing.StandardScaler()),
        ("minmax", preprocessing.MinMaxScaler()),
        ("l2", preprocessing.Normalizer()),
        ("none", preprocessing.FunctionTransformer()),
    ],
)
def test_scaling_is_scikit_learns(how, oracle):
    scaled, scaling = scale(ROWS, how)
    expected = oracle.fit_transform(ROWS.astype(np.float64))
    assert scaled.dtype == np.float32
    assert scaling.how == how
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)
    new = ROWS[:5] * 1.5 + 1
    np.testing.assert_allclose(scaling.apply(new), oracle.transform(new.astype(np.float64)), rtol=1e-5, atol=1e-5)
    if how != "l2":
        np.testing.assert_allclose(scaling.undo(scaled), ROWS, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("how", SCALINGS)
def test_scaling_survives_json(how):
    scaled, scaling = scale(ROWS, how)
    again = Scaling.from_json(json.loads(json.dumps(scaling.to_json())))
    np.testing.assert_array_equal(again.apply(ROWS), scaled)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("how", SCALINGS)
def test_constant_columns_and_zero_rows_stay_finite(how, dtype):
    x = np.tile(np.linspace(0.1, 1e6, 50, dtype=dtype), (1001, 1))  # float64 sums of these are not exact
    x[0] *= how in ("standard", "minmax")
    scaled, _ = scale(x, how)
    zero = {"standard": scaled, "minmax": scaled, "l2": scaled[0], "none": scaled - x}[how]
    np.testing.assert_array_equal(zero, 0)
    assert np.isfinite(scaled).all()


def test_scaling_works_in_tiles(monkeypatch):
    whole = {how: scale(ROWS, how)[0] for how in SCALINGS}
    monkeypatch.setattr("jaxcluster.datasets.scaling.TILE_CELLS", 12)
    for how in SCALINGS:
        np.testing.assert_allclose(scale(ROWS, how)[0], whole[how], rtol=1e-6, atol=1e-6)


def test_wrong_scalings_are_refused():
    with pytest.raises(DataError, match=r"'standart'.*Did you mean 'standard'"):
        scale(ROWS, "standart")
    with pytest.raises(DataError, match="4 columns"):
        scale(ROWS, "standard")[1].apply(ROWS[:, :3])
    with pytest.raises(ValueError, match=r"1 NaN.*column 2"):
        scale(np.where(np.arange(160).reshape(40, 4) == 6, np.nan, ROWS), "minmax")
    with pytest.raises(DataError, match="needs shift"):
        Scaling.from_json({"how": "standard"})
    with pytest.raises(DataError, match="not known"):
        Scaling.from_json({"shift": [1]})


@pytest.mark.parametrize("offset", [0, 1e9, 1e12])
def test_columns_far_from_zero_are_scaled_in_float64(offset):
    steps = np.random.default_rng(1).integers(0, 60, (50, 3)) * [1, 0.25, 8]
    for how in ("standard", "minmax"):
        scaled, scaling = scale(steps + offset, how)
        np.testing.assert_allclose(scaled, scale(steps, how)[0], atol=2e-16 * offset + 1e-12)
        assert scaled.dtype == np.float64
        np.testing.assert_allclose(scaling.undo(scaled), steps + offset, rtol=1e-15, atol=1e-13)
        np.testing.assert_allclose(scaling.undo_deviations(np.ones((1, 3))), scaling.factor[None])


@pytest.mark.parametrize("kind", ["int64", "uint64", "longdouble"])
def test_integers_beyond_float64_are_scaled_exactly(kind):
    steps = np.random.default_rng(1).integers(0, 60, (50, 2))
    if kind == "longdouble" and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("a long double holds no more than a double here")
    rows = (10**18 + steps).astype(kind)
    for how in ("standard", "minmax"):
        scaled, scaling = scale(rows, how)
        np.testing.assert_allclose(scaled, scale(steps, how)[0], atol=1e-12)
        again = Scaling.from_json(json.loads(json.dumps(scaling.to_json())))
        np.testing.assert_array_equal(again.apply(rows[:5]), scaled[:5])
        np.testing.assert_allclose(scaling.undo(scaled), rows.astype(np.float64), rtol=1e-15)
    shifted, scaling = scale(rows, "none")
    np.testing.assert_array_equal(np.diff(shifted, axis=0), np.diff(steps, axis=0))
    if kind == "longdouble":
        beside = np.column_stack([rows, steps / 7])
        np.testing.assert_array_equal(np.diff(scale(beside, "none")[0][:, 0]), np.diff(steps[:, 0]))
    assert scale(rows, "none", movable=False)[0] is rows
    far = np.array([[2**63 - 1], [-(2**63)], [0]])
    np.testing.assert_allclose(scale(far, "minmax")[0], [[1], [0], [0.5]])


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e170, 1e300])
def test_squares_of_any_size(size):
    rows = ROWS.astype(np.float64) / np.abs(ROWS).max()
    for how in ("standard", "minmax", "l2"):
        np.testing.assert_allclose(scale(rows * size, how)[0], scale(rows, how)[0], rtol=1e-9, atol=1e-11)


def test_missing_values_stay_and_count_in_no_mean():
    rows = np.where(np.arange(160).reshape(40, 4) % 7 == 0, np.nan, ROWS.astype(np.float64))
    for how, oracle in (("standard", preprocessing.StandardScaler()), ("minmax", preprocessing.MinMaxScaler())):
        np.testing.assert_allclose(scale(rows, how, missing=True)[0], oracle.fit_transform(rows), atol=1e-9)


def test_words_have_half_the_variance_of_a_number():
    rng = np.random.default_rng(0)
    words = rng.choice(3, 200, p=[0.7, 0.25, 0.05])
    x = np.column_stack([1e6 + 50 * rng.normal(size=200), np.eye(3)[words], rng.normal(size=200)])
    scaled, scaling = scale(x, "standard", groups=[slice(1, 4)])
    np.testing.assert_allclose(scaled.var(axis=0)[[0, 4]], 1, rtol=1e-6)
    assert scaled.var(axis=0)[1:4].sum() == pytest.approx(0.5)
    rows = [np.flatnonzero(words == word)[0] for word in range(3)]
    apart = np.linalg.norm(scaled[rows][:, None, 1:4] - scaled[rows][None, :, 1:4], axis=-1)
    np.testing.assert_allclose(apart[~np.eye(3, dtype=bool)], apart[0, 1])  # a rare word is as far as any other
    np.testing.assert_allclose(scaling.undo(scaled), x, rtol=1e-9, atol=1e-9)

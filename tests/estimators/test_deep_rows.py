"""Rows as networks get them: the same whatever their dtype, unit and offset, and never NaN."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import pytest

from jaxcluster.estimators.deep.scaling import rescaled, scaled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5))
COUNTS = RNG.integers(0, 100, size=(300, 5))

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.longdouble, np.int8, np.uint8, np.int16, np.int32, np.int64]


@pytest.mark.parametrize("how", ["auto", "standard", "minmax", "l2", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_dtype_are_those_of_float64(dtype, how):
    rows, scaling = scaled(COUNTS.astype(dtype), how)
    expected = scaled(COUNTS.astype(np.float64), how)[0]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(rescaled(COUNTS.astype(dtype), scaling), expected)


def test_ranges_of_narrow_integers_do_not_wrap():
    x = RNG.integers(-128, 128, size=(300, 5)).astype(np.int8)  # whose range is no int8
    np.testing.assert_array_equal(scaled(x, "auto")[0], scaled(x.astype(np.float64), "auto")[0])
    truth = COUNTS > 50
    np.testing.assert_array_equal(scaled(truth, "auto")[0], scaled(truth.astype(np.float64), "auto")[0])


@pytest.mark.parametrize("unit", [2.0**60, 2.0**-60, 1e30, 1e-30, 1e200, 1e-200, 1e307])
def test_units_do_not_matter(unit):
    np.testing.assert_allclose(scaled(X * unit, "auto")[0], scaled(X, "auto")[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("offset", "atol"), [(1e9, 1e-6), (1e12, 1e-3)])
def test_offsets_do_not_matter(offset, atol):
    np.testing.assert_allclose(scaled(X + offset, "auto")[0], scaled(X, "auto")[0], atol=atol)


@pytest.mark.parametrize("width", [2, 3, 20])
def test_one_odd_column_does_not_hide_the_others(width):
    x = RNG.normal(size=(200, width))
    x[:, 1] *= 1e5
    np.testing.assert_allclose(scaled(x, "auto")[0].std(0), 1, rtol=1e-5)


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e12])
def test_a_row_far_from_the_others_is_told(distance):
    x = X.copy()
    x[7] = distance
    with pytest.warns(UserWarning, match=r"1 of 300 rows lie so far .* hardly differ once X is scaled \(row 7\)"):
        rows = scaled(x, "auto")[0]
    assert np.isfinite(rows).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled(X, "auto")
        scaled(np.zeros((300, 5)), "auto")


def test_what_float32_does_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"does not hold, in columns 0, 1, 2, 3, 4. Pass scaling='auto'"):
        scaled(X * 1e300, "none")
    x = X.copy()
    x[3, 2] = 1e300
    with pytest.raises(ValueError, match=r"in column 2. Drop the rows that hold them"):
        rescaled(x, scaled(X, "auto")[1])

"""Drift of new rows: statistics agree with SciPy's and with their definitions; the page takes any rows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import ks_2samp

from jaxcluster.report.drift import (
    FAR_SHARE,
    NewRows,
    drift_of,
    drift_page,
    far_bound,
    number_drift,
    two_sample,
    word_drift,
)

EVIL = "<script>window.pwned = 1</script>"


def test_statistic_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (7, 30), (200, 90)):
        x, y = np.round(rng.normal(size=n), 1), np.round(rng.normal(0.4, size=m), 1)  # with ties
        assert two_sample(x, y) == pytest.approx(ks_2samp(x, y).statistic, abs=1e-12)


def test_shift_and_index_are_as_defined():
    rng = np.random.default_rng(1)
    old, new = rng.normal(3, 2, 4000), rng.normal(4, 2, 3000)
    moved = number_drift("x", old, new)
    assert moved.shift == pytest.approx((new.mean() - old.mean()) / old.std(), rel=1e-9)
    edges = np.r_[-np.inf, np.quantile(old, np.arange(0.1, 1, 0.1)), np.inf]
    p, q = (np.histogram(part, edges)[0] / len(part) for part in (old, new))
    assert moved.psi == pytest.approx(np.sum((p - q) * np.log(p / q)), rel=0.01)
    words = word_drift("w", np.array(["a"] * 500 + ["b"] * 500, object), np.array(["a"] * 900 + ["b"] * 100, object))
    assert words.psi == pytest.approx(0.4 * np.log(0.9 / 0.5) + 0.4 * np.log(0.5 / 0.1), rel=0.02)
    assert moved.counts.sum(axis=1).tolist() == [4000, 3000]


def test_chance_explains_one_in_twenty():
    rng = np.random.default_rng(2)
    same = [number_drift("x", rng.normal(size=400), rng.normal(size=300)) for _ in range(400)]
    assert 0.02 < np.mean([each.psi > each.chance for each in same]) < 0.09
    few = [number_drift("x", rng.normal(size=400), rng.normal(size=12)) for _ in range(200)]
    assert np.mean([each.psi > 0.25 for each in few]) > 0.5  # which the bounds alone would call changed
    assert np.mean([each.drifts for each in few]) < 0.1


HOSTILE = {
    "constant": (np.ones(9), np.full(5, 2.0)),
    "missing": (np.full(9, np.nan), np.arange(5.0)),
    "lost": (np.arange(9.0), np.full(5, np.nan)),
    "huge": (np.array([-1.7e308, 1.7e308] * 4 + [0.0]), np.full(5, 1.7e308)),
    EVIL: (np.array([EVIL, None, "b"] * 3, object), np.array([None] * 5, object)),
    "nothing": (np.array([None] * 9, object), np.array([EVIL] * 5, object)),
}


def test_page_takes_any_columns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changes = {
            each.name: each for each in drift_of(*({name: pair[i] for name, pair in HOSTILE.items()} for i in (0, 1)))
        }
        labels = np.r_[np.zeros(4, int), np.full(5, -1)]
        page = drift_page(NewRows(EVIL, EVIL, labels, np.full(5, 3), list(changes.values()), far=1.0))
    assert EVIL not in page
    assert changes["constant"].shift == np.inf
    assert changes["missing"].ks is None
    assert changes["lost"].missing_now == 1
    assert "100.0% of the new rows are farther" in page
    assert "<script" not in page


def test_few_fitted_rows_are_far():
    distances = np.random.default_rng(3).gamma(2, size=1000)
    assert np.mean(distances > far_bound(distances)) == FAR_SHARE

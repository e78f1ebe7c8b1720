"""Cells that are missing are integrated out, as conditional Gaussians written out row by row have it."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from mixture_problems import (
    KEY,
    SETS,
    TYPES,
    K,
    assert_never_falls,
    assert_same_fit,
    bounds,
    conditional,
    dense,
    matrices,
    parameters,
    public,
    separate,
)
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score

from jaxcluster import gmm

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def exact_missing_step(covariance, weights, means, wide, x, reg):
    """One step of EM with missing cells, row by row."""
    k, (n, d) = len(weights), x.shape
    expected = [[conditional(row, m, c) for row in x] for m, c in zip(means, wide, strict=True)]
    joint = np.log(weights)[:, None] + np.array([[log_p for _, _, log_p in rows] for rows in expected])
    log_p = logsumexp(joint, axis=0)
    r = np.exp(joint - log_p)
    weight = r.sum(axis=1)
    filled = np.array([[mean for mean, _, _ in rows] for rows in expected])
    left = np.array([[spread for _, spread, _ in rows] for rows in expected])
    means = np.einsum("kn,kni->ki", r, filled) / weight[:, None]
    off = filled - means[:, None]
    scatter = np.einsum("kn,kni,knj->kij", r, off, off) + np.einsum("kn,knij->kij", r, left)
    wide = scatter / weight[:, None, None]
    if covariance == "tied":
        wide = np.repeat(scatter.sum(axis=0)[None] / n, k, axis=0)
    elif covariance != "full":
        variances = np.diagonal(wide, axis1=1, axis2=2)
        variances = variances if covariance == "diag" else np.repeat(variances.mean(axis=1)[:, None], d, axis=1)
        wide = variances[:, :, None] * np.eye(d)
    return weight / n, means, wide + reg * np.eye(d), log_p.mean()


def with_holes(x, share=0.25, seed=0):
    x = np.where(np.random.default_rng(seed).uniform(size=x.shape) < share, np.nan, x)
    x[3] = np.nan
    x[4, 1:] = np.nan
    return x


@pytest.mark.parametrize("covariance", TYPES)
def test_missing_cells_are_integrated_out(covariance):
    whole = SETS["iris"]()
    x, start = with_holes(whole), parameters(whole, covariance)
    flat = covariance in ("diag", "spherical")
    spread = public(covariance, 1 / start.precisions if flat else np.linalg.inv(start.precisions))
    state = start.weights, start.means, matrices(start.means, spread)
    history = []
    for _ in range(6):
        *state, bound = exact_missing_step(covariance, *state, x, 1e-6)
        history.append(bound)
    with jax.enable_x64(True):
        fit = partial(gmm.fit, KEY, covariance=covariance, k=K, init=start, tol=0.0)
        ours = fit(x, max_steps=6, missing=True)
        np.testing.assert_allclose(bounds(ours), history, rtol=1e-8)
        np.testing.assert_allclose(ours.state.weights, state[0], rtol=1e-8)
        np.testing.assert_allclose(ours.state.means, state[1], rtol=1e-8)
        np.testing.assert_allclose(dense(ours.state), state[2], rtol=1e-7, atol=1e-10)
        longer = fit(x, max_steps=100, missing=True)
        assert_never_falls(longer)
        assert np.isfinite(longer.state.covariances).all()
        # A row of which nothing is known falls to the largest component.
        assert int(longer.labels[3]) == int(np.argmax(longer.state.weights))
        assert_same_fit(fit(whole, max_steps=6), fit(whole, max_steps=6, missing=True), rtol=1e-9, atol=1e-11)


def test_missing_cells_in_float32_and_after_the_fit():
    whole, y = separate()
    x = with_holes(whole, 0.1).astype(np.float32)
    fit = gmm.fit(KEY, x, K, covariance="diag", missing=True)
    known = ~np.isnan(x).all(axis=1)
    assert adjusted_rand_score(np.asarray(fit.labels)[known], y[known]) > 0.9
    np.testing.assert_array_equal(gmm.predict(fit.state, x, missing=True), fit.labels)
    proba = np.asarray(gmm.predict_proba(fit.state, x, missing=True))
    np.testing.assert_allclose(proba[3], fit.state.weights, rtol=1e-4)
    log_p = np.asarray(gmm.score_samples(fit.state, x, missing=True))
    assert log_p[3] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gmm.score(fit.state, x, missing=True), log_p.mean(), rtol=1e-5)
    assert log_p.mean() >= float(fit.state.lower_bound) - 1e-4


def test_refused_missing_values():
    x = separate()[0].copy()
    x[2, 1] = np.nan
    x[5, 3] = np.nan
    with pytest.raises(ValueError, match="x contains 2 NaN values in columns 1, 3"):
        gmm.fit(KEY, x, K)
    x[4, 2] = np.inf
    with pytest.raises(ValueError, match="x contains 1 infinity values in column 2"):
        gmm.fit(KEY, x, K, missing=True)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="x has no observed value in column 2. Drop such columns"):
        gmm.fit(KEY, x, K, missing=True)

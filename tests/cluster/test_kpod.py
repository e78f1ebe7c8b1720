"""k-means of samples with missing cells, against k-POD in NumPy's float64."""

from __future__ import annotations

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from saved_models import saved_and_loaded

from jaxcluster.cluster import kpod
from jaxcluster.estimators import KMeans, MiniBatchKMeans
from jaxcluster.types import Status

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 120)
WHOLE = RNG.normal(0, 4, (3, 5))[TRUTH] + RNG.normal(size=(120, 5)) + 1000
X = np.where(RNG.random(WHOLE.shape) < 0.3, np.nan, WHOLE)
X[np.isnan(X).all(axis=1)] = 1000
WEIGHTS = RNG.uniform(0.5, 2, 120)
START = WHOLE[[np.flatnonzero(j == TRUTH)[0] for j in range(3)]]


def partial_squares(x, centers):
    return np.nansum((x[:, None] - centers) ** 2, axis=2)


def kpod_step(x, weights, centers):
    """One fill-in and one step of Lloyd's iteration on the filled samples, as in the paper."""
    labels = partial_squares(x, centers).argmin(axis=1)
    filled = np.where(np.isnan(x), centers[labels], x)
    labels = ((filled[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    return labels, np.stack([np.average(filled[labels == j], axis=0, weights=weights[labels == j]) for j in range(3)])


@pytest.fixture(scope="module")
def fitted():
    options = {"init": START, "n_init": 1, "tol": 0, "missing": "ignore"}
    return KMeans(3, **options).fit(X, sample_weight=WEIGHTS)


def test_the_fit_is_a_fixed_point_of_kpod(fitted):
    centers = START
    for _ in range(200):
        labels, centers = kpod_step(X, WEIGHTS, centers)
    squares = partial_squares(X, centers)
    np.testing.assert_array_equal(fitted.labels_, labels)
    np.testing.assert_allclose(fitted.cluster_centers_, centers, rtol=1e-6)
    assert fitted.inertia_ == pytest.approx(WEIGHTS @ squares[np.arange(120), labels], rel=1e-4)
    assert fitted.status_ == Status.CONVERGED
    assert (np.diff(fitted.history_) <= 1e-3).all()
    again, means = kpod_step(X, WEIGHTS, fitted.cluster_centers_)
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_allclose(means, fitted.cluster_centers_, rtol=1e-6)


def test_new_samples_are_compared_by_observed_cells(fitted, tmp_path):
    distances = np.sqrt(partial_squares(X, fitted.cluster_centers_))
    np.testing.assert_allclose(fitted.transform(X), distances, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)
    assert fitted.score(X, sample_weight=WEIGHTS) == pytest.approx(-fitted.inertia_, rel=1e-6)
    assert fitted.__sklearn_tags__().input_tags.allow_nan
    saved_and_loaded(fitted, X, tmp_path / "model")


def test_whole_samples_have_the_clusters_of_kmeans():
    ours = KMeans(3, missing="ignore", random_state=0).fit(WHOLE)
    np.testing.assert_array_equal(ours.labels_, KMeans(3, init=ours.cluster_centers_, n_init=1).fit(WHOLE).labels_)
    assert len(set(ours.labels_)) == 3


def test_functions_are_traced():
    x, keys = (X - 1000).astype(np.float32), jax.random.split(jax.random.key(0))
    fits = jax.jit(jax.vmap(lambda key: kpod.fit(key, x, 3)))(keys)
    assert fits.labels.shape == (2, 120)
    assert np.isfinite(fits.state.inertia).all()


def test_samples_without_any_cell_are_named(fitted):
    x = X.copy()
    x[[4, 9]] = np.nan
    for call in (KMeans(3, missing="ignore").fit, fitted.predict):
        with pytest.raises(ValueError, match="no observed cell in rows 4, 9, which may be in any cluster. Drop such"):
            call(x)
    x = WHOLE.copy()
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="no observed value in column 2"):
        KMeans(3, missing="ignore").fit(x)


def test_missing_cells_are_named_by_column():
    table = pd.DataFrame(X, columns=["age", "pay", "height", "weight", "size"])[["pay", "age"]]
    message = r"X contains \d+ NaN values in columns 'pay', 'age'. Drop or impute those rows first"
    with pytest.raises(ValueError, match=message + ", or pass missing='ignore'"):
        KMeans(3).fit(table)
    with pytest.raises(ValueError, match=message + r"\."):
        MiniBatchKMeans(3).fit(table)


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"missing": True}, X, "missing=True is not known"),
        ({"metric": "cosine"}, X, "leave out metric='cosine'"),
        ({"frozen": START[:1]}, X, "leave out metric='cosine', frozen= and mesh="),
        ({}, scipy.sparse.eye_array(5, format="csr"), "X is sparse, where an absent cell is 0. Pass missing=None"),
    ],
)
def test_options_that_exclude_each_other(options, x, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError), match=message):
            KMeans(**{"n_clusters": 3, "missing": "ignore", **options}).fit(x)

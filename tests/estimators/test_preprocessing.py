"""Scalers and decompositions against scikit-learn in float64: offsets, missing cells, weights, sources, JAX arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.decomposition
import sklearn.preprocessing
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import jaxcluster
from jaxcluster.core import streaming
from jaxcluster.core.sources import ArraySource
from jaxcluster.datasets import scan
from jaxcluster.estimators import decomposition
from jaxcluster.preprocessing import PCA, MinMaxScaler, StandardScaler, TruncatedSVD

RNG = np.random.default_rng(0)
AXES = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
X = RNG.normal(size=(300, 5)) * [9, 5, 3, 2, 1] @ AXES
HOLES = np.where(RNG.uniform(size=X.shape) < 0.1, np.nan, X)
WEIGHTS = RNG.uniform(size=300) * (RNG.uniform(size=300) > 0.1)
OFFSET = 1e9
NEAR = X + OFFSET
"""Rows far from 0: float64 holds their differences to 1e-7."""


def ours_and_theirs(name, **options):
    """A class of each library with the same parameters."""
    module = sklearn.preprocessing if name.endswith("Scaler") else sklearn.decomposition
    return {cls.__name__: cls for cls in (StandardScaler, MinMaxScaler, PCA)}[name](**options), getattr(module, name)(
        **options
    )


SCALERS = [
    ("StandardScaler", {}),
    ("StandardScaler", {"with_mean": False}),
    ("StandardScaler", {"with_std": False}),
    ("MinMaxScaler", {}),
    ("MinMaxScaler", {"feature_range": (-1, 3), "clip": True}),
]
FITTED = ("mean_", "var_", "scale_", "min_", "data_min_", "data_max_", "data_range_")


@pytest.mark.parametrize(("name", "options"), SCALERS)
def test_scalers_agree_with_scikit_learn(name, options):
    units = np.array([1, 1e-12, 1e12, 1, 1])
    x = HOLES * units
    x[:, 3] = 0.1  # constant
    ours, theirs = (each.fit(x) for each in ours_and_theirs(name, **options))
    for attribute in FITTED:
        expected = getattr(theirs, attribute, None)
        if expected is None:
            assert getattr(ours, attribute, None) is None
        else:
            assert getattr(ours, attribute).dtype == np.float64
            assert_allclose(getattr(ours, attribute), expected, rtol=1e-9, atol=1e-31)
    assert_array_equal(ours.n_samples_seen_, theirs.n_samples_seen_)
    new = np.concatenate([x, 3 * x[:5]])
    scaled = ours.transform(new)
    unit = units if options == {"with_std": False} else 1
    assert_allclose(scaled / unit, theirs.transform(new) / unit, rtol=1e-9, atol=1e-9)
    if "clip" not in options:
        assert_allclose(ours.inverse_transform(scaled) / units, new / units, atol=1e-9)
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())


def test_weights_are_those_of_scikit_learn():
    ours, theirs = (each.fit(HOLES, sample_weight=WEIGHTS) for each in ours_and_theirs("StandardScaler"))
    assert_allclose(ours.mean_, theirs.mean_, rtol=1e-9)
    assert_allclose(ours.var_, theirs.var_, rtol=1e-9)
    assert_allclose(ours.n_samples_seen_, theirs.n_samples_seen_, rtol=1e-12)
    plain = StandardScaler().fit(HOLES)
    assert_allclose(StandardScaler().fit(HOLES, sample_weight=1e-30).scale_, plain.scale_, rtol=1e-12)
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        StandardScaler().fit(X, sample_weight=-WEIGHTS)


@pytest.mark.parametrize("cls", [StandardScaler, MinMaxScaler])
def test_a_large_offset_costs_no_digits(cls):
    expected = cls().fit_transform(X)
    scaler = cls().fit(NEAR)
    scaled = scaler.transform(NEAR)
    assert_allclose(scaled, expected, rtol=1e-6, atol=1e-6)
    assert_allclose(scaler.inverse_transform(scaled), NEAR, rtol=1e-15)
    short = (NEAR[:, :1] * [1, 2]).astype(np.float32)  # steps of 64 and 128
    on_device = cls().fit_transform(jnp.asarray(short))
    assert_allclose(on_device, cls().fit_transform(short), atol=1e-6)


@pytest.mark.parametrize("cls", [StandardScaler, MinMaxScaler])
def test_parts_make_the_fit_of_all_rows(cls):
    scaler, whole = cls(), cls().fit(HOLES)
    for rows in (slice(120), slice(120, 130), slice(130, None)):
        scaler.partial_fit(HOLES[rows])
    assert_allclose(scaler.scale_, whole.scale_, rtol=1e-6)
    assert_array_equal(scaler.n_samples_seen_, whole.n_samples_seen_)
    assert_array_equal(scaler.fit(HOLES).scale_, whole.scale_)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_extreme_units_do_not_overflow(unit):
    for model in (StandardScaler(), MinMaxScaler()):
        assert_allclose(model.fit_transform(X * unit), model.fit_transform(X), rtol=1e-9, atol=1e-12)
    assert_allclose(PCA(2).fit_transform(X * unit) / unit, PCA(2).fit_transform(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["StandardScaler", "MinMaxScaler"])
def test_a_column_without_values_waits_for_some(name):
    x = X[:20].copy()
    x[:, 1] = np.nan
    ours, theirs = ours_and_theirs(name)
    assert_array_equal(np.isnan(ours.fit(x).scale_), [False, True, False, False, False])
    ours.partial_fit(X)
    assert_allclose(ours.scale_, theirs.fit(np.concatenate([x, X])).scale_, rtol=1e-9)


@pytest.mark.parametrize("model", [StandardScaler(), MinMaxScaler(), PCA(2, svd_solver="covariance_eigh")], ids=str)
def test_a_source_is_as_the_rows_in_memory(model, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 128 * 5 * 4)
    source = scan([NEAR[:100], NEAR[100:]])
    expected, fitted = clone(model).fit(NEAR), clone(model).fit(source)
    for name, value in vars(expected).items():
        if name.endswith("_") and isinstance(value, np.ndarray):
            assert_allclose(getattr(fitted, name), value, rtol=1e-7, err_msg=name)
    assert_allclose(fitted.transform(source), expected.transform(NEAR), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="has 3 features, but the fit had 5"):
        fitted.transform(ArraySource(NEAR[:, :3]))


@pytest.mark.parametrize("solver", ["full", "covariance_eigh", "randomized", "arpack"])
@pytest.mark.parametrize("whiten", [False, True])
def test_pca_agrees_with_scikit_learn(solver, whiten):
    ours = PCA(3, svd_solver=solver, whiten=whiten, random_state=0).fit(NEAR)
    theirs = sklearn.decomposition.PCA(3, svd_solver="full", whiten=whiten).fit(X)
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_", "noise_variance_"):
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=3e-6, err_msg=name)
    assert_allclose(ours.components_, theirs.components_, atol=3e-6)
    assert_allclose(ours.mean_ - OFFSET, theirs.mean_, atol=1e-6)
    # scikit-learn's own is another one for whitened components, whose rows have this covariance all the same.
    assert_allclose(ours.get_covariance(), theirs.set_params(whiten=False).get_covariance(), atol=1e-4)
    theirs.set_params(whiten=whiten)
    coordinates = ours.transform(NEAR)
    assert_allclose(coordinates, theirs.transform(X), atol=2e-5)
    assert_allclose(ours.inverse_transform(coordinates) - OFFSET, theirs.inverse_transform(coordinates), atol=2e-5)
    assert list(ours.get_feature_names_out()) == ["pca0", "pca1", "pca2"]


def test_pca_of_wide_rows_and_chosen_numbers():
    wide = X[:20].T @ RNG.normal(size=(20, 40)) + 3
    ours, theirs = (each.fit(wide) for each in ours_and_theirs("PCA"))
    assert_allclose(ours.singular_values_[:4], theirs.singular_values_[:4], rtol=1e-6)
    assert_allclose(ours.components_[:4], theirs.components_[:4], atol=1e-5)
    noisy = np.concatenate([X, RNG.normal(size=(300, 4))], axis=1)
    for fraction in (0.5, 0.9, 0.99, "mle"):
        ours, theirs = (each.fit(noisy) for each in ours_and_theirs("PCA", n_components=fraction))
        assert ours.n_components_ == theirs.n_components_
    scaled = PCA(2).fit(X * 1e-30)  # squares underflow in float32
    assert_allclose(scaled.explained_variance_ * 1e60, PCA(2).fit(X).explained_variance_, rtol=1e-5)


def test_float64_is_kept_where_x64_is_on():
    with jax.enable_x64(True):
        for name, solver in (("StandardScaler", {}), ("PCA", {"svd_solver": "full"}), ("PCA", {})):
            ours, theirs = (each.fit(X) for each in ours_and_theirs(name, **solver))
            assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-9, atol=1e-12)
        assert StandardScaler().fit_transform(jnp.asarray(X)).dtype == np.float64


@pytest.mark.parametrize("model", [StandardScaler(), MinMaxScaler(), PCA(2), TruncatedSVD(2, random_state=0)], ids=str)
def test_jax_arrays_stay_on_the_device(model):
    x = jnp.asarray(X, jnp.float32)
    fitted = clone(model).fit(x)
    out = fitted.transform(x)
    assert isinstance(out, jax.Array)
    assert isinstance(fitted.inverse_transform(out), jax.Array)
    in_numpy = clone(model).fit(np.asarray(x))
    on_host = in_numpy.transform(np.asarray(x))
    assert isinstance(on_host, np.ndarray)
    assert on_host.dtype == np.float32
    assert_allclose(out, on_host, atol=1e-4)
    table = clone(model).set_output(transform="pandas").fit_transform(x)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == list(fitted.get_feature_names_out())


@pytest.mark.parametrize("algorithm", ["randomized", "arpack"])
def test_truncated_svd_of_sparse_rows(algorithm):
    dense = np.where(RNG.uniform(size=(300, 40)) < 0.2, 1.0, 0.0) * np.linspace(9, 1, 40) ** 2
    dense[:3] = RNG.uniform(size=(3, 40)) * 1e3  # long rows
    sparse = scipy.sparse.csr_array(dense)
    ours = TruncatedSVD(3, algorithm=algorithm, n_iter=20, random_state=0).fit(sparse)
    theirs = sklearn.decomposition.TruncatedSVD(3, algorithm="arpack").fit(sparse)
    assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=3e-6)
    assert_allclose(ours.components_, theirs.components_, atol=1e-4)
    assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-4)
    coordinates = ours.transform(sparse)
    assert_allclose(coordinates, sparse @ ours.components_.T, rtol=1e-5, atol=1e-3)
    assert_allclose(coordinates, ours.transform(dense), rtol=1e-5, atol=1e-3)
    assert_allclose(ours.inverse_transform(coordinates), coordinates @ ours.components_, rtol=1e-5, atol=1e-3)
    assert_allclose(TruncatedSVD(3, random_state=0, n_iter=20).fit(dense).components_, ours.components_, atol=1e-4)


@pytest.mark.parametrize(
    ("fit", "error", "message"),
    [
        (
            lambda: StandardScaler().fit(scipy.sparse.eye_array(3)),
            TypeError,
            "X is sparse, and StandardScaler subtracts",
        ),
        (lambda: MinMaxScaler().fit(scipy.sparse.eye_array(3)), TypeError, "X is sparse, and MinMaxScaler subtracts"),
        (lambda: PCA().fit(scipy.sparse.eye_array(3)), TypeError, "Take jaxcluster.preprocessing.TruncatedSVD"),
        (lambda: StandardScaler().fit([[np.inf]]), ValueError, "1 infinity"),
        (lambda: PCA().fit(HOLES), ValueError, "NaN"),
        (lambda: PCA(9).fit(X), ValueError, r"n_components=9 must be between 1 and min\(n_samples, n_features\)=5"),
        (lambda: PCA("mle").fit(X[:4]), ValueError, "needs n_samples >= n_features, got 4 and 5"),
        (lambda: PCA("ml").fit(X), TypeError, "must be an integer, a fraction, 'mle' or None"),
        (lambda: PCA(5, svd_solver="arpack").fit(X), ValueError, r"between 1 and min\(n_samples, n_features\) - 1=4"),
        (lambda: PCA(0.5, svd_solver="randomized").fit(X), ValueError, "needs all components"),
        (lambda: PCA(svd_solver="fulll").fit(X), ValueError, "Did you mean 'full'"),
        (lambda: PCA(2, svd_solver="full").fit(ArraySource(X)), ValueError, "Pass 'covariance_eigh' for a source"),
        (lambda: TruncatedSVD().fit(ArraySource(X)), TypeError, "Take PCA"),
        (lambda: TruncatedSVD(6).fit(X), ValueError, "must be at most"),
        (lambda: MinMaxScaler((1, 0)).fit(X), ValueError, "greater upper end"),
        (lambda: PCA(2).fit(X).inverse_transform(X), ValueError, "X has 5 columns"),
        (lambda: StandardScaler().fit(jnp.ones(3)), ValueError, "Expected 2D array"),
    ],
)
def test_wrong_rows_are_answered_in_a_sentence(fit, error, message):
    with pytest.raises(error, match=message):
        fit()


@pytest.mark.parametrize("solver", ["full", "covariance_eigh", "arpack"])
def test_pca_on_the_cpu_is_of_float64(solver):
    rows = X.astype(np.float32) + 1000
    ours = PCA(3, svd_solver=solver, random_state=0).fit(rows.astype(np.float64))
    theirs = sklearn.decomposition.PCA(3, svd_solver="full").fit(rows.astype(np.float64))
    assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-12)
    assert_allclose(ours.components_, theirs.components_, atol=1e-12)
    assert_allclose(ours.transform(rows.astype(np.float64)), theirs.transform(rows), atol=1e-10)
    short = PCA(3, svd_solver=solver, random_state=0).fit(rows)
    assert short.components_.dtype == np.float32
    assert_allclose(short.explained_variance_, ours.explained_variance_, rtol=1e-7)


def test_pca_without_float64_is_that_of_an_accelerator(monkeypatch):
    expected = PCA(3).fit(NEAR)
    monkeypatch.setattr(decomposition, "computes_in_float64", lambda: False)
    for solver in ("full", "covariance_eigh"):
        pca = PCA(3, svd_solver=solver).fit(NEAR)
        assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=3e-6)
        assert_allclose(pca.transform(NEAR), expected.transform(NEAR), atol=2e-5)


@pytest.mark.parametrize(
    "model", [StandardScaler(), MinMaxScaler((-1, 1)), PCA(2, whiten=True), TruncatedSVD(2, random_state=0)], ids=str
)
def test_saved_transformers_give_the_same_rows(model, tmp_path):
    table = pd.DataFrame(NEAR, columns=list("abcde"))
    fitted = clone(model).fit(table)
    fitted.save(tmp_path / "model")
    loaded = jaxcluster.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    assert_array_equal(loaded.transform(table), fitted.transform(table))
    if hasattr(model, "partial_fit"):
        assert_array_equal(loaded.partial_fit(table).transform(table), fitted.partial_fit(table).transform(table))
    with pytest.raises(ValueError, match="missing"):
        loaded.transform(table[list("abcd")])
    vars(fitted)[model._required_attributes[0]] = np.ones((2, 4))
    fitted.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds no numbers of 5 columns"):
        jaxcluster.load(tmp_path / "model")


@pytest.mark.parametrize("cls", [StandardScaler, MinMaxScaler])
def test_integers_that_float64_rounds_are_said(cls):
    x = np.arange(4)[:, None] + 10**18
    for rows in (x, ArraySource(x)):
        with pytest.warns(UserWarning, match="integers of more digits than float64 holds"):
            cls().fit(rows)


def test_a_range_beyond_float64_is_refused():
    with pytest.raises(ValueError, match="range of column 0 is beyond float64"):
        MinMaxScaler().fit([[1.7e308], [-1.7e308]])

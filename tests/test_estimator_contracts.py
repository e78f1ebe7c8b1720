"""The promises that every registered estimator keeps, whether it is told the number of clusters or finds it."""

from __future__ import annotations

import re
import warnings
from functools import cache
from inspect import getdoc, signature

import numpy as np
import pytest
from algorithms import CLUSTERERS, MIN_RAND_INDEX, PREDICTORS, WEIGHTED, make, rows_of
from saved_models import rewrite, saved_and_loaded
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from tolerances import assert_near

from jaxcluster.core.docstrings import SEE, entries
from jaxcluster.estimators import ESTIMATORS, load
from jaxcluster.sharding import row_mesh

WEIGHTED_CLUSTERERS = [name for name in CLUSTERERS if name in WEIGHTED]

IDLE = {"random_state", "verbose", "verbose_interval", "p", "decay", "degree", "coef0"}
"""Parameters that mean nothing beside the other defaults, or are tested elsewhere."""


@pytest.fixture(scope="module")
def fitted(blobs):
    """The fitted estimator of a name: each is fitted once a process, by the first test that asks for it."""
    return cache(lambda name: make(name).fit(rows_of(name, blobs.x)))


@pytest.fixture
def rows(blobs, request):
    return rows_of(request.getfixturevalue("name"), blobs.x)


MESHED = [name for name in CLUSTERERS if (info := ESTIMATORS.info(name)).takes_mesh and info.family != "deep"]
"""Clusterers over devices. Deep ones share one trainer, which has tests of its own."""


def same_partition(a, b, least: float = 1) -> bool:
    return adjusted_rand_score(a, b) >= least


@pytest.mark.parametrize("name", ESTIMATORS)
def test_help_describes_every_parameter(name):
    described = {word for key, _ in entries(ESTIMATORS[name], "Args") for word in re.findall(r"\w+", key)}
    assert {*signature(ESTIMATORS[name]).parameters} <= described
    assert not SEE.search("\n".join(text for _, text in entries(ESTIMATORS[name], "Attributes")))
    assert max(map(len, getdoc(ESTIMATORS[name]).splitlines())) <= 120


@pytest.mark.parametrize("name", CLUSTERERS)
def test_finds_separate_blobs(fitted, blobs, name):
    labels = fitted(name).labels_
    assert same_partition(labels, blobs.y, MIN_RAND_INDEX.get(name, 1))
    assert (labels.shape, labels.dtype) == ((300,), np.int32)
    assert labels.flags.writeable


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clone_fits_rows_in_any_order_and_a_frame(fitted, rows, name):
    """Permuted rows have permuted labels; a frame of float64, which names the columns, has the labels of float32."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows.astype(np.float64), columns=list("abcde"))
    estimator, again = fitted(name), clone(fitted(name))
    if name in CLUSTERERS:
        order = np.random.default_rng(5).permutation(len(rows))
        labels = again.fit(rows[order]).labels_
        assert same_partition(estimator.labels_[order], labels, MIN_RAND_INDEX.get(name, 1))
        np.testing.assert_array_equal(again.fit_predict(frame), estimator.labels_)
    else:
        again.fit(frame)
        np.testing.assert_array_equal(clone(again).fit(rows).embedding_, estimator.embedding_)
    assert again.feature_names_in_.tolist() == list("abcde")
    assert repr(again) == repr(estimator)
    if name in PREDICTORS:
        np.testing.assert_array_equal(again.predict(frame), estimator.labels_)


@pytest.mark.parametrize("name", [name for name in CLUSTERERS if "order" in ESTIMATORS[name]().get_params()])
def test_sorted_rows_have_the_same_labels_in_any_order(rows, name):
    order = np.random.default_rng(5).permutation(len(rows))
    given = make(name, order="canonical").fit(rows)
    permuted = make(name, order="canonical").fit(rows[order])
    np.testing.assert_array_equal(permuted.labels_, given.labels_[order])
    if hasattr(given, "medoid_indices_"):
        np.testing.assert_array_equal(rows[given.medoid_indices_], given.cluster_centers_)
        np.testing.assert_array_equal(order[permuted.medoid_indices_], given.medoid_indices_)
    if hasattr(given, "snapshots_"):
        np.testing.assert_array_equal(order[permuted.snapshots_["rows"]], given.snapshots_["rows"])


def test_what_goes_with_rows_is_sorted_with_them(blobs):
    order = np.random.default_rng(5).permutation(len(blobs.x))
    weights = np.random.default_rng(6).uniform(1, 2, len(blobs.x))
    place = np.argsort(order)
    one = make("kmeans", order="canonical").fit(blobs.x, sample_weight=weights)
    two = make("kmeans", order="canonical").fit(blobs.x[order], sample_weight=weights[order])
    np.testing.assert_array_equal(one.cluster_centers_, two.cluster_centers_)
    links = np.array([[0, 1], [2, 3]])
    one = make("constrained-kmeans", order="canonical").fit(blobs.x, cannot_link=links)
    two = make("constrained-kmeans", order="canonical").fit(blobs.x[order], cannot_link=place[links])
    np.testing.assert_array_equal(two.labels_, one.labels_[order])
    with pytest.raises(ValueError, match="order='canonical' sorts rows by their values"):
        make("kmedoids", metric="precomputed", order="canonical").fit(np.zeros((5, 5)))
    with pytest.raises(ValueError, match="order='sorted' is not known; choose one of 'canonical'"):
        make("kmeans", order="sorted").fit(blobs.x)


@pytest.mark.parametrize("name", WEIGHTED_CLUSTERERS)
def test_weight_equals_repetition(rows, name):
    # 320 rows in all, which are padded no further than the 300 of the other tests: nothing is compiled for them.
    weights = np.random.default_rng(3).permutation(np.repeat([1, 2, 3], [270, 10, 10]))
    x = rows[: len(weights)]
    weighted = make(name).fit(x, sample_weight=weights)
    repeated = make(name).fit(np.repeat(x, weights, axis=0))
    assert same_partition(np.repeat(weighted.labels_, weights), repeated.labels_)


@pytest.mark.parametrize("name", MESHED)
def test_spread_over_devices_equals_one_device(rows, name, tmp_path):
    rows = rows[:299]  # an uneven number
    options = {"method": "clara"} if name == "kmedoids" else {}
    single, spread = make(name, **options).fit(rows), make(name, **options, mesh=row_mesh()).fit(rows)
    assert clone(spread).mesh is spread.mesh
    assert spread.mesh.size == 2
    np.testing.assert_array_equal(spread.labels_, single.labels_)
    for attribute in ("cluster_centers_", "means_", "covariances_", "inertia_", "lower_bound_"):
        if hasattr(single, attribute) and name != "kmodes":  # its centers are no numbers
            assert_near(getattr(spread, attribute), getattr(single, attribute), "coordinates")
    with pytest.raises(TypeError, match="mesh must be a mesh of devices"):
        make(name, **options, mesh=2).fit(rows)
    spread.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.mesh is None
    if hasattr(single, "predict"):
        np.testing.assert_array_equal(loaded.predict(rows), single.predict(rows))


@pytest.mark.parametrize("name", WEIGHTED_CLUSTERERS)
def test_a_single_weight_weighs_all_rows_alike(fitted, rows, name):
    np.testing.assert_array_equal(make(name).fit(rows, sample_weight=1.0).labels_, fitted(name).labels_)


@pytest.mark.parametrize("name", PREDICTORS)
def test_predict_of_fitted_rows_equals_labels(fitted, rows, name):
    np.testing.assert_array_equal(fitted(name).predict(rows), fitted(name).labels_)


@pytest.mark.parametrize("name", PREDICTORS)
def test_row_is_predicted_alike_alone_and_among_others(fitted, blobs, name):
    new = rows_of(name, blobs.x + np.float32(0.25))  # as many as in the fit: only that of one row is another program
    together = fitted(name).predict(new)
    assert together.dtype == np.int32
    np.testing.assert_array_equal([fitted(name).predict(row[None])[0] for row in new[::40]], together[::40])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_save_and_load_are_exact(fitted, rows, name, tmp_path):
    """All attributes and parameters come back, so that a loaded model refits as one does that was not saved."""
    saved_and_loaded(fitted(name), rows, tmp_path / "model")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clone_keeps_parameters_and_forgets_the_fit(fitted, name):
    copy = clone(fitted(name))
    assert copy.get_params() == fitted(name).get_params()
    assert {key for key in vars(copy) if key.endswith("_")} == set()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_repr_says_that_it_was_fitted(fitted, name):
    assert " fitted on 300×5: " in repr(fitted(name))
    assert repr(fitted(name)).startswith(repr(make(name)))


@pytest.mark.parametrize("name", PREDICTORS)
def test_predict_wants_a_fit_and_its_columns(fitted, rows, name):
    names = ("predict", "transform", "score", "predict_proba", "score_samples", "bic", "approximate_predict")
    fresh, of_a_fit = (
        [getattr(each, method) for method in names if hasattr(each, method)] for each in (make(name), fitted(name))
    )
    for method in fresh:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            method(rows)
    for method in of_a_fit:
        with pytest.raises(ValueError, match=f"X has 3 features, but {type(fitted(name)).__name__} is expecting 5"):
            method(rows[:, :3])
        if name == "hdbscan":  # NaN rows have a label of their own
            continue
        with pytest.raises(ValueError, match="X contains 1 NaN value"):
            method(np.where(np.arange(5) == 2, np.nan, rows[:1]))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_info_is_true_of_fitted_estimators(fitted, name):
    info, estimator = ESTIMATORS.info(name), fitted(name)
    assert {info.clusters, info.steps, info.init} - {None} <= set(estimator.get_params())
    assert hasattr(estimator, "labels_") == info.labels
    assert hasattr(estimator, "history_") == (info.objective is not None)
    assert not info.objective or len(estimator.history_) or estimator.n_iter_ == 0
    assert all(np.isscalar(getattr(estimator, attribute)) for attribute in info.reported)


def wrong_options(kind, value):
    """Each estimator, each of its parameters whose default is of this kind, and a value that it cannot have."""
    for name in ESTIMATORS:
        for parameter, default in ESTIMATORS[name]().get_params().items():
            if isinstance(default, kind) and not isinstance(default, bool) and parameter not in IDLE:
                yield pytest.param(name, {parameter: value}, id=f"{name}-{parameter}")


WRONG = [*wrong_options(str, "wrnog"), *wrong_options((int, float), -1)]


@pytest.mark.parametrize(("name", "option"), WRONG)
def test_a_wrong_option_is_named(rows, name, option):
    ((parameter, value),) = option.items()
    with pytest.raises((ValueError, TypeError), match=rf"\b{parameter}\b.*{value}"):
        make(name).set_params(**option).fit(rows)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_saved_model_with_a_wrong_option_is_refused(fitted, name, tmp_path):
    fitted(name).save(tmp_path / "model")
    intact = (tmp_path / "model" / "model.json").read_text()
    for option in [dict(case.values[1]) for case in WRONG if case.values[0] == name]:
        ((parameter, value),) = option.items()
        (tmp_path / "model" / "model.json").write_text(intact)
        rewrite(tmp_path / "model", lambda content, option=option: content["params"].update(option))
        with pytest.raises(ValueError, match=rf"model\.json does not .*\b{parameter}\b.*{value}"):
            load(tmp_path / "model")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_model_without_required_attributes_is_refused(fitted, name, tmp_path):
    assert fitted(name)._required_attributes
    fitted(name).save(tmp_path / "model")
    intact = (tmp_path / "model" / "model.json").read_text()
    for attribute in fitted(name)._required_attributes:
        for wrong in ({}, {attribute: None}, {attribute: "evil"}, {attribute: -1}, {attribute: [1, 2, 3]}):
            (tmp_path / "model" / "model.json").write_text(intact)
            rewrite(
                tmp_path / "model",
                lambda content, attribute=attribute, wrong=wrong: (
                    content["attributes"].pop(attribute),
                    content["attributes"].update(wrong),
                ),
            )
            if name == "bisecting-kmeans" and wrong == {"inertia_": -1}:
                continue  # a number, as it should be
            with pytest.raises(ValueError, match=r"model\.json does not describe"):
                load(tmp_path / "model")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in CLUSTERERS if "hidden" not in ESTIMATORS[name]().get_params()])
def test_no_number_overflows_unseen_in_any_unit(rows, name):
    # As many rows as in the other tests: all fits run the programs that are compiled for these.
    far = rows.astype(np.float64)
    far[-1] = 1e6
    options = {"affinity": "nearest_neighbors"} if name == "spectral" else {}
    plain = make(name, **options)
    in_variances = hasattr(plain, "reg_covar")
    labels = None if in_variances else clone(plain).fit(far).labels_
    for unit in (2.0**531, 2.0**-664):  # 1e160 and 1e-200
        estimator = make(name, **options, **({"eps": plain.eps * unit} if hasattr(plain, "eps") else {}))
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            if in_variances and unit > 1:
                with pytest.raises(ValueError, match="variances of the columns of X are beyond float64"):
                    estimator.fit(far * unit)
                continue
            estimator.fit(far * unit)
            for method in {"predict", "transform", "score"} & set(dir(estimator)):
                getattr(estimator, method)(far * unit)
        if not in_variances:
            np.testing.assert_array_equal(estimator.labels_, labels)

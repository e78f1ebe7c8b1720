"""The registry of estimators: its table names every class, and what a class says of itself is true."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types

import pytest
import sklearn.cluster
import sklearn.mixture
from sklearn.utils.validation import has_fit_parameter

import jaxcluster
from jaxcluster import estimators
from jaxcluster.estimators import CLASSES, ESTIMATORS, EstimatorInfo, KMeans, MiniBatchKMeans
from jaxcluster.estimators.registry import check_processes

FAMILIES = {"partition", "mixture", "graph", "density", "deep"}
SCIKIT_LEARN = {
    name: getattr(module, name)
    for module in (sklearn.cluster, sklearn.mixture)
    for name in module.__all__
    if inspect.isclass(getattr(module, name))
}


def registered_classes() -> dict[str, str]:
    """Locations of the classes of all modules of the package, by registered name."""
    table = {}
    for module in pkgutil.walk_packages(estimators.__path__, f"{estimators.__name__}."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            info = vars(cls).get("info")
            if cls.__module__ == module.name and isinstance(info, EstimatorInfo) and info.name:
                table[info.name] = f"{module.name.removeprefix(estimators.__name__ + '.')}:{cls.__name__}"
    return table


def test_table_is_that_of_the_classes():
    assert registered_classes() == {name: entry.location for name, entry in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_info_is_true_of_the_class(name):
    cls, info = ESTIMATORS[name], ESTIMATORS.info(name)
    assert (info.name, info.module, info.class_name) == (name, cls.__module__, cls.__name__)
    assert getattr(jaxcluster, info.class_name) is cls
    assert ESTIMATORS.name_of(cls()) == name
    assert info.takes_weights == has_fit_parameter(cls(), "sample_weight")
    assert info.takes_mesh == ("mesh" in cls().get_params())
    assert info.takes_missing == ("missing" in cls().get_params() or cls().__sklearn_tags__().input_tags.allow_nan)
    assert info.family in FAMILIES
    assert (info.family == "deep") == (".deep." in info.module)
    assert info.title
    assert info.labels == hasattr(cls, "fit_predict")
    assert info.best in ("min", "max")


def test_classes_of_some_rows_are_taken_by_two_methods():
    assert {name for name in ESTIMATORS if ESTIMATORS.info(name).takes_classes} == {
        "metric-embedding",
        "joint-clustering",
    }


def test_names_and_classes():
    assert set(ESTIMATORS) == set(CLASSES)
    assert len(ESTIMATORS) == len(CLASSES) == len({info.class_name for info in map(ESTIMATORS.info, ESTIMATORS)})
    assert ESTIMATORS["kmeans"] is KMeans
    assert ESTIMATORS.name_of(MiniBatchKMeans()) == "minibatch-kmeans"
    assert ESTIMATORS.name_of(object()) is None
    assert ESTIMATORS.name_of(type("Own", (KMeans,), {})()) is None
    with pytest.raises(ValueError, match=r"'kmean' is not known.*Did you mean 'kmeans'"):
        ESTIMATORS.info("kmean")


@pytest.mark.parametrize("name", [each for each in SCIKIT_LEARN if hasattr(jaxcluster, each)])
def test_defaults_of_scikit_learn_are_taken(name):
    """Every keyword of an estimator of the same name, and the value that it has there."""
    defaults = inspect.signature(SCIKIT_LEARN[name]).parameters.values()
    given = {each.name: each.default for each in defaults if each.default is not inspect.Parameter.empty}
    getattr(jaxcluster, name)(**given)._check_params(100, 9)


@pytest.mark.parametrize("name", CLASSES)
def test_devices_of_several_processes_or_an_error(name):
    several = types.SimpleNamespace(is_multi_process=True)
    if ESTIMATORS.info(name).takes_processes:
        check_processes(ESTIMATORS[name](), several)
        return
    with pytest.raises(ValueError, match=f"{name} runs in one process. Methods for several are kmeans"):
        check_processes(ESTIMATORS[name](), several)

"""The registry of estimators: a class states once, by `register`, all that others need to know about it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from jaxcluster.core import validation
from jaxcluster.estimators import CLASSES

Class = TypeVar("Class", bound=type)


class EstimatorInfo(NamedTuple):
    """Description of an estimator class, its attribute ``info``. Subclasses inherit it, and replace what differs.

    Attributes:
        name: the registered name, as on the command line and in saved models; None for a base class.
        module, class_name: the module of the class, and its name there.
        title: a few words for a list of methods.
        family: "partition", "mixture", "graph", "density" or "deep".
        clusters: the parameter that holds the number of clusters; None where the method finds it, or needs none.
        steps: the parameter that bounds the steps or epochs; None where there is none.
        init: the parameter that chooses the initialization; None where there is none.
        starts: ``n_init`` of a fit of the command line, where it is not the default of the class.
        reported: fitted scalar attributes worth showing, in order.
        objective: what ``history_`` holds, in words; None where there is no history.
        best: "min" or "max", the direction in which the objective improves.
        labels: True if each row gets a cluster, False for an embedding.
        takes_weights: True if ``fit`` has a parameter ``sample_weight``.
        takes_classes: True if ``fit`` learns from ``y``, the classes of some rows.
        takes_missing: True if cells may be NaN, by the parameter ``missing`` where the class has it.
        takes_sources: True if ``fit`` reads a source of rows block by block (`jaxcluster.datasets.scan`).
        takes_mesh: True if rows may be spread over devices, by the parameter ``mesh``.
        takes_processes: True if that mesh may have devices of several processes, each with its part of the rows.
        takes_sparse: True if rows may be sparse: SciPy's matrices and arrays, and those of JAX.
        takes_categories: True if columns may hold text, whatever the parameters.
        needs: parameters with which "sparse", "missing" and "categories" are taken, and their values, by input; an
            input without an entry needs none.
        choices: words that a parameter takes, by parameter; the command line offers these.
    """

    name: str | None = None
    module: str = ""
    class_name: str = ""
    title: str = ""
    family: str = ""
    clusters: str | None = None
    steps: str | None = None
    init: str | None = None
    starts: int | None = None
    reported: tuple[str, ...] = ()
    objective: str | None = None
    best: str = "min"
    labels: bool = True
    takes_weights: bool = False
    takes_classes: bool = False
    takes_missing: bool = False
    takes_sources: bool = False
    takes_mesh: bool = False
    takes_processes: bool = False
    takes_sparse: bool = False
    takes_categories: bool = False
    needs: Mapping[str, Mapping[str, Collection[Any]]] = MappingProxyType({})
    choices: Mapping[str, Collection[str]] = MappingProxyType({})

    def takes(self, kind: str) -> bool:
        """True if ``fit`` takes an input, "sparse", "missing", "categories" or "sources", by whatever parameter."""
        return bool(getattr(self, f"takes_{kind}")) or kind in self.needs


def register(name: str, **fields: Any) -> Callable[[Class], Class]:
    """Decorate an estimator class: set its ``info`` to that of its base class with these fields replaced.

    Args:
        name: the registered name, in `CLASSES`, which holds the family, the title, ``labels`` and ``sparse`` too.
        fields: other fields of `EstimatorInfo` that differ from the base class's. ``module``, ``class_name``,
            ``takes_weights`` and ``takes_mesh`` are read from the class itself, and ``takes_processes`` is that of the
            mesh if not given.
    """

    def decorate(cls: Class) -> Class:
        # The signature is that of the undecorated method: inspect follows ``__wrapped__``.
        weights = "sample_weight" in inspect.signature(cls.fit).parameters
        own = {"name": name, "module": cls.__module__, "class_name": cls.__name__, "takes_weights": weights}
        mesh = "mesh" in inspect.signature(cls).parameters
        own |= {"takes_mesh": mesh, "takes_processes": mesh}
        _, family, title, labels, sparse = CLASSES[name]
        own |= {"family": family, "title": title, "labels": labels, "takes_sparse": sparse}
        cls.info = cls.info._replace(**(own | fields))
        return cls

    return decorate


class EstimatorRegistry(Mapping[str, type]):
    """Mapping from names to estimator classes, each imported when it is looked up.

    >>> ESTIMATORS["kmeans"].__name__, ESTIMATORS.info("kmeans").clusters
    ('KMeans', 'n_clusters')
    """

    def __getitem__(self, name: str) -> type:
        module, class_name = CLASSES[name].location.split(":")
        return getattr(importlib.import_module(f"jaxcluster.estimators.{module}"), class_name)

    def __repr__(self) -> str:
        return f"EstimatorRegistry({', '.join(self)})"

    def __iter__(self) -> Iterator[str]:
        return iter(CLASSES)

    def __len__(self) -> int:
        return len(CLASSES)

    def info(self, name: str) -> EstimatorInfo:
        """The description of the class called ``name``.

        Raises:
            ValueError: an unknown name; the message lists the registered ones.
        """
        validation.check_choice("estimator", name, self)
        return self[name].info

    def name_of(self, estimator: Any) -> str | None:
        """The registered name of an estimator's class; None for any other object, such as one of a subclass."""
        info = getattr(type(estimator), "info", None)
        if not isinstance(info, EstimatorInfo) or info.name not in CLASSES:
            return None
        # A subclass inherits ``info``, but loading its model would give the registered class instead.
        return info.name if type(estimator) is self[info.name] else None


ESTIMATORS = EstimatorRegistry()


def check_processes(estimator: Any, mesh: Any) -> None:
    """Raise ValueError for devices of several processes where the method, or one of its parameters, is for one.

    Args:
        estimator: of a class with ``info``.
        mesh: its checked mesh, or None.
    """
    if mesh is None or not mesh.is_multi_process:
        return
    if not estimator.info.takes_processes:
        raise one_process_error(estimator.info)
    if getattr(estimator, "order", None) is not None:
        raise ValueError("order='canonical' sorts the rows of one process: pass order=None for a mesh of several.")
    if callable(getattr(estimator, "init", None)):
        raise ValueError("init= is a function, which may choose other centers in each process: pass its centers.")


def one_process_error(info: EstimatorInfo, remedy: str = "") -> ValueError:
    """Error of a method whose rows are not spread over processes, with what to do and those whose rows may be."""
    known = ", ".join(name for name in ESTIMATORS if ESTIMATORS.info(name).takes_processes)
    return ValueError(f"{info.name} runs in one process{remedy and f': {remedy}'}. Methods for several are {known}.")

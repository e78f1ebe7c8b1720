"""Base classes of all estimators: validation, random keys, published results, and a repr that describes the fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import isfunction
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.seeding import check_centers, check_runs
from jaxcluster.core import docstrings, memory, signals, validation
from jaxcluster.core.frame import Frame
from jaxcluster.core.messages import warn
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.shard import check_mesh
from jaxcluster.core.sources import RowSource, check_source
from jaxcluster.core.sparse_input import as_csr, check_values
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.estimators import persistence
from jaxcluster.estimators.fit_messages import PRECISION_MESSAGE, PrintsSteps, empty_message, fit_html
from jaxcluster.estimators.input_tables import (
    CANONICAL,
    check_names,
    check_sparse,
    encoded_table,
    forget_steps,
    imputed_and_scaled,
    numeric_table,
    of_samples_or_source,
    term_weights,
)
from jaxcluster.estimators.output import in_kind_of_input
from jaxcluster.estimators.registry import EstimatorInfo, check_processes
from jaxcluster.types import Absent, Fit, KeyArray, Status

if TYPE_CHECKING:
    from jaxcluster.datasets.encoding import Encoding
    from jaxcluster.datasets.imputation import Imputation
    from jaxcluster.datasets.texts import TextVectorizer

MAX_SEED = 2**32 - 1
"""Largest integer ``random_state``: scikit-learn's bound, one uint32."""

PER_SAMPLE_METHODS = ("predict", "transform", "predict_proba", "score_samples")
"""Methods with one result for each sample, which compute those of a source of rows block by block."""


class Estimator(PrintsSteps, BaseEstimator):
    """Base of all estimators: conversion to and from the functions of `jaxcluster.cluster`.

    Computes in float32, or in float64 if the samples are float64 and JAX's x64 mode is on, relative to their median
    (`jaxcluster.core.frame`). Fitted attributes have the dtype of the samples: float64 for float64 and integers, so
    that a difference of 1 at 1e9 is not lost, and float32 for float32 and half precision.

    Parameters are the fields of a dataclass. Those of type Any are kept as they are, as scikit-learn's contract demands
    of a constructor, and checked by `fit`.
    """

    info: ClassVar[EstimatorInfo] = EstimatorInfo()
    """Description of the class: see `jaxcluster.estimators.registry`."""

    _takes_missing: bool | None = None
    """True if NaN passes validation; None if the class has no parameter for it."""

    _missing_option = "missing=True"
    """Parameter with which NaN passes."""

    _required_attributes: tuple[str, ...] = ()
    """Fitted attributes that labels are computed from: a saved model without them is refused."""

    # Set by `fit`, here and in the subclasses; a class without a value has no attribute of the name.
    n_features_in_: int
    feature_names_in_: np.ndarray
    history_: np.ndarray
    status_: Status
    scaling_: Scaling

    input_scaling_: Scaling | None = None
    """Scaling that the command line applied to the samples before the fit; None for models fitted in Python.

    New samples are passed in their original units and are scaled in the same way. Centers and other fitted values are
    in the units of the scaled samples: ``input_scaling_.undo(model.cluster_centers_)`` has them in the original units.
    """

    input_imputation_: Imputation | None = None
    """Imputation that the command line applied before the scaling; missing cells of new samples are filled by it."""

    input_encoding_: Encoding | None = None
    """Codes that the command line gave words and dates before the imputation. New samples are numbers, one column for
    each of ``feature_names_in_``, or a table of pandas or Arrow with the columns of ``input_encoding_``."""

    input_vectorizer_: TextVectorizer | None = None
    """Term weights of the texts that the command line fitted. New samples are a list of texts, or their weights."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap every public method by `memory.guarded`, and complete the docstring for ``help``."""
        super().__init_subclass__(**options)
        cls.__doc__ = docstrings.complete(cls) if vars(cls).get("__doc__") else None
        for name, method in list(vars(cls).items()):  # dir(cls) has inherited ones, which are wrapped already
            if isfunction(method) and not name.startswith("_"):
                method = of_samples_or_source(method) if name in PER_SAMPLE_METHODS else method
                setattr(cls, name, memory.guarded(in_kind_of_input(method)))

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted estimator to the folder ``path``, completely or not at all, replacing a model there.

        The folder holds ``model.json`` and ``arrays.safetensors``; read it back with ``jaxcluster.load``.

        Raises:
            NotFittedError: before `fit`.
            TypeError: a parameter that a file cannot hold, such as a function.
            FileExistsError: ``path`` exists and is not a saved model.
        """
        check_is_fitted(self)
        persistence.save(self, path)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "status_")

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        params = super().__repr__(N_CHAR_MAX)
        return f"{params} {self._summary()}" if self.__sklearn_is_fitted__() else params

    def _summary(self) -> str:
        """Description of the last fit: the shape of the samples, the metrics of the fit, and its status."""
        per_row = getattr(self, "labels_", getattr(self, "embedding_", None))
        shape = f"{self.n_features_in_} columns" if per_row is None else f"{len(per_row)}×{self.n_features_in_}"
        ending = self.ENDINGS[self.status_]
        return f"fitted on {shape}: {', '.join([*self._summary_metrics(), ending])}"

    def _summary_metrics(self) -> list[str]:
        """Numbers of the last fit, in words, for `_summary`."""
        return []

    def _check_params(self, n: int, d: int) -> None:
        """Check the parameters against n samples of d features, in a fit and when a saved model is loaded.

        Raises:
            ValueError, TypeError: parameters with which such samples cannot be fitted.
        """
        random_state, order = (getattr(self, name, None) for name in ("random_state", "order"))
        if not (random_state is None or random_state is np.random or isinstance(random_state, np.random.RandomState)):
            as_key(random_state)
        if order is not None:
            validation.check_choice("order", order, (CANONICAL,))
        check_processes(self, check_mesh(getattr(self, "mesh", None)))

    def _check_attributes(self) -> None:
        """Raise ValueError if the fitted attributes of a loaded model are unusable or inconsistent."""
        # The repr reads most attributes: one that cannot be shown is refused when it is loaded, not when it is printed.
        self._summary()
        frame = getattr(self, "_frame", None)
        if not isinstance(frame, (Frame, type(None))):
            raise ValueError(f"_frame is {frame!r}, not the frame of a fit.")
        numbers = getattr(self, "_numeric_width", self.n_features_in_)
        for each in (frame, self.input_scaling_):
            if each is not None:
                each.check(numbers)

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """Scores that the fitted model gives its own rows, by name; none unless a subclass has some.

        Args:
            X: (n_samples, n_features) the rows of the fit.
            sample_weight: (n_samples,) their weights in the fit, or None.
        """
        return {}

    def reading_options(self) -> dict[str, Any] | None:
        """Options of `jaxcluster.datasets.categories.read_mixed` for the samples; None where all must be numbers."""
        return None

    def report(self, X: Any, y: Any = None, **options: Any) -> Any:
        """Report on the fit and its rows X, which a notebook shows: see `jaxcluster.report.report` for the options."""
        from jaxcluster.report import report

        return report(self, X, y, **options)

    def _repr_html_inner(self) -> str:
        return super()._repr_html_inner() + fit_html(self)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**options)
        return bundle | ({"text/html": bundle["text/html"] + fit_html(self)} if "text/html" in bundle else {})

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Arguments of `jaxcluster.report.write_report` that show how the fit came to its clusters.

        ``components``, ``structure`` and ``training`` are mappings with the fields of the classes of that name.

        Args:
            X: (n_samples, n_features) the rows of the fit.
            sample_weight: (n_samples,) their weights in the fit, or None.
        """
        return {}

    def _validate(self, X: Any, *, reset: bool) -> Any:
        """Samples as finite numbers, dense or a CSR matrix, or a source as it is; ``reset`` stores their features."""
        if isinstance(X, RowSource):
            return self._validate_source(X, reset)
        X = term_weights(self, as_rows(X), reset)
        if not (self.info.takes_sparse and is_sparse(X)):
            X = self._to_numeric(X, reset=reset)
            names = list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None
            options = {"missing": self._takes_missing, "option": self._missing_option}
            validation.check_finite(X, name="X", columns=names, **options)
            return X
        X = self._to_numeric(as_csr(X, name="X"), reset=reset, accept_sparse="csr")
        check_values(X, name="X")
        return X

    def _validate_source(self, source: RowSource, reset: bool) -> Any:
        if not self.info.takes_sources:
            raise TypeError(
                f"{type(self).__name__} needs all rows in memory, and X is a source of rows. Pass "
                "np.concatenate(list(X.blocks(65536))), or fit KMeans or GaussianMixture, which read rows in blocks."
            )
        check_source(source)
        if self.input_scaling_ is not None and not reset:
            raise TypeError("the model scales its rows, which a source does not support: pass the rows in memory.")
        if reset:
            forget_steps(self)
            self.n_features_in_ = source.shape[1]
            vars(self).pop("feature_names_in_", None)
            if source.columns is not None:
                self.feature_names_in_ = np.array(source.columns, object)
        return source

    def _to_numeric(self, X: Any, **options: Any) -> Any:
        """A table or matrix as numbers, finite or not, checked by scikit-learn's ``validate_data`` with ``options``.

        Samples of a new fit are taken as they are; others are encoded, imputed and scaled as those of the fit were.
        """
        limit_programs()
        X = term_weights(self, as_rows(X), options.get("reset", True))
        if isinstance(X, RowSource):
            self._validate_source(X, options.get("reset", True))
        if is_sparse(X):
            check_sparse(self, X, **options)
        if not options.get("reset", True) and self.input_encoding_ is not None:
            X = encoded_table(X, self.input_encoding_)
        if not options.get("reset", True) and hasattr(self, "feature_names_in_"):
            check_names(X, self.feature_names_in_)
        table = numeric_table(self, X, dtype="numeric", ensure_all_finite=False, **options)
        if options.get("reset", True):
            forget_steps(self)
            return table
        return imputed_and_scaled(table, X, self.input_imputation_, self.input_scaling_)

    @staticmethod
    def _check_weights(sample_weight: Any, n: int) -> np.ndarray | None:
        """Sample weights as an array of n numbers; a scalar is the weight of every sample."""
        if sample_weight is None:
            return None
        weights = validation.as_real_array(sample_weight, name="sample_weight")
        return validation.check_weights(np.full(n, weights) if weights.ndim == 0 else weights, n, name="sample_weight")


class CenterEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """Base of estimators with one center per cluster: samples get the label of the nearest center."""

    info = Estimator.info._replace(
        clusters="n_clusters",
        steps="max_iter",
        init="init",
        reported=("inertia_", "n_iter_"),
        objective="inertia",
    )

    _functions: Any = kmeans
    """Module whose ``predict``, ``transform`` and ``score`` take centers and samples."""

    _metric = "sqeuclidean"
    _required_attributes = ("cluster_centers_",)

    _frame: Frame | None = None
    """Origin and unit of the last fit, in which samples are compared with its centers."""

    # Parameters and attributes that every subclass has.
    n_clusters: Any
    init: Any
    n_init: Any
    max_iter: Any
    tol: Any
    random_state: Any
    n_iter_: int

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> CenterEstimator:
        """Fit to the samples."""
        raise NotImplementedError

    @property
    def _n_features_out(self):
        return self.cluster_centers_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = self.info.takes_sparse
        return tags

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by its nearest center, (n_samples,) int32."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(self._functions.predict(self.cluster_centers_, X, **self._row_options()))

    def transform(self, X: Any) -> Any:
        """Compute the distance of each sample to each center, (n_samples, n_clusters): Euclidean, or 1 − cos."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return np.array(self._functions.transform(self.cluster_centers_, X, **self._row_options()))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the negative inertia of the samples: higher is better."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self._score(X, self._check_weights(sample_weight, X.shape[0]))

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return the distance of each sample to each center."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """The inertia, by name."""
        return {"inertia": self.inertia_}

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The centers."""
        return {"centers": self.cluster_centers_}

    def _score(self, X, weights):
        return float(self._functions.score(self.cluster_centers_, X, weights=weights, **self._row_options()))

    def _row_options(self) -> dict[str, Any]:
        """Options of ``_functions`` for new samples."""
        return {"metric": self._metric, "frame": self._frame}

    def _summary_metrics(self):
        steps = getattr(self, "n_steps_", None) or self.n_iter_
        inertia = [f"inertia {self.inertia_:.4g}"] if hasattr(self, "inertia_") else []
        return [*inertia, f"{steps} step{'' if steps == 1 else 's'}"]

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        validation.check_count("max_iter", self.max_iter)
        validation.check_positive("tol", self.tol, zero=True)
        self._check_init(d)

    def _check_init(self, d: int) -> None:
        """Raise ValueError or TypeError on initial centers of a wrong shape, and on a wrong number of runs."""
        if not callable(self.init):
            check_centers(self.init, getattr(self, "frozen", None), None, self.n_clusters, d)
        check_runs("k-means++", self.n_init)

    def _n_runs(self, *, auto: int) -> int:
        """Number of runs: ``n_init``, or for "auto" the number ``auto`` if ``init`` is random or a callable, else 1."""
        by_chance = callable(self.init) or (isinstance(self.init, str) and self.init == "random")
        if isinstance(self.n_init, str):
            return auto if by_chance else 1
        runs = validation.check_count("n_init", self.n_init)
        if runs == 1 or isinstance(self.init, str) or callable(self.init):
            return runs
        warn(
            f"Explicit initial center position passed: performing only one init in {type(self).__name__} instead of "
            f"n_init={runs}.",
            RuntimeWarning,
        )
        return 1

    def _starts_from_callable(self, X: Any, runs: int) -> list[np.ndarray]:
        """Initial centers of each run from a callable ``init``, called with scikit-learn's signature."""
        return self._call_init(X, runs, self.n_clusters, as_random_state(self.random_state))

    def _call_init(self, X: Any, runs: int, k: int, random_state: np.random.RandomState | Absent) -> list[np.ndarray]:
        starts = [np.asarray(self.init(X, k, random_state=random_state)) for _ in range(runs)]
        for start in starts:
            check_centers(start, None, None, k, X.shape[1])
        return starts

    def _fit_from_starts(
        self, function: Callable[..., tuple[Fit, Frame]], X: Any, runs: int, **options: Any
    ) -> tuple[Fit, Frame]:
        """Fit by ``function``; with a callable ``init`` the run of the least inertia among those from its centers."""
        key = as_key(self.random_state)
        if not callable(self.init):
            return function(key, X, self.n_clusters, init=self.init, n_init=runs, **options)
        # One call per run, each with its own initial centers.
        fits = []
        with signals.keeping_result():
            for start in self._starts_from_callable(X, runs):
                fits.append(function(key, X, self.n_clusters, init=start, n_init=1, **options))
                if signals.interrupted():
                    break
        fit, frame = min(fits, key=lambda fit: float(fit[0].state.inertia))
        return (fit._replace(status=fits[-1][0].status) if len(fits) < runs else fit), frame

    def _publish(self, fit: Fit, frame: Frame | None, X: Any, weights: np.ndarray | None) -> Fit:
        """Set the fitted attributes that all methods with centers have; return the fit as NumPy arrays."""
        fit = jax.device_get(fit)
        self._frame = frame
        self.cluster_centers_ = np.array(fit.state.centers)
        self.labels_ = np.array(fit.labels)
        self.inertia_ = float(fit.state.inertia)
        self.history_ = np.array(fit.history[: int(fit.steps)])
        self.status_ = Status(int(fit.status))
        self._print_history()
        self._warn_of_status(X, weights)
        return fit

    def _warn_of_status(self, X, weights):
        """Warn of a status other than convergence, with its cause and a remedy."""
        if self.status_ == Status.NOT_FINITE:
            message = (
                "The centers or the inertia are not finite: distances between rows of X are too far apart in size for "
                f"{self.cluster_centers_.dtype}. Scale the columns, drop rows that are too far away, or compute in "
                "float64 with jax.config.update('jax_enable_x64', True)."
            )
        elif self.status_ == Status.PRECISION:
            message = PRECISION_MESSAGE
        elif self.status_ == Status.EMPTY_CLUSTERS:
            message = self._empty_message(X, weights)
        else:
            return
        warn(message, ConvergenceWarning)

    def _empty_message(self, X, weights):
        if isinstance(X, RowSource):
            return (
                f"Number of distinct clusters found smaller than n_clusters ({self.n_clusters}). Pass fewer clusters."
            )
        # partial_fit keeps no labels of earlier batches, and compute_labels=False none at all.
        labels = self.labels_ if len(getattr(self, "labels_", ())) == X.shape[0] else None
        return empty_message(self.n_clusters, X, weights, labels)


def as_key(random_state: Any) -> KeyArray:
    """Typed JAX key from None (fresh entropy), an int, a NumPy RandomState (which advances) or a JAX key.

    ``np.random``, the module, stands for its global RandomState, as in scikit-learn.

    Raises:
        ValueError, TypeError: an int outside [0, 2**32 - 1], more than one key, or any other object.
    """
    if random_state is None:
        # Entropy of the operating system, not of NumPy's global state: the caller may have seeded that one.
        return jax.random.key(np.random.SeedSequence().generate_state(1)[0])
    if random_state is np.random:
        # The RandomState behind the functions of np.random; scikit-learn uses it for None and for the module.
        random_state = np.random.mtrand._rand
    if isinstance(random_state, np.random.RandomState):
        # The draw advances the RandomState, so two fits with one RandomState differ, as in scikit-learn.
        return jax.random.key(random_state.randint(MAX_SEED + 1, dtype=np.uint32))
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        # np.uint32 would wrap around without an error.
        if not 0 <= random_state <= MAX_SEED:
            raise ValueError(f"random_state={random_state} must lie between 0 and {MAX_SEED}.")
        return jax.random.key(np.uint32(random_state))
    if isinstance(random_state, (jax.Array, np.ndarray)):
        return _as_typed_key(random_state)
    raise TypeError(
        f"random_state must be None, an int, a numpy RandomState or a JAX key, got {random_state!r} of type "
        f"{type(random_state).__name__}."
    )


def as_random_state(random_state: Any) -> np.random.RandomState:
    """NumPy RandomState for callables of scikit-learn's signature; a RandomState is passed on as it is."""
    if random_state is np.random:
        return np.random.mtrand._rand
    if isinstance(random_state, np.random.RandomState):
        return random_state
    return np.random.RandomState(np.asarray(jax.random.key_data(as_key(random_state))).ravel())


def _as_typed_key(key) -> Any:
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    elif key.dtype == np.uint32 and key.ndim:
        typed = jax.random.wrap_key_data(key)
    else:
        raise TypeError(f"random_state as an array must be a JAX key, got dtype {key.dtype} of shape {key.shape}.")
    if typed.shape != ():
        raise ValueError(f"random_state must be one JAX key, got keys of shape {typed.shape}.")
    return typed

"""`KModes` and `KPrototypes` with scikit-learn's interface, over `jaxcluster.kmodes` and `jaxcluster.kprototypes`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from sklearn.base import ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmodes, kprototypes
from jaxcluster.cluster.kprototypes.checks import check_gamma, check_runs
from jaxcluster.core import validation
from jaxcluster.core.frame import Frame
from jaxcluster.core.messages import warn
from jaxcluster.datasets.categories import MixedColumns, MixedTable, category_counts, read_mixed
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.base import PRECISION_MESSAGE, Estimator, as_key
from jaxcluster.estimators.input_tables import check_mixed_table
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status


class PrototypeEstimator(ClusterMixin, Estimator):
    """Base of estimators of categorical columns, with a mean and a mode for each cluster."""

    info = Estimator.info._replace(
        clusters="n_clusters",
        steps="max_iter",
        init="init",
        reported=("inertia_", "n_iter_"),
        takes_categories=True,
    )

    _required_attributes = ("_means", "_modes", "_columns")

    # Parameters and methods that every subclass has.
    n_clusters: Any
    init: Any
    n_init: Any
    max_iter: Any
    fit: Any

    _frame: Frame | None = None
    """Origin and unit of the last fit, in which the numbers of rows are compared with the means."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    @property
    def cluster_centers_(self) -> np.ndarray:
        """(n_clusters, n_features) means and modes, in the categories of the samples; of objects if there are any."""
        if not hasattr(self, "_modes"):
            raise AttributeError(f"{type(self).__name__} has no cluster_centers_ before fit.")
        return self.center_rows()

    @property
    def categories_(self) -> list[list[Any]]:
        """Categories of each categorical column, in the order of their codes."""
        if not hasattr(self, "_columns"):
            raise AttributeError(f"{type(self).__name__} has no categories_ before fit.")
        return [list(words) for words in self._columns.categories]

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by the center of least cost, (n_samples,) int32; ties go to the lower label.

        Warns:
            UserWarning: categories that the fit has not seen, which differ from every mode.
        """
        check_is_fitted(self)
        table = self._read(X, reset=False)
        options = {"gamma": self._cost, "frame": self._frame}
        return np.array(kprototypes.predict((self._means, self._modes), table.numbers, codes=table.codes, **options))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the negative inertia of the samples: higher is better."""
        check_is_fitted(self)
        table = self._read(X, reset=False)
        options = {"gamma": self._cost, "frame": self._frame}
        weights = self._check_weights(sample_weight, len(table.codes))
        options |= {"codes": table.codes, "weights": weights}
        return float(kprototypes.score((self._means, self._modes), table.numbers, **options))

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def model_scores(self, X: Any, sample_weight: Any = None) -> dict[str, float]:
        """The inertia, by name."""
        return {"inertia": self.inertia_}

    def embed(self, X: Any) -> tuple[np.ndarray, list[str]]:
        """Embed samples so that squared Euclidean distances are costs: categories as columns of 0 and √(γ/2).

        Returns:
            (n_samples, n_columns) numbers, and the names of their columns.
        """
        return self._columns.one_hot(*self._read(X, reset=False), np.sqrt(self._cost / 2))

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The centers, embedded as the samples are."""
        return {"centers": self._columns.one_hot(self._means, self._modes, np.sqrt(self._cost / 2))[0]}

    def center_rows(self, scaling: Any = None) -> np.ndarray:
        """Centers as rows of the table, as ``cluster_centers_``, with the scaling of their numbers undone."""
        means = self._means if scaling is None or not self._means.shape[1] else scaling.undo(self._means)
        return self._columns.decode(means, self._modes)

    @property
    def _cost(self) -> float:
        """Cost of a mismatch."""
        return getattr(self, "gamma_", 1.0)

    def reading_options(self) -> dict[str, Any]:
        """All columns are categorical."""
        return {"every": True}

    def _read(self, X: Any, *, reset: bool) -> MixedTable:
        """Numbers and codes of samples. ``reset`` stores their columns, else they are read as those of the fit."""
        X = as_rows(X)
        check_mixed_table(self, X, reset=reset)
        if not reset:
            return self._scaled(read_mixed(X, like=self._columns)[1])
        self._columns, table = read_mixed(X, **self.reading_options())
        self._warn_of_numbers(X, table)
        return table

    def _scaled(self, table: MixedTable) -> MixedTable:
        """New samples, their numbers scaled as those of the fit were."""
        scaling = self.input_scaling_
        return table if scaling is None else table._replace(numbers=scaling.apply(table.numbers))

    def _warn_of_numbers(self, X: Any, table: MixedTable) -> None:
        """Warn of columns that look like measurements, whose numbers would count as categories."""

    def _set_fit(self, means, modes, fit, X: Any, table: MixedTable) -> None:
        """Set the fitted attributes that both methods have."""
        self._means, self._modes = np.array(means), np.array(modes)
        self.labels_ = np.array(fit.labels)
        self.inertia_ = float(fit.state.inertia)
        self.n_iter_ = int(fit.steps)
        self.history_ = np.array(fit.history[: self.n_iter_])
        self.status_ = Status(int(fit.status))
        self._print_history()
        self._warn_of_status(table)

    def _warn_of_status(self, table):
        """Warn of a status other than convergence, with its cause and a remedy."""
        if self.status_ == Status.NOT_FINITE:
            message = "The inertia is not finite: numbers of X are too far apart in size. Scale the columns."
        elif self.status_ == Status.PRECISION:
            message = PRECISION_MESSAGE
        elif self.status_ == Status.EMPTY_CLUSTERS:
            occupied = np.unique(self.labels_).size
            distinct = len(np.unique(np.hstack([table.numbers.astype(float), table.codes]), axis=0))
            message = (
                f"Number of distinct clusters ({occupied}) found smaller than n_clusters ({self.n_clusters}). X has "
                f"{distinct} distinct row{'' if distinct == 1 else 's'}, some may weigh 0: pass fewer clusters."
            )
        elif self.status_ == Status.MAX_STEPS:
            message = f"Labels still changed in step max_iter={self.max_iter}. Raise max_iter."
        else:
            return
        warn(message, ConvergenceWarning)

    def _start(self, X_columns: MixedColumns) -> Any:
        """Initial prototypes of the functions: a name, or means and modes of centers in the caller's categories."""
        if isinstance(self.init, str):
            return self.init
        _, table = read_mixed(self.init, like=X_columns, name="init", unseen="raise")
        return table.numbers, table.codes

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        validation.check_count("max_iter", self.max_iter)
        if isinstance(self.init, str):
            validation.check_choice("init", self.init, kmodes.INITS)
        elif np.shape(self.init) != (self.n_clusters, d):
            raise ValueError(
                f"The shape of the initial centers {np.shape(self.init)} does not match n_clusters={self.n_clusters} "
                f"and the {d} columns of X."
            )
        check_runs(self.init if isinstance(self.init, str) else "cao", self.n_init)

    @property
    def _numeric_width(self):
        return len(self._columns.numeric)

    def _check_attributes(self):
        columns, means, modes = self._columns, self._means, self._modes
        if not isinstance(columns, MixedColumns):
            raise ValueError(f"_columns do not describe {self.n_features_in_} columns.")
        columns.check(self.n_features_in_)
        super()._check_attributes()
        k, q = self.n_clusters, len(columns.categorical)
        if np.shape(means) != (k, columns.width - q) or np.asarray(means).dtype.kind != "f":
            raise ValueError(f"_means are not those of {k} clusters in {columns.width - q} columns.")
        if np.shape(modes) != (k, q) or np.asarray(modes).dtype.kind not in "iu" or not np.isfinite(means).all():
            raise ValueError(f"_modes are not those of {k} clusters in {q} columns.")
        if (modes < 0).any() or (modes >= category_counts(columns)).any():
            raise ValueError("_modes hold codes of no category.")

    def _summary_metrics(self):
        return [f"inertia {self.inertia_:.4g}", f"{self.n_iter_} step{'' if self.n_iter_ == 1 else 's'}"]


@register("kmodes", objective="sum of mismatches", choices={"init": kmodes.INITS}, takes_processes=False)
@dataclass(eq=False, repr=False)
class KModes(PrototypeEstimator):
    """k-modes clustering: every column holds categories, and a center is a mode.

    A sample joins the mode from which it differs in the fewest columns; a mode has the commonest category of its
    samples in each column. Of equally common ones it is the first in ``categories_``: booleans, then numbers, then
    text, each sorted.

    Args:
        n_clusters: number of clusters.
        init: "huang" (samples near drawn categories), "cao" (frequent samples far from each other, without chance),
            "random" (distinct samples), or (n_clusters, n_features) modes.
        n_init: number of runs with different initializations, of which the least inertia wins. "auto" is 10 for "huang"
            and "random", else 1.
        max_iter: maximum number of steps of a run; it stops once no label changes.
        verbose: print the inertia of every step after the fit.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        cluster_centers_: (n_clusters, n_features) modes, in the categories of the samples.
        labels_: (n_samples,) int32.
        inertia_: Σ w·(number of columns in which a sample differs from its mode).
        n_iter_: steps of the best run.
        history_: (n_iter_,) inertia after each step.
        status_: `jaxcluster.types.Status` of the iteration.
        categories_: categories of each column.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> X = [["red", "s"], ["red", "m"], ["blue", "l"], ["blue", "l"]]
        >>> KModes(n_clusters=2, init="cao").fit(X).cluster_centers_.tolist()
        [['blue', 'l'], ['red', 'm']]
    """

    n_clusters: Any = 8
    _: KW_ONLY
    init: Any = "huang"
    n_init: Any = "auto"
    max_iter: Any = 100
    verbose: Any = 0
    random_state: Any = None
    mesh: Any = None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KModes:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) categories: text, numbers or booleans; an array, a list of rows, or a table of
                pandas, polars or Arrow.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters or shapes; missing cells, with their columns.

        Warns:
            UserWarning: a column of fractions, each of which counts as a category.
            ConvergenceWarning: fewer distinct samples than clusters, or no convergence in ``max_iter``.
        """
        table = self._read(X, reset=True)
        self._check_params(len(table.codes), self.n_features_in_)
        init = self._start(self._columns)
        fit = kmodes.fit(
            as_key(self.random_state),
            table.codes,
            self.n_clusters,
            weights=self._check_weights(sample_weight, len(table.codes)),
            init=init if isinstance(init, str) else init[1],
            n_init=self.n_init,
            max_steps=self.max_iter,
            n_categories=category_counts(self._columns),
            mesh=self.mesh,
        )
        fit = jax.device_get(fit)
        self._set_fit(np.zeros((self.n_clusters, 0)), fit.state.centers, fit, X, table)
        return self

    def _warn_of_numbers(self, X, table):
        fractions = [
            (j, word)
            for j, words in enumerate(self._columns.categories)
            for word in [next((each for each in words if isinstance(each, float) and not each.is_integer()), None)]
            if word is not None
        ]
        if fractions:
            j, word = fractions[0]
            warn(
                f"X has fractions in {len(fractions)} column{'' if len(fractions) == 1 else 's'}, such as {word} in "
                f"column {self._columns.title(j)}: k-modes takes each as a category of its own. Use KPrototypes for "
                "numbers."
            )


@register(
    "kprototypes",
    takes_processes=False,
    objective="sum of costs",
    reported=("inertia_", "gamma_", "n_iter_"),
    choices={"init": kprototypes.INITS},
)
@dataclass(eq=False, repr=False)
class KPrototypes(PrototypeEstimator):
    """k-prototypes clustering of columns of numbers and of categories: a center is a mean and a mode.

    The cost of a sample with a center is ‖x − mean‖² + γ·(number of categories that differ from the mode). Of equally
    common categories a mode has the first in ``categories_``: booleans, then numbers, then text, each sorted.

    Columns are categorical by their type: text, booleans, and a library's categories (pandas, polars, Arrow); objects
    unless all of them are numbers. Standardize the numbers first: columns of large numbers decide alone.

    Args:
        n_clusters: number of clusters.
        categorical: the categorical columns: positions, names or a mask. None for those that are so by their type.
        gamma: γ >= 0, the cost of a mismatch, in squared units of the numbers. None for half the mean standard
            deviation of the columns of numbers, as Huang advises; 1 where these are all constant, or there are none.
        init: "huang" (samples near drawn entries), "cao" (frequent samples far from each other, without chance),
            "random" (distinct samples), or (n_clusters, n_features) centers, rows as those of X.
        n_init: number of runs with different initializations, of which the least inertia wins. "auto" is 10 for "huang"
            and "random", else 1.
        max_iter: maximum number of steps of a run.
        tol: stop when Σ‖Δc‖² + γ·(changed entries of modes) <= tol × the mean variance of the columns of numbers.
        verbose: print the inertia of every step after the fit.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        mesh: devices over which the samples of a fit are spread, such as ``jaxcluster.sharding.row_mesh()``; None for
            one device.

    Attributes:
        cluster_centers_: (n_clusters, n_features) means and modes, in the order and the categories of the samples.
        labels_: (n_samples,) int32.
        inertia_: Σ w·(‖x − mean‖² + γ·mismatches) (data units²).
        gamma_: γ.
        n_iter_: steps of the best run.
        history_: (n_iter_,) inertia after each step.
        status_: `jaxcluster.types.Status` of the iteration.
        categorical_columns_: positions of the categorical columns.
        categories_: categories of each of them.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> X = [["red", 1.0], ["red", 2.0], ["blue", 8.0], ["blue", 9.0]]
        >>> KPrototypes(n_clusters=2, init="cao").fit(X).cluster_centers_.tolist()
        [['red', 1.5], ['blue', 8.5]]
    """

    n_clusters: Any = 8
    _: KW_ONLY
    categorical: Any = None
    gamma: Any = None
    init: Any = "huang"
    n_init: Any = "auto"
    max_iter: Any = 100
    tol: Any = 1e-4
    verbose: Any = 0
    random_state: Any = None
    mesh: Any = None

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KPrototypes:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) numbers and categories: an array, a list of rows, or a table of pandas, polars or
                Arrow.
            y: ignored.
            sample_weight: (n_samples,) non-negative weights, or None for 1 each.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; missing cells, with their columns.

        Warns:
            ConvergenceWarning: fewer distinct samples than clusters, numbers beyond float32, or no convergence in
                ``max_iter``.
        """
        table = self._read(X, reset=True)
        self._check_params(len(table.codes), self.n_features_in_)
        fit, self._frame = kprototypes.fit_framed(
            as_key(self.random_state),
            table.numbers,
            self.n_clusters,
            codes=table.codes,
            gamma=self.gamma,
            weights=self._check_weights(sample_weight, len(table.codes)),
            init=self._start(self._columns),
            n_init=self.n_init,
            tol=self.tol,
            max_steps=self.max_iter,
            n_categories=category_counts(self._columns),
            mesh=self.mesh,
        )
        fit = jax.device_get(fit)
        self.gamma_ = float(fit.state.gamma)
        self._set_fit(fit.state.centers, fit.state.modes, fit, X, table)
        return self

    _required_attributes = (*PrototypeEstimator._required_attributes, "gamma_")

    @property
    def categorical_columns_(self) -> np.ndarray:
        """Positions of the categorical columns."""
        if not hasattr(self, "_columns"):
            raise AttributeError("KPrototypes has no categorical_columns_ before fit.")
        return np.array(self._columns.categorical, int)

    def reading_options(self) -> dict[str, Any]:
        """The columns that ``categorical`` names."""
        return {"categorical": self.categorical}

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_positive("tol", self.tol, zero=True)
        if self.gamma is not None:
            check_gamma(self.gamma)

    def _check_attributes(self):
        super()._check_attributes()
        if not isinstance(self.gamma_, float) or not 0 <= self.gamma_ < np.inf:
            raise ValueError(f"gamma_ is {self.gamma_!r}, not the cost of a mismatch.")

"""Choice between the labels of a trained network and those of a simple method on the scaled samples, without labels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcluster.core.messages import warn
from jaxcluster.core.shard import own_mesh
from jaxcluster.deep.start import Start, fit_start, gains_agreement, gains_stability, refit
from jaxcluster.estimators.deep.scaling import share_unit
from jaxcluster.metrics import optimal_matching
from jaxcluster.types import Status

if TYPE_CHECKING:
    from jaxcluster.estimators.deep.base import NetworkEstimator

SELECT = ("stable", "trained")
"""Values of ``select``."""

CHOSEN = ("start", "trained")
"""Values of ``chosen_``."""

MAX_TABLE_ROWS = 20_000
"""Most samples for which a start is fitted: with more, networks have enough to learn from."""

MIN_IMAGE_COLUMNS = 64
"""Number of features of one unit from which samples count as pixels, spectra or embeddings, and not as a table."""

MIN_NETWORK_ROWS = 1_000
"""Number of samples below which a warning names the simple method, where its labels are kept."""

MIN_ROWS_PER_CLUSTER = 4
"""Samples per cluster below which no second fit is made: a resample would have too few distinct ones."""

SIMPLE_METHODS = {"k-means": ("k-means", "KMeans"), "mixture": ("a Gaussian mixture", "GaussianMixture")}
"""Simple methods in words, and their estimators, by the name of the start."""


def is_table(estimator: NetworkEstimator, rows: np.ndarray) -> bool:
    """True if scaled rows are a table of a size for which a start is compared: neither images nor embeddings."""
    n, d = rows.shape
    if getattr(estimator, "image_shape", None) is not None or n > MAX_TABLE_ROWS:
        return False
    return d < MIN_IMAGE_COLUMNS or not share_unit(estimator.scaling_.undo(rows))


def selected_start(estimator: NetworkEstimator, rows: np.ndarray, labels: np.ndarray, finished: bool) -> Start | None:
    """The start whose labels are kept, with its clusters numbered like those of the network they overlap most with.

    Args:
        estimator: an estimator that is being fitted.
        rows: (n_samples, n_features) scaled samples.
        labels: (n_samples,) int32 labels of the network.
        finished: False if the training failed: the start is then kept.

    Returns:
        None if the labels of the network are kept: neighbor agreement and stability both rise with them.
    """
    k = estimator.n_clusters
    if estimator.select == "trained" or k == 1 or estimator._knows_classes or not is_table(estimator, rows):
        return None
    # Other random numbers than those of the training, which splits the key itself.
    start_key, resample_key, fit_key = jax.random.split(jax.random.fold_in(estimator._key(), 1), 3)
    start = fit_start(start_key, rows, k)
    simple = start.predict(rows)
    enough = len(rows) >= MIN_ROWS_PER_CLUSTER * k
    if finished and enough and gains_agreement(rows, labels, simple):
        drawn = np.asarray(jax.random.randint(resample_key, (len(rows),), 0, len(rows)))
        counts = np.bincount(drawn, minlength=len(rows)).astype(float)
        other_simple = refit(fit_key, start, rows, counts).predict(rows)
        if gains_stability(labels, _second_labels(estimator, fit_key, rows, drawn), simple, other_simple):
            return None
    return _renumbered(start, labels, simple)


def warn_of_few_rows(estimator: NetworkEstimator, start: Start, n: int) -> None:
    """Warn that n samples are few for a network, and name the simple method."""
    if n < MIN_NETWORK_ROWS:
        name, (method, simple) = type(estimator).__name__, SIMPLE_METHODS[start.name]
        warn(
            f"{name}: X has {n:,} rows, and a network needs about {MIN_NETWORK_ROWS:,}. The labels are those of "
            f"{method} on the scaled rows (chosen_='start'): {simple} does as well, in less time. "
            "Pass select='trained' for the labels of the network.",
            UserWarning,
        )


def _second_labels(estimator: NetworkEstimator, key: Any, rows: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Labels of all rows by a network that is trained on a resample of them."""
    options = {"select": "trained", "random_state": key, "scaling": "none", "verbose": 0}
    options["mesh"] = own_mesh(estimator.mesh)
    second = type(estimator)(**estimator.get_params(deep=False) | options)
    with warnings.catch_warnings():
        # Of a training whose labels are only compared; the first training has warned of its own.
        warnings.simplefilter("ignore")
        return second.fit(rows[drawn]).predict(rows)


def _renumbered(start: Start, labels: np.ndarray, simple: np.ndarray) -> Start:
    matching = optimal_matching(labels, simple)
    k = len(start.means)
    # Clusters without a partner take the numbers that are left.
    free = iter(sorted(set(range(k)) - set(matching.values())))
    numbers = np.array([matching[j] if j in matching else next(free) for j in range(k)])
    order = np.argsort(numbers)
    covariances = start.covariances if start.covariances.ndim == 1 else start.covariances[order]
    return Start(start.name, start.weights[order], start.means[order], covariances)


def check_start(start: Any, k: int, d: int) -> None:
    """Raise ValueError unless a loaded start is None or that of k clusters of d features."""
    if start is None:
        return
    shapes = {"k-means": (1,), "mixture": (k, d, d)}
    arrays = (start.weights, start.means, start.covariances) if isinstance(start, Start) else ()
    if not all(isinstance(each, np.ndarray) and np.isfinite(each).all() for each in arrays) or [
        each.shape for each in arrays
    ] != [(k,), (k, d), shapes.get(getattr(start, "name", ""), ())]:
        raise ValueError("_simple_start is not that of a fit.")


def finished(status: Status) -> bool:
    """True for the status of a training whose network can be used."""
    return status not in (Status.NOT_FINITE, Status.COLLAPSED, Status.PRECISION)

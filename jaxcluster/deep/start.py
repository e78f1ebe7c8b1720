"""Simple clusters of a table, k-means or a Gaussian mixture, and the comparison of a network's clusters with them.

Networks gain on images and lose on most tables. `fit_start` chooses between k-means and a mixture without labels, and
`improves` says whether other labels of the same samples are better: by `neighbor_agreement` and by stability, the
adjusted Rand index between the labels of a fit and of a fit of half of the samples. The constants were chosen on
generated tables of the kinds of `bench/generated_tables.py`, other draws of them.

>>> import jax, numpy as np
>>> from jaxcluster.deep.start import fit_start
>>> x = np.random.default_rng(0).normal(size=(200, 2)) + 9 * (np.arange(200) % 2)[:, None]
>>> start = fit_start(jax.random.key(0), x, 2)
>>> start.name, np.unique(start.predict(x)[::2]).size
('k-means', 1)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, logsumexp

from jaxcluster.cluster import gmm, kmeans
from jaxcluster.deep.heads import nearest_neighbors
from jaxcluster.metrics import adjusted_rand_score
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.types import Array, Float, Int, KeyArray

MAX_MIXTURE_COLUMNS = 64
"""Most features of a mixture with full covariances: its time is in proportion to their square."""

COMPARED_ROWS = 4_000
"""Samples that k-means and the mixture are compared on, at most; the clusters are those of a fit of all samples."""

N_SPLITS = 2
"""Random splits into halves, each of which is fitted, for held-out likelihood and stability."""

N_STARTS = 5
"""Initializations of each fit, of which the best by inertia or likelihood is taken."""

RIDGE = 1e-3
"""Added to the variances of the mixture, as a fraction of the mean variance of the features."""

FEW_VALUES, FEW_VALUES_ROWS, DISCRETE_FRACTION = 20, 10, 0.5
"""A feature is discrete if it has at most 20 values, and a tenth of the samples. With half of the features discrete
no mixture is fitted: the density of a component that collapses onto a value grows without bound."""

STABILITY_DROP, AGREEMENT_DROP = 0.2, 0.03
"""Drops of stability and of neighbor agreement from k-means to the mixture that, both together, decide for k-means."""

N_NEIGHBORS = 10
"""Neighbors of a sample in `neighbor_agreement`."""

MIN_AGREEMENT_GAIN, MIN_STABILITY_GAIN = 0.01, 0.02
"""Least rises of neighbor agreement and of stability for which a network's labels replace those of the start."""


class Start(NamedTuple):
    """Clusters of samples by k-means or a Gaussian mixture, as a mixture.

    Attributes:
        name: "k-means" or "mixture".
        weights: (k,) mixture weights; equal ones of k-means.
        means: (k, d) centers.
        covariances: (k, d, d) of a mixture; (1,) the variance of each feature within clusters of k-means.
    """

    name: str
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_joint(self, x: Any) -> np.ndarray:
        """Log of weight times density of each sample and component (nats), (n_samples, k) float64."""
        x = np.asarray(x, np.float64)
        if self.covariances.ndim == 1:
            squares = cdist(x, self.means, "sqeuclidean")
            variance = self.covariances[0]
            constant = x.shape[1] * np.log(2 * np.pi * variance) / 2
            return np.log(self.weights) - squares / (2 * variance) - constant
        columns = []
        for weight, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
            factor = np.linalg.cholesky(covariance)
            residual = solve_triangular(factor, (x - mean).T, lower=True)
            constant = np.log(np.diagonal(factor)).sum() + x.shape[1] * np.log(2 * np.pi) / 2
            columns.append(np.log(max(weight, np.finfo(float).tiny)) - np.square(residual).sum(axis=0) / 2 - constant)
        return np.stack(columns, axis=1)

    def predict_proba(self, x: Any) -> np.ndarray:
        """Responsibilities (n_samples, k)."""
        return np.exp(log_softmax(self.log_joint(x), axis=1))

    def predict(self, x: Any) -> np.ndarray:
        """Most probable component of each sample, (n_samples,) int32: for k-means that of the nearest center."""
        return np.argmax(self.log_joint(x), axis=1).astype(np.int32)

    def score(self, x: Any) -> float:
        """Mean log-likelihood of samples (nats per sample)."""
        return float(np.mean(logsumexp(self.log_joint(x), axis=1)))


class StartDensities(NamedTuple):
    """Densities of a start's components in float32, for programs on a device: log wp(x) = constant − ‖W(x − μ)‖²/2.

    Attributes:
        constants: (k,) log of weight and normalization (nats).
        means: (k, d) μ.
        whitening: W, (k, d, d), or a number for variances that are all one.
    """

    constants: Float[Array, " k"]
    means: Float[Array, "k d"]
    whitening: Float[Array, "*k_d_d"]

    def responsibilities(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, k), differentiable."""
        residual = x[:, None, :] - self.means[None]
        if self.whitening.ndim == 0:
            residual = residual * self.whitening
        else:
            residual = jnp.einsum("nkd,ked->nke", residual, self.whitening, precision=HIGHEST)
        return jax.nn.softmax(self.constants[None] - jnp.sum(jnp.square(residual), axis=2) / 2, axis=1)


def densities_of(start: Start) -> StartDensities:
    """The densities of a start's components, from factors in float64."""
    weights = np.log(np.maximum(start.weights, np.finfo(float).tiny))
    if start.covariances.ndim == 1:
        constants, whitening = weights, 1 / np.sqrt(start.covariances[0])
    else:
        factors = np.linalg.cholesky(start.covariances)
        constants = weights - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        whitening = np.linalg.inv(factors)
    return StartDensities(*(jnp.asarray(each, jnp.float32) for each in (constants, start.means, whitening)))


def fit_start(key: KeyArray, x: Any, k: int) -> Start:
    """Cluster samples by k-means or by a Gaussian mixture with full covariances, whichever their structure favors.

    The mixture is taken if samples that it was not fitted to are more probable than under k-means, as a mixture of
    equal weights and one variance. It is not taken if half of the features are discrete, if there are more than 64, or
    if both its stability and its neighbor agreement are clearly below those of k-means.

    Args:
        key: random key.
        x: (n_samples, n_features) finite, scaled samples.
        k: number of clusters.

    Returns:
        the clusters.
    """
    compare_key, fit_key = jax.random.split(key)
    x = np.asarray(x)
    if k > 1 and _mixture_is_possible(x, k) and _mixture_is_better(compare_key, x, k):
        return _fit_mixture(fit_key, x, k)
    return _fit_kmeans(fit_key, x, k)


def refit(key: KeyArray, start: Start, x: Any, part: Float[np.ndarray, " n"]) -> Start:
    """Fit the kind of clusters that a start has to a part of the samples.

    Args:
        key: random key.
        start: clusters of all samples.
        x: (n_samples, n_features) all samples.
        part: 1 for the samples to fit, 0 for the others.
    """
    fit = _fit_kmeans if start.name == "k-means" else _fit_mixture
    return fit(key, np.asarray(x), len(start.means), part)


def half_of(key: KeyArray, n: int) -> Float[np.ndarray, " n"]:
    """1 for a random half of n samples, at least one, and 0 for the others."""
    part = np.zeros(n)
    part[np.asarray(jax.random.permutation(key, n))[: max(1, n // 2)]] = 1
    return part


def neighbor_agreement(labels: Int[np.ndarray, " n"], neighbors: Int[np.ndarray, "n m"]) -> float:
    """Fraction of neighbors in the cluster of their sample, corrected for chance: 1 if all are, about 0 at random.

    Args:
        labels: clusters of the samples.
        neighbors: positions of the nearest other samples of each.
    """
    sizes = np.unique(labels, return_counts=True)[1] / len(labels)
    chance = float(np.sum(np.square(sizes)))
    # One cluster: all neighbors agree, and nothing is told apart.
    return 0.0 if chance == 1 else (float(np.mean(labels[neighbors] == labels[:, None])) - chance) / (1 - chance)


def gains_agreement(x: Any, labels: Any, start_labels: Any) -> bool:
    """True if the neighbor agreement of labels is clearly above that of the start's labels.

    Of more than 4,000 samples the first in a fixed random order are compared.

    Args:
        x: (n_samples, n_features) scaled samples.
        labels, start_labels: (n_samples,) clusters.
    """
    rows = _some_rows(len(x), COMPARED_ROWS)
    neighbors = nearest_neighbors(np.asarray(x)[rows], min(N_NEIGHBORS, len(rows) - 1))
    trained, simple = (neighbor_agreement(np.asarray(each)[rows], neighbors) for each in (labels, start_labels))
    return trained >= simple + MIN_AGREEMENT_GAIN


def gains_stability(labels: Any, other_labels: Any, start_labels: Any, other_start_labels: Any) -> bool:
    """True if labels agree clearly more with those of a second fit than the start's do with those of its second fit."""
    trained = adjusted_rand_score(np.asarray(labels), np.asarray(other_labels))
    return trained >= adjusted_rand_score(np.asarray(start_labels), np.asarray(other_start_labels)) + MIN_STABILITY_GAIN


def _mixture_is_possible(x: Float[np.ndarray, "n d"], k: int) -> bool:
    n, d = x.shape
    if d > MAX_MIXTURE_COLUMNS or n < 4 * k:
        return False
    few = min(FEW_VALUES, n / FEW_VALUES_ROWS)
    return float(np.mean([np.unique(column).size <= few for column in x.T])) < DISCRETE_FRACTION


def _mixture_is_better(key: KeyArray, x: Float[np.ndarray, "n d"], k: int) -> bool:
    x = x[_some_rows(len(x), COMPARED_ROWS)]
    neighbors = nearest_neighbors(x, min(N_NEIGHBORS, len(x) - 1))
    likelihood, stability, agreement = {}, {}, {}
    for name, fit in (("k-means", _fit_kmeans), ("mixture", _fit_mixture)):
        scores, pairs = [], []
        for split_key in jax.random.split(key, N_SPLITS):
            half_key, *fit_keys = jax.random.split(split_key, 3)
            # By weights, so that the program that is compiled for all samples fits each half.
            half = half_of(half_key, len(x))
            first, second = fit(fit_keys[0], x, k, half), fit(fit_keys[1], x, k, 1 - half)
            scores += [first.score(x[half == 0]), second.score(x[half == 1])]
            pairs.append(adjusted_rand_score(first.predict(x), second.predict(x)))
        likelihood[name], stability[name] = np.mean(scores), np.mean(pairs)
        agreement[name] = neighbor_agreement(fit(key, x, k).predict(x), neighbors)
    less_stable = stability["mixture"] < stability["k-means"] - STABILITY_DROP
    less_local = agreement["mixture"] < agreement["k-means"] - AGREEMENT_DROP
    return bool(likelihood["mixture"] > likelihood["k-means"]) and not (less_stable and less_local)


def _fit_kmeans(key, x, k, part=None):
    part = np.ones(len(x)) if part is None else part
    fit = jax.device_get(kmeans.fit(key, x, k, n_init=N_STARTS, weights=part))
    means = np.asarray(fit.state.centers, np.float64)
    nearest = cdist(np.asarray(x[part > 0], np.float64), means, "sqeuclidean").min(axis=1)
    variance = max(float(nearest.mean()) / x.shape[1], np.finfo(np.float32).tiny)
    return Start("k-means", np.full(k, 1 / k), means, np.array([variance]))


def _fit_mixture(key, x, k, part=None):
    part = np.ones(len(x)) if part is None else part
    ridge = RIDGE * max(float(np.var(x, axis=0, dtype=np.float64).mean()), np.finfo(np.float32).tiny)
    state = jax.device_get(gmm.fit(key, x, k, n_init=N_STARTS, reg_covar=ridge, weights=part)).state
    parameters = (np.asarray(each, np.float64) for each in (state.weights, state.means, state.covariances))
    return Start("mixture", *parameters)


def _some_rows(n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))

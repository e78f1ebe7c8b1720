"""Problems of Gaussian mixtures, scikit-learn's answers to them, and exact ones in float64.

Compiling is what tests of mixtures spend their time on. Nearly all fits have one shape, 145 to 160 rows in 4 columns
and 3 components, and start from given parameters, so each type and dtype compiles once; fewer rows have weight 0.
"""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import scale

from jaxcluster import gmm
from jaxcluster.cluster.gmm import em
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.types import Status

TYPES = tuple(COVARIANCE_TYPES)
N, D, K = 150, 4, 3
KEY = jax.random.key(0)


def generated():
    rng = np.random.default_rng(5)
    return rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3 * rng.integers(3, size=(N, 1))


SETS = {
    "iris": lambda: datasets.load_iris().data,
    "wine": lambda: scale(datasets.load_wine().data)[:N, :D],
    "generated": generated,
}


def separate(n=N, seed=0, distance=8.0, deviation=1.0):
    """Rows of K clusters far apart, and the cluster of each."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    centers = distance * np.eye(K, D)
    return (centers[y] + deviation * rng.normal(size=(n, D))).astype(np.float32), y


def parameters(x, covariance, seed=0, k=K):
    """Means at rows, random weights, precisions on the scale of the rows."""
    rng = np.random.default_rng(seed)
    d = x.shape[1]
    root = rng.normal(size=(k, d, d))
    full = (root @ np.swapaxes(root, 1, 2) + d * np.eye(d)) / (d * x.astype(np.float64).var())
    precisions = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": full[:, 0, 0],
    }[covariance]
    means = x[rng.choice(len(x), k, replace=False)].astype(np.float64)
    return gmm.GMMInit(means, rng.dirichlet(np.full(k, 5.0)), precisions)


def random_responsibilities(n=N, k=K, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=n)


class FromShares(GaussianMixture):
    """scikit-learn's mixture from given responsibilities."""

    def start_from(self, r):
        self.given = r
        return self

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.given.astype(X.dtype))


def theirs_from(x, start, covariance, **options):
    if start.responsibilities is not None:
        model = FromShares(start.responsibilities.shape[1], covariance_type=covariance, **options)
        return model.start_from(start.responsibilities).fit(x)
    return GaussianMixture(
        len(start.means),
        covariance_type=covariance,
        means_init=start.means,
        weights_init=start.weights,
        precisions_init=start.precisions,
        **options,
    ).fit(x)


def public(covariance, covariances):
    """scikit-learn's covariances as ours are laid out."""
    return covariances[None] if covariance == "tied" else covariances


def matrices(means, covariances):
    """(k, d, d) of any type."""
    k, d = means.shape
    covariances = np.asarray(covariances, np.float64)
    if covariances.shape == (1, d, d):
        return np.repeat(covariances, k, axis=0)
    if covariances.ndim == 3:
        return covariances
    return np.eye(d) * covariances.reshape(k, -1, 1)


def dense(state):
    return matrices(state.means, state.covariances)


def exact_log_likelihood(state, x):
    """log p of each row (nats) under a state, in float64."""
    mixture = zip(np.asarray(state.weights, float), np.asarray(state.means, float), dense(state), strict=True)
    return logsumexp([np.log(w) + multivariate_normal(m, c).logpdf(x.astype(float)) for w, m, c in mixture], axis=0)


def status(fit):
    return Status(int(fit.status))


def bounds(fit):
    return np.asarray(gmm.lower_bounds(fit))[: int(fit.steps)]


def slack(bound, dtype):
    """Decrease of a lower bound that `em.step` takes for rounding."""
    return max(em.LOWER_BOUND_SLACK, 16 * np.finfo(dtype).eps) * np.maximum(np.abs(bound), 1)


def assert_never_falls(fit):
    history = bounds(fit)
    assert np.isfinite(history).all()
    assert (np.diff(history) >= -slack(history[:-1], history.dtype)).all()


def assert_same_fit(a, b, rtol=1e-4, atol=1e-4):
    assert np.array_equal(np.asarray(a.labels), np.asarray(b.labels))
    for name in ("lower_bound", "weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(a.state, name), getattr(b.state, name), rtol=rtol, atol=atol, err_msg=name)


def assert_parity(ours, theirs, covariance, x, rtol=1e-6):
    np.testing.assert_allclose(ours.state.weights, theirs.weights_, rtol=rtol)
    np.testing.assert_allclose(ours.state.means, theirs.means_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.state.covariances, public(covariance, theirs.covariances_), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.state.lower_bound, theirs.lower_bound_, rtol=rtol)
    np.testing.assert_array_equal(ours.labels, theirs.predict(x))
    np.testing.assert_allclose(bounds(ours), theirs.lower_bounds_, rtol=rtol)
    assert int(ours.steps) == theirs.n_iter_


def conditional(row, mean, covariance):
    """Conditional mean and covariance of one row given its observed values, and the log-density of those."""
    seen = ~np.isnan(row)
    if not seen.any():
        return mean, covariance, 0.0
    within = covariance[np.ix_(seen, seen)]
    gain = np.linalg.solve(within, covariance[seen]).T
    left = covariance - gain @ covariance[seen]
    return mean + gain @ (row[seen] - mean[seen]), left, multivariate_normal(mean[seen], within).logpdf(row[seen])

"""Expectation-maximization from given parameters: the start that every side is given, and the fit in each peer.

Every peer takes the rows, the start, its form and the number of iterations, and returns a call that does the whole
fit: that many EM steps in float32, and one more E-step for the labels of the parameters it ended with. The value is
the mean log-likelihood that the last step's E-step saw, which is scikit-learn's lower bound.
"""

from __future__ import annotations

import importlib
import warnings
from typing import NamedTuple

import jax
import numpy as np

from bench import data
from bench.peers import GMMX, SKLEARN, Answer, Call

RIDGE = 1e-6
"""Constant that every side adds to the variances (scikit-learn's default)."""


class Start(NamedTuple):
    """Initial parameters of EM: weights (k,), means (k, d), precisions (k, d, d), or (k, d) if diagonal."""

    weights: np.ndarray
    means: np.ndarray
    precisions: np.ndarray


def start(x: np.ndarray, k: int, covariance: str) -> Start:
    """Even weights, k distinct rows as means, and as precisions the identity over the mean variance of a column."""
    columns = x.shape[1]
    shape = np.eye(columns, dtype=np.float32) if covariance == "full" else np.ones(columns, np.float32)
    precision = shape / x.var(0, dtype=np.float64).mean().astype(np.float32)
    return Start(np.full(k, 1 / k, np.float32), data.starting_rows(x, k), np.repeat(precision[None], k, axis=0))


def sklearn_em(x: np.ndarray, first: Start, covariance: str, steps: int) -> Call:
    """EM in scikit-learn, which keeps float32 and ends with an E-step for the labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    def call() -> Answer:
        fit = GaussianMixture(
            len(first.means),
            covariance_type=covariance,
            tol=0,
            reg_covar=RIDGE,
            max_iter=steps,
            weights_init=first.weights,
            means_init=first.means,
            precisions_init=first.precisions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = fit.fit_predict(x)
        return Answer(float(fit.lower_bound_), labels, int(fit.n_iter_))

    return call


def gmmx_em(x: np.ndarray, first: Start, covariance: str, steps: int) -> Call:
    """EM in gmmx: one compiled loop, which at tol 0 runs all its iterations, and its prediction.

    gmmx names no precision, and an accelerator's default would round its products to fewer bits than float32.
    """
    gmmx = importlib.import_module("gmmx")
    full, samples = covariance == "full", data.place(x)
    mixture = gmmx.GaussianMixtureModelJax.from_squeezed(
        means=first.means,
        covariances=np.linalg.inv(first.precisions) if full else 1 / first.precisions,
        weights=first.weights,
        covariance_type=covariance,
    )
    fitter = gmmx.EMFitter(max_iter=steps, tol=0.0, reg_covar=RIDGE)

    def call() -> Answer:
        with jax.default_matmul_precision("float32"):
            fit = fitter.fit(samples, mixture)
            labels = np.asarray(fit.gmm.predict(samples))[:, 0]
        return Answer(float(fit.log_likelihood), labels, int(fit.n_iter))

    return call


EM = {SKLEARN: sklearn_em, GMMX: gmmx_em}

"""Gaussian mixtures by expectation–maximisation: fit, use, sweep."""

from jaxcluster.cluster.gmm.density import (
    aic,
    bic,
    n_parameters,
    negative_log_likelihood,
    predict,
    predict_proba,
    sample,
    score,
    score_samples,
)
from jaxcluster.cluster.gmm.fit import fit, lower_bounds
from jaxcluster.cluster.gmm.start import METHODS, Start
from jaxcluster.cluster.gmm.state import GMMState
from jaxcluster.cluster.gmm.sweep import GMMSweep, sweep

__all__ = [
    "METHODS",
    "GMMState",
    "GMMSweep",
    "Start",
    "aic",
    "bic",
    "fit",
    "lower_bounds",
    "n_parameters",
    "negative_log_likelihood",
    "predict",
    "predict_proba",
    "sample",
    "score",
    "score_samples",
    "sweep",
]

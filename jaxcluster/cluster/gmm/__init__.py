"""Gaussian mixtures by expectation–maximization: fit, use, sweep."""

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
from jaxcluster.cluster.gmm.stepwise import StepwiseState, minibatch_fit, partial_fit, start, stream_of
from jaxcluster.cluster.gmm.sweep import GMMSweep, sweep
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "GMMState",
    "GMMSweep",
    "Start",
    "StepwiseState",
    "aic",
    "bic",
    "fit",
    "lower_bounds",
    "minibatch_fit",
    "n_parameters",
    "negative_log_likelihood",
    "partial_fit",
    "predict",
    "predict_proba",
    "sample",
    "score",
    "score_samples",
    "start",
    "stream_of",
    "sweep",
]

guard_functions(__name__)

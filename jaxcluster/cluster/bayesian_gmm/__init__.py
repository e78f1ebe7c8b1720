"""Gaussian mixtures by variational inference: as many components as the rows need."""

from jaxcluster.cluster.bayesian_gmm.density import predict, predict_proba, sample, score, score_samples
from jaxcluster.cluster.bayesian_gmm.fit import PRIOR_TYPES, fit
from jaxcluster.cluster.bayesian_gmm.posterior import Prior
from jaxcluster.cluster.bayesian_gmm.state import BayesianGMMState, plug_in
from jaxcluster.cluster.gmm.start import METHODS, Start
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "PRIOR_TYPES",
    "BayesianGMMState",
    "Prior",
    "Start",
    "fit",
    "plug_in",
    "predict",
    "predict_proba",
    "sample",
    "score",
    "score_samples",
]

guard_functions(__name__)

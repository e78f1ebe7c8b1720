"""Bayesian Gaussian mixtures by variational inference, which use as many components as the data need.

>>> import jax, numpy as np
>>> from jaxcluster import bayesian_gmm
>>> x = np.array([0, 1, 2, 3, 30, 31, 32, 33], np.float32)[:, None]
>>> bayesian_gmm.fit(jax.random.key(0), x, 2, init=x[[0, 7]]).labels.tolist()
[0, 0, 0, 0, 1, 1, 1, 1]
"""

from jaxcluster.cluster.bayesian_gmm.fit import PRIOR_TYPES, fit
from jaxcluster.cluster.bayesian_gmm.inference import (
    BayesianGMMState,
    plug_in,
    predict,
    predict_proba,
    sample,
    score,
    score_samples,
)
from jaxcluster.cluster.bayesian_gmm.variational_em import Prior
from jaxcluster.cluster.gmm.init import METHODS, GMMInit
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "PRIOR_TYPES",
    "BayesianGMMState",
    "GMMInit",
    "Prior",
    "fit",
    "plug_in",
    "predict",
    "predict_proba",
    "sample",
    "score",
    "score_samples",
]

guard_functions(__name__)

"""Bayesian Gaussian mixtures by variational inference, which use as many components as the data need.

>>> import jax, numpy as np
>>> from jaxcluster import bayesian_gmm
>>> x = np.array([[0.0], [1.0], [2.0], [3.0], [30.0], [31.0], [32.0], [33.0]], np.float32)
>>> fit = bayesian_gmm.fit(jax.random.key(0), x, 2, tol=1e-4)
>>> sorted(np.bincount(fit.labels).tolist())
[4, 4]
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

"""Bayesian Gaussian mixtures by variational inference, which use as many components as the data need.

>>> import jax, numpy as np
>>> from jaxcluster import bayesian_gmm
>>> x = np.concatenate([np.arange(30), np.arange(300, 330)]).astype(np.float32)[:, None]
>>> np.bincount(bayesian_gmm.fit(jax.random.key(0), x, 5).labels, minlength=5).max().item()
30
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


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

"""Gaussian mixtures by expectation–maximization (EM): fit, online EM, inference, sweep.

>>> import jax, numpy as np
>>> from jaxcluster import gmm
>>> x = np.array([[0.0], [1.0], [9.0], [10.0]], np.float32)
>>> fit = gmm.fit(jax.random.key(0), x, 2, init=x[[0, 3]])
>>> fit.labels.tolist()
[0, 0, 1, 1]
"""

from jaxcluster.cluster.gmm.fit import fit, lower_bounds, sweep
from jaxcluster.cluster.gmm.inference import (
    aic,
    bic,
    negative_log_likelihood,
    predict,
    predict_proba,
    sample,
    score,
    score_samples,
)
from jaxcluster.cluster.gmm.init import METHODS, GMMInit
from jaxcluster.cluster.gmm.online_em import StepwiseState, from_fit, init, minibatch_fit, partial_fit
from jaxcluster.cluster.gmm.state import GMMState, GMMSweep, n_parameters
from jaxcluster.core.memory import guard_functions

__all__ = [
    "METHODS",
    "GMMInit",
    "GMMState",
    "GMMSweep",
    "StepwiseState",
    "aic",
    "bic",
    "fit",
    "from_fit",
    "init",
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
    "sweep",
]


def __dir__() -> list[str]:
    return __all__


guard_functions(__name__)

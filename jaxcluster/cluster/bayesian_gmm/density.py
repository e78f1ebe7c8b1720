"""Labels, probabilities and densities of rows under a fitted posterior, and samples of it."""

from __future__ import annotations

from functools import partial

import jax

from jaxcluster.cluster import gmm
from jaxcluster.cluster.bayesian_gmm.posterior import Posterior
from jaxcluster.cluster.bayesian_gmm.state import BayesianGMMState, plug_in, posterior_of, with_factor
from jaxcluster.cluster.bayesian_gmm.step import components_of
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import Compared, rows_in_frame
from jaxcluster.cluster.gmm.density import mean_log_p
from jaxcluster.core.frame import Frame
from jaxcluster.core.implicit import without_derivative
from jaxcluster.ops.gaussian import Components, CovarianceType
from jaxcluster.types import Array, Float, Int, KeyArray, Published


def predict(state: BayesianGMMState, x, *, frame: Frame | None = None) -> Int[Array, " n"]:
    """The most probable component of each of (n, d) rows; ties go to the lower index.

    Args:
        state: a fitted posterior.
        x: (n, d) rows.
        frame: of the fit that the posterior is from; None for one about its means.

    Raises:
        ValueError, TypeError: rows of another width; a gradient with respect to labels, which have none.
    """
    return without_derivative(_compare(state, x, frame=frame).labels(), state, x)


def predict_proba(state: BayesianGMMState, x, *, frame: Frame | None = None) -> Float[Published, "n k"]:
    """The responsibility of each component for each row; see `predict`. Rows sum to 1."""
    return _compare(state, x, frame=frame).responsibilities()


def score_samples(state: BayesianGMMState, x, *, frame: Frame | None = None) -> Float[Published, " n"]:
    """log Σ exp E log(weight·density) of each row (nats): what the lower bound has in place of a log-density.

    It is below the log-density, by less the more rows the posterior rests on. See `predict`.
    """
    return _compare(state, x, frame=frame).log_p()


def score(state: BayesianGMMState, x, *, weights=None, frame: Frame | None = None) -> Float[Published, ""]:
    """The weighted mean of `score_samples` (nats per row): higher is better. ``weights`` is (n,), or None."""
    return mean_log_p(_compare(state, x, weights, frame=frame))


def sample(key: KeyArray, state: BayesianGMMState, n: int) -> tuple[Float[Published, "n d"], Int[Array, " n"]]:
    """Draws n rows, static, and the component of each from the mixture of the posterior's means."""
    return gmm.sample(key, plug_in(state), n)


def _compare(state, x, weights=None, *, frame=None):
    """Rows and the components of a posterior."""
    prepared, x, remote = rows_in_frame(plug_in(state), x, weights, frame=frame)
    covariance_type, posterior = posterior_of(state, prepared.frame, prepared.points.x.dtype)
    options = em.EMOptions(covariance_type.name)
    return Compared(options, posterior_components(covariance_type, posterior), prepared, x, remote, state.means)


@partial(jax.jit, static_argnums=0)
def posterior_components(covariance_type: CovarianceType, posterior: Posterior) -> Components:
    """The components of a posterior that has no factor yet."""
    return components_of(with_factor(covariance_type, posterior))

"""The lower bound of a mixture never falls, and nothing turns NaN."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_problems import KEY, TYPES, D, K, N, assert_never_falls, bounds, dense, exact_log_likelihood, status

from jaxcluster import gmm
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.types import Status

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Hard(NamedTuple):
    """A problem that something is wrong with; fewer rows than columns is one of those things."""

    seed: int
    count: int
    gap: float
    duplicates: int
    outlier: float
    constant: int
    reg_covar: float

    def rows(self, dtype):
        """N rows, of which ``count`` have a weight."""
        rng = np.random.default_rng(self.seed)
        x = rng.normal(size=(N, D)) + self.gap * rng.integers(3, size=(N, 1))
        x[: min(self.duplicates, self.count)] = x[0]
        x[self.count - 1] += self.outlier
        x[:, : self.constant] = 3.3
        return x.astype(dtype), (np.arange(N) < self.count).astype(dtype)


HARD_PROBLEMS = st.builds(
    Hard,
    seed=st.integers(0, 1000),
    count=st.sampled_from([3, 4, 7, 20, N]),
    gap=st.sampled_from([0.0, 4.0]),
    duplicates=st.sampled_from([0, 2, 5, 140, N]),
    outlier=st.sampled_from([0.0, 1e2, 1e4]),
    constant=st.integers(0, 2),
    reg_covar=st.sampled_from([0.0, 1e-6]),
)


def assert_sound(covariance, problem, dtype):
    x, weights = problem.rows(dtype)
    reg_covar = problem.reg_covar
    kept = x[weights > 0]
    spread = max(float(kept.astype(float).var()), 1e-3)
    precisions = np.asarray(COVARIANCE_TYPES[covariance].isotropic(1 / spread, K, D))
    start = gmm.GMMInit(kept[:: len(kept) // K][:K], np.full(K, 1 / K), precisions)
    most = 60
    fit = gmm.fit(
        KEY, x, K, covariance=covariance, weights=weights, init=start, reg_covar=reg_covar, tol=0.0, max_steps=most
    )
    state = fit.state
    for leaf in (state.weights, state.means, state.covariances, state.lower_bound, state.residual):
        assert leaf.dtype == dtype
        assert np.isfinite(leaf).all()
    assert_never_falls(fit)
    assert (np.asarray(fit.history)[int(fit.steps) :] == 0).all()
    np.testing.assert_allclose(np.sum(state.weights), 1, rtol=1e-5)
    assert np.isin(fit.labels, np.arange(K)).all()
    assert (np.linalg.eigvalsh(dense(state)) > -1e-6 * np.abs(dense(state)).max()).all()
    collapsed = bool(np.any(state.collapsed))
    assert (status(fit) is Status.COLLAPSED) == collapsed
    if not collapsed:
        ended = (Status.CONVERGED, Status.PRECISION) if float(state.residual) == 0 else (Status.MAX_STEPS,)
        assert status(fit) in ended
    variances = np.linalg.eigvalsh(dense(state))
    if variances.min() > 1e-5 * max(1.0, variances.max()):
        # What is reported is what the mixture has: EM can only have raised it once more.
        reached = exact_log_likelihood(state, kept).mean()
        assert reached >= bounds(fit)[-1] - 2e-3 * max(1, abs(reached))


@pytest.mark.parametrize("covariance", TYPES)
@settings(max_examples=25)
@given(problem=HARD_PROBLEMS)
def test_the_bound_never_falls(covariance, problem):
    assert_sound(covariance, problem, np.float32)


@pytest.mark.parametrize("covariance", TYPES)
@settings(max_examples=8)
@given(problem=HARD_PROBLEMS)
def test_the_bound_never_falls_in_float64(covariance, problem):
    with jax.enable_x64(True):
        assert_sound(covariance, problem, np.float64)

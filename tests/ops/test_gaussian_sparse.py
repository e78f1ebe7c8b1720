"""Gaussian sums of sparse rows are those of dense rows, also where a column is nearly constant."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_problems import topics

from jaxcluster.core import sparse_input
from jaxcluster.core.sparse_input import sparse_rows
from jaxcluster.ops.gaussian import COVARIANCE_TYPES, EXPANDED

X = topics(40, 60)
X[5] = 1.5  # a row of many pieces
R = np.random.default_rng(0).dirichlet(np.ones(3), len(X)).T.astype(np.float32)
MEANS = np.array(R @ X / R.sum(axis=1, keepdims=True))
VARIANCES = np.random.default_rng(1).uniform(0.01, 1, (3, 60)).astype(np.float32)


def sums(covariance_type, covariances, means, x):
    _, factor, _ = covariance_type.factor(covariances, x.shape[1])
    squares = covariance_type.mahalanobis_sq(means, factor, x, EXPANDED)
    return squares, covariance_type.moments(jnp.asarray(R), means, x, EXPANDED)


compiled = jax.jit(sums, static_argnums=0)


@pytest.mark.parametrize("name", ["diag", "spherical"])
def test_sums_of_sparse_rows(name, monkeypatch):
    monkeypatch.setattr(sparse_input, "SMALL_ENTRIES", 0)  # the long row has a tail
    for offset in (0, 100):  # squares of 10⁴ beside variances of 0.01
        x, means = X.copy(), MEANS.copy()
        x[:, 7] += offset
        means[:, 7] += offset
        variances = VARIANCES if name == "diag" else VARIANCES[:, 0]
        squares, moments = compiled(COVARIANCE_TYPES[name], variances, means, sparse_rows(x))
        wide = (x[None].astype(float) - means[:, None]) ** 2
        spread = np.broadcast_to(variances.reshape(3, -1), (3, 60))
        np.testing.assert_allclose(squares, (wide / spread[:, None]).sum(axis=2), rtol=2e-4)
        np.testing.assert_allclose(moments.weight, R.sum(axis=1), rtol=1e-5)
        first = np.einsum("kn,knd->kd", R, x[None].astype(float) - means[:, None])
        np.testing.assert_allclose(moments.first, first, atol=2e-3)
        second = np.einsum("kn,knd->kd", R, wide)
        second = second if name == "diag" else second.sum(axis=1)
        np.testing.assert_allclose(moments.second, second, rtol=2e-3, atol=1e-4)

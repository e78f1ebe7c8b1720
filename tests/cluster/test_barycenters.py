"""Sinkhorn divergence, barycenters, and the assignments of SwAV."""

from __future__ import annotations

import numpy as np
import pytest
from transport_problems import SHORT, random_clouds, squares, swav_textbook, textbook

from jaxcluster.cluster import sinkhorn
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def clouds():
    return random_clouds()


def test_divergence_is_that_of_the_textbook(clouds):
    x, y, a, b = clouds
    for rho in (None, 3.0):
        mass = 1.0 if rho is None else 1.5
        values = [
            textbook(squares(p, q), u, v, 0.8, rho or np.inf, rho or np.inf, 1e-7)[4]
            for p, q, u, v in ((x, y, a, mass * b), (x, x, a, a), (y, y, mass * b, mass * b))
        ]
        expected = values[0] - (values[1] + values[2]) / 2 + 0.4 * (1 - mass) ** 2
        seen = sinkhorn.divergence(x, y, a=a, b=mass * b, epsilon=0.8, rho=rho, tol=1e-5, **SHORT)
        np.testing.assert_allclose(seen, expected, rtol=2e-3)


def test_divergence_of_equals_is_zero(clouds):
    x, _, a, _ = clouds
    order = np.random.default_rng(1).permutation(len(x))
    value = sinkhorn.divergence(x, x[order], a=a, b=a[order], epsilon=0.8, tol=1e-5, **SHORT)
    assert abs(float(value)) < 1e-3


def test_barycenter_of_translates_is_their_mean(key):
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(50, 2))
    shifts = np.array([[0, 0], [9, 0], [0, 12]])
    fitted = sinkhorn.barycenter(key, [shape + s for s in shifts], 50, weights=[1, 1, 2], epsilon=0.01)
    centers = np.asarray(fitted.state.centers)
    assert int(fitted.status) == Status.CONVERGED
    np.testing.assert_allclose(centers.mean(0), shape.mean(0) + shifts.T @ [0.25, 0.25, 0.5], atol=1e-2)
    np.testing.assert_allclose(np.cov(centers.T), np.cov(shape.T), atol=0.1)
    history = np.asarray(fitted.history[: int(fitted.steps)])
    assert (np.diff(history) < 1e-2).all()


def test_barycenter_of_clouds_of_any_size_and_weight(key):
    rng = np.random.default_rng(0)
    left, right, third = rng.normal(size=(50, 2)), rng.normal(6, 1, size=(20, 2)), rng.normal(3, 1, size=(50, 2))
    masses = [np.r_[np.ones(20), np.zeros(30)], np.ones(20), np.ones(50)]
    masked = sinkhorn.barycenter(key, [left, right, third], 50, masses=masses, start=left, epsilon=0.2)
    cut = sinkhorn.barycenter(key, [left[:20], right, third], 50, start=left, epsilon=0.2)
    np.testing.assert_allclose(masked.state.centers, cut.state.centers, atol=1e-2)


def test_barycenter_has_a_frame_of_its_own(key):
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(30, 2)), rng.normal(1, 2, size=(20, 2))]
    near, far = (
        sinkhorn.barycenter(key, [cloud + shift for cloud in clouds], 12, start=clouds[0][:12] + shift, epsilon=0.1)
        for shift in (0, 1e9)
    )
    assert int(near.status) == int(far.status) == Status.CONVERGED
    np.testing.assert_allclose(far.state.centers - 1e9, near.state.centers, atol=1e-4)
    np.testing.assert_allclose(far.state.objective, near.state.objective, rtol=1e-4)
    unit = sinkhorn.barycenter(
        key, [1e-30 * cloud for cloud in clouds], 12, start=1e-30 * clouds[0][:12], epsilon=1e-61
    )
    np.testing.assert_allclose(1e30 * unit.state.centers, near.state.centers, atol=1e-4)
    expected = [sinkhorn.solve(near.state.centers, cloud, epsilon=0.1, **SHORT).regularized_cost for cloud in clouds]
    np.testing.assert_allclose(near.state.objective, np.mean(expected), rtol=1e-3)


def test_a_far_row_does_not_spoil_a_barycenter(key):
    """With as many points as samples, one point goes to the far samples, and the others as without them."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(12, 2)), rng.normal(1, 2, size=(12, 2))]
    plain = sinkhorn.barycenter(key, clouds, 12, start=clouds[0], epsilon=0.1, tol=1e-6)
    far = np.full((1, 2), 1e5)
    odd = [np.concatenate([cloud, far]) for cloud in clouds]
    fitted = sinkhorn.barycenter(key, odd, 13, start=odd[0], epsilon=0.1, tol=1e-6)
    assert int(fitted.status) == Status.CONVERGED
    np.testing.assert_allclose(fitted.state.centers[-1], far[0], rtol=1e-6)
    np.testing.assert_allclose(fitted.state.centers[:-1], plain.state.centers, atol=1e-2)


def test_unconverged_barycenter_says_so(key, clouds):
    x, y, _, _ = clouds
    short = sinkhorn.barycenter(key, [x, y], 5, epsilon=0.01, inner_steps=1, max_steps=3)
    assert int(short.status) == Status.MAX_STEPS
    assert float(short.state.error) > 1e-3


def test_swav_is_the_papers_without_masked_rows():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, size=(24, 5))
    seen = sinkhorn.swav_assignments(scores[:20])
    np.testing.assert_allclose(seen, swav_textbook(scores[:20], 0.05, 3), atol=1e-5)
    padded = scores.copy()
    padded[20:22], padded[22:] = 1e6, np.nan
    masked = sinkhorn.swav_assignments(padded, mask=np.arange(24) < 20)
    np.testing.assert_allclose(masked[:20], seen, atol=1e-6)
    assert (masked[20:] == 0).all()
    assert np.isfinite(sinkhorn.swav_assignments(1e4 * scores)).all()
    assert (sinkhorn.swav_assignments(scores, mask=np.zeros(24, bool)) == 0).all()


def test_swav_ends_with_equal_parts():
    scores = np.random.default_rng(0).normal(size=(32, 4))
    assignments = sinkhorn.swav_assignments(scores, 0.5, num_iters=50)
    np.testing.assert_allclose(assignments.sum(0), 8, rtol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_assignments_sum_to_one(offset):
    scores = np.random.default_rng(0).uniform(-1, 1, size=(12, 4))
    seen = sinkhorn.swav_assignments(scores + offset)
    np.testing.assert_allclose(seen.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(seen, swav_textbook(scores, 0.05, 3), atol=1e-4)
    assert np.abs(sinkhorn.swav_assignments(np.float32(scores + offset)).sum(1) - 1).max() < 1e-6

"""Sinkhorn on hard problems: huge and infinite costs, offsets, units, and statuses that are true of the plan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_switches import IN_64_BITS, STRICT, switched
from transport_problems import LONG, SHORT, check_marginals, random_clouds, squares

from jaxcluster.cluster import sinkhorn
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def clouds():
    return random_clouds()


@pytest.mark.parametrize("huge", [1e4, 1e9])
def test_a_few_huge_costs_do_not_rule(huge):
    costs, a, b = np.array([[0, huge], [1, 2], [3, huge]]), np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4])
    solved = sinkhorn.solve_cost(costs, a=a, b=b, epsilon=0.1, **SHORT)
    check_marginals(solved, sinkhorn.plan_cost(solved, costs), a, b, 1e-3)
    assert int(solved.steps) < 100
    np.testing.assert_allclose(solved.regularized_cost, 1.842, atol=5e-3)
    forbidden = sinkhorn.solve_cost(np.where(costs == huge, np.inf, costs), a=a, b=b, epsilon=0.1, **SHORT)
    np.testing.assert_allclose(forbidden.regularized_cost, solved.regularized_cost, rtol=1e-3)


@pytest.mark.parametrize("offset", [1e6, 1e12, [[1e15, 0.0]], [[0.0], [-1e12]]], ids=str)
def test_constants_of_costs_do_not_change_the_plan(offset):
    costs, offset = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array(offset)
    expected = sinkhorn.solve_cost(costs, epsilon=0.5, **SHORT)
    solved = sinkhorn.solve_cost(costs + offset, epsilon=0.5, **SHORT)
    plan = sinkhorn.plan_cost(solved, costs + offset)
    np.testing.assert_allclose(plan, sinkhorn.plan_cost(expected, costs), atol=1e-3)
    np.testing.assert_allclose(sinkhorn.apply_cost(solved, np.ones(2), costs + offset), 0.5, atol=1e-3)
    error = 1e-3 + np.spacing(np.abs(offset).max())
    np.testing.assert_allclose(solved.transport_cost - offset.mean(), expected.transport_cost, atol=error)


def test_points_far_apart_are_solved_in_float64():
    x, y = np.array([[0.0], [1.0], [1000.0]]), np.array([[0.5], [1.5], [-1000.0]])
    solved = sinkhorn.solve(x, y, epsilon=0.01)
    third = np.full(3, 1 / 3)
    check_marginals(solved, sinkhorn.plan(solved, x, y), third, third, 1e-3)
    np.testing.assert_allclose(solved.regularized_cost, 665667.5, rtol=1e-5)
    apart = sinkhorn.solve(x[:2], y[:2] + 2.0**30, epsilon=0.1)
    near = sinkhorn.plan(sinkhorn.solve(x[:2], y[:2], epsilon=0.1), x[:2], y[:2])
    np.testing.assert_allclose(sinkhorn.plan(apart, x[:2], y[:2] + 2.0**30), near, atol=1e-3)
    tiny = sinkhorn.solve(np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [1.7], [3.1]]), epsilon=1e-10)
    assert int(tiny.status) == Status.CONVERGED
    np.testing.assert_allclose(tiny.transport_cost, 0.65, rtol=1e-5)


def test_what_float32_cannot_tell_apart_is_a_status():
    x = jnp.asarray([[0.0], [1.0], [1000.0]])
    solved = jax.jit(lambda x: sinkhorn.solve(x, x[::-1] - 1000, epsilon=1e-6))(x)
    assert int(solved.status) == Status.PRECISION


@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_a_status_of_float32_is_true_of_the_plan(apart):
    """CONVERGED only if the sums of the plan are within the tolerance, PRECISION only if ε is small."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)).astype(np.float32), (rng.normal(size=(15, 2)) + apart).astype(np.float32)
    costs = squares(x.astype(float), y.astype(float))
    spread = (costs - costs.min(axis=1, keepdims=True)).max()
    run = jax.jit(lambda epsilon, tol: sinkhorn.solve(x + 0 * epsilon, y, epsilon=epsilon, tol=tol, **LONG))
    for fraction in (1e-3, 1e-2, 0.1, 1):
        for tol in (1e-3, 1e-4, 1e-6):
            solved = jax.tree.map(np.asarray, run(np.float32(fraction * spread), tol))
            f, g = (np.float64(high) + low for high, low in ((solved.f, solved.f_rest), (solved.g, solved.g_rest)))
            plan = np.exp((f[:, None] + g - costs) / solved.epsilon) / costs.size
            error = np.abs(plan.sum(axis=1) * 20 - 1).mean() + np.abs(plan.sum(axis=0) * 15 - 1).mean()
            assert int(solved.status) != Status.CONVERGED or error <= tol
            assert int(solved.status) == Status.CONVERGED or (tol < 1e-4 or fraction < 1e-2 or apart)


def test_precision_status_is_of_the_returned_plan():
    """A regression: over-relaxed rounds measured row and column sums at different potentials, and ended too early."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = np.concatenate([x, [[100.0, 0.0]]])
    solved = sinkhorn.solve(x[:20], y, epsilon=0.05, **SHORT)
    check_marginals(solved, sinkhorn.plan(solved, x[:20], y), np.full(20, 1 / 20), np.full(41, 1 / 41), 1e-3)


@pytest.mark.parametrize("factor", [2.0**60, 2.0**-60, 1e30, 1e-30])
def test_the_unit_does_not_matter(factor, clouds):
    x, y, a, b = clouds
    expected = sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, **SHORT)
    solved = sinkhorn.solve(x * factor, y * factor, a=a, b=b, epsilon=0.5 * factor**2, **SHORT)
    np.testing.assert_allclose(solved.transport_cost / factor**2, expected.transport_cost, rtol=1e-3)
    heavy = sinkhorn.solve(x, y, a=a * 1e40, b=b * 1e40, epsilon=0.5, **SHORT)
    np.testing.assert_allclose(heavy.transport_cost / 1e40, expected.transport_cost, rtol=1e-3)


def test_row_with_all_costs_infinite():
    costs = np.array([[np.inf, np.inf], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"costs of row 0 are all infinite.*a\[0\] = 0.5"):
        sinkhorn.solve_cost(costs, epsilon=1.0)
    assert int(jax.jit(lambda c: sinkhorn.solve_cost(c, epsilon=1.0))(costs).status) == Status.NOT_FINITE
    stays = sinkhorn.solve_cost(costs, epsilon=1.0, rho_a=1.0, rho_b=1.0)
    assert np.isfinite(stays.regularized_cost)
    assert not np.asarray(sinkhorn.plan_cost(stays, costs))[0].any()
    with pytest.raises(ValueError, match="1 of -infinity, the first for row 1 and column 0"):
        sinkhorn.solve_cost(np.array([[0.0, 1.0], [-np.inf, 1.0]]), epsilon=1.0)


def test_gradients_outside_jit_under_the_switches():
    """There ``jax_debug_nans`` looks at every operation, and concrete weights are in float64."""
    costs, x = jnp.array([[np.inf, 1.0], [0.5, 2.0]], jnp.float32), jnp.ones((2, 1), jnp.float32)
    with switched(STRICT | IN_64_BITS):
        gradient = jax.grad(lambda costs: sinkhorn.solve_cost(costs, epsilon=0.5, num_iters=60).regularized_cost)(costs)
        jax.eval_shape(jax.grad(lambda x: sinkhorn.divergence(x, x + 1, epsilon=0.5, rho=1.0)), x)
    # The gradient of the regularized cost is the plan.
    np.testing.assert_allclose(gradient, [[0, 0.5], [0.5, 0]], atol=1e-3)


def test_infinite_epsilon_and_prices(clouds):
    x, y, a, b = clouds
    solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=np.inf, **SHORT)
    np.testing.assert_allclose(sinkhorn.plan(solved, x, y), np.outer(a, b), atol=1e-6)
    np.testing.assert_allclose(solved.regularized_cost, a @ squares(x, y) @ b, rtol=1e-4)
    constrained, priced = (
        sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, rho_a=rho, rho_b=rho, **SHORT) for rho in (None, np.inf)
    )
    np.testing.assert_allclose(priced.f, constrained.f)

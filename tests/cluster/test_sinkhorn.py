"""Sinkhorn: against NumPy in float64, in tiles, at tiny ε, with penalties; plans, and arguments that are refused."""

from __future__ import annotations

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transport_problems import LONG, SHORT, random_clouds, squares, textbook

from jaxcluster.cluster import sinkhorn
from jaxcluster.cluster.sinkhorn import folds, iteration, updates
from jaxcluster.cluster.sinkhorn.problem import points_problem, tile_cost
from jaxcluster.cluster.sinkhorn.solve import solve_checked
from jaxcluster.ops import distance
from jaxcluster.sharding import row_mesh
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def clouds():
    return random_clouds()


@pytest.mark.parametrize("fraction", [1e-3, 1e-2, 0.1, 1, 10])
@pytest.mark.parametrize("wide", [False, True])
def test_potentials_and_values_are_the_textbooks(fraction, wide, clouds):
    x, y, a, b = clouds
    costs = squares(x, y)
    scale = costs.mean()
    f, g, plan, cost, primal = textbook(costs, a, b, fraction * scale)
    with jax.enable_x64(wide):
        options = {"tol": 1e-8 if wide else 2e-5, "omega": 1.5 if fraction < 0.1 else 1.0, **LONG}
        solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=fraction * scale, **options)
        close = 1e-5 if wide else 1e-3
        assert solved.f.dtype == np.float64  # published as the rows are
        assert wide is False or int(solved.status) == Status.CONVERGED
        np.testing.assert_allclose(solved.transport_cost, cost, rtol=close)
        np.testing.assert_allclose(solved.regularized_cost, primal, rtol=close)
        np.testing.assert_allclose(solved.f, f, atol=close * scale)
        np.testing.assert_allclose(solved.g, g, atol=close * scale)
        seen = sinkhorn.plan(solved, x, y)
        np.testing.assert_allclose(seen, plan, atol=close * plan.max())


def test_rows_of_the_plan_over_devices(clouds, monkeypatch):
    x, y, a, b = clouds
    for module in (iteration, sys.modules["jaxcluster.cluster.sinkhorn.solve"]):  # costs that are not kept, in tiles
        monkeypatch.setattr(module, "MAX_CACHED_COSTS", 0)
    monkeypatch.setattr(folds, "TILE", 64 * len(y))
    options = {"a": a, "b": b, "epsilon": 0.5, "rho_b": 5.0, "tol": 1e-4, "max_steps": 400}
    one, two = (sinkhorn.solve(x, y, **options, mesh=mesh) for mesh in (None, row_mesh()))
    np.testing.assert_allclose(two.f, one.f, atol=1e-4)
    np.testing.assert_allclose(two.regularized_cost, one.regularized_cost, rtol=1e-5)
    assert int(two.status) == int(one.status) == Status.CONVERGED


@pytest.mark.parametrize(("rho_a", "rho_b"), [(2.0, 2.0), (None, 5.0), (0.5, None)])
def test_penalties_let_the_sums_differ(rho_a, rho_b, clouds):
    x, y, a, b = clouds
    b = 1.7 * b
    _, _, plan, cost, primal = textbook(squares(x, y), a, b, 0.5, rho_a or np.inf, rho_b or np.inf)
    solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, rho_a=rho_a, rho_b=rho_b, tol=1e-5, **SHORT)
    assert int(solved.status) == Status.CONVERGED
    np.testing.assert_allclose(solved.transport_cost, cost, rtol=1e-3)
    np.testing.assert_allclose(solved.regularized_cost, primal, rtol=1e-3)
    np.testing.assert_allclose(sinkhorn.plan(solved, x, y), plan, atol=1e-3 * plan.max())


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", distance.manhattan])
def test_points_are_their_matrix(cost, clouds):
    x, y, a, b = clouds
    for width in (2, 6):
        rows, columns = (jnp.asarray(points[:, :width], jnp.float32) for points in (x, y))
        both = jax.jit(lambda x, y: (distance.metric_function(cost)(x, y), tile_cost(cost)(x, y)))
        matrix, tile = both(rows, columns)
        np.testing.assert_allclose(tile, matrix, rtol=1e-5, atol=1e-5)
    options = {"a": a, "b": b, "epsilon": 0.7, "tol": 1e-5, **SHORT}
    by_points, by_matrix = sinkhorn.solve(x, y, cost=cost, **options), sinkhorn.solve_cost(matrix, **options)
    np.testing.assert_allclose(by_points.f, by_matrix.f, atol=2e-4)
    np.testing.assert_allclose(by_points.regularized_cost, by_matrix.regularized_cost, rtol=1e-4)
    np.testing.assert_allclose(
        sinkhorn.plan(by_points, x, y, cost=cost), sinkhorn.plan_cost(by_matrix, matrix), atol=1e-5
    )


def test_costs_may_be_negative(clouds):
    x, y, a, b = clouds
    costs = squares(x, y)
    options = {"a": a, "b": b, "epsilon": 1.0, "tol": 1e-5, **SHORT}
    plain, shifted = (sinkhorn.solve_cost(costs - shift, **options) for shift in (0, 50))
    np.testing.assert_allclose(shifted.transport_cost, plain.transport_cost - 50, rtol=1e-4)
    np.testing.assert_allclose(sinkhorn.plan_cost(shifted, costs - 50), sinkhorn.plan_cost(plain, costs), atol=1e-5)


@pytest.mark.parametrize("epsilon_decay", [None, 0.5])
def test_a_cost_that_is_not_a_number_is_a_status(epsilon_decay, clouds):
    x, y, _, _ = clouds
    numbers = {"a": None, "b": None, "epsilon": 1.0, "rho_a": None, "rho_b": None}
    checked = points_problem(x, y, cost="sqeuclidean", **numbers)
    problem = checked.problem._replace(rows=jnp.full_like(checked.problem.rows, jnp.nan))
    solved = solve_checked(checked._replace(problem=problem), 1e-3, SHORT["max_steps"], epsilon_decay=epsilon_decay)
    assert int(solved.status) == Status.NOT_FINITE
    assert int(solved.steps) <= 2


def test_a_matrix_of_another_shape_compiles_nothing(clouds, compiles):
    x, y, _, _ = clouds
    costs = squares(x, y)
    sinkhorn.solve_cost(costs, epsilon=0.5, **SHORT)
    with compiles() as seen:
        sinkhorn.solve_cost(costs[:-1, :-2], epsilon=0.5, **SHORT)
    assert seen.count == 0


def test_tiles_do_not_matter(clouds, monkeypatch):
    x, y, a, b = clouds
    checked = points_problem(x, y, a=a, b=b, cost="sqeuclidean", epsilon=0.3, rho_a=None, rho_b=None)
    f, g = jnp.zeros_like(checked.problem.a), jnp.zeros_like(checked.problem.b)

    def all_updates(problem, f, g):
        arguments = (checked.cost, problem, f, g, problem.epsilon, jnp.float32(1.2))
        quick = updates.fast_update(*arguments)
        matrix = problem._replace(rows=checked.cost(*problem[:2]), columns=())
        kernel = updates.gibbs_kernel(matrix, g, matrix.epsilon)
        by_kernel = updates.kernel_update(matrix, kernel, *arguments[2:])
        return quick, by_kernel, updates.stable_update(*arguments), updates.typical_cost(*arguments[:2])

    def compiled():
        # A function of its own each time: one that JAX has seen before keeps the tiles that it was traced with.
        return jax.jit(lambda *inputs: all_updates(*inputs))(checked.problem, f, g)

    untiled = compiled()
    monkeypatch.setattr(folds, "tile_rows", lambda n, m, elements: 13)
    for seen, expected in zip(jax.tree.leaves(compiled()), jax.tree.leaves(untiled), strict=True):
        np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


def test_the_matrix_of_costs_never_exists():
    def solved(x, y):
        return sinkhorn.solve(x, y, epsilon=1.0, max_steps=10).f

    rows = jax.ShapeDtypeStruct((16_384, 8), jnp.float32)
    compiled = jax.jit(solved).lower(rows, rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 16_384**2 * 4 / 16


@pytest.mark.parametrize("epsilon_decay", [None, 0.5])
def test_tiny_epsilon_stays_finite(epsilon_decay, clouds):
    x, y, a, b = clouds
    epsilon = 1e-4 * squares(x, y).mean()
    solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=epsilon, max_steps=300, epsilon_decay=epsilon_decay)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in solved._replace(history=solved.history[:300])[:8])
    if epsilon_decay:
        exact = textbook(squares(x, y), a, b, epsilon, error=1e-6)[3]
        np.testing.assert_allclose(solved.transport_cost, exact, rtol=0.05)


def test_the_quick_round_knows_when_it_is_not_exact(clouds):
    x, y, a, b = clouds
    cost = points_problem(x, y, cost="sqeuclidean", a=a, b=b, epsilon=1.0, rho_a=None, rho_b=None).cost

    @jax.jit
    def both(*arguments):
        return updates.fast_update(cost, *arguments), updates.stable_update(cost, *arguments)

    for epsilon, expected in ((1.0, True), (1e-3, False)):
        numbers = {"a": a, "b": b, "epsilon": epsilon, "rho_a": None, "rho_b": None}
        checked = points_problem(x, y, cost="sqeuclidean", **numbers)
        f, g = jnp.zeros_like(checked.problem.a), jnp.zeros_like(checked.problem.b)
        (quick, is_exact), exact = both(checked.problem, f, g, checked.problem.epsilon, jnp.float32(1))
        assert bool(is_exact) is expected
        if expected:
            np.testing.assert_allclose(quick.g, exact.g, atol=1e-4)


def test_over_relaxation_needs_fewer_iterations(clouds):
    x, y, a, b = clouds
    options = {"a": a, "b": b, "epsilon": 0.1, "tol": 1e-3, **LONG}
    plain, *others = (sinkhorn.solve(x, y, omega=omega, **options) for omega in (1.0, 1.5, None))
    for relaxed in others:
        assert int(plain.status) == int(relaxed.status) == Status.CONVERGED
        assert int(relaxed.steps) < int(plain.steps)
        np.testing.assert_allclose(relaxed.transport_cost, plain.transport_cost, rtol=1e-2)


def test_steps_history_and_status(clouds):
    x, y, _, _ = clouds
    short = sinkhorn.solve(x, y, epsilon=0.1, tol=1e-6, max_steps=12)
    assert (int(short.status), int(short.steps)) == (Status.MAX_STEPS, 12)
    assert np.isfinite(short.history[:12]).all()
    assert not np.asarray(short.history[12:]).any()
    assert repr(short).endswith("12 steps, MAX_STEPS)")
    assert "polyline" in short._repr_html_()
    fixed = sinkhorn.solve(x, y, epsilon=0.1, num_iters=12)
    np.testing.assert_allclose(fixed.f, short.f, atol=1e-4)
    start = sinkhorn.solve(x, y, epsilon=0.1, tol=1e-3, **SHORT).g
    again = sinkhorn.solve(x, y, epsilon=0.1, start=start, epsilon_decay=None, **SHORT)
    assert int(again.steps) <= 3


@pytest.mark.parametrize("transpose", [False, True])
def test_products_with_the_plan(transpose, clouds):
    x, y, a, b = clouds
    solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, **SHORT)
    plan = np.asarray(sinkhorn.plan(solved, x, y))
    v = x if transpose else y
    expected = (plan.T if transpose else plan) @ v
    np.testing.assert_allclose(sinkhorn.apply(solved, v, x, y, transpose=transpose), expected, atol=1e-5)
    seen = sinkhorn.apply_cost(solved, v[:, 0], squares(x, y), transpose=transpose)
    np.testing.assert_allclose(seen, expected[:, 0], atol=1e-5)


X, Y = np.zeros((4, 2)), np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, np.ones((3, 5))), {}, "x has 2 columns and y has 5"),
        ((X[0], Y), {}, "x must be 2-D"),
        ((X, np.full((3, 2), np.nan)), {}, "y contains 6 NaN"),
        ((X, Y), {"epsilon": 0.0}, "epsilon=0.0 must be greater than 0"),
        ((X, Y), {"epsilon": float("nan")}, "epsilon=nan must be greater than 0"),
        ((X, Y), {"a": np.ones(4)}, "a sums to 4 and b to 1; no plan"),
        ((X, Y), {"a": np.array([1.0, -1, 1, 0])}, "a must not be negative"),
        ((X, Y), {"b": np.ones(4) / 4}, "b must have shape (3,)"),
        ((X, Y), {"rho_a": -1.0}, "rho_a=-1.0 must be greater than 0"),
        ((X, Y), {"cost": "euclid"}, "Did you mean 'euclidean'"),
        ((X, Y), {"cost": lambda x, y: x @ y.T @ y}, "cost must map (t, d) and (m, d) rows"),
        ((X, Y), {"omega": 2.0}, "omega=2.0 must be below 2"),
        ((X, Y), {"epsilon_decay": 1.0}, "epsilon_decay=1.0 must be below 1"),
        ((X, Y), {"num_iters": 0}, "num_iters=0 must be at least 1"),
        ((X, Y), {"start": np.ones(7)}, "start must have shape (3,)"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sinkhorn.solve(*arguments, **{"epsilon": 1.0, **options})


@pytest.mark.parametrize("offset", [1e6, -1e8])
def test_assignments_of_scores_far_from_zero(offset):
    """Rows of assignments sum to 1 and do not depend on a constant of the scores."""
    scores = np.random.default_rng(0).normal(size=(6, 4))
    assignments = sinkhorn.swav_assignments(scores + offset)
    np.testing.assert_allclose(assignments, sinkhorn.swav_assignments(scores), atol=1e-5)
    np.testing.assert_allclose(np.sum(assignments, axis=1), 1, rtol=1e-6)


def test_bad_input_elsewhere_is_refused(key):
    solved = sinkhorn.solve(X, Y, epsilon=1.0, **SHORT)
    for call, message in [
        (lambda: sinkhorn.solve_cost(np.array([[0, np.nan]]), epsilon=1.0), "costs contains 1 NaN values in column 1"),
        (lambda: sinkhorn.solve_cost(np.ones((2, 2)), b=[1.0, 1.0], epsilon=1.0), "a sums to 1 and b to 2"),
        (lambda: sinkhorn.apply(solved, np.ones(4), X, Y), "v must have shape (3,)"),
        (lambda: sinkhorn.apply(solved, np.ones(3), Y, Y), "a must have shape (3,)"),
        (lambda: sinkhorn.barycenter(key, [X, Y], 9, epsilon=1.0), "n_samples=7 should be >= k=9"),
        (lambda: sinkhorn.barycenter(key, [X, np.ones((3, 5))], 2, epsilon=1.0), "clouds[1] has 5 columns"),
        (lambda: sinkhorn.barycenter(key, [X], 2, masses=[np.ones(3)], epsilon=1.0), "masses[0] must have shape (4,)"),
        (lambda: sinkhorn.swav_assignments(X, epsilon=-1.0), "epsilon=-1.0"),
        (lambda: sinkhorn.swav_assignments(X, mask=np.ones(3, bool)), "mask must be a (4,) mask"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    with pytest.raises(TypeError, match="at least one matrix"):
        sinkhorn.barycenter(key, [], 2, epsilon=1.0)

"""Sinkhorn: against NumPy in float64, in tiles, at tiny ε, with penalties; plans, divergence, barycenters, SwAV."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxcluster.cluster import sinkhorn
from jaxcluster.cluster.sinkhorn import updates
from jaxcluster.cluster.sinkhorn.problem import points_problem, tile_cost
from jaxcluster.cluster.sinkhorn.solve import solve_checked
from jaxcluster.ops import distance
from jaxcluster.types import Status

SHORT, LONG = {"max_steps": 500}, {"max_steps": 8000}
"""A program holds a history of so many iterations at least: tests that ask for one of two limits share two programs."""


@pytest.fixture(scope="module")
def clouds():
    """20 and 15 rows in 6 columns, and weights with a zero on either side."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 6)), rng.normal(0.4, 1.2, size=(15, 6))
    a, b = rng.uniform(0.2, 1, 20), rng.uniform(0.2, 1, 15)
    a[3] = b[7] = 0
    return x, y, a / a.sum(), b / b.sum()


def squares(x, y):
    return np.square(x[:, None] - y).sum(2)


def textbook(costs, a, b, epsilon, rho_a=np.inf, rho_b=np.inf, error=1e-9):
    """Sinkhorn in float64, ε halved from the largest cost down: f, g, plan, ⟨P, C⟩, primal.

    A round in the log domain, then up to 100 with the plan's density that it found: far cheaper, and exact for as long
    as the potentials stay within 100·ε of those of the density.
    """

    def give(rho, strength):
        return strength if np.isinf(rho) else strength * rho / (rho + strength)

    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    g, strength = np.zeros(len(b)), max(epsilon, np.abs(costs).max())
    step, enough = np.inf, error * max(1, np.abs(costs).max())
    for _ in range(400):
        f = -give(rho_a, strength) * logsumexp((g - costs) / strength + log_b, axis=1)
        g = -give(rho_b, strength) * logsumexp((f[:, None] - costs) / strength + log_a[:, None], axis=0)
        if strength > epsilon:
            strength = max(epsilon, strength / 2)
            continue
        density, at_f, at_g = np.exp((f[:, None] + g - costs) / epsilon), f, g
        for _ in range(100):
            f = -give(rho_a, epsilon) * (np.log(density @ (b * np.exp((g - at_g) / epsilon))) - at_f / epsilon)
            columns = (a * np.exp((f - at_f) / epsilon)) @ density
            last, g = g, -give(rho_b, epsilon) * (np.log(columns) - at_g / epsilon)
            step = np.abs(g - last).max()
            if step < enough or max(np.abs(f - at_f).max(), np.abs(g - at_g).max()) > 100 * epsilon:
                break
        if step < enough:
            break
    plan = a[:, None] * b * np.exp((f[:, None] + g - costs) / epsilon)
    cost = (plan * costs).sum()
    primal = cost + epsilon * divergence_of(plan, np.outer(a, b))
    primal += 0 if np.isinf(rho_a) else rho_a * divergence_of(plan.sum(1), a)
    primal += 0 if np.isinf(rho_b) else rho_b * divergence_of(plan.sum(0), b)
    if np.isinf(rho_a) and np.isinf(rho_b):
        shift = (a @ f - b @ g) / (a.sum() + b.sum())
        f, g = f - shift, g + shift
    return f, g, plan, cost, primal


def divergence_of(p, q):
    """Generalized KL(p | q)."""
    some = p > 0
    return (p[some] * np.log(p[some] / q[some])).sum() - p.sum() + q.sum()


@pytest.mark.parametrize("fraction", [1e-3, 1e-2, 0.1, 1, 10])
@pytest.mark.parametrize("wide", [False, True])
def test_potentials_and_values_are_those_of_the_textbook(fraction, wide, clouds):
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


def test_an_offset_far_from_the_origin_changes_little(clouds):
    x, y, a, b = clouds
    near = sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, tol=1e-5, **SHORT)
    far = sinkhorn.solve(x + 1e5, y + 1e5, a=a, b=b, epsilon=0.5, tol=1e-5, **SHORT)
    np.testing.assert_allclose(far.f, near.f, atol=1e-3)


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
        kept = updates.kernel_update(matrix, kernel, *arguments[2:])
        return quick, kept, updates.stable_update(*arguments), updates.typical_cost(*arguments[:2])

    def compiled():
        # A function of its own each time: one that JAX has seen before keeps the tiles that it was traced with.
        return jax.jit(lambda *inputs: all_updates(*inputs))(checked.problem, f, g)

    whole = compiled()
    monkeypatch.setattr(updates, "tile_for", lambda n, m: 13)
    for seen, expected in zip(jax.tree.leaves(compiled()), jax.tree.leaves(whole), strict=True):
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
        (quick, whole), exact = both(checked.problem, f, g, checked.problem.epsilon, jnp.float32(1))
        assert bool(whole) is expected
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


def test_vmap_is_a_loop(clouds):
    x, y, _, _ = clouds
    many = jnp.asarray(np.stack([x, x[::-1] * 1.3, x + 1]), jnp.float32)
    run = partial(sinkhorn.solve, y=jnp.asarray(y, jnp.float32), epsilon=0.5, tol=1e-5, **SHORT)
    batched = jax.jit(jax.vmap(run))(many)
    for i, one in enumerate(many):
        alone = run(one)
        np.testing.assert_allclose(batched.f[i], alone.f, atol=1e-4)
        np.testing.assert_allclose(batched.regularized_cost[i], alone.regularized_cost, rtol=1e-4)


def test_a_weight_is_a_repetition(clouds):
    x, y, _, b = clouds
    counts = np.arange(20) % 3 + 1
    repeated = sinkhorn.solve(np.repeat(x, counts, axis=0), y, b=b, epsilon=0.5, tol=1e-5, **SHORT)
    weighted = sinkhorn.solve(x, y, a=counts / counts.sum(), b=b, epsilon=0.5, tol=1e-5, **SHORT)
    np.testing.assert_allclose(weighted.regularized_cost, repeated.regularized_cost, rtol=1e-4)
    np.testing.assert_allclose(np.repeat(weighted.f, counts), repeated.f, atol=1e-3)


def test_a_new_epsilon_compiles_nothing(clouds, compiles):
    x, y, _, _ = clouds
    sinkhorn.solve(x, y, epsilon=0.5, omega=1.0, max_steps=4100)
    with compiles() as seen:
        sinkhorn.solve(x, y, epsilon=0.4, tol=1e-4, omega=1.2, epsilon_decay=0.7, **LONG)
    assert seen.count == 0


def test_steps_history_and_status(clouds):
    x, y, _, _ = clouds
    short = sinkhorn.solve(x, y, epsilon=0.1, tol=1e-6, max_steps=12)
    assert (int(short.status), int(short.steps)) == (Status.MAX_STEPS, 12)
    assert np.isfinite(short.history[:12]).all()
    assert not np.asarray(short.history[12:]).any()
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


def test_barycenter_takes_clouds_of_any_size_and_weight(key):
    rng = np.random.default_rng(0)
    left, right, third = rng.normal(size=(50, 2)), rng.normal(6, 1, size=(20, 2)), rng.normal(3, 1, size=(50, 2))
    masses = [np.r_[np.ones(20), np.zeros(30)], np.ones(20), np.ones(50)]
    some = sinkhorn.barycenter(key, [left, right, third], 50, masses=masses, start=left, epsilon=0.2)
    cut = sinkhorn.barycenter(key, [left[:20], right, third], 50, start=left, epsilon=0.2)
    np.testing.assert_allclose(some.state.centers, cut.state.centers, atol=1e-2)


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
    """Of as many points as rows one goes to the far rows, and the others where they would go without them."""
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(12, 2)), rng.normal(1, 2, size=(12, 2))]
    plain = sinkhorn.barycenter(key, clouds, 12, start=clouds[0], epsilon=0.1, tol=1e-6)
    far = np.full((1, 2), 1e5)
    odd = [np.concatenate([cloud, far]) for cloud in clouds]
    fitted = sinkhorn.barycenter(key, odd, 13, start=odd[0], epsilon=0.1, tol=1e-6)
    assert int(fitted.status) == Status.CONVERGED
    np.testing.assert_allclose(fitted.state.centers[-1], far[0], rtol=1e-6)
    np.testing.assert_allclose(fitted.state.centers[:-1], plain.state.centers, atol=1e-2)


def test_a_barycenter_whose_transports_did_not_converge_says_so(key, clouds):
    x, y, _, _ = clouds
    short = sinkhorn.barycenter(key, [x, y], 5, epsilon=0.01, inner_steps=1, max_steps=3)
    assert int(short.status) == Status.MAX_STEPS
    assert float(short.state.error) > 1e-3


def swav_textbook(scores, epsilon, num_iters):
    q = np.exp(scores / epsilon).T
    q /= q.sum()
    for _ in range(num_iters):
        q /= q.sum(1, keepdims=True) * q.shape[0]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


def test_swav_is_that_of_the_paper_and_masked_rows_are_absent():
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


def check_marginals(solved, plan, a, b, tol):
    """CONVERGED says that the sums of the plan, in float64, are within the tolerance."""
    assert int(solved.status) == Status.CONVERGED
    plan = np.asarray(plan, float)
    error = np.abs(plan.sum(1) - a).sum() / np.sum(a) + np.abs(plan.sum(0) - b).sum() / np.sum(b)
    assert error <= tol


@pytest.mark.parametrize("huge", [1e4, 1e9])
def test_a_few_huge_costs_do_not_rule(huge):
    costs, a, b = np.array([[0, huge], [1, 2], [3, huge]]), np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.4])
    solved = sinkhorn.solve_cost(costs, a=a, b=b, epsilon=0.1, **SHORT)
    check_marginals(solved, sinkhorn.plan_cost(solved, costs), a, b, 1e-3)
    assert int(solved.steps) < 100
    np.testing.assert_allclose(solved.regularized_cost, 1.842, atol=5e-3)
    forbidden = sinkhorn.solve_cost(np.where(costs == huge, np.inf, costs), a=a, b=b, epsilon=0.1, **SHORT)
    np.testing.assert_allclose(forbidden.regularized_cost, solved.regularized_cost, rtol=1e-3)


@pytest.mark.parametrize("offset", [1e6, 1e12])
def test_constants_of_costs_do_not_change_the_plan(offset):
    costs = np.array([[0.0, 1.0], [1.0, 0.0]])
    expected = sinkhorn.solve_cost(costs, epsilon=0.5, **SHORT)
    solved = sinkhorn.solve_cost(costs + offset, epsilon=0.5, **SHORT)
    plan = sinkhorn.plan_cost(solved, costs + offset)
    np.testing.assert_allclose(plan, sinkhorn.plan_cost(expected, costs), atol=1e-4)
    np.testing.assert_allclose(solved.transport_cost - offset, expected.transport_cost, atol=1e-3)


def test_points_far_apart_are_solved_in_float64():
    x, y = np.array([[0.0], [1.0], [1000.0]]), np.array([[0.5], [1.5], [-1000.0]])
    solved = sinkhorn.solve(x, y, epsilon=0.01)
    third = np.full(3, 1 / 3)
    check_marginals(solved, sinkhorn.plan(solved, x, y), third, third, 1e-3)
    np.testing.assert_allclose(solved.regularized_cost, 665667.5, rtol=1e-5)
    tiny = sinkhorn.solve(np.array([[0.0], [1.0], [2.0]]), np.array([[0.5], [1.7], [3.1]]), epsilon=1e-10)
    assert int(tiny.status) == Status.CONVERGED
    np.testing.assert_allclose(tiny.transport_cost, 0.65, rtol=1e-5)


def test_what_float32_cannot_tell_apart_is_a_status():
    x = jnp.asarray([[0.0], [1.0], [1000.0]])
    solved = jax.jit(lambda x: sinkhorn.solve(x, x[::-1] - 1000, epsilon=1e-6))(x)
    assert int(solved.status) == Status.PRECISION


@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_a_status_of_float32_is_true_of_the_plan(apart):
    """CONVERGED only where the sums of the plan are within the tolerance, PRECISION only where ε is small."""
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


def test_precision_is_not_reported_for_updates_that_measured_another_plan():
    """An over-relaxed round measured the sums of rows and of columns at different potentials, and ended too early."""
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


def test_a_row_that_may_go_nowhere_is_refused_or_stays_at_a_price():
    costs = np.array([[np.inf, np.inf], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"costs of row 0 are all infinite.*a\[0\] = 0.5"):
        sinkhorn.solve_cost(costs, epsilon=1.0)
    assert int(jax.jit(lambda c: sinkhorn.solve_cost(c, epsilon=1.0))(costs).status) == Status.NOT_FINITE
    stays = sinkhorn.solve_cost(costs, epsilon=1.0, rho_a=1.0, rho_b=1.0)
    assert np.isfinite(stays.regularized_cost)
    assert not np.asarray(sinkhorn.plan_cost(stays, costs))[0].any()
    with pytest.raises(ValueError, match="1 of -infinity, the first for row 1 and column 0"):
        sinkhorn.solve_cost(np.array([[0.0, 1.0], [-np.inf, 1.0]]), epsilon=1.0)


def test_infinite_epsilon_and_prices(clouds):
    x, y, a, b = clouds
    solved = sinkhorn.solve(x, y, a=a, b=b, epsilon=np.inf, **SHORT)
    np.testing.assert_allclose(sinkhorn.plan(solved, x, y), np.outer(a, b), atol=1e-6)
    np.testing.assert_allclose(solved.regularized_cost, a @ squares(x, y) @ b, rtol=1e-4)
    held, priced = (
        sinkhorn.solve(x, y, a=a, b=b, epsilon=0.5, rho_a=rho, rho_b=rho, **SHORT) for rho in (None, np.inf)
    )
    np.testing.assert_allclose(priced.f, held.f)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_assignments_sum_to_one(offset):
    scores = np.random.default_rng(0).uniform(-1, 1, size=(12, 4))
    seen = sinkhorn.swav_assignments(scores + offset)
    np.testing.assert_allclose(seen.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(seen, swav_textbook(scores, 0.05, 3), atol=1e-4)
    assert np.abs(sinkhorn.swav_assignments(np.float32(scores + offset)).sum(1) - 1).max() < 1e-6

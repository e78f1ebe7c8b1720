"""Sinkhorn's gradients against finite differences in float64: unrolled iterations are in test_gradients.py."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.cluster import sinkhorn

EXACT = {"tol": 1e-11, "max_steps": 20_000}


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def small(wide):
    """12 and 9 rows in 3 columns, weights and ε, as one tree of inputs: of NumPy, whose sums with others have the same
    type, so that no other program is compiled for them."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 1, 12), rng.uniform(0.5, 1, 9)
    x, y = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(9, 3))
    return {"x": x, "y": y, "a": a / a.sum(), "b": b / b.sum(), "epsilon": np.asarray(0.5)}


def balanced(inputs):
    """Weights scaled to sum 1, so that any change of them is one that a plan can have."""
    return {**inputs, "a": inputs["a"] / jnp.sum(inputs["a"]), "b": inputs["b"] / jnp.sum(inputs["b"])}


def probe(transport):
    """A number that every potential has a part in."""
    f, g = transport.f, transport.g
    return jnp.sin(f) @ jnp.arange(f.shape[0]) + jnp.cos(g) @ jnp.arange(g.shape[0])


def read(transport):
    """One number that everything of a solution with a gradient has a part in: a Jacobian would compile for longer."""
    return transport.regularized_cost + 0.7 * transport.transport_cost + 0.3 * probe(transport)


def derived(function):
    """One program for a number and its gradient by each input."""
    return jax.jit(jax.value_and_grad(function))


@cache
def solved_by(cost="sqeuclidean"):
    """`derived` of a solution whose weights are scaled to sum 1, the same object each time: it compiles once."""
    return derived(lambda inputs: read(sinkhorn.solve(**balanced(inputs), cost=cost, **EXACT)))


def check_gradient(derivative, inputs, rtol=1e-3):
    """Along random directions, one for each input."""
    gradient = derivative(inputs)[1]
    rng = np.random.default_rng(1)
    for name, at in inputs.items():
        direction = rng.normal(size=at.shape) * (0.1 if at.ndim == 1 else 1.0)
        step = 1e-5
        up, down = ({**inputs, name: at + sign * step * direction} for sign in (1, -1))
        expected = (derivative(up)[0] - derivative(down)[0]) / (2 * step)
        np.testing.assert_allclose(np.vdot(gradient[name], direction), expected, rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_gradients_are_finite_differences(cost, small):
    check_gradient(solved_by(cost), small)


def test_gradients_with_penalties(small):
    # One side alone: the divergence below has penalties for both.
    inputs = {**small, "a": 1.4 * small["a"], "rho_a": np.asarray(1.5)}
    check_gradient(derived(lambda inputs: read(sinkhorn.solve(**inputs, **EXACT))), inputs)


def test_gradients_of_a_matrix(small):
    costs = np.square(small["x"][:, None] - small["y"]).sum(axis=2) - 2.0

    def value(inputs):  # of the regularized cost alone for a share of 0: its gradient is the plan
        solved = sinkhorn.solve_cost(inputs["costs"], epsilon=0.5, **EXACT)
        return inputs["share"] * read(solved) + (1 - inputs["share"]) * solved.regularized_cost

    derivative = derived(value)
    check_gradient(derivative, {"costs": costs, "share": np.asarray(0.6)})
    plan = sinkhorn.plan_cost(sinkhorn.solve_cost(costs, epsilon=0.5, **EXACT), costs)
    np.testing.assert_allclose(derivative({"costs": costs, "share": 0.0})[1]["costs"], plan, atol=1e-8)


def test_gradients_of_zero_weights_are_finite(small):
    a = small["a"].copy()
    a[2] = 0
    a /= a.sum()
    gradient = solved_by()({**small, "a": a})[1]
    assert all(np.isfinite(each).all() for each in gradient.values())


def test_forward_mode_agrees(small):
    def along(x, direction):
        return jax.jvp(lambda x: read(sinkhorn.solve(**balanced({**small, "x": x}), **EXACT)), (x,), (direction,))[1]

    run, backward = jax.jit(along), solved_by()(small)[1]["x"]
    for direction in np.random.default_rng(1).normal(size=(5, *small["x"].shape)):
        np.testing.assert_allclose(run(small["x"], direction), np.vdot(backward, direction), rtol=1e-6, atol=1e-9)


def test_gradient_of_the_divergence(small):
    check_gradient(derived(lambda inputs: sinkhorn.divergence(**balanced(inputs), **EXACT)), small)


def test_gradient_of_products_with_the_plan(small):
    def value(inputs):
        solved = sinkhorn.solve(inputs["x"], inputs["y"], epsilon=0.5, **EXACT)
        product = sinkhorn.apply(solved, inputs["y"], inputs["x"], inputs["y"])
        return jnp.sum(jnp.sin(3 * product))

    check_gradient(derived(value), {"x": small["x"], "y": small["y"]})


def test_gradient_of_swav_assignments(wide):
    scores = np.random.default_rng(0).normal(size=(8, 3))
    mask = jnp.arange(8) < 6

    def value(inputs):
        return jnp.sum(jnp.sin(5 * sinkhorn.swav_assignments(inputs["scores"], 0.5, 3, mask)))

    derivative = derived(value)
    check_gradient(derivative, {"scores": scores})
    assert (derivative({"scores": scores})[1]["scores"][6:] == 0).all()


def test_second_derivatives_move_the_potentials(wide):
    """The Hessian is that of differences of the gradient, cross terms included."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    gradient = jax.grad(lambda x: sinkhorn.solve(x, y, epsilon=0.5, **EXACT).regularized_cost)
    run = jax.jit(lambda x, direction: jax.jvp(gradient, (x,), (direction,)))
    for direction in np.eye(8).reshape(8, 4, 2):
        ahead, behind = (run(x + step * direction, direction)[0] for step in (1e-5, -1e-5))
        np.testing.assert_allclose(run(x, direction)[1], (ahead - behind) / 2e-5, atol=1e-7)


def test_derivatives_of_the_divergence_with_penalties(wide):
    """Gradients by samples, weights, ε and ρ equal finite differences, and so do Hessian-vector products."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(3, 2)), rng.normal(size=(4, 2)), [0.2, 0.5, 0.6], [0.1, 0.3, 0.2, 0.2], [0.5, 1.5]]
    numbers = np.concatenate([np.ravel(part) for part in parts])

    def value(numbers):
        x, y, a, b, (epsilon, rho) = jnp.split(numbers, [6, 14, 17, 21])
        options = {"a": a, "b": b, "epsilon": epsilon, "rho": rho, **EXACT}
        return sinkhorn.divergence(x.reshape(3, 2), y.reshape(4, 2), **options)

    run = jax.jit(lambda numbers, direction: jax.jvp(jax.value_and_grad(value), (numbers,), (direction,)))
    for direction in (*np.eye(23)[[3, 10, 15, 19, 21, 22]], *rng.normal(size=(2, 23))):
        (_, gradient), (derivative, product) = run(numbers, direction)
        up, down = (run(numbers + sign * 1e-5 * direction, direction)[0] for sign in (1, -1))
        expected = [(ahead - behind) / 2e-5 for ahead, behind in zip(up, down, strict=True)]
        np.testing.assert_allclose([derivative, gradient @ direction], expected[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(product, expected[1], rtol=1e-5, atol=1e-6)

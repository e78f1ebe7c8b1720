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
    """Everything of a solution that has a gradient: one backward pass gives the Jacobian of all three."""
    return jnp.stack([transport.regularized_cost, transport.transport_cost, probe(transport)])


def derived(function):
    """One program for the Jacobian of a vector of numbers, by each input, and for the numbers themselves."""

    def twice(inputs):
        value = function(inputs)
        return value, value

    return jax.jit(jax.jacrev(twice, has_aux=True))


@cache
def solved_by(cost="sqeuclidean"):
    """`derived` of a solution whose weights are scaled to sum 1, the same object each time: it compiles once."""
    return derived(lambda inputs: read(sinkhorn.solve(**balanced(inputs), cost=cost, **EXACT)))


def check_gradient(derivative, inputs, rtol=1e-3):
    """Along random directions, one for each input."""
    jacobian = derivative(inputs)[0]
    rng = np.random.default_rng(1)
    for name, at in inputs.items():
        direction = rng.normal(size=at.shape) * (0.1 if at.ndim == 1 else 1.0)
        step = 1e-5
        up, down = ({**inputs, name: at + sign * step * direction} for sign in (1, -1))
        expected = (np.asarray(derivative(up)[1]) - np.asarray(derivative(down)[1])) / (2 * step)
        along = (np.asarray(jacobian[name]) * direction).reshape(*expected.shape, -1).sum(-1)
        np.testing.assert_allclose(along, expected, rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_gradients_are_finite_differences(cost, small):
    check_gradient(solved_by(cost), small)


def test_gradients_with_penalties(small):
    # One side alone: the divergence below has penalties for both.
    inputs = {**small, "a": 1.4 * small["a"], "rho_a": np.asarray(1.5)}
    check_gradient(derived(lambda inputs: read(sinkhorn.solve(**inputs, **EXACT))), inputs)


def test_gradients_of_a_matrix(small):
    costs = np.square(small["x"][:, None] - small["y"]).sum(axis=2) - 2.0
    derivative = derived(lambda inputs: read(sinkhorn.solve_cost(inputs["costs"], epsilon=0.5, **EXACT)))
    check_gradient(derivative, {"costs": costs})
    plan = sinkhorn.plan_cost(sinkhorn.solve_cost(costs, epsilon=0.5, **EXACT), costs)
    np.testing.assert_allclose(derivative({"costs": costs})[0]["costs"][0], plan, atol=1e-8)


def test_gradients_of_zero_weights_are_finite(small):
    a = small["a"].copy()
    a[2] = 0
    a /= a.sum()
    derivative = derived(lambda x: read(sinkhorn.solve(x, small["y"], a=a, epsilon=0.5, **EXACT)))
    assert np.isfinite(derivative(small["x"])[0]).all()
    x, y = small["x"], small["y"]
    by_epsilon = jax.jit(jax.grad(lambda epsilon: sinkhorn.solve(x, y, epsilon=epsilon).transport_cost))
    assert np.isfinite(by_epsilon(0.5))


def test_forward_mode_agrees(small):
    def by_x(inputs):
        return jax.jacfwd(lambda x: read(sinkhorn.solve(**balanced({**inputs, "x": x}), **EXACT)))(inputs["x"])

    backward = solved_by()(small)[0]["x"]
    np.testing.assert_allclose(jax.jit(by_x)(small), backward, rtol=1e-6, atol=1e-9)


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
    assert (derivative({"scores": scores})[0]["scores"][6:] == 0).all()


def test_second_derivatives_move_the_potentials(wide):
    """The Hessian is that of differences of the gradient, cross terms included."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), rng.normal(size=(3, 2))
    gradient = jax.grad(lambda x: sinkhorn.solve(x, y, epsilon=0.5, **EXACT).regularized_cost)
    run = jax.jit(lambda x: (gradient(x), jax.jacfwd(gradient)(x)))
    hessian = np.asarray(run(x)[1]).reshape(8, 8)
    for i, step in enumerate(1e-5 * np.eye(8).reshape(8, 4, 2)):
        expected = np.asarray(run(x + step)[0] - run(x - step)[0]).ravel() / 2e-5
        np.testing.assert_allclose(hessian[i], expected, atol=1e-7)


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

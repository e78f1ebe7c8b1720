"""Sinkhorn's gradients: against finite differences in float64 and against those of the rounds themselves."""

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
    """12 and 9 rows in 3 columns, and weights, as one tree of inputs; ε and penalties with them."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 1, 12), rng.uniform(0.5, 1, 9)
    return {
        "x": jnp.asarray(rng.normal(size=(12, 3))),
        "y": jnp.asarray(rng.normal(0.5, 1, size=(9, 3))),
        "a": jnp.asarray(a / a.sum()),
        "b": jnp.asarray(b / b.sum()),
        "epsilon": jnp.asarray(0.5),
    }


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
    """Programs for the Jacobian of a vector of numbers, by each input, and for the numbers themselves."""
    return jax.jit(jax.jacrev(function)), jax.jit(function)


@cache
def solved_by(cost="sqeuclidean", **options):
    """`derived` of a solution whose weights are scaled to sum 1, the same object each time: it compiles once."""
    return derived(lambda inputs: read(sinkhorn.solve(**balanced(inputs), cost=cost, **(options or EXACT))))


def check_gradient(derivative, inputs, rtol=1e-3):
    """Along random directions, one for each input."""
    jacobian_of, value = derivative
    jacobian = jacobian_of(inputs)
    rng = np.random.default_rng(1)
    for name, at in inputs.items():
        direction = jnp.asarray(rng.normal(size=at.shape)) * (0.1 if at.ndim == 1 else 1.0)
        step = 1e-5
        up, down = ({**inputs, name: at + sign * step * direction} for sign in (1, -1))
        expected = np.asarray(value(up) - value(down)) / (2 * step)
        along = (np.asarray(jacobian[name]) * np.asarray(direction)).reshape(*expected.shape, -1).sum(-1)
        np.testing.assert_allclose(along, expected, rtol=rtol, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_gradients_are_finite_differences(cost, small):
    check_gradient(solved_by(cost), small)


def test_gradients_with_penalties(small):
    inputs = {**small, "a": 1.4 * small["a"], "rho_a": jnp.asarray(1.5), "rho_b": jnp.asarray(0.7)}
    derivative = derived(lambda inputs: read(sinkhorn.solve(**inputs, **EXACT)))
    check_gradient(derivative, inputs)
    check_gradient(derivative, {name: value for name, value in inputs.items() if name != "rho_b"})


def test_gradients_are_those_of_the_rounds(small):
    implicit, unrolled = (solved_by(**options)[0](small) for options in ({}, {"rounds": 300}))
    for name in small:
        np.testing.assert_allclose(implicit[name], unrolled[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_gradients_of_a_matrix(small):
    costs = jnp.sum(jnp.square(small["x"][:, None] - small["y"]), axis=2) - 2.0
    derivative = derived(lambda inputs: read(sinkhorn.solve_cost(inputs["costs"], epsilon=0.5, **EXACT)))
    check_gradient(derivative, {"costs": costs})
    plan = sinkhorn.plan_cost(sinkhorn.solve_cost(costs, epsilon=0.5, **EXACT), costs)
    np.testing.assert_allclose(derivative[0]({"costs": costs})["costs"][0], plan, atol=1e-8)


def test_gradients_of_concrete_weights_with_zeros_are_finite(small):
    a = np.asarray(small["a"]).copy()
    a[2] = 0
    a /= a.sum()
    jacobian_of, _ = derived(lambda x: read(sinkhorn.solve(x, small["y"], a=a, epsilon=0.5, **EXACT)))
    assert np.isfinite(jacobian_of(small["x"])).all()
    x, y = np.asarray(small["x"]), np.asarray(small["y"])
    assert np.isfinite(jax.grad(lambda epsilon: sinkhorn.solve(x, y, epsilon=epsilon).transport_cost)(0.5))


def test_forward_mode_agrees(small):
    def by_x(inputs):
        return jax.jacfwd(lambda x: read(sinkhorn.solve(**balanced({**inputs, "x": x}), **EXACT)))(inputs["x"])

    backward = solved_by()[0](small)["x"]
    np.testing.assert_allclose(jax.jit(by_x)(small), backward, rtol=1e-6, atol=1e-9)


def test_gradient_of_the_divergence(small):
    check_gradient(derived(lambda inputs: sinkhorn.divergence(**balanced(inputs), **EXACT)), small)
    penalized = {**small, "rho": jnp.asarray(2.0), "b": 1.3 * small["b"]}
    check_gradient(derived(lambda inputs: sinkhorn.divergence(**inputs, **EXACT)), penalized)


def test_gradient_of_products_with_the_plan(small):
    def value(inputs):
        solved = sinkhorn.solve(inputs["x"], inputs["y"], epsilon=0.5, **EXACT)
        moved = sinkhorn.apply(solved, inputs["y"], inputs["x"], inputs["y"])
        return jnp.sum(jnp.sin(3 * moved))

    check_gradient(derived(value), {"x": small["x"], "y": small["y"]})


def test_float32_is_close(small):
    wide = solved_by()[0](small)["x"][0]
    narrow = {name: np.asarray(value, np.float32) for name, value in small.items()}
    with jax.enable_x64(False):
        options = {**balanced(narrow), "tol": 1e-5}
        gradient = jax.grad(lambda x: sinkhorn.solve(**{**options, "x": x}).regularized_cost)(jnp.asarray(narrow["x"]))
    np.testing.assert_allclose(gradient, wide, atol=1e-3 * float(jnp.abs(wide).max()))


def test_gradient_of_swav_assignments(wide):
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))
    mask = jnp.arange(8) < 6

    def value(inputs):
        return jnp.sum(jnp.sin(5 * sinkhorn.swav_assignments(inputs["scores"], 0.5, 3, mask)))

    derivative = derived(value)
    check_gradient(derivative, {"scores": scores})
    assert (derivative[0]({"scores": scores})["scores"][6:] == 0).all()


def test_second_derivatives_know_that_the_potentials_move(wide):
    """The Hessian is that of differences of the gradient, cross terms included."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(4, 2))), jnp.asarray(rng.normal(size=(3, 2)))
    gradient = jax.grad(lambda x: sinkhorn.solve(x, y, epsilon=0.5, **EXACT).regularized_cost)
    run = jax.jit(lambda x: (gradient(x), jax.jacfwd(gradient)(x)))
    hessian = np.asarray(run(x)[1]).reshape(8, 8)
    for i, step in enumerate(1e-5 * np.eye(8).reshape(8, 4, 2)):
        expected = (run(x + step)[0] - run(x - step)[0]).ravel() / 2e-5
        np.testing.assert_allclose(hessian[i], expected, atol=1e-7)


def test_second_derivatives_of_the_divergence_with_penalties(wide):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(3, 2))), jnp.asarray(rng.normal(size=(4, 2)))
    a, b = jnp.asarray([0.2, 0.5, 0.6]), jnp.asarray([0.1, 0.3, 0.2, 0.2])

    def value(numbers):
        moved, epsilon, rho = numbers[:6].reshape(3, 2), numbers[6], numbers[7]
        return sinkhorn.divergence(moved, y, a=a, b=b, epsilon=epsilon, rho=rho, **EXACT)

    run = jax.jit(lambda numbers, direction: jax.jvp(jax.grad(value), (numbers,), (direction,)))
    numbers = jnp.concatenate([x.ravel(), jnp.asarray([0.5, 1.5])])
    for direction in (*np.eye(8)[5:], *rng.normal(size=(2, 8))):
        product = run(numbers, direction)[1]
        up, down = (run(numbers + sign * 1e-5 * direction, direction)[0] for sign in (1, -1))
        np.testing.assert_allclose(product, (up - down) / 2e-5, atol=1e-7)

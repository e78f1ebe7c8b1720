"""Sinkhorn's gradients: against finite differences in float64 and against those of the rounds themselves."""

from __future__ import annotations

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


READ = {
    "regularized_cost": lambda t: t.regularized_cost,
    "transport_cost": lambda t: t.transport_cost,
    "potentials": probe,
}


def check_gradient(function, inputs, rtol=1e-3):
    """Along random directions, one for each input."""
    gradient = jax.jit(jax.grad(function))(inputs)
    value = jax.jit(function)
    rng = np.random.default_rng(1)
    for name, at in inputs.items():
        direction = jnp.asarray(rng.normal(size=at.shape)) * (0.1 if at.ndim == 1 else 1.0)
        step = 1e-5
        up, down = ({**inputs, name: at + sign * step * direction} for sign in (1, -1))
        expected = float(value(up) - value(down)) / (2 * step)
        np.testing.assert_allclose(float(jnp.sum(gradient[name] * direction)), expected, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_gradients_are_finite_differences(read, cost, small):
    check_gradient(lambda inputs: READ[read](sinkhorn.solve(**balanced(inputs), cost=cost, **EXACT)), small)


@pytest.mark.parametrize("read", READ)
def test_gradients_with_penalties(read, small):
    inputs = {**small, "a": 1.4 * small["a"], "rho_a": jnp.asarray(1.5), "rho_b": jnp.asarray(0.7)}
    check_gradient(lambda inputs: READ[read](sinkhorn.solve(**inputs, **EXACT)), inputs)
    one_sided = {name: value for name, value in inputs.items() if name != "rho_b"}
    check_gradient(lambda inputs: READ[read](sinkhorn.solve(**inputs, **EXACT)), one_sided)


@pytest.mark.parametrize("read", READ)
def test_gradients_are_those_of_the_rounds(read, small):
    implicit, unrolled = (
        jax.jit(jax.grad(lambda inputs, o=options: READ[read](sinkhorn.solve(**balanced(inputs), **o))))(small)
        for options in (EXACT, {"rounds": 300})
    )
    for name in small:
        np.testing.assert_allclose(implicit[name], unrolled[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_gradients_of_a_matrix(small):
    costs = {"costs": jnp.sum(jnp.square(small["x"][:, None] - small["y"]), axis=2) - 2.0}
    for read in READ.values():
        check_gradient(
            lambda inputs, read=read: read(sinkhorn.solve_cost(inputs["costs"], epsilon=0.5, **EXACT)), costs
        )
    solved = sinkhorn.solve_cost(costs["costs"], epsilon=0.5, **EXACT)
    gradient = jax.grad(lambda c: sinkhorn.solve_cost(c, epsilon=0.5, **EXACT).regularized_cost)(costs["costs"])
    np.testing.assert_allclose(gradient, sinkhorn.plan_cost(solved, costs["costs"]), atol=1e-8)


def test_gradients_of_concrete_weights_with_zeros_are_finite(small):
    a = np.asarray(small["a"]).copy()
    a[2] = 0
    a /= a.sum()
    for read in READ.values():
        gradient = jax.grad(lambda x, read=read: read(sinkhorn.solve(x, small["y"], a=a, epsilon=0.5, **EXACT)))(
            small["x"]
        )
        assert np.isfinite(gradient).all()
    gradient = jax.grad(
        lambda e: sinkhorn.solve(np.asarray(small["x"]), np.asarray(small["y"]), epsilon=e).transport_cost
    )
    assert np.isfinite(gradient(0.5))


def test_forward_mode_agrees(small):
    def value(x):
        solved = sinkhorn.solve(x, small["y"], epsilon=0.5, **EXACT)
        return jnp.stack([solved.regularized_cost, solved.transport_cost])

    np.testing.assert_allclose(jax.jacfwd(value)(small["x"]), jax.jacrev(value)(small["x"]), rtol=1e-6, atol=1e-9)


def test_gradient_of_the_divergence(small):
    check_gradient(lambda inputs: sinkhorn.divergence(**balanced(inputs), **EXACT), small)
    penalized = {**small, "rho": jnp.asarray(2.0), "b": 1.3 * small["b"]}
    check_gradient(lambda inputs: sinkhorn.divergence(**inputs, **EXACT), penalized)


def test_gradient_of_products_with_the_plan(small):
    def value(inputs):
        solved = sinkhorn.solve(inputs["x"], inputs["y"], epsilon=0.5, **EXACT)
        moved = sinkhorn.apply(solved, inputs["y"], inputs["x"], inputs["y"])
        return jnp.sum(jnp.sin(3 * moved))

    check_gradient(value, {"x": small["x"], "y": small["y"]})


def test_float32_is_close(small):
    x, y = (np.asarray(small[name], np.float32) for name in ("x", "y"))
    wide = jax.grad(lambda x: sinkhorn.solve(x, small["y"], epsilon=0.5, **EXACT).regularized_cost)(small["x"])
    with jax.enable_x64(False):
        narrow = jax.grad(lambda x: sinkhorn.solve(x, y, epsilon=0.5, tol=1e-5).regularized_cost)(jnp.asarray(x))
    np.testing.assert_allclose(narrow, wide, atol=1e-3 * float(jnp.abs(wide).max()))


def test_gradient_of_swav_assignments(wide):
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))
    mask = jnp.arange(8) < 6

    def value(inputs):
        return jnp.sum(jnp.sin(5 * sinkhorn.swav_assignments(inputs["scores"], 0.5, 3, mask)))

    check_gradient(value, {"scores": scores})
    assert (jax.grad(value)({"scores": scores})["scores"][6:] == 0).all()

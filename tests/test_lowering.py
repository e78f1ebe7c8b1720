"""Every functional algorithm as a program for CPU, CUDA and TPU, which JAX lowers without a device of the kind."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms import ALGORITHMS, TRANSPORTS

import jaxcluster as jc
from jaxcluster.cluster import lloyd
from jaxcluster.ops.distance import squared_norms
from jaxcluster.types import Points

PLATFORMS = ("cpu", "cuda", "tpu")
K = 4
KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)
ROWS = jax.ShapeDtypeStruct((256, 5), jnp.float32)

LINEAR_ALGEBRA = re.compile(r"(lapack|cusolver|cublas)_\w+|Eigh|Qr|Cholesky|LuDecomposition|ProductOfElementary\w+")
"""Calls into the libraries of a platform, the only ones that a program may contain."""


def lowered(function, *arguments):
    """Text of a function's program for all platforms."""
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments).mlir_module()


def assert_runs_on_a_device(program):
    """No call back into Python, and nothing in float64, which JAX computes in only where it is asked to."""
    calls = set(re.findall(r"custom_call @(\w+)", program))
    assert {call for call in calls if not LINEAR_ALGEBRA.fullmatch(call)} == set()
    assert "f64" not in program


@pytest.mark.parametrize("name", [name for name, each in ALGORITHMS.items() if "traced" not in each.exempt])
def test_a_fit_lowers_for_every_platform(name):
    def fit(key, x):
        return ALGORITHMS[name].fit(jax.random.wrap_key_data(key), x, K).labels

    assert_runs_on_a_device(lowered(fit, KEY, ROWS))


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_transport_lowers_for_every_platform(name):
    assert_runs_on_a_device(lowered(lambda x, y: TRANSPORTS[name](x, y).error, ROWS, ROWS))


def test_a_gradient_lowers_for_every_platform():
    def loss(centers, x):
        bound = jc.gmm.fit(jax.random.key(0), x, K).state.lower_bound
        return jc.losses.soft_kmeans_loss(x, centers, variance=1.0) - bound

    centers = jax.ShapeDtypeStruct((K, 5), jnp.float32)
    assert_runs_on_a_device(lowered(jax.grad(loss, argnums=(0, 1)), centers, ROWS))


def test_losses_of_two_views_lower_for_every_platform():
    def loss(a, b):
        names = ("barlow_twins_loss", "vicreg_loss", "negative_cosine_loss", "dino_loss")
        return sum(getattr(jc.losses, name)(a, b) for name in names)

    assert_runs_on_a_device(lowered(jax.grad(loss), ROWS, ROWS))


def test_a_step_over_devices_has_one_collective():
    """A step of k-means adds up sums, weights and inertia of the clusters, and nothing with a row for each sample."""
    mesh, rows = jax.sharding.Mesh(np.array(jax.devices()), ("rows",)), jax.sharding.PartitionSpec("rows")

    def assign(x, weight):
        samples = lloyd.Samples(Points(x, weight), squared_norms(x))
        return lloyd.assignment_step(jnp.zeros((K, 5)), samples, options=lloyd.LloydOptions(axis_name="rows"))[0]

    sharded = jax.shard_map(assign, mesh=mesh, in_specs=(rows, rows), out_specs=jax.sharding.PartitionSpec())
    n = 64 * jax.device_count()
    program = jax.jit(sharded).lower(jnp.zeros((n, 5)), jnp.ones(n)).compile().as_text()
    collectives = re.findall(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute)\(", program)
    assert [kind for _, kind in collectives] == ["all-reduce"]
    assert re.findall(r"\[([\d,]*)\]", collectives[0][0]) == [f"{K},5", f"{K}", ""]

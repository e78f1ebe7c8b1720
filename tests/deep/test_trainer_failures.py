"""The trainer: numbers that are not finite end a training, and the last finite module is returned."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from trainer_problems import BATCH, MAKERS, PLAIN, D, Epochs, Line, N, X, assert_same, bits, dcn, fit, nan_at, regular

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep.batches import shuffled_batches
from jaxcluster.types import Status


@jax.custom_vjp
def no_gradient_at(step, value):
    """A loss that is finite, with a gradient that is NaN at one step."""
    return value


no_gradient_at.defvjp(lambda step, value: (value, step), lambda step, gradient: (None, nan_at(step, gradient)))


def test_a_step_that_is_not_finite_is_named_and_undone(tmp_path):
    epochs = Epochs()
    where = Checkpoints(tmp_path, every=1)
    trained = fit(Line(nan_at), optimizer=PLAIN, checkpoints=where, callbacks=[epochs])
    assert trained.status is Status.NOT_FINITE
    assert (trained.failed_step, trained.steps, len(trained.history)) == (9, 8, 2)
    reference = fit(Line(), optimizer=PLAIN, steps_per_epoch=8, epochs=1)
    np.testing.assert_allclose(trained.module.point[...], reference.module.point[...], rtol=1e-6)
    assert int(trained.module.steps[...]) == 8
    of_two = 8 * reference.history[0]["loss"] - 6 * trained.history[0]["loss"]  # of steps 7 and 8 alone
    np.testing.assert_allclose(2 * trained.history[1]["loss"], of_two, rtol=1e-4)
    assert epochs.numbers == [1, 2]
    again = fit(Line(nan_at), optimizer=PLAIN, checkpoints=where, resume=True)
    assert_same(again, trained)


def test_diverging_step_leaves_a_finite_module():
    trained = fit(Line(), optimizer=optax.sgd(1e30), epochs=1)  # whose square is more than float32 has
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, 2, 1)
    assert np.isfinite(trained.module.point[...]).all()
    assert np.isfinite(trained.history[0]["loss"])


def test_nonfinite_row_fails_its_step_only():
    x = X.copy()
    x[7, 2] = np.inf
    order = jax.random.split(jax.random.key(0), 3)[0]
    rows = np.asarray(shuffled_batches(order, jnp.int32(0), steps=N // BATCH, n=N, batch=BATCH))
    step = int(np.flatnonzero((rows == 7).any(1))[0]) + 1
    trained = fit(regular(), x=x)
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, step, step - 1)
    for _, dtype, _, payload in bits(trained.module):
        if dtype == "float32":
            assert np.isfinite(np.frombuffer(payload, np.float32)).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_look_that_is_not_finite_fails_the_next_step(name):
    trained = fit(Line(of_rows="NaN"))
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, 1, 0)
    np.testing.assert_array_equal(trained.module.point[...], np.zeros(D))
    if MAKERS[name] is dcn:
        x = X.copy()
        x[7, 2] = np.inf
        failed = fit(dcn(), x=x)
        assert (failed.status, failed.failed_step) == (Status.NOT_FINITE, 1)
        assert bits(failed.module) == bits(dcn())


class Sick(Line):
    """A module with a statistic ``mean`` that is infinite from the fifth step on, or with features that overflow."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.mean = kind, nnx.BatchStat(jnp.float32(0))

    def features(self, x):
        return super().features(x) if self.kind == "mean" else x * jnp.square(self.point[...])

    def loss(self, batch, key):
        if self.kind == "mean":
            self.mean[...] = self.mean[...] + jnp.where(self.steps[...] == 4, jnp.inf, 1.0)
            return super().loss(batch, key)
        return jnp.mean(self.point[...]), {}


def spoiled_state():
    """Gradient descent with an unused state that is NaN after the third update."""

    def update(updates, state, params=None):
        count, waste = state
        scaled = jax.tree.map(lambda leaf: -0.1 * leaf, updates)
        return scaled, (count + 1, jnp.where(count >= 2, jnp.nan, waste))

    return optax.GradientTransformation(lambda params: (jnp.int32(0), jnp.float32(0)), update)


FAILURES = {
    "NaN from a schedule": (
        Line,
        optax.sgd(lambda step: jnp.where(step >= 7, jnp.nan, 0.1)),
        8,
        7,
        "the parameters after the update were",
    ),
    "the state of the optimizer": (Line, spoiled_state(), 3, 2, "the state of the optimizer was"),
    "a running mean": (partial(Sick, "mean"), PLAIN, 5, 4, "the variables of the module besides its parameters were"),
    "features": (partial(Sick, "features"), optax.sgd(1e25), 7, 0, "the outputs of the module for all rows were"),
    "the gradient": (partial(Line, no_gradient_at), PLAIN, 9, 8, "the gradient was"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_last_network_that_is_sound_is_handed_back(name):
    make, optimizer, failed, steps, cause = FAILURES[name]
    trained = fit(make(), optimizer=optimizer)
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, failed, steps)
    assert trained.cause == cause
    assert np.isfinite(np.asarray(trained.module.features(X))).all()
    assert len(trained.history) == -(-(failed - 1) // (N // BATCH))  # no record of an epoch without a step
    assert all(np.isfinite(list(record.values())).all() for record in trained.history)
    reference = make()
    if steps:
        plain = spoiled_state() if optimizer is not PLAIN and name.startswith("the state") else PLAIN
        reference = fit(make(), optimizer=plain, steps_per_epoch=steps, epochs=1).module
    for one, other in zip(*(jax.tree.leaves(nnx.state(each)) for each in (trained.module, reference)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_parameters_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="the parameter point of the module holds NaN or infinity before the first"):
        fit(Line(start=np.nan))

"""The trainer: batches, steps, stopping, precision, devices, optimizers, and arguments that are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from trainer_problems import (
    BATCH,
    EPOCHS,
    FAST,
    PLAIN,
    Cut,
    D,
    Line,
    N,
    Regular,
    X,
    assert_same,
    bits,
    cut_after,
    fit,
    regular,
)

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import Autoencoder, epoch, train
from jaxcluster.deep.batches import shuffled_batches
from jaxcluster.deep.nets import MLP
from jaxcluster.sharding import row_mesh
from jaxcluster.types import Status


@pytest.mark.parametrize(("n", "batch", "steps"), [(48, 8, 4), (50, 8, 15), (5, 5, 3)])
def test_batches_cover_every_row_once_a_pass(n, batch, steps):
    """Epochs of any length have the same order, which depends on the key and the pass only."""
    order, per_pass = jax.random.key(1), n // batch
    epochs = 3 * per_pass // steps + 2
    cut = [shuffled_batches(order, jnp.int32(i * steps), steps=steps, n=n, batch=batch) for i in range(epochs)]
    passes = np.concatenate(cut)[: 3 * per_pass].reshape(3, per_pass, batch)
    at_once = shuffled_batches(order, jnp.int32(0), steps=3 * per_pass, n=n, batch=batch)
    np.testing.assert_array_equal(passes, at_once.reshape(passes.shape))
    for rows in passes:
        assert np.unique(rows).size == per_pass * batch  # n mod batch rows are left out
        assert rows.min() >= 0
        assert rows.max() < n
    assert not np.array_equal(passes[0], passes[1])
    other = shuffled_batches(jax.random.key(2), jnp.int32(0), steps=3 * per_pass, n=n, batch=batch)
    assert not np.array_equal(other, at_once)


def test_all_rows_have_their_turn_over_passes():
    rows = shuffled_batches(jax.random.key(0), jnp.int32(0), steps=40, n=15, batch=8)
    assert set(np.unique(rows)) == set(range(15))


def test_steps_see_their_rows_and_targets():
    class Looks(Line):
        def loss(self, batch, key):
            gap = jnp.abs(batch.x - data[batch.index]).max() + jnp.abs(batch.target - jnp.square(batch.x)).max()
            return jnp.sum(self.point[...] * 0) + gap, {}

    data = jnp.asarray(X)
    for resident in (True, False):
        trained = fit(Looks(of_rows="square"), epochs=1, resident=resident)
        assert trained.history[0]["loss"] < 1e-5


def test_steps_are_those_of_gradient_descent():
    """The record of an epoch that is shorter than a pass is the mean over its steps."""
    rate, steps = 0.1, 4
    trained = fit(Line(), optimizer=PLAIN, steps_per_epoch=steps, epochs=2)
    order = jax.random.split(jax.random.key(0), 3)[0]
    rows = np.asarray(shuffled_batches(order, jnp.int32(0), steps=2 * steps, n=N, batch=BATCH))
    point, losses = np.zeros(D), []
    for indices in rows:
        gap = X[indices].astype(np.float64) - point
        losses.append(np.mean(gap**2))
        point = point + rate * 2 * gap.mean(0) / D
    np.testing.assert_allclose(trained.module.point[...], point, rtol=1e-5)
    np.testing.assert_allclose([r["loss"] for r in trained.history], np.reshape(losses, (2, steps)).mean(1), rtol=1e-5)
    firsts = rows.min(1).reshape(2, steps).mean(1)
    np.testing.assert_allclose([r["first"] for r in trained.history], firsts, rtol=1e-6)
    assert trained.steps == 2 * steps
    assert int(trained.module.steps[...]) == 2 * steps


def test_training_stops_when_few_labels_change(tmp_path):
    options = {"tol": 0.02, "epochs": 100, "optimizer": PLAIN, "checkpoints": Checkpoints(tmp_path)}
    trained = fit(Line(), **options)
    assert trained.status is Status.CONVERGED
    assert 1 < len(trained.history) < 100
    assert "changed" not in trained.history[0]
    assert all(record["changed"] > 0.02 for record in trained.history[1:])
    of_module = np.asarray(trained.module.features(X)[:, 0] > 0)
    np.testing.assert_array_equal(trained.labels, of_module)
    assert trained.labels.dtype == np.int32
    assert_same(fit(Line(), **options, resume=True), trained)
    assert fit(Line(), tol=0.0, epochs=2, optimizer=PLAIN).status is Status.MAX_STEPS
    two_epochs = fit(Line(), epochs=2)
    np.testing.assert_array_equal(two_epochs.labels, np.asarray(two_epochs.module.features(X)[:, 0] > 0))


def test_it_stops_when_the_loss_stays():
    options = {"epochs": 50, "optimizer": PLAIN, "batch_size": N}  # one batch: the loss falls to its least and stays
    short = fit(Line(), patience=3, min_delta=0.5, **options)
    losses = [record["loss"] for record in short.history]
    assert short.status is Status.CONVERGED
    best = 0
    for i, loss in enumerate(losses):
        best = i if loss < losses[best] - 0.5 else best
    assert len(losses) == best + 4
    longer = fit(Line(), patience=3, min_delta=0.05, **options)
    assert len(short.history) < len(longer.history) < 50
    assert fit(Line(), **options).status is Status.MAX_STEPS


def test_a_callback_stops_it_and_all_of_them_are_told():
    class Listens:
        def __init__(self):
            self.events = []

        def on_train_begin(self, history, epochs):
            self.events.append(("begin", len(history), epochs))

        def __call__(self, report):
            assert report.record is report.history[-1]
            assert report.labels.shape == (N,)
            module = report.module()
            self.events.append((len(report.history), float(module.point[0])))
            return len(report.history) == 2

        def on_train_end(self, result):
            self.events.append(("end", result.status))

        def on_exception(self):
            self.events.append("cut")

    first, second = Listens(), Listens()
    trained = fit(Line(), callbacks=(each for each in (first, second)))
    assert trained.status is Status.CONVERGED
    assert first.events == second.events
    assert [words[0] for words in first.events] == ["begin", 1, 2, "end"]
    assert first.events[0] == ("begin", 0, EPOCHS)
    assert first.events[2][1] == float(trained.module.point[0]) != first.events[1][1]
    with pytest.raises(Cut):
        fit(Line(), callbacks=[first, cut_after(1)])
    assert first.events[-1] == "cut"


def test_fast_keeps_parameters_and_loss_in_float32():
    seen = {}

    class Watched(Regular):
        def __call__(self, x):
            seen["layer"] = self.first(x).dtype
            seen["parameter"] = self.first.kernel[...].dtype
            return super().__call__(x)

    rngs = nnx.Rngs(0)
    module = Autoencoder(Watched(rngs), MLP((2, 6, D), rngs=rngs))
    trained = fit(module, precision="fast", callbacks=[lambda report: seen.update(loss=report.record["loss"])])
    assert seen["layer"] == jnp.bfloat16
    assert seen["parameter"] == jnp.float32
    assert all(dtype != "bfloat16" for _, dtype, _, _ in bits(trained.module))
    assert float(np.float32(seen["loss"])) != float(jnp.bfloat16(seen["loss"]))
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    trained.module.encoder(X)
    assert seen["layer"] == jnp.float32  # what comes back is as it was passed
    assert trained.history != fit(regular()).history


def test_a_module_may_want_targets_without_clusters(tmp_path):
    trained = fit(Line(of_rows="target"), epochs=2, checkpoints=Checkpoints(tmp_path, every=1))
    assert trained.labels is None
    assert "changed" not in trained.history[1]
    with pytest.raises(ValueError, match="tol=0.1 is a share of rows that change their cluster, and Line has no clus"):
        fit(Line(of_rows="target"), tol=0.1)


@pytest.mark.parametrize("raw", [False, True])
def test_both_kinds_of_keys_give_the_same(raw, tmp_path):
    key = jax.random.PRNGKey(0) if raw else jax.random.key(0)
    trained = train(key, Line(), X, epochs=1, batch_size=BATCH, optimizer=FAST, checkpoints=Checkpoints(tmp_path))
    assert_same(trained, fit(Line(), epochs=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": N + 1}, "batch_size=49 is more than the 48 rows there are. Pass at most 48"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0 must be at least 1"),
        ({"patience": 0}, "patience=0 must be at least 1"),
        ({"min_delta": -1.0}, "min_delta=-1.0 must be at least 0"),
        ({"precision": "half"}, "precision='half' is not known; choose one of 'fast'"),
        ({"tol": 0.1}, "tol=0.1 is a share of rows that change their cluster, and Autoencoder has no clusters"),
    ],
)
def test_what_it_refuses_before_any_computation(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        fit(regular(), checkpoints=Checkpoints(tmp_path), **options)
    with pytest.raises(ValueError, match="tol=-0.1 must be at least 0"):
        fit(Line(), tol=-0.1)
    for options in ({"every": 0}, {"keep": 0}):
        with pytest.raises(ValueError, match="=0 must be at least 1"):
            fit(regular(), checkpoints=Checkpoints(tmp_path, **options))
    assert not any(tmp_path.iterdir())


def test_a_batch_is_shared_by_devices():
    # Adam would make steps out of the rounding of slopes that are 0, those of a bias before batch norm.
    options = {"epochs": 2, "optimizer": PLAIN}
    alone, sharded = fit(regular(), **options), fit(regular(), **options, mesh=row_mesh())
    losses = [[record["loss"] for record in trained.history] for trained in (alone, sharded)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(
        *(jax.tree.leaves(nnx.state(each.module, nnx.Param)) for each in (alone, sharded)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    hosted = fit(regular(), **options, mesh=row_mesh(), resident=False)
    np.testing.assert_allclose([record["loss"] for record in hosted.history], losses[0], rtol=1e-5)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch_size=7 cannot be shared equally by the 2 devices .* such as 6"):
        fit(regular(), batch_size=7, mesh=row_mesh())
    with pytest.raises(ValueError, match="must have one axis, of type Auto: make it by jaxcluster.sharding.row_mesh"):
        fit(regular(), mesh=jax.make_mesh((2, 1), ("a", "b")))


def by_hand(optimizer, steps):
    """A point after gradient steps on all samples, written as in the documentation of optax."""
    point, value_fn = jnp.zeros(D), lambda point: jnp.mean(jnp.square(X - point[None]))
    state = optimizer.init(point)
    for _ in range(steps):
        value, grad = jax.value_and_grad(value_fn)(point)
        extra = {"value": value, "grad": grad, "value_fn": value_fn}
        updates, state = optax.with_extra_args_support(optimizer).update(grad, state, point, **extra)
        point = optax.apply_updates(point, updates)
    if isinstance(state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state, point)
    return point


EXTRA = {
    "a plateau": optax.chain(optax.sgd(0.4), optax.contrib.reduce_on_plateau(patience=1, rtol=0.9)),
    "L-BFGS": optax.lbfgs(memory_size=1, linesearch=optax.scale_by_backtracking_linesearch(5)),
    "schedule-free": optax.contrib.schedule_free_sgd(0.5),
    "two steps in one": optax.MultiSteps(optax.sgd(0.4), 2),
}


@pytest.mark.parametrize("name", EXTRA)
def test_optimizers_with_further_arguments(name):
    optimizer = EXTRA[name]
    module = Line()
    trained = fit(module, optimizer=optimizer, batch_size=N, steps_per_epoch=5, epochs=1)
    assert (trained.status, trained.steps) == (Status.MAX_STEPS, 5)
    np.testing.assert_array_equal(module.point[...], np.zeros(D))  # also where the optimizer holds the parameters
    oracle = optimizer.gradient_transformation() if name == "two steps in one" else optimizer
    np.testing.assert_allclose(trained.module.point[...], by_hand(oracle, 5), rtol=1e-4, atol=1e-5)


def needs_more():
    def update(updates, state, params=None, *, temperature, **extra):
        return jax.tree.map(lambda leaf: leaf * temperature, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def plain_update(update):
    return optax.GradientTransformation(
        lambda params: jnp.zeros(1), lambda updates, state, params: update(updates, state)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nnx.Optimizer(Line(), PLAIN, wrt=nnx.Param), r"is a Optimizer of Flax.*Pass .* its attribute tx"),
        (lambda: "adam", r"optimizer='adam' is a name. Pass the transformation itself, an optax.Grad"),
        (lambda: 1e-3, r"optimizer=0.001 is a number. Pass an optax.GradientTransformation"),
        (lambda: optax.adam, r"a function. Call it: .*optax.adam\(1e-3\)"),
        (lambda: object(), r"of type builtins.object. Pass an optax.GradientTransformation"),
        (needs_more, r"the optimizer cannot be used here: .*temperature.*value, grad and value_fn"),
        (lambda: plain_update(lambda updates, state: (updates, jnp.zeros(len(state) + 1))), r"of shape \(2,\) of one"),
        (lambda: plain_update(lambda updates, state: (jnp.zeros((3, 4)), state)), "cannot be used here: .*raised"),
        (lambda: plain_update(lambda updates, state: [][0]), "its update raised IndexError"),
        (
            lambda: optax.GradientTransformation(lambda params: 1 / 0, plain_update(None).update),
            "its init raised ZeroDivisionError",
        ),
    ],
)
def test_what_is_no_optimizer_is_answered_with_one(make, message):
    with pytest.raises(TypeError, match=message):
        fit(Line(), optimizer=make())


def test_default_batch_is_at_most_the_rows():
    trained = train(jax.random.key(0), Line(), X, epochs=2, optimizer=PLAIN)
    assert trained.steps == 2
    assert_same(trained, fit(Line(), epochs=2, optimizer=PLAIN, batch_size=N))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble])
def test_rows_of_any_dtype_are_computed_in_float32(dtype):
    rows = np.round(X * 8) / 8  # which half precision holds
    trained = fit(Line(), x=rows.astype(dtype), epochs=1, optimizer=PLAIN)
    assert_same(trained, fit(Line(), x=rows, epochs=1, optimizer=PLAIN))
    with pytest.raises(TypeError, match="x has dtype object, which is not numeric"):
        fit(Line(), x=X.astype(object))


def test_no_network_shape_has_a_program_of_its_own(compiles):
    state = {str(i): jnp.asarray(X[:i, :1]) for i in range(5, 15)}
    with compiles() as seen:
        assert all(epoch._finite_leaves(state))
        epoch._copied(state)
    assert seen.count == 1

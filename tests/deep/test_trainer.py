"""The trainer: what it learns, that a run cut short goes on bit for bit, when it stops, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import (
    DCN,
    Autoencoder,
    Batch,
    ClusteringModule,
    RefreshResult,
    UpdatePhase,
    adam,
    batches,
    map_module,
    train,
)
from jaxcluster.deep.batches import DeviceRows, shuffled_batches
from jaxcluster.deep.nets import MLP
from jaxcluster.sharding import row_mesh
from jaxcluster.types import Status

N, D, K, BATCH, EPOCHS = 48, 4, 3, 8, 4
RNG = np.random.default_rng(0)
X = (np.repeat(np.eye(K, D) * 5, N // K, axis=0) + RNG.normal(size=(N, D))).astype(np.float32)
FAST = adam(1e-2)
PLAIN = optax.sgd(0.1)


class Regular(nnx.Module):
    """A network with all that changes besides parameters: dropout's keys, and the means of batches."""

    def __init__(self, rngs):
        self.first = nnx.Linear(D, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return jnp.float32(self.last(self.dropout(jax.nn.relu(self.norm(self.first(x))))))


class Line(ClusteringModule):
    """A row's distance from a point, and two clusters: which side of it the row is on.

    Gradient descent is easy to follow by hand. ``spoil`` is told the step and the loss.
    """

    def __init__(self, spoil=None, start=0.0, of_rows=None):
        self.point = nnx.Param(jnp.full(D, start))
        self.steps = nnx.Variable(jnp.int32(0))
        self.spoil, self.of_rows = spoil, of_rows

    def features(self, x):
        return x - self.point[...]

    def refresh(self, z, key):
        labels = None if self.of_rows == "target" else jnp.int32(z[:, 0] > 0)
        target = None if self.of_rows is None else jnp.square(z)
        return RefreshResult(labels, jnp.log(target - 2) if self.of_rows == "NaN" else target)

    def loss(self, batch, key):
        self.steps[...] += 1
        value = jnp.mean(jnp.square(self.features(batch.x)))
        value = value if self.spoil is None else self.spoil(self.steps[...], value)
        return value, {"first": jnp.min(batch.index).astype(jnp.float32)}


def nan_at(step, value):
    return jnp.where(step == 9, jnp.nan, value)


@jax.custom_vjp
def no_slope_at(step, value):
    """The loss itself stays finite; its slope is NaN at one step."""
    return value


no_slope_at.defvjp(lambda step, value: (value, step), lambda step, slope: (None, nan_at(step, slope)))


def regular():
    rngs = nnx.Rngs(0)
    return Autoencoder(Regular(rngs), MLP((2, 6, D), rngs=rngs))


def dcn():
    rngs = nnx.Rngs(1)
    autoencoder = Autoencoder(MLP((D, 6, 2), rngs=rngs), MLP((2, 6, D), rngs=rngs))
    return DCN(autoencoder, jax.random.normal(jax.random.key(1), (K, 2)), jnp.full(K, 5))


MAKERS = {"dropout and means of batches": regular, "centers of its own": dcn}


def fit(module, *, key=0, x=X, **options):
    options = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": FAST, **options}
    return train(jax.random.key(key), module, x, **options)


def bits(tree):
    """Path, dtype, shape and bytes of all variables."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.state(tree) if isinstance(tree, nnx.Module) else tree)[0]
    keys = jax.dtypes.prng_key
    plain = [(path, jax.random.key_data(x) if jnp.issubdtype(x.dtype, keys) else x) for path, x in leaves]
    return [(jax.tree_util.keystr(path), str(x.dtype), x.shape, np.asarray(x).tobytes()) for path, x in plain]


def records(trained):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in trained.history]


def assert_same(one, two):
    assert bits(one.module) == bits(two.module)
    assert records(one) == records(two)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one._replace(module=None, labels=None, history=None) == two._replace(module=None, labels=None, history=None)


class Cut(Exception):
    pass


def cut_after(epoch):
    def callback(report):
        if len(report.history) == epoch:
            raise Cut

    return callback


class Epochs:
    """The numbers of the epochs that it was told of."""

    def __init__(self):
        self.seen = []

    def __call__(self, report):
        self.seen.append(report.record["epoch"])


@pytest.fixture(scope="module", params=MAKERS)
def whole(request):
    """How to make a module, and the run of it that is never cut."""
    make = MAKERS[request.param]
    return make, fit(make())


def test_the_loss_falls_and_the_module_that_was_passed_is_as_it_was(whole):
    make, _ = whole
    module = make()
    before, graph = bits(module), nnx.graphdef(module)
    trained = fit(module)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert trained.status is Status.MAX_STEPS
    assert (trained.steps, trained.failed_step, len(trained.history)) == (EPOCHS * N // BATCH, None, EPOCHS)
    assert [(r["epoch"], r["step"]) for r in trained.history] == [(i, i * N // BATCH) for i in range(1, EPOCHS + 1)]
    assert bits(module) == before
    assert nnx.graphdef(module) == graph
    assert bits(trained.module) != before
    map_module(trained.module, "reconstruct" if make is regular else "features", X)


def test_the_trained_module_is_in_evaluation(whole):
    make, trained = whole
    encoder = trained.module.encoder if make is regular else trained.module.autoencoder.encoder
    x = jnp.asarray(X)
    np.testing.assert_array_equal(encoder(x), encoder(x))
    if make is regular:
        assert encoder.dropout.deterministic
        assert encoder.norm.use_running_average
        assert int(trained.module.encoder.dropout.rngs.count[...]) == trained.steps


def test_a_second_training_compiles_nothing(whole, compiles):
    make, trained = whole
    module = make()
    with compiles() as seen:
        again = fit(module)
    assert seen.count == 0
    assert_same(again, trained)


@pytest.mark.parametrize("whole", ["centers of its own"], indirect=True)
def test_rows_from_the_host_are_those_on_the_device(whole, monkeypatch):
    make, trained = whole
    assert_same(fit(make(), resident=False), trained)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 3 * BATCH * D * 4)  # three batches at a time, two pieces of rows
    assert len(list(DeviceRows(X, False).tiles())) == 2
    assert_same(fit(make(), resident=False), trained)


def test_a_run_cut_at_any_epoch_goes_on_bit_for_bit(whole, tmp_path):
    make, trained = whole
    for epoch in range(1, EPOCHS + 1):
        # Of a run that is cut after epoch e by a callback, epoch e itself is not saved yet.
        where = Checkpoints(tmp_path / str(epoch), every=1)
        with pytest.raises(Cut):
            fit(make(), checkpoints=where, callbacks=[cut_after(epoch)])
        assert where.any() == (epoch > 1)
        epochs = Epochs()
        assert_same(fit(make(), checkpoints=where, resume=True, callbacks=[epochs]), trained)
        assert epochs.seen == list(range(epoch, EPOCHS + 1))


def test_a_run_cut_twice_goes_on_and_a_finished_one_comes_back(whole, tmp_path):
    make, trained = whole
    where = Checkpoints(tmp_path, every=1)
    for epoch in (2, 3):
        with pytest.raises(Cut):
            fit(make(), checkpoints=where, resume=True, callbacks=[cut_after(epoch)])
    assert_same(fit(make(), checkpoints=where, resume=True), trained)
    assert_same(fit(make(), checkpoints=where, resume=True, callbacks=[cut_after(EPOCHS)]), trained)
    with pytest.raises(ValueError, match="holds checkpoints of an unfinished or finished run. Pass resume=True"):
        fit(make(), checkpoints=where)
    with pytest.raises(ValueError, match="another configuration: batch_size is 8 there and 16 here"):
        fit(make(), checkpoints=where, resume=True, batch_size=16)
    with pytest.raises(ValueError, match="another configuration: key is"):
        fit(make(), checkpoints=where, resume=True, key=1)
    with pytest.raises(ValueError, match="another configuration: rows is"):
        fit(make(), checkpoints=where, resume=True, x=X + 1)
    with pytest.raises(ValueError, match="another configuration: precision is None there and 'fast' here"):
        fit(make(), checkpoints=where, resume=True, precision="fast")
    with pytest.raises(ValueError, match="another model or optimizer"):
        fit(make(), checkpoints=where, resume=True, optimizer=PLAIN)


def test_ctrl_c_is_answered_between_epochs_and_keeps_the_last_one(whole, tmp_path):
    make, trained = whole
    where = Checkpoints(tmp_path, every=EPOCHS + 1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(make(), checkpoints=where, callbacks=[lambda report: os.kill(os.getpid(), signal.SIGINT)])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    epochs = Epochs()
    assert_same(fit(make(), checkpoints=where, resume=True, callbacks=[epochs]), trained)
    assert epochs.seen == list(range(2, EPOCHS + 1))


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    make, trained = whole
    monkeypatch.setattr("jaxcluster.core.checkpoint._write_arrays", full)
    with pytest.warns(UserWarning, match="checkpoint of epoch 1 could not be written .*No space left"):
        assert_same(fit(make(), checkpoints=Checkpoints(tmp_path, every=1)), trained)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_goes_on_where_more_epochs_are_asked_for(whole, tmp_path):
    make, trained = whole
    where = Checkpoints(tmp_path)
    fit(make(), checkpoints=where, epochs=2)
    assert_same(fit(make(), checkpoints=where, epochs=EPOCHS, resume=True), trained)
    fewer = fit(make(), checkpoints=where, epochs=1, resume=True)
    assert_same(fewer, trained)


SCRIPT = """
    import sys
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/deep", sys.argv[1] + "/helpers"]
    import conftest  # checks signatures, as the tests do
    import test_trainer
    from jaxcluster.checkpoint import Checkpoints
    test_trainer.fit(test_trainer.dcn(), epochs=100_000, checkpoints=Checkpoints(sys.argv[2], every=1))
"""


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path):
    """A process that writes checkpoints all the time is killed as it does; what it left is gone on from here."""
    where = Checkpoints(tmp_path / "run", every=1)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(Path(__file__).parents[1]), str(where.folder)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=Path(__file__).parents[2], env=os.environ)
    try:
        while not where.any():
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = int(max(where.folder.glob("checkpoint-*")).name[-10:])
    whole = fit(dcn(), epochs=done + 2)
    epochs = Epochs()
    assert_same(fit(dcn(), epochs=done + 2, checkpoints=where, resume=True, callbacks=[epochs]), whole)
    assert epochs.seen == [done + 1, done + 2]


@pytest.mark.parametrize(("n", "batch", "steps"), [(48, 8, 4), (50, 8, 15), (5, 5, 3)])
def test_batches_cover_every_row_once_a_pass(n, batch, steps):
    """However an epoch is long: the order depends on the key and the pass alone."""
    order, per_pass = jax.random.key(1), n // batch
    epochs = 3 * per_pass // steps + 2
    cut = [shuffled_batches(order, jnp.int32(i * steps), steps=steps, n=n, batch=batch) for i in range(epochs)]
    found = np.concatenate(cut)[: 3 * per_pass].reshape(3, per_pass, batch)
    at_once = shuffled_batches(order, jnp.int32(0), steps=3 * per_pass, n=n, batch=batch)
    np.testing.assert_array_equal(found, at_once.reshape(found.shape))
    for rows in found:
        assert np.unique(rows).size == per_pass * batch  # n mod batch rows are left out
        assert rows.min() >= 0
        assert rows.max() < n
    assert not np.array_equal(found[0], found[1])
    other = shuffled_batches(jax.random.key(2), jnp.int32(0), steps=3 * per_pass, n=n, batch=batch)
    assert not np.array_equal(other, at_once)


def test_all_rows_have_their_turn_where_a_pass_leaves_some_out():
    rows = shuffled_batches(jax.random.key(0), jnp.int32(0), steps=40, n=15, batch=8)
    assert set(np.unique(rows)) == set(range(15))


def test_steps_see_the_rows_of_their_index_and_their_targets():
    class Looks(Line):
        def loss(self, batch, key):
            gap = jnp.abs(batch.x - data[batch.index]).max() + jnp.abs(batch.target - jnp.square(batch.x)).max()
            return jnp.sum(self.point[...] * 0) + gap, {}

    data = jnp.asarray(X)
    for resident in (True, False):
        trained = fit(Looks(of_rows="square"), epochs=1, resident=resident)
        assert trained.history[0]["loss"] < 1e-5


def test_steps_are_those_of_gradient_descent():
    """An epoch shorter than a pass; what is recorded is the mean of its steps."""
    rate, steps = 0.1, 4
    trained = fit(Line(), optimizer=PLAIN, steps_per_epoch=steps, epochs=2)
    order = jax.random.split(jax.random.key(0), 3)[0]
    rows = np.asarray(shuffled_batches(order, jnp.int32(0), steps=2 * steps, n=N, batch=BATCH))
    point, losses = np.zeros(D), []
    for some in rows:
        gap = X[some].astype(np.float64) - point
        losses.append(np.mean(gap**2))
        point = point + rate * 2 * gap.mean(0) / D
    np.testing.assert_allclose(trained.module.point[...], point, rtol=1e-5)
    np.testing.assert_allclose([r["loss"] for r in trained.history], np.reshape(losses, (2, steps)).mean(1), rtol=1e-5)
    firsts = rows.min(1).reshape(2, steps).mean(1)
    np.testing.assert_allclose([r["first"] for r in trained.history], firsts, rtol=1e-6)
    assert trained.steps == 2 * steps
    assert int(trained.module.steps[...]) == 2 * steps


def test_it_stops_when_few_rows_change_and_labels_are_those_of_the_module(tmp_path):
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
    moved = fit(Line(), epochs=2)
    np.testing.assert_array_equal(moved.labels, np.asarray(moved.module.features(X)[:, 0] > 0))


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
            self.said = []

        def on_train_begin(self, history, epochs):
            self.said.append(("begin", len(history), epochs))

        def __call__(self, report):
            assert report.record is report.history[-1]
            assert report.labels.shape == (N,)
            module = report.module()
            self.said.append((len(report.history), float(module.point[0])))
            return len(report.history) == 2

        def on_train_end(self, result):
            self.said.append(("end", result.status))

        def on_exception(self):
            self.said.append("cut")

    first, second = Listens(), Listens()
    trained = fit(Line(), callbacks=(each for each in (first, second)))
    assert trained.status is Status.CONVERGED
    assert first.said == second.said
    assert [words[0] for words in first.said] == ["begin", 1, 2, "end"]
    assert first.said[0] == ("begin", 0, EPOCHS)
    assert first.said[2][1] == float(trained.module.point[0]) != first.said[1][1]
    with pytest.raises(Cut):
        fit(Line(), callbacks=[first, cut_after(1)])
    assert first.said[-1] == "cut"


def test_a_step_that_is_not_finite_is_named_and_undone(tmp_path):
    epochs = Epochs()
    where = Checkpoints(tmp_path, every=1)
    trained = fit(Line(nan_at), optimizer=PLAIN, checkpoints=where, callbacks=[epochs])
    assert trained.status is Status.NOT_FINITE
    assert (trained.failed_step, trained.steps, len(trained.history)) == (9, 8, 2)
    sound = fit(Line(), optimizer=PLAIN, steps_per_epoch=8, epochs=1)
    np.testing.assert_allclose(trained.module.point[...], sound.module.point[...], rtol=1e-6)
    assert int(trained.module.steps[...]) == 8
    of_two = 8 * sound.history[0]["loss"] - 6 * trained.history[0]["loss"]  # of steps 7 and 8 alone
    np.testing.assert_allclose(2 * trained.history[1]["loss"], of_two, rtol=1e-4)
    assert epochs.seen == [1, 2]
    again = fit(Line(nan_at), optimizer=PLAIN, checkpoints=where, resume=True)
    assert_same(again, trained)


def test_a_step_too_far_fails_the_next_and_the_module_is_finite():
    trained = fit(Line(), optimizer=optax.sgd(1e30), epochs=1)  # whose square is more than float32 has
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, 2, 1)
    assert np.isfinite(trained.module.point[...]).all()
    assert np.isfinite(trained.history[0]["loss"])


def test_a_row_that_is_not_finite_fails_its_step_and_no_other():
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


def test_a_look_that_is_not_finite_fails_the_next_step(whole):
    trained = fit(Line(of_rows="NaN"))
    assert (trained.status, trained.failed_step, trained.steps) == (Status.NOT_FINITE, 1, 0)
    np.testing.assert_array_equal(trained.module.point[...], np.zeros(D))
    make, _ = whole
    if make is dcn:
        x = X.copy()
        x[7, 2] = np.inf
        failed = fit(dcn(), x=x)
        assert (failed.status, failed.failed_step) == (Status.NOT_FINITE, 1)
        assert bits(failed.module) == bits(dcn())


def test_fast_is_bfloat16_with_parameters_and_loss_in_float32():
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


class Concluded(Line):
    """Whose clusters in the end are others: on which side of 1 a row is."""

    def __init__(self):
        super().__init__()
        self.mark = nnx.Variable(jnp.float32(0))

    def finalize(self, z, key):
        self.mark[...] = 1.0
        return RefreshResult(jnp.int32(z[:, 0] + self.point[...][0] > 1))


def test_a_module_may_conclude_in_place_of_the_last_look(tmp_path):
    options = {"epochs": 3, "batch_size": 10, "checkpoints": Checkpoints(tmp_path, every=1)}
    looks = []
    follow = lambda report: looks.append((report.labels, report.module().mark[...]))  # noqa: E731
    ended = train(jax.random.key(0), Concluded(), X, callbacks=[follow], **options)
    assert ended.module.mark[...] == 1
    np.testing.assert_array_equal(ended.labels, X[:, 0] > 1)
    assert [float(mark) for _, mark in looks] == [0, 0, 0]
    np.testing.assert_array_equal(looks[0][0], X[:, 0] > 0)
    again = train(jax.random.key(0), Concluded(), X, resume=True, **options)
    np.testing.assert_array_equal(again.labels, ended.labels)
    assert again.module.mark[...] == 1
    # A look that ends a training is followed by the conclusion too.
    settled = train(jax.random.key(0), Concluded(), X, epochs=9, batch_size=10, tol=1.0)
    assert (settled.status, settled.module.mark[...]) == (Status.CONVERGED, 1)
    np.testing.assert_array_equal(settled.labels, X[:, 0] > 1)


class Players(ClusteringModule):
    """Two numbers that take turns: one goes up three times by 1, the other then goes to where it is."""

    update_phases = (UpdatePhase("chased", "flee", ("hare",), steps=3), UpdatePhase("loss", "loss", ("hound",)))

    def __init__(self, spoil=False):
        self.hare, self.hound = nnx.Param(jnp.float32(0)), nnx.Param(jnp.float32(0))
        self.seen, self.spoil = nnx.Variable(jnp.zeros(3)), spoil

    @property
    def trainable(self):
        return {name: nnx.All(nnx.Param, nnx.PathContains(name)) for name in ("hare", "hound")}

    def flee(self, batch, key):
        self.seen[...] = jnp.roll(self.seen[...], 1).at[0].set(batch.index[0])
        return -10 * self.hare[...], {"fled": self.hare[...]}

    def loss(self, batch, key):
        slope = jnp.nan if self.spoil else 1.0
        return slope * 5 * jnp.square(self.hound[...] - jax.lax.stop_gradient(self.hare[...])), {}


def test_parts_take_turns_each_on_batches_of_its_own():
    ended = fit(Players(), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    # The hare goes 0.1·10 a move, three moves a step; the hound 0.1·2·5·distance, all of it.
    assert (float(ended.module.hare[...]), float(ended.module.hound[...])) == (6.0, 6.0)
    assert ended.history[0]["loss"] == pytest.approx((5 * 9 + 5 * 9) / 2)
    assert ended.history[0]["chased"] == pytest.approx(np.mean([0, -10, -20, -30, -40, -50]))
    assert ended.history[0]["fled"] == pytest.approx(2.5)
    order = jax.random.split(jax.random.key(0), 3)[0]
    rows = shuffled_batches(order, jnp.int32(0), steps=6, n=N, batch=BATCH)
    np.testing.assert_array_equal(ended.module.seen[...], rows[5:2:-1, 0])


def test_a_turn_that_fails_is_named_by_its_step():
    ended = fit(Players(spoil=True), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    assert (ended.status, ended.failed_step) == (Status.NOT_FINITE, 1)
    assert float(ended.module.hound[...]) == 0


class OnSphere(ClusteringModule):
    """A point that is brought back to length 1 after every move; rows are drawn by weight, and collapse as told."""

    def __init__(self, collapsed=False):
        self.point, self.collapsed = nnx.Param(jnp.eye(1, D)[0]), collapsed
        self.drawn = nnx.Variable(jnp.zeros(N))

    def constrain(self):
        self.point[...] = self.point[...] / jnp.linalg.norm(self.point[...])

    def features(self, x):
        return x

    def refresh(self, z, key):
        weight = jnp.where(jnp.arange(N) < 4, 1.0, 0.0)
        return RefreshResult(jnp.zeros(N, jnp.int32), weight=weight, collapsed=jnp.asarray(self.collapsed))

    def label_agreement(self, old, new):
        return {"alike": float(np.mean(old == new))}

    def loss(self, batch, key):
        self.drawn[...] = self.drawn[...].at[batch.index].add(1)
        known = jnp.float32(0) if batch.y is None else jnp.mean(batch.y)
        return -jnp.mean(batch.x @ self.point[...]), {"known": known}


def test_what_a_module_asks_for_is_done():
    y = np.where(np.arange(N) < 4, 3.0, 100.0)
    ended = fit(OnSphere(), epochs=2, y=y)
    assert float(jnp.linalg.norm(ended.module.point[...])) == pytest.approx(1, abs=1e-6)
    drawn = np.asarray(ended.module.drawn[...])
    assert drawn[4:].sum() == 0
    assert drawn[:4].min() > 0
    assert ended.history[0]["known"] == 3
    assert [record.get("alike") for record in ended.history] == [None, 1.0]
    assert "changed" not in ended.history[1]


def test_what_cannot_be_told_apart_ends_after_three_looks_or_at_the_end():
    ended = fit(OnSphere(collapsed=True), epochs=9)
    assert (ended.status, len(ended.history)) == (Status.COLLAPSED, 2)
    assert [record["collapsed"] for record in ended.history] == [1.0, 1.0]
    assert fit(OnSphere(collapsed=True), epochs=1).status == Status.COLLAPSED


def test_a_batch_is_shared_by_devices():
    # Adam would make steps out of the rounding of slopes that are 0, those of a bias before batch norm.
    options = {"epochs": 2, "optimizer": PLAIN}
    alone, shared = fit(regular(), **options), fit(regular(), **options, mesh=row_mesh())
    losses = [[record["loss"] for record in ended.history] for ended in (alone, shared)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(
        *(jax.tree.leaves(nnx.state(each.module, nnx.Param)) for each in (alone, shared)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    hosted = fit(regular(), **options, mesh=row_mesh(), resident=False)
    np.testing.assert_allclose([record["loss"] for record in hosted.history], losses[0], rtol=1e-5)


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch_size=7 cannot be shared equally by the 2 devices .* such as 6"):
        fit(regular(), batch_size=7, mesh=row_mesh())
    with pytest.raises(ValueError, match="must have one axis, of type Auto: make it by jaxcluster.sharding.row_mesh"):
        fit(regular(), mesh=jax.make_mesh((2, 1), ("a", "b")))


def test_clusters_whose_names_change_have_no_tol():
    with pytest.raises(ValueError, match="OnSphere has no clusters that keep their names"):
        fit(OnSphere(), tol=0.1)


def test_what_is_known_must_be_of_each_row():
    with pytest.raises(ValueError, match=r"y has shape \(3,\), but x has 48 rows"):
        fit(OnSphere(), y=np.zeros(3))


class Sick(Line):
    """Whose ``mean``, which no loss depends on, is not finite from the fifth step on; or whose features overflow."""

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
    """Gradient descent with a state that is NaN after the third update, for nothing."""

    def update(updates, state, params=None):
        count, waste = state
        moved = jax.tree.map(lambda leaf: -0.1 * leaf, updates)
        return moved, (count + 1, jnp.where(count >= 2, jnp.nan, waste))

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
    "the gradient": (partial(Line, no_slope_at), PLAIN, 9, 8, "the gradient was"),
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
    sound = make()
    if steps:
        plain = spoiled_state() if optimizer is not PLAIN and name.startswith("the state") else PLAIN
        sound = fit(make(), optimizer=plain, steps_per_epoch=steps, epochs=1).module
    for one, other in zip(*(jax.tree.leaves(nnx.state(each)) for each in (trained.module, sound)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_step_whose_second_turn_fails_is_undone_in_whole():
    ended = fit(Players(spoil=True), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    assert (float(ended.module.hare[...]), ended.steps, ended.history) == (0, 0, ())


def test_parameters_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="the parameter point of the module holds NaN or infinity before the first"):
        fit(Line(start=np.nan))


def by_hand(optimizer, steps):
    """A point moved as the documentation of optax has it, by the mean of all rows."""
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
def test_optimizers_with_further_arguments_are_those_of_optax(name):
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nnx.Optimizer(Line(), PLAIN, wrt=nnx.Param), r"is a Optimizer of Flax.*Pass .* its attribute tx"),
        (lambda: "adam", r"optimizer='adam' is a name. Pass the transformation itself, an optax.Grad"),
        (lambda: 1e-3, r"optimizer=0.001 is a number. Pass an optax.GradientTransformation"),
        (lambda: optax.adam, r"a function. Call it: .*optax.adam\(1e-3\)"),
        (lambda: object(), r"of type builtins.object. Pass an optax.GradientTransformation"),
        (needs_more, r"the optimizer cannot be used here: .*temperature.*value, grad and value_fn"),
    ],
)
def test_what_is_no_optimizer_is_answered_with_one(make, message):
    with pytest.raises(TypeError, match=message):
        fit(Line(), optimizer=make())


def test_a_batch_is_no_more_than_the_rows_unless_it_is_asked_for():
    trained = train(jax.random.key(0), Line(), X, epochs=2, optimizer=PLAIN)
    assert trained.steps == 2
    assert_same(trained, fit(Line(), epochs=2, optimizer=PLAIN, batch_size=N))


def test_all_rows_in_one_cluster_are_no_convergence():
    class Lone(Line):
        def refresh(self, z, key):
            return RefreshResult(jnp.zeros(N, jnp.int32), collapsed=jnp.bool_(True))

    trained = fit(Lone(), tol=0.0)
    assert (trained.status, len(trained.history)) == (Status.COLLAPSED, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.longdouble])
def test_rows_of_any_dtype_are_computed_in_float32(dtype):
    rows = np.round(X * 8) / 8  # which half precision holds
    trained = fit(Line(), x=rows.astype(dtype), epochs=1, optimizer=PLAIN)
    assert_same(trained, fit(Line(), x=rows, epochs=1, optimizer=PLAIN))
    with pytest.raises(TypeError, match="x has dtype object, which is not numeric"):
        fit(Line(), x=X.astype(object))


HOOKS = [("refesh", "refresh"), ("finalise", "finalize"), ("trainables", "trainable")]


@pytest.mark.parametrize(("name", "hook"), HOOKS)
def test_a_misspelt_hook_fails_when_its_class_is_defined(name, hook):
    with pytest.raises(TypeError, match=f"Bad.{name} is not a hook of ClusteringModule, and {hook} is one"):
        type("Bad", (ClusteringModule,), {name: None})
    assert type("Good", (ClusteringModule,), {"labels": None, "_refesh": None, hook: None})


def test_only_clustering_modules_are_trained_and_a_loss_is_all_they_need():
    class Bare(ClusteringModule):
        def __init__(self):
            self.point = nnx.Param(jnp.zeros(D))

        def loss(self, batch, key):
            return jnp.mean(jnp.square(batch.x - self.point[...][None])), {}

    assert fit(Bare(), epochs=1, tol=None).labels is None
    with pytest.raises(TypeError, match="module is a MLP. Pass a jaxcluster.deep.ClusteringModule"):
        fit(MLP((D, 2), rngs=nnx.Rngs(0)))
    with pytest.raises(NotImplementedError, match=r"ClusteringModule must implement loss\(batch, key\)"):
        ClusteringModule().loss(Batch(jnp.ones((2, D))), jax.random.key(0))

"""The trainer: an uncut run, and a run that is interrupted and resumed, which is the same bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trainer_problems import (
    BATCH,
    EPOCHS,
    MAKERS,
    PLAIN,
    Cut,
    D,
    Epochs,
    N,
    X,
    assert_same,
    bits,
    cut_after,
    dcn,
    fit,
    regular,
)

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import batches, map_module
from jaxcluster.deep.batches import DeviceRows
from jaxcluster.types import Status


@pytest.fixture(scope="module", params=MAKERS)
def whole(request):
    """The constructor of a module, and its uninterrupted run."""
    make = MAKERS[request.param]
    return make, fit(make())


def test_loss_falls_and_passed_module_is_unchanged(whole):
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
    with compiles() as compilations:
        again = fit(module)
    assert compilations.count == 0
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
        assert epochs.numbers == list(range(epoch, EPOCHS + 1))


def test_run_cut_twice_goes_on(whole, tmp_path):
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


def test_ctrl_c_keeps_the_last_epoch(whole, tmp_path):
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
    assert epochs.numbers == list(range(2, EPOCHS + 1))


def test_full_disk_costs_a_checkpoint_not_the_training(whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    make, trained = whole
    monkeypatch.setattr("jaxcluster.core.checkpoint._write_arrays", full)
    with pytest.warns(UserWarning, match="checkpoint of epoch 1 could not be written: No space left"):
        assert_same(fit(make(), checkpoints=Checkpoints(tmp_path, every=1)), trained)
    assert not list(tmp_path.iterdir())


def test_finished_run_goes_on_for_more_epochs(whole, tmp_path):
    make, trained = whole
    where = Checkpoints(tmp_path)
    fit(make(), checkpoints=where, epochs=2)
    assert_same(fit(make(), checkpoints=where, epochs=EPOCHS, resume=True), trained)
    fewer = fit(make(), checkpoints=where, epochs=1, resume=True)
    assert_same(fewer, trained)


SCRIPT = """
    import sys
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/helpers"]
    import conftest  # checks signatures, as the tests do
    from trainer_problems import dcn, fit
    from jaxcluster.checkpoint import Checkpoints
    fit(dcn(), epochs=100_000, checkpoints=Checkpoints(sys.argv[2], every=1))
"""


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path):
    """Kill a process that writes checkpoints all the time, and resume its training from them."""
    where = Checkpoints(tmp_path / "run", every=1)
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(Path(__file__).parents[1]), str(where.folder)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2], env=os.environ)
    try:
        while not where.any():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = int(max(where.folder.glob("checkpoint-*")).name[-10:])
    whole = fit(dcn(), epochs=done + 2)
    epochs = Epochs()
    assert_same(fit(dcn(), epochs=done + 2, checkpoints=where, resume=True, callbacks=[epochs]), whole)
    assert epochs.numbers == [done + 1, done + 2]

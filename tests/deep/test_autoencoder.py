"""Autoencoders, layer-wise pretraining, the use of trained modules, and callbacks of a training."""

from __future__ import annotations

import io
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_problems import KEY, OPTIONS, ROWS, D, L, N, X

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import (
    Autoencoder,
    Batch,
    JsonLines,
    ProgressBar,
    Snapshots,
    TensorBoard,
    batches,
    callbacks,
    inference,
    map_module,
    nets,
    pretrain_layers,
    train,
)
from jaxcluster.deep.autoencoder import check_likelihood
from jaxcluster.deep.views import Masking
from jaxcluster.types import Status


def autoencoder(likelihood="gaussian", **options):
    rngs = nnx.Rngs(0)
    return Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs), likelihood=likelihood, **options)


def error_of(module):
    return float(module.loss(Batch(ROWS), KEY)[0])


@pytest.fixture(scope="module")
def plain():
    """A trained autoencoder, and the snapshots of its callbacks."""
    snapshots = Snapshots(X)
    trained = train(KEY, autoencoder(), X, callbacks=[snapshots.for_phase("pretrain", "encode")], **OPTIONS)
    return trained, snapshots


# Autoencoders


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_autoencoder_has_the_error_of_its_likelihood(likelihood):
    module = autoencoder(likelihood)
    x = jax.nn.sigmoid(ROWS)
    raw = np.asarray(module.decoder(module.encode(x)), np.float64)
    expected, back = np.square(x - raw), raw
    if likelihood == "bernoulli":
        back = 1 / (1 + np.exp(-raw))
        expected = -(x * np.log(back) + (1 - x) * np.log(1 - back))
    np.testing.assert_allclose(module.loss(Batch(x), KEY)[0], np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(module.reconstruct(x), back, rtol=1e-5)
    assert np.isfinite(module.error(x, jnp.full((N, D), 500.0)))


def test_noise_is_on_inputs_and_views_on_targets_too():
    view, noise = (lambda key, x: 2 * x), (lambda key, x: x + 1)
    module = autoencoder(noise=noise, augment=view)
    x = 2 * X
    back = np.asarray(module.decoder(module.encode(jnp.asarray(x + 1))))
    np.testing.assert_allclose(error_of(module), np.mean((x - back) ** 2), rtol=1e-5)
    np.testing.assert_array_equal(module.reconstruct(ROWS), autoencoder().reconstruct(ROWS))


def test_bernoulli_wants_rows_between_0_and_1():
    check_likelihood("gaussian", X)
    check_likelihood("bernoulli", np.array([[0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"needs values in \[0, 1\], and X has values from -1 to 2. Scale them"):
        check_likelihood("bernoulli", np.array([[-1.0, 2.0]]))
    with pytest.raises(ValueError, match="'gausian' is not known.*Did you mean 'gaussian'"):
        autoencoder("gausian")


def test_training_helps(plain):
    trained, _ = plain
    assert error_of(trained.module) < 0.9 * error_of(autoencoder())


# Layer by layer


def test_layers_learn_one_after_the_other(tmp_path):
    module = autoencoder()
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module))]
    where = Checkpoints(tmp_path)
    options = OPTIONS | {"epochs": 8, "noise": Masking(0.1), "checkpoints": where}
    pretrained, endings = pretrain_layers(KEY, module, X, **options)
    after = jax.tree.leaves(nnx.state(pretrained))
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    for a, b in zip(before, jax.tree.leaves(nnx.state(module)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert error_of(pretrained) < 0.9 * error_of(module)
    assert [ending.status for ending in endings] == [Status.MAX_STEPS] * 2
    assert all(ending.history[-1]["loss"] < ending.history[0]["loss"] for ending in endings)
    # The outermost pair gives back rows, the inner one what the first layer makes of them.
    outer, inner = (ending.module for ending in endings)
    assert (outer.encoder.activation, outer.decoder.activation) == (pretrained.encoder.activation, None)
    assert (inner.encoder.activation, inner.decoder.activation) == (None, pretrained.decoder.activation)
    np.testing.assert_array_equal(outer.encoder.layer.kernel[...], pretrained.encoder.layers[0].kernel[...])
    np.testing.assert_array_equal(inner.decoder.layer.kernel[...], pretrained.decoder.layers[0].kernel[...])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer-0", "layer-1"]
    again, _ = pretrain_layers(KEY, module, X, resume=True, **options)
    for a, b in zip(after, jax.tree.leaves(nnx.state(again)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_need_networks_that_have_them():
    rngs = nnx.Rngs(0)
    conv = Autoencoder(nets.ConvEncoder((2, 2), L, rngs=rngs), nets.MLP((L, D), rngs=rngs))
    with pytest.raises(TypeError, match="needs an encoder and a decoder that are jaxcluster.deep.nets.MLP"):
        pretrain_layers(KEY, conv, X, noise=None, **OPTIONS)
    other = Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 5, D), rngs=rngs))
    with pytest.raises(ValueError, match=r"widths \(2, 5, 4\) of the decoder do not mirror \(4, 6, 2\) of the encoder"):
        pretrain_layers(KEY, other, X, noise=None, **OPTIONS)


# The use of modules


def test_modules_take_rows_in_tiles(monkeypatch):
    module = autoencoder()
    whole = module.encode(ROWS)
    np.testing.assert_allclose(map_module(module, "encode", X), whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(batches, "fits_on_device", lambda size: False)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 24 * D * 4)
    pieces = map_module(module, "encode", X)
    assert isinstance(pieces, np.ndarray)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 1)  # less than a row
    assert len(list(batches.DeviceRows(X).tiles())) == N


def test_weights_go_out_and_in_by_their_names():
    module, other = autoencoder(), autoencoder()
    weights = {name: np.asarray(value) + 1 for name, value in inference.weights_of(module).items()}
    assert "encoder/layers/0/kernel" in weights
    inference.with_weights(other, weights)
    for name, value in inference.weights_of(other).items():
        np.testing.assert_array_equal(value, weights[name])
    with pytest.raises(ValueError, match="another network: more is in one of the two alone"):
        inference.with_weights(other, weights | {"more": np.zeros(1)})
    with pytest.raises(ValueError, match=r"encoder/layers/0/bias has shape \(6,\) here, and \(5,\) in the weights"):
        inference.with_weights(other, weights | {"encoder/layers/0/bias": np.zeros(5)})


# Callbacks


def test_records_are_lines_that_a_resumed_run_rewrites(tmp_path, plain):
    trained, _ = plain
    file = tmp_path / "made" / "history.jsonl"
    where = Checkpoints(tmp_path / "run", every=2)
    lines = JsonLines(file)

    def cut(report):
        if len(report.history) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(KEY, autoencoder(), X, callbacks=[lines, cut], checkpoints=where, **OPTIONS)
    assert len(file.read_text().splitlines()) == 3  # of which the checkpoint knows two
    with file.open("a") as end:
        end.write('{"epo')
    train(KEY, autoencoder(), X, callbacks=[JsonLines(file)], checkpoints=where, resume=True, **OPTIONS)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["loss"] for record in records] == [record["loss"] for record in trained.history]


def test_a_number_that_json_has_no_word_for_is_null(tmp_path):
    lines = JsonLines(tmp_path / "history.jsonl")
    lines.on_train_begin([{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": float("inf")}], 3)
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines.path.read_text().splitlines()]
    assert records == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": None}]


def test_a_bar_runs_without_a_terminal(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    bar = ProgressBar("An [autoencoder]")
    train(KEY, autoencoder(), X, callbacks=[bar], **OPTIONS)
    assert "An [autoencoder]" in output.getvalue()
    assert "3/3" in output.getvalue()
    assert "loss 1." in output.getvalue()
    assert "\x1b" not in output.getvalue()

    def cut(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(KEY, autoencoder(), X, callbacks=[bar, cut], **OPTIONS)
    assert bar._progress.live.is_started is False


def test_a_record_in_a_few_words():
    assert callbacks.format_record({"loss": 0.123456, "changed": 0.0512}) == "loss 0.1235, 5.12% of rows changed"
    assert callbacks.format_record({"loss": 12.0}) == "loss 12"


def test_tensorboard_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"needs tensorboardX: pip install 'jaxcluster\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_tensorboard_gets_all_numbers_by_their_step(monkeypatch, tmp_path):
    calls = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, *words):
            calls.append(words)

        def flush(self):
            pass

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", type("tensorboardX", (), {"SummaryWriter": SummaryWriter}))
    trained = train(KEY, autoencoder(), X, callbacks=[TensorBoard(tmp_path)], **OPTIONS)
    losses = [words for words in calls if words[0] == "loss"]
    assert losses == [("loss", record["loss"], record["step"]) for record in trained.history]
    assert calls[-1] == "closed"


def test_snapshots_are_codes_after_epochs_1_2_and_4(plain):
    _, snapshots = plain
    assert list(snapshots.codes) == ["pretrain-1", "pretrain-2"]
    np.testing.assert_array_equal(snapshots.rows, np.arange(N))
    assert not np.array_equal(snapshots.codes["pretrain-1"], snapshots.codes["pretrain-2"])
    many = Snapshots(np.zeros((5000, 2), np.float32))
    assert (len(many.rows), many.rows[0], many.rows[-1]) == (1000, 0, 4999)


def test_a_full_disk_costs_files_and_not_the_training(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxcluster.deep.callbacks.write_atomic", full)
    snapshots = Snapshots(X, tmp_path / "snapshots")
    watchers = [snapshots.for_phase("pretrain", "encode"), JsonLines(tmp_path / "lines.jsonl")]
    with pytest.warns(UserWarning, match="pretrain-1.npy could not be written .*goes on without it"):
        trained = train(KEY, autoencoder(), X, callbacks=watchers, **OPTIONS)
    assert len(trained.history) == OPTIONS["epochs"]
    assert "pretrain-1" in snapshots.codes

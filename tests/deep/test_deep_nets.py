"""What deep methods are made of: networks, autoencoders, layer-wise pretraining, and what looks on."""

from __future__ import annotations

import io
import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import (
    Autoencoder,
    Batch,
    JsonLines,
    ProgressBar,
    Snapshots,
    TensorBoard,
    adam,
    batches,
    callbacks,
    inference,
    map_module,
    nets,
    pretrain_layers,
    train,
)
from jaxcluster.deep.autoencoder import check_likelihood
from jaxcluster.deep.nets import layers as normed_layers
from jaxcluster.deep.nets.layers import UpsampleConv2x
from jaxcluster.deep.views import Masking
from jaxcluster.sharding import row_mesh
from jaxcluster.types import Status

N, D, L = 48, 4, 2
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(N, L)) @ RNG.normal(size=(L, D)) + 0.1 * RNG.normal(size=(N, D))).astype(np.float32)
ROWS = jnp.asarray(X)
KEY = jax.random.key(2)
OPTIONS = {"epochs": 3, "batch_size": 16, "optimizer": adam(1e-2)}


def autoencoder(likelihood="gaussian", **options):
    rngs = nnx.Rngs(0)
    return Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs), likelihood=likelihood, **options)


def error_of(module):
    return float(module.loss(Batch(ROWS), KEY)[0])


@pytest.fixture(scope="module")
def plain():
    """A trained autoencoder, and what its callbacks kept."""
    snapshots = Snapshots(X)
    trained = train(KEY, autoencoder(), X, callbacks=[snapshots.for_phase("pretrain", "encode")], **OPTIONS)
    return trained, snapshots


# Networks


def test_mlp_is_its_layers():
    net = nets.MLP((D, 6, 5, L), activation=jnp.tanh, rngs=nnx.Rngs(0))
    assert net.widths == (D, 6, 5, L)
    expected = X.astype(np.float64)
    for i, layer in enumerate(net.layers):
        expected = expected @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])
        expected = expected if i == 2 else np.tanh(expected)
    np.testing.assert_allclose(net(ROWS), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"widths=\[4\] must hold at least the width of the input and that of the out"):
        nets.MLP((4,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="a width=0 must be at least 1"):
        nets.MLP((4, 0, 2), rngs=nnx.Rngs(0))


def test_a_variational_encoder_gives_mean_and_log_variance():
    rngs = nnx.Rngs(0)
    net = nets.VariationalEncoder(nets.MLP((D, 6), rngs=rngs), nets.GaussianHead(6, L, rngs=rngs))
    mean, log_variance = net(ROWS)
    features = np.maximum(np.asarray(net.trunk(ROWS)), 0)
    for found, layer in ((mean, net.head.mean), (log_variance, net.head.log_variance)):
        expected = features @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(Autoencoder(net, nets.MLP((L, D), rngs=rngs)).encode(ROWS), mean)


@pytest.mark.parametrize(
    ("shape", "sizes"), [((5, 7), [(3, 4), (2, 2)]), ((6, 3, 2), [(3, 2), (2, 1)]), ((1, 1), [(1, 1), (1, 1)])]
)
def test_convolutions_halve_and_their_mirror_doubles(shape, sizes):
    rngs, d = nnx.Rngs(0), int(np.prod(shape))
    encoder = nets.ConvEncoder(shape, L, channels=(3, 4), rngs=rngs)
    decoder = nets.ConvDecoder(L, shape, channels=(3, 4), rngs=rngs)
    assert [nets.downsampled_size(shape[:2], times) for times in (1, 2)] == sizes
    assert decoder.initial_shape == (*sizes[-1], 4)
    assert decoder.sizes == (sizes[0], shape[:2])
    flat = jax.random.normal(KEY, (3, d))

    def through(x):
        z = encoder(x)
        return z, decoder(z)

    z, back = jax.jit(through)(flat)
    assert (z.shape, back.shape) == ((3, L), (3, d))
    assert z.dtype == back.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(encoder)(flat.reshape(3, *shape)), z, rtol=1e-5, atol=1e-6)
    # The mirror: a decoder's layer undoes what the encoder's layer at its place does to channels.
    pairs = [
        (a.in_features, a.out_features) == b.kernel.shape[:1:-1]
        for a, b in zip(encoder.convolutions, reversed(decoder.convolutions), strict=True)
    ]
    assert all(pairs)
    assert np.prod(decoder.initial_shape) == encoder.linear.in_features == decoder.linear.out_features
    with pytest.raises(ValueError, match=r"image_shape=\(4,\) must be \(height, width\) or"):
        nets.ConvEncoder((4,), L, rngs=rngs)


FLAT = jax.random.normal(jax.random.key(5), (8, 24))  # eight images of 6 × 4
NORMED = {
    "ConvNet": lambda rngs: nets.ConvNet((6, 4), L, channels=(3, 4), rngs=rngs),
    "ResNet": lambda rngs: nets.ResNet((6, 4), L, channels=(3, 4), blocks=(2, 1), rngs=rngs),
    "Projector": lambda rngs: nets.Projector((24, 6, 5, L), rngs=rngs),
}


def normed(name):
    return NORMED[name](nnx.Rngs(0))


@partial(jax.jit, static_argnames="graphdef")
def called(graphdef, state, x):
    """What a network gives, and its statistics afterwards."""
    net = nnx.merge(graphdef, state, copy=True)
    return net(x), nnx.state(net, nnx.BatchStat)


@pytest.fixture(scope="module", params=NORMED)
def trained_once(request):
    """A network with batch normalization, what it gave in training, and its statistics after that."""
    net = normed(request.param)
    return net, *called(*nnx.split(net), FLAT)


def test_batch_normalization_is_its_formula():
    net = nets.Projector((24, 6, L), rngs=nnx.Rngs(0))
    features = 3 * FLAT + 50  # far from 0: the mean of squares less the square of the mean would be off
    net.norms[0].scale[...], net.norms[0].bias[...] = jnp.linspace(0.5, 2, 6), jnp.linspace(-1, 1, 6)
    inner = np.asarray(features, np.float64) @ np.asarray(net.layers[0].kernel[...], np.float64)

    def expected(mean, variance):
        active = (inner - mean) / np.sqrt(variance + 1e-5) * np.linspace(0.5, 2, 6) + np.linspace(-1, 1, 6)
        return np.maximum(active, 0) @ np.asarray(net.last.kernel[...], np.float64) + np.asarray(net.last.bias[...])

    np.testing.assert_allclose(net(features), expected(inner.mean(0), inner.var(0)), rtol=1e-3, atol=1e-3)
    mean, variance = 0.1 * inner.mean(0), 0.9 + 0.1 * inner.var(0)  # from 0 and 1, a tenth of the way
    np.testing.assert_allclose(net.norms[0].mean[...], mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(net.norms[0].var[...], variance, rtol=1e-4)
    net.eval()
    np.testing.assert_allclose(net(features), expected(mean, variance), rtol=1e-3, atol=1e-3)


def test_evaluation_is_by_running_statistics_and_changes_nothing(trained_once):
    net, given, statistics = trained_once
    assert (given.shape, given.dtype) == ((8, L), jnp.float32)
    before = jax.tree.leaves(nnx.state(net, nnx.BatchStat))
    assert len(before) == len(jax.tree.leaves(statistics)) >= 4
    for a, b in zip(before, jax.tree.leaves(statistics), strict=True):
        assert b.dtype == jnp.float32
        assert not np.allclose(a, b)
    seen = nnx.clone(net)
    nnx.update(seen, statistics)
    seen.eval()
    graphdef, state = nnx.split(seen)
    whole, after = called(graphdef, state, FLAT)
    assert not np.allclose(whole, given, atol=1e-3)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    # In evaluation a row's code does not depend on the rows beside it.
    np.testing.assert_allclose(called(graphdef, state, FLAT[::-1])[0][::-1], whole, rtol=1e-5, atol=1e-6)
    changed, _ = called(graphdef, state, FLAT.at[1:].add(1))
    np.testing.assert_allclose(changed[0], whole[0], rtol=1e-5, atol=1e-6)


def test_rows_on_two_devices_are_one_batch(trained_once):
    net, given, statistics = trained_once
    mesh = row_mesh(jax.devices()[:2])
    rows, everywhere = NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())
    graphdef, state = nnx.split(net)
    spread, found = called(graphdef, jax.device_put(state, everywhere), jax.device_put(FLAT, rows))
    assert len(spread.sharding.device_set) == 2
    np.testing.assert_allclose(spread, given, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_layers_in_bfloat16_give_float32_and_keep_their_statistics(trained_once):
    net, given, statistics = trained_once
    fast = nnx.clone(net)
    fast.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
    rough, found = called(*nnx.split(fast), FLAT)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, given, atol=0.15)
    assert not np.array_equal(rough, given)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(found), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.02)


def test_a_running_mean_is_not_rounded_to_the_layers_dtype():
    norm = normed_layers.batch_norm(1, rngs=nnx.Rngs(0))
    norm.eval()
    norm.set_attributes(dtype=jnp.bfloat16)
    norm.mean[...] = jnp.array([127.7])  # 127.5 in bfloat16
    given = norm(jnp.full((1, 1), 128, jnp.bfloat16))
    assert given.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(given[0, 0]), 0.3, rtol=5e-3)


@pytest.mark.parametrize("name", ["ConvNet", "ResNet"])
def test_networks_with_a_pooled_code_take_images_of_any_size(name):
    net = normed(name)
    net.eval()
    graphdef, state = nnx.split(net)
    whole, _ = called(graphdef, state, FLAT)
    np.testing.assert_allclose(called(graphdef, state, FLAT.reshape(8, 6, 4))[0], whole, rtol=1e-5, atol=1e-6)
    one = jnp.ones((8, 1, 1, 1))
    assert called(graphdef, state, one)[0].shape == (8, L)
    with pytest.raises(ValueError, match=r"rows have 23 columns, .* image_shape=\(6, 4, 1\) .* wants 24 columns"):
        net(FLAT[:, :23])
    with pytest.raises(ValueError, match=r"rows have the shape \(8, 6, 4, 3\), .* shape \(n, height, width, 1\)"):
        net(jnp.ones((8, 6, 4, 3)))


def test_residual_blocks_add_to_what_they_are_given():
    net = nets.ResNet((6, 4, 3), L, channels=(3, 4), blocks=(2, 1), rngs=nnx.Rngs(0))
    same, _, halving = net.blocks
    assert (same.shortcut, halving.shortcut.kernel_size, halving.shortcut.strides) == (None, (1, 1), 2)
    x = jax.random.normal(KEY, (2, 5, 3, 3))
    for block in (same, halving):
        block.convolutions[1].kernel[...] = jnp.zeros_like(block.convolutions[1].kernel[...])
    np.testing.assert_array_equal(same(x), x)
    assert halving(x).shape == (2, 3, 2, 4)
    deep = nets.ResNet((6, 4), L, rngs=nnx.Rngs(0))
    spread = np.std(np.asarray(deep.blocks[0].convolutions[0].kernel[...]))
    np.testing.assert_allclose(spread, np.sqrt(2 / (9 * 32)), rtol=0.05)  # He's


def test_what_networks_with_batch_normalization_refuse():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"channels=\(\) must hold at least one"):
        nets.ConvNet((4, 4), L, channels=(), rngs=rngs)
    with pytest.raises(ValueError, match="a number of channels=0 must be at least 1"):
        nets.ResNet((4, 4), L, channels=(0,), blocks=(1,), rngs=rngs)
    with pytest.raises(ValueError, match=r"blocks=\(1,\) must hold one number for each stage"):
        nets.ResNet((4, 4), L, channels=(2, 2), blocks=(1,), rngs=rngs)
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        nets.ConvNet((4, 4), 0, channels=(2,), rngs=rngs)
    with pytest.raises(ValueError, match=r"widths=\[4\] must hold at least the width of the input"):
        nets.Projector((4,), rngs=rngs)


def test_training_moves_statistics_and_leaves_evaluation_to_them():
    rngs = nnx.Rngs(0)
    module = Autoencoder(nets.Projector((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs))
    found = train(KEY, module, X, **OPTIONS).module
    np.testing.assert_array_equal(module.encoder.norms[0].mean[...], np.zeros(6))
    assert np.abs(np.asarray(found.encoder.norms[0].mean[...])).max() > 1e-2
    codes = map_module(found, "encode", X)
    np.testing.assert_allclose(map_module(found, "encode", X[:5]), codes[:5], rtol=1e-5, atol=1e-6)
    names = inference.weights_of(found).keys()
    assert {"encoder/norms/0/mean", "encoder/norms/0/var"} <= names


# Autoencoders


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_an_autoencoder_has_the_error_of_its_likelihood(likelihood):
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


def test_noise_spoils_what_is_encoded_and_a_view_what_is_to_come_back_too():
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
    made, endings = pretrain_layers(KEY, module, X, noise=Masking(0.1), checkpoints=where, **(OPTIONS | {"epochs": 8}))
    after = jax.tree.leaves(nnx.state(made))
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    for a, b in zip(before, jax.tree.leaves(nnx.state(module)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert error_of(made) < 0.9 * error_of(module)
    assert [ending.status for ending in endings] == [Status.MAX_STEPS] * 2
    assert all(ending.history[-1]["loss"] < ending.history[0]["loss"] for ending in endings)
    # The outermost pair gives back rows, the inner one what the first layer makes of them.
    outer, inner = (ending.module for ending in endings)
    assert (outer.encoder.activation, outer.decoder.activation) == (made.encoder.activation, None)
    assert (inner.encoder.activation, inner.decoder.activation) == (None, made.decoder.activation)
    np.testing.assert_array_equal(outer.encoder.layer.kernel[...], made.encoder.layers[0].kernel[...])
    np.testing.assert_array_equal(inner.decoder.layer.kernel[...], made.decoder.layers[0].kernel[...])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer-0", "layer-1"]
    again, _ = pretrain_layers(
        KEY, module, X, noise=Masking(0.1), checkpoints=where, resume=True, **(OPTIONS | {"epochs": 8})
    )
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


def test_modules_take_rows_in_tiles_and_in_pieces_from_the_host(monkeypatch):
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


# What looks on


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
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["epoch"] for record in found] == [1, 2, 3]
    assert [record["loss"] for record in found] == [record["loss"] for record in trained.history]


def test_a_number_that_json_has_no_word_for_is_null(tmp_path):
    lines = JsonLines(tmp_path / "history.jsonl")
    lines.on_train_begin([{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": float("inf")}], 3)
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines.path.read_text().splitlines()]
    assert found == [{"epoch": 1, "loss": None}, {"epoch": 2, "loss": None}]


def test_a_bar_runs_without_a_terminal(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    bar = ProgressBar("An [autoencoder]")
    train(KEY, autoencoder(), X, callbacks=[bar], **OPTIONS)
    assert "An [autoencoder]" in said.getvalue()
    assert "3/3" in said.getvalue()
    assert "loss 1." in said.getvalue()
    assert "\x1b" not in said.getvalue()

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
    seen = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, *words):
            seen.append(words)

        def flush(self):
            pass

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", type("tensorboardX", (), {"SummaryWriter": SummaryWriter}))
    trained = train(KEY, autoencoder(), X, callbacks=[TensorBoard(tmp_path)], **OPTIONS)
    losses = [words for words in seen if words[0] == "loss"]
    assert losses == [("loss", record["loss"], record["step"]) for record in trained.history]
    assert seen[-1] == "closed"


def test_snapshots_are_codes_after_epochs_1_2_and_4(plain):
    _, snapshots = plain
    assert list(snapshots.codes) == ["pretrain-1", "pretrain-2"]
    np.testing.assert_array_equal(snapshots.rows, np.arange(N))
    assert not np.array_equal(snapshots.codes["pretrain-1"], snapshots.codes["pretrain-2"])
    many = Snapshots(np.zeros((5000, 2), np.float32))
    assert (len(many.rows), many.rows[0], many.rows[-1]) == (1000, 0, 4999)


def test_a_transposed_convolution_is_one():
    """It has the inner products of the convolution whose kernel is its own, channels exchanged."""
    rng = np.random.default_rng(0)
    double = UpsampleConv2x(3, 2, rngs=nnx.Rngs(1))
    half = jnp.asarray(rng.normal(size=(2, 4, 3, 3)), jnp.float32)
    whole = jnp.asarray(rng.normal(size=(2, 8, 6, 2)), jnp.float32)
    kernel, numbers = double.kernel[...].swapaxes(2, 3), ("NHWC", "HWIO", "NHWC")
    back = jax.lax.conv_general_dilated(whole, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=numbers)
    np.testing.assert_allclose(jnp.vdot(double(half), whole), jnp.vdot(half, back), rtol=1e-4)


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

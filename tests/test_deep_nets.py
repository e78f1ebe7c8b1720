"""What deep methods are made of: networks, views, autoencoders, layer-wise pretraining, and what looks on."""

from __future__ import annotations

import io
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcluster.core.checkpoint import Checkpoints
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
    map_module,
    nets,
    pretrain_layers,
    train,
    use,
)
from jaxcluster.deep.autoencoder import check_likelihood
from jaxcluster.deep.views import GaussianNoise, Masking, ShiftRotate
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
    trained = train(KEY, autoencoder(), X, callbacks=[snapshots.of("pretrain", "encode")], **OPTIONS)
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
    assert [nets.halved(shape[:2], times) for times in (1, 2)] == sizes
    assert decoder.start == (*sizes[-1], 4)
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
        (a.in_features, a.out_features) == (b.out_features, b.in_features)
        for a, b in zip(encoder.convolutions, reversed(decoder.convolutions), strict=True)
    ]
    assert all(pairs)
    assert np.prod(decoder.start) == encoder.linear.in_features == decoder.linear.out_features
    with pytest.raises(ValueError, match=r"image_shape=\(4,\) must be \(height, width\) or"):
        nets.ConvEncoder((4,), L, rngs=rngs)


# Views


def test_masking_keeps_the_mean_at_its_rate():
    x = jnp.full((400, 100), 3.0)
    for rate in (0.2, 0.5):
        spoiled = np.asarray(Masking(rate)(KEY, x))
        np.testing.assert_allclose(np.mean(spoiled == 0), rate, atol=5 * np.sqrt(rate * (1 - rate) / x.size))
        np.testing.assert_allclose(spoiled[spoiled != 0], 3 / (1 - rate), rtol=1e-6)
        np.testing.assert_allclose(spoiled.mean(), 3, rtol=0.03)
    np.testing.assert_array_equal(Masking(0.0)(KEY, x), x)
    for rate in (1, -0.1):
        with pytest.raises(ValueError, match=f"rate={rate} must be in \\[0, 1\\)"):
            Masking(rate)


def test_noise_has_its_deviation():
    noise = np.asarray(GaussianNoise(0.5)(KEY, jnp.ones((300, 100)))) - 1
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 0.5], atol=0.02)
    with pytest.raises(ValueError, match="deviation=-1 must be at least 0"):
        GaussianNoise(-1)


SHAPE = (5, 7, 2)
IMAGES = jax.random.normal(jax.random.key(3), (6, 70))


def drawn(view, n, *, key=KEY):
    """The moves (pixels) and turns (radians) that a view draws for n images of `SHAPE`."""
    move_key, turn_key = jax.random.split(key)
    moves = jax.random.uniform(move_key, (n, 2), minval=-view.shift, maxval=view.shift) * jnp.array(
        view.image_shape[:2]
    )
    return moves, jax.random.uniform(turn_key, (n,), minval=-1, maxval=1) * np.deg2rad(view.rotation)


def test_neither_shift_nor_rotation_is_the_identity():
    np.testing.assert_array_equal(ShiftRotate(SHAPE, shift=0, rotation=0)(KEY, IMAGES), IMAGES)
    whole = IMAGES.reshape(6, *SHAPE)
    np.testing.assert_array_equal(ShiftRotate(SHAPE, shift=0, rotation=0)(KEY, whole), whole)


def test_a_shift_by_whole_pixels_moves_them():
    """The amount is drawn: the most it may be is chosen so that for one image it is two pixels up or down."""
    share = float(drawn(ShiftRotate(SHAPE, shift=0.5, rotation=0), 6)[0][1, 0]) / (0.5 * SHAPE[0])
    view = ShiftRotate(SHAPE, shift=abs(2 / (share * SHAPE[0])), rotation=0)
    assert view.shift <= 1
    by = round(float(drawn(view, 6)[0][1, 0]))
    assert abs(by) == 2
    columns = jnp.ones((6, *SHAPE)) * jax.random.normal(KEY, (6, SHAPE[0], 1, 1))  # the same all along a row
    moved = view(KEY, columns.reshape(6, -1)).reshape(6, *SHAPE)
    expected = np.asarray(columns)[1][np.clip(np.arange(SHAPE[0]) + by, 0, SHAPE[0] - 1)]
    np.testing.assert_allclose(moved[1], expected, atol=1e-4)
    assert np.abs(np.asarray(moved - columns)[0]).max() > 1e-2


def test_a_quarter_turn_turns():
    square = (5, 5, 1)
    share = float(drawn(ShiftRotate(square, shift=0, rotation=90), 6)[1][0]) / (np.pi / 2)
    view = ShiftRotate(square, shift=0, rotation=abs(90 / share))
    sign = np.sign(float(drawn(view, 6)[1][0]))
    x = jax.random.normal(KEY, (6, 25))
    turned = np.asarray(view(KEY, x)).reshape(6, 5, 5)[0]
    np.testing.assert_allclose(turned, np.rot90(np.asarray(x[0]).reshape(5, 5), k=-int(sign)), atol=1e-4)


@pytest.mark.parametrize("view", [Masking(0.3), GaussianNoise(0.3), ShiftRotate(SHAPE, shift=0.2, rotation=20)])
def test_views_are_safe_under_jit_and_vmap_and_equal_ones_are_one_program(view, compiles):
    keys = jax.random.split(KEY, 2)
    both = jnp.stack([IMAGES, IMAGES + 1])
    spread = jax.jit(jax.vmap(view))(keys, both)
    for key, x, found in zip(keys, both, spread, strict=True):
        np.testing.assert_allclose(view(key, x), found, atol=1e-5)
        assert not np.allclose(found, x)
    assert not np.array_equal(*(view(key, IMAGES) for key in keys))
    shown = jax.jit(lambda view, x: view(KEY, x), static_argnums=0)
    shown(view, IMAGES)
    with compiles() as seen:
        shown(type(view)(**{name: getattr(view, name) for name in view.__dataclass_fields__}), IMAGES)
    assert seen.count == 0


def test_what_a_view_of_images_refuses():
    with pytest.raises(ValueError, match="shift=1.5 must be in \\[0, 1\\]"):
        ShiftRotate(SHAPE, shift=1.5)
    with pytest.raises(ValueError, match="rotation=-1 must be at least 0"):
        ShiftRotate(SHAPE, rotation=-1)
    with pytest.raises(ValueError, match="a side of image_shape=0 must be at least 1"):
        ShiftRotate((0, 3))
    assert ShiftRotate((5, 7)).image_shape == (5, 7, 1)


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
    monkeypatch.setattr(batches, "fits", lambda wanted: False)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 24 * D * 4)
    pieces = map_module(module, "encode", X)
    assert isinstance(pieces, np.ndarray)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(batches, "CHUNK_BYTES", 1)  # less than a row
    assert len(list(batches.Rows(X).tiles())) == N


def test_weights_go_out_and_in_by_their_names():
    module, other = autoencoder(), autoencoder()
    weights = {name: np.asarray(value) + 1 for name, value in use.weights_of(module).items()}
    assert "encoder/layers/0/kernel" in weights
    use.with_weights(other, weights)
    for name, value in use.weights_of(other).items():
        np.testing.assert_array_equal(value, weights[name])
    with pytest.raises(ValueError, match="another network: more is in one of the two alone"):
        use.with_weights(other, weights | {"more": np.zeros(1)})
    with pytest.raises(ValueError, match=r"encoder/layers/0/bias has shape \(6,\) here, and \(5,\) in the weights"):
        use.with_weights(other, weights | {"encoder/layers/0/bias": np.zeros(5)})


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
    lines.begin([{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": float("inf")}], 3)
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
    assert callbacks.said({"loss": 0.123456, "changed": 0.0512}) == "loss 0.1235, 5.12% of rows changed"
    assert callbacks.said({"loss": 12.0}) == "loss 12"


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
    assert list(snapshots.taken) == ["pretrain-1", "pretrain-2"]
    np.testing.assert_array_equal(snapshots.rows, np.arange(N))
    assert not np.array_equal(snapshots.taken["pretrain-1"], snapshots.taken["pretrain-2"])
    many = Snapshots(np.zeros((5000, 2), np.float32))
    assert (len(many.rows), many.rows[0], many.rows[-1]) == (1000, 0, 4999)

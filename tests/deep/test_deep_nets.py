"""Networks: dense, convolutional and residual ones, and batch normalization in training and in evaluation."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from network_problems import KEY, OPTIONS, ROWS, D, L, X

from jaxcluster.deep import Autoencoder, inference, map_module, nets, train
from jaxcluster.deep.nets import layers as normed_layers
from jaxcluster.deep.nets.layers import UpsampleConv2x
from jaxcluster.sharding import row_mesh


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


def test_variational_encoder_has_mean_and_log_variance():
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
def apply(graphdef, state, x):
    """The outputs of a network, and its statistics afterwards."""
    net = nnx.merge(graphdef, state, copy=True)
    return net(x), nnx.state(net, nnx.BatchStat)


@pytest.fixture(scope="module", params=NORMED)
def trained_once(request):
    """A network with batch normalization, its outputs in training mode, and its statistics after that."""
    net = normed(request.param)
    return net, *apply(*nnx.split(net), FLAT)


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


def test_evaluation_is_by_running_statistics(trained_once):
    net, outputs, statistics = trained_once
    assert (outputs.shape, outputs.dtype) == ((8, L), jnp.float32)
    before = jax.tree.leaves(nnx.state(net, nnx.BatchStat))
    assert len(before) == len(jax.tree.leaves(statistics)) >= 4
    for a, b in zip(before, jax.tree.leaves(statistics), strict=True):
        assert b.dtype == jnp.float32
        assert not np.allclose(a, b)
    evaluated = nnx.clone(net)
    nnx.update(evaluated, statistics)
    evaluated.eval()
    graphdef, state = nnx.split(evaluated)
    expected, after = apply(graphdef, state, FLAT)
    assert not np.allclose(expected, outputs, atol=1e-3)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    # In evaluation a row's code does not depend on the rows beside it.
    np.testing.assert_allclose(apply(graphdef, state, FLAT[::-1])[0][::-1], expected, rtol=1e-5, atol=1e-6)
    perturbed, _ = apply(graphdef, state, FLAT.at[1:].add(1))
    np.testing.assert_allclose(perturbed[0], expected[0], rtol=1e-5, atol=1e-6)


def test_rows_on_two_devices_are_one_batch(trained_once):
    net, outputs, statistics = trained_once
    mesh = row_mesh(jax.devices()[:2])
    rows, everywhere = NamedSharding(mesh, PartitionSpec("rows")), NamedSharding(mesh, PartitionSpec())
    graphdef, state = nnx.split(net)
    spread, found = apply(graphdef, jax.device_put(state, everywhere), jax.device_put(FLAT, rows))
    assert len(spread.sharding.device_set) == 2
    np.testing.assert_allclose(spread, outputs, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_layers_in_bfloat16_give_float32(trained_once):
    net, outputs, statistics = trained_once
    fast = nnx.clone(net)
    fast.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
    rough, found = apply(*nnx.split(fast), FLAT)
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, outputs, atol=0.15)
    assert not np.array_equal(rough, outputs)
    for a, b in zip(jax.tree.leaves(statistics), jax.tree.leaves(found), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(b, a, atol=0.02)


def test_running_mean_keeps_its_own_dtype():
    norm = normed_layers.batch_norm(1, rngs=nnx.Rngs(0))
    norm.eval()
    norm.set_attributes(dtype=jnp.bfloat16)
    norm.mean[...] = jnp.array([127.7])  # 127.5 in bfloat16
    outputs = norm(jnp.full((1, 1), 128, jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(outputs[0, 0]), 0.3, rtol=5e-3)


@pytest.mark.parametrize("name", ["ConvNet", "ResNet"])
def test_pooled_networks_take_images_of_any_size(name):
    net = normed(name)
    net.eval()
    graphdef, state = nnx.split(net)
    expected, _ = apply(graphdef, state, FLAT)
    np.testing.assert_allclose(apply(graphdef, state, FLAT.reshape(8, 6, 4))[0], expected, rtol=1e-5, atol=1e-6)
    one = jnp.ones((8, 1, 1, 1))
    assert apply(graphdef, state, one)[0].shape == (8, L)
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


def test_training_moves_the_statistics_of_evaluation():
    rngs = nnx.Rngs(0)
    module = Autoencoder(nets.Projector((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs))
    found = train(KEY, module, X, **OPTIONS).module
    np.testing.assert_array_equal(module.encoder.norms[0].mean[...], np.zeros(6))
    assert np.abs(np.asarray(found.encoder.norms[0].mean[...])).max() > 1e-2
    codes = map_module(found, "encode", X)
    np.testing.assert_allclose(map_module(found, "encode", X[:5]), codes[:5], rtol=1e-5, atol=1e-6)
    names = inference.weights_of(found).keys()
    assert {"encoder/norms/0/mean", "encoder/norms/0/var"} <= names


def test_a_transposed_convolution_is_one():
    """Its inner products are those of the convolution with its kernel, channels exchanged."""
    rng = np.random.default_rng(0)
    double = UpsampleConv2x(3, 2, rngs=nnx.Rngs(1))
    half = jnp.asarray(rng.normal(size=(2, 4, 3, 3)), jnp.float32)
    whole = jnp.asarray(rng.normal(size=(2, 8, 6, 2)), jnp.float32)
    kernel, numbers = double.kernel[...].swapaxes(2, 3), ("NHWC", "HWIO", "NHWC")
    back = jax.lax.conv_general_dilated(whole, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=numbers)
    np.testing.assert_allclose(jnp.vdot(double(half), whole), jnp.vdot(half, back), rtol=1e-4)

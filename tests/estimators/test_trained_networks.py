"""Uses of a trained network: explanations, calibrated probabilities, interpolation, export."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from algorithms import make
from jax_switches import IN_64_BITS, STRICT, switched
from saved_models import saved_and_loaded

from jaxcluster import deep

EXPORTED = ("vade", "clustergan", "swav", "turtle")
"""A method of each kind of network and assignment, beside DEC; the others share theirs."""

CENTERS = np.random.default_rng(0).normal(size=(3, 4)) * 4


@pytest.fixture(scope="module")
def fitted(blobs):
    return cache(lambda name, **options: make(name, epochs=1, **options).fit(blobs.x))


def softmax_of_first(x, temperature):
    squares = jnp.sum(jnp.square(x[:, None] - jnp.asarray(CENTERS, x.dtype)[None]), axis=2)
    return jax.nn.softmax(-squares / temperature, axis=1)[:, 0]


@pytest.mark.parametrize("temperature", [20.0, 0.05])
def test_attributions_are_the_integral(temperature):
    """The sum over 20,000 even points in float64, also where the function is nearly a step."""
    x = np.random.default_rng(1).normal(size=(6, 4)) * 4
    function = partial(softmax_of_first, temperature=temperature)
    with switched(STRICT):
        found = jax.jit(lambda x: deep.integrated_gradients(function, x, np.zeros(4, np.float32)))(np.float32(x))
    with switched(IN_64_BITS):
        gradient = jax.grad(lambda rows: jnp.sum(function(rows)))
        places = (np.arange(20_000) + 0.5) / 20_000
        total = jax.jit(lambda: jax.lax.scan(lambda s, t: (s + gradient(t * x), None), 0 * x, places)[0])()
        change = function(x) - function(np.zeros((1, 4)))
    expected = x * np.asarray(total) / 20_000
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(found.sum(axis=1), change, atol=1e-5)


def test_what_attributions_refuse():
    with pytest.raises(ValueError, match=r"baseline must have shape \(2,\) or \(3, 2\)"):
        deep.integrated_gradients(lambda x: x[:, 0], np.ones((3, 2)), np.ones(3))
    with pytest.raises(ValueError, match=r"function must return \(3,\), one number a sample, got \(3, 2\)"):
        deep.integrated_gradients(lambda x: x, np.ones((3, 2)), np.zeros(2))
    constant = deep.integrated_gradients(lambda x: 0 * x[:, 0], np.ones((3, 2)), np.zeros(2))
    np.testing.assert_array_equal(constant, 0)


@pytest.mark.parametrize("options", [{}, {"select": "stable"}], ids=["network", "start"])
def test_explanations_sum_to_the_probability(fitted, blobs, options):
    model, x = fitted("dec", **options), blobs.x[:40]
    assert model.chosen_ == ("start" if options else "trained")
    baseline = blobs.x.mean(axis=0) + 1
    for cluster in (None, 2):
        found = model.explain(x, cluster, baseline=baseline)
        clusters = model.predict(x) if cluster is None else np.full(40, cluster)
        gap = model.predict_proba(x)[np.arange(40), clusters] - model.predict_proba(baseline[None])[0, clusters]
        np.testing.assert_allclose(found.sum(axis=1), gap, atol=1e-5)
    with pytest.raises(ValueError, match="cluster=4 must be from 0 to 3"):
        model.explain(x, 4)
    with pytest.raises(ValueError, match=r"baseline must have shape \(5,\), one number a feature, got \(2,\)"):
        model.explain(x, baseline=np.zeros(2))


def test_a_column_that_says_nothing_has_no_part(blobs):
    noisy = np.column_stack([blobs.x, np.full(len(blobs.x), 7.0)])
    model = make("autoencoder-kmeans", pretrain_epochs=2).fit(noisy)
    found = model.explain(noisy)
    assert found.shape == noisy.shape
    np.testing.assert_array_equal(found[:, -1], 0)


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_program_gives_the_same(fitted, blobs, name, tmp_path):
    model = fitted(name)
    path = model.export(tmp_path / "model.jax")
    served = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(served.platforms) == {"cpu", "cuda", "tpu"}
    found = served.call(blobs.x)
    np.testing.assert_array_equal(found["labels"], model.predict(blobs.x))
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(blobs.x), atol=1e-5)
    np.testing.assert_allclose(found["codes"], model.transform(blobs.x), rtol=1e-4, atol=1e-4)


def test_an_exported_program_keeps_digits(blobs, tmp_path):
    """Rows at an offset that leaves float32 a sixteenth of their unit; and the calibrated start."""
    x = (blobs.x + 1e6).astype(np.float32)
    model = make("dec", epochs=1, select="stable").fit(x)
    model.calibrate(x, blobs.y)
    served = jax.export.deserialize(bytearray(model.export(tmp_path / "model.jax").read_bytes()))
    np.testing.assert_array_equal(served.call(x[:7])["labels"], model.predict(x[:7]))
    np.testing.assert_allclose(served.call(x[:7])["probabilities"], model.predict_proba(x[:7]), atol=1e-4)


def test_calibration_finds_the_temperature(fitted, blobs, tmp_path):
    """Classes are drawn with probabilities of a known temperature."""
    model = make("dec", epochs=1).fit(blobs.x)
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(300, 5)) * 4 + blobs.x.mean(axis=0), 30, axis=0).astype(np.float32)
    before, labels = model.predict_proba(x), model.predict(x)
    powers = before ** (1 / 2.5)
    p = powers / powers.sum(axis=1, keepdims=True)
    y = (rng.uniform(size=(len(x), 1)) > np.cumsum(p, axis=1)).sum(axis=1)
    names = np.array(["a", "b", "c", "d"], object)[y]
    assert model.calibrate(x, names) is model
    np.testing.assert_allclose(model.temperature_, 2.5, rtol=0.1)
    powers = before ** (1 / model.temperature_)
    np.testing.assert_allclose(model.predict_proba(x), powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_array_equal(model.predict(x), labels)
    loaded = saved_and_loaded(model, x, tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
    with pytest.raises(ValueError, match="y holds no known class"):
        model.calibrate(x, np.full(len(x), -1))
    # Samples of a class that no cluster stands for are wrong, and count as that.
    unknown = np.where(np.arange(len(x)) % 4 == 0, np.arange(len(x)).astype(str).astype(object), names)
    p = model.calibrate(x, unknown).predict_proba(x)
    np.testing.assert_allclose(p.max(axis=1).mean(), np.mean(unknown == np.array(list("abcd"))[labels]), atol=0.02)
    assert model.fit(blobs.x).temperature_ == 1


def test_interpolation_goes_from_center_to_center(fitted):
    model = fitted("vade")
    line = model.interpolate(0, 3, 5)
    ends = model.scaling_.undo(
        np.asarray(model.module_.autoencoder.decode(jnp.asarray(model.cluster_centers_[[0, 3]])))
    )
    assert line.shape == (5, 5)
    np.testing.assert_allclose(line[[0, -1]], ends, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="b=4 must be from 0 to 3"):
        model.interpolate(0, 4)

"""DeepCluster: its targets, its loss, how batches are drawn, what it finds on digits, and how it collapses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import Status, deep, kmeans, load, metrics
from jaxcluster.deep import Batch, nets
from jaxcluster.deep.batches import weighted_batches
from jaxcluster.deep.inference import eval_copy
from jaxcluster.estimators.deep.scaling import scaled
from jaxcluster.estimators.deep.self_supervised import DeepCluster
from jaxcluster.ops.components import whitening

N, D, LATENT, K = 60, 5, 8, 6
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
SMALL = {
    "hidden": (16,),
    "latent": 8,
    "epochs": 2,
    "update_interval": 5,
    "batch_size": 50,
    "random_state": 0,
    "select": "trained",
}


def network(width=LATENT):
    return nets.Projector((D, 12, width), rngs=nnx.Rngs(0))


def make(variant, encoder=None, k=K, **options):
    encoder = network() if encoder is None else encoder
    if variant == "v1":
        return deep.DeepCluster(encoder, LATENT, k, rngs=nnx.Rngs(1), **options)
    return deep.DeepClusterV2(encoder, LATENT, k, **options)


@pytest.fixture(scope="module", params=["v1", "v2"])
def looked(request):
    """A module after a look at all rows, their features and what it came to."""
    module = eval_copy(make(request.param))
    z = module.features(jnp.asarray(X))
    return request.param, module, z, module.refresh(z, jax.random.key(3))


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return (
        logits
        - np.log(np.sum(np.exp(logits - logits.max(1, keepdims=True)), 1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_whitened_components_have_variance_one():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(200, 4)) * [10, 3, 1, 0] + 100).astype(np.float32)
    y = np.asarray(whitening(jnp.asarray(x), 4).apply(jnp.asarray(x)), np.float64)
    np.testing.assert_allclose(y.T @ y / 200, np.diag([1, 1, 1, 0]), atol=2e-3)
    axes = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True))[1][:, ::-1][:, :2]
    first = (x - x.mean(0)).astype(np.float64) @ axes
    np.testing.assert_allclose(np.abs(y[:, :2]), np.abs(first / first.std(0)), rtol=2e-3, atol=2e-3)


def test_targets_are_kmeans_and_batches_are_balanced(looked):
    variant, module, z, found = looked
    cluster_key = jax.random.split(jax.random.key(3))[0] if variant == "v1" else jax.random.key(3)
    again = kmeans.fit(cluster_key, module.preprocess_features(z), K, metric=module.metric)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.target, found.labels)
    totals = np.zeros(K)
    np.add.at(totals, np.asarray(found.labels), np.asarray(found.weight, np.float64))
    np.testing.assert_allclose(totals, 1, rtol=1e-5)
    assert not found.collapsed


def test_rows_are_drawn_by_weight():
    weight = jnp.array([0.0, 1.0, 3.0, 0.0])
    rows = np.asarray(weighted_batches(jax.random.key(0), jnp.int32(5), weight, steps=200, batch=20))
    assert set(rows.ravel()) == {1, 2}
    assert abs(np.mean(rows == 2) - 0.75) < 0.03
    later = weighted_batches(jax.random.key(0), jnp.int32(105), weight, steps=100, batch=20)
    np.testing.assert_array_equal(rows[100:], later)


def test_loss_is_the_cross_entropy_of_the_targets(looked):
    variant, module, z, found = looked
    batch = Batch(jnp.asarray(X[:20]), found.target[:20])
    loss, record = module.loss(batch, jax.random.key(0))
    features = np.asarray(z[:20], np.float64)
    if variant == "v1":
        logits = features @ np.asarray(module.head.kernel[...], np.float64) + np.asarray(module.head.bias[...])
    else:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        logits = features @ np.asarray(module.prototypes[...], np.float64).T / 0.1
    target = np.asarray(found.target[:20])
    np.testing.assert_allclose(loss, -np.mean(log_softmax(logits)[np.arange(20), target]), rtol=1e-4)
    assert float(record["accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == target))


def test_a_look_makes_the_head_anew():
    module = make("v1")
    module.head.kernel[...] = jnp.full_like(module.head.kernel[...], 7.0)
    module.head.bias[...] = jnp.full_like(module.head.bias[...], 7.0)
    seen = []

    def look(report):
        seen.append(np.asarray(report.module().head.kernel[...]))

    options = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 20, "callbacks": [look]}
    ended = deep.train(jax.random.key(0), module, X, **options)
    assert np.abs(seen).max() < 0.1
    assert np.abs(seen[1] - seen[0]).max() > 0.01
    assert "nmi" in ended.history[1]
    assert "changed" not in ended.history[1]
    np.testing.assert_array_equal(module.head.kernel[...], 7.0)  # the caller's is as it was


def test_nmi_compares_clusters_whatever_their_names():
    old = np.repeat(np.arange(3, dtype=np.int32), 20)
    assert float(deep.DeepCluster.label_agreement(old, (old + 1) % 3)["nmi"]) == pytest.approx(1, abs=1e-6)


def test_moments_of_the_head_begin_anew_with_it():
    from jaxcluster.deep.batches import DeviceRows
    from jaxcluster.deep.epoch import CompiledTrainer

    trainer = CompiledTrainer(jax.random.key(0), make("v1"), DeviceRows(X), deep.adam(), 20, 2, None)
    state, result = trainer.refresh(trainer.initial_state, 0, None)
    state, _ = trainer.run_epoch(state, result.refresh)
    state, _ = trainer.refresh(state, 1, result.labels)
    moments = {name: np.abs(jax.tree.leaves(optimizer[0].mu)[0]).max() for name, optimizer in state.opt_state.items()}
    assert moments["head"] == 0
    assert moments["encoder"] > 0


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("degenerate", ["rows all equal", "features all equal"])
def test_collapse_is_a_status(variant, degenerate):
    x, encoder = X, network()
    if degenerate == "rows all equal":
        x = np.ones_like(X)
    else:
        encoder.last.kernel[...] = jnp.zeros_like(encoder.last.kernel[...])
        encoder.last.bias[...] = jnp.ones_like(encoder.last.bias[...])
        encoder.norms[0].scale[...] = jnp.zeros_like(encoder.norms[0].scale[...])
    ended = deep.train(
        jax.random.key(0),
        make(variant, encoder),
        x,
        epochs=9,
        steps_per_epoch=2,
        batch_size=20,
        optimizer=deep.adam(0.0),
    )
    assert ended.status == Status.COLLAPSED
    assert len(ended.history) == 2  # the third look in a row ends it
    assert all(np.isfinite(record["loss"]) for record in ended.history)


def test_the_estimator_says_that_it_collapsed():
    with pytest.warns(ConvergenceWarning, match="the training collapsed: all rows have the same features"):
        DeepCluster(4, **SMALL).fit(np.ones((300, 5)))


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_digits_beat_the_untrained_network(variant):
    """Accuracy is 0.08 higher, with the same clustering of both embeddings; k-means on pixels has 0.796."""
    data = load_digits()
    model = DeepCluster(10, variant=variant, hidden=(128,), latent=32, epochs=3, random_state=0).fit(data.data)
    untrained = eval_copy(model._make(nnx.Rngs(0), 64))
    rows = scaled(data.data, "auto")[0]
    z = deep.map_module(untrained, "features", rows)
    untrained.finalize(z, jax.random.key(0))
    before = metrics.clustering_accuracy(data.target, np.asarray(jnp.argmax(untrained.assign(z), axis=1)))
    assert metrics.clustering_accuracy(data.target, model.labels_) > before + 0.08


def test_saved_model_labels_alike_with_few_features(tmp_path, blobs):
    for variant, latent in (("v1", 3), ("v2", 8)):
        model = DeepCluster(4, variant=variant, **SMALL | {"latent": latent}).fit(blobs.x)
        model.save(tmp_path / variant)
        again = load(tmp_path / variant)
        np.testing.assert_array_equal(again.predict(blobs.x), model.labels_)
        np.testing.assert_array_equal(again.transform(blobs.x), model.transform(blobs.x))
        assert np.unique(model.labels_).size == 4
        assert model.cluster_centers_.shape == (4, 2 if variant == "v1" else 8)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "v3"}, "variant"),
        ({"n_pseudo": 400}, "n_pseudo"),
        ({"views": "crops"}, "views"),
        ({"views": 3}, "must be 'auto', None, or called"),
        ({"variant": "v1", "components": 9}, "components=9 is more than the 8 features"),
        ({"image_shape": (2, 3)}, "makes 6 values an image, but X has 5 columns"),
        ({"encoder": network(3)}, r"codes of shape \(1, 3\) for one row, but latent=8"),
    ],
)
def test_what_cannot_be_is_refused(blobs, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        DeepCluster(4, **{**SMALL, **options}).fit(blobs.x)


def test_a_rate_that_falls_goes_on_for_as_many_epochs(blobs, tmp_path):
    DeepCluster(4, **SMALL).fit(blobs.x, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="decay_steps is 10 there and 15 here"):
        DeepCluster(4, **{**SMALL, "epochs": 3}).fit(blobs.x, checkpoint_dir=tmp_path, resume=True)


def test_images_as_images_are_told_how_to_come():
    with pytest.raises(ValueError, match=r"X.reshape\(len\(X\), -1\), and image_shape=\(4, 3\)"):
        DeepCluster(4).fit(np.zeros((20, 4, 3)))

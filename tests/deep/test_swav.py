"""SwAV: its loss against NumPy, its queue and its frozen prototypes, how it collapses, and what it learns of digits."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import Status, metrics
from jaxcluster.cluster import sinkhorn
from jaxcluster.deep import Batch, adam, map_module, train
from jaxcluster.deep.inference import eval_copy
from jaxcluster.deep.nets import MLP
from jaxcluster.deep.swav import COLLAPSE_GRACE_STEPS, SwAV, merge_prototypes, prototype_statistics
from jaxcluster.deep.views import GaussianNoise, MultiCrop
from jaxcluster.estimators.deep.self_supervised import SwAV as SwAVClusterer
from jaxcluster.ops.distance import normalize
from jaxcluster.sharding import ROWS, row_mesh

N, D, LATENT, WIDTH, PROTOTYPES, CLUSTERS, BATCH, QUEUE = 64, 4, 3, 5, 6, 3, 16, 24
RNG = np.random.default_rng(0)
X = (np.repeat(np.eye(4, D) * 4, N // 4, axis=0) + RNG.normal(size=(N, D))).astype(np.float32)
FAST = adam(1e-2)


class Shown(NamedTuple):
    """Three views that leave nothing to chance."""

    n_global: int = 2

    def __call__(self, key, x):
        return x + 1, 2 * x, x[:, ::-1]


def make(views=None, **options):
    rngs = nnx.Rngs(0)
    options = {"head": MLP((LATENT, WIDTH), rngs=rngs), "width": WIDTH, "queue_size": QUEUE} | options
    return SwAV(MLP((D, 8, LATENT), rngs=rngs), views or Shown(), CLUSTERS, PROTOTYPES, LATENT, rngs=rngs, **options)


def batches(module, count):
    """The losses of batches one after the other, and the module after them."""
    graphdef, state = nnx.split(module)

    @jax.jit
    def loss(state, x):
        module = nnx.merge(graphdef, state)
        value, _ = module.loss(Batch(x), jax.random.key(0))
        return value, nnx.state(module)

    losses = []
    for i in range(count):
        value, state = loss(state, X[i * BATCH : (i + 1) * BATCH])
        losses.append(float(value))
    return losses, nnx.merge(graphdef, state)


# What the loss is, in float64.


def dense(layers, x):
    for i, layer in enumerate(layers):
        x = np.maximum(x, 0) if i else x
        x = x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])
    return x


def embedded(module, x):
    z = dense(module.head.layers, dense(module.encoder.layers, x))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def shared_out(scores, epsilon=0.05, rounds=3):
    q = np.exp(scores / epsilon)
    for _ in range(rounds):
        q /= q.sum(0) * q.shape[1]
        q /= q.sum(1, keepdims=True)
    return q


def textbook(module, x, queue):
    """The loss of a batch, and the embeddings of its large views; ``queue`` is one array a large view, or None."""
    prototypes = np.float64(module.prototypes[...])
    z = [embedded(module, view) for view in Shown()(None, np.float64(x))]
    terms = []
    for i in range(2):
        seen = z[i] if queue is None else np.concatenate([z[i], queue[i]])
        q = shared_out(seen @ prototypes.T)[: len(x)]
        for j in {0, 1, 2} - {i}:
            logits = z[j] @ prototypes.T / 0.1
            terms.append(-np.mean(np.sum(q * (logits - np.log(np.exp(logits).sum(1, keepdims=True))), axis=1)))
    return np.mean(terms), np.stack(z[:2])


def test_the_loss_is_that_of_the_paper_without_a_queue():
    module = make(queue_size=0)
    losses, _ = batches(module, 2)
    expected = [textbook(module, X[:BATCH], None)[0], textbook(module, X[BATCH : 2 * BATCH], None)[0]]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(("queue_from", "first"), [(0, 2), (3, 3)])
def test_queue_takes_part_once_full_and_due(queue_from, first):
    """Two batches fill it: from the third batch on, number 2, it may take part."""
    module = make(queue_from=queue_from)
    losses, after = batches(module, 4)
    queue, expected, otherwise = np.zeros((2, 0, WIDTH)), [], []
    for i in range(4):
        x = X[i * BATCH : (i + 1) * BATCH]
        value, new = textbook(module, x, None if i < first else queue)
        expected.append(value)
        otherwise.append(textbook(module, x, None)[0])
        queue = np.concatenate([new, queue], axis=1)[:, :QUEUE]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert np.all(np.abs(np.array(losses) - otherwise)[first:] > 1e-3)
    # The newest embeddings come first, each large view's own.
    np.testing.assert_allclose(after.queue[...], queue, atol=1e-5)
    assert int(after.queued[...]) == QUEUE


def test_queue_shorter_than_a_batch():
    module = make(queue_size=10)
    _, after = batches(module, 2)
    expected = [embedded(module, view)[:10] for view in Shown()(None, np.float64(X[BATCH : 2 * BATCH]))[:2]]
    np.testing.assert_allclose(after.queue[...], expected, atol=1e-5)


# Training.


def fit(module, epochs=1, **options):
    options = {"batch_size": BATCH, "steps_per_epoch": 3, "optimizer": FAST} | options
    return train(jax.random.key(0), module, X, epochs=epochs, **options)


NOISY = MultiCrop(GaussianNoise(0.3), GaussianNoise(0.6), 2, 1)


@pytest.fixture(scope="module")
def trained():
    """A module whose prototypes are frozen for an epoch: as it was, and after one epoch and after four."""
    module = make(NOISY, freeze_steps=3)
    return module, fit(module), fit(module, 4)


def test_prototypes_are_frozen_at_first(trained):
    module, early, late = trained
    np.testing.assert_allclose(early.module.prototypes[...], module.prototypes[...], atol=1e-6)
    assert np.abs(late.module.prototypes[...] - module.prototypes[...]).max() > 0.01
    # The network learned all along.
    kernels = [np.array(each.encoder.layers[0].kernel[...]) for each in (module, early.module)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_prototypes_have_length_1_after_each_move(trained):
    lengths = np.linalg.norm(trained[2].module.prototypes[...], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_the_same_key_gives_the_same_run(trained):
    again = fit(make(NOISY, freeze_steps=3), 4)
    for one, two in zip(
        jax.tree.leaves(nnx.state(trained[2].module)), jax.tree.leaves(nnx.state(again.module)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(trained[2].labels, again.labels)


def test_labels_are_those_of_groups_of_prototypes(trained):
    module, labels = trained[2].module, trained[2].labels
    assignments = np.array(module.assign(module.features(jnp.asarray(X))))
    np.testing.assert_array_equal(assignments.argmax(1), labels)
    np.testing.assert_allclose(assignments.sum(1), 1, rtol=1e-5)
    z = np.array(module.features(jnp.asarray(X)))
    for cluster in np.unique(labels):
        np.testing.assert_allclose(module.centers[...][cluster], z[labels == cluster].mean(0), atol=1e-5)
    scores = np.array(module.embed(jnp.asarray(z)) @ module.prototypes[...].T) / 0.05
    each = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    groups = np.array(module.groups[...])
    np.testing.assert_allclose(assignments[:, 1], each[:, groups == 1].sum(1), atol=1e-5)


def test_training_on_two_devices_is_training_on_one(trained):
    spread = fit(make(NOISY, freeze_steps=3), 4, mesh=row_mesh())
    losses = [[record["loss"] for record in each.history] for each in (spread, trained[2])]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    np.testing.assert_allclose(spread.module.queue[...], trained[2].module.queue[...], atol=1e-3)


def test_assignments_on_two_devices_are_those_of_one():
    scores = np.random.default_rng(1).uniform(-1, 1, size=(24, 5)).astype(np.float32)
    mask = np.arange(24) < 10  # the second device has no row that exists
    rows = PartitionSpec(ROWS)
    sharded = partial(sinkhorn.swav_assignments, axis_name=ROWS)
    spread = jax.jit(
        jax.shard_map(
            lambda scores, mask: sharded(scores, 0.05, 3, mask), mesh=row_mesh(), in_specs=(rows, rows), out_specs=rows
        )
    )
    single = lambda scores, mask: sinkhorn.swav_assignments(scores, 0.05, 3, mask)  # noqa: E731
    for present in (mask, mask | True, mask & False):
        np.testing.assert_allclose(spread(scores, present), single(scores, present), atol=1e-5)
    gradients = [
        jax.grad(lambda scores, f=f: jnp.sum(jnp.sin(5 * f(scores, jnp.asarray(mask)))))(jnp.asarray(scores))
        for f in (spread, single)
    ]
    np.testing.assert_allclose(*gradients, atol=1e-3)


# Collapse.


def on_circle(angles):
    return jnp.float32(np.stack([np.cos(angles), np.sin(angles)], axis=1))


class Constant(nnx.Module):
    """Says the same of every row."""

    def __init__(self):
        self.vector = nnx.Param(jnp.ones(LATENT))

    def __call__(self, x):
        return jnp.broadcast_to(self.vector[...], (x.shape[0], LATENT))


def same_features(module):
    module.encoder = Constant()


def no_features(module):
    module.encoder = Constant()
    module.encoder.vector[...] = jnp.zeros(LATENT)
    module.head.layers[0].bias[...] = jnp.zeros(WIDTH)


def same_prototypes(module):
    module.prototypes[...] = jnp.tile(module.prototypes[...][:1], (PROTOTYPES, 1))


@pytest.mark.parametrize("spoil", [same_features, no_features, same_prototypes])
def test_a_collapse_is_told_and_no_nan(spoil):
    module = make(NOISY, freeze_steps=3)
    spoil(module)
    ended = fit(module, 5)
    assert ended.status == Status.COLLAPSED
    assert len(ended.history) == 2  # the third look in a row ends it
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nnx.state(ended.module)))
    assert np.isfinite([record["loss"] for record in ended.history]).all()


def test_all_rows_at_one_prototype_are_a_collapse(key):
    module = make(NOISY)
    away = -jnp.abs(jax.random.normal(key, (PROTOTYPES - 1, LATENT)))
    module.head = None
    module.prototypes = nnx.Param(normalize(jnp.concatenate([jnp.ones((1, LATENT)), away])))
    module.eval()
    z = jnp.abs(jax.random.normal(key, (30, LATENT)))
    assert not module.refresh(z, key).collapsed
    module.steps[...] = jnp.int32(COLLAPSE_GRACE_STEPS)
    assert module.refresh(z, key).collapsed


# Groups of prototypes.


def test_a_prototype_alone_may_be_a_cluster(key):
    prototypes = on_circle([0.0, 0.2, 0.4, 0.6, 0.8, 1.6])
    found = prototype_statistics(on_circle(np.r_[np.linspace(0, 0.8, 200), np.linspace(1.5, 1.7, 9)]), prototypes, 0.02)
    labels = np.array(merge_prototypes(key, found, 2))
    assert len(set(labels[:5])) == 1
    assert labels[5] != labels[0]


def test_prototypes_that_share_rows_are_a_cluster(key):
    """Each cluster has rows between its own prototypes, and none between them and another's, near as that may be."""
    prototypes = on_circle([0.0, 0.2, 0.4, 0.6, 1.1, 1.3])
    found = prototype_statistics(
        on_circle(np.r_[np.linspace(0, 0.6, 200), np.linspace(1.1, 1.3, 20)]), prototypes, 0.01
    )
    np.testing.assert_array_equal(found.counts.sum(), 220)
    labels = np.array(merge_prototypes(key, found, 2))
    assert len(set(labels[:4])) == len(set(labels[4:])) == 1
    assert labels[0] != labels[5]
    np.testing.assert_array_equal(merge_prototypes(key, found, 6), np.arange(6))


def test_prototype_without_rows_is_no_cluster(key):
    prototypes = on_circle([0.0, 0.2, 1.1, 1.3, 3.0])
    found = prototype_statistics(on_circle(np.r_[np.linspace(0, 0.2, 50), np.linspace(1.1, 1.3, 50)]), prototypes, 0.01)
    np.testing.assert_array_equal(found.counts[4], 0)
    labels = np.array(merge_prototypes(key, found, 2))
    assert labels[0] == labels[1] != labels[2] == labels[3]


# The estimator.


TINY = {
    "hidden": (8,),
    "latent": 3,
    "projection": 4,
    "epochs": 1,
    "batch_size": 30,
    "random_state": 0,
    "select": "trained",
}
"""Networks that learn nothing, for what does not depend on it."""


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data, data.target


def test_attributes_have_their_shapes(blobs):
    model = SwAVClusterer(4, **TINY).fit(blobs.x)
    assert model.prototypes_.shape == (20, 4)
    assert model.prototype_labels_.shape == (20,)
    assert model.cluster_centers_.shape == (4, 3)
    assert model.module_.queue.shape == (2, 50, 4)  # four rows a prototype, 30 of which are the batch
    assert model.transform(blobs.x).shape == (300, 3)
    np.testing.assert_array_equal(model.predict(blobs.x), model.labels_)


def test_images_are_shown_in_crops_of_two_sizes(digits):
    options = TINY | {"image_shape": (8, 8), "crops": (2, 1), "projection": None}
    model = SwAVClusterer(3, **options).fit(digits[0][:60])
    assert np.isfinite(model.history_).all()
    assert model.predict_proba(digits[0][:60]).shape == (60, 3)
    assert model.prototypes_.shape == (15, 3)


def test_rows_that_are_all_the_same_are_a_collapse():
    with pytest.warns(ConvergenceWarning, match="the training collapsed: all rows look the same"):
        model = SwAVClusterer(4, **TINY).fit(np.ones((300, 5)))
    assert model.status_ == Status.COLLAPSED
    assert np.isfinite(model.history_).all()


def bad(message, **options):
    return pytest.param(options, message, id=message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        bad(
            r"n_prototypes=99 .* batch of 30 rows and a queue of 0: .* Raise batch_size", n_prototypes=99, queue_size=0
        ),
        bad(r"n_prototypes=3 must be at least 4", n_prototypes=3),
        bad(r"crops=\(1, 0\) make 1 view of each row, and 2 are needed", crops=(1, 0)),
        bad(r"views give 1 view of each row, and 2 are needed.*MultiCrop", views=GaussianNoise(0.1)),
        bad(r"temperature=0 must be greater than 0", temperature=0),
        bad(r"image_shape=\(2, 3\) makes 6 values an image, but X has 5 columns", image_shape=(2, 3)),
    ],
)
def test_a_wrong_option_is_answered_in_full(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        SwAVClusterer(4, **TINY | options).fit(blobs.x)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="n_samples=1 should be at least 2"):
        SwAVClusterer(1, **TINY | {"batch_size": 1}).fit(np.ones((1, 5)))


def test_a_wrong_module_is_answered_in_full():
    with pytest.raises(ValueError, match=r"gave 1 of each row, and 2 are needed"):
        make(lambda key, x: (x,), n_global=1).loss(Batch(jnp.asarray(X)), jax.random.key(0))
    with pytest.raises(ValueError, match=r"n_prototypes=6 .* batch of 4 rows and a queue of 1"):
        make(queue_size=1).loss(Batch(jnp.asarray(X[:4])), jax.random.key(0))
    with pytest.raises(ValueError, match=r"queue_size=-1 must be at least 1"):
        make(queue_size=-1)


def test_digits_are_better_than_untrained(digits):
    x, truth = digits
    options = {"hidden": (128,), "latent": 32, "projection": 32, "random_state": 0}
    model = SwAVClusterer(10, **options, epochs=10).fit(x)
    untrained = eval_copy(model._make(nnx.Rngs(0), 64))
    z = map_module(untrained, "features", model.scaling_.apply(x))
    # k-means of the features is no measure: it moves by a tenth with the seed, trained or not.
    bare = metrics.clustering_accuracy(truth, np.asarray(untrained.refresh(z, jax.random.key(0)).labels))
    assert metrics.clustering_accuracy(truth, model.labels_) >= bare + 0.3


def test_several_prototypes_allow_unequal_clusters():
    x, truth = make_blobs(n_samples=[900, 350, 150, 100], n_features=8, cluster_std=2.5, random_state=1)
    options = {"hidden": (64,), "latent": 16, "projection": 16, "epochs": 6, "random_state": 0}
    labels = SwAVClusterer(4, **options, n_prototypes=20).fit(x).labels_
    assert metrics.clustering_accuracy(truth, labels) >= 0.95

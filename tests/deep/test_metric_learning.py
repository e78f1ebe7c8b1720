"""Metric learning: its losses by hand, what labels and views add on digits, and what it says where there is nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import losses, metrics, soft_kmeans
from jaxcluster.deep import Batch, map_module, nets, train
from jaxcluster.deep.metric_learning import LOSSES
from jaxcluster.deep.metric_learning import MetricEmbedding as Module
from jaxcluster.deep.views import GaussianNoise, MultiCrop, image_views
from jaxcluster.estimators.deep.metric_embedding import MetricEmbedding
from jaxcluster.estimators.deep.scaling import scaled
from jaxcluster.types import Status

N, D, L, K = 12, 4, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.array([0, 1, -1, 0, 1, 1, -1, 2, 0, -1, -1, 1], np.int32)
KEY = jax.random.key(3)
SHARE = np.mean(Y < 0)
NOISE = GaussianNoise(0.3)
OPTIONS = {"margin": 0.8, "temperature": 0.3}
TINY = {"hidden": (8,), "latent": 2, "epochs": 2, "batch_size": 50, "random_state": 0, "select": "trained"}


def opposite(key, x):
    """Three views that depend on nothing but the row."""
    return x, x + 0.1, 2 * x


def module(loss, views=opposite, **options):
    return Module(nets.MLP((D, 6, L), rngs=nnx.Rngs(0)), K, L, loss=loss, views=views, **OPTIONS | options)


def codes(made, views):
    return np.concatenate([np.asarray(made.features(jnp.asarray(view)), np.float64) for view in views])


def distances(z):
    return np.sqrt(np.sum((z[:, None] - z) ** 2, axis=2))


def contrastive(z, labels, margin=0.8):
    known = labels >= 0
    off = ~np.eye(len(z), dtype=bool) & known & known[:, None]
    same = off & (labels[:, None] == labels)
    d = distances(z)
    pulled, pushed = np.mean(d[same] ** 2) / 2, np.mean(np.maximum(margin - d[off & ~same], 0) ** 2) / 2
    return (pulled + pushed) / 2


def hard_triplets(z, labels, margin=0.8):
    d, terms = distances(z), []
    for i in np.flatnonzero(labels >= 0):
        same = (labels == labels[i]) & (np.arange(len(z)) != i)
        apart = (labels >= 0) & (labels != labels[i])
        if same.any() and apart.any():
            terms.append(max(d[i][same].max() - d[i][apart].min() + margin, 0))
    terms = np.array(terms)
    return terms[terms > 0].mean()


def angular(z, labels, temperature=0.3):
    known = np.flatnonzero(labels >= 0)
    z, labels = z[known], labels[known]
    scores, terms = z @ z.T / temperature, []
    for i in range(len(z)):
        others = np.arange(len(z)) != i
        same = others & (labels == labels[i])
        if same.any():
            terms.append(np.log(np.sum(np.exp(scores[i][others]))) - scores[i][same].mean())
    return np.mean(terms)


BY_HAND = {"contrastive": contrastive, "triplet": hard_triplets, "nt-xent": angular, "supervised-contrastive": angular}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_its_formula(loss):
    """Labeled rows among themselves, and views of the others among themselves, by the share of the others."""
    made = module(loss)
    z = codes(made, opposite(None, X))
    own, known = np.tile(np.arange(N), 3), np.tile(Y, 3)
    of_labels, of_views = (BY_HAND[loss](z, labels) for labels in (known, np.where(known < 0, own, -1)))
    expected = BY_HAND[loss](z, own) if loss == "nt-xent" else of_labels + SHARE * of_views
    found, _ = made.loss(Batch(jnp.asarray(X), y=jnp.asarray(Y)), KEY)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    alone, _ = made.loss(Batch(jnp.asarray(X)), KEY)
    np.testing.assert_allclose(alone, BY_HAND[loss](z, own), rtol=2e-5)


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "supervised-contrastive"])
def test_without_views_rows_of_no_label_take_no_part(loss):
    made, rows = module(loss, views=None), X.copy()
    found, _ = made.loss(Batch(jnp.asarray(rows), y=jnp.asarray(Y)), KEY)
    np.testing.assert_allclose(found, BY_HAND[loss](codes(made, [X]), Y), rtol=2e-5)
    rows[Y < 0] = 9.0
    np.testing.assert_array_equal(made.loss(Batch(jnp.asarray(rows), y=jnp.asarray(Y)), KEY)[0], found)


def test_two_views_and_no_labels_are_nt_xent():
    for loss in ("nt-xent", "supervised-contrastive"):
        made = module(loss, views=NOISE, temperature=0.5)
        one, two = (NOISE(key, jnp.asarray(X)) for key in jax.random.split(KEY))
        found, _ = made.loss(Batch(jnp.asarray(X)), KEY)
        expected = losses.nt_xent_loss(made.features(one), made.features(two), temperature=0.5)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("mining", ["all", "semi-hard"])
def test_triplets_are_mined_as_it_is_told(mining):
    made = module("triplet", views=None, mining=mining)
    z = made.features(jnp.asarray(X))
    expected = losses.mined_triplet_loss(z, Y, margin=0.8, mining=mining)
    found, _ = made.loss(Batch(jnp.asarray(X), y=jnp.asarray(Y)), KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_unlabeled_rows_are_not_pushed_away():
    """The position of an unlabeled sample does not change the gradients of labeled ones."""
    made = module("contrastive")
    labels = jnp.array([0, 0, 1, -1])
    rows = jnp.asarray(X[:4])
    gradient = jax.grad(lambda x: made.loss(Batch(x, y=labels), KEY)[0])
    np.testing.assert_allclose(gradient(rows)[:3], gradient(rows.at[3].add(5.0))[:3], rtol=1e-4, atol=1e-6)
    assert np.abs(gradient(rows)[3]).max() > 0  # its own views are drawn together


def test_views_of_other_sizes_pass_the_network():
    class Folded(nnx.Module):
        def __init__(self):
            self.layer = nnx.Linear(2, L, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.layer(x.reshape(x.shape[0], -1, 2).mean(1))

    views = MultiCrop(NOISE, lambda key, x: x[:, :2], n_global=2, n_local=1)
    made = Module(Folded(), K, L, views=views, temperature=0.3)
    shown = views(jax.random.split(KEY)[0], jnp.asarray(X))
    assert [view.shape for view in shown] == [(N, 4), (N, 4), (N, 2)]
    expected = angular(codes(made, shown), np.tile(np.arange(N), 3))
    np.testing.assert_allclose(made.loss(Batch(jnp.asarray(X)), KEY)[0], expected, rtol=2e-5)


def test_what_a_batch_had_to_learn_from_is_counted():
    labels = np.array([0, 0, 1, -1, 2, -1, -1, -1, -1, -1, -1, -1])
    made = module("triplet", views=None)
    _, record = made.loss(Batch(jnp.asarray(X), y=jnp.asarray(labels)), KEY)
    assert {name: float(value) for name, value in record.items()} == {"anchors": 2, "triplets": 4, "barren": 0}
    for barren in (np.arange(N), np.zeros(N, int), np.full(N, -1)):
        loss, record = made.loss(Batch(jnp.asarray(X), y=jnp.asarray(barren)), KEY)
        assert (float(loss), float(record["anchors"]), float(record["barren"])) == (0, 0, 1)
    _, record = module("nt-xent").loss(Batch(jnp.asarray(X)), KEY)
    assert float(record["anchors"]) == 3 * N
    assert float(record["triplets"]) == 3 * N * 2 * (3 * N - 3)


def test_clusters_are_spherical():
    made = module("triplet")
    z = made.features(jnp.asarray(X))
    np.testing.assert_allclose(np.sum(np.square(z), axis=1), 1, rtol=1e-5)
    labels = made.finalize(z, KEY).labels
    np.testing.assert_allclose(np.sum(np.square(made.centers[...]), axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels, np.argmax(made.assign(z), axis=1))
    np.testing.assert_array_equal(labels, np.argmax(np.asarray(z) @ np.asarray(made.centers[...]).T, axis=1))
    assignments = soft_kmeans.responsibilities(made.centers[...], z, made.variance[...])
    np.testing.assert_allclose(made.assign(z), assignments, rtol=1e-6)


def test_temperatures_are_those_of_the_papers():
    assert [module(loss, temperature=None).temperature for loss in LOSSES[2:]] == [0.5, 0.1]


def test_codes_that_are_all_the_same_are_a_collapse():
    made = module("triplet")
    assert not made.refresh(made.features(jnp.asarray(X)), KEY).collapsed
    made.encoder.layers[-1].kernel[...] *= 0
    made.encoder.layers[-1].bias[...] += 1
    assert made.refresh(made.features(jnp.asarray(X)), KEY).collapsed
    assert train(KEY, made, X, epochs=1, batch_size=N).status is Status.COLLAPSED


def test_what_the_module_refuses():
    with pytest.raises(ValueError, match="loss='tripel' is not known; .* Did you mean 'triplet'"):
        module("tripel")
    with pytest.raises(ValueError, match="mining='easy' is not known"):
        module("triplet", mining="easy")
    with pytest.raises(ValueError, match="loss='nt-xent' learns from views of rows alone"):
        module("nt-xent", views=None)
    with pytest.raises(ValueError, match="temperature=0 must be greater than 0"):
        module("nt-xent", temperature=0)
    with pytest.raises(ValueError, match="learns from labels or views, and there are none"):
        module("triplet", views=None).loss(Batch(jnp.asarray(X)), KEY)


@pytest.fixture(scope="module")
def digits():
    """Rows to learn from and others, and their digits."""
    x, truth = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    learned, test = order[:1200], order[1200:]
    return x[learned], truth[learned], x[test], truth[test]


def embedding(**options):
    return MetricEmbedding(10, hidden=(64,), latent=10, random_state=0, **options)


def held_out(model, digits):
    return metrics.adjusted_rand_score(digits[3], model.predict(digits[2]))


@pytest.fixture(scope="module")
def untrained(digits):
    """ARI of k-means on the codes of a network that has learned nothing."""
    model = embedding()
    model._encode_labels(None, 1200)
    made, (rows, scaling) = model._make(nnx.Rngs(0), 64), scaled(digits[0], "auto")
    made.finalize(map_module(made, "features", rows), KEY)
    labels = made.labels(map_module(made, "features", scaling.apply(digits[2])))
    return metrics.adjusted_rand_score(digits[3], labels)


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_labels_beat_the_untrained_network(digits, untrained, loss):
    """ARI on held-out samples is 0.2 higher; the contrastive loss reaches that with one label in ten too."""
    model = embedding(epochs=15, loss=loss, views=None).fit(*digits[:2])
    assert held_out(model, digits) >= untrained + 0.2
    assert model.history_[-1] < model.history_[0]


def test_one_label_in_ten_beats_the_untrained_network(digits, untrained):
    known = np.where(np.arange(1200) % 10 == 0, digits[1], -1)
    assert held_out(embedding(epochs=30).fit(digits[0], known), digits) >= untrained + 0.2


def test_views_alone_beat_the_untrained_network(digits, untrained):
    assert held_out(embedding(epochs=15).fit(digits[0]), digits) >= untrained + 0.1


@pytest.fixture(scope="module")
def tiny(blobs):
    """Fitted to rows of which the classes of three in four are known, as numbers and as names; and to rows alone."""
    numbers, names = np.where(blobs.y < 3, blobs.y, -1), np.array(["a", "b", "c", None], object)[blobs.y]
    return [MetricEmbedding(4, **TINY).fit(blobs.x, y) for y in (numbers, names, None)]


def test_attributes_have_their_shapes(blobs, tiny):
    model = tiny[1]
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.labels_.shape == (300,)
    assert model.cluster_centers_.shape == (4, 2)
    np.testing.assert_allclose(np.sum(np.square(model.transform(blobs.x)), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(model.predict_proba(blobs.x).sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(blobs.x), model.labels_)
    assert {"loss", "anchors", "triplets", "barren", "phase"} <= model.epoch_history_[0].keys()
    assert tiny[0].classes_.tolist() == [0, 1, 2]
    assert tiny[2].classes_.size == 0


def test_numbers_and_names_of_classes_are_alike(blobs, tiny):
    one, two, plain = tiny
    np.testing.assert_array_equal(one.transform(blobs.x), two.transform(blobs.x))
    assert not np.array_equal(one.transform(blobs.x), plain.transform(blobs.x))
    none = MetricEmbedding(4, **TINY).fit(blobs.x, np.full(300, -1))
    np.testing.assert_array_equal(none.transform(blobs.x), plain.transform(blobs.x))
    unseen = MetricEmbedding(4, **TINY, loss="nt-xent").fit(blobs.x, blobs.y)
    np.testing.assert_array_equal(unseen.transform(blobs.x), plain.transform(blobs.x))


def test_images_have_convolutions_and_their_own_views(digits):
    model = MetricEmbedding(3, **TINY, image_shape=(8, 8))
    assert model._encode_labels(None, 20) is None
    made = model._make(nnx.Rngs(0), 64)
    assert isinstance(made.encoder, nets.ConvNet)
    assert made.views == image_views((8, 8))
    rows = jnp.asarray(digits[0][:20], jnp.float32)
    assert jax.eval_shape(lambda x: nnx.clone(made).loss(Batch(x), KEY)[0], rows).shape == ()


def test_an_encoder_of_the_caller_is_not_changed(blobs):
    encoder = nets.Projector((5, 8, 2), rngs=nnx.Rngs(0))
    before = np.array(encoder.last.kernel[...])
    model = MetricEmbedding(4, **TINY, encoder=encoder).fit(blobs.x, blobs.y)
    codes = map_module(model.module_, "features", model.scaling_.apply(blobs.x))
    np.testing.assert_array_equal(model.transform(blobs.x), codes)
    np.testing.assert_array_equal(encoder.last.kernel[...], before)
    assert not np.array_equal(model.module_.encoder.last.kernel[...], before)


def test_batches_without_any_positive_are_counted(blobs):
    few = np.full(300, -1)
    few[:4] = [0, 0, 1, 1]
    options = TINY | {"batch_size": 10, "views": None, "loss": "triplet"}
    with pytest.warns(ConvergenceWarning, match=r"in (\d+) of 60 batches no row had both a positive and a") as warnings:
        model = MetricEmbedding(4, **options).fit(blobs.x, few)
    count = sum(30 * record["barren"] for record in model.epoch_history_)
    assert 30 < count <= 60
    assert f"in {count:.0f} of 60 batches" in str(warnings[0].message)


@pytest.mark.parametrize(
    ("options", "y", "error", "message"),
    [
        ({"views": None}, None, ValueError, "loss='nt-xent' has no labels to learn from, and views=None"),
        ({"views": None, "loss": "triplet"}, np.full(300, -1), ValueError, "loss='triplet' has no labels"),
        ({"views": None, "loss": "nt-xent"}, np.arange(300) % 3, ValueError, "loss='nt-xent' has no labels"),
        ({"views": None}, np.arange(300), ValueError, "y has no class with two rows, and views=None"),
        ({"views": None}, np.zeros(300, int), ValueError, "y knows of one class only, and views=None"),
        ({}, [0, 1], ValueError, r"y has shape \(2,\), but X has 300 rows"),
        ({}, np.full(300, -2), ValueError, "y holds -2: no class has a number below -1"),
        ({"loss": "quadruplet"}, None, ValueError, "loss='quadruplet' is not known"),
        ({"mining": "easy"}, None, ValueError, "mining='easy' is not known"),
        ({"views": "none"}, None, ValueError, "views='none' is not known; choose one of 'auto'"),
        ({"views": 3}, None, TypeError, "views=3 must be 'auto', None, or called with a key and rows"),
        ({"margin": 0.0}, None, ValueError, "margin=0.0 must be greater than 0"),
    ],
)
def test_unusable_labels_are_answered_in_full(blobs, options, y, error, message):
    with pytest.raises(error, match=message):
        MetricEmbedding(4, **TINY | options).fit(blobs.x, y)

"""Joint clustering and classification: its loss by hand, what labels add on digits, and how they are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.base import clone
from sklearn.datasets import load_digits

from jaxcluster import metrics
from jaxcluster.deep import IDEC, Autoencoder, Batch, nets
from jaxcluster.deep.dec import JointClustering as Module
from jaxcluster.estimators.deep.checks import encode_classes
from jaxcluster.estimators.deep.dec import JointClustering
from jaxcluster.estimators.deep.latent_kmeans import AutoencoderKMeans

N, D, L, K = 24, 4, 2, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = np.where(np.arange(N) % 3 == 0, np.arange(N) % 2, -1).astype(np.int32)
CENTERS = RNG.normal(size=(K, L)).astype(np.float32)
KEY = jax.random.key(1)

SMALL = {
    "hidden": (16,),
    "latent": 3,
    "noise": 0.0,
    "pretrain_epochs": 40,
    "epochs": 3,
    "batch_size": 50,
    "learning_rate": 0.005,
    "n_init": 4,
    "random_state": 0,
    "select": "trained",
}
"""Networks for the blobs."""


def module(**options):
    rngs = nnx.Rngs(0)
    autoencoder = Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs))
    return Module(autoencoder, CENTERS, gamma=0.5, alpha=2.0, **options)


def batch(made, y):
    rows = jnp.asarray(X)
    return Batch(rows, made.refresh(made.features(rows), KEY).target, jnp.arange(N), y)


def test_the_loss_is_its_formula():
    made = module(weight=0.7)
    z = np.asarray(made.features(jnp.asarray(X)), np.float64)
    back = np.asarray(made.autoencoder.decoder(jnp.float32(z)), np.float64)
    q = (1 + np.sum((z[:, None] - CENTERS) ** 2, axis=2) / 2) ** (-3 / 2)
    q /= q.sum(1, keepdims=True)
    p = q**2 / q.sum(0)
    p /= p.sum(1, keepdims=True)
    terms = {
        "reconstruction": np.mean((X - back) ** 2),
        "clustering": np.mean(np.sum(p * np.log(p / q), axis=1)),
        "classification": -np.mean(np.log(q[np.arange(N), Y][Y >= 0])),
    }
    loss, record = made.loss(batch(made, jnp.asarray(Y)), KEY)
    for name, value in terms.items():
        np.testing.assert_allclose(record[name], value, rtol=1e-4)
    total = terms["reconstruction"] + 0.5 * terms["clustering"] + 0.7 * terms["classification"]
    np.testing.assert_allclose(loss, total, rtol=1e-5)


def learned(made, given):
    """The loss and its slopes, in one program."""
    return nnx.jit(nnx.value_and_grad(lambda each: each.loss(given, KEY)[0]))(made)


def test_without_labels_it_is_idec():
    made = module()
    loss, gradients = learned(IDEC(made.autoencoder, CENTERS, gamma=0.5, alpha=2.0), batch(made, None))
    for y in (None, jnp.full(N, -1)):
        found, own = learned(made, batch(made, y))
        np.testing.assert_allclose(found, loss, rtol=1e-6)
        for one, two in zip(*map(jax.tree.leaves, (own, gradients)), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-7)


def test_labels_draw_codes_to_their_centers():
    made = module(weight=5.0)
    given = batch(made, jnp.asarray(Y))
    gradients = learned(made, given)[1]["centers"][...]
    assert np.abs(np.asarray(gradients)).max() > 0
    updated = module(weight=5.0)
    updated.centers[...] = made.centers[...] - 0.1 * gradients
    assert updated.loss(given, KEY)[1]["classification"] < made.loss(given, KEY)[1]["classification"]


def test_the_module_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="weight=-1 must be at least 0"):
        module(weight=-1)


@pytest.fixture(scope="module")
def digits():
    """Rows to learn from and others, their digits, 100 labels as names, and networks of an autoencoder."""
    x, truth = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    learned, test = order[:1200], order[1200:]
    known = np.full(1200, None, object)
    for digit in range(10):
        some = np.flatnonzero(truth[learned] == digit)[:10]
        known[some] = "digit " + str(digit)
    pretrained = AutoencoderKMeans(10, hidden=(64, 128), pretrain_epochs=60, n_init=4, random_state=0).fit(x[learned])
    return x[learned], x[test], truth[test], known, pretrained.module_.autoencoder


@pytest.fixture(scope="module")
def fitted(digits):
    """With labels, and without."""
    x, _, _, known, networks = digits
    given = {"encoder": networks.encoder, "decoder": networks.decoder, "pretrain_epochs": 0, "epochs": 15, "n_init": 4}
    return [JointClustering(10, random_state=0, **given).fit(x, y) for y in (known, None)]


def test_a_hundred_labels_beat_none(digits, fitted):
    """On rows that were not learned from, by 5 of 100."""
    _, test, truth, _, _ = digits
    with_labels, without = (metrics.clustering_accuracy(truth, model.predict(test)) for model in fitted)
    assert with_labels >= without + 0.05
    assert with_labels >= 0.85


def test_clusters_stand_for_classes(digits, fitted):
    x, test, truth, known, _ = digits
    model = fitted[0]
    np.testing.assert_array_equal(model.classes_, [f"digit {digit}" for digit in range(10)])
    np.testing.assert_array_equal(model.classes_[model.predict(test)], model.predict_class(test))
    named = np.array([f"digit {digit}" for digit in truth])
    assert np.mean(model.predict_class(test) == named) >= 0.85
    labeled = np.array([value is not None for value in known])
    assert np.mean(model.classes_[model.labels_[labeled]] == known[labeled]) >= 0.95
    np.testing.assert_array_equal(model.predict(x), model.labels_)


def test_without_labels_there_are_no_classes(digits, fitted):
    assert fitted[1].classes_.size == 0
    with pytest.raises(ValueError, match="fitted without labels, and knows no classes. Pass y"):
        fitted[1].predict_class(digits[0])


def test_unknown_classes_get_their_own_clusters(blobs):
    """Two of four blobs are told of: all rows of the other two are found, in clusters that stand for no class."""
    y = np.where((np.arange(300) % 5 == 0) & (blobs.y >= 2), 10 * blobs.y, -1)
    model = JointClustering(4, **SMALL).fit(blobs.x, y)
    np.testing.assert_array_equal(model.classes_, [20, 30])
    assert metrics.adjusted_rand_score(blobs.y, model.labels_) > 0.95
    assert np.mean(model.labels_[blobs.y == 2] == 0) > 0.95
    assert np.mean(model.labels_[blobs.y == 3] == 1) > 0.95
    assert (model.predict_class(blobs.x[blobs.y == 2]) == 20).mean() > 0.95


def test_known_rows_start_in_their_clusters(blobs):
    """One row a class, its mean code far from that of its class: k-means with all rows comes to the class itself."""
    y = np.full(300, -1)
    for cluster in range(4):
        y[np.flatnonzero(blobs.y == cluster)[0]] = cluster
    model = JointClustering(4, **SMALL)
    codes = model._encode_labels(y, 300)
    z = blobs.x[:, 1:4] + 0
    start = model._start(jax.random.key(0), z, None, blobs.x, codes)
    means = np.stack([z[blobs.y == cluster].mean(0) for cluster in range(4)])
    np.testing.assert_allclose(start["centers"], means, atol=0.5)


def test_all_rows_may_be_known_or_none(blobs):
    model = JointClustering(4, **SMALL).fit(blobs.x, np.full(300, -1))
    plain = JointClustering(4, **SMALL).fit(blobs.x)
    np.testing.assert_array_equal(model.labels_, plain.labels_)
    assert model.classes_.size == 0
    assert JointClustering(4, **SMALL).fit(blobs.x, blobs.y).classes_.size == 4


def test_a_run_goes_on_only_with_the_same_labels(blobs, tmp_path):
    model = JointClustering(4, **SMALL | {"tol": None, "checkpoint_every": 1})
    whole = clone(model).fit(blobs.x, blobs.y, checkpoint_dir=tmp_path)
    again = clone(model).fit(blobs.x, blobs.y, checkpoint_dir=tmp_path, resume=True)
    np.testing.assert_array_equal(again.transform(blobs.x), whole.transform(blobs.x))
    with pytest.raises(ValueError, match="another configuration: y is"):
        model.fit(blobs.x, np.where(blobs.y == 0, -1, blobs.y), checkpoint_dir=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1], ValueError, r"y has shape \(2,\), but X has 300 rows"),
        (np.zeros((300, 1), int), ValueError, r"y has shape \(300, 1\), but X has 300 rows"),
        (np.arange(300) % 5, ValueError, "y has 5 classes, and there are n_clusters=4"),
        (np.arange(300) % 4 - 2, ValueError, "y holds -2: no class has a number below -1"),
        (np.full(300, 0.5), ValueError, "y holds 0.5, which is the number of no class"),
        (np.full(300, np.nan), ValueError, "y holds 300 NaN"),
        (np.full(300, np.inf), ValueError, "y holds infinity"),
    ],
)
def test_wrong_labels_are_answered_in_full(blobs, y, error, message):
    with pytest.raises(error, match=message):
        JointClustering(4, **SMALL).fit(blobs.x, y)


@pytest.mark.parametrize(
    ("y", "codes", "classes"),
    [
        ([5, -1, 3, 5], [1, -1, 0, 1], [3, 5]),
        (np.array([5.0, -1.0, 3.0]), [1, -1, 0], [3, 5]),
        (["b", None, "a"], [1, -1, 0], ["a", "b"]),
        (["b", -1, float("nan")], [0, -1, -1], ["b"]),
        (np.array(["b", "a"]), [1, 0], ["a", "b"]),
        ([True, False], [1, 0], [False, True]),
        (np.array([2, None, -1], object), [0, -1, -1], [2]),
        ([-1, -1], [-1, -1], []),
        ([None, None], [-1, -1], []),
        (np.array([3, 1], np.uint8), [1, 0], [1, 3]),
    ],
)
def test_classes_are_read_as_numbers(y, codes, classes):
    found = encode_classes(y, len(y))
    np.testing.assert_array_equal(found.codes, codes)
    assert found.codes.dtype == np.int32
    assert found.classes.tolist() == classes


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (["a", 1], TypeError, "values of type int, str"),
        (["a", "-1"], ValueError, "the string '-1'"),
        (np.array([1j, 2]), TypeError, "y has dtype complex128"),
        ([{}, "a"], TypeError, "values of type dict, str"),
    ],
)
def test_what_cannot_be_classes(y, error, message):
    with pytest.raises(error, match=message):
        encode_classes(y, len(y))

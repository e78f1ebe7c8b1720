"""Heads on fixed features: their losses by hand, neighbors, what they find, and what they say of bad input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

from jaxcluster import deep, load, losses
from jaxcluster.deep import Batch
from jaxcluster.deep.heads import Heads, nearest_neighbors
from jaxcluster.deep.inference import weights_of
from jaxcluster.estimators.deep.heads import SCAN, TEMI, TURTLE, ContrastiveClustering
from jaxcluster.report.html import fitted_parts
from jaxcluster.types import Status

N, D, K, H = 6, 4, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
PARTNERS = np.array([1, 0, 3, 2, 5, 4])
KEY = jax.random.key(0)
BATCH = Batch(jnp.asarray(X, jnp.float32), jnp.asarray(X[PARTNERS], jnp.float32))


def softmax(logits):
    logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return logits / logits.sum(axis=-1, keepdims=True)


def outputs(weights, x):
    """(n_heads, n, m) outputs of heads in float64."""
    found = []
    for h in range(len(weights[0][0])):
        z = np.float64(x)
        for i, (kernel, bias) in enumerate(weights):
            z = (np.maximum(z, 0) if i else z) @ np.float64(kernel[h]) + np.float64(bias[h])
        found.append(z)
    return np.stack(found)


def test_each_head_is_a_perceptron_of_its_own():
    heads = Heads((D, 5, K), H, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(heads(BATCH.x), outputs(heads.weights(), X), rtol=1e-5, atol=1e-6)
    wide = np.asarray(Heads((500, 200), 1, scale=0.1, rngs=nnx.Rngs(0))(jax.random.normal(KEY, (300, 500))))
    np.testing.assert_allclose(wide.std(), 0.1, rtol=0.02)


def test_neighbors_are_the_nearest_others():
    x = np.random.default_rng(1).normal(size=(50, 30))
    expected = NearestNeighbors(n_neighbors=4).fit(x).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest_neighbors(x, 4), expected)
    equal = nearest_neighbors(np.zeros((5, 2)), 3)
    assert (equal != np.arange(5)[:, None]).all()
    with pytest.raises(ValueError, match="m=5 neighbors were asked for, but each of 5 rows has 4"):
        nearest_neighbors(np.zeros((5, 2)), 5)
    with pytest.raises(ValueError, match=r"neighbors has shape \(3,\)"):
        deep.TEMI(D, K, np.zeros(3, int), rngs=nnx.Rngs(0))


def test_temi_steps_by_its_formulas():
    """Two steps: the teacher and its marginal probabilities are running means."""
    module = deep.TEMI(D, K, PARTNERS[:, None], hidden=(5,), n_heads=H, momentum=0.9, rngs=nnx.Rngs(0))
    weights = [(np.array(a), np.array(b)) for a, b in module.heads.weights()]
    start = [(a + 0.1, b - 0.2) for a, b in weights]
    for variable, leaf in zip(module.teacher, [leaf for layer in start for leaf in layer], strict=True):
        variable[...] = jnp.asarray(leaf)
    marginal, mean_losses = np.full((H, K), 1 / K), []
    for _ in range(2):
        start = [(0.9 * a + 0.1 * c, 0.9 * b + 0.1 * d) for (a, b), (c, d) in zip(start, weights, strict=True)]
        student, teacher = ([softmax(outputs(each, x) / 0.1) for x in (X, X[PARTNERS])] for each in (weights, start))
        marginal = 0.9 * marginal + 0.1 * np.mean(teacher, axis=(0, 2))
        weight = np.mean(np.sum(teacher[0] * teacher[1], axis=2), axis=0)
        terms = [
            np.log(np.sum((student[i] * teacher[1 - i]) ** 0.6 / marginal[:, None], axis=2)) * weight for i in (0, 1)
        ]
        expected = -np.mean(terms, axis=(0, 2))
        value, metrics = module.loss(BATCH, KEY)
        np.testing.assert_allclose(value, expected.mean(), rtol=1e-4)
        mean_losses.append(expected)
    assert 0 < float(metrics["used"]) <= 1
    np.testing.assert_allclose(module.losses[...], (0.99 * mean_losses[0] + mean_losses[1]) / 1.99, rtol=1e-4)
    np.testing.assert_allclose(module.teacher[0][...], start[0][0], rtol=1e-5)
    assert int(module.best) == np.argmin(mean_losses[0] + mean_losses[1])


def test_scan_learns_from_neighbors_then_from_itself():
    module = deep.SCAN(D, K, PARTNERS[:, None], n_heads=H, self_label_from=1, threshold=0.4, rngs=nnx.Rngs(0))
    weights = module.heads.weights()
    own, others = (np.log(softmax(outputs(weights, x))) for x in (X, X[PARTNERS]))
    mean = np.exp(own).mean(axis=1)
    expected = -np.mean(np.log(np.sum(np.exp(own + others), axis=2)), axis=1) + 5 * np.sum(mean * np.log(mean), axis=1)
    value, metrics = module.loss(BATCH, KEY)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    assert float(metrics["certain"]) == 0
    value, metrics = module.loss(BATCH, KEY)
    errors = []
    for h in range(H):
        best, certain = own[h].argmax(axis=1), np.exp(own[h].max(axis=1)) > 0.4
        clusters = [c for c in range(K) if np.any(certain & (best == c))]
        errors.append(np.mean([-np.mean(own[h, certain & (best == c), c]) for c in clusters]))
    np.testing.assert_allclose(value, np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(metrics["certain"], np.mean(np.exp(own.max(axis=2)) > 0.4), rtol=1e-6)
    np.testing.assert_allclose(module.losses[...], expected, rtol=1e-5)


def test_contrastive_clustering_adds_both_contrasts():
    module = deep.ContrastiveClustering(
        *(D, K),
        n_heads=H,
        hidden=(5,),
        projection=4,
        augment=lambda key, x: x + jax.random.normal(key, x.shape),
        rngs=nnx.Rngs(0),
    )
    views = [np.asarray(BATCH.x + jax.random.normal(key, BATCH.x.shape)) for key in jax.random.split(KEY)]
    first, second = (outputs(module.heads.weights(), view) for view in views)
    instance = np.array([losses.nt_xent_loss(first[h, :, :4], second[h, :, :4], temperature=0.5) for h in range(H)])
    log_p = [jnp.asarray(np.log(softmax(each[:, :, 4:]))) for each in (first, second)]
    value, metrics = module.loss(BATCH, KEY)
    np.testing.assert_allclose(metrics["instance"], np.mean(instance), rtol=1e-4)
    np.testing.assert_allclose(value, np.mean(instance + losses.cluster_contrastive_loss(*log_p)), rtol=1e-4)
    np.testing.assert_allclose(
        module.logits(BATCH.x), outputs(module.heads.weights(), X)[:, :, 4:], rtol=1e-4, atol=1e-5
    )


def test_turtle_trains_a_classifier_of_its_labels():
    """Two steps of the head, each after three of Adam, which go on from where they were."""
    module = deep.TURTLE(D, K, n_heads=H, inner_steps=3, inner_rate=0.1, rngs=nnx.Rngs(0))
    directions, scales = np.float64(module.directions[...]), np.float64(module.scales[...])
    kernels = scales * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    labels = softmax(outputs([(kernels, np.zeros((H, 1, K)))], X))
    w, first, second = np.zeros((H, D + 1, K)), 0.0, 0.0
    x = np.concatenate([X, np.ones((N, 1))], axis=1)
    for number in range(1, 7):
        gradient = np.stack([x.T @ (softmax(x @ w[h]) - labels[h]) / N for h in range(H)])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        w -= 0.1 * (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        if number == 3:
            module.loss(BATCH, KEY)
    value, _ = module.loss(BATCH, KEY)
    mean = labels.mean(axis=1)
    errors = [-np.mean(np.sum(labels[h] * np.log(softmax(x @ w[h])), axis=1)) for h in range(H)]
    np.testing.assert_allclose(value, np.mean(errors) + 10 * np.sum(mean * np.log(mean)) / H, rtol=1e-5)
    np.testing.assert_allclose(module.classifier[0][...], w[:, :D], rtol=1e-3, atol=1e-5)


def test_a_neighbor_of_each_row_is_drawn():
    neighbors = nearest_neighbors(X, 2)
    module = deep.TEMI(D, K, neighbors, n_heads=H, rngs=nnx.Rngs(0))
    result = module.refresh(BATCH.x, KEY)
    for row, target in enumerate(np.asarray(result.target)):
        assert any(np.array_equal(target, BATCH.x[i]) for i in neighbors[row])
    assert "neighbors" not in weights_of(module)
    assert not result.collapsed


TINY = {"n_heads": 2, "hidden": (), "epochs": 40, "batch_size": 100, "random_state": 0}


@pytest.fixture(scope="module")
def fitted(blobs):
    return TEMI(4, **TINY).fit(blobs.x)


def test_attributes_and_a_saved_head(blobs, fitted, tmp_path):
    np.testing.assert_allclose(np.exp(fitted.transform(blobs.x)), fitted.predict_proba(blobs.x), rtol=1e-4, atol=1e-6)
    for label in range(4):
        mean = blobs.x[fitted.labels_ == label].mean(axis=0)
        np.testing.assert_allclose(fitted.cluster_centers_[label], mean, rtol=1e-4, atol=1e-4)
    assert fitted.head_losses_.shape == (2,)
    assert list(fitted.get_feature_names_out()) == [f"temi{i}" for i in range(4)]
    assert {"loss", "used", "changed"} <= fitted.epoch_history_[-1].keys()
    fitted.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(blobs.x), fitted.transform(blobs.x))


def test_rows_of_zeros_have_no_direction(blobs):
    x = np.where(np.arange(300)[:, None] < 3, 0, blobs.x)
    model = TEMI(4, **TINY, scaling="l2").fit(x)
    assert np.isfinite(model.transform(x)).all()
    assert np.unique(model.labels_[:3]).size == 1


@pytest.mark.parametrize("method", [TEMI, SCAN, TURTLE, ContrastiveClustering])
def test_constant_rows_are_a_collapse(method):
    options = {name: value for name, value in TINY.items() if name != "hidden" or method is not TURTLE}
    with pytest.warns(ConvergenceWarning, match="the training collapsed: all rows are in one cluster. Look whether X"):
        model = method(4, **options).fit(np.ones((300, 5)))
    assert model.status_ == Status.COLLAPSED


def test_one_cluster_takes_all_rows(blobs):
    model = TEMI(1, **TINY | {"epochs": 2}).fit(blobs.x)
    assert (model.status_, np.unique(model.labels_).tolist()) == (Status.MAX_STEPS, [0])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (3, {}, "n_samples=3 should be >= n_clusters=4"),
        (1, {"n_clusters": 1, "batch_size": 1}, "n_samples=1 should be at least 2: TEMI learns from neighbors"),
        (50, {}, "batch_size=100 is more than n_samples=50"),
        (300, {"n_neighbors": 300}, "n_neighbors=300: each of 300 rows has 299 others"),
        (300, {"beta": 1.5}, "beta=1.5 must be at most 1"),
    ],
)
def test_what_a_head_cannot_be_is_named(blobs, rows, options, message):
    with pytest.raises(ValueError, match=message):
        TEMI(**{"n_clusters": 4} | TINY | options).fit(blobs.x[:rows])


def test_thresholds_are_probabilities(blobs):
    with pytest.raises(ValueError, match="threshold=1.5 must be less than 1"):
        SCAN(4, **TINY, threshold=1.5).fit(blobs.x)


def test_a_report_shows_the_training_of_a_head(blobs, fitted):
    parts = fitted_parts(fitted, blobs.x, None, None)
    assert parts["image_shape"] is None
    assert parts["training"].codes.shape == (300, 4)

"""ClusterGAN: its terms, the moves of its two sides, what it finds on digits, what it generates, and its collapses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import Status, kmeans, metrics
from jaxcluster.deep import Batch, adam, map_module, train
from jaxcluster.deep.clustergan import COLLAPSE_GRACE_STEPS, DenseGenerator, ImageEncoder, ImageGenerator, dense_encoder
from jaxcluster.deep.clustergan import ClusterGAN as Module
from jaxcluster.deep.inference import eval_copy
from jaxcluster.estimators.deep.clustergan import ClusterGAN

D, K, L = 5, 4, 3
KEY = jax.random.key(3)
TINY = {"hidden": (8,), "latent": L, "epochs": 2, "random_state": 0, "select": "trained"}
"""Networks that learn nothing, for what does not depend on it."""

MARGIN = 0.1
"""Share of the digits that a training puts right beyond those that the same network does untrained: it is .2 to .35 for
five seeds, which the last digits of a sum change."""


def made(cls=Module, **options):
    rngs = nnx.Rngs(0)
    parts = DenseGenerator((L + K, 8, D), rngs=rngs), dense_encoder((D, 8, 1), rngs=rngs)
    return cls(*parts, dense_encoder((D, 8, L + K), rngs=rngs), K, latent=L, **options)


def fit(module, x, **options):
    options = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 16, "optimizer": adam(1e-3, b1=0.5, b2=0.9), **options}
    return train(jax.random.key(0), module, x, **options)


def variables(module, *which):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, *which))]


def parameters_differ(one, two, name):
    """True if a parameter of a network differs between two modules."""
    return any(
        (a != b).any() for a, b in zip(*(variables(getattr(m, name), nnx.Param) for m in (one, two)), strict=True)
    )


def own_networks():
    """A generator and a critic of the caller's, for the estimator."""
    generator = DenseGenerator((L + K, 6, D), rngs=nnx.Rngs(1))
    return {"generator": generator, "critic": dense_encoder((D, 6, 1), rngs=nnx.Rngs(2))}


@pytest.fixture(scope="module")
def trained(blobs):
    return fit(made(), blobs.x)


# The terms.


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def dense(network, x):
    """A network of two dense layers in float64."""
    first, last = ((np.asarray(each.kernel[...], float), np.asarray(each.bias[...], float)) for each in network.layers)
    return leaky(x @ first[0] + first[1]) @ last[0] + last[1]


def generated(module, z):
    """Rows of codes in float64, normalized by the batch."""
    first, last = module.generator.layers
    inner = z @ np.asarray(first.kernel[...], float)  # a bias is taken off again
    inner = leaky((inner - inner.mean(0)) / np.sqrt(inner.var(0) + 1e-5))
    return inner @ np.asarray(last.kernel[...], float) + np.asarray(last.bias[...], float)


def test_the_critic_minimizes_the_formula(blobs):
    module, x = made(penalty=3.0), blobs.x[:16].astype(float)
    code_key, point_key = jax.random.split(KEY)
    fake = generated(module, np.asarray(module.draw(code_key, 16)[0], float))
    share = np.asarray(jax.random.uniform(point_key, (16, 1)), float)
    first, last = (np.asarray(each.kernel[...], float) for each in module.critic.layers)
    inner = (share * x + (1 - share) * fake) @ first + np.asarray(module.critic.layers[0].bias[...], float)
    gradients = (np.where(inner > 0, 1, 0.2) * last[:, 0]) @ first.T
    penalty = np.mean((np.sqrt(np.sum(gradients**2, axis=1)) - 1) ** 2)
    distance = dense(module.critic, x).mean() - dense(module.critic, fake).mean()
    loss, record = module.critic_loss(Batch(jnp.asarray(blobs.x[:16])), KEY)
    np.testing.assert_allclose(record["penalty"], penalty, rtol=1e-4)
    np.testing.assert_allclose(record["distance"], distance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loss, 3 * penalty - distance, rtol=1e-4)


def test_the_players_minimize_the_formula(blobs):
    module = made(code_weight=2.0, cluster_weight=0.5)
    z, labels = (np.asarray(each) for each in module.draw(KEY, 16))
    fake = generated(module, z.astype(float))
    found = dense(module.encoder, fake)
    code = np.mean((z[:, :L] - found[:, :L]) ** 2)
    cluster = np.mean([np.log(np.sum(np.exp(row[L:]))) - row[L + c] for row, c in zip(found, labels, strict=True)])
    adversarial = -dense(module.critic, fake).mean()
    loss, record = module.loss(Batch(jnp.asarray(blobs.x[:16])), KEY)
    for name, value in {"code": code, "cluster": cluster, "adversarial": adversarial}.items():
        np.testing.assert_allclose(record[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(loss, adversarial + 2 * code + 0.5 * cluster, rtol=1e-4)


def test_codes_are_noise_and_a_cluster(key):
    module = made(deviation=0.2)
    z, labels = (np.asarray(each) for each in module.draw(key, 4000))
    np.testing.assert_array_equal(z[:, L:], np.eye(K)[labels])
    np.testing.assert_allclose(np.bincount(labels) / 4000, 1 / K, atol=0.03)
    np.testing.assert_allclose(z[:, :L].std(0), 0.2, rtol=0.05)
    np.testing.assert_allclose(z[:, :L].mean(0), 0, atol=0.02)


# The training.


@pytest.mark.parametrize("moving", ["critic", "players"])
def test_each_turn_moves_its_own_side(blobs, moving):
    class Half(Module):
        update_phases = tuple(turn._replace(name="loss") for turn in made().update_phases if turn.parts == (moving,))

    after = fit(made(Half), blobs.x, epochs=1, steps_per_epoch=1).module
    assert parameters_differ(made(), after, "critic") == (moving == "critic")
    assert all(parameters_differ(made(), after, name) == (moving == "players") for name in ("generator", "encoder"))


def test_the_critic_has_several_moves_a_step():
    assert [turn.steps for turn in made().update_phases] == [5, 1]
    assert [turn.steps for turn in made(critic_steps=2).update_phases] == [2, 1]


def test_the_same_key_gives_the_same_run(blobs, trained, compiles):
    with compiles() as seen:
        again = fit(made(), blobs.x)
    assert seen.count == 0
    for one, two in zip(variables(trained.module), variables(again.module), strict=True):
        np.testing.assert_array_equal(one, two)
    names = {"epoch", "step", "critic", "distance", "penalty", "loss", "adversarial", "code", "cluster", "seconds"}
    assert [set(record) - names for record in again.history] == [set(), {"changed"}]
    assert all(np.isfinite(list(record.values())).all() for record in again.history)


# Clusters.


def test_clusters_are_k_means_named_by_one_hots(blobs, trained):
    module = nnx.clone(trained.module)
    rng = np.random.default_rng(0)
    truth = np.tile([2, 0, 3], 20)  # nothing is in cluster 1
    probabilities = np.eye(K)[truth] * 0.8 + 0.05
    z = np.concatenate([0.1 * rng.normal(size=(60, L)), probabilities], axis=1).astype(np.float32)
    z[-1] = 3.0  # far from all others, to be had by the cluster that has no rows
    found = module.refresh(jnp.asarray(z), KEY)
    np.testing.assert_array_equal(found.labels[:-1], truth[:-1])
    assert found.labels[-1] == 1
    np.testing.assert_allclose(module.centers[...][2], z[:-1][truth[:-1] == 2].mean(0), rtol=1e-5, atol=1e-6)
    within = np.mean((z - np.asarray(module.centers[...])[found.labels]) ** 2)
    np.testing.assert_allclose(module.variance[...], within, rtol=1e-4)
    np.testing.assert_array_equal(np.argmax(module.assign(jnp.asarray(z)), axis=1), found.labels)


def test_labels_are_those_of_the_trained_module(blobs, trained):
    z = trained.module.features(jnp.asarray(blobs.x))
    assert z.shape == (300, L + K)
    np.testing.assert_allclose(z[:, L:].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(trained.labels, kmeans.predict(trained.module.centers[...], z))


# Collapse.


class Fixed(nnx.Module):
    """The same for every row."""

    def __init__(self, *values):
        self.values = nnx.Param(jnp.asarray(values, jnp.float32))

    def __call__(self, x):
        return jnp.broadcast_to(self.values[...], (x.shape[0], self.values.shape[0]))


def collapsed(module, x):
    return bool(module.refresh(module.features(jnp.asarray(x)), KEY).collapsed)


def test_untrained_and_trained_are_no_collapse(blobs, trained):
    assert not collapsed(made(), blobs.x)
    assert not collapsed(trained.module, blobs.x)


def test_encoder_of_one_cluster_is_a_collapse(blobs):
    module = made()
    module.encoder.layers[-1].bias[...] = jnp.zeros(L + K).at[L + 2].set(9.0)
    assert not collapsed(module, blobs.x)
    module.moves[...] = jnp.int32(COLLAPSE_GRACE_STEPS)
    assert collapsed(module, blobs.x)


def test_equal_codes_or_draws_are_a_collapse(blobs):
    module = made()
    assert collapsed(module, np.ones((20, D)))
    noise_alone = made()
    noise_alone.generator.layers[0].kernel[...] = noise_alone.generator.layers[0].kernel[...].at[L:].set(0)
    noise_alone.eval()
    assert collapsed(noise_alone, blobs.x)
    assert collapsed(Module(Fixed(*range(D)), module.critic, module.encoder, K, latent=L), blobs.x)


def test_one_cluster_is_no_collapse(blobs):
    rngs = nnx.Rngs(0)
    parts = DenseGenerator((L + 1, 8, D), rngs=rngs), dense_encoder((D, 8, 1), rngs=rngs)
    assert not collapsed(Module(*parts, dense_encoder((D, 8, L + 1), rngs=rngs), 1, latent=L), blobs.x)


def test_a_collapse_ends_the_training(blobs):
    module = made()
    stuck = Module(module.generator, module.critic, Fixed(*range(L + K)), K, latent=L)
    ending = fit(stuck, blobs.x, epochs=9, steps_per_epoch=1)
    assert ending.status is Status.COLLAPSED
    assert len(ending.history) == 2


def test_rows_that_are_all_the_same_are_a_collapse():
    with pytest.warns(ConvergenceWarning, match="all clusters are alike, or those of X are all in one"):
        model = ClusterGAN(K, **TINY | {"epochs": 1}, **own_networks()).fit(np.full((300, D), 7.0))
    assert model.status_ is Status.COLLAPSED
    assert all(np.isfinite(value).all() for value in model._weights.values())


# Use.


def test_one_cluster_is_generated_or_all(key, trained):
    module = trained.module
    rows, labels = module.generate(key, 200)
    assert rows.shape == (200, D)
    assert set(np.asarray(labels)) == set(range(K))
    some, same = module.generate(key, 5, cluster=2)
    np.testing.assert_array_equal(same, 2)
    np.testing.assert_allclose(some[:1], module.generator(module.draw(key, 5, 2)[0][:1]), rtol=1e-5)


def test_the_way_from_one_cluster_to_another(key, trained):
    module = trained.module
    rows = module.interpolate(key, 1, 3, 5)
    noise = 0.1 * jax.random.normal(key, (L,))
    for i, share in ((0, 0.0), (1, 0.25), (4, 1.0)):
        code = jnp.concatenate([noise, (1 - share) * jnp.eye(K)[1] + share * jnp.eye(K)[3]])
        np.testing.assert_allclose(rows[i], module.generator(code[None])[0], rtol=1e-4, atol=1e-6)


called = nnx.jit(lambda network, x: network(x))


def test_images_of_any_size_have_networks():
    for shape in ((8, 8), (7, 10, 3)):
        rngs, flat = nnx.Rngs(0), int(np.prod(shape))
        generator = ImageGenerator(6, shape, channels=(4, 6), dense=5, rngs=rngs)
        reader = ImageEncoder(shape, 3, channels=(4, 6), dense=5, rngs=rngs)
        rows = called(generator, jax.random.normal(KEY, (4, 6)))
        assert rows.shape == (4, flat)
        assert rows.min() > 0
        assert rows.max() < 1
        read = called(reader, rows)
        assert read.shape == (4, 3)
        np.testing.assert_array_equal(read, called(reader, rows.reshape(4, *shape)))


# The estimator.


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data[:800], data.target[:800]


@pytest.fixture(scope="module")
def of_digits(digits):
    return ClusterGAN(10, hidden=(64, 64), latent=10, epochs=6, random_state=0).fit(digits[0])


def test_training_beats_the_same_network_untrained(digits, of_digits):
    X, truth = digits
    untrained = eval_copy(of_digits._make(nnx.Rngs(0), 64))
    looked = untrained.refresh(map_module(untrained, "features", of_digits.scaling_.apply(X)), KEY)
    reached, before = (metrics.clustering_accuracy(truth, labels) for labels in (of_digits.labels_, looked.labels))
    assert reached >= before + MARGIN


def test_generated_rows_are_of_their_cluster(of_digits):
    for cluster in (0, 7):
        rows, labels = of_digits.sample(50, cluster=cluster)
        assert (labels == cluster).all()
        assert np.mean(of_digits.predict(rows) == cluster) > 0.9
    way = of_digits.interpolate(0, 7, steps=9)
    np.testing.assert_array_equal(of_digits.predict(way)[[0, -1]], [0, 7])


def test_attributes_and_use(digits, of_digits):
    X = digits[0]
    np.testing.assert_array_equal(of_digits.predict(X), of_digits.labels_)
    np.testing.assert_allclose(of_digits.predict_proba(X[:9]).sum(1), 1, rtol=1e-5)
    assert of_digits.transform(X[:9]).shape == (9, 20)
    assert of_digits.cluster_centers_.shape == (10, 20)
    assert len(of_digits.get_feature_names_out()) == 20
    assert of_digits.n_iter_ == len(of_digits.history_) == 6
    assert of_digits.epoch_history_[-1]["code"] > 0
    rows, _ = of_digits.sample(400)  # in the units of X
    np.testing.assert_allclose(rows.mean(), X.mean(), rtol=0.1)


def test_images_as_rows(digits):
    options = TINY | {"epochs": 1, "critic_steps": 1, "image_shape": (8, 8), "channels": (2,)}
    model = ClusterGAN(3, **options).fit(digits[0][:64])
    assert isinstance(model.module_.generator, ImageGenerator)
    rows, _ = model.sample(20)
    assert rows.min() >= 0
    assert rows.max() <= 16
    assert not ClusterGAN(3, **options, scaling="standard")._make(nnx.Rngs(0), 64).generator.bounded


def test_any_networks_may_play(blobs):
    own = own_networks()
    before = variables(own["generator"])
    model = ClusterGAN(K, **TINY | {"epochs": 1}, **own).fit(blobs.x)
    np.testing.assert_array_equal(before[0], variables(own["generator"])[0])
    assert model.module_.generator.layers[0].kernel.shape == (L + K, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deviation": 0.0}, r"deviation=0.0 must be greater than 0"),
        ({"code_weight": -1.0}, r"code_weight=-1.0 must be at least 0"),
        ({"cluster_weight": -1.0}, r"cluster_weight=-1.0 must be at least 0"),
        ({"penalty": -1.0}, r"penalty=-1.0 must be at least 0"),
        ({"critic_steps": 0}, r"critic_steps=0 must be at least 1"),
        ({"encoder": dense_encoder((D, 9), rngs=nnx.Rngs(0))}, r"shape \(1, 9\) .* latent=3 and n_clusters=4 ask for"),
        ({"generator": DenseGenerator((L + K, 4), rngs=nnx.Rngs(0))}, r"rows of shape \(1, 4\) .* X has 5 columns"),
        (
            {"critic": dense_encoder((D, 2), rngs=nnx.Rngs(0))},
            r"scores of shape \(1, 2\) for one row; expected \(1, 1\)",
        ),
        ({"batch_size": 1000}, r"batch_size=1000 is more than n_samples=300"),
        ({"image_shape": (3, 3)}, r"image_shape=\(3, 3\) makes 9 values an image, but X has 5 columns"),
    ],
)
def test_a_wrong_option_is_answered_in_full(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        ClusterGAN(K, **TINY | options).fit(blobs.x)


def test_clusters_that_there_are_not(key, trained):
    with pytest.raises(ValueError, match="cluster=4 must be from 0 to 3"):
        trained.module.generate(key, 1, cluster=4)
    with pytest.raises(ValueError, match="b=-1 must be from 0 to 3"):
        trained.module.interpolate(key, 0, -1, 3)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        trained.module.interpolate(key, 0, 1, 0)

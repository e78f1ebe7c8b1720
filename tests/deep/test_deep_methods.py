"""The modules of DEC, IDEC, DCN, denoising clustering and VaDE are their formulas, and learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcluster import kmeans, losses, soft_kmeans
from jaxcluster.deep import (
    DCN,
    DEC,
    DKM,
    IDEC,
    Autoencoder,
    Batch,
    DenoisingClustering,
    LatentKMeans,
    VaDE,
    adam,
    nets,
    train,
    views,
)
from jaxcluster.types import Status

N, D, L, K, BATCH = 48, 4, 2, 3, 8
RNG = np.random.default_rng(0)
X = (np.repeat(np.eye(K, D) * 4, N // K, axis=0) + RNG.normal(size=(N, D))).astype(np.float32)
ROWS = jnp.asarray(X)
CENTERS = RNG.normal(size=(K, L)).astype(np.float32)
KEY = jax.random.key(5)
SHARES = np.array([0.5, 0.3, 0.2], np.float32)
VARIANCES = np.array([[0.5, 1], [1, 2], [0.3, 0.2]], np.float32)
METHODS = ("DEC", "IDEC", "DCN", "DKM", "denoising", "VaDE")


class Watched(DEC):
    """DEC that takes note of how far the targets of its batches are from one that it was told."""

    expected = None

    def loss(self, batch, key):
        loss, _ = super().loss(batch, key)
        return loss, {"gap": jnp.max(jnp.abs(batch.target - self.expected[batch.index]))}


class Identity(nnx.Module):
    """The identity."""

    def __call__(self, x):
        return x


def autoencoder(**options):
    rngs = nnx.Rngs(0)
    return Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs), **options)


def variational(likelihood="gaussian"):
    rngs = nnx.Rngs(0)
    encoder = nets.VariationalEncoder(nets.MLP((D, 6), rngs=rngs), nets.GaussianHead(6, L, rngs=rngs))
    return Autoencoder(encoder, nets.MLP((L, 6, D), rngs=rngs), likelihood=likelihood)


def make(name):
    if name == "DEC":
        module = Watched(autoencoder(), CENTERS)
        # Of all rows, as they are coded at first.
        Watched.expected = losses.target_distribution(module.assign(module.features(ROWS)))
        return module
    if name == "IDEC":
        return IDEC(autoencoder(), CENTERS, gamma=0.5)
    if name == "DCN":
        return DCN(autoencoder(), CENTERS, jnp.full(K, 4), weight=0.5)
    if name == "DKM":
        return DKM(autoencoder(), CENTERS, weight=0.5, alpha=1.0, annealed=True)
    if name == "denoising":
        return DenoisingClustering(autoencoder(noise=views.Masking(0.25)), CENTERS, weight=0.3)
    return VaDE(variational(), SHARES, CENTERS, VARIANCES)


def fit(module, **options):
    options = {"epochs": 1, "steps_per_epoch": 24, "batch_size": BATCH, "optimizer": adam(3e-3), **options}
    return train(jax.random.key(0), module, X, **options)


@pytest.fixture(scope="module")
def trained():
    """Each method, trained for four passes over the samples."""
    return {name: fit(make(name)) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls(name, trained):
    """The loss of all samples, for the targets of the first refresh."""
    start = make(name)
    batch = Batch(ROWS, start.refresh(start.features(ROWS), KEY).target, jnp.arange(N))
    before = nnx.clone(start).loss(batch, KEY)[0]
    module = nnx.clone(trained[name].module)
    if name == "denoising":  # whose second look has moved what the loss is measured by
        module.centers[...], module.spread[...] = start.centers[...], start.spread[...]
    after = module.loss(batch, KEY)[0]
    assert np.isfinite(after)
    assert float(after) < 0.95 * float(before)


@pytest.mark.parametrize("name", METHODS)
def test_labels_are_those_of_the_trained_module(name, trained):
    module, labels = trained[name].module, trained[name].labels
    assert labels.dtype == np.int32
    assignments = module.assign(module.features(ROWS))
    np.testing.assert_allclose(assignments.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels, np.argmax(assignments, axis=1))


def test_target_of_dec_is_of_all_rows_for_an_epoch(trained):
    module, record = make("DEC"), trained["DEC"].history[0]
    assert record["gap"] < 1e-5
    found = module.refresh(module.features(ROWS), KEY)
    np.testing.assert_allclose(found.target, Watched.expected, rtol=1e-5)
    of_batch = losses.target_distribution(module.assign(module.features(ROWS[:BATCH])))
    assert np.abs(of_batch - found.target[:BATCH]).max() > 1e-2  # no per-batch target would pass


def test_dec_leaves_the_decoder_and_idec_does_not(trained):
    for name, same in (("DEC", True), ("IDEC", False)):
        old, new = make(name).autoencoder, trained[name].module.autoencoder
        for part in ("encoder", "decoder"):
            pairs = zip(*(jax.tree.leaves(nnx.state(getattr(each, part))) for each in (old, new)), strict=True)
            equal = [np.array_equal(a, b) for a, b in pairs]
            assert all(equal) if same and part == "decoder" else not any(equal)
        assert not np.array_equal(trained[name].module.centers[...], CENTERS)


def test_dec_stops_when_few_rows_change(compiles):
    module = Watched(autoencoder(), 0.3 * np.random.default_rng(3).normal(size=(K, L)))
    fit(module)
    with compiles() as seen:
        ending = fit(module, epochs=60, tol=0.03)
    assert seen.count == 0
    assert ending.status is Status.CONVERGED
    assert 1 < len(ending.history) < 60
    assert all(record["changed"] > 0.03 for record in ending.history[1:])
    labels = np.argmax(ending.module.assign(ending.module.features(ROWS)), axis=1)
    np.testing.assert_array_equal(ending.labels, labels)


def numbers(module, x=X):
    """Codes and what comes back of them, in float64."""
    z = module.autoencoder.encode(jnp.asarray(x))
    return np.asarray(z, np.float64), np.asarray(module.autoencoder.decoder(z), np.float64)


def test_idec_is_its_formula():
    module = IDEC(autoencoder(), CENTERS, gamma=0.5, alpha=2.0)
    z, back = numbers(module)
    squares = np.sum((z[:, None] - CENTERS) ** 2, axis=2)
    q = (1 + squares / 2) ** (-3 / 2)
    q /= q.sum(1, keepdims=True)
    p = q**2 / q.sum(0)
    p /= p.sum(1, keepdims=True)
    divergence = np.mean(np.sum(p * np.log(p / q), axis=1))
    found = module.refresh(module.features(ROWS), KEY)
    np.testing.assert_allclose(found.target, p, rtol=1e-4)
    np.testing.assert_array_equal(found.labels, squares.argmin(1))
    loss, record = module.loss(Batch(ROWS, found.target), KEY)
    error = np.mean((X - back) ** 2)
    np.testing.assert_allclose(loss, error + 0.5 * divergence, rtol=1e-5)
    np.testing.assert_allclose(record["reconstruction"], error, rtol=1e-5)
    np.testing.assert_allclose(record["clustering"], divergence, rtol=1e-4)


def test_dcn_is_its_formula_with_running_means():
    """As if rows came one after the other; a center that has had no row stays where it is."""
    centers = np.concatenate([CENTERS, [[50.0, 50.0]]]).astype(np.float32)
    counts = np.array([4, 1, 0, 0])
    module = DCN(autoencoder(), centers, counts, weight=0.5)
    expected, had = centers.astype(np.float64), counts.copy()
    for some in (X[:30], X[20:]):
        z, back = numbers(module, some)
        labels = np.sum((z[:, None] - np.asarray(module.centers[...], np.float64)) ** 2, axis=2).argmin(1)
        distance = np.mean(np.sum((z - np.asarray(module.centers[...])[labels]) ** 2, axis=1))
        error = np.mean(np.sum((some - back) ** 2, axis=1))
        loss, record = module.loss(Batch(jnp.asarray(some)), KEY)
        np.testing.assert_allclose(loss, error + 0.5 / 2 * distance, rtol=1e-5)
        np.testing.assert_allclose(record["clustering"], distance, rtol=1e-5)
        for row, label in zip(z, labels, strict=True):
            had[label] += 1
            expected[label] += (row - expected[label]) / had[label]
        np.testing.assert_allclose(module.centers[...], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(module.counts[...], had)
    assert had[3] == 0
    np.testing.assert_array_equal(module.centers[...][3], centers[3])


def test_centers_of_dcn_move_by_their_rule_alone(trained):
    """In a training too: counts are those of all rows that were seen, and the rule has no gradient."""
    module = trained["DCN"].module
    assert int(module.counts[...].sum()) == 4 * K + 24 * BATCH
    _, params, rest = nnx.split(make("DCN"), nnx.Param, ...)
    assert "centers" not in params
    assert "centers" in rest


def test_deep_k_means_is_its_formula_with_annealing():
    module = make("DKM")
    alpha = 0.1
    for number in (1, 2, 3, 4):
        module.refresh(module.features(ROWS), KEY)
        alpha = min(1.0, alpha * 2 ** (1 / np.log(number) ** 2)) if number > 1 else alpha
        np.testing.assert_allclose(module.alpha[...], alpha, rtol=1e-5)
        z, back = numbers(module, X)
        squares = np.sum((z[:, None] - CENTERS) ** 2, axis=2)
        shares = np.exp(-module.alpha[...] * (squares - squares.min(axis=1, keepdims=True)))
        clustering = np.mean(np.sum(shares * squares, axis=1) / shares.sum(axis=1))
        loss, record = module.loss(Batch(ROWS), KEY)
        np.testing.assert_allclose(record["clustering"], clustering, rtol=1e-4)
        np.testing.assert_allclose(loss, np.mean(np.sum((X - back) ** 2, axis=1)) + 0.5 * clustering, rtol=1e-5)
    assert "centers" in nnx.split(module, nnx.Param, ...)[1]


def test_denoising_clustering_is_its_formula():
    module = make("denoising")
    z = module.features(ROWS)
    expected = kmeans.fit(KEY, z, K, init=CENTERS)
    found = module.refresh(z, KEY)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.target, expected.labels)
    np.testing.assert_allclose(module.centers[...], expected.state.centers, rtol=1e-6)
    spread = np.sum(np.var(np.asarray(z, np.float64), axis=0))
    np.testing.assert_allclose(module.spread[...], spread, rtol=1e-5)
    spoiled = np.asarray(module.autoencoder.noise(jax.random.split(KEY)[1], ROWS))
    assert 0.1 < np.mean(spoiled == 0) < 0.4
    of_spoiled, back = numbers(module, spoiled)
    gap = of_spoiled - np.asarray(module.centers[...])[np.asarray(found.labels)]
    wanted = np.mean((X - back) ** 2) + 0.3 * np.mean(np.sum(gap**2, axis=1)) / spread
    loss, _ = module.loss(Batch(ROWS, found.target), KEY)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_code_kmeans_measures_its_clusters():
    module = LatentKMeans(autoencoder(), CENTERS)
    z = module.features(ROWS)
    found = module.refresh(z, KEY)
    squares = np.sum((np.asarray(z, np.float64)[:, None] - CENTERS) ** 2, axis=2)
    np.testing.assert_array_equal(found.labels, squares.argmin(1))
    assert found.target is None
    np.testing.assert_allclose(module.variance[...], squares.min(1).mean() / L, rtol=1e-5)
    assignments = soft_kmeans.responsibilities(jnp.asarray(CENTERS), z, module.variance[...])
    np.testing.assert_allclose(module.assign(z), assignments, rtol=1e-6)
    np.testing.assert_array_equal(module.labels(z), found.labels)


def log_normal(z, mean, variance):
    return -0.5 * np.sum(np.log(2 * np.pi * variance) + (z - mean) ** 2 / variance, axis=-1)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_vade_is_its_bound(likelihood):
    """Σ_c γ_c·(…) in NumPy, given the same noise."""
    module = VaDE(variational(likelihood), SHARES, CENTERS, VARIANCES)
    x = np.asarray(jax.nn.sigmoid(ROWS))
    mean, log_variance = (np.asarray(each, np.float64) for each in module.autoencoder.encoder(jnp.asarray(x)))
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (N, L)), np.float64)
    variance = np.exp(log_variance)
    z = mean + np.sqrt(variance) * noise
    decoded = np.asarray(module.autoencoder.decoder(jnp.asarray(z, jnp.float32)), np.float64)
    log_joint = np.log(SHARES) + log_normal(z[:, None], CENTERS, VARIANCES)
    gamma = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))
    probability = 1 / (1 + np.exp(-decoded))
    rebuilt = {
        "gaussian": np.sum((x - decoded) ** 2, axis=1) / 2,
        "bernoulli": -np.sum(x * np.log(probability) + (1 - x) * np.log(1 - probability), axis=1),
    }[likelihood]
    gap = np.log(VARIANCES) + (variance[:, None] + (mean[:, None] - CENTERS) ** 2) / VARIANCES
    divergence = (
        np.sum(gamma * (gap.sum(2) / 2 - np.log(SHARES / gamma)), axis=1) - np.sum(1 + log_variance, axis=1) / 2
    )
    loss, record = module.loss(Batch(jnp.asarray(x)), KEY)
    np.testing.assert_allclose(record["reconstruction"], rebuilt.mean(), rtol=1e-5)
    np.testing.assert_allclose(record["divergence"], divergence.mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, (rebuilt + divergence).mean(), rtol=1e-5)
    np.testing.assert_array_equal(module.features(jnp.asarray(x)), np.float32(mean))


def test_vade_draws_from_mixture_and_clusters():
    means = np.array([[-30, 0], [0, 30], [30, 0]], np.float32)
    module = VaDE(Autoencoder(Identity(), Identity()), SHARES, means, VARIANCES)
    for cluster in range(K):
        rows, labels = module.sample(KEY, 4000, cluster)
        np.testing.assert_array_equal(labels, np.full(4000, cluster))
        np.testing.assert_allclose(rows.mean(0), means[cluster], atol=5 * np.sqrt(VARIANCES[cluster].max() / 4000))
        np.testing.assert_allclose(rows.var(0), VARIANCES[cluster], rtol=0.12)
        np.testing.assert_array_equal(module.refresh(rows, KEY).labels, labels)
    rows, labels = module.sample(KEY, 4000)
    np.testing.assert_allclose(np.bincount(labels) / 4000, SHARES, atol=0.03)
    np.testing.assert_array_equal(module.refresh(rows, KEY).labels, labels)
    with pytest.raises(ValueError, match="cluster=3 must be from 0 to 2"):
        module.sample(KEY, 4, 3)
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        module.sample(KEY, 0)


@pytest.mark.parametrize("name", ["DEC", "IDEC", "DCN", "denoising", "VaDE"])
def test_a_view_stands_for_the_rows(name):
    """Twice the rows as a view of them are the rows twice: in every term, and in what comes back."""
    twice = lambda key, x: 2 * x  # noqa: E731
    made = {
        "DEC": lambda view: DEC(autoencoder(), CENTERS, augment=view),
        "IDEC": lambda view: IDEC(autoencoder(), CENTERS, augment=view),
        "DCN": lambda view: DCN(autoencoder(), CENTERS, jnp.ones(K), augment=view),
        "denoising": lambda view: DenoisingClustering(autoencoder(augment=view), CENTERS),
        "VaDE": lambda view: VaDE(variational(), SHARES, CENTERS, VARIANCES, augment=view),
    }[name]
    target = made(None).refresh(made(None).features(ROWS), KEY).target
    seen, plain = (made(twice).loss(Batch(ROWS, target), KEY), made(None).loss(Batch(2 * ROWS, target), KEY))
    np.testing.assert_allclose(seen[0], plain[0], rtol=1e-6)
    assert abs(float(seen[0]) - float(made(None).loss(Batch(ROWS, target), KEY)[0])) > 1e-3


def test_what_the_modules_refuse():
    for method in (DEC, IDEC, LatentKMeans, DenoisingClustering):
        with pytest.raises(ValueError, match="centers must be 2-D"):
            method(autoencoder(), CENTERS[0])
    with pytest.raises(ValueError, match=r"counts must have shape \(3,\), one a center, got \(2,\)"):
        DCN(autoencoder(), CENTERS, np.ones(2))
    with pytest.raises(ValueError, match="alpha=0 must be greater than 0"):
        DEC(autoencoder(), CENTERS, alpha=0)
    with pytest.raises(ValueError, match="gamma=-1 must be at least 0"):
        IDEC(autoencoder(), CENTERS, gamma=-1)
    for method, more in ((DCN, [np.ones(K)]), (DKM, []), (DenoisingClustering, [])):
        with pytest.raises(ValueError, match="weight=-1 must be at least 0"):
            method(autoencoder(), CENTERS, *more, weight=-1)
    with pytest.raises(ValueError, match=r"need weights of shape \(3,\) and variances of \(3, 2\), got \(2,\)"):
        VaDE(variational(), SHARES[:2], CENTERS, VARIANCES)
    with pytest.raises(TypeError, match=r"needs an encoder that returns \(mean, log-variance\)"):
        VaDE(autoencoder(), SHARES, CENTERS, VARIANCES).loss(Batch(ROWS), KEY)


def test_autoencoder_decodes_the_mean_of_its_code():
    module = variational()
    expected = module.error(ROWS, module.decoder(module.encode(ROWS)))
    np.testing.assert_allclose(module.loss(Batch(ROWS), KEY)[0], expected, rtol=1e-6)

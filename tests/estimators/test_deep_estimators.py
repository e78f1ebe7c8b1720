"""The deep estimators: what they find on digits, what they refuse, and that a run cut short ends as a whole one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxcluster import (
    DCN,
    DEC,
    IDEC,
    AutoencoderKMeans,
    DenoisingAutoencoderClustering,
    KMeans,
    VaDE,
    load,
    metrics,
)
from jaxcluster.deep import nets
from jaxcluster.deep.views import GaussianNoise
from jaxcluster.estimators.deep.scaling import scaled
from jaxcluster.sharding import row_mesh

MARGINS = {
    "AutoencoderKMeans": -0.02,
    "DenoisingAutoencoderClustering": 0.01,
    "DEC": 0.01,
    "IDEC": 0.01,
    "DCN": -0.01,
    "VaDE": 0.0,
}
"""Shares of the digits that each method puts right beyond those that k-means does on the raw pixels: two deviations
over seeds (0.009 each) below the shares of one of them, since the last bits of a training are those of the version of
XLA."""

DEEP = [AutoencoderKMeans, DenoisingAutoencoderClustering, DEC, IDEC, DCN, VaDE]

TINY = {
    "hidden": (8,),
    "latent": 2,
    "pretrain_epochs": 3,
    "epochs": 3,
    "batch_size": 50,
    "random_state": 0,
    "select": "trained",
}
"""Networks that learn nothing, for what does not depend on it: all of them are trained by the same programs."""


@pytest.fixture(scope="module")
def tiny(blobs):
    """The tiny estimator of a method, fitted to the blobs once."""
    return cache(lambda method: method(4, **TINY, tol=None).fit(blobs.x))


@parametrize_with_checks(
    [DEC(3, hidden=(4,), latent=2, pretrain_epochs=0, epochs=1, update_interval=1, n_init=1, select="trained")]
)
def test_scikit_learn_contract(estimator, check):
    if getattr(check, "func", check).__name__ == "check_do_not_raise_errors_in_init_or_set_params":
        pytest.skip("the tests check the types of arguments at every call, before the estimator may let them through")
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Rows, their digits, and the share of them that k-means on the raw pixels puts right."""
    data = load_digits()
    found = KMeans(10, n_init=10, random_state=0).fit(data.data)
    return data.data, data.target, metrics.clustering_accuracy(data.target, found.labels_)


@pytest.fixture(scope="module")
def pretrained(digits):
    """The baseline on digits: the other methods begin with its networks."""
    return AutoencoderKMeans(10, hidden=(128, 128, 256), pretrain_epochs=150, random_state=0).fit(digits[0])


def beats_pixels(labels, digits, margin):
    _, truth, pixels = digits
    assert metrics.clustering_accuracy(truth, labels) >= pixels + margin


def test_codes_separate_digits_as_well_as_pixels(digits, pretrained):
    """Over seeds, accuracies of the codes are 0.011 ± 0.009 above that of the pixels: one seed proves no more."""
    x, truth, _ = digits
    beats_pixels(pretrained.labels_, digits, MARGINS["AutoencoderKMeans"])
    untrained = AutoencoderKMeans(10, hidden=(128, 128, 256), pretrain_epochs=0, random_state=0).fit(x)
    found = [metrics.clustering_accuracy(truth, labels) for labels in (pretrained.labels_, untrained.labels_)]
    assert found[0] >= found[1] + 0.05


@pytest.mark.parametrize("method", [DEC, IDEC, DCN, DenoisingAutoencoderClustering])
def test_trained_clusters_beat_pixels(digits, pretrained, method):
    networks = pretrained.module_.autoencoder
    given = {"encoder": networks.encoder, "decoder": networks.decoder, "pretrain_epochs": 0}
    model = method(10, epochs=40, random_state=0, **given).fit(digits[0])
    beats_pixels(model.labels_, digits, MARGINS[method.__name__])
    np.testing.assert_array_equal(model.predict(digits[0]), model.labels_)


def test_a_mixture_of_codes_beats_pixels(digits):
    model = VaDE(10, hidden=(128, 128, 256), pretrain_epochs=150, epochs=30, random_state=0).fit(digits[0])
    beats_pixels(model.labels_, digits, MARGINS["VaDE"])
    assert model.history_[-1] < model.history_[0]
    # What is drawn of a cluster is put there again.
    for cluster in (0, 7):
        rows, labels = model.sample(50, cluster=cluster)
        assert (labels == cluster).all()
        assert np.mean(model.predict(rows) == cluster) > 0.8


@pytest.mark.parametrize("method", [DEC, VaDE])
def test_units_of_the_rows_do_not_matter(blobs, tiny, method):
    model = tiny(method)
    rescaled = method(4, **TINY, tol=None).fit(1e4 * blobs.x.astype(np.float64) + 1e5)
    assert np.mean(model.labels_ == rescaled.labels_) > 0.97
    back = rescaled.reconstruct(1e4 * blobs.x[:5].astype(np.float64) + 1e5)
    np.testing.assert_allclose((back - 1e5) / 1e4, model.reconstruct(blobs.x[:5]), atol=0.05)


def test_columns_with_units_apart_weigh_alike():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) * 10.0 ** np.arange(6)
    np.testing.assert_allclose(scaled(x, "auto", "gaussian")[0].std(0), 1, rtol=1e-5)


def test_columns_of_one_unit_keep_their_shares():
    x = np.random.default_rng(0).normal(size=(200, 4)) * [0.1, 1, 1.2, 0.8] + 5
    rows, scaling = scaled(x, "auto", "gaussian")
    assert np.unique(scaling.factor).size == 1
    np.testing.assert_allclose(np.square(rows.std(0)).mean(), 1, rtol=1e-5)
    constant = np.concatenate([x, np.full((200, 1), 3.0)], axis=1)
    np.testing.assert_array_equal(scaled(constant, "auto", "gaussian")[0][:, 4], 0)


def test_rarely_lit_pixels_are_not_scaled_up():
    x = np.random.default_rng(0).uniform(0, 255, (300, 9))
    x[:, :6] = np.where(np.arange(300)[:, None] % 50 == np.arange(6), x[:, :6], 0)
    x[0] = 255
    assert np.unique(scaled(x, "auto")[1].factor).size == 1


def test_columns_of_small_units_count():
    x = np.random.default_rng(0).normal(size=(300, 10)) * np.where(np.arange(10) < 3, 1, 1000)
    np.testing.assert_allclose(scaled(x, "auto")[0].std(0), 1, rtol=1e-5)


@pytest.mark.parametrize("method", DEEP)
def test_attributes_have_their_shapes(blobs, tiny, method):
    model = tiny(method)
    assert model.cluster_centers_.shape == (4, 2)
    assert model.transform(blobs.x).shape == (300, 2)
    np.testing.assert_allclose(model.predict_proba(blobs.x).sum(1), 1, rtol=1e-5)
    assert model.reconstruct(blobs.x).shape == blobs.x.shape
    assert list(model.get_feature_names_out()) == [f"{method.__name__.lower()}{i}" for i in range(2)]
    phases = ["pretrain"] * 3 + ["cluster"] * (0 if method is AutoencoderKMeans else 3)
    assert [record["phase"] for record in model.epoch_history_] == phases
    assert len(model.history_) == model.n_iter_
    assert model.snapshots_["pretrain-2"].shape == (300, 2)


def without_seconds(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.mark.parametrize("method", [AutoencoderKMeans, DCN, VaDE])
def test_a_run_cut_short_goes_on_to_the_same_end(blobs, tiny, method, tmp_path):
    """The methods begin with other networks, and keep other variables besides parameters."""

    class CutError(Exception):
        pass

    def cut(report):
        if "changed" in report.record or (method is AutoencoderKMeans and len(report.history) == 2):
            raise CutError

    options, whole = TINY | {"tol": None, "checkpoint_every": 1}, tiny(method)
    with pytest.raises(CutError):
        method(4, **options).fit(blobs.x, checkpoint_dir=tmp_path, callbacks=[cut])
    steps = Pipeline([("scale", "passthrough"), ("deep", method(4, **options))])
    resumed = steps.fit(blobs.x, deep__checkpoint_dir=tmp_path, deep__resume=True)["deep"]
    np.testing.assert_array_equal(resumed.labels_, whole.labels_)
    for name, value in whole._weights.items():
        np.testing.assert_array_equal(resumed._weights[name], value)
    assert without_seconds(resumed.epoch_history_) == without_seconds(whole.epoch_history_)
    assert resumed.snapshots_.keys() == whole.snapshots_.keys()
    for name, codes in whole.snapshots_.items():
        np.testing.assert_array_equal(resumed.snapshots_[name], codes)
    with pytest.raises(ValueError, match=r"another configuration: latent is 2 there and 3 here"):
        method(4, **options | {"latent": 3}).fit(blobs.x, checkpoint_dir=tmp_path, resume=True)


def test_two_devices_begin_and_one_goes_on(blobs, tiny, tmp_path):
    options, whole = TINY | {"tol": None, "checkpoint_every": 1}, tiny(DCN)
    DCN(4, **options | {"epochs": 2}, mesh=row_mesh()).fit(blobs.x, checkpoint_dir=tmp_path)
    model = DCN(4, **options).fit(blobs.x, checkpoint_dir=tmp_path, resume=True)
    np.testing.assert_allclose(model.history_, whole.history_, rtol=1e-4)
    np.testing.assert_array_equal(model.labels_, whole.labels_)


def test_saved_models_draw_and_predict_alike(blobs, tiny, tmp_path):
    model = tiny(VaDE)
    model.save(tmp_path / "model")
    back = load(tmp_path / "model")
    np.testing.assert_array_equal(back.predict_proba(blobs.x), model.predict_proba(blobs.x))
    np.testing.assert_array_equal(back.sample(5)[0], model.sample(5)[0])
    np.testing.assert_array_equal(back.reconstruct(blobs.x), model.reconstruct(blobs.x))


def test_networks_of_images_and_their_moves():
    x = load_digits().data[:60]
    options = {"batch_size": 30, "pretrain_epochs": 0, "image_shape": (8, 8), "augment": True, "scaling": "minmax"}
    model = VaDE(3, **TINY | options).fit(x)
    assert model.reconstruct(x).shape == x.shape
    assert np.isfinite(model.history_).all()


class Halves(nnx.Module):
    """Someone's own encoder."""

    def __init__(self, width, *, rngs):
        self.layer = nnx.Linear(5, width, rngs=rngs)

    def get_config(self):
        return {"width": self.layer.out_features}

    def __call__(self, x):
        return self.layer(x) / 2


def test_any_module_may_encode(blobs, tmp_path):
    encoder = Halves(2, rngs=nnx.Rngs(0))
    before = np.array(encoder.layer.kernel[...])
    model = IDEC(4, **TINY | {"pretrain_epochs": 0}, encoder=encoder).fit(blobs.x)
    np.testing.assert_array_equal(encoder.layer.kernel[...], before)
    assert isinstance(model.module_.autoencoder.encoder, Halves)
    assert not np.array_equal(model.module_.autoencoder.encoder.layer.kernel[...], before)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"names Halves of the module {__name__}, .*trusted=\['{__name__}'\]"):
        load(tmp_path / "model")
    loaded = load(tmp_path / "model", trusted=[__name__])
    np.testing.assert_array_equal(loaded.transform(blobs.x), model.transform(blobs.x))


def test_layers_may_be_trained_one_by_one(blobs, tmp_path):
    model = DEC(4, **TINY, pretrain="stacked").fit(blobs.x, checkpoint_dir=tmp_path)
    phases = [record["phase"] for record in model.epoch_history_]
    assert phases[:9] == ["layer-0"] * 3 + ["layer-1"] * 3 + ["pretrain"] * 3
    assert {path.name for path in tmp_path.iterdir()} >= {"layers", "pretrain", "cluster", "cluster.jsonl"}


def test_bfloat16_comes_near(blobs, tiny):
    exact, fast = tiny(AutoencoderKMeans), AutoencoderKMeans(4, **TINY, precision="fast").fit(blobs.x)
    assert exact.history_[-1] != fast.history_[-1]
    np.testing.assert_allclose(fast.history_, exact.history_, rtol=0.05)


def test_views_are_taken_as_they_are(blobs):
    options = TINY | {"pretrain_epochs": 0}
    plain, augmented = (DEC(4, **options, augment=view).fit(blobs.x) for view in (False, GaussianNoise(0.5)))
    assert plain.history_[0] != augmented.history_[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "bernoulli"}, r"\[0, 1\], and X has values from -[\d.]+ to [\d.]+"),
        ({"batch_size": 1000}, r"batch_size=1000 is more than n_samples=300"),
        ({"encoder": nets.MLP((5, 3), rngs=nnx.Rngs(0))}, r"shape \(1, 3\) .* latent=2 .* Pass latent=3"),
        ({"decoder": nets.MLP((2, 4), rngs=nnx.Rngs(0))}, r"rows of shape \(1, 4\), but X has 5 columns"),
        ({"image_shape": (3, 3)}, r"image_shape=\(3, 3\) makes 9 values an image, but X has 5 columns"),
        ({"augment": True}, r"augment=True .* pass image_shape"),
        ({"pretrain": "layers"}, r"pretrain='layers' is not known"),
        ({"scaling": "unit"}, r"scaling='unit' is not known"),
        ({"noise": 1.0}, r"noise=1.0 must be in \[0, 1\)"),
    ],
)
def test_a_wrong_option_is_answered_in_full(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        DEC(4, **TINY | options).fit(blobs.x)


@pytest.mark.parametrize(("options", "message"), [({"gamma": -1}, "gamma=-1 must"), ({"alpha": 0}, "alpha=0 must be")])
def test_idec_checks_its_numbers_before_it_trains(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        IDEC(4, **TINY | options).fit(blobs.x)


def test_vade_needs_a_gaussian_code(blobs, tiny):
    with pytest.raises(TypeError, match=r"\(mean, log-variance\)"):
        VaDE(4, **TINY, encoder=nets.MLP((5, 2), rngs=nnx.Rngs(0))).fit(blobs.x)
    with pytest.raises(ValueError, match="cluster=4 must be from 0 to 3"):
        tiny(VaDE).sample(1, cluster=4)


def test_a_pretraining_that_is_not_finite_is_named(blobs):
    with pytest.raises(ValueError, match=r"not finite after step \d+ of pretraining. Lower learning_rate=1e\+20"):
        DEC(4, **TINY | {"learning_rate": 1e20}).fit(blobs.x)

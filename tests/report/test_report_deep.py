"""The report of a training: what it shows of a network, and what it refuses."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from test_report import Page

from jaxcluster.datasets import Dataset
from jaxcluster.estimators.deep.self_supervised import SwAV
from jaxcluster.estimators.deep.vade import VaDE
from jaxcluster.report import Training, write_report
from jaxcluster.report.html import picture_shape
from jaxcluster.types import Status

OPTIONS = {"title": "t", "config": {}, "scores": {}, "tsne": False}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((60, 12)) / 2 + (np.arange(60) % 2)[:, None] / 2).astype(np.float32)


@pytest.fixture(scope="module")
def model(rows) -> VaDE:
    tiny = {"hidden": (8,), "latent": 2, "pretrain_epochs": 2, "epochs": 2, "n_init": 2}
    return VaDE(2, **tiny, random_state=0, select="trained").fit(rows)


@pytest.fixture(scope="module")
def training(model, rows) -> Training:
    return Training(**model.report_parts(rows)["training"])


def report(folder: Path, dataset: Dataset, labels: np.ndarray, training: Training, **options) -> Page:
    path = folder / "report.html"
    write_report(path, dataset=dataset, labels=labels, training=training, **{**OPTIONS, **options})
    return Page(path.read_text(encoding="utf-8"))


def test_what_the_network_makes_of_rows_is_told(model, rows, training):
    np.testing.assert_array_equal(training.codes, model.transform(rows))
    np.testing.assert_array_equal(training.moments["the end"], training.codes)
    names = ["pretrain-1", "pretrain-2", "cluster-1", "cluster-2", "the end"]
    assert list(training.moments) == names
    np.testing.assert_array_equal(training.returned, model.reconstruct(rows))
    assert (np.shape(training.decoded), np.shape(training.samples)) == ((2, 12), (2, 8, 12))
    assert (training.endless, training.epochs) == (True, 2)


def test_images_have_a_training_with_all_its_pictures(model, rows, training, tmp_path):
    assert picture_shape(None, (4, 3, 1)) == (4, 3)
    dataset = Dataset("faces", rows, image_shape=(4, 3))
    page = report(tmp_path, dataset, model.labels_, training, status=Status.MAX_STEPS)
    for part in ("Training", "Embedding", "Reconstructions", "Samples"):
        assert part in page.words
    pictures = [svg["aria-label"] for svg in page.all("svg")]
    for words in (
        "Curves of the loss by epoch: pretrain from",
        "Curves of the share of rows that changed",
        "5 maps of the codes of 60 rows: pretraining, epoch 1",
        "Codes: 60 rows as points",
        "below each what comes back of it",
        "the decoder makes of 2 centers",
        "8 images drawn from each of 2 clusters",
    ):
        assert any(words in picture for picture in pictures), words
    assert "all epochs" in page.words
    assert not any(line.get("class") == "warn" for line in page.all("p"))


def test_errors_of_a_table_name_columns(model, rows, training, tmp_path):
    dataset = Dataset("table", rows, np.arange(60) % 2)
    page = report(tmp_path, dataset, model.labels_, training._replace(endless=False), status=Status.MAX_STEPS)
    pictures = [svg["aria-label"] for svg in page.all("svg")]
    assert any("share of each column's variance that does not come back" in picture for picture in pictures)
    assert any(picture.startswith("Codes by class") for picture in pictures)
    assert "Samples" not in page.words
    assert "step limit reached" in page.words
    assert any(line.get("class") == "warn" for line in page.all("p"))


def test_a_run_without_a_network_has_no_such_parts(rows, tmp_path):
    page = report(tmp_path, Dataset("table", rows), np.arange(60) % 2, None)
    assert not {"Training", "Embedding", "Reconstructions", "epochs"} & set(page.words)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codes": np.zeros((3, 2))}, r"codes \(3, 2\) must be \(60, 2\)"),
        ({"returned": np.zeros((60, 3))}, r"returned \(60, 3\) must be \(60, 12\)"),
        ({"decoded": np.zeros((5, 12))}, r"decoded \(5, 12\) must be \(2, 12\)"),
        ({"moments": {"start": np.zeros((60, 3))}}, r"codes \(60, 3\) of start must be \(60, 2\)"),
        ({"samples": np.zeros((2, 12))}, r"samples \(2, 12\) must be \(any number, any number, 12\)"),
    ],
)
def test_what_does_not_fit_is_refused(rows, training, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        report(tmp_path, Dataset("table", rows), np.zeros(60, int), training._replace(**changed))
    assert not list(tmp_path.iterdir())


def test_network_without_decoder_shows_nearest_rows(rows, tmp_path):
    tiny = {"hidden": (8,), "latent": 2, "projection": None, "n_prototypes": 5, "epochs": 1}
    model = SwAV(2, **tiny, random_state=0, select="trained").fit(rows)
    training = Training(**model.report_parts(rows)["training"])
    assert (training.returned, training.decoded, training.samples) == (None, None, None)
    assert (training.endless, training.epochs) == (True, 1)
    owners = {int(name.split(": ")[1]): int(name.split(":")[0]) for name in training.nearest}
    assert all(model.prototype_labels_[prototype] == owner for prototype, owner in owners.items())
    name, nearest = next(iter(training.nearest.items()))
    scores = np.asarray(model.module_.embed(jnp.asarray(training.codes))) @ model.prototypes_[int(name.split(": ")[1])]
    np.testing.assert_array_equal(nearest[0], rows[scores.argmax()])
    page = report(
        tmp_path, Dataset("faces", rows, image_shape=(4, 3)), model.labels_, training, status=Status.MAX_STEPS
    )
    assert "Nearest rows" in page.words
    assert "Reconstructions" not in page.words


def test_numbers_that_are_followed_have_their_curves(rows, training, tmp_path):
    records = [{"phase": "train", "epoch": i, "loss": 1.0 / i, "nmi": 1 - 1 / i, "critic": -1.0} for i in (1, 2, 3)]
    dataset = Dataset("rows", rows)
    page = report(tmp_path, dataset, np.arange(60) % 2, training._replace(records=records), status=Status.MAX_STEPS)
    pictures = [svg["aria-label"] for svg in page.all("svg")]
    assert any("normalized mutual information of the clusters" in picture for picture in pictures)
    assert any("critic's loss" in picture for picture in pictures)

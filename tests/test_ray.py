"""Fits by Ray: the answer of one process, also where a worker is killed, and errors in the library's words.

Ray is no requirement of the tests (extra ``ray``, ``make ray``): without it the checks of arguments run alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from blocks_of_a_job import Blocks
from command_line import call, read_labels, refuse
from job_problems import CUT, MODELS, SAVED, rows
from sklearn.base import clone
from small_chunks import set_small_chunks
from tolerances import assert_near

import jaxcluster as jc
from jaxcluster.estimators import ESTIMATORS

TESTS = Path(__file__).parent
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(TESTS / "helpers"), str(TESTS.parent)]),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
}
TINY = {"hidden": (8,), "latent": 2, "pretrain_epochs": 2, "epochs": 3, "batch_size": 50, "tol": None, "n_init": 1}
TINY |= {"random_state": 0, "select": "trained", "checkpoint_every": 1}


@pytest.fixture(scope="module")
def ray():
    """A cluster of this machine with little memory, for all tests."""
    pytest.importorskip("ray.train.v2.jax")
    import ray

    ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_killed_worker_comes_back(ray, tmp_path):
    x, _ = rows()
    blocks = Blocks(tmp_path / "seen", tmp_path / "killed", os.getpid())
    options = {"workers": 2, "max_failures": 1, "storage": tmp_path, "environment": ENVIRONMENT}
    model = jc.ray.fit(SAVED(), blocks, **options)
    single = SAVED().fit(x)
    # After the second worker was lost the first one went on where a checkpoint was: the first step was not taken again.
    assert blocks.killed.exists()
    steps = [int(line) for line in blocks.seen.read_text().split()]
    assert steps.count(1) == 1
    assert model.n_iter_ == single.n_iter_
    np.testing.assert_array_equal(model.labels_, single.labels_)
    assert_near(model.cluster_centers_ - 1e6, single.cluster_centers_ - 1e6, "coordinates")
    np.testing.assert_array_equal(model.predict(x), model.labels_)


def test_a_dataset_equals_an_array(ray, tmp_path):
    """Two columns of numbers, one of them of arrays, in blocks of unequal size."""
    x, _ = rows()
    items = [{"first": row[0], "others": row[1:]} for row in x]
    dataset = ray.data.from_items(items[:CUT], override_num_blocks=1).union(ray.data.from_items(items[CUT:]))
    model = jc.ray.fit(MODELS["gmm"](), dataset, workers=2, storage=tmp_path, environment=ENVIRONMENT)
    single = MODELS["gmm"]().fit(x)
    np.testing.assert_array_equal(model.labels_, single.labels_)
    assert_near(model.means_ - 1e6, single.means_ - 1e6, "coordinates")
    labels = [row["label"] for row in dataset.limit(3).map_batches(_labeled(model)).take_all()]
    assert labels == model.labels_[:3].tolist()


def _labeled(model):
    def label(batch):
        return {"label": model.predict(np.column_stack([batch["first"], batch["others"]]))}

    return label


def test_an_error_of_a_worker_is_ours(ray):
    x, _ = rows()
    x[-1, 0] = np.nan
    with pytest.raises(ValueError, match=r"^X contains 1 NaN values in column 0\. Drop"):
        jc.ray.fit(MODELS["kmeans"](), x, workers=2, environment=ENVIRONMENT)
    with pytest.raises(jc.distributed.LaunchError, match=r"the cluster has 2 CPUs for 3 workers"):
        jc.ray.fit(MODELS["kmeans"](), x, workers=3)
    with pytest.raises(ValueError, match=r"1 rows are too few for 2 workers"):
        jc.ray.fit(MODELS["kmeans"](), ray.data.range(1), workers=2)


def test_launched_by_ray_equals_one_process(ray, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    x, _ = rows()
    np.save(tmp_path / "rows.npy", x)
    words = ("fit", "kmeans", "rows.npy", "--k", 4, "--n-init", 1)
    monkeypatch.chdir(tmp_path)
    call(*words, "--out", "one", "--no-report")
    printed = call("launch", "--ray", "--processes", 2, "--", *words, "--out", "two")
    assert "Written to two" in printed.stdout
    np.testing.assert_array_equal(*(read_labels(tmp_path / run / "labels.csv") for run in ("one", "two")))
    assert '"processes": 2' in (tmp_path / "two" / "config.json").read_text()
    missing = refuse("launch", "--ray", "--processes", 2, "--", "fit", "kmeans", "none.npy", "--k", 3, "--out", "x")
    assert missing == "Error: none.npy does not exist.\n"


class Lost(Exception):
    """End of a worker that is lost after it has reported a checkpoint."""


@pytest.mark.parametrize("name", ["kmeans", "dec"])
def test_one_worker_goes_on_from_its_checkpoint(name, blobs, monkeypatch, tmp_path):
    """The worker is this process; the checkpoints that it reports are kept in a folder."""
    train = pytest.importorskip("ray.train")
    set_small_chunks(monkeypatch)
    monkeypatch.setattr(jc.ray, "CHECKPOINT_SECONDS", 0.0)
    model = jc.KMeans(12, init="random", tol=0, n_init=1, random_state=0) if name == "kmeans" else jc.DEC(4, **TINY)
    single, kept = clone(model).fit(blobs.x), []

    def report(metrics, checkpoint):
        with checkpoint.as_directory() as place:
            kept.append(shutil.copytree(place, tmp_path / str(len(kept))))
        if len(kept) == 2:
            raise Lost

    monkeypatch.setattr(train, "report", report)
    monkeypatch.setattr(train, "get_checkpoint", lambda: train.Checkpoint.from_directory(kept[-1]) if kept else None)
    config = {"estimator": model, "rows": [blobs.x]}
    monkeypatch.setattr(jc.ray, "_read", lambda part: part)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(Lost):
        jc.ray._fit_part(config)
    jc.ray._fit_part(config)
    # Begun again, it would have reported the two of before once more.
    assert len(kept) == (single.n_iter_ if name == "kmeans" else TINY["pretrain_epochs"] + TINY["epochs"])
    resumed = jc.load(kept[-1] / "model")
    np.testing.assert_array_equal(resumed.labels_, single.labels_)
    np.testing.assert_array_equal(resumed.history_, single.history_)


def test_arguments_are_checked_before_ray_starts():
    x, single = np.zeros((4, 2)), next(name for name in ESTIMATORS if not ESTIMATORS.info(name).takes_processes)
    for estimator, options, words in (
        (jc.KMeans(2), {"workers": 0}, "workers=0 must be at least 1"),
        (jc.KMeans(2), {"max_failures": -2}, "max_failures=-2 must be a number of restarts"),
        (ESTIMATORS[single](), {"workers": 2}, f"{single} runs in one process: pass workers=1"),
        (object(), {}, "estimator=object is not one of this package"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            jc.ray.fit(estimator, x, **options)
    assert "--gpu is for --ray" in refuse("launch", "--gpu", "--", "fit", "kmeans", "rows.npy")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_extra_is_named():
    with pytest.raises(ImportError, match=r"pip install 'jaxcluster\[ray\]'"):
        jc.ray.fit(jc.KMeans(2), np.zeros((4, 2)), workers=2)
    assert "pip install 'jaxcluster[ray]'" in refuse("launch", "--ray", "--", "fit", "kmeans", "rows.npy")

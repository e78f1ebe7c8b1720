"""Models of strangers: a folder gives a model, or one ValueError that names the file; nothing else is read or made."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from jaxcluster.cluster.hdbscan.tree import CondensedTree
from jaxcluster.datasets.categories import MixedColumns
from jaxcluster.datasets.gower import GowerScale
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.deep.inference import check_weights, weights_of
from jaxcluster.estimators import GaussianMixture, KMeans, load, persistence


@pytest.fixture(scope="module")
def saved(tmp_path_factory, blobs):
    folder = tmp_path_factory.mktemp("models")
    KMeans(4, random_state=0).fit(blobs.x).save(folder / "kmeans")
    GaussianMixture(4, random_state=0).fit(blobs.x).save(folder / "gmm")
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved / "kmeans", tmp_path / "model")


def rewritten(model, change):
    """A model whose content is another, and whose checksums fit it, as those of a stranger would."""
    content = json.loads((model / "model.json").read_text())
    content.pop("sha256")
    arrays = safetensors.numpy.load((model / "arrays.safetensors").read_bytes())
    change(content, arrays)
    payload = safetensors.numpy.save(arrays)
    content["arrays"] = content["arrays"] if content["arrays"] == "kept" else persistence._array_specs(arrays)
    if content["files"] and isinstance(content["files"], dict):
        content["files"] = {"arrays.safetensors": {"bytes": len(payload), "sha256": persistence._sha256(payload)}}
    (model / "arrays.safetensors").write_bytes(payload)
    (model / "model.json").write_text(persistence._to_json(persistence._with_checksum(content)))


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


def attribute(name, value):
    return lambda content, arrays: content["attributes"].__setitem__(name, value)


def parameter(name, value):
    return lambda content, arrays: content["params"].__setitem__(name, value)


def frame_part(name, value):
    def change(content, arrays):
        content["attributes"]["_frame"]["$named"]["fields"]["$dict"][name] = value

    return change


def array(name, make):
    return lambda content, arrays: arrays.__setitem__(name, make(arrays[name]))


def spoiled(value):
    def make(centers):
        centers = centers.copy()
        centers[1, 1] = value
        return centers

    return make


HOSTILE = {
    "NaN in a center": array("cluster_centers_", spoiled(math.nan)),
    "infinity in a center": array("cluster_centers_", spoiled(math.inf)),
    "centers of other columns": array("cluster_centers_", lambda centers: np.tile(centers, 2)),
    "centers of one axis": array("cluster_centers_", lambda centers: centers[0]),
    "text for centers": attribute("cluster_centers_", "far away"),
    "a list for centers": attribute("cluster_centers_", [1, 2, 3]),
    "text for a width": attribute("n_features_in_", "five"),
    "no columns": attribute("n_features_in_", 0),
    "text for a status": attribute("status_", "CONVERGED"),
    "an unknown status": attribute("status_", {"$status": "GLORIOUS"}),
    "labels of two axes": attribute("labels_", {"$array": "cluster_centers_"}),
    "records of a huge shape": attribute(
        "labels_", {"$records": {"shape": [2**40, 2**20], "fields": {"a": {"$array": "cluster_centers_"}}}}
    ),
    "a matrix of a huge shape": attribute(
        "labels_",
        {
            "$sparse": {"format": "csr", "kind": "matrix", "shape": [2**62, 2**62]}
            | {part: {"$array": "cluster_centers_"} for part in ("data", "indices", "indptr")}
        },
    ),
    "deep nesting": attribute("history_", nested(400)),
    "an unknown kind": attribute("history_", {"$pickle": "cos\nsystem\n"}),
    "two kinds": attribute("history_", {"$array": "a", "$tuple": []}),
    "a class that is no tuple of models": attribute("_frame", {"$named": {"class": "Popen", "fields": {"$dict": {}}}}),
    "a frame of text": attribute("_frame", {"$named": {"class": "Frame", "fields": {"$dict": {"origin": "here"}}}}),
    "a frame of a number": frame_part("origin", 0),
    "an exponent that is a list": frame_part("exponent", [1]),
    "a frame of other columns": array("_frame.origin", lambda origin: np.append(origin, 0)),
    "centers of no rows": array("cluster_centers_", lambda centers: centers[:0]),
    "a method": attribute("predict", 1),
    "an attribute of Python": attribute("__class__", "x"),
    "an unknown parameter": parameter("n_sheep", 3),
    "text for a number": parameter("n_clusters", "many"),
    "an array that is not there": attribute("cluster_centers_", {"$array": "elsewhere"}),
    "an unknown estimator": lambda content, arrays: content.update(estimator="os.system"),
    "a list for an estimator": lambda content, arrays: content.update(estimator=["kmeans"]),
    "a list for parameters": lambda content, arrays: content.update(params=[1]),
    "no files": lambda content, arrays: content.update(files={}),
    "text for files": lambda content, arrays: content.update(files="here"),
    "arrays that are not listed": lambda content, arrays: content.update(arrays="kept"),
    "text for a version": lambda content, arrays: content.update(format_version="1"),
    "a version to come": lambda content, arrays: content.update(format_version=99),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_content_that_is_no_model(model, change):
    rewritten(model, change)
    with pytest.raises(ValueError, match=r"model\.json|arrays\.safetensors"):
        load(model)


@pytest.mark.parametrize("name", ["means_", "covariances_", "weights_"])
def test_a_mixture_of_what_is_not_finite(saved, tmp_path, name):
    model = shutil.copytree(saved / "gmm", tmp_path / "model")
    rewritten(model, array(name, lambda values: np.full_like(values, math.nan)))
    with pytest.raises(ValueError, match=rf"model\.json.*{name} holds NaN"):
        load(model)


def test_a_content_that_does_not_change_loads(model, blobs):
    before = load(model).predict(blobs.x)
    rewritten(model, lambda content, arrays: None)
    np.testing.assert_array_equal(load(model).predict(blobs.x), before)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"a": NaN}', "1" * 10_000, "\0", "\udc80"])
def test_text_that_is_no_model(model, text):
    (model / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"model\.json"):
        load(model)


@pytest.mark.parametrize("name", ["model.json", "arrays.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
def test_files_that_are_none(model, tmp_path, name, kind):
    file = model / name
    elsewhere = shutil.copy(file, tmp_path / name)
    file.unlink()
    make = {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "link": lambda: file.symlink_to(elsewhere),
        "folder": lambda: file.mkdir(),
    }
    make[kind]()
    with pytest.raises(ValueError, match=rf"{name} is a (link|folder, a pipe or a device)"):
        load(model)


def test_a_large_file_is_not_read(model):
    with (model / "model.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole that takes no space
    with pytest.raises(ValueError, match=r"model\.json is larger than a model's can be"):
        load(model)


def test_a_place_of_a_run_is_neither_saved_nor_loaded(blobs, tmp_path):
    from jaxcluster.estimators import AutoencoderKMeans

    fitted = AutoencoderKMeans(4, hidden=(4,), latent=2, pretrain_epochs=1, select="trained")
    fitted.fit(blobs.x, checkpoint_dir=tmp_path / "kept").save(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()
    rewritten(tmp_path / "model", parameter("checkpoint_dir", "/etc"))
    with pytest.raises(ValueError, match=r"model\.json.*checkpoint_dir"):
        load(tmp_path / "model")


def test_a_name_as_long_as_a_disk_takes_it(saved, tmp_path):
    load(saved / "kmeans").save(tmp_path / ("m" * 250))
    load(tmp_path / ("m" * 250)).save(tmp_path / ("m" * 250))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m" * 250]


def test_model_saved_again_while_it_is_loaded(model, saved, monkeypatch, blobs):
    read_arrays = persistence._read_arrays

    def replaced_first(file, content):
        monkeypatch.setattr(persistence, "_read_arrays", read_arrays)
        load(saved / "gmm").save(model)
        return read_arrays(file, content)

    monkeypatch.setattr(persistence, "_read_arrays", replaced_first)
    assert isinstance(load(model), GaussianMixture)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("kmeans", "cluster_centers_"), ("gmm", "weights_"), ("gmm", "means_"), ("kmeans", "origin")],
)
def test_a_model_without_what_labels_rows(saved, tmp_path, name, attribute):
    model = shutil.copytree(saved / name, tmp_path / "model")

    def without(content, _):
        if attribute == "origin":
            frame = content["attributes"]["_frame"]
            assert "origin" in json.dumps(frame)
            content["attributes"]["_frame"] = _without_origin(frame)
        else:
            del content["attributes"][attribute]

    rewritten(model, without)
    with pytest.raises(ValueError, match=f"model.json .*{attribute}"):
        load(model)


def _without_origin(value):
    if isinstance(value, dict):
        return {key: None if key == "origin" else _without_origin(each) for key, each in value.items()}
    return [_without_origin(each) for each in value] if isinstance(value, list) else value


TREE = CondensedTree(np.array([3, 3, 3]), np.arange(3), np.ones(3), np.ones(3, int))
COLUMNS = MixedColumns(3, ("a", "b", "c"), (1,), (("red", "blue"),))
RANGES = GowerScale(COLUMNS, np.zeros(2), np.ones(2))
AFFINE = Scaling("standard", np.zeros(3), np.ones(3))

PARTS = {
    "a tree of more rows": (TREE, {"child": np.arange(4)}),
    "a tree with a circle": (TREE, {"parent": np.array([3, 4, 3])}),
    "a tree of numbers": (TREE, {"lambda_val": 1.0}),
    "a tree with NaN": (TREE, {"lambda_val": np.array([1, np.nan, 1])}),
    "a row twice": (TREE, {"child": np.array([0, 1, 1])}),
    "a category that is a list": (COLUMNS, {"categories": ((["red"], "blue"),)}),
    "a column that is a number": (COLUMNS, {"categorical": (0.5,)}),
    "a column that there is not": (COLUMNS, {"categorical": (3,)}),
    "names of two columns": (COLUMNS, {"names": ("a", "b")}),
    "more columns": (COLUMNS, {"width": 4}),
    "ranges of one column": (RANGES, {"low": np.zeros(1)}),
    "ranges of text": (RANGES, {"columns": "a"}),
    "a factor of 0": (AFFINE, {"factor": np.zeros(3)}),
    "no shift": (AFFINE, {"shift": None}),
    "an unknown scaling": (AFFINE, {"how": "other"}),
    "an origin of text": (AFFINE, {"origin": ("a", "b", "c")}),
}


@pytest.mark.parametrize(("part", "change"), PARTS.values(), ids=PARTS)
def test_parts_that_are_not_of_a_fit(part, change):
    part.check(3)
    with pytest.raises(ValueError, match="columns|rows"):
        part._replace(**change).check(3)


@pytest.mark.parametrize("change", ["missing", "shape", "kind", "number"])
def test_weights_that_are_of_another_network(change):
    def init():
        return nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    weights = {name: np.asarray(value) for name, value in weights_of(init()).items()}
    check_weights(init, weights)
    (first, array), *_ = weights.items()
    others = {"shape": np.append(array, 1), "kind": array.astype(int), "number": 7}
    changed = {key: value for key, value in weights.items() if key != first}
    with pytest.raises(ValueError, match="weights"):
        check_weights(init, changed if change == "missing" else changed | {first: others[change]})

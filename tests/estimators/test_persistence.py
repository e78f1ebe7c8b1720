"""Saved models come back exactly, or are refused with the reason; test_estimator_contracts.py tests every estimator."""

from __future__ import annotations

import json
import math
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from algorithms import make
from saved_models import FILES, assert_same, rewrite
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from jaxcluster.core import atomic
from jaxcluster.core.frame import Frame
from jaxcluster.estimators import ESTIMATORS, KMeans, MiniBatchKMeans, load, persistence
from jaxcluster.estimators.serialization import decode, encode
from jaxcluster.ops.spanning_tree import Tree
from jaxcluster.types import Status


@pytest.fixture(scope="module")
def fitted(blobs):
    """Two fitted estimators."""
    return {name: make(name).fit(blobs.x) for name in ("kmeans", "bisecting-kmeans")}


@pytest.fixture
def model(fitted, tmp_path):
    """The folder of a saved k-means."""
    fitted["kmeans"].save(tmp_path / "model")
    return tmp_path / "model"


def test_partial_fit_goes_on_after_a_load(blobs, tmp_path):
    whole, first = (MiniBatchKMeans(4, random_state=0) for _ in range(2))
    for start in (0, 100):
        whole.partial_fit(blobs.x[start : start + 100])
    first.partial_fit(blobs.x[:100]).save(tmp_path / "model")
    second = load(tmp_path / "model").partial_fit(blobs.x[100:200])
    assert_same(vars(second), vars(whole))


def test_array_parameters_and_keys_come_back(blobs, tmp_path):
    key = jax.random.key(5, impl="rbg")
    estimator = KMeans(4, init=blobs.centers, n_init=1, frozen=[True, False, False, False], random_state=key)
    estimator.fit(blobs.x).save(tmp_path / "model")
    back = load(tmp_path / "model")
    np.testing.assert_array_equal(back.init, blobs.centers)
    assert back.frozen == [True, False, False, False]
    assert jax.random.key_impl(back.random_state) == "rbg"
    np.testing.assert_array_equal(jax.random.key_data(back.random_state), jax.random.key_data(key))
    np.testing.assert_array_equal(back.fit(blobs.x).labels_, estimator.labels_)


def test_column_names_come_back(blobs, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(blobs.x, columns=["a", "b", "c", "d", "é"])
    KMeans(4, random_state=0).fit(frame).save(tmp_path / "model")
    back = load(tmp_path / "model")
    assert back.feature_names_in_.tolist() == ["a", "b", "c", "d", "é"]
    with pytest.raises(ValueError, match="feature names"):
        back.predict(frame.rename(columns={"a": "z"}))


VALUES = {
    "none": None,
    "bool": True,
    "int": 2**70,
    "float": 0.1,
    "infinity": -math.inf,
    "text": "$array é",
    "list": [1, [2.5, None], "x"],
    "tuple": (1, (2,), [3]),
    "dict": {"$array": 1, "b": {"c": np.arange(3)}},
    "status": Status.NOT_FINITE,
    "scalar array": np.array(3.5, np.float32),
    "empty array": np.zeros((0, 3), np.int16),
    "bool array": np.array([[True, False]]),
    "transposed array": np.arange(6.0).reshape(2, 3).T,
    "names": np.array(["a", "bc"], dtype=object),
    "records": np.array([(1, 0.5, [1, 2]), (2, np.inf, [3, 4])], [("child", "i4"), ("value", "f8"), ("pair", "i8", 2)]),
    "no records": np.zeros((0,), [("pair", "f8", 2), ("child", "i4")]),
    "a sparse matrix with its order of entries": scipy.sparse.csr_array(
        (np.array([2.0, 1.0, 0.0]), np.array([2, 0, 1]), np.array([0, 2, 2, 3])), shape=(3, 3)
    ),
}
VALUES |= {
    f"{form}_{kind}": getattr(scipy.sparse, f"{form}_{kind}")(np.array([[0, 1.5, 0], [2, 0, 0]], np.float32))
    for form in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
    for kind in ("array", "matrix")
}


@pytest.mark.parametrize("name", VALUES)
def test_values_survive_json(name):
    arrays = {}
    text = json.dumps(encode("value", VALUES[name], arrays), allow_nan=False)
    assert_same(decode(json.loads(text), arrays), VALUES[name])


def test_nan_numpy_numbers_and_jax_arrays_survive_json():
    arrays = {}
    assert math.isnan(decode(encode("value", math.nan, arrays), arrays))
    assert_same(decode(encode("value", np.float32(0.5), arrays), arrays), 0.5)
    back = decode(encode("value", jnp.arange(3), arrays), arrays)
    assert isinstance(back, jax.Array)
    assert back.tolist() == [0, 1, 2]
    drawn = np.random.RandomState(3)
    drawn.normal(size=5)
    assert decode(encode("value", drawn, arrays), arrays).normal() == drawn.normal()


@pytest.mark.parametrize(
    "value",
    [np.array([1e9 + 1 / 3, -0.1]), np.float64(1 / 3), np.array(2**53 + 1), np.zeros(2, np.float16)],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_numpy_keeps_every_digit(value):
    arrays = {}
    back = decode(json.loads(json.dumps(encode("value", value, arrays))), arrays)
    assert not isinstance(back, jax.Array)
    np.testing.assert_array_equal(back, value)
    if value.shape:
        assert back.dtype == value.dtype


def test_the_frame_of_a_fit_comes_back_to_the_bit():
    frame, arrays = Frame(np.array([1.7e9 + 1 / 3, -1e-3]), -7, 3), {}
    back = decode(json.loads(json.dumps(encode("_frame", frame, arrays))), arrays)
    assert isinstance(back, Frame)
    assert_same(back, frame)
    far = np.random.default_rng(0).normal(size=(4, 2)) + 1.7e9
    np.testing.assert_array_equal(back.enter(far), frame.enter(far))


def test_dtypes_beyond_jax_are_saved():
    arrays = {}
    back = decode(encode("value", np.array([1 / 3], np.longdouble), arrays), arrays)
    assert (back.dtype, back[0]) == (np.float64, 1 / 3)
    assert decode(encode("value", np.longdouble(0.5), arrays), arrays) == 0.5
    back = decode(encode("value", jnp.array([1.5], jnp.bfloat16), arrays), arrays)
    assert (back.dtype, back[0]) == (jnp.float32, 1.5)


def test_x64_arrays_keep_their_digits_without_x64():
    arrays = {"value": np.array([1e9 + 1 / 3])}
    back = decode({"$jax_array": "value"}, arrays)
    np.testing.assert_array_equal(back, arrays["value"])
    assert isinstance(decode({"$jax_array": "value"}, {"value": np.zeros(1, np.float32)}), jax.Array)


def test_named_tuples_come_back_as_what_they_are():
    tree, arrays = Tree(np.arange(4, dtype=np.int32).reshape(2, 2), np.array([0.5, 1.0])), {}
    back = decode(json.loads(json.dumps(encode("tree", {"mst": tree}, arrays))), arrays)["mst"]
    assert_same(back, tree)
    assert_same(back._asdict(), tree._asdict())


def test_named_tuples_that_are_not_known_are_refused():
    with pytest.raises(TypeError, match="of type Unknown cannot be saved"):
        encode("value", namedtuple("Unknown", "a b")(1, 2), {})
    with pytest.raises(TypeError, match="of type Tree cannot be saved"):
        encode("value", namedtuple("Tree", "edges weights")(1, 2), {})  # the name alone is not enough
    with pytest.raises(KeyError, match="Popen"):
        decode({"$named": {"class": "Popen", "fields": {"$dict": {"args": "true"}}}}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "coo_array", "kind": "array"}, "not known"),
        ({"kind": "array.__init__"}, "not known"),
        ({"shape": [1, 1]}, "indices|shape|index"),
    ],
)
def test_a_forged_sparse_matrix_is_refused(change, message):
    arrays = {}
    encoded = encode("value", scipy.sparse.csr_array(np.eye(3)), arrays)
    encoded["$sparse"].update(change)
    with pytest.raises(ValueError, match=message):
        decode(encoded, arrays)


FLAT = scipy.sparse.coo_array(np.eye(3)[0])


@pytest.mark.parametrize("value", [lambda x: x, np.ones(2, complex), np.array([object()]), object(), {1: 2}, FLAT])
def test_what_is_not_data_cannot_be_saved(value):
    with pytest.raises(TypeError, match="cannot be saved"):
        encode("value", value, {})


def test_callable_parameter_is_refused_before_writing(blobs, tmp_path):
    estimator = KMeans(4, init=lambda x, k, random_state: x[:k], n_init=1).fit(blobs.x)
    with pytest.raises(TypeError, match=r"init=.*of type function cannot be saved.*set_params"):
        estimator.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    estimator.set_params(init="k-means++").save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").labels_, estimator.labels_)


def test_only_fitted_registered_estimators_are_saved(blobs, fitted, tmp_path):
    with pytest.raises(NotFittedError):
        KMeans().save(tmp_path / "model")

    class Mine(KMeans):
        """Not registered."""

    with pytest.raises(TypeError, match=r"Mine is not one of the estimators.*kmeans, minibatch-kmeans"):
        Mine(4, random_state=0).fit(blobs.x).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_save_replaces_a_model_and_makes_parents(fitted, tmp_path):
    path = tmp_path / "runs" / "a"
    fitted["kmeans"].save(path)
    fitted["bisecting-kmeans"].save(str(path))
    assert type(load(str(path))) is ESTIMATORS["bisecting-kmeans"]
    assert [entry.name for entry in path.parent.iterdir()] == ["a"]


def test_an_empty_folder_is_filled(fitted, tmp_path):
    (tmp_path / "model").mkdir()
    fitted["kmeans"].save(tmp_path / "model")
    load(tmp_path / "model")


@pytest.mark.parametrize("names", [["notes.txt"], ["model.json", "notes.txt"], ["arrays.safetensors"]])
def test_a_folder_that_is_not_a_model_is_not_replaced(fitted, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="is not a saved model"):
        fitted["kmeans"].save(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_file_is_not_replaced(fitted, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        fitted["kmeans"].save(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize("step", ["_write", "rename"])
def test_a_save_that_fails_leaves_the_older_model(fitted, model, monkeypatch, step):
    if step == "_write":
        calls = []

        def fail_at_the_second_file(file, payload):
            calls.append(file)
            if len(calls) == 2:
                raise OSError("no space left on device")
            file.write_bytes(payload)

        monkeypatch.setattr(persistence, "_write", fail_at_the_second_file)
    else:
        rename = type(model).rename

        def fail_for_the_new_folder(self, target):
            if self.name.endswith(".new"):
                raise OSError("no space left on device")
            return rename(self, target)

        monkeypatch.setattr(type(model), "rename", fail_for_the_new_folder)
        monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)  # as on systems that have no such step
    with pytest.raises(OSError, match="no space left"):
        fitted["bisecting-kmeans"].save(model)
    assert type(load(model)) is KMeans
    assert [entry.name for entry in model.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_is_found_and_its_file_named(model, name):
    file = model / name
    written = file.read_bytes()
    for position in range(0, len(written), 5):
        for flip in (1, 42, 255):
            changed = bytearray(written)
            changed[position] ^= flip
            file.write_bytes(changed)
            with pytest.raises(ValueError, match=name):
                load(model)
    file.write_bytes(written)
    load(model)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(model, name, share):
    written = (model / name).read_bytes()
    (model / name).write_bytes(written[: int(share * len(written))])
    with pytest.raises(ValueError, match=rf"{name} .*truncated"):
        load(model)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        load(model)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model at .*does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "file.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="is a file, and a saved model is a folder"):
        load(tmp_path / "file.json")


def test_reformatted_json_is_a_change(model):
    file = model / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    with pytest.raises(ValueError, match="was changed"):
        load(model)


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": "other"}'])
def test_another_json_file_is_not_a_model(model, text):
    (model / "model.json").write_text(text)
    with pytest.raises(ValueError, match="is not a model"):
        load(model)


def test_files_of_two_models_do_not_mix(fitted, model, tmp_path):
    fitted["bisecting-kmeans"].save(tmp_path / "other")
    payload = (tmp_path / "other" / "arrays.safetensors").read_bytes()
    (model / "arrays.safetensors").write_bytes(payload)
    with pytest.raises(ValueError, match=r"arrays.safetensors .*changed"):
        load(model)
    rewrite(
        model,
        lambda content: content["files"]["arrays.safetensors"].update(
            bytes=len(payload), sha256=persistence._sha256(payload)
        ),
    )
    with pytest.raises(ValueError, match=r"does not hold the arrays that model.json lists"):
        load(model)


def test_unknown_class_is_answered_with_known_ones(model):
    rewrite(model, lambda content: content.update(estimator="kmedians"))
    with pytest.raises(ValueError, match="unknown estimator 'kmedians'; those known are kmeans, minibatch-kmeans"):
        load(model)


def test_incomplete_description_is_not_a_model(model):
    rewrite(model, lambda content: content.pop("files"))
    with pytest.raises(ValueError, match=r"model.json is not a model"):
        load(model)


def test_a_newer_format_asks_for_an_upgrade(model):
    rewrite(model, lambda content: content.update(format_version=2, jaxcluster_version="9.0"))
    with pytest.raises(ValueError, match=r"format version 2, written by jaxcluster 9.0.*Upgrade"):
        load(model)


def test_older_attributes_version_is_refused(model):
    rewrite(model, lambda content: (content.pop("attributes_version"), content.update(jaxcluster_version="0.1.0")))
    with pytest.raises(ValueError, match=r"attributes version 1, written by jaxcluster 0.1.0.*Fit the estimator again"):
        load(model)


@pytest.mark.parametrize("version", ["1", 1.5, None, True])
def test_a_version_that_is_none_is_a_change(model, version):
    rewrite(model, lambda content: content.update(format_version=version))
    with pytest.raises(ValueError, match=r"is not a model of jaxcluster, or was changed: its format_version is"):
        load(model)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["params"].update(n_groups=3),
        lambda content: content["params"].update(init={"$pickle": "gASV"}),
        lambda content: content["params"].update(init={"a": 1, "b": 2}),
        lambda content: content["attributes"].update(predict=1),
        lambda content: content["attributes"].update(__class__="KMeans"),
        lambda content: content["attributes"].update(_validate=1),
        lambda content: content["attributes"].update(labels_={"$array": "missing"}),
    ],
)
def test_a_forged_description_is_refused(model, change):
    rewrite(model, change)
    with pytest.raises(ValueError, match=r"model.json does not describe an estimator of this version"):
        load(model)


def test_what_could_not_be_loaded_is_not_saved(fitted, tmp_path):
    estimator = clone(fitted["kmeans"]).fit(np.arange(8.0)[:, None])
    with pytest.raises(ValueError, match=r"n_samples=8 should be >= n_clusters=9"):
        estimator.set_params(n_clusters=9).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()

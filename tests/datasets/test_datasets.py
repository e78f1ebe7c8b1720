"""Data sets: built-in ones, arrays and paths; every mistake told in a line."""

from __future__ import annotations

import gzip

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from data_files import complaint, idx_bytes, write
from pyarrow import parquet

from jaxcluster.datasets import DataError, DataNotFoundError, builtin_names, load, load_labels
from jaxcluster.datasets.base import HAS_EXTENDED_PRECISION

X = np.arange(12, dtype=np.float64).reshape(4, 3) / 8
Y = np.array([2, 0, 1, 0])
IMAGES = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Built in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("digits", (1797, 64), 10), ("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2)],
)
def test_bundled_sets_have_rows_truth_and_names(name, shape, classes):
    dataset = load(name)
    assert dataset.name == name
    assert dataset.x.shape == shape
    assert dataset.x.dtype == np.float64
    assert len(np.unique(dataset.y)) == classes
    assert len(dataset.y) == shape[0]
    assert len(dataset.columns) == shape[1]
    assert dataset.image_shape == ((8, 8) if name == "digits" else None)


def test_class_names_are_kept():
    assert list(np.unique(load("iris").y)) == ["setosa", "versicolor", "virginica"]


@pytest.mark.parametrize("spec", ["blobs:n=60,d=3,k=4,std=0.5", "moons:n=60,noise=0.1", "circles:n=6e1,factor=0.3"])
def test_generated_sets_follow_options_and_seed(spec):
    dataset = load(spec)
    assert dataset.x.shape == (60, 3 if "d=3" in spec else 2)
    assert dataset.x.dtype == np.float64
    assert len(np.unique(dataset.y)) == (4 if "k=4" in spec else 2)
    np.testing.assert_array_equal(load(f"{spec},seed=0").x, dataset.x)
    assert not np.array_equal(load(f"{spec},seed=1").x, dataset.x)


def test_std_is_the_deviation_of_a_blob():
    dataset = load("blobs:n=4000,d=2,k=1,std=3")
    np.testing.assert_allclose(dataset.x.std(0), 3, rtol=0.05)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("blobs:m=3", ["'m'", "n, d, k, std, seed"]),
        ("blobs:n", ["'n'", "no value"]),
        ("blobs:n=x", ["n", "'x'", "number"]),
        ("blobs:n=2.5", ["integer", "'2.5'"]),
        ("blobs:k=0", ["k=0", "at least 1"]),
        ("blobs:std=nan", ["std", "finite"]),
        ("moons:noise=-1", ["noise=-1.0", "at least 0"]),
        ("circles:factor=1", ["factor=1.0", "less than 1"]),
        ("iris:3", ["no options", "'3'"]),
    ],
)
def test_wrong_options_are_refused(spec, words):
    message = complaint(spec)
    assert all(word in message for word in words), message


def test_unknown_name_lists_the_known_and_guesses(folder):
    for spec in ("dgits", "blbs:n=3"):
        message = complaint(spec)
        assert all(name in message for name in builtin_names())
        assert "Did you mean" in message
    assert "'digits'" in complaint("dgits")


def test_builtin_brings_its_own_truth():
    assert "its own truth" in complaint("iris", truth="y")


# NumPy ----------------------------------------------------------------------------------------------------------


def test_npy(folder):
    np.save("a.npy", X)
    for path in ("a.npy", folder / "a.npy"):
        dataset = load(path)
        np.testing.assert_array_equal(dataset.x, X)
        assert dataset.x.dtype == np.float64
        assert dataset.x.flags.c_contiguous
        assert dataset.name == "a.npy"
        assert dataset.y is None
        assert dataset.columns is None


@pytest.mark.parametrize("columns", ["0,-1", [0, 2], ["0", 2]])
def test_array_columns_go_by_index(folder, columns):
    np.save("a.npy", X)
    dataset = load("a.npy", columns=columns)
    np.testing.assert_array_equal(dataset.x, X[:, [0, 2]])


def test_a_column_of_an_array_can_be_the_truth(folder):
    np.save("a.npy", np.column_stack([X, Y]))
    dataset = load("a.npy", truth=-1)
    np.testing.assert_array_equal(dataset.x, X)
    np.testing.assert_array_equal(dataset.y, Y)
    assert "both the truth" in complaint("a.npy", truth=3, columns=[0, 3])


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((4, 3, 2), (3, 2)), ((4, 3, 2, 1), (3, 2)), ((4, 3, 2, 3), (3, 2, 3)), ((4, 3, 2, 5), None)],
)
def test_images_are_flattened_and_remembered(folder, shape, image_shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.save("a.npy", array)
    dataset = load("a.npy")
    np.testing.assert_array_equal(dataset.x, array.reshape(4, -1))
    assert dataset.image_shape == image_shape
    assert dataset.x.dtype == np.float32
    assert load("a.npy", columns=[0]).image_shape is None


def test_npz_by_key_with_truth(folder):
    np.savez("a.npz", x_train=IMAGES, y_train=Y[:, None], other=X)
    for spec, options in (("a.npz:x_train", {}), ("a.npz", {"key": "x_train"})):
        dataset = load(spec, truth="y_train", **options)
        np.testing.assert_array_equal(dataset.x, IMAGES.reshape(4, -1))
        np.testing.assert_array_equal(dataset.y, Y)
        assert dataset.image_shape == (3, 2)
        assert dataset.name == "a.npz:x_train"
    message = complaint("a.npz:x_tain")
    assert "x_train (4, 3, 2)" in message
    assert "Did you mean 'x_train'" in message
    assert "'y_tran'" in complaint("a.npz:x_train", truth="y_tran")
    message = complaint("a.npz")
    assert "3 arrays" in message
    assert "other (4, 3)" in message
    assert "'x_train'" in complaint("a.npz:x_train", key="other")


def test_npz_needs_no_key_for_a_lone_array(folder):
    np.savez_compressed("one.npz", X)
    np.savez("two.npz", x=X, y=Y)
    np.testing.assert_array_equal(load("one.npz").x, X)
    np.testing.assert_array_equal(load("two.npz", truth="y").y, Y)


def test_truth_may_be_another_file(folder):
    np.save("a.npy", X)
    np.savez("b.npz", y=Y)
    write("y.csv", "row,label\n0,a\n1,b\n2,a\n3,b\n")
    np.testing.assert_array_equal(load("a.npy", truth="b.npz:y").y, Y)
    np.testing.assert_array_equal(load("a.npy", truth="y.csv").y, ["a", "b", "a", "b"])
    np.save("short.npy", Y[:3])
    assert "4 rows but 3 truth labels" in complaint("a.npy", truth="short.npy")


def test_truncated_npy_says_what_was_read(folder):
    np.save("a.npy", X)
    whole = (folder / "a.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[:-20])
    message = complaint("short.npy")
    assert "truncated" in message
    assert "(4, 3)" in message
    assert "96 bytes" in message
    assert "76 are there" in message
    (folder / "head.npy").write_bytes(whole[:50])
    assert "header" in complaint("head.npy")
    (folder / "none.npy").write_bytes(b"")
    assert "0 bytes" in complaint("none.npy")
    (folder / "text.npy").write_bytes(b"1,2,3\n4,5,6\n")
    assert "b'1,2,3" in complaint("text.npy")


def test_files_without_rows_are_refused(folder):
    np.savez("none.npz")
    (folder / "none.svm").write_text("")
    (folder / "bare.svm").write_text("1\n0\n")
    parquet.write_table(pa.table({}), "none.parquet")
    for name, words in (
        ("none.npz", "holds no arrays"),
        ("none.svm", "is empty"),
        ("bare.svm", "no entries"),
        ("none.parquet", "no columns"),
    ):
        assert words in complaint(name)


def test_damaged_npz_is_refused(folder):
    np.savez("a.npz", x=X)
    whole = (folder / "a.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[:200])
    assert "200 bytes" in complaint("short.npz")
    assert "truncated" in complaint("short.npz")
    at = whole.index(X.tobytes())
    (folder / "flipped.npz").write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    assert "CRC" in complaint("flipped.npz")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (X + 1j, "complex"),
        (np.array([["a", "b"]]), "text"),
        (X[:, 0], "(4,)"),
        (X[:0], "empty"),
        (X[:, :0], "empty"),
        (np.array([[1, None]], object), "objects"),
    ],
)
def test_arrays_that_are_no_rows_are_refused(folder, array, word):
    np.save("a.npy", array)
    assert word in complaint("a.npy")


LONG = 10**18 + np.arange(8).reshape(4, 2)


@pytest.mark.parametrize(
    ("array", "kept"),
    [
        (IMAGES.reshape(4, 6), np.float32),
        (X > 0.5, np.float32),
        (X.astype(np.float16), np.float32),
        (X.astype(ml_dtypes.bfloat16), np.float32),
        (X.astype(np.float32), np.float32),
        (X.astype(">f4"), np.float32),
        (np.array([[2**31 - 1, -(2**31)]], np.int32), np.float64),
        (np.array([[1e300, 1 / 3]]), np.float64),
        (X.astype(np.longdouble), np.float64),
        (np.array([[2**53, -(2**53)]]), np.float64),
        (LONG, np.int64),
        (LONG.astype(">i8"), np.int64),
        (np.array([[2**64 - 1], [5]], np.uint64), np.uint64),
        (LONG.astype(np.longdouble), np.longdouble if HAS_EXTENDED_PRECISION else np.float64),
    ],
    ids=lambda value: value.dtype.str if isinstance(value, np.ndarray) else np.dtype(value).name,
)
def test_numbers_of_any_dtype_are_kept_exactly(folder, array, kept):
    np.save("a.npy", array)
    np.savez("a.npz", a=array)
    for name in ("a.npy", "a.npz"):
        rows = load(name).x
        assert rows.dtype == kept
        assert rows.dtype.isnative
        assert rows.flags.c_contiguous
        wide = np.longdouble if array.dtype.kind in "iuf" else np.float32
        np.testing.assert_array_equal(rows.astype(wide), array.astype(wide))


def test_raw_bytes_are_refused(folder):
    np.save("a.npy", X.astype(ml_dtypes.float8_e4m3fn))
    assert "raw bytes" in complaint("a.npy")
    assert "numpy.float32" in complaint("a.npy")


# idx ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("array", [IMAGES, IMAGES.astype(np.int16) - 9, X.astype(np.float32)])
def test_idx(folder, array, zipped):
    name = "train-images-idx3-ubyte" + (".gz" if zipped else "")
    (folder / name).write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    (folder / "train-labels.idx1-ubyte").write_bytes(idx_bytes(Y.astype(np.uint8)))
    dataset = load(name, truth="train-labels.idx1-ubyte")
    np.testing.assert_array_equal(dataset.x, array.reshape(4, -1))
    np.testing.assert_array_equal(dataset.y, Y)
    assert dataset.image_shape == (array.shape[1:] if array.ndim == 3 else None)


def test_truncated_idx_says_what_was_read(folder):
    whole = idx_bytes(IMAGES)
    (folder / "short-idx").write_bytes(whole[:-4])
    assert "24 bytes" in complaint("short-idx")
    assert "20 were read" in complaint("short-idx")
    (folder / "head-idx").write_bytes(whole[:9])
    assert "header" in complaint("head-idx")
    (folder / "long-idx").write_bytes(whole + b"\0")
    assert "25 follow" in complaint("long-idx")
    noise = np.random.default_rng(0).integers(0, 256, (4, 50, 50)).astype(np.uint8)
    (folder / "short-idx.gz").write_bytes(gzip.compress(idx_bytes(noise))[:5000])
    assert "truncated" in complaint("short-idx.gz")
    (folder / "tail-idx.gz").write_bytes(gzip.compress(whole)[:-4])
    assert "truncated" in complaint("tail-idx.gz")


# Paths ----------------------------------------------------------------------------------------------------------


def test_missing_file_offers_near_names(folder):
    np.save("train.npy", X)
    with pytest.raises(DataNotFoundError, match=r"trian\.npy does not exist.*train\.npy") as error:
        load("trian.npy")
    assert isinstance(error.value, FileNotFoundError)
    assert isinstance(error.value, ValueError)
    assert "no folder" in complaint("nowhere/a.npy")
    assert "train.npy" in complaint("completely_different.csv")
    (folder / "empty").mkdir()
    assert "empty is a folder" in complaint(folder / "empty")
    assert "none.npy" in complaint("train.npy", truth="none.npy")


def test_a_data_set_is_shown_by_its_shape():
    assert repr(load("iris")) == "Dataset('iris', 150 rows of 4 columns, 3 classes)"


def test_unknown_format_lists_the_known(folder):
    assert "name the folder" in complaint(write("a.txt", "hello"))
    message = complaint(write("a.doc", "hello"))
    assert "'.doc'" in message
    assert ".npy, .npz, .h5ad, .csv" in message
    assert "idx" in message
    np.save("a.npy", X)
    assert "no .npz" in complaint("a.npy", key="x")


def test_labels_from_any_file(folder):
    np.save("a.npy", Y)
    np.savez("b.npz", y=Y, z=Y + 1)
    write("c.csv", "row,label\n0,2\n1,0\n2,1\n3,0\n")
    write("d.csv", "2\n0\n1\n0\n")
    for labels in (load_labels("a.npy"), load_labels("b.npz:y"), load_labels("c.csv"), load_labels("d.csv")):
        np.testing.assert_array_equal(labels, Y)
        assert labels.dtype.kind == "i"
    np.testing.assert_array_equal(load_labels("c.csv", column="row"), range(4))
    assert load_labels("iris")[0] == "setosa"
    write("e.csv", "p,q\n1,2\n")
    with pytest.raises(DataError, match="p, q"):
        load_labels("e.csv")
    np.save("f.npy", X)
    with pytest.raises(DataError, match=r"\(4, 3\)"):
        load_labels("f.npy")

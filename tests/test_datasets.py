"""Data sets: every format read back, every mistake told in a line, scaling against scikit-learn's."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn import preprocessing

from jaxcluster.datasets import SCALINGS, DataError, DataNotFoundError, Scaling, builtin_names, load, load_labels, scale

X = np.arange(12, dtype=np.float64).reshape(4, 3) / 8
Y = np.array([2, 0, 1, 0])
IMAGES = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    with open(name, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return name


def idx_bytes(array: np.ndarray) -> bytes:
    codes = {"u1": 0x08, "i2": 0x0B, "f4": 0x0D}
    header = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def complaint(spec, **options) -> str:
    """The message of the DataError that loading raises: one line, to be shown as it is."""
    with pytest.raises(DataError) as error:
        load(spec, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Built in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("digits", (1797, 64), 10), ("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2)],
)
def test_bundled_sets_have_rows_truth_and_names(name, shape, classes):
    dataset = load(name)
    assert dataset.name == name
    assert dataset.x.shape == shape and dataset.x.dtype == np.float32
    assert len(np.unique(dataset.y)) == classes and len(dataset.y) == shape[0]
    assert len(dataset.columns) == shape[1]
    assert dataset.image_shape == ((8, 8) if name == "digits" else None)


def test_class_names_are_kept():
    assert list(np.unique(load("iris").y)) == ["setosa", "versicolor", "virginica"]


@pytest.mark.parametrize(
    "spec", ["blobs:n=60,d=3,k=4,std=0.5,seed=1", "moons:n=60,noise=0", "circles:n=6e1,factor=0.3"]
)
def test_generated_sets_follow_their_options_and_their_seed(spec):
    dataset = load(spec)
    assert dataset.x.shape == (60, 3 if "d=3" in spec else 2) and dataset.x.dtype == np.float32
    assert len(np.unique(dataset.y)) == (4 if "k=4" in spec else 2)
    np.testing.assert_array_equal(load(spec).x, dataset.x)
    other = load(spec.replace(",seed=1", "") + ",seed=2")
    assert np.array_equal(other.x, dataset.x) == ("noise=0" in spec and np.array_equal(other.y, dataset.y))


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
        np.testing.assert_array_equal(dataset.x, X.astype(np.float32))
        assert dataset.x.dtype == np.float32 and dataset.x.flags.c_contiguous
        assert dataset.name == "a.npy" and dataset.y is None and dataset.columns is None


@pytest.mark.parametrize("columns", ["0,-1", [0, 2], ["0", 2]])
def test_array_columns_go_by_index(folder, columns):
    np.save("a.npy", X)
    dataset = load("a.npy", columns=columns)
    np.testing.assert_array_equal(dataset.x, X[:, [0, 2]].astype(np.float32))


def test_a_column_of_an_array_can_be_the_truth(folder):
    np.save("a.npy", np.column_stack([X, Y]))
    dataset = load("a.npy", truth=-1)
    np.testing.assert_array_equal(dataset.x, X.astype(np.float32))
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
    assert dataset.image_shape == image_shape and dataset.x.dtype == np.float32
    assert load("a.npy", columns=[0]).image_shape is None


def test_npz_by_key_with_truth(folder):
    np.savez("a.npz", x_train=IMAGES, y_train=Y[:, None], other=X)
    for spec, options in (("a.npz:x_train", {}), ("a.npz", {"key": "x_train"})):
        dataset = load(spec, truth="y_train", **options)
        np.testing.assert_array_equal(dataset.x, IMAGES.reshape(4, -1))
        np.testing.assert_array_equal(dataset.y, Y)
        assert dataset.image_shape == (3, 2) and dataset.name == "a.npz:x_train"
    message = complaint("a.npz:x_tain")
    assert "x_train (4, 3, 2)" in message and "Did you mean 'x_train'" in message
    assert "'y_tran'" in complaint("a.npz:x_train", truth="y_tran")
    message = complaint("a.npz")
    assert "3 arrays" in message and "other (4, 3)" in message
    assert "'x_train'" in complaint("a.npz:x_train", key="other")


def test_npz_needs_no_key_for_a_lone_array(folder):
    np.savez_compressed("one.npz", X)
    np.savez("two.npz", x=X, y=Y)
    np.testing.assert_array_equal(load("one.npz").x, X.astype(np.float32))
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
    assert "truncated" in message and "(4, 3)" in message and "96 bytes" in message and "76 are there" in message
    (folder / "head.npy").write_bytes(whole[:50])
    assert "header" in complaint("head.npy")
    (folder / "none.npy").write_bytes(b"")
    assert "0 bytes" in complaint("none.npy")
    (folder / "text.npy").write_bytes(b"1,2,3\n4,5,6\n")
    assert "b'1,2,3" in complaint("text.npy")


def test_damaged_npz_is_refused(folder):
    np.savez("a.npz", x=X)
    whole = (folder / "a.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[:200])
    assert "200 bytes" in complaint("short.npz") and "truncated" in complaint("short.npz")
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


def test_beyond_float32_becomes_infinite_without_a_warning(folder):
    np.save("a.npy", np.array([[1e300, 1.0]]))
    np.testing.assert_array_equal(load("a.npy").x, np.array([[np.inf, 1]], np.float32))


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
    assert "24 bytes" in complaint("short-idx") and "20 were read" in complaint("short-idx")
    (folder / "head-idx").write_bytes(whole[:9])
    assert "header" in complaint("head-idx")
    (folder / "long-idx").write_bytes(whole + b"\0")
    assert "25 follow" in complaint("long-idx")
    noise = np.random.default_rng(0).integers(0, 256, (4, 50, 50)).astype(np.uint8)
    (folder / "short-idx.gz").write_bytes(gzip.compress(idx_bytes(noise))[:5000])
    assert "truncated" in complaint("short-idx.gz")


# Tables ---------------------------------------------------------------------------------------------------------


def test_csv_with_header(folder):
    write("a.csv", 'a,"b, c",name\n1,2.5,Ann\n3,-4e1,Bob\n')
    dataset = load("a.csv", truth="name")
    np.testing.assert_array_equal(dataset.x, np.array([[1, 2.5], [3, -40]], np.float32))
    assert dataset.columns == ["a", "b, c"] and dataset.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.y, ["Ann", "Bob"])
    for columns in ("a", ["a"], 0, "0", [-3]):
        np.testing.assert_array_equal(load("a.csv", columns=columns).x, np.array([[1], [3]], np.float32))
    np.testing.assert_array_equal(load("a.csv", columns=["b, c", "a"]).x[0], [2.5, 1])


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("1,2\n3,4\n", ["0", "1"], [1, 2]),
        ("5\n6\n", ["0"], [5]),
        ("a;b\n1;2\n", ["a", "b"], [1, 2]),
        ("a\tb\n1\t2\n", ["a", "b"], [1, 2]),
        ("a,b\r\n1,2\r\n", ["a", "b"], [1, 2]),
        ("\ufeffa,b\n1,2\n", ["a", "b"], [1, 2]),
        ("\n\na, b\n\n1, 2\n", ["a", "b"], [1, 2]),
        ("# a,b\n1,2\n", ["a", "b"], [1, 2]),
        (",0,1\n7,1,2\n8,3,4\n", ["0", "1"], [1, 2]),
        ("0,1\n1.5,2\n", ["0", "1"], [1.5, 2]),
        ("0,1\n2,3\n", ["0", "1"], [0, 1]),
        ("x,2019\n1,2\n", ["x", "2019"], [1, 2]),
        ("flag,b\ntrue,2\nfalse,3\n", ["flag", "b"], [1, 2]),
    ],
)
def test_csv_layouts(folder, text, columns, first):
    dataset = load(write("a.csv", text))
    assert dataset.columns == columns
    np.testing.assert_array_equal(dataset.x[0], np.array(first, np.float32))


def test_headerless_csv_with_text_truth(folder):
    write("iris.csv", "5.1,3.5,setosa\n4.9,3.0,virginica\n")
    dataset = load("iris.csv", truth=2)
    np.testing.assert_array_equal(dataset.y, ["setosa", "virginica"])
    assert dataset.x.shape == (2, 2)


def test_missing_cells_are_nan(folder):
    write("a.csv", "a,b\n1,\n,3\nNA,nan\n")
    np.testing.assert_array_equal(load("a.csv").x, [[1, np.nan], [np.nan, 3], [np.nan, np.nan]])


def test_a_fraction_far_down_a_column_of_integers_is_read(folder):
    write("a.csv", "a,b\n" + "1,2\n" * 300_000 + "1.5,2\n")
    dataset = load("a.csv")
    assert dataset.x.shape == (300_001, 2) and dataset.x[-1, 0] == 1.5


def test_text_columns_are_named(folder):
    write("a.csv", "id,a,city,day\nx1,1,Rome,2020-01-01\nx2,2,Oslo,2020-01-02\n")
    message = complaint("a.csv")
    assert all(word in message for word in ("'id'", "'city'", "'Rome'", "'day'", "columns", "truth"))
    assert "'a'" not in message
    assert "'city'" not in complaint("a.csv", truth="city")
    assert load("a.csv", columns="a", truth="city").x.shape == (2, 1)


def test_the_one_value_that_is_no_number_is_shown(folder):
    write("near.csv", "age,b\n1,2\n?,3\n")
    assert "'age'" in complaint("near.csv") and "'?'" in complaint("near.csv")
    write("far.csv", "age,b\n" + "1,2\n" * 300_000 + "?,2\n")
    assert "'age'" in complaint("far.csv") and "'?'" in complaint("far.csv")


def test_unknown_columns_list_the_known(folder):
    write("a.csv", "height,weight,a,a\n1,2,3,4\n")
    message = complaint("a.csv", columns="hight")
    assert "'hight'" in message and "height, weight" in message and "Did you mean 'height'" in message
    assert "'kind'" in complaint("a.csv", truth="kind")
    assert "index 9" in complaint("a.csv", columns=[9])
    assert "several columns named 'a'" in complaint("a.csv", columns="a")
    assert "no columns" in complaint("a.csv", columns=[])
    assert load("a.csv", columns=[2, 3]).x.tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("a,b\n", "no rows"),
        ("a,b,c\n1,2,3\n4,5,6\n7,8", "1 of 3 rows do not have 3 fields"),
        ("a,b\n1,\0\n", "binary"),
    ],
)
def test_broken_csv_is_refused(folder, text, word):
    assert word in complaint(write("a.csv", text))


def test_missing_labels_are_refused(folder):
    write("a.csv", "a,b\n1,x\n2,\n3,\n")
    message = complaint("a.csv", truth="b")
    assert "2 missing labels" in message and "row 1" in message


def test_zipped_csv(folder):
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 1000))
    assert load("a.csv.gz").x.shape == (1000, 2)
    (folder / "b.csv.gz").write_bytes((folder / "a.csv.gz").read_bytes()[:-12])
    assert "b.csv.gz" in complaint("b.csv.gz")


def test_parquet(folder):
    table = {
        "e": [[1.0, 2.0], [3.0, 4.0]],
        "n": [1, None],
        "kind": pa.array(["u", "v"]).dictionary_encode(),
        "flag": [True, False],
        "__index_level_0__": [7, 8],
    }
    parquet.write_table(pa.table(table), "a.parquet")
    dataset = load("a.parquet", truth="kind")
    np.testing.assert_array_equal(dataset.x, [[1, 2, 1, 1], [3, 4, np.nan, 0]])
    assert dataset.columns == ["e[0]", "e[1]", "n", "flag"] and dataset.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.y, ["u", "v"])
    assert "'kind'" in complaint("a.parquet")
    assert "e, n, kind, flag" in complaint("a.parquet", columns="m")


def test_broken_parquet_is_refused(folder):
    parquet.write_table(pa.table({"e": [[1.0, 2.0], [3.0]]}), "ragged.parquet")
    assert "different lengths" in complaint("ragged.parquet")
    (folder / "short.parquet").write_bytes((folder / "ragged.parquet").read_bytes()[:100])
    assert "100 bytes" in complaint("short.parquet")


# Paths ----------------------------------------------------------------------------------------------------------


def test_missing_file_offers_near_names(folder):
    np.save("train.npy", X)
    with pytest.raises(DataNotFoundError, match=r"trian\.npy does not exist.*train\.npy") as error:
        load("trian.npy")
    assert isinstance(error.value, FileNotFoundError) and isinstance(error.value, ValueError)
    assert "no folder" in complaint("nowhere/a.npy")
    assert "train.npy" in complaint("completely_different.csv")
    assert "folder" in complaint(folder)
    assert "none.npy" in complaint("train.npy", truth="none.npy")


def test_unknown_format_lists_the_known(folder):
    message = complaint(write("a.txt", "hello"))
    assert "'.txt'" in message and ".npy, .npz, .csv" in message and "idx" in message
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


# Scaling --------------------------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal([0, 1e4, -3, 5], [1, 1, 50, 0], (40, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("how", "oracle"),
    [
        ("standard", preprocessing.StandardScaler()),
        ("minmax", preprocessing.MinMaxScaler()),
        ("l2", preprocessing.Normalizer()),
        ("none", preprocessing.FunctionTransformer()),
    ],
)
def test_scaling_is_scikit_learns(how, oracle):
    scaled, scaling = scale(ROWS, how)
    expected = oracle.fit_transform(ROWS.astype(np.float64))
    assert scaled.dtype == np.float32 and scaling.how == how
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)
    new = ROWS[:5] * 1.5 + 1
    np.testing.assert_allclose(scaling.apply(new), oracle.transform(new.astype(np.float64)), rtol=1e-5, atol=1e-5)
    if how != "l2":
        np.testing.assert_allclose(scaling.undo(scaled), ROWS, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("how", SCALINGS)
def test_scaling_survives_json(how):
    scaled, scaling = scale(ROWS, how)
    again = Scaling.from_json(json.loads(json.dumps(scaling.to_json())))
    np.testing.assert_array_equal(again.apply(ROWS), scaled)


@pytest.mark.parametrize("how", SCALINGS)
def test_constant_columns_and_zero_rows_stay_finite(how):
    x = np.full((1001, 2), 0.1, np.float32)
    x[0] = 0.1 if how in ("standard", "minmax") else 0
    scaled, _ = scale(x, how)
    assert np.isfinite(scaled).all()
    assert not scaled[0].any() if how != "none" else np.array_equal(scaled, x)


def test_scaling_works_in_tiles(monkeypatch):
    whole = {how: scale(ROWS, how)[0] for how in SCALINGS}
    monkeypatch.setattr("jaxcluster.datasets.scaling.TILE", 12)
    for how in SCALINGS:
        np.testing.assert_allclose(scale(ROWS, how)[0], whole[how], rtol=1e-6, atol=1e-6)


def test_wrong_scalings_are_refused():
    with pytest.raises(DataError, match=r"'standart'.*Did you mean 'standard'"):
        scale(ROWS, "standart")
    with pytest.raises(DataError, match="4 columns"):
        scale(ROWS, "standard")[1].apply(ROWS[:, :3])
    with pytest.raises(ValueError, match=r"1 NaN.*column 2"):
        scale(np.where(np.arange(160).reshape(40, 4) == 6, np.nan, ROWS), "minmax")
    with pytest.raises(DataError, match="needs shift"):
        Scaling.from_json({"how": "standard"})
    with pytest.raises(DataError, match="not known"):
        Scaling.from_json({"shift": [1]})

"""Tables: CSV however it is laid out, Parquet, and what is said about columns that do not fit."""

from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pytest
from data_files import complaint, write
from pyarrow import parquet

from jaxcluster.datasets import DataError, layout, load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_csv_with_header(folder):
    write("a.csv", 'a,"b, c",name\n1,2.5,Ann\n3,-4e1,Bob\n')
    dataset = load("a.csv", truth="name")
    np.testing.assert_array_equal(dataset.x, [[1, 2.5], [3, -40]])
    assert dataset.columns == ["a", "b, c"]
    assert dataset.x.dtype == np.float64
    np.testing.assert_array_equal(dataset.y, ["Ann", "Bob"])
    for columns in ("a", ["a"], 0, "0", [-3]):
        np.testing.assert_array_equal(load("a.csv", columns=columns).x, [[1], [3]])
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
    np.testing.assert_array_equal(dataset.x[0], first)


def test_a_column_without_cells_is_missing(folder):
    parquet.write_table(pa.table({"x": pa.nulls(3), "y": [1.0, 2.0, 3.0]}), "a.parquet")
    np.testing.assert_array_equal(load("a.parquet").x, [[np.nan, 1], [np.nan, 2], [np.nan, 3]])


def test_headerless_csv_with_text_truth(folder):
    write("iris.csv", "5.1,3.5,setosa\n4.9,3.0,virginica\n")
    dataset = load("iris.csv", truth=2)
    np.testing.assert_array_equal(dataset.y, ["setosa", "virginica"])
    assert dataset.x.shape == (2, 2)


def test_missing_cells_are_nan(folder):
    write("a.csv", "a,b\n1,\n,3\nNA,nan\n")
    np.testing.assert_array_equal(load("a.csv").x, [[1, np.nan], [np.nan, 3], [np.nan, np.nan]])


def test_a_quoted_line_break_is_part_of_its_field(folder, monkeypatch):
    monkeypatch.setattr(layout, "MIN_BLOCK_BYTES", 16)
    write("a.csv", 'a,"no\nte"\n' + '1,"x\ny"\n2,z\n' * 50)
    dataset = load("a.csv", truth="no\nte")
    np.testing.assert_array_equal(dataset.x, [[1], [2]] * 50)
    np.testing.assert_array_equal(dataset.y, ["x\ny", "z"] * 50)


def test_rows_longer_than_a_block_are_read(folder, monkeypatch):
    monkeypatch.setattr(layout, "MIN_BLOCK_BYTES", 16)
    row = np.arange(1000)
    write("a.csv", "\n".join([",".join(map(str, row))] * 3))
    np.testing.assert_array_equal(load("a.csv").x, np.tile(row, (3, 1)))


def test_late_fraction_in_integer_column_is_read(folder):
    write("a.csv", "a,b\n" + "1,2\n" * 300_000 + "1.5,2\n")
    dataset = load("a.csv")
    assert dataset.x.shape == (300_001, 2)
    assert dataset.x[-1, 0] == 1.5


def test_text_columns_are_named(folder):
    write("a.csv", "id,a,city,day\nx1,1,Rome,2020-01-01\nx2,2,Oslo,2020-01-02\n")
    message = complaint("a.csv")
    assert all(word in message for word in ("'id'", "'city'", "'Rome'", "'day'", "columns", "truth"))
    assert "'a'" not in message
    assert "'city'" not in complaint("a.csv", truth="city")
    assert load("a.csv", columns="a", truth="city").x.shape == (2, 1)


def test_the_one_value_that_is_no_number_is_shown(folder):
    write("near.csv", "age,b\n1,2\n?,3\n")
    assert "'age'" in complaint("near.csv")
    assert "'?'" in complaint("near.csv")
    write("far.csv", "age,b\n" + "1,2\n" * 300_000 + "?,2\n")
    assert "'age'" in complaint("far.csv")
    assert "'?'" in complaint("far.csv")


def test_unknown_columns_list_the_known(folder):
    write("a.csv", "height,weight,a,a\n1,2,3,4\n")
    message = complaint("a.csv", columns="hight")
    assert "'hight'" in message
    assert "height, weight" in message
    assert "Did you mean 'height'" in message
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
    assert "2 missing labels" in message
    assert "row 1" in message


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
    assert dataset.columns == ["e[0]", "e[1]", "n", "flag"]
    assert dataset.x.dtype == np.float64
    assert any("index that pandas stored" in note for note in dataset.notes)
    np.testing.assert_array_equal(dataset.y, ["u", "v"])
    assert "'kind'" in complaint("a.parquet")
    assert "e, n, kind, flag" in complaint("a.parquet", columns="m")


def test_parquet_of_other_types(folder):
    x = pa.array([1.0, 2.0, 3.0])

    def stored(column, **options):
        parquet.write_table(pa.table({"k": column, "x": x}), "t.parquet")
        return load("t.parquet", **options)

    nanoseconds = pa.array([0, 1, 2**62], pa.timestamp("ns"))
    found = stored(nanoseconds, dates=True).x[:, 0]
    np.testing.assert_allclose(found, [0, 1 / 86_400e9, 2**62 / 86_400e9], rtol=1e-15)
    days = pa.array([0, 86_400_000, None], pa.timestamp("ms"))
    assert stored(days, encode="k=onehot").columns == ["k=1970-01-01", "k=1970-01-02", "x"]
    assert "each is a category" in stored(days, categories=True).notes[0]
    for kind in (pa.timestamp("us"), pa.date32(), pa.date64()):
        column = pa.array([0, 86_400_000, 172_800_000], pa.timestamp("ms")).cast(kind)
        assert stored(column, row_id="k").ids.tolist() == ["1970-01-01", "1970-01-02", "1970-01-03"]
    views = pa.array(["u", "v", "u"], pa.string_view())
    assert stored(views, encode="onehot").columns == ["k=u", "k=v", "x"]
    assert stored(views, truth="k").y.tolist() == ["u", "v", "u"]
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2))
    np.testing.assert_array_equal(stored(tensors).x[:, :4], np.arange(12.0).reshape(3, 4))
    for column in (pa.array([b"1"] * 3), pa.array([[1]] * 3)):
        with pytest.raises(DataError, match="one number or word a row"):
            stored(column, truth="k")


def test_broken_parquet_is_refused(folder):
    parquet.write_table(pa.table({"e": [[1.0, 2.0], [3.0]]}), "ragged.parquet")
    assert "different lengths" in complaint("ragged.parquet")
    (folder / "short.parquet").write_bytes((folder / "ragged.parquet").read_bytes()[:100])
    assert "100 bytes" in complaint("short.parquet")

"""Tables with categorical columns: types, categories, codes, and what is refused."""

from __future__ import annotations

import datetime
import warnings

import numpy as np
import pyarrow as pa
import pytest

from jaxcluster.datasets import DataError, load
from jaxcluster.datasets.categories import MISSING, UNSEEN, read_mixed

COLORS = ["red", "blue", "red", "green"]


def frame():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(
        {
            "color": COLORS,
            "size": [1.5, 2.5, 3.5, 4.5],
            "grade": pandas.Categorical(["b", "a", "b", "a"], categories=["b", "a", "unused"]),
            "flag": [True, False, True, True],
            "count": pandas.array([1, 2, 3, 4], dtype="Int64"),
        }
    )


def arrow():
    return pa.table(
        {
            "color": COLORS,
            "size": [1.5, 2.5, 3.5, 4.5],
            "grade": pa.array(["b", "a", "b", "a"]).dictionary_encode(),
            "flag": [True, False, True, True],
            "count": pa.array([1, 2, 3, 4], pa.int64()),
        }
    )


def polars():
    library = pytest.importorskip("polars")
    return library.from_arrow(arrow()).with_columns(library.col("color").cast(library.Categorical))


def rows():
    return [[*cells] for cells in zip(*arrow().to_pydict().values(), strict=True)]


@pytest.mark.parametrize("table", [frame, arrow, polars, rows])
def test_categorical_columns_are_known_by_their_type(table):
    columns, cells = read_mixed(table())
    assert columns.categorical == (0, 2, 3)
    assert columns.categories == (("blue", "green", "red"), ("a", "b"), (False, True))
    assert columns.names == (None if table is rows else ("color", "size", "grade", "flag", "count"))
    np.testing.assert_array_equal(cells.codes, [[2, 1, 1], [0, 0, 0], [2, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(cells.numbers, [[1.5, 1], [2.5, 2], [3.5, 3], [4.5, 4]])
    decoded = columns.decode(cells.numbers, cells.codes)
    assert decoded.tolist() == [[*row[:4], float(row[4])] for row in rows()]


@pytest.mark.parametrize("table", [frame, arrow])
def test_new_rows_are_coded_as_those_of_the_fit(table):
    columns, _ = read_mixed(table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, again = read_mixed(table(), like=columns)
    np.testing.assert_array_equal(again.codes, read_mixed(table())[1].codes)
    new = [["pink", 1.0, "a", True, 3], ["red", 1.0, "c", False, 3], ["pink", 2.0, "a", True, 3]]
    with pytest.warns(UserWarning, match="3 rows have categories.*: 'pink' in column 'color', 'c' in column 'grade'"):
        _, cells = read_mixed(new, like=columns)
    np.testing.assert_array_equal(cells.codes, [[UNSEEN, 0, 1], [2, UNSEEN, 0], [UNSEEN, 0, 1]])
    with pytest.raises(ValueError, match="init has categories that X does not: 'pink' in column 'color'"):
        read_mixed(new, like=columns, unseen="raise", name="init")


def test_columns_are_named_by_position_name_or_mask():
    for categorical in ([0, 1], ["color", "size"], [True, True, False, False, False]):
        with pytest.raises(ValueError, match="categories in columns 'grade', 'flag', which categorical= leaves"):
            read_mixed(arrow(), categorical=categorical)
    numbers = np.array([[1, 0.5], [2, 0.5], [1.0, 0.5]], np.float32)
    columns, cells = read_mixed(numbers, categorical=0)
    assert (columns.categorical, columns.categories) == ((0,), ((1.0, 2.0),))
    assert cells.numbers.dtype == np.float32
    assert read_mixed(numbers)[0].categorical == ()
    assert read_mixed(np.array([["1", "2"], ["3", "4"]]))[0].categorical == (0, 1)
    for wrong, message in (
        ("x", "has no column names"),
        (5, "index 5 is outside 0 to 1"),
        ([0.5], "must hold positions"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            read_mixed(numbers, categorical=wrong)


def test_categories_are_sorted_by_kind_and_value():
    column = np.array([["b"], [10], [True], [2.5], ["a"], [1], [1.0], [-0.0], [0]], object)
    columns, cells = read_mixed(column)
    assert columns.categories == ((True, 0.0, 1, 2.5, 10, "a", "b"),)
    assert [type(each) for each in columns.categories[0][:3]] == [bool, float, int]
    assert cells.codes.ravel().tolist() == [6, 4, 0, 3, 5, 2, 2, 1, 1]


@pytest.mark.parametrize("table", [frame, arrow, polars])
def test_missing_cells_are_named_by_column(table):
    pandas = pytest.importorskip("pandas")
    cells = arrow().to_pydict()
    cells["color"][1], cells["size"][2], cells["flag"][0] = None, None, None
    if table is frame:
        holes = pandas.DataFrame(cells)
        holes["grade"] = pandas.Categorical([None, "a", "b", "a"])
        holes["count"] = pandas.array([1, None, 3, 4], dtype="Int64")
        message = r"X contains 5 NaN values \(missing cells\) in columns 'color', 'size', 'grade', 'flag', 'count'"
    else:
        holes = pa.table(cells) if table is arrow else pytest.importorskip("polars").DataFrame(cells)
        message = r"X contains 3 NaN values \(missing cells\) in columns 'color', 'size', 'flag'"
    with pytest.raises(ValueError, match=message):
        read_mixed(holes)
    numbers = [[1.0, None], [np.nan, 2]]
    assert read_mixed(numbers, missing=True)[0].categorical == ()
    columns, read = read_mixed(holes, missing=True)
    assert None not in columns.categories[0]
    assert read.codes[1, 0] == MISSING
    assert np.isnan(read.numbers[2, 0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([["a", 1], ["b"]], "rows have different lengths"),
        (np.ones(3), "must be 2-D"),
        (np.ones((0, 2)), r"shape=\(0, 2\)"),
        ([["a", np.inf], ["b", 1.0]], "1 infinity values in column 1"),
        ([["a", 1j], ["b", 1j]], "column 1 of X holds '1j' of type complex"),
        ([[datetime.date(2020, 1, 1)], ["b"]], "of type date. Categories are text, numbers or booleans"),
        ([[["a"]], ["b"]], "column 0 of X holds|2-D"),
        (np.array([["2020-01-01"]], "M8[D]"), "column 0 of X has dtype datetime64"),
    ],
)
def test_other_tables_are_refused(table, message):
    with pytest.raises((ValueError, TypeError), match=message):
        read_mixed(table)


def test_a_file_keeps_its_words_and_tells_of_dates(tmp_path):
    path = tmp_path / "sold.csv"
    path.write_text("row,color,sold,size\nA,red,2024-01-02,1\nB,?,2024-01-01,-9\nC,blue,,3\n")
    options = {"row_id": "row", "na": ["?", "-9"], "categories": True}
    words, days = load(path, **options), load(path, **options, dates=True)
    assert words.ids.tolist() == ["A", "B", "C"]
    assert "column 'sold' holds dates, and each is a category" in words.notes[-1]
    assert words.cells.to_pydict()["sold"] == ["2024-01-02", "2024-01-01", None]
    assert days.cells.to_pydict() == {
        "color": ["red", None, "blue"],
        "sold": [19724.0, 19723.0, None],
        "size": [1.0, None, 3.0],
    }
    np.testing.assert_array_equal(days.x, [[1, 19724, 1], [np.nan, 19723, np.nan], [0, np.nan, 3]])
    with pytest.raises(DataError, match="keeps the words that encode= turns into numbers"):
        load(path, **options, encode="onehot")

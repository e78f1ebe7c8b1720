"""Codes of words and dates, imputation, and files of tables, against scikit-learn, pandas and the plain file."""

from __future__ import annotations

import lzma
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from data_files import complaint, write
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from jaxcluster.datasets import impute, load
from jaxcluster.datasets.dates import days
from jaxcluster.datasets.imputation import Imputation

N = 40
TABLE = pd.DataFrame(
    {
        "name": [f"r{i}" for i in range(N)],
        "color": np.array(["red", "green", "blue"])[np.arange(N) % 3],
        "size": np.array(["small", "large"])[np.arange(N) % 2],
        "day": [f"2024-0{1 + i % 9}-{10 + i % 20}" for i in range(N)],
        "flag": np.array(["true", "false"])[np.arange(N) // 20],
        "x": np.round(np.sin(np.arange(N)), 3),
        "y": np.arange(N) * 1.0,
    }
)
WORDS = {"row_id": "name", "encode": ["onehot", "size=small<large"], "dates": True}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("a.csv", index=False)
    return tmp_path


def test_words_become_the_columns_of_scikit_learn():
    dataset = load("a.csv", **WORDS)
    expected = np.column_stack(
        [
            OneHotEncoder(sparse_output=False).fit_transform(TABLE[["color"]]),
            TABLE["size"] == "large",
            (pd.to_datetime(TABLE["day"]) - pd.Timestamp("1970-01-01")).dt.days,
            TABLE["flag"] == "true",
            TABLE[["x", "y"]],
        ]
    )
    np.testing.assert_array_equal(dataset.x, expected)
    assert dataset.columns == ["color=blue", "color=green", "color=red", "size", "day", "flag", "x", "y"]
    np.testing.assert_array_equal(dataset.ids, TABLE["name"])
    decoded = pd.DataFrame(dataset.encoding.decode(dataset.x))
    assert decoded["day"].dt.strftime("%Y-%m-%d").tolist() == TABLE["day"].tolist()
    for name in ("color", "size", "flag", "x", "y"):
        assert decoded[name].tolist() == TABLE[name].tolist()


def test_new_rows_have_the_codes_of_the_fit():
    encoding = load("a.csv", **WORDS).encoding
    TABLE.iloc[::-1].head(5).to_csv("b.csv", index=False)
    new = load("b.csv", encode=encoding, columns=encoding.names)
    np.testing.assert_array_equal(new.x, load("a.csv", **WORDS).x[::-1][:5])
    TABLE.replace("red", "pink").to_csv("b.csv", index=False)
    assert "holds 'pink', which the fit has not seen" in complaint("b.csv", encode=encoding, columns=encoding.names)
    new = load("b.csv", encode=encoding._replace(lenient=True), columns=encoding.names)
    np.testing.assert_array_equal(np.isnan(new.x[:, :3]).all(axis=1), TABLE["color"] == "red")
    assert "'pink' in 14 rows, taken as missing cells" in new.notes[0]
    TABLE.assign(y="?").to_csv("b.csv", index=False)
    assert "holds '?', and the model was fitted on numbers" in complaint(
        "b.csv", encode=encoding, columns=encoding.names
    )


def test_an_encoding_from_a_file_is_checked():
    encoding = load("a.csv", **WORDS).encoding
    encoding.check(8)
    wrong = encoding._replace(columns=(encoding.columns[0]._replace(kind="pickle"), *encoding.columns[1:]))
    for each, width in ((encoding, 7), (wrong, 8), (encoding._replace(columns=encoding.columns[1:]), 8)):
        with pytest.raises(ValueError, match="no code that is known|does not fit"):
            each.check(width)


def test_an_order_that_nobody_gave_is_said():
    notes = load("a.csv", row_id="name", drop="day", encode="ordinal").notes
    assert notes[1].startswith("column 'size' is numbered by the alphabet: large=0, small=1; pass encode='size=A<B<C'")
    numbered = load("a.csv", columns="y", encode="y=onehot")
    assert numbered.columns == [f"y={word}" for word in sorted(map(str, range(N)))]
    np.testing.assert_array_equal(numbered.encoding.decode(numbered.x)["y"], list(map(str, range(N))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encode": "onehot", "row_id": "name"},
            "column 'day' (dates, such as '2024-01-10'). Leave",
        ),
        ({"encode": "onehot", "dates": True}, "column 'name' holds 40 different words in 40 rows: it names rows"),
        ({"dates": True, "row_id": "name"}, "columns 'color' (holds 'red'), 'size' (holds 'small')"),
        ({"encode": "size=small<big", "columns": "size"}, "holds 'large', which its order leaves out"),
        ({"encode": "onehott"}, "Did you mean 'onehot'?"),
        ({"encode": "color=hot"}, "'hot' must be onehot, ordinal, or an order"),
        ({"encode": "colour=onehot", "columns": "color"}, "Did you mean 'color'?"),
        ({"drop": "x", "columns": "x,y"}, "column 'x' is both left out and chosen"),
        ({}, "encode words (encode=), or take dates as numbers of days (dates=)"),
    ],
)
def test_tables_that_have_no_numbers(options, message):
    assert message in complaint("a.csv", **options)


def test_a_typing_error_among_numbers_is_no_word():
    TABLE.assign(y=[*range(N - 2), "?", "-999.0"]).to_csv("b.csv", index=False)
    assert "column 'y' holds numbers, and '?'. Name the cells that are missing values (na=)" in complaint(
        "b.csv", **WORDS
    )
    y = load("b.csv", **WORDS, na=["?", "-999"]).x[:, -1]
    np.testing.assert_array_equal(np.isnan(y), np.arange(N) >= N - 2)
    assert np.isnan(load("b.csv", columns="y", na=["?", "-999"]).x[-2:]).all()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1970-01-03", "1970-01-01T06:00"], [2, 0.25]),
        (["1970-01-01 01:00+01:00", "1970/1/2"], [0, 1]),
        (["3.1.1970", "03.01.1970 9:00"], [2, 2.375]),
        (["13/1/1970", "2/1/1970"], [12, 1]),
        (["1/13/1970", "1/2/1970"], [12, 1]),
    ],
)
def test_dates_are_days(cells, expected):
    assert list(days(cells).values()) == expected


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1/2/1970"], "whose day may be either number"),
        (["13/1/1970", "1/13/1970"], "both orders of day and month"),
        (["1970-02-30"], "among dates, which is none"),
        (["1970-01-01", "soon"], "'soon' among dates"),
    ],
)
def test_dates_that_are_none(cells, message):
    with pytest.raises(ValueError, match=message):
        days(cells)


@pytest.mark.parametrize("how", ["mean", "median", "knn"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_imputation_is_that_of_scikit_learn(how, dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 4)) * [1, 1000, 0.01, 5] + [0, 0, 3, 0]).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    filled, imputation = impute(x, how)
    scaler = StandardScaler().fit(x.astype(np.float64))
    if how == "knn":
        neighbors = KNNImputer(n_neighbors=5).fit_transform(scaler.transform(x.astype(np.float64)))
        expected = scaler.inverse_transform(neighbors)
    else:
        expected = SimpleImputer(strategy=how).fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(filled, expected, rtol=1e-5 if dtype == "float32" else 1e-10)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[~np.isnan(x)], x[~np.isnan(x)])
    np.testing.assert_array_equal(imputation.apply(x[:7]), filled[:7])
    imputation.check(4)
    with pytest.raises(ValueError, match="does not fit 3 columns"):
        imputation.check(3)


def test_missing_words_get_frequencies():
    words = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [np.nan] * 3])
    np.testing.assert_allclose(impute(words, "mean", groups=[slice(0, 3)])[0][4], [0.5, 0.25, 0.25])
    np.testing.assert_array_equal(impute(words, "median", groups=[slice(0, 3)])[0][4], [1, 0, 0])


def test_far_numbers_are_filled_to_their_last_digit():
    x = np.array([[1.7e9 + 0.25], [1.7e9 + 0.75], [np.nan]])
    assert impute(x, "mean")[0][2, 0] == 1.7e9 + 0.5
    with pytest.raises(ValueError, match="column 'a' has no value"):
        impute(np.array([[np.nan], [np.nan]]), "mean", columns=["a"])
    with pytest.raises(ValueError, match="of 1 columns"):
        Imputation("mean", np.zeros(1)).apply(np.zeros((2, 2)))


# Files ----------------------------------------------------------------------------------------------------------


def test_packed_text_is_read():
    text, expected = Path("a.csv").read_bytes(), load("a.csv", columns="x,y").x
    Path("a.csv.xz").write_bytes(lzma.compress(text))
    for ending in ("zst", "bz2", "gz"):
        compression = {"zst": "zstd", "gz": "gzip"}.get(ending, ending)
        with pa.output_stream(f"a.csv.{ending}", compression=compression) as stream:
            stream.write(text)
    for ending in ("xz", "zst", "bz2", "gz"):
        np.testing.assert_array_equal(load(f"a.csv.{ending}", columns="x,y").x, expected)
        path = Path(f"a.csv.{ending}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "is it truncated?" in complaint(path) or "Is it truncated?" in complaint(path)


def test_json_lines_are_read():
    TABLE.assign(flag=TABLE["flag"] == "true").to_json("a.jsonl", orient="records", lines=True)
    dataset = load("a.jsonl", **WORDS)
    np.testing.assert_array_equal(dataset.x, load("a.csv", **WORDS).x)
    assert dataset.columns == load("a.csv", **WORDS).columns
    write("b.jsonl", '{"a": 1}\n{"a": 2, "b": 3}\n')
    np.testing.assert_array_equal(load("b.jsonl").x, [[1, np.nan], [2, 3]])
    for text in ('{"a": 1%s} {"a": 2}\n', '{\n"a": 1%s}\n{"a": 2}\n', '\ufeff{"a": 1%s}\n\n{"a": 2}'):
        write("b.jsonl", text % ("0" * 19))
        np.testing.assert_array_equal(load("b.jsonl").x, np.array([[10**19], [2]], np.uint64))
    write("b.jsonl", '{"a": 1\n')
    assert "b.jsonl: line 1 is no JSON object" in complaint("b.jsonl")
    write("b.jsonl", '{"a": 2}\n{"a": 1e400}\n')
    assert "key 'a' in line 2 holds no number within float64's range" in complaint("b.jsonl")


def test_files_of_one_table_are_joined():
    TABLE[:15].to_csv("part-1.csv", index=False)
    TABLE[TABLE.columns[::-1]][15:].assign(y="?").to_csv("part-2.csv", index=False)
    dataset = load("part-*.csv", **WORDS, na=["?"])
    np.testing.assert_array_equal(dataset.x[:, :-1], load("a.csv", **WORDS).x[:, :-1])
    np.testing.assert_array_equal(dataset.ids, TABLE["name"])
    assert dataset.notes == ("2 files are read as one table: part-1.csv, part-2.csv.",)
    np.testing.assert_array_equal(load("part-*.csv", columns="x").x, load("a.csv", columns="x").x)
    TABLE[:3].to_csv("part-3.csv")  # pandas numbers the rows
    assert "part-3.csv has other columns than part-1.csv: it has '' besides." in complaint("part-*.csv")
    for i in (4, 5):
        TABLE[["x", "y"]][:3].to_csv(f"numbered-{i}.csv")
    assert load("numbered-*.csv").columns == ["x", "y"]
    np.save("numbered-6.npy", np.eye(2))
    assert "which must be tables" in complaint("numbered-*")


def test_a_sheet_of_excel_is_read():
    openpyxl = pytest.importorskip("openpyxl")
    TABLE.assign(day=pd.to_datetime(TABLE["day"]), flag=TABLE["flag"] == "true").to_excel("a.xlsx", index=False)
    np.testing.assert_array_equal(load("a.xlsx", **WORDS).x, load("a.csv", **WORDS).x)
    book = openpyxl.load_workbook("a.xlsx")
    book.create_sheet("more").append(["q"])
    book.save("a.xlsx")
    assert "holds sheets Sheet1, more. Choose one" in complaint("a.xlsx")
    assert "has no sheet 'x'" in complaint("a.xlsx", key="x")


def test_options_of_a_table_mean_nothing_to_an_array():
    np.save("a.npy", np.eye(3))
    assert "is no table, so that encode has no effect (encode=)" in complaint("a.npy", encode="onehot")
    assert "is no table, so that dates has no effect" in complaint("iris", dates=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ('{"a": 1}\n{"a": "x"}\n', "key 'a' holds a number in line 1 and text in line 2"),
        ('{"a": 1}\n\n{"a": 2\n', "line 3 is no JSON object: '{\"a\": 2'"),
        ("[1, 2]\n", "line 1 holds a list, where an object is expected"),
        ('{"a": 1, "a": 2}\n', "line 1 has the key 'a' twice"),
        ('{"é": 1}\n', None),
    ],
)
def test_json_lines_say_what_is_wrong(text, reason):
    if reason is None:
        Path("c.jsonl").write_bytes(text.encode("latin-1"))
        reason = "line 1 is not UTF-8"
    else:
        write("c.jsonl", text)
    assert reason in complaint("c.jsonl")


def test_long_lines_of_json_are_read():
    write("d.jsonl", "".join(f'{{"a": [{", ".join(["1"] * 400_000)}]}}\n' for _ in range(2)))
    assert load("d.jsonl").x.shape == (2, 400_000)


def test_ids_of_many_digits_are_read_or_said():
    write("e.jsonl", "".join(f'{{"a": {10**19 + i}}}\n' for i in range(3)))
    assert load("e.jsonl").x.ravel().tolist() == [10**19, 10**19 + 1, 10**19 + 2]
    for name, rows in (
        ("f.jsonl", [f'{{"a": {10**24 + i}}}' for i in range(3)]),
        ("f.csv", ["a,b", *(f"{10**24 + i},{i}" for i in range(3))]),
        ("g.csv", ["a,b", *(f"-{10**20 + i}.5,{i}" for i in range(3))]),
    ):
        write(name, "\n".join(rows) + "\n")
        with pytest.warns(UserWarning, match="has numbers of more digits than float64 holds, and rows differ in them"):
            load(name)
    write("h.csv", "a,b\n" + "".join(f"{i}{'0' * 30},{i}\n" for i in range(1, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("h.csv")


def test_integers_and_fractions_in_two_files(tmp_path):
    write("i1.csv", "a,b\n" + "".join(f"{10**18 + i},{i}\n" for i in range(3)))
    write("i2.csv", "a,b\n1.5,1\n")
    assert "i1.csv: column 'a' has integers beyond 2^53" in complaint("i?.csv")

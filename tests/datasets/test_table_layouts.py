"""Text tables as other programs write them: headers, indices, delimiters, decimal marks and encodings."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from data_files import complaint, write
from pyarrow import parquet

from jaxcluster.datasets import DataError, load, load_labels, scan
from jaxcluster.datasets.base import HAS_EXTENDED_PRECISION

ROWS = [[1.5, 2.5], [3.25, 4.0], [5.0, 6.5]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_bytes(name: str, data: bytes) -> str:
    with open(name, "wb") as file:
        file.write(data)
    return name


# Headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows", "expected"),
    [
        ("2019,2020,2021\n1.5,2,3\n4,5.5,6\n", 2, "header=False"),
        ("2019,2020,2021\n150,90,310\n90,200,280\n140,80,290\n", 3, "header=False"),
        ("2019,2020,2021\n1999,2001,2005\n1998,2003,2010\n", 3, "header=True"),
        ("1914,1918\n1939,1945\n1950,1953\n", 3, "header=True"),
        ("0,1,2\n1.5,2,3\n4,5.5,6\n", 2, "header=False"),
        ("0,1,2\n15,20,30\n14,25,31\n", 2, "header=False"),
        ("0,1,2\n5,3,9\n6,7,1\n", 2, "header=False"),
        ("0,1,2\n3,4,5\n6,7,8\n", 3, "header=True"),
        ("0,1\n2,3\n4,5\n", 3, "header=True"),
        ("0,1\n0.5,1.5\n0.25,1.75\n", 2, "header=False"),
        ("0,1\n0.5,1.5\n5,6\n", 3, "header=True"),
        ("400,402,404,406,408\n.1,.2,.3,.4,.5\n.1,.2,.3,.4,.6\n", 2, "header=False"),
        ("0;1;2\n1,5;2;3\n4;5,5;6\n", 2, "header=False"),
        ("3,1,2\n1.5,2,3\n", 2, ""),
        ("1,,3\n4,5,6\n", 2, ""),
        ("NA,2\n3,4\n", 2, ""),
        ("a,2019\n1,2\n", 1, ""),
    ],
)
def test_numbers_in_the_first_line(text, rows, expected):
    dataset = load(write("a.csv", text))
    assert len(dataset.x) == rows
    assert any(expected in note for note in dataset.notes) == bool(expected), dataset.notes
    assert len(load("a.csv", header=True).x) == text.count("\n") - 1
    if "a" not in text:
        forced = load("a.csv", header=False)
        assert len(forced.x) == text.count("\n")
        assert forced.columns == [str(i) for i in range(forced.x.shape[1])]
        assert not forced.notes


def test_words_over_words_are_names_unless_repeated():
    write("a.csv", "country,2019,2020\nFrance,1,2\nSpain,3,4\n")
    dataset = load("a.csv", truth="country")
    assert dataset.columns == ["2019", "2020"]
    np.testing.assert_array_equal(dataset.y, ["France", "Spain"])
    write("b.csv", "setosa\nvirginica\nsetosa\n")
    np.testing.assert_array_equal(load_labels("b.csv"), ["setosa", "virginica", "setosa"])
    write("c.csv", "species\nsetosa\nvirginica\n")
    np.testing.assert_array_equal(load_labels("c.csv"), ["setosa", "virginica"])
    np.testing.assert_array_equal(load_labels("c.csv", header=False), ["species", "setosa", "virginica"])


# Indices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1, 7])
def test_an_index_that_pandas_wrote_is_left_out(start):
    frame = pd.DataFrame(ROWS, columns=["a", "b"], index=range(start, start + 3))
    frame.to_csv("once.csv")
    pd.read_csv("once.csv").to_csv("twice.csv")
    pd.read_csv("once.csv").to_parquet("once.parquet")
    pd.DataFrame(ROWS, index=[30, 10, 20]).to_csv("numbered.csv")
    for name in ("once.csv", "twice.csv", "once.parquet", "numbered.csv"):
        dataset = load(name)
        np.testing.assert_array_equal(dataset.x, ROWS)
        assert dataset.columns == (["0", "1"] if name == "numbered.csv" else ["a", "b"])
        assert any("numbers the rows" in note and "(columns=)" in note for note in dataset.notes)
    assert load("once.csv", columns=[0, 1]).x[:, 0].tolist() == [start, start + 1, start + 2]


def test_row_names_of_r_are_left_out():
    write("a.csv", '"a","b"\n"Mazda RX4",1.5,2.5\n"240",3.25,4\n"Fiat",5,6.5\n')
    write("b.csv", '"","a","b"\n"1",1.5,2.5\n"2",3.25,4\n"3",5,6.5\n')
    write("c.csv", "a b\n1 1.5 2.5\n2 3.25 4\n3 5 6.5\n")
    for name in ("a.csv", "b.csv", "c.csv"):
        dataset = load(name)
        np.testing.assert_array_equal(dataset.x, ROWS)
        assert dataset.columns == ["a", "b"]
        assert any("left out" in note for note in dataset.notes)


def test_unnamed_column_that_is_no_index_is_data():
    dataset = load(write("a.csv", ",a\n1.5,1\n1.5,2\n"))
    np.testing.assert_array_equal(dataset.x, [[1.5, 1], [1.5, 2]])
    assert "column 0 without a name" in dataset.notes[0]
    np.testing.assert_array_equal(load(write("a.csv", "Unnamed: 0,a\n4,1\n4,2\n")).x, [[4, 1], [4, 2]])
    message = complaint(write("a.csv", "a,b\n1.5,1,2\n1.5,2,3\n"))
    assert "the header has 2 names, but rows have 3 fields" in message
    assert "header=False" in message


# Delimiters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('"a, b";"c, d"\n1,5;2,5\n3,25;4\n5;6,5\n', ["a, b", "c, d"]),
        ("a;b\n1,5;2,5\n3,25;4\n5;6,5\n", ["a", "b"]),
        ("sep=;\na;b\n1,5;2,5\n3,25;4\n5;6,5\n", ["a", "b"]),
        ("sep=;\r\n1,5;2,5\r\n3,25;4\r\n5;6,5\r\n", ["0", "1"]),
        ('"sep=|"\na|b\n1.5|2.5\n3.25|4\n5|6.5\n', ["a", "b"]),
        ("a|b\n1.5|2.5\n3.25|4\n5|6.5\n", ["a", "b"]),
        ("a\tb\n1.5\t2.5\n3.25\t4\n5\t6.5\n", ["a", "b"]),
        ("a b\n1.5   2.5\n 3.25 4 \n5\t6.5\n", ["a", "b"]),
        ("# a b\n1.5 2.5\n3.25 4\n5 6.5\n", ["a", "b"]),
        ('"a c" b\n1.5 2.5\n3.25 4\n5 6.5\n', ["a c", "b"]),
        ("# made by hand\n# a,b\n1.5,2.5\n3.25,4\n5,6.5\n", ["a", "b"]),
        ("# made by hand, 2020\na,b\n1.5,2.5\n3.25,4\n5,6.5\n", ["a", "b"]),
        ("a,b\n1.5,2.5\n \t\n3.25,4\n5,6.5\n  ", ["a", "b"]),
        ("a,b,\n1.5,2.5,\n3.25,4,\n5,6.5,\n", ["a", "b"]),
        ("a,b\n1.5,2.5,\n3.25,4,\n5,6.5,\n", ["a", "b"]),
        ("1.5,2.5,\n3.25,4,\n5,6.5,\n", ["0", "1"]),
        ('a,b\n"1.5","2.5"\n"3.25","4"\n"5","6.5"\n', ["a", "b"]),
        ('a,b\n"1,5","2,5"\n"3,25","4"\n"5","6,5"\n', ["a", "b"]),
        ('"a" ; "b;c"\n"1.5" ; 2.5\n3.25;"4"\n5; 6.5\n', ["a", "b;c"]),
        ("a,b,,\n1.5,2.5,,\n3.25,4,,\n5,6.5,,\n", ["a", "b"]),
        (",a,,b\n,1.5, ,2.5\n,3.25,,4\n,5,,6.5\n", ["a", "b"]),
        ("a,b\r1.5,2.5\r3.25,4\r5,6.5\r", ["a", "b"]),
        ("a,b\r\n1.5,2.5\r\n\r\n3.25,4\r\n5,6.5", ["a", "b"]),
    ],
)
def test_layouts(text, columns):
    dataset = load(write("a.csv", text))
    np.testing.assert_array_equal(dataset.x, ROWS)
    assert dataset.columns == columns
    assert dataset.x.dtype == np.float64


def test_quotation_marks_after_blanks_keep_delimiters():
    dataset = load(write("a.csv", 'x, "note"\n1, "a, ""b"""\n2, "c\nd"\n3,"e"\n'), truth="note")
    assert dataset.y.tolist() == ['a, "b"', "c\nd", "e"]
    np.testing.assert_array_equal(dataset.x, [[1], [2], [3]])


@pytest.mark.parametrize("cells", [["0,5", "1,2", "3,7"], ["12,25", "13,75", "15,5"], ["1,5", "1,7", "2,5"]])
def test_a_column_with_decimal_commas(cells):
    x = load(write("a.csv", "\n".join(["x", *cells]))).x
    np.testing.assert_array_equal(x[:, 0], [float(cell.replace(",", ".")) for cell in cells])


def test_digits_of_other_scripts_are_no_numbers():
    message = complaint(write("a.csv", "a,b\n\uff11,2\n3,4\n"))
    assert "decimal" not in message


def test_layout_options_override_detection():
    text = "2019:2020\n1,5:2,5\n"
    dataset = load(write("a.csv", text), delimiter=":", decimal=",", header=True)
    np.testing.assert_array_equal(dataset.x, [[1.5, 2.5]])
    assert dataset.columns == ["2019", "2020"]
    np.testing.assert_array_equal(load(write("a.csv", "x\n1,5\n2,5\n"), decimal=",").x, [[1.5], [2.5]])
    np.testing.assert_array_equal(load(write("a.csv", "x\n1,5\n1,75\n")).x, [[1.5], [1.75]])
    for word, mark in (("tab", "\t"), ("pipe", "|"), ("semicolon", ";"), ("comma", ","), ("blank", " ")):
        np.testing.assert_array_equal(load(write("a.csv", f"1{mark}2\n3{mark}4\n"), delimiter=word).x, [[1, 2], [3, 4]])
    np.save("a.npy", np.zeros((2, 2)))
    for name in ("a.npy", "iris"):
        assert "no text table" in complaint(name, header=False)
        assert "(delimiter=)" in complaint(name, delimiter=";")
    for option, value in (("delimiter", "ab"), ("delimiter", "1"), ("decimal", ";"), ("encoding", "utf9")):
        assert repr(value) in complaint("a.csv", **{option: value})


@pytest.mark.parametrize("below", ["#00ff00,2\n#0000ff,3\n", "red,2\n#0000ff,3\n"])
def test_rows_that_begin_with_a_mark_are_no_comments(below):
    dataset = load(write("a.csv", f"# colors\n#color,x\n#ff0000,1\n{below}"), columns="x")
    np.testing.assert_array_equal(dataset.x[:, 0], [1, 2, 3])


def test_a_delimiter_that_stands_nowhere_is_noted():
    assert "',' would give 2 columns" in load(write("a.csv", "a,b\n1,2\n3,4\n"), delimiter=";").notes[0]
    assert not load(write("b.csv", "a\n1,2\n3,4\n"), delimiter=";").notes


def test_a_zero_before_the_mark_separates_no_thousands():
    np.testing.assert_array_equal(load(write("a.csv", "a;b\n0,123;1\n0,456;2\n")).x[:, 0], [0.123, 0.456])
    assert "'1,5'" in complaint(write("b.csv", "a;b\n1,5;0.123\n2,5;0.456\n"))


# Numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "column"),
    [
        ("a;b\n1.234,5;1\n2,25;1\n", {}, [1234.5, 2.25]),
        ("a;b\n1.234;1,5\n3.125;1\n", {}, [1234, 3125]),
        ('a,b\n"1,234.5",1\n"2,500",1\n', {}, [1234.5, 2500]),
        ('a,b\n"1,234,567",1\n2,1\n', {}, [1234567, 2]),
        ('a,b\n"1,234",1\n2,1\n', {"decimal": "."}, [1234, 2]),
        ('a,b\n"1,234",1\n2,1\n', {"decimal": ","}, [1.234, 2]),
        ("a,b\n1 234,1\n2,1\n", {}, [1234, 2]),
        ("a,b\n1'234.5,1\n2,1\n", {}, [1234.5, 2]),
        ("a,b\n+1.5e3,1\n -2. ,1\n.5,1\n", {}, [1500, -2, 0.5]),
        ("a,b\nTrue,1\nFALSE,1\n,1\n", {}, [1, 0, np.nan]),
        ("a,b\n1,1\nNA,1\nNaN,1\nnull,1\n None ,1\n,1\n#N/A,1\n", {}, [1, *[np.nan] * 6]),
    ],
)
def test_numbers_as_people_write_them(text, options, column):
    np.testing.assert_array_equal(load(write("a.csv", text), **options).x[:, 0], column)


def test_ambiguous_numbers_are_refused():
    message = complaint(write("a.csv", 'a,b\n"1,234",1\n"2,500",1\n'))
    assert "'1,234', which may be 1234 or 1.234" in message
    assert "decimal='.'" in message
    message = complaint(write("a.csv", "a;b\n0.5;1\n0,5;1\n"))
    assert "'a' (holds '0,5' in line 3)" in message


def test_unusual_fields_are_named():
    assert "separated by ':': pass delimiter=':' if they are" in complaint(write("a.csv", "1:2\n3:4\n5:6\n"))
    assert "stand within single quotes" in complaint(write("a.csv", "'a';'b'\n'1';'2'\n'3';'4'\n"))


@pytest.mark.parametrize("parts", ["ids", "nanoseconds"])
def test_integers_beyond_float64_are_kept(parts):
    ids = {"ids": 10**18 + np.arange(3), "nanoseconds": 1_700_000_000_000_000_001 + np.arange(3) * 7}[parts]
    write("a.csv", "id,n\n" + "".join(f"{i},{i % 5}\n" for i in ids))
    parquet.write_table(pa.table({"id": ids, "n": ids % 5}), "a.parquet")
    for name in ("a.csv", "a.parquet"):
        dataset = load(name)
        assert dataset.x.dtype == np.int64
        np.testing.assert_array_equal(dataset.x, np.column_stack([ids, ids % 5]))
    write("b.csv", "id\n" + "".join(f"{2**63 + int(i)}\n" for i in range(3)))
    np.testing.assert_array_equal(load("b.csv").x[:, 0], np.uint64(2**63) + np.arange(3, dtype=np.uint64))
    np.testing.assert_array_equal(load_labels("a.csv", column="id"), ids)
    write("c.csv", "id\n" + "".join(f"{10**30 + i}\n" for i in range(3)))
    assert len(set(load_labels("c.csv"))) == 3
    assert "missing cells beside integers" in complaint(write("d.csv", f"id,n\n{ids[1]},1\n,2\n"))


def test_long_integers_beside_fractions(monkeypatch):
    write("a.csv", "id,n\n" + "".join(f"{10**18 + i},{i / 2}\n" for i in range(3)))
    if HAS_EXTENDED_PRECISION:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            x = load("a.csv").x
        np.testing.assert_array_equal(x[:, 0] - np.longdouble(10**18), [0, 1, 2])
        np.testing.assert_array_equal(x[:, 1], [0, 0.5, 1])
    monkeypatch.setattr("jaxcluster.datasets.base.HAS_EXTENDED_PRECISION", False)
    with pytest.warns(UserWarning, match=r"a\.csv: column 'id' has integers beyond 2\^53, which are rounded"):
        assert load("a.csv").x.dtype == np.float64


# Encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("text", ["größe,é\n1,x\n2,y\n", "a,b\n1,größe\n2,y\n", "größe é\n1 x\n2 y\n"])
def test_encodings_are_recognized(encoding, text):
    dataset = load(write_bytes("a.csv", text.encode(encoding)), truth=1)
    assert dataset.columns == [text[:5] if text.startswith("g") else "a"]
    assert dataset.y.tolist() == (["x", "y"] if text.startswith("g") else ["größe", "y"])
    legacy = encoding in ("latin-1", "cp1252")
    assert any("not UTF-8 and is read as cp1252" in note and "encoding=" in note for note in dataset.notes) == legacy


def test_an_encoding_that_shows_late_is_recognized(monkeypatch):
    monkeypatch.setattr("jaxcluster.datasets.decoding.HEAD_BYTES", 64)
    data = ("a,b\n" + "1,x\n" * 40 + "2,größe\n").encode("latin-1")
    dataset = load(write_bytes("a.csv", data), truth="b")
    assert dataset.y[-1] == "größe"
    message = complaint("a.csv", truth="b", encoding="utf-8")
    assert "not utf-8 throughout" in message
    assert "(encoding=)" in message


def test_encoding_options_override_detection():
    data = "größe,b\n1,2\n".encode("utf-16-le")
    assert "pass encoding=utf-16-le" in complaint(write_bytes("a.csv", data))
    assert load("a.csv", encoding="utf-16-le").columns == ["größe", "b"]
    data = "цена,b\n1,2\n".encode("cp1251")
    assert load(write_bytes("a.csv", data), encoding="cp1251").columns == ["цена", "b"]
    assert "do not decode" in complaint("a.csv", encoding="utf-8")
    for name in ("base64", "rot13", "utf-88"):
        assert f"encoding {name!r} is not known" in complaint("a.csv", encoding=name)


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("\n \n", ["is empty"]),
        ("sep=;\n", ["is empty"]),
        ("a,b\n", ["no rows, only a header: a, b"]),
        ("a,b,c\n1,2,3\n4,5\n6,7,8\n", ["1 of 3 rows", "line 3, with 2: '4,5'", "(delimiter=)"]),
        ("a,b,c\n1,2,3\n\n4,5,6,7\n6,7,8\n", ["line 4, with 4: '4,5,6,7'"]),
        ("a b\n1 2\n3\n4 5\n", ["line 3, with 1: '3'"]),
        ("a,b\n1,\0\n", ["binary", "NUL character in line 2"]),
        ("a,b\n1,2\n3,x\n4,y\n", ["'b' (holds 'x' in line 3)"]),
        ("a,b\r1,2\r3,x\r", ["'b' (holds 'x' in line 3)"]),
        ("sep=;\n\na;b\n1;2\n3;x\n", ["'b' (holds 'x' in line 5)"]),
        ('a,"b\nc"\n1,"2"\n3,-\n', ["'b\\nc' (holds '-' in line 4)"]),
        ("a,b\n5%,1\n", ["'a' (holds '5%' in line 2)"]),
        ("day,b\n2020-01-01,1\n2020-01-02,2\n", ["'day' (holds '2020-01-01' in line 2)"]),
        ('a,b\n1,"x\n2,y\n3,z\n', ["a quotation mark in line 2 or below is not closed"]),
    ],
)
def test_files_that_are_not_tables_are_refused(text, words):
    message = complaint(write("a.csv", text))
    assert all(word in message for word in words), message
    assert "Arrow" not in message
    assert "CSV column #" not in message


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", gzip.compress(b"a,b\n1,2\n"), "like a .csv.gz file"),
        ("a.csv", b"PK\x03\x04\0", "like a .xlsx file"),
        ("a.csv", b"PAR1\0", "like a .parquet file"),
        ("a.csv", b"<!DOCTYPE html>\n<p>Log in</p>", "web page"),
        ("a.csv.xz", gzip.compress(b"a,b\n1,2\n"), "like a .csv.gz file"),
        ("a.parquet", gzip.compress(b"a,b\n1,2\n"), "like a .csv.gz file"),
        ("a.jsonl", gzip.compress(b"{}"), "like a .csv.gz file"),
        ("a.jsonl.gz", b'{"a": 1}', "like a .jsonl file"),
        ("a.csv", b"a,b\nm,kg\n1,2\n3,4\n5,6\n", "line of names, or of units"),
        ("a.csv", b"a,b\n1,2\n3,4\n5,6\nTotal,all\n", "Line 5 looks like a sum"),
    ],
)
def test_files_of_another_kind_are_named(name, data, words):
    assert words in complaint(write_bytes(name, data))


def test_unclosed_quotation_mark_loses_no_rows():
    message = complaint(write("a.csv", 'a,b\n1,"x\n2,y\n3,z\n'), truth="b")
    assert "a quotation mark in line 2 or below is not closed" in message
    assert load(write("b.csv", 'a,b\n1,"x\ny"\n2,z\n'), truth="b").y.tolist() == ["x\ny", "z"]


def test_fields_after_the_last_delimiter_are_kept(monkeypatch):
    monkeypatch.setattr("jaxcluster.datasets.layout.SAMPLE_ROWS", 3)
    message = complaint(write("a.csv", "a,b,\n1,2,\n3,4,\n5,6,\n7,8,9\n"))
    assert "'9' in line 5" in message


def test_missing_labels_by_another_name_are_a_class():
    dataset = load(write("a.csv", "a,b\n1,x\n2,NA\n3,NA\n"), truth="b")
    assert dataset.y.tolist() == ["x", "NA", "NA"]
    assert "2 rows 'NA': taken as a class" in dataset.notes[0]


def test_parquet_with_two_columns_of_one_name():
    columns = [pa.array([1, 2]), pa.array([3.5, 4.5]), pa.array(["u", "v"]), pa.array([5, 6])]
    parquet.write_table(pa.Table.from_arrays(columns, names=["a", "a", "kind", "b"]), "a.parquet")
    dataset = load("a.parquet", truth="kind")
    np.testing.assert_array_equal(dataset.x, [[1, 3.5, 5], [2, 4.5, 6]])
    assert dataset.columns == ["a", "a", "b"]
    np.testing.assert_array_equal(load("a.parquet", columns=[1, 0]).x, [[3.5, 1], [4.5, 2]])
    assert "several columns named 'a'" in complaint("a.parquet", columns="a")
    assert "'kind'" in complaint("a.parquet")


@pytest.mark.parametrize("names", [["k"], ["k", "b"], [None]])
def test_an_index_in_parquet_is_no_column(names):
    """Read whole and block by block, by the name of the index and without one."""
    frame = pd.DataFrame({"a": [1.5, 2, 3], "b": [3.5, 4, 5], "c": [5.5, 6, 7]}, index=pd.Index([7, 5, 9], name="k"))
    frame = frame.rename_axis(None) if names == [None] else frame.reset_index().set_index(names)
    frame.to_parquet("a.parquet")
    for x in (load("a.parquet").x, np.concatenate(list(scan("a.parquet").blocks(9)))):
        np.testing.assert_array_equal(x, frame.to_numpy())
    stored = names[0] or "__index_level_0__"
    assert f"column {stored!r} is the index that pandas stored" in load("a.parquet").notes[0]
    for x in (load("a.parquet", columns=stored).x, np.concatenate(list(scan("a.parquet", columns=stored).blocks(9)))):
        np.testing.assert_array_equal(x, [[7], [5], [9]])


def test_columns_of_one_name_block_by_block():
    columns = [pa.array([1, 2]), pa.array([3.5, 4.5]), pa.array([5, 6])]
    parquet.write_table(pa.Table.from_arrays(columns, names=["a", "a", "b"]), "a.parquet", row_group_size=1)
    for chosen in (None, [1, 0], [2, 1]):
        x = np.concatenate(list(scan("a.parquet", columns=chosen).blocks(9)))
        np.testing.assert_array_equal(x, load("a.parquet", columns=chosen).x)


def test_texts_of_numbers_in_parquet():
    parquet.write_table(pa.table({"a": ["1", "2"], "b": ["1", "?"], "c": [1, 2]}), "a.parquet")
    message = complaint("a.parquet", columns="a,c")
    assert "'a' (holds numbers as string)" in message
    assert "missing value" not in message
    np.testing.assert_array_equal(load("a.parquet", columns="b,c", na=["?"]).x, [[1, 1], [np.nan, 2]])


def test_parquet_keeps_the_dtype_of_its_numbers():
    parquet.write_table(pa.table({"a": np.ones(2, np.float32), "b": np.ones(2, np.float16)}), "a.parquet")
    assert load("a.parquet").x.dtype == np.float32
    parquet.write_table(pa.table({"a": np.ones(2, np.float32), "b": np.array([2**31, 1])}), "a.parquet")
    assert load("a.parquet").x.dtype == np.float64
    parquet.write_table(pa.table({"a": pa.array([[1.0, 2.0], None])}), "a.parquet")
    assert "1 missing lists" in complaint("a.parquet")
    parquet.write_table(pa.table({"a": pa.array([1, None])}), "a.parquet")
    np.testing.assert_array_equal(load("a.parquet").x, [[1], [np.nan]])


@pytest.mark.parametrize(("start", "words"), [(b"no", "starts with b'no"), (b"PAR1....", "truncated"), (b"", "b''")])
def test_files_that_are_not_parquet_are_refused(start, words):
    message = complaint(write_bytes("a.parquet", start))
    assert words in message
    with pytest.raises(DataError, match=r"\.parquet cannot be read as Parquet"):
        load("a.parquet")


# Damage ---------------------------------------------------------------------------------------------------------


def _whole_files() -> dict[str, bytes]:
    """A file of each kind."""
    np.save("a.npy", np.arange(12.0).reshape(4, 3))
    np.savez_compressed("a.npz", a=np.arange(12.0).reshape(4, 3))
    parquet.write_table(pa.table({"a": [1, 2, 3], "b": [1.5, None, 2], "c": [[1.0], [2.0], [3.0]]}), "a.parquet")
    files = {name: Path(name).read_bytes() for name in ("a.npy", "a.npz", "a.parquet")}
    return files | {
        "a.csv": b"a,b,c\n1,2.5,3\n4,,NA\n5,6,7\n",
        "b.csv": '"ä, b";"c"\n1,5;2\n3;4,25\n'.encode("latin-1"),
        "c.csv": "sep=;\nä;b\n1;2\n".encode("utf-16"),
        "d.csv": b"a b  c\n1 2  3\n4   5 6\n",
        "a.csv.gz": gzip.compress(b"a,b\n1,2\n3,4\n"),
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_gives_rows_or_one_line(seed):
    rng = np.random.default_rng(seed)
    inserted = [b",", b";", b"\n", b'"', b"\r", b"\0", b" ", b"\t", b"-", b"\xe4", b"9" * 25, b"#"]
    for name, data in _whole_files().items():
        for _ in range(4):
            start, end = np.sort(rng.integers(0, len(data) + 1, 2))
            piece = inserted[rng.integers(len(inserted))]
            damaged = (data[:start] + piece + data[end:], data[:start] + piece + data[start:], data[:end])
            write_bytes(name, damaged[rng.integers(3)])
            message = ""
            try:
                assert load(name).x.ndim == 2
            except DataError as error:  # and nothing else: an error of NumPy's or pyarrow's fails here
                message = str(error)
            assert "\n" not in message

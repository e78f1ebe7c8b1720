"""Row sources: files, arrays and blocks give the same rows in blocks of any size, and say what is wrong."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcluster import gmm, kmeans
from jaxcluster.cluster import streamed_kmeans
from jaxcluster.core import chunks, signals, streaming
from jaxcluster.core.sources import ArraySource, SourceError
from jaxcluster.core.streaming import Stream
from jaxcluster.datasets import scan
from jaxcluster.datasets.base import DataError
from jaxcluster.types import Status

X = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the rows in two .npy files, in a Parquet file of small row groups, and in files of no use."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path_factory.mktemp("rows")
    (path / "parts").mkdir()
    np.save(path / "parts" / "0.npy", X[:40])
    np.save(path / "parts" / "1.npy", X[40:])
    np.save(path / "wide.npy", X.repeat(2, axis=1))
    np.save(path / "columns.npy", np.asfortranarray(X))
    np.save(path / "line.npy", X[:, 0])
    np.save(path / "text.npy", X.astype(str))
    parquet.write_table(pa.table({name: X[:, j] for j, name in enumerate("abc")}), path / "x.parquet", row_group_size=7)
    parquet.write_table(pa.table({"a": ["x", "y"]}), path / "text.parquet")
    (path / "cut.npy").write_bytes((path / "wide.npy").read_bytes()[:-5])
    (path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    return path


def blocks_of_a_list():
    """Blocks of several sizes."""
    return [X[:1], X[1:60], X[60:]]


SOURCES = {
    "array": lambda folder: scan(X),
    "folder": lambda folder: scan(folder / "parts"),
    "pattern": lambda folder: scan(str(folder / "parts" / "*.npy")),
    "list": lambda folder: scan([folder / "parts" / "0.npy", folder / "parts" / "1.npy"]),
    "parquet": lambda folder: scan(folder / "x.parquet"),
    "blocks": lambda folder: scan(blocks_of_a_list()),
    "function": lambda folder: scan(lambda: iter(blocks_of_a_list())),
    "map": lambda folder: scan(np.load(folder / "wide.npy", mmap_mode="r")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_blocks_are_the_rows_in_order(name, folder):
    source = SOURCES[name](folder)
    x = X.repeat(2, axis=1) if name == "map" else X
    assert (source.shape, source.dtype) == (x.shape, x.dtype)
    for rows in (1, 13, 101, 500):
        blocks = list(source.blocks(rows))
        np.testing.assert_array_equal(np.concatenate(blocks), x)
        assert {len(block) for block in blocks[:-1]} <= {rows}
    parts = [np.concatenate(list(source.part(i, 4).blocks(8))) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert source.fingerprint() == SOURCES[name](folder).fingerprint() != source.part(0, 2).fingerprint()


def test_columns_of_parquet_are_chosen_by_name(folder):
    source = scan(folder / "x.parquet", columns="c,0")
    assert source.columns == ("c", "a")
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(10))), X[:, [2, 0]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npy", "does not exist"),
        ("columns.npy", "column by column"),
        ("line.npy", "rows and columns are needed"),
        ("text.npy", "no numbers"),
        ("text.parquet", "not numbers: a"),
        ("cut.npy", "is cut"),
        ("broken.parquet", "no readable Parquet file"),
        ("", "no readable Parquet file"),
    ],
)
def test_files_that_are_no_rows_are_named(name, message, folder):
    with pytest.raises(DataError, match=message) as error:
        scan(folder / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_generator_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="scan\\(lambda"):
        scan(iter([X]))


def test_a_change_between_two_passes_is_named(tmp_path):
    np.save(tmp_path / "x.npy", X)
    stream = Stream(scan(tmp_path / "x.npy"))
    np.save(tmp_path / "x.npy", X[:50])
    with pytest.raises(SourceError, match="changed between two passes"):
        next(stream.blocks())
    (tmp_path / "x.npy").unlink()
    with pytest.raises(SourceError, match="no longer there"):
        next(stream.source.blocks(10))


def test_fewer_rows_in_a_later_pass_are_named():
    passes = iter([blocks_of_a_list(), blocks_of_a_list()[:2]])
    source = scan(lambda: next(passes))
    with pytest.raises(SourceError, match="gave 60 rows, not its 101"):
        list(source.blocks(16))


def test_values_that_are_not_finite_are_named():
    x = X.copy()
    x[70, 1] = np.nan
    with pytest.raises(ValueError, match="1 NaN values in column 1"):
        Stream(scan([x[:50], x[50:]]))
    with pytest.raises(ValueError, match="beyond 2\\^53"):
        Stream(scan(np.array([[2**60], [2**60 + 1]])))


@pytest.mark.parametrize("module", [kmeans, gmm])
def test_a_stopped_fit_of_a_source_keeps_its_state(module, key, monkeypatch):
    seen = []
    monkeypatch.setattr(signals, "interrupted", lambda: len(seen) >= 2)
    with chunks.watching(seen.append):
        fit = module.fit(key, scan(X), 3, tol=0.0, init=X[:3])
    assert (int(fit.status), int(fit.steps)) == (Status.INTERRUPTED, 2)
    assert [progress.steps for progress in seen] == [1, 2]
    np.testing.assert_allclose(np.abs([progress.objectives[0] for progress in seen]), np.abs(fit.history), rtol=1e-5)
    np.testing.assert_array_equal(module.predict(fit.state, X), fit.labels)


@pytest.mark.parametrize("x", [X.astype(str), X.astype(object), X * 1j, X.astype("M8[s]"), X[:, 0]])
def test_sources_are_of_rows_of_numbers(x):
    with pytest.raises((TypeError, ValueError), match="array (has dtype|must have rows and columns)"):
        ArraySource(x)


def test_a_column_may_have_a_value_in_one_row_only(monkeypatch):
    monkeypatch.setattr(streaming, "SAMPLED_ROWS", 8)
    x = np.c_[X.astype(np.float64), np.full(len(X), np.nan)]
    x[70, -1] = 5
    stream = Stream(ArraySource(x), missing=True)
    assert not np.isnan(stream.sample[:, -1]).all() or np.asarray(stream.frame.origin)[-1] == 5
    x[70, -1] = np.nan
    with pytest.raises(ValueError, match="no observed value in column"):
        Stream(ArraySource(x), missing=True)


@pytest.mark.parametrize("kind", ["column", "column with a hole", "files", "blocks"])
def test_integers_that_float64_rounds_are_refused(tmp_path, kind):
    ids = 10**18 + np.arange(6, dtype=np.int64)[:, None]
    floats = np.ones((6, 1))
    if kind == "files":
        np.save(tmp_path / "a.npy", ids)
        np.save(tmp_path / "b.npy", floats)
        data = tmp_path
    elif kind == "blocks":
        data = [ids, floats]
    else:
        cells = [*ids[:, 0].tolist(), *([None] if kind.endswith("hole") else [])]
        parquet.write_table(pa.table({"id": pa.array(cells, pa.int64())}), tmp_path / "a.parquet")
        data = tmp_path / "a.parquet"
    with pytest.raises(SourceError, match=r"integers beyond 2\^53, which float64 rounds. Subtract one row"):
        list(scan(data).blocks(4))


def test_greatest_values_are_found_in_parts(monkeypatch):
    values = np.random.default_rng(0).integers(0, 5, 50).astype(np.float32)  # of which many are equal
    monkeypatch.setattr(streamed_kmeans, "SORTED_ROWS", 7)
    for count in (1, 9, 60):
        expected = np.argsort(-values, kind="stable")[:count]
        np.testing.assert_array_equal(streamed_kmeans._greatest(values, count), expected)

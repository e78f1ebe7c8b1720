"""Row sources: files, arrays and blocks give the same rows in blocks of any size, and say what is wrong."""

from __future__ import annotations

import jax
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.sparse import csr_matrix

from jaxcluster import GaussianMixture, KMeans, gmm, kmeans
from jaxcluster.cluster import streamed_kmeans
from jaxcluster.core import chunks, signals, streaming
from jaxcluster.core.sources import ArraySource, SourceError
from jaxcluster.core.streaming import Stream
from jaxcluster.datasets import scan
from jaxcluster.datasets.base import DataError
from jaxcluster.metrics import davies_bouldin_score, silhouette_score
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


OTHER_ROWS = {
    "fewer": lambda blocks: blocks[:2],
    "more": lambda blocks: [*blocks, X],
    "shuffled": lambda blocks: [blocks[0], blocks[1][::-1], blocks[2]],
    "wider": lambda blocks: [*blocks[:2], blocks[2].repeat(2, axis=1)],
    "not finite": lambda blocks: [*blocks[:2], blocks[2] * np.nan],
    "nothing": lambda blocks: [],
}


@pytest.mark.parametrize("change", OTHER_ROWS)
@pytest.mark.parametrize("passes", [1, 3])
def test_other_rows_in_a_later_pass_are_named(change, passes):
    count = 0

    def blocks():
        nonlocal count
        count += 1
        return OTHER_ROWS[change](blocks_of_a_list()) if count > passes else blocks_of_a_list()

    with pytest.raises(SourceError, match="gave other rows than in its first pass, from block"):
        KMeans(3, random_state=0).fit(scan(blocks))


def test_iterables_that_are_read_once_are_named():
    blocks = iter(blocks_of_a_list())
    with pytest.raises(SourceError, match="from block 0 on.*nor keep one iterator"):
        list(scan(lambda: blocks).blocks(16))
    with pytest.raises(TypeError, match="returns NoneType, and no iterable of blocks"):
        scan(lambda: None)


class Wide(ArraySource):
    """A source whose second block is wider."""

    def read(self, start, stop, rows):
        yield self.x[:50]
        yield self.x[50:].repeat(2, axis=1)


def test_a_wider_block_of_any_source_is_named():
    with pytest.raises(SourceError, match=r"array gave a block of shape \(51, 6\); its rows have 3 columns"):
        list(Wide(X).blocks(80))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [X, x]])
def test_masks_and_sparse_rows_are_refused(wrap):
    with pytest.raises(ValueError, match="masked array with 1 masked"):
        scan(wrap(np.ma.masked_array(X, X[3, 1] == X)))
    with pytest.raises(TypeError, match="is sparse, and dense rows are wanted"):
        scan(wrap(csr_matrix(X)))


def test_parts_without_rows_are_passed_over(folder, tmp_path):
    np.save(tmp_path / "0.npy", X[:0])
    np.save(tmp_path / "1.npy", X)
    np.save(tmp_path / ".1.npy", X)  # a hidden file
    for source in (scan(tmp_path), scan([X[:40], X[:0], X[40:]])):
        np.testing.assert_array_equal(np.concatenate(list(source.blocks(30))), X)
    with pytest.raises(DataError, match="0.npy has no rows"):
        scan(tmp_path / "0.npy")


def test_a_table_is_a_source_with_names():
    source = scan(pa.table({name: X[:, j] for j, name in enumerate("abc")}))
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(30))), X)
    assert KMeans(2, random_state=0).fit(source).feature_names_in_.tolist() == ["a", "b", "c"]


def test_a_file_that_changes_in_the_last_pass_is_named(tmp_path):
    np.save(tmp_path / "x.npy", X)
    blocks = scan(tmp_path / "x.npy").blocks(40)
    next(blocks)
    with (tmp_path / "x.npy").open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\0" * 8)
    with pytest.raises(SourceError, match="changed between two passes"):
        list(blocks)


def test_functions_of_rows_in_memory_say_so():
    for function in (silhouette_score, davies_bouldin_score):
        with pytest.raises(TypeError, match=r"source of rows, and these are needed in memory here. Pass"):
            function(scan(X), np.arange(len(X)) % 2)


def test_criteria_of_a_source_are_those_in_memory():
    mixture, weights = GaussianMixture(2, random_state=0).fit(X), np.arange(101.0)
    source = scan(blocks_of_a_list())
    for name in ("aic", "bic", "score"):
        ours = getattr(mixture, name)(source, sample_weight=weights)
        np.testing.assert_allclose(ours, getattr(mixture, name)(X, sample_weight=weights), rtol=1e-6)
    fit = kmeans.fit(jax.random.key(0), X, 3)
    with pytest.raises(ValueError, match="weights"):
        kmeans.score(fit.state, source, weights=np.ones(200))


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

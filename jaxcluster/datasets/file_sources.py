"""Sources of rows in files: `scan` makes them, and reads nothing but headers.

>>> import numpy as np
>>> source = scan([np.zeros((3, 2)), np.ones((2, 2))])
>>> source.shape, [len(block) for block in source.blocks(4)]
((5, 2), [4, 1])
"""

from __future__ import annotations

import glob
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.sources import ArraySource, RowSource, SourceError, digest
from jaxcluster.datasets.base import (
    DataError,
    DataNotFoundError,
    column_index,
    fits_float64,
    listing,
    split_columns,
)
from jaxcluster.datasets.dataframes import as_dataframe, number_matrix
from jaxcluster.datasets.files import ROW_FILES, row_files
from jaxcluster.datasets.tables import stored_index

CACHED_ROWS = 2048
"""Rows of a block that its columns are copied to in turn: with all rows of a block each column fetches it anew from
memory, which takes four times as long (262,144×32)."""


def scan(data: Any, *, columns: str | int | Sequence[str | int] | None = None) -> RowSource:
    """A source of rows that are read block by block, and never all held in memory.

    Args:
        data: a path to an .npy or .parquet file, a folder of such files, a pattern such as ``"rows/*.npy"``, a list of
            paths; an array, also a memory-mapped one, or a table; an iterable of (rows, n_features) blocks that can be
            iterated over again, or a function without arguments that returns a new iterator at each call.
        columns: names or indices of the columns of Parquet files to read; None for all but an index
            that pandas stored.

    Returns:
        `RowSource`, taken wherever the samples of a method that streams are.

    Raises:
        DataError: no such file, a file of another kind, files that do not agree.
        TypeError: a generator, which can be read only once.
    """
    if isinstance(data, RowSource):
        return data
    if isinstance(data, (str, os.PathLike)):
        return _files(_paths(Path(data)), columns, str(data))
    if isinstance(data, Sequence) and data and all(isinstance(each, (str, os.PathLike)) for each in data):
        return _files([Path(each) for each in data], columns, f"{len(data)} files")
    if columns is not None:
        raise ValueError("columns= chooses columns of Parquet files, and these are none.")
    if isinstance(data, np.memmap) and data.flags.c_contiguous and isinstance(data.filename, (str, os.PathLike)):
        # Read, not mapped: pages of a map count as memory of the process.
        return ArrayFile(Path(data.filename), data.shape, data.dtype, data.offset)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        return ArraySource(np.asarray(validation.check_matrix(data, name="data")))
    if (table := as_dataframe(data, name="data")) is not None:
        source = ArraySource(number_matrix(table, name="data"))
        source.columns = tuple(map(str, table.columns))
        return source
    if isinstance(data, Iterator):
        raise TypeError(
            "data is an iterator, which can be read only once, and a fit reads rows several times. Pass a function "
            "that returns a new one: scan(lambda: blocks())."
        )
    if (isinstance(data, Iterable) and not isinstance(data, (Mapping, Set, bytes))) or callable(data):
        blocks: Any = data
        return BlockSource(blocks)
    raise TypeError(f"data must be a path, an array or blocks of rows, got {type(data).__name__}.")


class ArrayFile(RowSource):
    """Rows of a binary file, as in an .npy file."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> None:
        if len(shape) != 2 or shape[1] == 0:
            raise DataError(f"{path} holds an array of shape {shape}; rows and columns are needed.")
        self.path, self.name, self.shape, self.dtype, self.offset = path, str(path), shape, np.dtype(dtype), offset
        needed = offset + shape[0] * self.row_bytes
        if (size := path.stat().st_size) < needed:
            raise DataError(f"{path} is cut: it declares {needed:,} bytes and has {size:,}.")
        self.seen = _stamp(path)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * self.dtype.itemsize

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Blocks read by one system call each."""
        _check_unchanged(self.path, self.seen)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * self.row_bytes)
            for first in range(start, stop, rows):
                count = min(rows, stop - first)
                block = np.empty((count, self.shape[1]), self.dtype)
                if _read_into(file, memoryview(block.data).cast("B")) < block.nbytes:
                    raise SourceError(f"{self.name} ends before its last row: it was cut while it was read.")
                # The last pass labels the rows: they must be those of the passes before.
                if _stamp_of(os.fstat(file.fileno())) != self.seen:
                    raise SourceError(_changed(self.path))
                yield block

    def fingerprint(self) -> str:
        """Digest of path, size and time of change."""
        return digest(self.name, self.shape, self.dtype, self.seen)


class ParquetFile(RowSource):
    """Numeric columns of a Parquet file."""

    def __init__(self, path: Path, columns: Any) -> None:
        self.path, self.name, self.seen = path, str(path), _stamp(path)
        with self._open() as file:
            schema, n = file.schema_arrow, file.metadata.num_rows
        all_names, index = list(schema.names), stored_index(schema)
        if columns is None:
            self.positions = [j for j, name in enumerate(all_names) if name not in index]
        else:
            width = len(all_names)
            self.positions = [column_index(each, all_names, width, self.name) for each in split_columns(columns)]
        names = [all_names[j] for j in self.positions]
        self.unique = all(all_names.count(name) == 1 for name in names)
        types = [schema.field(j).type for j in self.positions]
        text = [name for name, each in zip(names, types, strict=True) if not _is_numeric(each)]
        if text:
            raise DataError(f"{path} has columns that are not numbers: {listing(text)}. Choose others by columns=.")
        if not names:
            raise DataError(f"{path} has no columns, or columns= chooses none.")
        self.columns, self.shape = tuple(names), (n, len(names))
        kinds = {each.to_pandas_dtype() for each in types}
        self.dtype = np.dtype(np.float32) if kinds <= {np.float16, np.float32} else np.dtype(np.float64)

    def _open(self):
        from pyarrow import ArrowException, parquet

        try:
            return parquet.ParquetFile(self.path, page_checksum_verification=True)
        except (ArrowException, OSError) as error:
            raise DataError(f"{self.path} is no readable Parquet file: {str(error).splitlines()[0]}") from error

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Blocks of the row groups that hold the samples."""
        from pyarrow import ArrowException

        _check_unchanged(self.path, self.seen)
        with self._open() as file:
            groups, first = _row_groups(file.metadata, start, stop)
            left = stop - start
            try:
                # pyarrow selects columns by name only.
                for batch in file.iter_batches(rows, groups, list(self.columns or ()) if self.unique else None):
                    block = self._block(batch)[start - first if start > first else 0 :]
                    first += batch.num_rows
                    if len(block) and left:
                        yield block[:left]
                        left -= min(left, len(block))
            except (ArrowException, OSError) as error:
                raise SourceError(f"{self.name} cannot be read: {str(error).splitlines()[0]}") from error

    def _block(self, batch):
        block = np.empty((batch.num_rows, self.shape[1]), self.dtype)
        columns = batch.columns if self.unique else [batch.columns[j] for j in self.positions]
        arrays = []
        for name, column in zip(self.columns or (), columns, strict=True):
            # Arrow makes float64 of integers among which some are missing.
            observed = column.drop_null() if column.null_count else column
            _check_exact(observed.to_numpy(zero_copy_only=False), self.dtype, f"{self.name}, {name!r},")
            arrays.append(column.to_numpy(zero_copy_only=False))
        # Arrow has columns and a block has rows: a few rows of all columns at a time stay in the cache.
        for start in range(0, len(block), CACHED_ROWS):
            part = slice(start, start + CACHED_ROWS)
            for j, column in enumerate(arrays):
                block[part, j] = column[part]
        return block

    def fingerprint(self) -> str:
        """Digest of path, size, time of change and columns."""
        return digest(self.name, self.shape, self.columns, self.seen)


class ChainedSource(RowSource):
    """Sources one after the other."""

    def __init__(self, sources: Sequence[RowSource], name: str) -> None:
        widths = {source.shape[1] for source in sources}
        if len(widths) > 1:
            odd = next(each for each in sources if each.shape[1] != sources[0].shape[1])
            raise DataError(f"{odd.name} has {odd.shape[1]} columns, and {sources[0].name} {sources[0].shape[1]}.")
        for source in sources:
            if source.columns != sources[0].columns:
                raise DataError(f"{source.name} and {sources[0].name} have other columns, or in another order.")
        self.sources, self.name, self.columns = tuple(sources), name, sources[0].columns
        self.shape = (sum(source.shape[0] for source in sources), sources[0].shape[1])
        self.dtype = np.result_type(*(source.dtype for source in sources))

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Blocks of the sources that hold the samples."""
        first = 0
        for source in self.sources:
            n = source.shape[0]
            here = max(0, start - first), min(n, stop - first)
            if here[0] < here[1]:
                for block in source.read(*here, rows):
                    _check_exact(block, self.dtype, source.name)
                    yield block.astype(self.dtype, copy=False)
            first += n

    def fingerprint(self) -> str:
        """Digest of those of the sources."""
        return digest(*(source.fingerprint() for source in self.sources))


class BlockSource(RowSource):
    """Blocks of rows of an iterable, which is iterated over at each pass. A first pass counts them.

    Later passes compare the checksum of each block: an iterable that shuffles its rows would give labels of others.
    """

    def __init__(self, blocks: Iterable[Any] | Callable[[], Iterable[Any]]) -> None:
        self._blocks, self.name = blocks, "the source of blocks"
        self._ends, self._checksums = [0], []
        widths, dtypes = set(), set()
        for block in self._iterate():
            widths.add(block.shape[1])
            dtypes.add(block.dtype)
            self._ends.append(self._ends[-1] + len(block))
            self._checksums.append(_checksum(block))
        if not self._checksums:
            raise ValueError("data has no blocks of rows.")
        if len(widths) > 1:
            raise ValueError(f"blocks have different numbers of columns: {listing(sorted(widths))}.")
        self.shape, self.dtype = (self._ends[-1], *widths), np.result_type(*dtypes)

    def _iterate(self):
        """The blocks that have rows: a filter of rows may leave none of a block."""
        for block in _iterator(self._blocks):
            # Masked arrays and sparse matrices as they are: NumPy would drop the mask.
            block = block if hasattr(block, "shape") and hasattr(block, "dtype") else np.asarray(block)
            if np.ndim(block) != 2 or block.shape[0]:
                yield np.asarray(validation.check_matrix(block, name="a block"))

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """The blocks themselves, cut at ``start`` and ``stop``."""
        known = zip(self._ends, self._ends[1:], self._checksums, strict=False)
        for number, (block, seen) in enumerate(itertools.zip_longest(self._iterate(), known)):
            if block is None or seen is None or seen[1] - seen[0] != len(block) or seen[2] != _checksum(block):
                raise SourceError(
                    f"{self.name} gave other rows than in its first pass, from block {number} on. It must give the "
                    "same ones in the same order at each pass: neither shuffle them, nor keep one iterator."
                )
            part = block[max(0, start - seen[0]) : max(0, stop - seen[0])]
            if len(part):
                _check_exact(part, self.dtype, "a block")
                yield part.astype(self.dtype, copy=False)

    def fingerprint(self) -> str:
        """Digest of the shape and of the checksums of all blocks."""
        return digest(self.shape, self.dtype, self._checksums)


def _iterator(blocks: Any) -> Iterator[Any]:
    """Iterator over blocks, or over what a function returns."""
    made = blocks() if callable(blocks) else blocks
    if not isinstance(made, Iterable):
        raise TypeError(f"the function that scan was given returns {type(made).__name__}, and no iterable of blocks.")
    return iter(made)


def _checksum(block: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(block).view(np.uint8).data)


def _check_exact(values, dtype, name):
    """Raise SourceError for integers that the dtype of a source rounds."""
    if dtype.kind == "f" and values.dtype.kind in "iu" and values.dtype.itemsize == 8 and not fits_float64(values):
        raise SourceError(f"{name} has integers beyond 2^53, which float64 rounds. Subtract one row from all before.")


def _paths(path: Path) -> list[Path]:
    """Files that a path, a folder or a pattern names."""
    if path.is_dir():
        if not (found := row_files(path)):
            raise DataError(f"{path} holds no file that ends in {' or '.join(ROW_FILES)}.")
        return found
    if path.exists():
        return [path]
    found = sorted(map(Path, glob.glob(str(path))))
    if not found:
        raise DataNotFoundError(f"{path} does not exist.")
    return found


def _files(paths: Sequence[Path], columns: Any, name: str) -> RowSource:
    # A job that writes a file for each of its parts leaves empty ones.
    sources = [source for path in paths if len(source := _file(path, columns))]
    if not sources:
        raise DataError(f"{name} has no rows; at least one is needed.")
    return sources[0] if len(sources) == 1 else ChainedSource(sources, name)


def _file(path: Path, columns: Any) -> RowSource:
    if not path.exists():
        raise DataNotFoundError(f"{path} does not exist.")
    if not path.is_file():
        raise DataError(f"{path} is no regular file.")
    if path.suffix == ".parquet":
        return ParquetFile(path, columns)
    if path.suffix != ".npy":
        raise DataError(f"{path}: rows are read from files that end in {' or '.join(ROW_FILES)}.")
    if columns is not None:
        raise DataError(f"{path} has no named columns; columns= is for Parquet files.")
    return _npy_file(path)


def _npy_file(path: Path) -> RowSource:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
        except ValueError as error:
            raise DataError(f"{path} is no .npy file: {str(error).splitlines()[0]}") from error
        if dtype.hasobject or dtype.kind not in "fiub":
            raise DataError(f"{path} holds {dtype}, which are no numbers.")
        if fortran and len(shape) == 2 and min(shape) > 1:
            raise DataError(
                f"{path} is stored column by column, and rows cannot be read from it in blocks. Store it again by "
                "numpy.save(path, numpy.ascontiguousarray(x))."
            )
        return ArrayFile(path, shape, dtype, file.tell())


def _row_groups(metadata, start, stop):
    """Indices of the row groups with samples from ``start`` to ``stop``, and the index of their first sample."""
    ends = np.cumsum([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])
    begins = np.concatenate([[0], ends[:-1]])
    groups = np.flatnonzero((ends > start) & (begins < stop))
    return groups.tolist(), int(begins[groups[0]]) if len(groups) else start


def _is_numeric(arrow_type) -> bool:
    from pyarrow import types

    return types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_boolean(arrow_type)


def _read_into(file, buffer) -> int:
    """Bytes read into the buffer; fewer than it has only at the end of the file."""
    total = 0
    while total < len(buffer) and (count := file.readinto(buffer[total:])):
        total += count
    return total


def _stamp(path: Path) -> tuple[int, int]:
    return _stamp_of(path.stat())


def _stamp_of(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _changed(path: Path) -> str:
    return f"{path} changed between two passes of the fit. Begin again from the file as it is now."


def _check_unchanged(path: Path, seen: tuple[int, int]) -> None:
    try:
        now = _stamp(path)
    except OSError as error:
        raise SourceError(f"{path} is no longer there; it was when the fit began.") from error
    if now != seen:
        raise SourceError(_changed(path))

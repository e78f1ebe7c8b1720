"""Row sources: samples that are read block by block, for fits of more rows than memory holds.

A source gives the same rows in the same order at each pass. Functions and estimators that take one read it several
times, a block at a time (`jaxcluster.core.streaming`); `jaxcluster.datasets.scan` makes sources of files.

>>> source = ArraySource(np.arange(10.0).reshape(5, 2))
>>> [len(block) for block in source.blocks(2)]
[2, 2, 1]
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcluster.core import validation


class SourceError(ValueError):
    """A source that cannot be read, or that changed between two passes; the message names it."""


class RowSource(ABC):
    """Samples that are read block by block.

    Attributes:
        name: title in messages.
        shape: (n_samples, n_features).
        dtype: of the blocks.
        columns: names of the features, or None.
    """

    name: str
    shape: tuple[int, int]
    dtype: np.dtype
    columns: tuple[str, ...] | None = None
    ndim = 2

    @abstractmethod
    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Blocks (≤ rows, n_features) of the samples from ``start`` to ``stop``, in order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal digest that changes when the samples do; it is computed without reading all of them."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Refuse to be one array: a function that needs all rows in memory gets here."""
        raise TypeError(
            f"{self.name} is a source of rows, and these are needed in memory here. Pass "
            "np.concatenate(list(source.blocks(65536))), as far as memory holds them."
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, {self.shape[0]:,} rows of {self.shape[1]:,} columns, {self.dtype})"
        )

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Blocks of ``rows`` samples each, the last one of the rest.

        Raises:
            SourceError: there are more or fewer samples than ``shape`` says, or they have another width.
        """
        n, d = self.shape
        count = 0

        def checked():
            nonlocal count
            for block in self.read(0, n, rows):
                # A source may be a file that another program writes: each block is checked, not the first alone.
                if block.ndim != 2 or block.shape[1] != d:
                    raise SourceError(f"{self.name} gave a block of shape {block.shape}; its rows have {d} columns.")
                count += len(block)
                yield block

        yield from _of_equal_size(checked(), rows)
        if count != n:
            raise SourceError(f"{self.name} gave {count:,} rows, not its {n:,}: it changed while it was read.")

    def part(self, index: int, count: int) -> RowSource:
        """Part ``index`` of ``count`` parts of nearly equal size, each of consecutive samples."""
        if not 0 <= index < count:
            raise ValueError(f"index={index} must be at least 0 and less than count={count}.")
        n = self.shape[0]
        return SourcePart(self, index * n // count, (index + 1) * n // count)


def check_source(source: RowSource) -> None:
    """Raise ValueError or TypeError unless a source has samples of real numbers, by its shape and dtype."""
    kind = np.dtype(source.dtype)
    if len(source.shape) != 2:
        raise ValueError(f"{source.name} must have rows and columns, got shape {source.shape}.")
    if kind.kind not in "biuf" and not validation.is_short_number(kind):
        raise TypeError(f"{source.name} has dtype {kind}, and rows are of real numbers. Encode or drop other columns.")


class ArraySource(RowSource):
    """An array in memory."""

    def __init__(self, x: np.ndarray, name: str = "array") -> None:
        self.x, self.name, self.shape, self.dtype = x, name, x.shape, x.dtype
        check_source(self)

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Views of the array."""
        for first in range(start, stop, rows):
            yield self.x[first : min(first + rows, stop)]

    def fingerprint(self) -> str:
        """Digest of the shape, the dtype and some of the rows."""
        some = np.ascontiguousarray(self.x[:: max(1, len(self.x) // 64)])
        return digest(self.shape, self.dtype, some.tobytes())


class SourcePart(RowSource):
    """Consecutive samples of another source."""

    def __init__(self, source: RowSource, start: int, stop: int) -> None:
        self.source, self.start = source, start
        self.name, self.dtype, self.columns = f"{source.name}[{start}:{stop}]", source.dtype, source.columns
        self.shape = (stop - start, source.shape[1])

    def read(self, start: int, stop: int, rows: int) -> Iterator[np.ndarray]:
        """Blocks of the other source."""
        return self.source.read(self.start + start, self.start + stop, rows)

    def fingerprint(self) -> str:
        """Digest of that of the other source and the range."""
        return digest(self.source.fingerprint(), self.start, self.shape)


def digest(*values: Any) -> str:
    """SHA-256 of values, which are told apart by their text, in hexadecimal digits."""
    sha = hashlib.sha256()
    for value in values:
        sha.update(value if isinstance(value, bytes) else repr(value).encode())
        sha.update(b"\0")
    return sha.hexdigest()


def _of_equal_size(blocks: Iterator[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in blocks of ``rows`` rows each but for the last; blocks of that size are passed on uncopied."""
    kept: list[np.ndarray] = []
    count = 0
    for block in blocks:
        start = 0
        while count + len(block) - start >= rows:
            stop = start + rows - count
            kept.append(block[start:stop])
            yield kept[0] if len(kept) == 1 else np.concatenate(kept)
            kept, count, start = [], 0, stop
        if start < len(block):
            kept.append(block[start:])
            count += len(block) - start
    if kept:
        yield kept[0] if len(kept) == 1 else np.concatenate(kept)

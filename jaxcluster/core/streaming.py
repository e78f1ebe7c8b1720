"""Passes over a row source: blocks in one frame, read and placed on the device while the one before is computed.

All blocks are padded to one size, so that each pass is one compiled program. Sums over blocks are made in float64 on
the host, where a sum of many blocks is not rounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.dtypes import MAX_EXACT_INTEGER, float_dtype
from jaxcluster.core.frame import (
    Frame,
    bound_between,
    center_and_spread,
    frame_about,
    frame_reaching,
    is_crushed,
    sample_size,
    spread_indices,
    typical_exponent,
    typical_exponent_in,
    warn_of_crushed,
)
from jaxcluster.core.preparation import aligned, enter_block, padded_size, row_exponents, scaled_weights
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.sources import RowSource, SourceError, check_source
from jaxcluster.types import Fit, Points

BLOCK_BYTES = 1 << 25
"""Bytes of a block of rows on the device: large enough that a pass waits for no call, and small beside any memory."""

BLOCKS_AT_ONCE = 6
"""Copies of a block at the peak of a pass: read, in the frame, computed, and temporaries (measured)."""

EXAMINED_ROWS = 1 << 14
"""Samples, of those whose result rounding may have changed, that are examined on the host."""

SAMPLED_ROWS = 1 << 16
"""Rows of the sample on which initial centers are found, or all rows if there are fewer."""


class PassInterrupted(KeyboardInterrupt):
    """Exception of a pass over a source that Ctrl-C ends: a fit catches it where it has a state to keep."""


def over_blocks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function of (model, samples, …) with one result by sample: of a source it is computed by blocks."""
    parameters = signature(method)
    samples = list(parameters.parameters)[1]

    @wraps(method)
    def of_samples_or_source(*arguments, **options):
        if not any(isinstance(value, RowSource) for value in (*arguments, *options.values())):
            return method(*arguments, **options)
        bound = parameters.bind(*arguments, **options)
        source, results = bound.arguments[samples], []
        for block in source.blocks(rows_of_block(source)):
            bound.arguments[samples] = block
            results.append(np.asarray(method(*bound.args, **bound.kwargs)))
        return np.concatenate(results)

    return of_samples_or_source


def rows_of_block(source: Any, block_bytes: int | None = None) -> int:
    """Number of rows of a source, or an array, in a block of ``block_bytes``, by default `BLOCK_BYTES`."""
    row_bytes = source.shape[1] * float_dtype(source.dtype).itemsize
    return padded_size(min(source.shape[0], max(1, (block_bytes or BLOCK_BYTES) // row_bytes)))


class Block(NamedTuple):
    """A block of samples on the device.

    Attributes:
        rows: indices of its samples in the source.
        points: padded samples in the frame.
    """

    rows: slice
    points: Points


class StepWatch:
    """Steps of a run on a source, of which observers are told.

    Args:
        max_steps: most steps.
        shown: objective in the frame -> in the caller's units.
    """

    def __init__(self, max_steps: int, shown: Callable[[np.ndarray], Any]) -> None:
        self._max_steps, self._shown, self._start = max_steps, shown, time.perf_counter()

    def add(self, steps: int, objective: float) -> None:
        """Tell observers of a step."""
        left = (self._max_steps - steps) * (time.perf_counter() - self._start) / steps
        shown = np.asarray(self._shown(np.array([objective])))
        chunks.tell(chunks.Progress(steps, self._max_steps, shown, left or None))


def host_fit(state: Any, labels: Any, steps: Any, status: Any, history: Any) -> Fit:
    """A `Fit` of NumPy arrays."""
    numbers: Any = (np.int32(steps), np.int32(status), np.asarray(history))
    return Fit(state, labels, *numbers)


def mean_variance(total: Any, squares: Any, sums: Any) -> float:
    """Mean variance of the features from Σ w, Σ w·‖x‖² and Σ w·x of a `Stream.fold`."""
    return max(0.0, float(squares / total - np.square(sums / total).sum())) / len(sums)


def evenly(index: np.ndarray, count: int = EXAMINED_ROWS) -> np.ndarray:
    """At most ``count`` of the entries, spread evenly."""
    return index[np.linspace(0, len(index) - 1, min(len(index), count)).astype(int)]


class Stream:
    """A source of rows in a frame, which is read block by block in every pass.

    Making one reads the source once: it checks that all values are finite, finds the frame, and keeps a sample.

    Args:
        source: the rows.
        weights: (n_samples,) weights in memory, or None for 1 each.
        unit_rows: True if only directions matter (cosine).
        missing: True accepts NaN as missing values.
        frame: frame of a fit, for new rows; None for one of their own.
        block_bytes: bytes of a block on the device; None for `streaming.BLOCK_BYTES`.
        seed: of the sample.

    Attributes:
        n, d: numbers of samples and of features.
        frame: of all samples.
        dtype: of results.
        narrowed: True if samples may have lost digits, as JAX computes in float32.
        unit_weights: True if every weight is 1.
        sample: (at most `SAMPLED_ROWS`, n_features) distinct samples, in their order.
        sample_weight: their weights in the frame.
        interruptible: False for passes that Ctrl-C does not end.

    Raises:
        ValueError, TypeError: values that are not finite, weights of a wrong shape or sign; `SourceError`.
        MemoryError: blocks, labels and weights are more than the process may allocate.
    """

    def __init__(
        self,
        source: RowSource,
        weights: Any = None,
        *,
        unit_rows: bool = False,
        missing: bool | None = None,
        frame: Frame | None = None,
        block_bytes: int | None = None,
        seed: Any = 0,
    ) -> None:
        limit_programs()
        check_source(source)
        self.interruptible = True
        self.source, (self.n, self.d) = source, source.shape
        self.kind = validation.widen(np.empty(0, source.dtype)).dtype
        self.compute_dtype = float_dtype(self.kind)
        self.dtype = np.dtype(np.float32 if self.kind.kind == "f" and self.kind.itemsize <= 4 else np.float64)
        self.narrowed = self.compute_dtype.itemsize < self.kind.itemsize
        weights = None if weights is None else validation.check_weights(weights, self.n)
        self.weights, exponent = scaled_weights(weights)
        self.unit_weights = self.weights is None or bool((self.weights == 1).all())
        self.block_rows = rows_of_block(source, block_bytes)
        needed = BLOCKS_AT_ONCE * self.block_rows * self.d * self.compute_dtype.itemsize + 12 * self.n
        memory.check(needed, f"blocks of {self.block_rows:,} rows", "Lower block_bytes.")
        self.unit_rows, self.missing, self.fingerprint = unit_rows, missing, source.fingerprint()
        self.frame = self._scan(frame, exponent, np.random.default_rng(seed))

    def _scan(self, frame, weight_exponent, rng):
        """The frame, from one pass over the source, which also draws the sample."""
        counted = None if self.weights is None else np.flatnonzero(self.weights)
        total = self.n if counted is None else len(counted)
        size = min(total, SAMPLED_ROWS)
        middle = spread_indices(total, sample_size(total, self.d))
        drawn = np.arange(total) if size == total else np.sort(rng.choice(total, size, replace=False, shuffle=False))
        middle, drawn = (middle, drawn) if counted is None else (counted[middle], counted[drawn])
        middle_rows, drawn_rows, least, most, start = [], [], np.inf, -np.inf, 0
        observed = np.full(self.d, np.nan)  # the first value of each column: the sample may have none
        for x in self._read():
            self._check_interrupted()
            validation.check_finite(x, name=self.source.name, missing=self.missing, columns=self.source.columns)
            least, most = np.fmin(least, np.fmin.reduce(x, axis=None)), np.fmax(most, np.fmax.reduce(x, axis=None))
            for wanted, found in ((middle, middle_rows), (drawn, drawn_rows)):
                here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(x))]
                found.append(x[here - start])
            if np.isnan(observed).any():
                observed = np.where(np.isnan(observed), x[(~np.isnan(x)).argmax(axis=0), np.arange(self.d)], observed)
            start += len(x)
        self.sample = np.concatenate(drawn_rows)
        self.sample_weight = np.ones(size) if self.weights is None else self.weights[drawn]
        if self.kind.kind in "iu" and max(abs(int(least)), abs(int(most))) > MAX_EXACT_INTEGER:
            raise ValueError(
                f"{self.source.name} has integers beyond 2^53, which float64 rounds. Subtract one row from all before."
            )
        if self.unit_rows:
            frame = Frame(np.zeros(self.d, self.dtype))
        elif frame is None:
            origin, spread = center_and_spread(np.concatenate(middle_rows), observed[None], True)
            bound = bound_between(origin, least, most)
            frame = frame_about(origin, spread, bound, self.dtype)
            self._warn_if_crushed(frame, typical_exponent(spread), bound)
        else:
            typical = typical_exponent_in(frame, np.concatenate(middle_rows))
            bound = bound_between(frame.origin, least, most)
            frame = frame_reaching(frame, bound)
            self._warn_if_crushed(frame, typical, bound)
        return frame._replace(weight_exponent=weight_exponent)

    def _warn_if_crushed(self, frame, typical, bound):
        if is_crushed(frame, typical, self.compute_dtype):
            warn_of_crushed(bound, self.source.name)

    def _check_unchanged(self):
        if self.source.fingerprint() != self.fingerprint:
            raise SourceError(f"{self.source.name} changed between two passes. Begin again from the rows as they are.")

    def _check_interrupted(self):
        if self.interruptible and signals.interrupted():
            raise PassInterrupted

    def _read(self):
        for block in self.source.blocks(self.block_rows):
            yield validation.widen(np.asarray(block))

    def enter(self, x: np.ndarray, weight: np.ndarray | None, size: int) -> Points:
        """Samples in the frame and their weights, padded to ``size`` rows, on the device."""
        out, weights = aligned((size, self.d), self.compute_dtype), aligned((size,), self.compute_dtype)
        n = len(x)
        exponent = row_exponents(x)[:, None] if self.unit_rows else self.frame.exponent
        enter_block(x, np.asarray(self.frame.origin), exponent, out[:n])
        weights[:n] = 1 if weight is None else weight
        out[n:], weights[n:] = 0, 0
        arrays: Any = (out, weights)
        return jax.device_put(Points(*arrays))

    def wide_blocks(self) -> Iterator[np.ndarray]:
        """Samples in the frame, block by block, in float64 on the host; raises as `blocks`."""
        self._check_unchanged()
        for x in self._read():
            self._check_interrupted()
            out = np.empty(x.shape)
            enter_block(x, np.asarray(self.frame.origin), self.frame.exponent, out)
            yield out

    def sample_points(self) -> Points:
        """The sample in the frame."""
        return self.enter(self.sample, self.sample_weight, padded_size(len(self.sample)))

    def blocks(self) -> Iterator[Block]:
        """One pass over the source; the next block is read while the caller uses this one.

        Raises:
            SourceError: the source is not what it was when the stream was made.
            PassInterrupted: Ctrl-C was pressed, and a fit may end with what it has.
        """
        self._check_unchanged()
        blocks, start = self._read(), 0

        def following():
            nonlocal start
            x = next(blocks, None)
            if x is None:
                return None
            rows = slice(start, start + len(x))
            start = rows.stop
            weight = None if self.weights is None else self.weights[rows]
            # JAX's x64 mode may be on in the caller's thread alone.
            with jax.enable_x64(self.compute_dtype.itemsize == 8):
                return Block(rows, self.enter(x, weight, self.block_rows))

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(following)
            while (block := coming.result()) is not None:
                self._check_interrupted()
                coming = reader.submit(following)
                yield block

    def fold(self, kernel: Callable[..., tuple[Any, Any]], *arguments: Any, per_row: Any = ()) -> tuple[Any, Any]:
        """Sums of ``kernel`` over all blocks, and its results by sample.

        Args:
            kernel: (points, *arguments, *parts of ``per_row``) -> (summary, per-row results), compiled.
            arguments: the same for each block.
            per_row: tuple of (n_samples,) arrays of which each block gets its part, padded with 0; integers as int32.

        Returns:
            The summaries added up in float64, and the per-row results, each (n_samples, …).
        """
        total, out = None, None
        pending: Any = None

        def add(rows, summary, results):
            nonlocal total, out
            summary = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), summary)
            total = summary if total is None else jax.tree.map(np.add, total, summary)
            if out is None:
                out = jax.tree.map(lambda leaf: np.empty((self.n, *leaf.shape[1:]), leaf.dtype), results)
            for whole, part in zip(jax.tree.leaves(out), jax.tree.leaves(results), strict=True):
                whole[rows] = np.asarray(part)[: rows.stop - rows.start]

        for block in self.blocks():
            parts = (self._padded(values[block.rows]) for values in per_row)
            result = kernel(block.points, *arguments, *parts)
            # The block before is taken from the device only now, while this one is computed.
            if pending is not None:
                add(*pending)
            pending = (block.rows, *result)
        add(*pending)
        return total, out

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Samples by their indices, in order, from one pass over the source."""
        found, start = [], 0
        for x in self._read():
            self._check_interrupted()
            here = index[np.searchsorted(index, start) : np.searchsorted(index, start + len(x))]
            found.append(x[here - start])
            start += len(x)
        return np.concatenate(found)

    def points_of(self, index: np.ndarray, x: np.ndarray) -> Points:
        """Samples x of these indices, in the frame."""
        weight = None if self.weights is None else self.weights[index]
        return self.enter(x, weight, padded_size(len(index)))

    def _padded(self, values):
        dtype = np.int32 if values.dtype.kind in "iu" else values.dtype
        padded = np.zeros((self.block_rows, *values.shape[1:]), dtype)
        padded[: len(values)] = values
        return padded

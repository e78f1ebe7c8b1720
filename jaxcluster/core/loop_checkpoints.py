"""Checkpoints of the loops of long fits, from which the same fit goes on in another process.

A fit on the host is a sequence of loops: seeding, the iteration of each start. They have numbers in the order in which
they run, which is the same in another run of the same fit, and each saves its state in a folder of its number: after so
many seconds, when the process is asked to stop, and at its end if it was long. A loop that finds a checkpoint goes on
from it, so that loops which had ended take no step.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxcluster.core import checkpoint, signals
from jaxcluster.core.checkpoint import Checkpoint, Checkpoints
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import from_first, spans_processes, writes_files
from jaxcluster.types import Fit

LONG_SECONDS = 2.0
"""Duration of a fit from which on it is saved, and of a loop whose end is: shorter ones are run again."""

MESSAGE_BYTES = 2000
"""Most bytes of an error of the first process that the others raise too."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Part of the text of a function that differs between processes."""


class FitCheckpoints:
    """Checkpoints of the loops of one fit.

    Args:
        folder: for this fit only.
        every_seconds: time between two checkpoints.
        on_save: called after each checkpoint; None for nothing.

    Attributes:
        interrupted: True if a loop was asked to stop.
        latest: the loop that runs, its state, steps and progress after its last chunk; None before.
    """

    def __init__(self, folder: Any, every_seconds: float, on_save: Callable[[], object] | None = None) -> None:
        self.folder, self.every_seconds, self.interrupted = Path(folder), every_seconds, False
        self.on_save = on_save
        self._number, self._thread = 0, threading.get_ident()
        self._written_elsewhere = False
        self._begin, self._prepared = time.monotonic(), False
        self.latest: tuple[LoopCheckpoints, Any, int, dict[str, Any]] | None = None

    def save_latest(self) -> None:
        """Save the state after the last chunk, where the process has to end within one; called by another thread."""
        if self.latest is not None and self._prepared:
            loop, state, steps, progress = self.latest
            loop.save(state, steps, notify=False, **progress)

    def is_long(self) -> bool:
        """True if the fit has run for so long that it is saved; the first time Orbax is imported, for a second."""
        if not self._prepared and time.monotonic() - self._begin >= LONG_SECONDS:
            checkpoint.prepare()
            self._prepared = True
        return self._prepared

    def next_loop(self, step: jax.tree_util.Partial) -> LoopCheckpoints | None:
        """Checkpoints of the next loop; None in other threads, whose loops have no order, and in a job.

        The processes of a job share the folder, and what each computes by itself is the same in all of them.
        """
        if threading.get_ident() != self._thread or jax.process_count() > 1:
            return None
        return self.numbered(fingerprint_of(step))

    def numbered(self, fingerprint: str) -> LoopCheckpoints:
        """Checkpoints of the next loop, by the fingerprint of its data and options."""
        return LoopCheckpoints(self, self._next(fingerprint))

    def numbered_over_rows(self, fingerprint: str, mesh: Mesh, specs: Any) -> RowLoopCheckpoints:
        """`numbered` for a loop over the devices of a mesh."""
        self._written_elsewhere = not writes_files(mesh)
        return RowLoopCheckpoints(self, self._next(fingerprint), mesh, specs)

    def _next(self, fingerprint):
        self._number += 1
        config = {"loop": self._number, "data and options": fingerprint}
        return Checkpoints(self.folder / f"loop-{self._number:06d}", keep=1, config=config)

    def clear(self) -> None:
        """Delete all checkpoints of the fit; the first process of a job does it for all."""
        for place in [] if self._written_elsewhere else sorted(self.folder.glob("loop-*")):
            shutil.rmtree(place)


class LoopCheckpoints:
    """Checkpoints of one loop.

    Args:
        fit: the fit that the loop belongs to.
        checkpoints: in the folder of the loop.
    """

    def __init__(self, fit: FitCheckpoints, checkpoints: Checkpoints) -> None:
        self._fit, self._checkpoints = fit, checkpoints
        self._begin = self._last = time.monotonic()
        self._steps, self._lock = -1, threading.Lock()

    def restore(self, start: Fit) -> Fit:
        """The newest checkpoint, or the start of the loop without one.

        Raises:
            ValueError: a checkpoint of other data or options, or one that was changed.
        """
        restored = self.newest(start)
        return start if restored is None else restored.state

    def newest(self, like: Any) -> Checkpoint | None:
        """The newest checkpoint of a state of the structure of ``like``."""
        restored = self._checkpoints.restore(like)
        if restored is not None:
            self._steps = restored.progress["steps"]
        return restored

    def save(self, state: Any, steps: int, *, notify: bool = True, **progress: Any) -> None:
        """Write a checkpoint, unless there is one after so many steps already; a full disk ends no fit.

        Args:
            state, steps, progress: of the loop.
            notify: call ``on_save``, which may communicate.
        """
        with self._lock:
            if steps == self._steps:
                return
            self._steps = steps
            try:
                self._write(state, steps, progress)
            except OSError as error:
                warn(
                    f"the checkpoint after {steps} steps could not be written to {self._fit.folder}: {error.strerror}. "
                    "The fit goes on, and the one before it is kept."
                )
            self._last = time.monotonic()
        if notify and self._fit.on_save is not None:
            self._fit.on_save()

    def stop(self, state: Any, steps: int, **progress: Any) -> None:
        """Save a loop that is asked to stop."""
        self._fit.interrupted = True
        if self._agree(self._fit.is_long()):
            self.save(state, steps, **progress)

    def after_chunk(self, state: Any, steps: int, *, ended: bool = False, **progress: Any) -> None:
        """Save a loop after some steps, if it is time."""
        self._fit.latest = self, state, steps, progress
        now = time.monotonic()
        due = now - self._last >= self._fit.every_seconds or (ended and now - self._begin >= LONG_SECONDS)
        if self._agree(self._fit.is_long() and due):
            self.save(state, steps, **progress)

    def _write(self, state, steps, progress):
        self._checkpoints.save(steps, state, {"steps": steps, **progress})

    def _agree(self, decision):
        """The decision of all processes of the fit, where this one would decide so."""
        return decision


class RowLoopCheckpoints(LoopCheckpoints):
    """Checkpoints of a loop over the devices of a mesh, written by the first of its processes.

    They hold what every device has; see `jaxcluster.core.row_loops`.

    Args:
        fit, checkpoints: as of `LoopCheckpoints`.
        mesh: of the loop.
        specs: of its fit.

    Attributes:
        tol: tolerance of the loop, which is saved with the fit.
    """

    def __init__(self, fit: FitCheckpoints, checkpoints: Checkpoints, mesh: Mesh, specs: Any) -> None:
        super().__init__(fit, checkpoints)
        self._mesh, self._specs, self.tol = mesh, specs, None

    def newest_of(self, like: tuple[Fit, Any]) -> tuple[Fit, Any] | None:
        """Fit and tolerance of the newest checkpoint, without arrays of the samples, in all processes.

        Args:
            like: fit and tolerance of the same shapes.

        Returns:
            The fit and the tolerance; None without a checkpoint.
        """
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (self._shared(like[0]), like[1]))
        if not spans_processes(self._mesh):
            newest = self.newest(zeros)
            return None if newest is None else newest.state
        # All processes raise what the first one found: the others would wait for it.
        newest, refused = None, np.zeros(MESSAGE_BYTES, np.uint8)
        if jax.process_index() == 0:
            try:
                newest = self.newest(zeros)
            except ValueError as error:
                text = str(error).encode()[:MESSAGE_BYTES]
                refused[: len(text)] = np.frombuffer(text, np.uint8)
        if (refused := from_first(refused)).any():
            raise ValueError(refused.tobytes().rstrip(b"\0").decode(errors="ignore"))
        if not from_first(np.bool_(newest is not None)):
            return None
        self._steps = int(from_first(np.int64(self._steps)))
        return jax.tree.map(from_first, zeros if newest is None else newest.state)

    def _write(self, state, steps, progress):
        if writes_files(self._mesh):
            super()._write((self._shared(state), self.tol), steps, progress)

    def _agree(self, decision):
        return bool(from_first(np.bool_(decision))) if spans_processes(self._mesh) else decision

    def _shared(self, fit):
        """A fit without its arrays of the samples."""
        whole = PartitionSpec()
        return jax.tree.map(
            lambda spec, part: part if spec == whole else None, self._specs, fit, is_leaf=lambda leaf: leaf is None
        )


class SourceLoop:
    """Checkpoints of a loop whose steps are passes over a source; outside of `resumable` nothing is saved.

    Args:
        stream: of the source; its fingerprint and its weights are those of the data.
        options: anything whose text tells the options of the loop.
    """

    def __init__(self, stream: Any, options: Any) -> None:
        weights = None if stream.weights is None else checkpoint.fingerprint(stream.weights)
        text = ADDRESS.sub("", f"{stream.source.fingerprint()} {weights} {options!r}")
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._saved = None if _active is None else _active.numbered(digest)

    def restore(self, start: Any) -> tuple[Any, int, list[float]]:
        """Go on from the newest checkpoint, or from the start.

        Returns:
            The state, the number of steps and the history.
        """
        like = jax.tree.map(np.asarray, start)
        newest = None if self._saved is None else self._saved.newest(like)
        return (
            (start, 0, []) if newest is None else (newest.state, newest.progress["steps"], newest.progress["history"])
        )

    def after_step(self, state: Any, history: list[float]) -> None:
        """Save a loop after a step, if it is time."""
        if self._saved is not None:
            self._saved.after_chunk(jax.tree.map(np.asarray, state), len(history), history=history)

    def stop(self, state: Any, history: list[float]) -> None:
        """Save a loop that is asked to stop."""
        if self._saved is not None and history:
            self._saved.stop(jax.tree.map(np.asarray, state), len(history), history=history)


_active: FitCheckpoints | None = None


@contextmanager
def resumable(
    folder: Any, *, every_seconds: float = 60.0, on_save: Callable[[], object] | None = None
) -> Iterator[None]:
    """Context of one long fit that saves its state in a folder, and goes on from there in another process.

    The state, the history, the steps and random keys are saved: every so many seconds, and where Ctrl-C or `SIGTERM`
    ends the fit. The same lines, run again, go on and give the result of a fit that was never stopped. At the end the
    checkpoints are deleted. Fits of less than two seconds are not saved, nor are loops in several threads.

    A fit with ``mesh=`` goes on with any number of devices, and of processes that together have the same samples in the
    same order. The first process of a job writes the checkpoints and reads them.

    Pass an integer as ``random_state``, so that the starts are the same again. A checkpoint of other data (by up to
    1,024 rows) or other options is refused, and so is one whose SHA-256 does not match.

    Args:
        folder: for this fit only.
        every_seconds: time between two checkpoints.
        on_save: called after each checkpoint, by every process of a job.

    Raises:
        ValueError: from the fit, for a checkpoint that is refused.
        FileExistsError: ``folder`` is a file.
    """
    global _active
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise FileExistsError(f"{folder} is no folder. Give the path of a folder for the checkpoints of one fit.")
    before, _active = _active, FitCheckpoints(folder, every_seconds, on_save)
    try:
        with signals.on_stop(_active.save_latest):
            yield
        if not _active.interrupted:
            _active.clear()
    finally:
        _active = before


def active() -> FitCheckpoints | None:
    """Checkpoints of the fit; None outside of `resumable`."""
    return _active


def next_loop(step: jax.tree_util.Partial) -> LoopCheckpoints | None:
    """Checkpoints of the next loop of the fit; None outside of `resumable`."""
    return None if _active is None else _active.next_loop(step)


def fingerprint_of(step: jax.tree_util.Partial) -> str:
    """Digest of the function of a step, its static options and its operands."""
    bound: Any = step.func
    function, static = bound
    # Without the addresses in its text: they differ in each process, and are no part of the problem.
    digest = hashlib.sha256(f"{function.__module__}.{function.__qualname__}{ADDRESS.sub('', repr(static))}".encode())
    for leaf in jax.tree.leaves(step.args):
        words = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        rows = words if np.ndim(words) else np.asarray(words)[None]
        digest.update((checkpoint.fingerprint(rows) if rows.size else f"{rows.shape}").encode())
    return digest.hexdigest()[:16]

"""Loops of fits whose samples are spread over the devices of a mesh, in chunks as those of one device.

Each part of a loop is a program over all devices. Where these are those of several processes, all of them take the same
chunks: they agree on the number of steps, and on whether to stop. A checkpoint holds what every device has, centers or
the components of a mixture, and is written by the first process; what belongs to the samples is computed again. So it
is restored on any number of devices and of processes that together have the same samples in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcluster.core import checkpoint, chunks, loop_checkpoints, signals
from jaxcluster.core.chunks import Step
from jaxcluster.core.iterate import advance
from jaxcluster.core.loop_checkpoints import ADDRESS
from jaxcluster.core.processes import agree_to_stop, as_words, gather, gather_rows, own_rows, replicate, spans_processes
from jaxcluster.core.shard import over_rows, rows_of, shapes_over_rows
from jaxcluster.types import Fit, Status


class Run(NamedTuple):
    """Arguments that all loops of a fit over a mesh share.

    Attributes:
        static: hashable options of their parts.
        mesh: of one axis.
        max_steps: most steps.
        work: products and sums of a step.
        shown: history in the frame -> in the caller's units.
        data: made by `digest`.
    """

    static: Any
    mesh: Mesh
    max_steps: Any
    work: float
    shown: Callable[[np.ndarray], Any] | None
    data: str


class RowLoop(NamedTuple):
    """Parts of a loop, and how their arguments and results lie on the devices.

    Attributes:
        prepare: (static, *arguments) -> operands of the step.
        begin: (static, operands, *arguments) -> fit made by `iterate.begin`, and the tolerance.
        step: (static, *operands, state) -> state.
        arguments, operands, fit: specs, made of `Rows`.
        refill: (static, operands, fit) -> fit with its arrays of the samples, which a checkpoint does not have; None
            where a fit has none.
    """

    prepare: Callable[..., Any]
    begin: Callable[..., Any]
    step: Callable[..., Any]
    arguments: Any
    operands: Any
    fit: Any
    refill: Callable[..., Any] | None = None

    def prepared(self, run: Run, *arguments: Any) -> Any:
        """The operands, on the devices."""
        return over_rows(self.prepare, run.static, run.mesh, self.arguments, self.operands, *arguments)

    def __call__(self, run: Run, operands: Any, *arguments: Any) -> tuple[Fit, Any]:
        """Run the loop from its beginning, or from its newest checkpoint.

        Returns:
            The fit and the tolerance, on the devices.
        """
        places = (self.operands, *self.arguments), (self.fit, rows_of(run.mesh).whole)
        program = self.begin, run.static, run.mesh, *places, operands, *arguments
        saved = self._saved(run)
        # Shapes alone: a loop that goes on needs no initial centers, which take as long as many steps.
        newest = None if saved is None else saved.newest_of(shapes_over_rows(*program))
        fit, tol = over_rows(*program) if newest is None else self._refilled(run, operands, *newest)
        return self._resume(run, operands, fit, tol, saved), tol

    def again(self, run: Run, operands: Any, fit: Fit, tol: Any) -> Fit:
        """Take further steps of a fit, as another loop."""
        saved = self._saved(run)
        newest = None if saved is None else saved.newest_of((fit, tol))
        fit, tol = (fit, tol) if newest is None else self._refilled(run, operands, *newest)
        return self._resume(run, operands, fit, tol, saved)

    def _resume(self, run, operands, fit, tol, saved):
        if saved is not None:
            saved.tol = tol
        limits = {"tol": tol, "max_steps": run.max_steps, "work": run.work, "shown": run.shown}
        step = jax.tree_util.Partial(Step(self.step, run.static), *operands)
        return chunks.resume(step, fit, **limits, runner=RowRunner(run.mesh, self), saved=saved)

    def _saved(self, run):
        active = loop_checkpoints.active()
        return None if active is None else active.numbered_over_rows(run.data, run.mesh, self.fit)

    def _refilled(self, run, operands, fit, tol):
        """A restored fit and its tolerance on the devices."""
        fit, tol = jax.tree.map(partial(replicate, mesh=run.mesh), (fit, tol))
        if self.refill is None:
            return fit, tol
        places = (self.operands, rows_of(run.mesh).whole), self.fit
        return over_rows(self.refill, run.static, run.mesh, *places, operands, fit), tol


def loop_of(start: Callable[..., Any], step: Callable[..., Any], arguments: Any, operands: Any, fit: Any) -> RowLoop:
    """Loop of the parts of a `chunks.Loop`.

    Args:
        start: (static, *arguments) -> operands of the step, fit made by `iterate.begin`, tolerance, most steps.
        step: (static, *operands, state) -> state.
        arguments, operands, fit: specs.
    """
    return RowLoop(partial(_prepare, start), partial(_begin, start), step, arguments, operands, fit)


def _prepare(start, static, *arguments):
    return start(static, *arguments)[0]


def _begin(start, static, _, *arguments):
    return start(static, *arguments)[1:3]


class RowRunner(chunks.Runner):
    """Calls of compiled steps over the devices of a mesh, the same by all of its processes.

    Args:
        mesh: of one axis.
        loop: that of the steps; None where none is called.
    """

    def __init__(self, mesh: Mesh, loop: RowLoop | None = None) -> None:
        self._mesh, self._loop, self._number = mesh, loop, 0

    def advance(self, step: jax.tree_util.Partial, fit: Fit, tol: Any, limit: Any) -> Fit:
        """The fit with the steps up to number ``limit``."""
        assert self._loop is not None
        whole = rows_of(self._mesh).whole
        places = (self._loop.operands, self._loop.fit, whole, whole), self._loop.fit
        return over_rows(_advance, step.func, self._mesh, *places, step.args, fit, tol, np.int32(limit))

    def agree(self, steps: int) -> int:
        """The least number of all processes; a request to stop any of them becomes one to each."""
        self._number = agree_to_stop(self._mesh)
        # Each process times its chunks, and one that took another number of steps would wait for sums that never come.
        return int(gather(steps).min()) if spans_processes(self._mesh) else steps

    def stop_requested(self) -> bool:
        """True if a signal has requested any of the processes to stop."""
        return self._number != 0

    def interrupted(self) -> bool:
        """`signals.interrupted`, as the processes have agreed."""
        # A signal since the processes have agreed is answered when they agree again.
        return self._number != 0 and signals.interrupted()

    def end(self, fit: Fit) -> Fit:
        """The fit with the status of one that was interrupted."""
        status = Status.NOT_FINITE if int(fit.status) == Status.NOT_FINITE else Status.INTERRUPTED
        return fit._replace(status=replicate(np.int32(status), self._mesh))


def is_long(work: float, max_steps: Any, mesh: Mesh) -> bool:
    """`chunks.is_long` of a fit over a mesh, the same in all of its processes."""
    long = chunks.is_long(work, max_steps)
    # One process may have observers where the others have none: the first one prints.
    return bool(gather(long).any()) if spans_processes(mesh) else long


def digest(mesh: Mesh, x: Any, per_row: tuple[Any, ...], static: Any, *arrays: Any) -> str:
    """Digest of up to 1,024 samples of all processes and of the options of a fit; "" outside of `resumable`.

    Args:
        mesh: of the fit.
        x: (n, d) samples of this process.
        per_row: (n,) numbers of the samples, such as weights; None stands for 1 each.
        static: options, told by their text.
        arrays: further ones, the same in all processes.
    """
    if loop_checkpoints.active() is None:
        return ""
    x, spans = np.asarray(x), spans_processes(mesh)
    counts = gather(len(x)) if spans else np.array([len(x)])
    # The same samples whatever part each process has, so that the digest is, too.
    chosen = checkpoint.chosen_rows(int(counts.sum())) - (own_rows(mesh, len(x)).start or 0)
    mine = chosen[(chosen >= 0) & (chosen < len(x))]
    numbers = (np.ones(len(mine)) if each is None else np.asarray(each, np.float64)[mine] for each in per_row)
    sampled = [gather_rows(part) if spans else part for part in (x[mine], *numbers)]
    content = hashlib.sha256(ADDRESS.sub("", f"{counts.sum()} {x.dtype} {static!r}").encode())
    for array in (*sampled, *jax.tree.leaves(arrays)):
        content.update(np.ascontiguousarray(as_words(array)).tobytes())
    return content.hexdigest()[:16]


def _advance(step, operands, fit, tol, limit):
    return advance(partial(step, *operands), fit, tol=tol, max_steps=limit)

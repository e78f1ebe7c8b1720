"""The one training loop: epoch after epoch until a limit, with callbacks and checkpoints on the way.

An epoch is a number of steps between two looks at all rows: one pass over them, or as many steps as a method wants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxcluster.core import check, stopping
from jaxcluster.core.caution import warn
from jaxcluster.core.checkpoint import Checkpoints, fingerprint, prepare
from jaxcluster.deep.batches import Rows, as_rows
from jaxcluster.deep.epoch import CAUSES, Run, TrainState
from jaxcluster.deep.optimizers import adam, check_optimizer
from jaxcluster.deep.protocol import Objective
from jaxcluster.types import KeyArray, Status

BATCH = 256
"""Rows a step, unless ``batch_size`` says otherwise."""

COLLAPSED_LOOKS = 3
"""So many looks in a row at rows that cannot be told apart end a training: it may come back from one or two."""


class Trained(NamedTuple):
    """A finished training.

    Attributes:
        module: the trained module, in evaluation; the one that was passed in is as it was. Its parameters are finite,
            however the training ended.
        labels: (n,) the clusters at the end, as NumPy int32; None for a module without clusters.
        steps: that the module has had.
        status: CONVERGED: few enough rows changed their cluster, or the loss stopped falling; MAX_STEPS: all epochs
            were taken; NOT_FINITE: see ``failed_step``; COLLAPSED: nothing was left to tell rows apart by, at the end
            or at three looks in a row, which end a training.
        failed_step: the step, counted from 1, at which a number was not finite: the loss, its gradient, the parameters
            or other variables after it, or what the network gives for all rows before it. The module is the last one
            before that step which gives finite codes, and shares of clusters, for all rows.
        history: one record for each epoch in which a step was taken: ``epoch`` and ``step`` at its end, the means of
            ``loss`` and of what else the module follows, how the labels before it agree with those an epoch earlier
            (``changed``, the share of rows with another one, unless the module has another measure), ``collapsed``
            where they were seen to be, and ``seconds``.
        cause: which number was not finite at the failed step, as "the gradient was"; None without one.
    """

    module: Any
    labels: np.ndarray | None
    steps: int
    status: Status
    failed_step: int | None
    history: tuple[dict[str, float], ...]
    cause: str | None = None


class Report(NamedTuple):
    """The state of a training after an epoch, for its callbacks.

    Attributes:
        record: the last of the history.
        history: all records so far.
        epochs: the most that will be.
        labels: (n,) clusters before the epoch, or None.
        module: called before the callback returns, a copy of the module as it is, in evaluation.
    """

    record: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    labels: np.ndarray | None
    module: Callable[[], Any]


def train(
    key: KeyArray,
    module: Objective,
    x: Any,
    *,
    epochs: int,
    optimizer: Any = None,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    tol: float | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    precision: str | None = None,
    resident: bool | None = None,
    callbacks: Iterable[Any] = (),
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    y: Any = None,
    mesh: Mesh | None = None,
) -> Trained:
    """Trains a module on rows.

    Args:
        key: of the order of the rows and of what is random in a step.
        module: an `nnx.Module` that is an `Objective`.
        x: (n, …) rows, NumPy or JAX; computed in float32.
        epochs: the most of them.
        optimizer: a gradient transformation of optax, its schedule within; None for Adam at 1e-3. It is told the loss,
            and how to compute it, of the batch of the step, as line searches and `optax.contrib.reduce_on_plateau`
            want it. Of `optax.contrib.schedule_free`, the averaged parameters are those of the trained module.
        batch_size: rows a step, at most n; of a step of several moves, rows each. None for 256, or for all rows where
            there are fewer.
        steps_per_epoch: steps from one look at all rows to the next; None for one pass over them.
        tol: stop when the share of rows whose cluster changed from one epoch to the next is no more; None for never.
        patience: stop after so many epochs in a row in which the loss did not fall below its least; None for never.
        min_delta: by how much it must fall, in units of the loss.
        precision: of the layers: None for float32, "fast" for bfloat16 with parameters and sums in float32.
        resident: whether the rows are kept on the device; None for where they fit. If not, batches come from the host.
        callbacks: called with a `Report` after every epoch, and stop the run by returning True. One that has ``begin``
            (called with the history so far and the number of epochs) and ``end`` (with the `Trained`) gets those too,
            and one that has ``cut`` is told when an error or interrupt ends the run.
        checkpoints: where to keep some; None for nowhere. Ctrl-C is answered after the epoch that is running, whose
            checkpoint is written first. They know the data, the batches, the key, the precision and
            the model's class and variables; what else a run depends on, such as the optimizer's rate, goes into their
            ``config``.
        resume: whether to go on from the newest there; of a run that was finished it takes no step, unless all its
            epochs were taken and there are to be more. Without it a folder that holds checkpoints is refused.
        y: (n,) what is known of the rows, for modules that want it: a batch has its part.
        mesh: devices along one axis, as `jaxcluster.sharding.row_mesh` makes it, that share the rows of each batch;
            parameters, and rows that are resident, are on each. None for one device. Sums come out as on one device,
            those of batch norm too, but for rounding.

    Raises:
        ValueError, TypeError: arguments out of range, a batch of more than n rows or that devices cannot share
            equally, a module without clusters given a ``tol``, or with parameters that are not finite; an optimizer
            that is no gradient transformation, or needs other arguments; a folder with checkpoints without
            ``resume``, and with it a checkpoint that is changed or of another configuration (both are named).
    """
    key = check.check_key(key)
    if optimizer is not None:
        check_optimizer("optimizer", optimizer)
    x = as_rows(x)
    limits = _Limits(epochs, tol, patience, min_delta)
    _check_limits(limits, module)
    batch = _check_batch(batch_size, len(x), mesh)
    rows = Rows(x, resident, y=_check_known(y, len(x)), mesh=mesh)
    run = Run(key, module, rows, adam() if optimizer is None else optimizer, batch, steps_per_epoch, precision)
    where = placed(checkpoints, run, x)
    callbacks = tuple(callbacks)
    progress = begun(run, where, resume)
    keeper = Keeper(where, progress)
    try:
        with stopping.interruptible(), stopping.on_stop(keeper.save):
            trained = _train(run, limits, callbacks, progress, keeper, 0 if where is None else where.every)
    except BaseException as error:  # an interrupt too must not leave a bar behind that goes on drawing itself
        if isinstance(error, KeyboardInterrupt):
            keeper.save()
        _tell(callbacks, "cut")
        raise
    _tell(callbacks, "end", trained)
    return trained


class _Limits(NamedTuple):
    """When a training ends."""

    epochs: int
    tol: float | None
    patience: int | None
    min_delta: float


def _train(run, limits, callbacks, progress, keeper, every):
    """Epochs until one of the limits, with checkpoints every so many of them; 0 for none."""
    state, labels, history, status, looked = progress
    if status in (None, Status.MAX_STEPS):  # those who ask for more epochs than a finished run had get them
        status = Status.MAX_STEPS if len(history) >= limits.epochs else None
    _tell(callbacks, "begin", history, limits.epochs)
    collapsed, look, start = _collapsed(history), None, None
    while status is None:
        clock = time.perf_counter()
        stopping.look()
        state, look = run.look(state, len(history), labels)
        if int(state.failed):
            state = state if start is None else run.rewound(*start, state)
            status, looked = Status.NOT_FINITE, start is None
            break
        labels = look.labels
        _check_labels(limits, run, look)
        collapsed = collapsed + 1 if look.collapsed else 0
        status = _ended(look, collapsed, limits)
        if status is not None:
            looked = True
            break
        start = state, look.found
        state, means = run.epoch(*start)
        if int(state.failed):
            state, status = run.rewound(*start, state), Status.NOT_FINITE
        if means is None:  # not a step was taken
            break
        done = {"epoch": len(history) + 1, "step": int(state.step), **means, **look.agreement}
        done |= {"collapsed": 1.0} if look.collapsed else {}
        history.append(done | {"seconds": round(time.perf_counter() - clock, 3)})
        as_it_is = lambda state=state: run.module_of(run.evaluated(state))  # noqa: E731
        report = Report(history[-1], history, limits.epochs, labels, as_it_is)
        stopped = [bool(callback(report)) for callback in callbacks]
        status = _status(any(stopped), history, limits) if status is None else status
        if status is None:
            keeper.stand(Progress(state, labels, history, None, False))
            if every and len(history) % every == 0:
                keeper.save()
    final, look = _concluded(run, state, history, labels, (looked, look), start)
    failed = int(final.failed)
    collapsed = look is not None and look.collapsed
    ended = Status.NOT_FINITE if failed else Status.COLLAPSED if collapsed else status
    # What a failed run had last is no place to go on from.
    if not failed:
        keeper.stand(Progress(state, labels, history, status, looked))
        keeper.save()
    cause = CAUSES[int(final.cause)] if failed else None
    labels = labels if look is None else look.labels
    return Trained(run.module_of(final), labels, int(final.step), ended, failed or None, tuple(history), cause)


def _concluded(run, state, history, labels, last, start):
    """The state that is handed back, and the last look at all rows by it, whose labels are those of the module.

    Args:
        run: the run.
        state: at its end.
        history: the records.
        labels: of the look before.
        last: whether the state is that after a look, and that look; None where it was before this run went on.
        start: the last epoch: the state at its start, and what the look before it came to; None without an epoch.
    """
    looked, look = last
    final = run.evaluated(state)
    if run.concludes or not looked or final is not state:
        final, look = run.look(final, len(history), labels, last=True)
    if int(state.failed) or look is None:
        return final, look
    if not int(final.failed) and run.answers(final, look.codes):
        return final, look
    # The network that all steps have led to is of no use: it was so before the last of them, or before the epoch.
    final = run.failing(final)
    if start is None:
        return final, look
    return run.look(run.evaluated(run.rewound(*start, final)), len(history), labels, last=True)


def _ended(look, collapsed, limits):
    """The status with which a look ends the training, or None.

    Where all rows are in one cluster none of them changes it: that is no convergence.
    """
    changed = look.agreement.get("changed")
    settled = limits.tol is not None and changed is not None and changed <= limits.tol
    if collapsed >= COLLAPSED_LOOKS or (settled and look.collapsed):
        return Status.COLLAPSED
    return Status.CONVERGED if settled else None


def _collapsed(history):
    """In how many of the last records in a row rows could not be told apart."""
    return next((i for i, record in enumerate(reversed(history)) if "collapsed" not in record), len(history))


def _status(stopped, history, limits):
    """The status with which an epoch ends the training, or None while it goes on."""
    if stopped or _stalled(history, limits):
        return Status.CONVERGED
    return Status.MAX_STEPS if len(history) >= limits.epochs else None


def _stalled(history, limits):
    """Whether the least loss was ``patience`` epochs ago, but for falls of no more than ``min_delta``."""
    if limits.patience is None:
        return False
    best, at = np.inf, 0
    for i, record in enumerate(history):
        if record["loss"] < best - limits.min_delta:
            best, at = record["loss"], i
    return len(history) - 1 - at >= limits.patience


def _check_limits(limits, module):
    check.check_count("epochs", limits.epochs)
    check.check_positive("min_delta", limits.min_delta, zero=True)
    if limits.patience is not None:
        check.check_count("patience", limits.patience)
    if limits.tol is not None:
        check.check_positive("tol", limits.tol, zero=True)
        if not hasattr(module, "refresh"):
            raise _no_clusters(limits.tol, module)


def _check_labels(limits, run, look):
    """Whether a module has clusters at all is seen at the first look only; whether they have names, at the second."""
    if limits.tol is not None and (look.labels is None or (look.agreement and "changed" not in look.agreement)):
        raise _no_clusters(limits.tol, run.module)


def _no_clusters(tol, module):
    return ValueError(
        f"tol={tol} is a share of rows that change their cluster, and {type(module).__name__} has no clusters "
        "that keep their names. Leave tol out."
    )


def _check_batch(batch_size, n, mesh):
    if batch_size is None:
        batch = min(BATCH, n)
        batch -= 0 if mesh is None or batch < mesh.size else batch % mesh.size
    else:
        batch = check.check_count("batch_size", batch_size)
    if batch > n:
        raise ValueError(f"batch_size={batch} is more than the {n} rows there are. Pass at most {n}.")
    if mesh is not None and (len(mesh.axis_names) != 1 or set(mesh.axis_types) != {AxisType.Auto}):
        raise ValueError(f"{mesh} must have one axis, of type Auto: make it by jaxcluster.sharding.row_mesh().")
    if mesh is not None and batch % mesh.size:
        raise ValueError(
            f"batch_size={batch} cannot be shared equally by the {mesh.size} devices of the mesh. Pass a multiple of "
            f"{mesh.size}, such as {max(batch - batch % mesh.size, mesh.size)}."
        )
    return batch


def _check_known(y, n):
    if y is not None and np.shape(y)[:1] != (n,):
        raise ValueError(f"y has shape {np.shape(y)}, but x has {n} rows: pass one value, or one row, for each.")
    return y


def _tell(callbacks, moment, *words):
    for callback in callbacks:
        getattr(callback, moment, lambda *_: None)(*words)


# Where a training stands, and how it is saved and gone on from.


class Progress(NamedTuple):
    """Where a training stands.

    Attributes:
        state: of the run.
        labels: (n,) int32 those of the last look at all rows; None before one, or without clusters.
        history: the records.
        status: how it ended; None while it goes on.
        looked: whether the state is that after its last look, so that labels are those of the module.
    """

    state: TrainState
    labels: np.ndarray | None
    history: list[dict[str, float]]
    status: Status | None
    looked: bool


class Keeper:
    """Keeps a training: where it stands, and its checkpoints.

    Args:
        where: they are kept; None for nowhere.
        progress: that the training begins with, of which there is a checkpoint already, or nothing to keep.
    """

    def __init__(self, where: Checkpoints | None, progress: Progress) -> None:
        self._where, self._progress, self._saved = where, progress, self._name(progress)
        self._lock = threading.Lock()  # a thread that ends the process may save while the training goes on
        if where is not None:
            prepare()

    def stand(self, progress: Progress) -> None:
        """Says where the training stands, of which `save` makes a checkpoint."""
        self._progress = progress._replace(history=list(progress.history))

    def save(self) -> None:
        """Writes a checkpoint of where the training stands, unless there is one.

        A disk that is full is no reason to lose the training: it goes on, and a warning says so.
        """
        with self._lock:
            progress = self._progress
            if self._where is None or self._saved == self._name(progress):
                return
            try:
                save(self._where, progress)
            except OSError as error:
                warn(
                    f"the checkpoint of epoch {len(progress.history)} could not be written ({error}). The training "
                    "goes on, and those before it are kept.",
                )
                return
            self._saved = self._name(progress)

    @staticmethod
    def _name(progress):
        return progress.status, len(progress.history)


def placed(checkpoints: Checkpoints | None, run: Run, x: Any) -> Checkpoints | None:
    """The checkpoints of this very run: with what its steps depend on in their configuration."""
    if checkpoints is None:
        return None
    check.check_count("every", checkpoints.every)
    check.check_count("keep", checkpoints.keep)
    own = {
        "batch_size": run.batch,
        "steps_per_epoch": run.steps,
        "precision": run.precision,
        "n": run.rows.n,
        "rows": fingerprint(x),
        "y": None if run.rows.y is None else fingerprint(np.asarray(run.rows.y)),
        "key": np.asarray(jax.random.key_data(run.key)).tolist(),
        "model": type(run.module).__name__,
    }
    return checkpoints._replace(config={**own, **checkpoints.config})


def begun(run: Run, where: Checkpoints | None, resume: bool) -> Progress:
    """Where to start from: nothing, or the newest checkpoint."""
    fresh = Progress(run.start, None, [], None, False)
    if where is None or not where.any():
        return fresh
    if not resume:
        raise ValueError(
            f"{where.folder} holds checkpoints of an unfinished or finished run. Pass resume=True to go on from the "
            "newest, or another folder."
        )
    (state, labels), saved = where.restore((run.start, _filled(run.rows.n)))
    status = None if saved["status"] is None else Status(saved["status"])
    state = run.rows.everywhere(state)
    return Progress(state, labels if saved["labels"] else None, list(saved["history"]), status, saved["looked"])


def save(where: Checkpoints, progress: Progress) -> None:
    """Writes the checkpoint of an epoch."""
    state, labels, history, status, looked = progress
    known = labels is not None
    kept = labels if known else _filled(where.config["n"])
    said = {"history": history, "labels": known, "status": None if status is None else int(status), "looked": looked}
    where.save(len(history), (state, kept), said)


def _filled(n):
    return np.full(n, -1, np.int32)

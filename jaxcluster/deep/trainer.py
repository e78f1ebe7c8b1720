"""Training loop of all deep methods: epochs, early stopping, callbacks, and checkpoints with resumption.

An epoch is a number of steps between two refreshes from all samples: one pass over them, or as many steps as a method
wants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh

from jaxcluster.core import signals, validation
from jaxcluster.core.checkpoint import Checkpoints, fingerprint, prepare
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import agree_on_key, check_equal, check_stopped, writes_files
from jaxcluster.core.shard import check_mesh
from jaxcluster.deep.batches import DeviceRows, as_rows
from jaxcluster.deep.epoch import CAUSES, CompiledTrainer, TrainState
from jaxcluster.deep.optimizers import adam, check_optimizer
from jaxcluster.deep.protocol import ClusteringModule, overrides
from jaxcluster.types import KeyArray, Status

DEFAULT_BATCH_SIZE = 256
"""Samples in a batch, unless ``batch_size`` says otherwise."""

MAX_COLLAPSED_REFRESHES = 3
"""Number of consecutive collapsed refreshes that end a training: it may recover from one or two."""


class TrainResult(NamedTuple):
    """Result of a training.

    Attributes:
        module: trained copy of the module, in evaluation mode. Its parameters are finite, however the training ended.
        labels: (n_samples,) int32 final clusters, as NumPy; None for a module without clusters.
        steps: number of steps that the returned module had.
        status: CONVERGED: few enough samples changed their cluster, or the loss stopped falling; MAX_STEPS: all epochs
            were taken; NOT_FINITE: see ``failed_step``; COLLAPSED: the features no longer separated samples, at the end
            or at `MAX_COLLAPSED_REFRESHES` refreshes in a row.
        failed_step: number, counted from 1, of the step at which the loss, its gradient, or the parameters, other
            variables or outputs after it were not finite; None without. The module is the last one before that step
            with finite features and responsibilities for all samples.
        history: one record for each epoch with a step: ``epoch`` and ``step`` at its end, the mean ``loss`` and metrics
            of the module, the agreement of the labels before it with those an epoch earlier (``changed``, the fraction
            of other labels, unless the module has another measure), ``collapsed`` where it was seen, and ``seconds``.
        cause: the number that was not finite at the failed step, such as "the gradient was"; None without.
    """

    module: Any
    labels: np.ndarray | None
    steps: int
    status: Status
    failed_step: int | None
    history: tuple[dict[str, float], ...]
    cause: str | None = None


class EpochReport(NamedTuple):
    """State of a training after an epoch, for callbacks.

    Attributes:
        record: last record of the history.
        history: all records so far.
        epochs: maximum number of epochs.
        labels: (n_samples,) clusters before the epoch, or None.
        module: a function that returns a copy of the current module in evaluation mode; call it inside the callback.
    """

    record: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    labels: np.ndarray | None
    module: Callable[[], Any]


def train(
    key: KeyArray,
    module: nnx.Module,
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
) -> TrainResult:
    """Train a module on samples.

    Args:
        key: random key of the sample order, of the steps and of the refreshes.
        module: a `ClusteringModule`; is not changed.
        x: (n_samples, …) samples, NumPy or JAX; computed in float32.
        epochs: maximum number of epochs.
        optimizer: a gradient transformation of optax, with its schedule; None for Adam at 1e-3. It gets the loss of the
            batch, and the loss as a function, as line searches and `optax.contrib.reduce_on_plateau` want them. With
            `optax.contrib.schedule_free` the averaged parameters are those of the trained module.
        batch_size: samples in a batch, at most n_samples; of each update where a step has several. None for 256, or all
            samples where there are fewer.
        steps_per_epoch: steps between two refreshes; None for one pass over the samples.
        tol: stop when at most this fraction of the samples changed their cluster in an epoch; None for never.
        patience: early stopping after so many epochs without a new least loss; None for never.
        min_delta: decrease (units of the loss) that counts as a new least loss.
        precision: of the layers: None for float32, "fast" for bfloat16 with parameters and sums in float32.
        resident: keep the samples on the device; None to do so where they fit. Else batches are sent from the host.
        callbacks: called with an `EpochReport` after every epoch; True stops the training. The optional methods
            ``on_train_begin(history, epochs)``, ``on_train_end(result)`` and ``on_exception()``, for errors and
            interrupts, are called too.
        checkpoints: folder and frequency of checkpoints; None for none. Ctrl-C is answered after the running epoch,
            whose checkpoint is written first. A checkpoint knows the data, the batches, the key, the precision and the
            model's class and variables; what else a run depends on, such as the learning rate, goes into ``config``.
        resume: continue from the newest checkpoint. A finished run takes no more steps, unless it stopped at its
            epochs and there are to be more now. Without it a folder that holds checkpoints is refused.
        y: (n_samples,) labels or the like for modules that use them, passed on batch by batch.
        mesh: devices along one axis, see `jaxcluster.sharding.row_mesh`, that share the samples of each batch;
            parameters and resident samples are on each, the trained module on the first. None for one device. Sums,
            those of batch normalization too, are the same as on one device up to rounding. Where they are those of
            several processes, each passes the samples of all (`jaxcluster.distributed.gather_rows`), and has the same
            parameters and labels of all. The first one writes the checkpoints, in a folder that all can read.

    Returns:
        The trained module with its labels, history and status.

    Raises:
        ValueError, TypeError: arguments out of range; a module that is not a `ClusteringModule`, has parameters that
            are not finite, or no clusters with a ``tol``; more samples in a batch than there are, or a batch that the
            devices cannot share equally; an optimizer that is not a gradient transformation or needs other arguments;
            a folder with checkpoints without ``resume``, or a checkpoint that is damaged or of another configuration.
    """
    if not isinstance(module, ClusteringModule):
        raise TypeError(
            f"module is a {type(module).__name__}. Pass a jaxcluster.deep.ClusteringModule: a subclass needs no more "
            "than loss(batch, key)."
        )
    key = agree_on_key(validation.check_key(key), mesh)
    if optimizer is not None:
        check_optimizer("optimizer", optimizer)
    x = as_rows(x)
    limits = _Limits(epochs, tol, patience, min_delta)
    _check_limits(limits, module)
    batch_size = _check_batch_size(batch_size, len(x), mesh)
    check_equal((x, nnx.state(module)), mesh, "samples or modules")
    rows = DeviceRows(x, resident, y=_check_y(y, len(x)), mesh=mesh)
    optimizer = adam() if optimizer is None else optimizer
    trainer = CompiledTrainer(key, module, rows, optimizer, batch_size, steps_per_epoch, precision)
    checkpoints = _with_run_config(checkpoints, trainer, x)
    callbacks = tuple(callbacks)
    progress = _initial_progress(trainer, checkpoints, resume)
    writer = CheckpointWriter(checkpoints if writes_files(mesh) else None, progress)
    every = 0 if checkpoints is None else checkpoints.every
    try:
        with signals.interruptible(), signals.on_stop(writer.save):
            result = _train(trainer, limits, callbacks, progress, writer, every)
    except BaseException as error:  # KeyboardInterrupt too: a progress bar must not go on drawing itself
        if isinstance(error, KeyboardInterrupt):
            writer.save()
        _notify(callbacks, "on_exception")
        raise
    _notify(callbacks, "on_train_end", result)
    return result


class _Limits(NamedTuple):
    """Stopping criteria, see `train`."""

    epochs: int
    tol: float | None
    patience: int | None
    min_delta: float


def _train(trainer, limits, callbacks, progress, writer, every):
    """Epochs until a stopping criterion holds, with a checkpoint after ``every`` of them; 0 for none."""
    state, labels, history, status, refreshed = progress
    if status in (None, Status.MAX_STEPS):  # a finished run goes on if it is given more epochs
        status = Status.MAX_STEPS if len(history) >= limits.epochs else None
    _notify(callbacks, "on_train_begin", history, limits.epochs)
    n_collapsed, result, start = _count_collapsed(history), None, None
    while status is None:
        clock = time.perf_counter()
        check_stopped(trainer.rows.mesh)
        state, result = trainer.refresh(state, len(history), labels)
        if int(state.failed):
            state = state if start is None else trainer.rewind(*start, state)
            status, refreshed = Status.NOT_FINITE, start is None
            break
        labels = result.labels
        _check_labels(limits, trainer, result)
        n_collapsed = n_collapsed + 1 if result.collapsed else 0
        status = _status_after_refresh(result, n_collapsed, limits)
        if status is not None:
            refreshed = True
            break
        start = state, result.refresh
        state, means = trainer.run_epoch(*start)
        if int(state.failed):
            state, status = trainer.rewind(*start, state), Status.NOT_FINITE
            if means is None:  # the first step of the epoch failed
                break
        record = {"epoch": len(history) + 1, "step": int(state.step), **means, **result.agreement}
        record |= {"collapsed": 1.0} if result.collapsed else {}
        history.append(record | {"seconds": round(time.perf_counter() - clock, 3)})
        current_module = lambda state=state: trainer.build_module(trainer.eval_state(state))  # noqa: E731
        report = EpochReport(history[-1], history, limits.epochs, labels, current_module)
        stops = [bool(callback(report)) for callback in callbacks]  # all callbacks are called, also after a stop
        status = _status_after_epoch(any(stops), history, limits) if status is None else status
        if status is None:
            writer.update(TrainProgress(state, labels, history, None, False))
            if every and len(history) % every == 0:
                writer.save()
    final, result = _finalize(trainer, state, history, labels, (refreshed, result), start)
    failed = int(final.failed)
    collapsed = result is not None and result.collapsed
    final_status = Status.NOT_FINITE if failed else Status.COLLAPSED if collapsed else status
    # The state of a failed run is no place to resume from: its last checkpoint stays.
    if not failed:
        writer.update(TrainProgress(state, labels, history, status, refreshed))
        writer.save()
    cause = CAUSES[int(final.cause)] if failed else None
    labels = labels if result is None else result.labels
    module = trainer.build_module(final)
    return TrainResult(module, labels, int(final.step), final_status, failed or None, tuple(history), cause)


def _finalize(trainer, state, history, labels, last, start):
    """The state that is returned, and the last refresh by it, whose labels are those of the module.

    Args:
        trainer: of the run.
        state: at its end.
        history: the records.
        labels: of the refresh before.
        last: whether ``state`` is that after a refresh, and the refresh; None where it was before this run resumed.
        start: of the last epoch: the state at its start, and the refresh before it; None without an epoch.

    Returns:
        The final state, and its `EvalResult` or None.
    """
    refreshed, result = last
    final = trainer.eval_state(state)
    if trainer.has_finalize or not refreshed or final is not state:
        final, result = trainer.refresh(final, len(history), labels, last=True)
    if int(state.failed) or result is None:
        return final, result
    if not int(final.failed) and trainer.outputs_are_finite(final, result.features):
        return final, result
    # The outputs of the network after all steps are not finite: rewind to before the last step, or to the last epoch.
    final = trainer.mark_output_failure(final)
    if start is None:
        return final, result
    final = trainer.eval_state(trainer.rewind(*start, final))
    return trainer.refresh(final, len(history), labels, last=True)


def _status_after_refresh(result, n_collapsed, limits):
    """The status with which a refresh ends the training, or None."""
    changed = result.agreement.get("changed")
    converged = limits.tol is not None and changed is not None and changed <= limits.tol
    # With all samples in one cluster no label changes: that is a collapse, not convergence.
    if n_collapsed >= MAX_COLLAPSED_REFRESHES or (converged and result.collapsed):
        return Status.COLLAPSED
    return Status.CONVERGED if converged else None


def _count_collapsed(history):
    """Number of consecutive collapsed refreshes at the end of a history."""
    return next((i for i, record in enumerate(reversed(history)) if "collapsed" not in record), len(history))


def _status_after_epoch(stopped, history, limits):
    """The status with which an epoch ends the training, or None."""
    if stopped or _out_of_patience(history, limits):
        return Status.CONVERGED
    return Status.MAX_STEPS if len(history) >= limits.epochs else None


def _out_of_patience(history, limits):
    """True if the least loss, up to decreases of ``min_delta``, was ``patience`` epochs ago."""
    if limits.patience is None:
        return False
    best, best_epoch = np.inf, 0
    for i, record in enumerate(history):
        if record["loss"] < best - limits.min_delta:
            best, best_epoch = record["loss"], i
    return len(history) - 1 - best_epoch >= limits.patience


def _check_limits(limits, module):
    validation.check_count("epochs", limits.epochs)
    validation.check_positive("min_delta", limits.min_delta, zero=True)
    if limits.patience is not None:
        validation.check_count("patience", limits.patience)
    if limits.tol is not None:
        validation.check_positive("tol", limits.tol, zero=True)
        if not overrides(module, "refresh"):
            raise _no_clusters(limits.tol, module)


def _check_labels(limits, trainer, result):
    """Raise where ``tol`` needs labels: the first refresh shows if there are any, the second if they are comparable."""
    if limits.tol is None:
        return
    if result.labels is None or (result.agreement and "changed" not in result.agreement):
        raise _no_clusters(limits.tol, trainer.module)


def _no_clusters(tol, module):
    return ValueError(
        f"tol={tol} is a share of rows that change their cluster, and {type(module).__name__} has no clusters "
        "that keep their names. Leave tol out."
    )


def default_batch_size(n: int, mesh: Mesh | None, most: int = DEFAULT_BATCH_SIZE) -> int:
    """Samples in a batch of n samples: ``most``, all if there are fewer, or a multiple of the devices below it."""
    batch_size = min(most, n)
    return batch_size if mesh is None or batch_size < mesh.size else batch_size - batch_size % mesh.size


def _check_batch_size(batch_size, n, mesh):
    batch_size = default_batch_size(n, mesh) if batch_size is None else validation.check_count("batch_size", batch_size)
    if batch_size > n:
        raise ValueError(f"batch_size={batch_size} is more than the {n} rows there are. Pass at most {n}.")
    if mesh is not None and (len(mesh.axis_names) != 1 or set(mesh.axis_types) != {AxisType.Auto}):
        raise ValueError(f"{mesh} must have one axis, of type Auto: make it by jaxcluster.sharding.row_mesh().")
    check_mesh(mesh)
    if mesh is not None and batch_size % mesh.size:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared equally by the {mesh.size} devices of the mesh. Pass a multiple "
            f"of {mesh.size}, such as {max(batch_size - batch_size % mesh.size, mesh.size)}."
        )
    return batch_size


def _check_y(y, n):
    if y is not None and np.shape(y)[:1] != (n,):
        raise ValueError(f"y has shape {np.shape(y)}, but x has {n} rows: pass one value, or one row, for each.")
    return y


def _notify(callbacks, event, *arguments):
    """Call the optional method ``event`` of each callback."""
    for callback in callbacks:
        getattr(callback, event, lambda *_: None)(*arguments)


# Checkpoints


class TrainProgress(NamedTuple):
    """Progress of a training, as a checkpoint holds it.

    Attributes:
        state: of the run.
        labels: (n_samples,) int32 of the last refresh; None before one, or without clusters.
        history: the records.
        status: how the training ended; None while it goes on.
        refreshed: whether ``state`` is that after the last refresh, so that ``labels`` are those of the module.
    """

    state: TrainState
    labels: np.ndarray | None
    history: list[dict[str, float]]
    status: Status | None
    refreshed: bool


class CheckpointWriter:
    """Writer of a training's checkpoints, safe to call from the thread that ends the process.

    Args:
        checkpoints: folder and frequency; None for none.
        progress: at the start, which needs no checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints | None, progress: TrainProgress) -> None:
        self._checkpoints, self._progress, self._saved = checkpoints, progress, self._id(progress)
        # A thread that ends the process may save while the training goes on.
        self._lock = threading.Lock()
        if checkpoints is not None:
            prepare()

    def update(self, progress: TrainProgress) -> None:
        """Set the progress that `save` writes."""
        self._progress = progress._replace(history=list(progress.history))

    def save(self) -> None:
        """Write a checkpoint of the progress, unless there is one. A write error is a warning: the training goes on."""
        with self._lock:
            progress = self._progress
            if self._checkpoints is None or self._saved == self._id(progress):
                return
            try:
                _save(self._checkpoints, progress)
            except OSError as error:
                warn(
                    f"the checkpoint of epoch {len(progress.history)} could not be written: {error.strerror}. The "
                    "training goes on, and those before it are kept."
                )
                return
            self._saved = self._id(progress)

    @staticmethod
    def _id(progress):
        return progress.status, len(progress.history)


def _with_run_config(checkpoints, trainer, x):
    """Checkpoints with all that the steps of this run depend on in their configuration."""
    if checkpoints is None:
        return None
    validation.check_count("every", checkpoints.every)
    validation.check_count("keep", checkpoints.keep)
    own = {
        "batch_size": trainer.batch_size,
        "steps_per_epoch": trainer.steps,
        "precision": trainer.precision,
        "n": trainer.rows.n,
        "rows": fingerprint(x),
        "y": None if trainer.rows.y is None else fingerprint(np.asarray(trainer.rows.y)),
        "key": np.asarray(jax.random.key_data(trainer.key)).tolist(),
        "model": type(trainer.module).__name__,
    }
    return checkpoints._replace(config={**own, **checkpoints.config})


def _initial_progress(trainer, checkpoints, resume):
    """The progress at the start: none, or that of the newest checkpoint."""
    if checkpoints is None:
        return TrainProgress(trainer.initial_state, None, [], None, False)
    # A folder that is not shared would have one process go on and the others begin.
    check_equal(checkpoints.numbers(), trainer.rows.mesh, f"checkpoints in {checkpoints.folder}")
    if not checkpoints.any():
        return TrainProgress(trainer.initial_state, None, [], None, False)
    if not resume:
        raise ValueError(
            f"{checkpoints.folder} holds checkpoints of an unfinished or finished run. Pass resume=True to go on from "
            "the newest, or another folder."
        )
    (state, labels), saved = checkpoints.restore((trainer.initial_state, _no_labels(trainer.rows.n)))
    try:
        history, refreshed = [dict(record) for record in saved["history"]], bool(saved["looked"])
        status = None if saved["status"] is None else Status(saved["status"])
        labels = labels if saved["labels"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the newest checkpoint in {checkpoints.folder} holds no progress of a training.") from error
    return TrainProgress(trainer.rows.replicate(state), labels, history, status, refreshed)


def _save(checkpoints, progress):
    """Write the checkpoint of an epoch."""
    state, labels, history, status, refreshed = progress
    # The arrays of a checkpoint have fixed shapes: without labels it holds −1 in their place.
    array = _no_labels(checkpoints.config["n"]) if labels is None else labels
    status = None if status is None else int(status)
    record = {"history": history, "labels": labels is not None, "status": status, "looked": refreshed}
    checkpoints.save(len(history), (state, array), record)


def _no_labels(n):
    return np.full(n, -1, np.int32)

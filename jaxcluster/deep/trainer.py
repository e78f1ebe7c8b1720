"""The one training loop: whole epochs in one compiled scan, and all that stands around it on the host.

An epoch is a number of steps between two looks at all rows: one pass over them, or as many steps as a method wants.
Everything that a step depends on is in its state, the key and its number, so that a run that is cut short and goes on
from a checkpoint takes, bit for bit, the steps of one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcluster.core import check
from jaxcluster.core.checkpoint import Checkpoints, fingerprint
from jaxcluster.deep.batches import Rows, batch_rows, take
from jaxcluster.deep.objective import Objective
from jaxcluster.deep.use import mapped
from jaxcluster.types import Array, Int, KeyArray, Status


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: what the optimiser moves.
        rest: the module's other variables.
        opt_state: the optimiser's.
        step: () int32 steps taken.
        failed: () int32 the step, counted from 1, at which the loss or a gradient was not finite; 0 for none. That step
            and those after it changed nothing.
    """

    params: Any
    rest: Any
    opt_state: Any
    step: Int[Array, ""]
    failed: Int[Array, ""]


class Trained(NamedTuple):
    """A finished training.

    Attributes:
        module: the trained module, in evaluation; the one that was passed in is as it was.
        labels: (n,) the clusters at the end, as NumPy int32; None for a module without clusters.
        steps: taken.
        status: CONVERGED: few enough rows changed their cluster, or the loss stopped falling; MAX_STEPS: all epochs
            were taken; NOT_FINITE: see ``failed_step``.
        failed_step: the step whose loss or gradient was not finite, counted from 1; the module is that before it.
        history: one record an epoch: ``epoch`` and ``step`` at its end, the means of ``loss`` and of what else the
            module follows, ``changed`` (the share of rows that had another cluster before it than an epoch earlier),
            and ``seconds``.
    """

    module: Any
    labels: np.ndarray | None
    steps: int
    status: Status
    failed_step: int | None
    history: tuple[dict[str, float], ...]


class Report(NamedTuple):
    """What a callback is told after an epoch.

    Attributes:
        record: the last of the history.
        history: all records so far.
        epochs: the most that will be.
        labels: (n,) clusters before the epoch, or None.
        module: called, a copy of the module as it is, in evaluation.
    """

    record: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    labels: np.ndarray | None
    module: Callable[[], Any]


@cache
def adam(
    learning_rate: float = 1e-3, *, eps: float = 1e-8, decay_steps: int | None = None
) -> optax.GradientTransformation:
    """Adam; the same object for the same arguments, so that a second training compiles nothing.

    Args:
        learning_rate: to begin with.
        eps: added to the root of the second moment.
        decay_steps: steps in which the rate falls to a hundredth, along a cosine; None for a constant rate.
    """
    rate = learning_rate
    if decay_steps is not None:
        rate = optax.cosine_decay_schedule(learning_rate, decay_steps, alpha=0.01)
    return optax.adam(rate, eps=eps)


def train(
    key: KeyArray,
    module: Objective,
    x: Any,
    *,
    epochs: int,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int = 256,
    steps_per_epoch: int | None = None,
    tol: float | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    precision: str | None = None,
    resident: bool | None = None,
    callbacks: Iterable[Any] = (),
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
) -> Trained:
    """Trains a module on rows.

    Args:
        key: of the order of the rows and of what is random in a step.
        module: an `nnx.Module` that is an `Objective`.
        x: (n, …) rows, NumPy or JAX; computed in float32.
        epochs: the most of them.
        optimizer: a gradient transformation of optax, its schedule within; None for Adam at 1e-3.
        batch_size: rows a step, at most n.
        steps_per_epoch: steps from one look at all rows to the next; None for one pass over them.
        tol: stop when the share of rows whose cluster changed from one epoch to the next is no more; None for never.
        patience: stop after so many epochs in a row in which the loss did not fall below its least; None for never.
        min_delta: by how much it must fall, in units of the loss.
        precision: of the layers: None for float32, "fast" for bfloat16 with parameters and sums in float32.
        resident: whether the rows are kept on the device; None for where they fit. If not, batches come from the host.
        callbacks: called with a `Report` after every epoch, and stop the run by returning True. One that has ``begin``
            (called with the history so far and the number of epochs) and ``end`` (with the `Trained`) gets those too.
        checkpoints: where to keep some; None for nowhere.
        resume: whether to go on from the newest there; one that was finished comes back at once. Without it a folder
            that holds checkpoints is refused.

    Raises:
        ValueError, TypeError: arguments out of range, a batch of more than n rows, a module without clusters given a
            ``tol``; of ``resume``, a checkpoint that is changed or of another configuration (both are named).
    """
    rows = Rows(x, resident)
    batch = _check_batch(batch_size, rows.n)
    steps = check.check_count("steps_per_epoch", rows.n // batch if steps_per_epoch is None else steps_per_epoch)
    check.check_count("epochs", epochs)
    if tol is not None and not hasattr(module, "refresh"):
        raise ValueError(
            f"tol={tol} is a share of rows that change their cluster, and {_name(module)} has no clusters."
        )
    run = _Run(key, module, rows, optimizer or adam(), batch, steps, precision)
    where = _place(checkpoints, run, x)
    state, labels, history, status = _begin(run, where, resume)
    unfinished = status is None
    _tell(callbacks, "begin", history, epochs)
    while status is None:
        start = time.perf_counter()
        state, target, labels, changed = run.look(state, len(history), labels)
        if tol is not None and changed is not None and changed <= tol:
            looked, status = True, Status.CONVERGED
            break
        state, means = run.epoch(state, target)
        done = {"epoch": len(history) + 1, "step": int(state.step), **means}
        done |= {"changed": changed} if changed is not None else {}
        history.append(done | {"seconds": round(time.perf_counter() - start, 3)})
        looked = False
        if int(state.failed):
            status = Status.NOT_FINITE
            break
        report = Report(history[-1], history, epochs, labels, partial(run.module_of, state))
        stopped = [bool(callback(report)) for callback in callbacks]
        if any(stopped) or _stalled(history, patience, min_delta):
            status = Status.CONVERGED
        elif len(history) >= epochs:
            status = Status.MAX_STEPS
        if where is not None and status is None and len(history) % where.every == 0:
            _save(where, state, labels, history, None)
    if unfinished and not looked:
        state, _, labels, _ = run.look(state, len(history), labels)
    if where is not None and unfinished and status != Status.NOT_FINITE:
        _save(where, state, labels, history, status)
    failed = int(state.failed) or None
    trained = Trained(run.module_of(state), labels, int(state.step), status, failed, tuple(history))
    _tell(callbacks, "end", trained)
    return trained


class _Run:
    """What stays the same in all epochs of a run, and its compiled parts."""

    def __init__(self, key, module, rows, optimizer, batch, steps, precision):
        self.order_key, self.step_key, self.refresh_key = jax.random.split(key, 3)
        self.key, self.rows, self.batch, self.steps, self.optimizer = key, rows, batch, steps, optimizer
        self.clusters = hasattr(module, "refresh")
        self.filter = getattr(module, "trainable", nnx.Param)
        self.plain = nnx.graphdef(module)
        working = nnx.clone(module)
        working.train()
        if precision is not None:
            check.check_choice("precision", precision, ("fast",))
            working.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
        self.graphdef, params, rest = nnx.split(working, self.filter, ...)
        # A step gives its state's memory away, so none of it may be the caller's.
        params, rest = jax.tree.map(jnp.copy, (params, rest))
        zero = jnp.zeros((), jnp.int32)
        self.start = TrainState(params, rest, optimizer.init(params), zero, jnp.zeros((), jnp.int32))

    def look(self, state, epoch, labels):
        """After a look at all rows: state, targets, labels, and the share of them that changed (None at first)."""
        if not self.clusters:
            return state, None, None, None
        parts = [mapped(self.graphdef, (state.params, state.rest), "features", tile) for tile in self.rows.tiles()]
        z = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        key = jax.random.fold_in(self.refresh_key, epoch)
        rest, found = _refresh(self.graphdef, state.params, state.rest, z, key)
        new = np.asarray(found.labels)
        changed = None if labels is None else float(np.mean(labels != new))
        return state._replace(rest=rest), found.target, new, changed

    def epoch(self, state, target):
        """The state after an epoch, and the means of what was followed, over the steps that were taken."""
        rows = batch_rows(self.order_key, state.step, steps=self.steps, n=self.rows.n, batch=self.batch)
        seen = []
        for chunk in self.rows.chunks(rows, target):
            state, followed = _steps(
                self.graphdef, self.optimizer, self.filter, self.rows.resident, state, chunk, self.step_key
            )
            seen.append(followed)
        seen = {name: np.concatenate([np.asarray(part[name], np.float64) for part in seen]) for name in seen[0]}
        # A failed step and those after it are not part of what was learned.
        taken = self.steps if not int(state.failed) else int(state.failed) - (int(state.step) - self.steps) - 1
        return state, {name: float(np.mean(values[:taken])) if taken else float("nan") for name, values in seen.items()}

    def module_of(self, state):
        """The module with the variables of ``state``, in evaluation."""
        module = nnx.merge(self.plain, *jax.tree.map(jnp.copy, (state.params, state.rest)))
        module.eval()
        return module


@partial(jax.jit, static_argnames=("graphdef", "optimizer", "wrt", "resident"), donate_argnames=("state",))
def _steps(graphdef, optimizer, wrt, resident, state: TrainState, chunk, key):
    """Steps over the batches of a chunk; and the loss and metrics of each."""

    def step(state, rows):
        batch = take(resident, chunk, rows)
        step_key = jax.random.fold_in(key, state.step)
        (loss, (metrics, rest)), grads = jax.value_and_grad(_loss, argnums=2, has_aux=True)(
            graphdef, wrt, state.params, state.rest, batch, step_key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        sound = jnp.isfinite(loss) & jnp.isfinite(optax.global_norm(grads))
        failed = jnp.where((state.failed == 0) & ~sound, state.step + 1, state.failed)
        new, old = (params, rest, opt_state), (state.params, state.rest, state.opt_state)
        kept = jax.tree.map(partial(jnp.where, failed == 0), new, old)
        return TrainState(*kept, state.step + 1, failed), {"loss": loss, **metrics}

    return jax.lax.scan(step, state, chunk.index if resident else (chunk.x, chunk.index))


def _loss(graphdef, wrt, params, rest, batch, key):
    module = nnx.merge(graphdef, params, rest, copy=True)
    loss, metrics = module.loss(batch, key)
    _, rest = nnx.state(module, wrt, ...)
    return loss, (metrics, rest)


@partial(jax.jit, static_argnames="graphdef")
def _refresh(graphdef, params, rest, z, key):
    module = nnx.merge(graphdef, params, rest, copy=True)
    module.eval()
    found = module.refresh(z, key)
    return nnx.state(module, getattr(module, "trainable", nnx.Param), ...)[1], found


def _begin(run, where, resume):
    """State, labels, history and status to start from: fresh ones, or those of the newest checkpoint."""
    if where is None:
        return run.start, None, [], None
    labels = np.full(run.rows.n, -1, np.int32)
    found = where.restore((run.start, labels))
    if found is None:
        return run.start, None, [], None
    if not resume:
        raise ValueError(
            f"{where.folder} holds checkpoints of an unfinished or finished run. Pass resume=True to go on from the "
            "newest, or another folder."
        )
    (state, labels), progress = found
    labels = np.asarray(labels) if progress["labels"] else None
    status = None if progress["status"] is None else Status(progress["status"])
    return state, labels, list(progress["history"]), status


def _save(where, state, labels, history, status):
    kept = np.full(where.config["n"], -1, np.int32) if labels is None else labels
    progress = {"history": history, "labels": labels is not None, "status": None if status is None else int(status)}
    where.save(len(history), (state, kept), progress)


def _place(checkpoints, run, x):
    """The checkpoints of this very run: with all that its steps depend on in their configuration."""
    if checkpoints is None:
        return None
    own = {
        "batch_size": run.batch,
        "steps_per_epoch": run.steps,
        "n": run.rows.n,
        "rows": fingerprint(x),
        "key": np.asarray(jax.random.key_data(run.key)).tolist(),
        "model": _name(nnx.merge(run.graphdef, run.start.params, run.start.rest)),
    }
    return checkpoints._replace(config={**own, **checkpoints.config})


def _stalled(history, patience, min_delta):
    """Whether the least loss was that many epochs ago, but for falls of no more than ``min_delta``."""
    if patience is None:
        return False
    check.check_count("patience", patience)
    best, at = np.inf, 0
    for i, record in enumerate(history):
        if record["loss"] < best - min_delta:
            best, at = record["loss"], i
    return len(history) - 1 - at >= patience


def _check_batch(batch_size, n):
    batch = check.check_count("batch_size", batch_size)
    if batch > n:
        raise ValueError(f"batch_size={batch} is more than the {n} rows there are. Pass at most {n}.")
    return batch


def _tell(callbacks, moment, *words):
    for callback in callbacks:
        getattr(callback, moment, lambda *_: None)(*words)


def _name(module):
    return type(module).__name__

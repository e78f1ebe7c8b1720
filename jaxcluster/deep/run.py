"""What is compiled of a training: whole epochs in one scan, and a look at all rows.

Everything that a step depends on is in its state, the key and its number, so that a run that is cut short and goes on
from a checkpoint takes, bit for bit, the steps of one that was not.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.batches import Rows, batch_rows, drawn_rows, take
from jaxcluster.deep.objective import Batch, Refreshed, Turn
from jaxcluster.deep.use import mapped
from jaxcluster.types import Array, Bool, Int, KeyArray


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: what the optimiser moves, part by part.
        rest: the module's other variables.
        opt_state: the optimiser's, part by part.
        step: () int32 steps taken.
        failed: () int32 the step, counted from 1, at which a number was not finite; 0 for none. The move that failed
            and those after it changed nothing.
    """

    params: dict[str, Any]
    rest: Any
    opt_state: dict[str, Any]
    step: Int[Array, ""]
    failed: Int[Array, ""]


class Plan(NamedTuple):
    """What a step does, as a constant of its program.

    Attributes:
        graphdef: of the module.
        parts: names of its parts, and the filters that select them.
        turns: the moves of a step.
        renewed: parts that a refresh may set anew.
        optimizer: of each part.
        sharding: of the rows of a batch over devices; None for one device.
    """

    graphdef: Any
    parts: tuple[tuple[str, Any], ...]
    turns: tuple[Turn, ...]
    renewed: tuple[str, ...]
    optimizer: optax.GradientTransformation
    sharding: Any = None

    def split(self, module: nnx.Module) -> tuple[dict[str, Any], Any]:
        """The parts of a module, and its other variables."""
        *params, rest = nnx.state(module, *(which for _, which in self.parts), ...)
        return {name: each for (name, _), each in zip(self.parts, params, strict=True)}, rest

    def merge(self, params: dict[str, Any], rest: Any) -> nnx.Module:
        """The module of parts and other variables; a copy."""
        return nnx.merge(self.graphdef, *params.values(), rest, copy=True)


class Look(NamedTuple):
    """What a look at all rows came to, on the host where the host decides by it.

    Attributes:
        found: what the module's refresh returned; on the device.
        labels: (n,) int32 clusters, or None.
        agreement: with the labels of the look before it, as numbers for the history; empty at first.
        collapsed: whether nothing is left to tell rows apart by.
    """

    found: Refreshed
    labels: np.ndarray | None
    agreement: dict[str, float]
    collapsed: bool


class Run:
    """What stays the same in all epochs of a run, and its compiled parts."""

    def __init__(
        self,
        key: KeyArray,
        module: nnx.Module,
        rows: Rows,
        optimizer: optax.GradientTransformation,
        batch: int,
        steps: int | None,
        precision: str | None,
    ):
        self.order_key, self.step_key, self.refresh_key = jax.random.split(key, 3)
        self.key, self.rows, self.batch = key, rows, batch
        self.module, self.precision = module, precision
        self.looks, self.concludes = hasattr(module, "refresh"), hasattr(module, "conclude")
        self.plain = nnx.graphdef(module)
        working = nnx.clone(module)
        working.train()
        if precision is not None:
            check.check_choice("precision", precision, ("fast",))
            working.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
        self.plan = _plan(working, optimizer, rows)
        self.batches = max(turn.steps for turn in self.plan.turns)
        whole = max(1, rows.n // (batch * self.batches))
        self.steps = check.check_count("steps_per_epoch", whole if steps is None else steps)
        params, rest = self.plan.split(working)
        opened = {name: optimizer.init(part) for name, part in params.items()}
        start = TrainState(params, rest, opened, jnp.int32(0), jnp.int32(0))
        # A step gives its state's memory away, so none of it may be the caller's, and no two parts of it the same.
        self.start = rows.everywhere(jax.tree.map(jnp.copy, start))

    def look(
        self, state: TrainState, epoch: int, labels: np.ndarray | None, *, last: bool = False
    ) -> tuple[TrainState, Look]:
        """The state after a look at all rows, and its outcome; the ``last`` is a module's ``conclude``, if it has one.

        Variables or targets that are not finite are a failure of the next step: they are not taken over.
        """
        if not self.looks:
            return state, Look(Refreshed(None), None, {}, False)
        states = (*state.params.values(), state.rest)
        parts = [mapped(self.plan.graphdef, states, "features", tile) for tile in self.rows.tiles()]
        z = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        method = "conclude" if last and self.concludes else "refresh"
        state, found = _refresh(self.plan, method, state, z, jax.random.fold_in(self.refresh_key, epoch))
        new = None if found.labels is None else np.asarray(found.labels, np.int32)
        compared = {} if labels is None or new is None else self._agreement(labels, new)
        return state, Look(found, new, compared, found.collapsed is not None and bool(found.collapsed))

    def epoch(self, state: TrainState, found: Refreshed) -> tuple[TrainState, dict[str, float]]:
        """The state after an epoch, and the means of what was followed, over the steps that were taken."""
        options = {"steps": self.steps * self.batches, "batch": self.batch}
        first = state.step * self.batches
        if found.weight is None:
            rows = batch_rows(self.order_key, first, n=self.rows.n, **options)
        else:
            rows = drawn_rows(self.order_key, first, found.weight, **options)
        seen = []
        for chunk in self.rows.chunks(rows.reshape(self.steps, self.batches, self.batch), found.target):
            state, followed = _steps(self.plan, self.rows.resident, state, chunk, self.step_key)
            seen.append(followed)
        seen = {name: np.concatenate([np.asarray(part[name], np.float64) for part in seen]) for name in seen[0]}
        # A failed step and those after it are not part of what was learned.
        taken = self.steps if not int(state.failed) else int(state.failed) - (int(state.step) - self.steps) - 1
        return state, {name: float(np.mean(values[:taken])) if taken else float("nan") for name, values in seen.items()}

    def module_of(self, state: TrainState) -> nnx.Module:
        """The module with the variables of ``state``, in evaluation."""
        module = nnx.merge(self.plain, *jax.tree.map(jnp.copy, (*state.params.values(), state.rest)))
        module.eval()
        return module

    def _agreement(self, old, new):
        if hasattr(self.module, "agreement"):
            return {name: float(value) for name, value in self.module.agreement(old, new).items()}
        return {"changed": float(np.mean(old != new))}


def _plan(module, optimizer, rows):
    """The plan of a module: one move of all its parameters, unless it says otherwise."""
    trainable = getattr(module, "trainable", nnx.Param)
    parts = tuple(trainable.items()) if isinstance(trainable, dict) else (("all", trainable),)
    turns = getattr(module, "turns", (Turn("loss", "loss", tuple(name for name, _ in parts)),))
    return Plan(nnx.graphdef(module), parts, turns, getattr(module, "renewed", ()), optimizer, rows.of_batch)


@partial(jax.jit, static_argnames=("plan", "resident"), donate_argnames=("state",))
def _steps(plan: Plan, resident: bool, state: TrainState, chunk: Batch, key: KeyArray):
    """Steps over the batches of a chunk; and the losses and metrics of each."""

    def step(state, rows):
        step_key = jax.random.fold_in(key, state.step)
        followed = {}
        for i, turn in enumerate(plan.turns):
            turn_key = step_key if len(plan.turns) == 1 else jax.random.fold_in(step_key, i)
            state, seen = _turn(plan, turn, state, (resident, chunk, rows), turn_key)
            followed |= seen
        return state._replace(step=state.step + 1), followed

    return jax.lax.scan(step, state, chunk.index if resident else (chunk.x, chunk.index))


def _turn(plan, turn, state, batches, key):
    """The moves of a turn, and the means of what was followed."""
    resident, chunk, rows = batches

    def move(state, one):
        key, rows = one
        return _move(plan, turn, state, take(resident, chunk, rows, plan.sharding), key)

    if turn.steps == 1:
        return move(state, (key, jax.tree.map(lambda leaf: leaf[0], rows)))
    own = jax.tree.map(lambda leaf: leaf[: turn.steps], rows)
    state, seen = jax.lax.scan(move, state, (jax.random.split(key, turn.steps), own))
    return state, jax.tree.map(jnp.mean, seen)


def _move(plan, turn, state, batch, key):
    """One move of the parts of a turn; none, from the first number on that is not finite."""
    moving = {name: state.params[name] for name in turn.parts}
    (loss, (metrics, rest)), grads = jax.value_and_grad(_loss, argnums=2, has_aux=True)(
        plan, turn, moving, state, batch, key
    )
    sound = jnp.isfinite(loss) & _finite(grads)
    failed = jnp.where((state.failed == 0) & ~sound, state.step + 1, state.failed)

    def moved():
        params, opened = dict(state.params), dict(state.opt_state)
        for name in turn.parts:
            updates, opened[name] = plan.optimizer.update(grads[name], opened[name], params[name])
            params[name] = optax.apply_updates(params[name], updates)
        return *_constrained(plan, params, rest), opened

    def unmoved():
        return state.params, state.rest, state.opt_state

    # A `where` over both outcomes keeps the old state alive beside the new one, for more passes over all of it; a
    # branch lets the optimiser work in place.
    kept = jax.lax.cond(failed == 0, moved, unmoved)
    return TrainState(*kept, state.step, failed), {turn.name: loss, **metrics}


def _loss(plan, turn, moving, state, batch, key):
    module = plan.merge({**state.params, **moving}, state.rest)
    loss, metrics = getattr(module, turn.method)(batch, key)
    return loss, (metrics, plan.split(module)[1])


def _constrained(plan, params, rest):
    """Parameters where the module wants them."""
    module = plan.merge(params, rest)
    if not hasattr(module, "constrain"):
        return params, rest
    module.constrain()
    return plan.split(module)


@partial(jax.jit, static_argnames=("plan", "method"))
def _refresh(plan: Plan, method: str, state: TrainState, z: Array, key: KeyArray) -> tuple[TrainState, Refreshed]:
    """The state after a refresh; what is not finite is not taken over, and fails the next step."""
    module = plan.merge(state.params, state.rest)
    module.eval()
    found = getattr(module, method)(z, key)
    params, rest = plan.split(module)
    renewed = {name: params[name] for name in plan.renewed}
    opened = {name: plan.optimizer.init(part) for name, part in renewed.items()}
    sound = _finite((rest, renewed, found.target, found.weight))
    old = state.rest, {name: state.params[name] for name in renewed}, {name: state.opt_state[name] for name in renewed}
    rest, renewed, opened = jax.tree.map(partial(jnp.where, sound), (rest, renewed, opened), old)
    failed = jnp.where((state.failed == 0) & ~sound, state.step + 1, state.failed)
    return TrainState(state.params | renewed, rest, state.opt_state | opened, state.step, failed), found


def _finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers of a tree are."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))

"""The compiled parts of a training: whole epochs in one scan, and a look at all rows.

Everything that a step depends on is in its state, the key and its number, so that a run that is cut short and goes on
from a checkpoint takes, bit for bit, the steps of one that was not. A failure is found in the same way: a number that
is not finite stays so to the end of its epoch, which is then taken once more, from its start, with a look at every
number of every step. So ordinary steps neither look at all parameters, which takes a tenth of the time of a step of
dense layers, nor keep the state that they replace.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster.core import check, stopping
from jaxcluster.deep import optimizers
from jaxcluster.deep.batches import Rows, batch_rows, drawn_rows, take
from jaxcluster.deep.inference import mapped
from jaxcluster.deep.protocol import Batch, Refreshed, Turn
from jaxcluster.types import Array, Bool, Int, KeyArray

CAUSES = (
    "nothing was",
    "the loss was",
    "the gradient was",
    "the parameters after the update were",
    "the state of the optimizer was",
    "the variables of the module besides its parameters were",
    "the outputs of the module for all rows were",
)
"""The numbers that may stop being finite, in the order in which they are looked at, as the subject of a sentence."""

LOSS, GRADIENT, PARAMETERS, OPTIMIZER, VARIABLES, LOOK = range(1, len(CAUSES))

ALL_STEPS = np.int32(np.iinfo(np.int32).max)


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: what the optimizer moves, part by part.
        rest: the module's other variables.
        opt_state: the optimizer's, part by part.
        step: () int32 steps taken.
        failed: () int32 the step, counted from 1, at which a number was not finite; 0 for none. Moves after it change
            nothing.
        cause: () int32 what was not finite: its number in `CAUSES`.
    """

    params: dict[str, Any]
    rest: Any
    opt_state: dict[str, Any]
    step: Int[Array, ""]
    failed: Int[Array, ""]
    cause: Int[Array, ""]


class Plan(NamedTuple):
    """A step, as a constant of its program.

    Attributes:
        graphdef: of the module.
        parts: names of its parts, and the filters that select them.
        turns: the moves of a step.
        renewed: parts that a refresh may set anew.
        optimizer: of each part.
        sharding: of the rows of a batch over devices; None for one device.
        watched_rest, watched_opt: leaf by leaf of the module's other variables and, part by part, of the optimizer's
            state, whether they must stay finite: those that are so at first. Others mark something by infinity, as
            `optax.contrib.reduce_on_plateau` does "no loss yet".
    """

    graphdef: Any
    parts: tuple[tuple[str, Any], ...]
    turns: tuple[Turn, ...]
    renewed: tuple[str, ...]
    optimizer: Any
    sharding: Any = None
    watched_rest: tuple[bool, ...] = ()
    watched_opt: tuple[tuple[str, tuple[bool, ...]], ...] = ()

    def split(self, module: nnx.Module) -> tuple[dict[str, Any], Any]:
        """The parts of a module, and its other variables."""
        *params, rest = nnx.state(module, *(which for _, which in self.parts), ...)
        return {name: each for (name, _), each in zip(self.parts, params, strict=True)}, rest

    def merge(self, params: dict[str, Any], rest: Any) -> nnx.Module:
        """The module of parts and other variables; a copy."""
        return nnx.merge(self.graphdef, *params.values(), rest, copy=True)


class Look(NamedTuple):
    """The outcome of a look at all rows, on the host where the host decides by it.

    Attributes:
        found: what the module's refresh returned; on the device.
        labels: (n,) int32 clusters, or None.
        agreement: with the labels of the look before it, as numbers for the history; empty at first.
        collapsed: whether nothing is left to tell rows apart by.
        codes: of all rows, on the device; None for a module without looks.
    """

    found: Refreshed
    labels: np.ndarray | None
    agreement: dict[str, float]
    collapsed: bool
    codes: Any = None


class Run:
    """All that stays the same in the epochs of a run, and its compiled parts.

    Raises:
        ValueError: parameters that are not finite before the first step.
        TypeError: an optimizer whose update needs what it does not get.
    """

    def __init__(
        self,
        key: KeyArray,
        module: nnx.Module,
        rows: Rows,
        optimizer: Any,
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
        plan = _plan(working, optimizer, rows)
        self.batches = max(turn.steps for turn in plan.turns)
        whole = max(1, rows.n // (batch * self.batches))
        self.steps = check.check_count("steps_per_epoch", whole if steps is None else steps)
        params, rest = plan.split(working)
        _check_params(params)
        opened = {name: optimizer.init(part) for name, part in params.items()}
        for name, part in params.items():
            optimizers.check_update(optimizer, part, opened[name])
        watched_opt = tuple((name, _finite_leaves(each)) for name, each in opened.items())
        self.plan = plan._replace(watched_rest=_finite_leaves(rest), watched_opt=watched_opt)
        zero = jnp.int32(0)
        # Epochs give the memory of a copy away, so no two parts of the state may be the same array.
        self.start = rows.everywhere(jax.tree.map(jnp.copy, TrainState(params, rest, opened, zero, zero, zero)))

    def look(
        self, state: TrainState, epoch: int, labels: np.ndarray | None, *, last: bool = False
    ) -> tuple[TrainState, Look]:
        """The state after a look at all rows, and its outcome; the ``last`` is a module's ``conclude``, if it has one.

        Codes, variables or targets that are not finite are a failure of the next step: they are not taken over.
        """
        if not self.looks:
            return state, Look(Refreshed(None), None, {}, False)
        z = self._codes(state)
        method = "conclude" if last and self.concludes else "refresh"
        state, found = _refresh(self.plan, method, state, z, jax.random.fold_in(self.refresh_key, epoch))
        new = None if found.labels is None else np.asarray(found.labels, np.int32)
        compared = {} if labels is None or new is None else self._agreement(labels, new)
        return state, Look(found, new, compared, found.collapsed is not None and bool(found.collapsed), z)

    def epoch(self, state: TrainState, found: Refreshed) -> tuple[TrainState, dict[str, float] | None]:
        """The state after an epoch, and the means of what was followed, over the steps that were taken.

        The means are None where the first step failed. After a failure the state is good for nothing but `rewound`.
        """
        first, start = int(state.step), state
        state, seen = self._advance(start, found, ALL_STEPS, watch=False)
        if int(state.failed):
            state, seen = self._advance(start, found, ALL_STEPS, watch=True)
        # A failed step and those after it are not part of what was learned.
        taken = int(state.failed) - 1 - first if int(state.failed) else self.steps
        return state, {name: float(np.mean(values[:taken])) for name, values in seen.items()} if taken else None

    def rewound(self, start: TrainState, found: Refreshed, failed: TrainState) -> TrainState:
        """The last state of an epoch whose network gives finite codes and shares for all rows.

        That is the state before the failed step, or, where the update before it has gone too far, the state before that
        update, whose loss was finite; or else that at the start of the epoch. Where none of them gives finite codes,
        which is then a matter of the rows, it is the state before the failed step.

        Args:
            start: at the start of the epoch.
            found: what the look before it came to.
            failed: a state with a failure in or after the epoch.
        """
        first, done = int(start.step), int(failed.failed) - 1
        states = []
        for count in sorted({done, max(done - 1, first), first}, reverse=True):
            state = start if count == first else self._advance(start, found, np.int32(count), watch=True)[0]
            state = state._replace(step=jnp.int32(count), failed=failed.failed, cause=failed.cause)
            if self.answers(state):
                return state
            states.append(state)
        return states[0]

    @staticmethod
    def failing(state: TrainState) -> TrainState:
        """The state with a failure of a look at all rows, unless it has one."""
        return _failing(state, {LOOK: jnp.bool_(False)})

    def answers(self, state: TrainState, codes: Any = None) -> bool:
        """Whether codes of all rows, and the shares of clusters in them, are finite.

        Args:
            state: of the run.
            codes: of all rows, by the network of ``state``; None to compute them.
        """
        if not self.looks:
            return True
        codes = self._codes(state) if codes is None else codes
        if not bool(_finite(codes)):
            return False
        if not hasattr(self.module, "assign"):
            return True
        return bool(_finite(mapped(self.plan.graphdef, (*state.params.values(), state.rest), "assign", codes)))

    def evaluated(self, state: TrainState) -> TrainState:
        """The state whose parameters are to be used, of an optimizer that takes gradients elsewhere; else ``state``."""
        pairs = {name: (part, state.opt_state[name]) for name, part in state.params.items()}
        params = {name: optimizers.evaluation_params(opened, part) for name, (part, opened) in pairs.items()}
        if all(params[name] is part for name, part in state.params.items()):
            return state
        params, rest = _constrained(self.plan, params, state.rest)
        return state._replace(params=params, rest=rest)

    def module_of(self, state: TrainState) -> nnx.Module:
        """The module with the variables of ``state``, in evaluation."""
        module = nnx.merge(self.plain, *jax.tree.map(jnp.copy, (*state.params.values(), state.rest)))
        module.eval()
        return module

    def _advance(self, state, found, last, *, watch):
        """The state after an epoch of steps up to number ``last``, and what was followed at each of its steps."""
        options = {"steps": self.steps * self.batches, "batch": self.batch}
        first = state.step * self.batches
        if found.weight is None:
            rows = batch_rows(self.order_key, first, n=self.rows.n, **options)
        else:
            rows = drawn_rows(self.order_key, first, found.weight, **options)
        seen = []
        state = jax.tree.map(jnp.copy, state)
        for chunk in self.rows.chunks(rows.reshape(self.steps, self.batches, self.batch), found.target):
            stopping.look()
            state, followed = _steps(self.plan, self.rows.resident, watch, state, chunk, self.step_key, last)
            seen.append(followed)
        return state, {name: np.concatenate([np.asarray(part[name], np.float64) for part in seen]) for name in seen[0]}

    def _codes(self, state):
        states = (*state.params.values(), state.rest)
        parts = [mapped(self.plan.graphdef, states, "features", tile) for tile in self.rows.tiles()]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)

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


def _check_params(params):
    """Raises ValueError for parameters that are not finite: no step could make them so again."""
    for part in params.values():
        for path, variable in nnx.to_flat_state(part):
            if not all(_finite_leaves(variable)):
                raise ValueError(
                    f"the parameter {'/'.join(map(str, path))} of the module holds NaN or infinity before the first "
                    "step. Draw the weights anew, or pass a network that was trained without a failure."
                )


@partial(jax.jit, static_argnames=("plan", "resident", "watch"), donate_argnames=("state",))
def _steps(
    plan: Plan, resident: bool, watch: bool, state: TrainState, chunk: Batch, key: KeyArray, last: Int[Any, ""]
) -> tuple[TrainState, dict[str, Array]]:
    """Steps over the batches of a chunk.

    Args:
        plan: of a step.
        resident: whether the chunk holds all rows.
        watch: whether all numbers are looked at after each move, so that ``failed`` is the very step; else losses and
            gradients at each move, and the others after all steps.
        state: before the steps.
        chunk: rows, and their places in the batches.
        key: of what is random in a step.
        last: number of the last step to be taken.

    Returns:
        The state after the steps, and the losses and metrics of each of them.
    """

    def step(state, rows):
        stopped = (state.failed == 0) & (state.step >= last)
        state = state._replace(failed=jnp.where(stopped, state.step + 1, state.failed))
        step_key = jax.random.fold_in(key, state.step)
        followed = {}
        for i, turn in enumerate(plan.turns):
            turn_key = step_key if len(plan.turns) == 1 else jax.random.fold_in(step_key, i)
            state, seen = _turn(plan, turn, state, (resident, chunk, rows), turn_key, watch)
            followed |= seen
        return state._replace(step=state.step + 1), followed

    state, followed = jax.lax.scan(step, state, chunk.index if resident else (chunk.x, chunk.index))
    return state if watch else _failing(state, _sound(plan, state, tuple(state.params))), followed


def _turn(plan, turn, state, batches, key, watch):
    """The moves of a turn, and the means of what was followed."""
    resident, chunk, rows = batches

    def move(state, one):
        key, rows = one
        return _move(plan, turn, state, take(resident, chunk, rows, plan.sharding), key, watch)

    if turn.steps == 1:
        return move(state, (key, jax.tree.map(lambda leaf: leaf[0], rows)))
    own = jax.tree.map(lambda leaf: leaf[: turn.steps], rows)
    state, seen = jax.lax.scan(move, state, (jax.random.split(key, turn.steps), own))
    return state, jax.tree.map(jnp.mean, seen)


def _move(plan, turn, state, batch, key, watch):
    """One move of the parts of a turn; none after the first number that is not finite.

    A loss or gradient that is not finite moves nothing. Parameters, optimizer and other variables that are not finite
    after a move stay so: `Run.rewound` takes them back.
    """
    moving = {name: state.params[name] for name in turn.parts}

    def objective(moving):
        return _loss(plan, turn, moving, state, batch, key)

    (loss, (metrics, rest)), grads = jax.value_and_grad(objective, has_aux=True)(moving)
    sound = {LOSS: jnp.isfinite(loss), GRADIENT: _finite(grads)}

    def moved():
        params, opened = dict(state.params), dict(state.opt_state)
        for name in turn.parts:
            value_fn = lambda part, name=name: objective({**moving, name: part})[0]  # noqa: E731
            params[name], opened[name] = optimizers.updated(
                plan.optimizer, grads[name], opened[name], params[name], loss, value_fn
            )
        return *_constrained(plan, params, rest), opened

    def unmoved():
        return state.params, state.rest, state.opt_state

    # A `where` over both outcomes keeps the old state alive beside the new one, for more passes over all of it; a
    # branch lets the optimizer work in place.
    kept = jax.lax.cond((state.failed == 0) & sound[LOSS] & sound[GRADIENT], moved, unmoved)
    state = state._replace(**dict(zip(("params", "rest", "opt_state"), kept, strict=True)))
    return _failing(state, sound | (_sound(plan, state, turn.parts) if watch else {})), {turn.name: loss, **metrics}


def _sound(plan, state, parts):
    """By the cause of a failure, whether the state is without it."""
    watched = dict(plan.watched_opt)
    return {
        PARAMETERS: _finite([state.params[name] for name in parts]),
        OPTIMIZER: jnp.all(jnp.array([_finite(state.opt_state[name], watched[name]) for name in parts])),
        VARIABLES: _finite(state.rest, plan.watched_rest),
    }


def _failing(state, sound):
    """The state with a failure at its step, if it has none, where something is not sound: the first of the causes."""
    numbers = jnp.array(list(sound), jnp.int32)
    bad = ~jnp.array(list(sound.values()))
    fails = (state.failed == 0) & jnp.any(bad)
    return state._replace(
        failed=jnp.where(fails, state.step + 1, state.failed),
        cause=jnp.where(fails, numbers[jnp.argmax(bad)], state.cause),
    )


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
    sound = _finite((z, renewed, found.target, found.weight)) & _finite(rest, plan.watched_rest)
    old = state.rest, {name: state.params[name] for name in renewed}, {name: state.opt_state[name] for name in renewed}
    rest, renewed, opened = jax.tree.map(partial(jnp.where, sound), (rest, renewed, opened), old)
    state = state._replace(rest=rest, params=state.params | renewed, opt_state=state.opt_state | opened)
    return _failing(state, {LOOK: sound}), found


def _finite(tree: Any, watched: tuple[bool, ...] | None = None) -> Bool[Array, ""]:
    """Whether all numbers of a tree are, but for those of leaves that are not watched."""
    leaves = jax.tree.leaves(tree)
    watched = (True,) * len(leaves) if watched is None else watched
    wanted = [leaf for leaf, each in zip(leaves, watched, strict=True) if each and _is_inexact(leaf)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in wanted], bool))


def _finite_leaves(tree: Any) -> tuple[bool, ...]:
    """Leaf by leaf, whether all numbers are finite."""
    return tuple(not _is_inexact(leaf) or bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def _is_inexact(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)

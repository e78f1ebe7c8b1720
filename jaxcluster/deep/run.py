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
from jaxcluster.deep.batches import batch_rows, take
from jaxcluster.deep.use import mapped
from jaxcluster.types import Array, Int


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        params: what the optimiser moves.
        rest: the module's other variables.
        opt_state: the optimiser's.
        step: () int32 steps taken.
        failed: () int32 the step, counted from 1, at which a number was not finite; 0 for none. That step and those
            after it changed nothing.
    """

    params: Any
    rest: Any
    opt_state: Any
    step: Int[Array, ""]
    failed: Int[Array, ""]


class Run:
    """What stays the same in all epochs of a run, and its compiled parts."""

    def __init__(self, key, module, rows, optimizer, batch, steps, precision):
        self.order_key, self.step_key, self.refresh_key = jax.random.split(key, 3)
        self.key, self.rows, self.batch, self.steps, self.optimizer = key, rows, batch, steps, optimizer
        self.module, self.precision = module, precision
        self.looks = hasattr(module, "refresh")
        self.filter = getattr(module, "trainable", nnx.Param)
        self.plain = nnx.graphdef(module)
        working = nnx.clone(module)
        working.train()
        if precision is not None:
            check.check_choice("precision", precision, ("fast",))
            working.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
        self.graphdef, params, rest = nnx.split(working, self.filter, ...)
        start = TrainState(params, rest, optimizer.init(params), jnp.int32(0), jnp.int32(0))
        # A step gives its state's memory away, so none of it may be the caller's, and no two parts of it the same.
        self.start = jax.tree.map(jnp.copy, start)

    def look(self, state, epoch, labels):
        """After a look at all rows: state, targets, labels, and the share of them that changed (None at first).

        Variables or targets that are not finite are a failure of the next step: they are not taken over.
        """
        if not self.looks:
            return state, None, None, None
        parts = [mapped(self.graphdef, (state.params, state.rest), "features", tile) for tile in self.rows.tiles()]
        z = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        key = jax.random.fold_in(self.refresh_key, epoch)
        rest, found, sound = _refresh(self.graphdef, self.filter, state.params, state.rest, z, key)
        failed = jnp.where((state.failed == 0) & ~sound, state.step + 1, state.failed)
        new = None if found.labels is None else np.asarray(found.labels, np.int32)
        changed = None if labels is None or new is None else float(np.mean(labels != new))
        return state._replace(rest=rest, failed=failed), found.target, new, changed

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
        sound = jnp.isfinite(loss) & _finite(grads)
        failed = jnp.where((state.failed == 0) & ~sound, state.step + 1, state.failed)

        def moved():
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return optax.apply_updates(state.params, updates), rest, opt_state

        def unmoved():
            return state.params, state.rest, state.opt_state

        # A `where` over both outcomes keeps the old state alive beside the new one, for more passes over all of it; a
        # branch lets the optimiser work in place.
        kept = jax.lax.cond(failed == 0, moved, unmoved)
        return TrainState(*kept, state.step + 1, failed), {"loss": loss, **metrics}

    return jax.lax.scan(step, state, chunk.index if resident else (chunk.x, chunk.index))


def _loss(graphdef, wrt, params, rest, batch, key):
    module = nnx.merge(graphdef, params, rest, copy=True)
    loss, metrics = module.loss(batch, key)
    _, rest = nnx.state(module, wrt, ...)
    return loss, (metrics, rest)


@partial(jax.jit, static_argnames=("graphdef", "wrt"))
def _refresh(graphdef, wrt, params, rest, z, key):
    """Other variables and what was found; and whether all of it is finite, without which variables stay as they are."""
    module = nnx.merge(graphdef, params, rest, copy=True)
    module.eval()
    found = module.refresh(z, key)
    new = nnx.state(module, wrt, ...)[1]
    sound = _finite((new, found.target))
    return jax.tree.map(partial(jnp.where, sound), new, rest), found, sound


def _finite(tree):
    """Whether all numbers of a tree are."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))

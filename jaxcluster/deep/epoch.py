"""Compiled parts of training: an epoch of steps in one scan, and the refresh from all samples.

All that a step depends on is in its state, the key and its number, so a run that is resumed from a checkpoint repeats,
bit for bit, the steps of an uninterrupted one. Failures are located in the same way: a number that is not finite stays
so to the end of its epoch, and the epoch is then replayed from its start with a check of every number at every step.
Ordinary steps therefore neither check all parameters, which costs a tenth of a step of dense layers, nor keep the state
that they replace.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.core.processes import check_stopped, whole
from jaxcluster.deep import optimizers
from jaxcluster.deep.batches import DeviceRows, gather_batch, shuffled_batches, weighted_batches
from jaxcluster.deep.inference import map_split_module
from jaxcluster.deep.protocol import Batch, ClusteringModule, RefreshResult, UpdatePhase, overrides
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
"""Causes of a failure, in the order of the checks, each as the subject of a sentence that ends in "not finite"."""

LOSS, GRADIENT, PARAMETERS, OPTIMIZER, VARIABLES, OUTPUTS = range(1, len(CAUSES))

ALL_STEPS = np.int32(np.iinfo(np.int32).max)
"""Step number that no training reaches: no step is left out."""


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
        params: parameters, by the name of their part.
        rest: other variables of the module.
        opt_state: optimizer state of each part.
        step: () int32 number of steps taken.
        failed: () int32 number, counted from 1, of the first step with a number that was not finite; 0 for none. Later
            updates change nothing.
        cause: () int32 index of the failure in `CAUSES`.
    """

    params: dict[str, Any]
    rest: Any
    opt_state: dict[str, Any]
    step: Int[Array, ""]
    failed: Int[Array, ""]
    cause: Int[Array, ""]


class StepSpec(NamedTuple):
    """Static description of a training step.

    Attributes:
        graphdef: of the module.
        parts: names and filters of the trainable parts.
        phases: alternating updates of a step.
        reset_parts: parts that a refresh may overwrite.
        optimizer: of each part.
        sharding: of a batch over devices; None for one device.
        watched_rest: for each leaf of the module's other variables, whether it must stay finite.
        watched_opt: the same for the leaves of the optimizer state, by part.
    """

    graphdef: Any
    parts: tuple[tuple[str, Any], ...]
    phases: tuple[UpdatePhase, ...]
    reset_parts: tuple[str, ...]
    optimizer: Any
    sharding: Any = None
    watched_rest: tuple[bool, ...] = ()
    watched_opt: tuple[tuple[str, tuple[bool, ...]], ...] = ()

    def split(self, module: ClusteringModule) -> tuple[dict[str, Any], Any]:
        """Split a module into its state.

        Returns:
            The parameters by part, and the other variables.
        """
        *params, rest = nnx.state(module, *(which for _, which in self.parts), ...)
        return {name: each for (name, _), each in zip(self.parts, params, strict=True)}, rest

    def merge(self, params: dict[str, Any], rest: Any) -> ClusteringModule:
        """A new module with these parameters and other variables."""
        return nnx.merge(self.graphdef, *params.values(), rest, copy=True)


class EvalResult(NamedTuple):
    """Refresh of all samples, with what the host decides by.

    Attributes:
        refresh: result of the module's refresh; on the device.
        labels: (n_samples,) int32 clusters on the host, or None.
        agreement: comparison with the labels of the refresh before, for the history; empty at the first.
        collapsed: True where the features no longer separate samples.
        features: of all samples, on the device; None for a module without a refresh.
    """

    refresh: RefreshResult
    labels: np.ndarray | None
    agreement: dict[str, float]
    collapsed: bool
    features: Any = None


class CompiledTrainer:
    """Constants of a training run, and its compiled parts.

    Args:
        key: of the sample order, the randomness of the steps and that of the refreshes.
        module: to be trained; is not changed.
        rows: the data.
        optimizer: of optax.
        batch_size: samples in a batch.
        steps: steps in an epoch; None for one pass over the samples.
        precision: None for float32, "fast" for layers in bfloat16.

    Raises:
        ValueError: parameters that are not finite before the first step.
        TypeError: an optimizer whose update needs other arguments than it gets.
    """

    def __init__(
        self,
        key: KeyArray,
        module: ClusteringModule,
        rows: DeviceRows,
        optimizer: Any,
        batch_size: int,
        steps: int | None,
        precision: str | None,
    ):
        self.order_key, self.step_key, self.refresh_key = jax.random.split(key, 3)
        self.key, self.rows, self.batch_size = key, rows, batch_size
        self.module, self.precision = module, precision
        self.has_refresh, self.has_finalize = overrides(module, "refresh"), overrides(module, "finalize")
        self.original_graphdef = nnx.graphdef(module)
        working = nnx.clone(module)
        working.train()
        if precision is not None:
            validation.check_choice("precision", precision, ("fast",))
            # `dtype` is what layers compute in; their parameters, and the losses, stay float32.
            working.set_attributes(dtype=jnp.bfloat16, raise_if_not_found=False)
        spec = _step_spec(working, optimizer, rows)
        self.batches_per_step = max(phase.steps for phase in spec.phases)
        one_pass = max(1, rows.n // (batch_size * self.batches_per_step))
        self.steps = validation.check_count("steps_per_epoch", one_pass if steps is None else steps)
        params, rest = spec.split(working)
        _check_params(params)
        opt_state = {name: optimizers.initial_state(optimizer, part) for name, part in params.items()}
        # Leaves that are infinite before the first step are not watched: they mark something by infinity, as
        # `optax.contrib.reduce_on_plateau` does "no loss yet".
        watched_opt = tuple((name, _finite_leaves(each)) for name, each in opt_state.items())
        self.spec = spec._replace(watched_rest=_finite_leaves(rest), watched_opt=watched_opt)
        zero = jnp.int32(0)
        # Epochs donate the buffers of their state, so no two leaves may be the same array: hence the copy.
        initial = _copied(TrainState(params, rest, opt_state, zero, zero, zero))
        self.initial_state = rows.replicate(initial)

    def refresh(
        self, state: TrainState, epoch: int, labels: np.ndarray | None, *, last: bool = False
    ) -> tuple[TrainState, EvalResult]:
        """Refresh a module from the features of all samples; the ``last`` time by its ``finalize``.

        Returns:
            The state after the refresh, and its result. Features, variables or targets that are not finite are not
            taken over and count as a failure of the next step; so do responsibilities, but for the ``last`` time.
        """
        if not self.has_refresh:
            return state, EvalResult(RefreshResult(None), None, {}, False)
        z = self._features(state)
        method = "finalize" if last and self.has_finalize else "refresh"
        state, result = _refresh(self.spec, method, state, z, jax.random.fold_in(self.refresh_key, epoch))
        # Before the epoch, as `rewind` goes back to its start at most: where an epoch is one step, none would be left.
        if not last and not int(state.failed) and not self.outputs_are_finite(state, z):
            state = self.mark_output_failure(state)
        new = None if result.labels is None else np.asarray(whole(result.labels), np.int32)
        agreement = {} if labels is None or new is None else self.module.label_agreement(labels, new)
        agreement = {name: float(value) for name, value in agreement.items()}
        collapsed = result.collapsed is not None and bool(result.collapsed)
        return state, EvalResult(result, new, agreement, collapsed, z)

    def run_epoch(self, state: TrainState, refresh: RefreshResult) -> tuple[TrainState, dict[str, float] | None]:
        """Train for one epoch.

        Returns:
            The state after the epoch, good only for `rewind` after a failure, and the mean of each loss and metric over
            the steps taken; None where the first step failed.
        """
        first, start = int(state.step), state
        state, metrics = self._advance(start, refresh, ALL_STEPS, watch=False)
        if int(state.failed):
            state, metrics = self._advance(start, refresh, ALL_STEPS, watch=True)
        # The failed step and those after it have no part in the means.
        taken = int(state.failed) - 1 - first if int(state.failed) else self.steps
        return state, {name: float(np.mean(values[:taken])) for name, values in metrics.items()} if taken else None

    def rewind(self, start: TrainState, refresh: RefreshResult, failed: TrainState) -> TrainState:
        """The last state of an epoch with finite outputs, see `outputs_are_finite`.

        That is the state before the failed step; or, where the update before went too far, the state before that
        update, whose loss was finite; or the state at the start of the epoch. If none of them has finite outputs, the
        samples are the reason, and it is the state before the failed step.

        Args:
            start: state at the start of the epoch.
            refresh: result of the refresh before the epoch.
            failed: a state with a failure in the epoch or after it.
        """
        first, last = int(start.step), int(failed.failed) - 1
        states = []
        # Steps are cheap to repeat, and states large to keep: the epoch runs again from its start, up to the step
        # before.
        for count in sorted({last, max(last - 1, first), first}, reverse=True):
            state = start if count == first else self._advance(start, refresh, np.int32(count), watch=True)[0]
            state = state._replace(step=jnp.int32(count), failed=failed.failed, cause=failed.cause)
            if self.outputs_are_finite(state):
                return state
            states.append(state)
        return states[0]

    @staticmethod
    def mark_output_failure(state: TrainState) -> TrainState:
        """The state with a failure of the module's outputs, unless it has another failure."""
        return _mark_failures(state, {OUTPUTS: jnp.bool_(False)})

    def outputs_are_finite(self, state: TrainState, features: Any = None) -> bool:
        """True if the features of all samples, and the responsibilities for them, are finite.

        Args:
            state: of the run.
            features: of all samples, by the network of ``state``; None to compute them.
        """
        if not self.has_refresh:
            return True
        features = self._features(state) if features is None else features
        if not bool(_are_finite(features)):
            return False
        if not overrides(self.module, "assign"):
            return True
        states = (*state.params.values(), state.rest)
        return bool(_are_finite(map_split_module(self.spec.graphdef, states, "assign", features)))

    def eval_state(self, state: TrainState) -> TrainState:
        """The state with the optimizer's evaluation parameters, see `optimizers.evaluation_params`."""
        params = {
            name: optimizers.evaluation_params(state.opt_state[name], part) for name, part in state.params.items()
        }
        if all(params[name] is part for name, part in state.params.items()):
            return state
        params, rest = _constrain(self.spec, params, state.rest)
        return state._replace(params=params, rest=rest)

    def build_module(self, state: TrainState) -> ClusteringModule:
        """A copy of the module with the variables of ``state``, in evaluation mode; of a mesh on its first device."""
        variables = _copied((*state.params.values(), state.rest))
        if self.rows.first_device is not None:
            # Gathered: the compiler may have spread a variable over the devices, as it does SwAV's queue.
            variables = jax.device_put(jax.tree.map(whole, variables), self.rows.first_device)
        module = nnx.merge(self.original_graphdef, *variables)
        module.eval()
        return module

    def _advance(self, state, refresh, last, *, watch):
        """The state after an epoch of steps up to number ``last``, and the losses and metrics of each step."""
        options = {"steps": self.steps * self.batches_per_step, "batch": self.batch_size}
        first = state.step * self.batches_per_step
        if refresh.weight is None:
            rows = shuffled_batches(self.order_key, first, n=self.rows.n, **options)
        else:
            rows = weighted_batches(self.order_key, first, refresh.weight, **options)
        chunks = rows.reshape(self.steps, self.batches_per_step, self.batch_size)
        metrics = []
        state = _copied(state)
        for chunk in self.rows.chunks(chunks, refresh.target):
            check_stopped(self.rows.mesh)
            state, of_chunk = _steps(self.spec, self.rows.resident, watch, state, chunk, self.step_key, last)
            metrics.append(of_chunk)
        return state, {
            name: np.concatenate([np.asarray(whole(part[name]), np.float64) for part in metrics]) for name in metrics[0]
        }

    def _features(self, state):
        states = (*state.params.values(), state.rest)
        parts = [map_split_module(self.spec.graphdef, states, "features", tile) for tile in self.rows.tiles()]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _step_spec(module, optimizer, rows):
    """The step of a module: one update of all parameters by ``loss``, unless the module says otherwise."""
    trainable = module.trainable
    parts = tuple(trainable.items()) if isinstance(trainable, dict) else (("all", trainable),)
    phases = tuple(module.update_phases) or (UpdatePhase("loss", "loss", tuple(name for name, _ in parts)),)
    reset_parts = tuple(module.reset_on_refresh)
    return StepSpec(nnx.graphdef(module), parts, phases, reset_parts, optimizer, rows.batch_sharding)


def _check_params(params):
    """Raise ValueError for parameters that are not finite: no step could repair them."""
    for part in params.values():
        for path, variable in nnx.to_flat_state(part):
            if not all(_finite_leaves(variable)):
                raise ValueError(
                    f"the parameter {'/'.join(map(str, path))} of the module holds NaN or infinity before the first "
                    "step. Draw the weights anew, or pass a network that was trained without a failure."
                )


@partial(jax.jit, static_argnames=("spec", "resident", "watch"), donate_argnames=("state",))
def _steps(
    spec: StepSpec, resident: bool, watch: bool, state: TrainState, chunk: Batch, key: KeyArray, last: Int[Any, ""]
) -> tuple[TrainState, dict[str, Array]]:
    """Training steps over the batches of a chunk.

    Args:
        spec: of a step.
        resident: whether the chunk holds all samples.
        watch: check all numbers after each update, so that ``failed`` is the exact step; else losses and gradients at
            each update, and the other numbers after all steps.
        state: before the steps.
        chunk: samples, and their positions in the batches.
        key: of the randomness of a step.
        last: number of the last step to take.

    Returns:
        The state after the steps, and the losses and metrics of each of them.
    """

    def step(state, rows):
        beyond = (state.failed == 0) & (state.step >= last)
        state = state._replace(failed=jnp.where(beyond, state.step + 1, state.failed))
        step_key = jax.random.fold_in(key, state.step)
        metrics = {}
        for i, phase in enumerate(spec.phases):
            phase_key = step_key if len(spec.phases) == 1 else jax.random.fold_in(step_key, i)
            state, of_phase = _run_phase(spec, phase, state, (resident, chunk, rows), phase_key, watch)
            metrics |= of_phase
        return state._replace(step=state.step + 1), metrics

    state, metrics = jax.lax.scan(step, state, chunk.index if resident else (chunk.x, chunk.index))
    return state if watch else _mark_failures(state, _finite_parts(spec, state, tuple(state.params))), metrics


def _run_phase(spec, phase, state, batches, key, watch):
    """The updates of a phase, and the means of their losses and metrics."""
    resident, chunk, rows = batches

    def update(state, inputs):
        key, rows = inputs
        return _update(spec, phase, state, gather_batch(resident, chunk, rows, spec.sharding), key, watch)

    if phase.steps == 1:
        return update(state, (key, jax.tree.map(lambda leaf: leaf[0], rows)))
    own = jax.tree.map(lambda leaf: leaf[: phase.steps], rows)
    state, metrics = jax.lax.scan(update, state, (jax.random.split(key, phase.steps), own))
    return state, jax.tree.map(jnp.mean, metrics)


def _update(spec, phase, state, batch, key, watch):
    """One update of the parts of a phase; none after the first number that is not finite.

    A loss or gradient that is not finite changes nothing. Parameters, optimizer state and other variables that are not
    finite after an update stay so: `CompiledTrainer.rewind` takes them back.
    """
    trained = {name: state.params[name] for name in phase.parts}

    def objective(trained):
        module = spec.merge({**state.params, **trained}, state.rest)
        loss, metrics = getattr(module, phase.method)(batch, key)
        return loss, (metrics, spec.split(module)[1])

    (loss, (metrics, rest)), grads = jax.value_and_grad(objective, has_aux=True)(trained)
    finite = {LOSS: jnp.isfinite(loss), GRADIENT: _all_finite(grads)}

    def updated():
        params, opt_state = dict(state.params), dict(state.opt_state)
        for name in phase.parts:
            value_fn = lambda part, name=name: objective({**trained, name: part})[0]  # noqa: E731
            params[name], opt_state[name] = optimizers.apply_update(
                spec.optimizer, grads[name], opt_state[name], params[name], loss, value_fn
            )
        return *_constrain(spec, params, rest), opt_state

    def unchanged():
        return state.params, state.rest, state.opt_state

    # A `where` over both outcomes would keep the old state alive beside the new one and pass over all of it once more;
    # a branch lets the optimizer work in place.
    new = jax.lax.cond((state.failed == 0) & finite[LOSS] & finite[GRADIENT], updated, unchanged)
    state = state._replace(**dict(zip(("params", "rest", "opt_state"), new, strict=True)))
    finite |= _finite_parts(spec, state, phase.parts) if watch else {}
    return _mark_failures(state, finite), {phase.name: loss, **metrics}


def _finite_parts(spec, state, parts):
    """For each cause of a failure in the state, whether the state is free of it."""
    watched = dict(spec.watched_opt)
    return {
        PARAMETERS: _all_finite([state.params[name] for name in parts]),
        OPTIMIZER: jnp.all(jnp.array([_all_finite(state.opt_state[name], watched[name]) for name in parts])),
        VARIABLES: _all_finite(state.rest, spec.watched_rest),
    }


def _mark_failures(state, finite):
    """The state with a failure at its step, if it has none yet and something is not finite: the first of the causes."""
    causes = jnp.array(list(finite), jnp.int32)
    bad = ~jnp.array(list(finite.values()))
    fails = (state.failed == 0) & jnp.any(bad)
    return state._replace(
        failed=jnp.where(fails, state.step + 1, state.failed),
        cause=jnp.where(fails, causes[jnp.argmax(bad)], state.cause),
    )


def _constrain(spec, params, rest):
    """Parameters and other variables after the module's ``constrain``."""
    module = spec.merge(params, rest)
    if not overrides(module, "constrain"):
        return params, rest
    module.constrain()
    return spec.split(module)


@partial(jax.jit, static_argnames=("spec", "method"))
def _refresh(
    spec: StepSpec, method: str, state: TrainState, z: Array, key: KeyArray
) -> tuple[TrainState, RefreshResult]:
    """Refresh by a method of the module.

    Returns:
        The state after it, and its result. Numbers that are not finite are not taken over, and fail the next step.
    """
    module = spec.merge(state.params, state.rest)
    module.eval()
    result = getattr(module, method)(z, key)
    params, rest = spec.split(module)
    reset = {name: params[name] for name in spec.reset_parts}
    opt_state = {name: spec.optimizer.init(part) for name, part in reset.items()}
    finite = _all_finite((z, reset, result.target, result.weight)) & _all_finite(rest, spec.watched_rest)
    # A refresh with NaN leaves the state before it, so that the training ends with the last finite one.
    old = state.rest, {name: state.params[name] for name in reset}, {name: state.opt_state[name] for name in reset}
    rest, reset, opt_state = jax.tree.map(partial(jnp.where, finite), (rest, reset, opt_state), old)
    state = state._replace(rest=rest, params=state.params | reset, opt_state=state.opt_state | opt_state)
    return _mark_failures(state, {OUTPUTS: finite}), result


def _all_finite(tree: Any, watched: tuple[bool, ...] | None = None) -> Bool[Array, ""]:
    """True if all numbers of a tree are finite, apart from leaves that are not watched."""
    leaves = jax.tree.leaves(tree)
    watched = (True,) * len(leaves) if watched is None else watched
    checked = [leaf for leaf, each in zip(leaves, watched, strict=True) if each and _is_inexact(leaf)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in checked], bool))


_are_finite = jax.jit(_all_finite)


@jax.jit
def _copied(tree: Any) -> Any:
    """A copy of all arrays, by one program for all their shapes."""
    return jax.tree.map(jnp.copy, tree)


def _finite_leaves(tree: Any) -> tuple[bool, ...]:
    """For each leaf, whether all its numbers are finite; on the host, where no program is compiled for each shape."""
    leaves = jax.tree.leaves(tree)
    return tuple(not _is_inexact(leaf) or bool(np.isfinite(np.asarray(whole(leaf))).all()) for leaf in leaves)


def _is_inexact(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)

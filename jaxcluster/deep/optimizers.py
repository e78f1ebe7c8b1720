"""Optimizers of optax as the trainer uses them: which objects are accepted, and one update with all that optax passes.

Some transformations of optax need more than the gradient: `optax.contrib.reduce_on_plateau` and Polyak steps the loss,
line searches such as that of `optax.lbfgs` the loss as a function too. They get ``value``, ``grad`` and ``value_fn``,
all of the batch of the step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcluster.core import check
from jaxcluster.types import Array, Float

FIXES = "an optax.GradientTransformation, such as optax.adam(1e-3)"


@cache
def adam(
    learning_rate: float | Callable[..., Any] = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    decay_steps: int | None = None,
) -> optax.GradientTransformation:
    """Adam; the same object for the same arguments, so that a second training compiles nothing.

    Args:
        learning_rate: at the start; or a schedule of optax, from steps to rates.
        b1, b2: decay of the moments.
        eps: added to the root of the second moment.
        decay_steps: steps in which the rate falls to a hundredth, along a cosine; None for a constant rate. A schedule
            is taken as it is.
    """
    rate = learning_rate
    if decay_steps is not None and not callable(rate):
        rate = optax.cosine_decay_schedule(rate, decay_steps, alpha=0.01)
    return optax.adam(rate, b1=b1, b2=b2, eps=eps)


def check_rate(name: str, rate: Any) -> float | Callable[..., Any]:
    """``rate`` as a float, or the schedule that it is.

    Raises:
        ValueError, TypeError: a number that is not positive and finite, or a schedule that does not give one number.
    """
    if not callable(rate):
        number = float(check.check_positive(name, rate))
        if not math.isfinite(number):
            raise ValueError(f"{name}={rate} must be finite.")
        return number
    try:
        shape = jax.eval_shape(rate, jax.ShapeDtypeStruct((), np.int32)).shape
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(
            f"{name}={rate!r} is neither a number nor a schedule of optax, a function from the number of steps to a "
            f"rate: called with one it raised {type(error).__name__}: {error}"
        ) from error
    if shape != ():
        raise ValueError(f"the schedule {name} gives an array of shape {shape}; a rate is one number.")
    return rate


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raises TypeError, with what to pass instead, unless ``optimizer`` is a gradient transformation of optax."""
    functions = [callable(getattr(optimizer, method, None)) for method in ("init", "update")]
    if all(functions) and not inspect.isclass(optimizer):  # optax.MultiSteps has them, and is no GradientTransformation
        return
    seen = f"{name} is {optimizer!r} of type {type(optimizer).__module__}.{type(optimizer).__qualname__}"
    if isinstance(getattr(optimizer, "tx", None), optax.GradientTransformation):
        raise TypeError(
            f"{name} is a {type(optimizer).__qualname__} of Flax, which belongs to one module. Pass the transformation "
            "of optax that it was made of, its attribute tx, such as optax.adam(1e-3)."
        )
    if isinstance(optimizer, str):
        raise TypeError(f"{name}={optimizer!r} is a name. Pass the transformation itself, {FIXES}.")
    if isinstance(optimizer, (int, float)):
        raise TypeError(f"{name}={optimizer!r} is a number. Pass {FIXES}, or learning_rate={optimizer!r}.")
    if callable(optimizer):
        raise TypeError(f"{seen}, a function. Call it: a transformation is {FIXES[3:]}.")
    raise TypeError(f"{seen}. Pass {FIXES}.")


def check_update(optimizer: Any, params: Any, state: Any) -> None:
    """Raises TypeError where an update fails with the arguments that it gets here; computes nothing.

    Args:
        optimizer: has passed `check_optimizer`.
        params: of one part of a module.
        state: the optimizer's, of them.
    """
    value = jax.ShapeDtypeStruct((), np.float32)

    def attempt(params, state, value):
        return updated(optimizer, params, state, params, value, lambda part: _sum_of_squares(part))

    try:
        jax.eval_shape(attempt, params, state, value)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise TypeError(
            f"the optimizer cannot be used here: its update raised {type(error).__name__}: {error} It is called with "
            "the gradient, its state and the parameters, and with value, grad and value_fn of the batch of the step. "
            "Pass a transformation that needs no more, such as optax.adam(1e-3)."
        ) from error


def updated(
    optimizer: Any,
    grads: Any,
    state: Any,
    params: Any,
    value: Float[Array, ""],
    value_fn: Callable[[Any], Float[Array, ""]],
) -> tuple[Any, Any]:
    """One update.

    Args:
        optimizer: of optax.
        grads: of the loss in ``params``.
        state: the optimizer's.
        params: to be moved.
        value: the loss.
        value_fn: the loss, on the same batch, as a function of the parameters.

    Returns:
        The moved parameters, and the optimizer's state after the update; both with the dtypes that they had, which are
        those of the carry of a compiled loop.
    """
    # Made anew in each trace: what it returns is another object each time, and would not be the same static argument.
    extended = optax.with_extra_args_support(optimizer)
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    taken = inspect.signature(extended.update).parameters
    if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in taken.values()):
        extra = {name: each for name, each in extra.items() if name in taken}
    # optax is not written for strict promotion: `optax.adam` itself raises a float to an integer power.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, after = extended.update(grads, state, params, **extra)
        moved = optax.apply_updates(params, updates)
    return jax.tree.map(_as_before, moved, params), jax.tree.map(_as_before, after, state)


def evaluation_params(state: Any, params: Any) -> Any:
    """The parameters that an optimizer means to be used: ``params`` unless it is schedule-free.

    `optax.contrib.schedule_free` takes its gradients at other points than the average that it converges to.
    """
    is_schedule_free = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)  # noqa: E731
    for node in filter(is_schedule_free, jax.tree.leaves(state, is_leaf=is_schedule_free)):
        params = jax.tree.map(
            lambda z, y, b1=node.b1: y if isinstance(z, optax.MaskedNode) else _averaged(y, z, b1),
            node.z,
            params,
            is_leaf=lambda z: isinstance(z, optax.MaskedNode),
        )
    return params


def _as_before(new, old):
    return jnp.asarray(new, jnp.asarray(old).dtype)


def _averaged(y, z, b1):
    """x of y = (1 − β)·z + β·x: `optax.contrib.schedule_free_eval_params`, one array at a time."""
    b1 = b1.astype(y.dtype)
    return (y - (1 - b1) * z.astype(y.dtype)) / b1


def _sum_of_squares(tree):
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))

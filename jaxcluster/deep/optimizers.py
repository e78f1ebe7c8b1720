"""Optimizers of optax: checks, one update with the extra arguments of optax, and Adam.

Some transformations need more than the gradient: `optax.contrib.reduce_on_plateau` and Polyak steps the loss, line
searches such as that of `optax.lbfgs` the loss as a function too. They get ``value``, ``grad`` and ``value_fn`` for the
batch of the step.

>>> from jaxcluster.deep import adam
>>> adam(1e-3, decay_steps=100) is adam(1e-3, decay_steps=100)
True
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

from jaxcluster.core import validation
from jaxcluster.types import Array, Float

OPTIMIZER_HINT = "an optax.GradientTransformation, such as optax.adam(1e-3)"


@cache
def adam(
    learning_rate: float | Callable[..., Any] = 1e-3,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    decay_steps: int | None = None,
) -> optax.GradientTransformation:
    """Adam; cached, so that a second training with the same arguments compiles nothing.

    Args:
        learning_rate: initial rate; or a schedule of optax, a function from steps to rates.
        b1, b2: decay rates of the moments.
        eps: added to the square root of the second moment.
        decay_steps: steps of a cosine decay to a hundredth of the rate; None for a constant rate. Ignored with a
            schedule.
    """
    rate = learning_rate
    if decay_steps is not None and not callable(rate):
        rate = optax.cosine_decay_schedule(rate, decay_steps, alpha=0.01)
    return optax.adam(rate, b1=b1, b2=b2, eps=eps)


def check_rate(name: str, rate: Any) -> float | Callable[..., Any]:
    """A learning rate as a float, or a schedule unchanged.

    Raises:
        ValueError, TypeError: a number that is not positive and finite, or a schedule that does not return one number.
    """
    if not callable(rate):
        number = float(validation.check_positive(name, rate))
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
    """Raise TypeError, with advice, unless ``optimizer`` is a gradient transformation of optax."""
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
        raise TypeError(f"{name}={optimizer!r} is a name. Pass the transformation itself, {OPTIMIZER_HINT}.")
    if isinstance(optimizer, (int, float)):
        raise TypeError(f"{name}={optimizer!r} is a number. Pass {OPTIMIZER_HINT}, or learning_rate={optimizer!r}.")
    if callable(optimizer):
        raise TypeError(f"{seen}, a function. Call it: a transformation is {OPTIMIZER_HINT[3:]}.")
    raise TypeError(f"{seen}. Pass {OPTIMIZER_HINT}.")


def initial_state(optimizer: Any, params: Any) -> Any:
    """Initial state of an optimizer that can be used here: one update is traced with these parameters, not computed.

    Args:
        optimizer: one that passed `check_optimizer`.
        params: parameters of one part of a module.

    Raises:
        TypeError: `init` or `update` fails, or an update changes a shape.
    """
    value = jax.ShapeDtypeStruct((), np.float32)

    def attempt(params, state, value):
        return apply_update(optimizer, params, state, params, value, lambda part: _sum_of_squares(part))

    # An optimizer of the caller fails before the first epoch, and not within it.
    try:
        state = optimizer.init(params)
    except Exception as error:
        raise TypeError(
            f"the optimizer cannot be used here: its init raised {_words(error)} It is called with the "
            "parameters of the module."
        ) from error
    try:
        after = jax.eval_shape(attempt, params, state, value)
    except Exception as error:
        raise TypeError(
            f"the optimizer cannot be used here: its update raised {_words(error)} It is called with "
            "the gradient, its state and the parameters, and with value, grad and value_fn of the batch of the step. "
            "Pass a transformation that needs no more, such as optax.adam(1e-3)."
        ) from error
    for what, old, new in zip(("parameters", "state"), (params, state), after, strict=True):
        for one, other in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            if np.shape(one) != other.shape:
                raise TypeError(
                    f"the optimizer cannot be used here: its update makes an array of shape {other.shape} of one of "
                    f"shape {np.shape(one)} in the {what}. Updates and states keep their shapes."
                )
    return state


def apply_update(
    optimizer: Any,
    grads: Any,
    state: Any,
    params: Any,
    value: Float[Array, ""],
    value_fn: Callable[[Any], Float[Array, ""]],
) -> tuple[Any, Any]:
    """One optimizer update.

    Args:
        optimizer: of optax.
        grads: gradient of the loss at ``params``.
        state: optimizer state.
        params: parameters to update.
        value: the loss.
        value_fn: the loss on the same batch as a function of the parameters.

    Returns:
        The updated parameters and optimizer state, in the dtypes that they had: both are the carry of a compiled loop.
    """
    # Wrapped anew in each trace: the wrapper is a new object each time, so as a static argument it would recompile.
    extended = optax.with_extra_args_support(optimizer)
    extra = {"value": value, "grad": grads, "value_fn": value_fn}
    accepted = inspect.signature(extended.update).parameters
    if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in accepted.values()):
        extra = {name: each for name, each in extra.items() if name in accepted}
    # optax is not written for strict promotion: `optax.adam` itself raises a float to an integer power.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, after = extended.update(grads, state, params, **extra)
        new_params = optax.apply_updates(params, updates)
    return jax.tree.map(_in_dtype_of, new_params, params), jax.tree.map(_in_dtype_of, after, state)


def evaluation_params(state: Any, params: Any) -> Any:
    """Parameters for evaluation: ``params``, unless the optimizer is schedule-free.

    `optax.contrib.schedule_free` takes its gradients at other points than the average that converges.
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


def _words(error):
    """Type and message of an error, as a sentence."""
    text = f"{type(error).__name__}: {error}".strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _in_dtype_of(new, old):
    return jnp.asarray(new, jnp.asarray(old).dtype)


def _averaged(y, z, b1):
    """x of y = (1 − β)·z + β·x: `optax.contrib.schedule_free_eval_params`, one array at a time."""
    b1 = b1.astype(y.dtype)
    return (y - (1 - b1) * z.astype(y.dtype)) / b1


def _sum_of_squares(tree) -> Any:
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))

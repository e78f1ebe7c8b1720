"""Attribution of a network's output to the features of its input, by integrated gradients.

>>> import jax.numpy as jnp
>>> product = lambda x: x[:, 0] * x[:, 1]
>>> integrated_gradients(product, jnp.array([[2.0, 3.0]]), jnp.zeros(2)).round().tolist()
[[3.0, 3.0]]

Source: M. Sundararajan, A. Taly and Q. Yan, Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.types import Array, Float

REFINEMENTS = 3
"""Passes in which the points move to where the function changes: each halves the width of a change that is found, and
costs a third of the gradients."""


MIN_SUM = 1e-3
"""Least sum of the parts of an interval, as a fraction of the sum of their absolute values, to scale them by."""


def integrated_gradients(
    function: Callable[[Any], Any], x: Any, baseline: Any, *, steps: int = 32
) -> Float[Array, "n d"]:
    """(x − b)·∫ ∇f(b + t·(x − b)) dt of each sample, t from 0 to 1: what each feature adds to f(x) − f(b).

    The sum over the features of a sample is f(x) − f(b). The integral is taken by the trapezoidal rule, each interval
    scaled to the change of f in it. Half of the points lie evenly on the path, the others where f changes: a softmax
    changes almost at once, and even points would miss it.

    Args:
        function: differentiable, from (n_samples, n_features) to (n_samples,), each sample independent of the others.
        x: (n_samples, n_features).
        baseline: (n_features,) or (n_samples, n_features) b, of samples that say nothing.
        steps: number of intervals of the trapezoidal rule.

    Returns:
        (n_samples, n_features) attributions, in the units of f.

    Raises:
        ValueError, TypeError: wrong shapes; a number of steps that is no count.
    """
    steps = validation.check_count("steps", steps)
    x = jnp.asarray(validation.check_matrix(x))
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    baseline = jnp.asarray(baseline, x.dtype)
    if baseline.shape not in ((x.shape[1],), x.shape):
        raise ValueError(f"baseline must have shape ({x.shape[1]},) or {x.shape}, those of x, got {baseline.shape}.")
    baseline = jnp.broadcast_to(baseline, x.shape)
    difference = x - baseline

    def value(rows):
        values = jnp.asarray(function(rows))
        if values.shape != x.shape[:1]:
            raise ValueError(f"function must return {x.shape[:1]}, one number a sample, got {values.shape}.")
        return values.astype(x.dtype)

    gradient = jax.grad(lambda rows: jnp.sum(value(rows)))
    points = _points(value, baseline, difference, steps)

    def add(carry, point):
        total, before, (last_value, last_gradient) = carry
        rows = baseline + point[:, None] * difference
        here = value(rows), gradient(rows)
        parts = difference * (last_gradient + here[1]) * ((point - before) / 2)[:, None]
        change, rule = here[0] - last_value, jnp.sum(parts, axis=1)
        # An end of an interval may lie on a step of f, whose slope says nothing about the rest: the change does. Where
        # the parts cancel, their sum is rounding, and no measure of them.
        cancels = jnp.abs(rule) <= MIN_SUM * jnp.sum(jnp.abs(parts), axis=1)
        scale = jnp.where(cancels, 1, jnp.maximum(change / jnp.where(cancels, 1, rule), 0))
        return (total + scale[:, None] * parts, point, here), None

    start = jnp.zeros_like(x), points[0], (value(baseline), gradient(baseline))
    (total, _, _), _ = jax.lax.scan(add, start, points[1:])
    return total


def _points(value, baseline, difference, steps):
    """(steps + 1, n) places on the path of each sample, from 0 to 1, that are denser where the function changes."""
    even = jnp.linspace(0, 1, steps + 1, dtype=difference.dtype)

    def refine(points, _):
        values = jax.lax.map(lambda t: value(baseline + t[:, None] * difference), points)
        changes = jnp.cumsum(jnp.abs(jnp.diff(values, axis=0)), axis=0)
        changes = jnp.concatenate([jnp.zeros_like(changes[:1]), changes])
        whole = changes[-1:]
        share = jnp.where(whole > 0, changes / jnp.where(whole > 0, whole, 1), points)
        # Half of the points by changes, half by length: equal steps of the mean of both.
        level = (share + points) / 2
        return jax.vmap(partial(jnp.interp, even), in_axes=1, out_axes=1)(level, points), None

    return jax.lax.scan(refine, jnp.tile(even[:, None], (1, difference.shape[0])), length=REFINEMENTS)[0]

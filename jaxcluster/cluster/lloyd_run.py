"""Runs of Lloyd's iteration from initial centers, in one program or in chunks that Ctrl-C can end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcluster.cluster import lloyd
from jaxcluster.cluster.lloyd import LloydOptions, LloydState, Samples, variance_from_sums
from jaxcluster.cluster.seeding import CenterConstraints
from jaxcluster.core import chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.iterate import advance, begin
from jaxcluster.core.row_loops import RowLoop
from jaxcluster.core.shard import rows_of
from jaxcluster.types import Array, Fit, Float

PASS_CENTERS = 16
"""Centers whose distances take as long as reading the samples and summing them up."""


def run(
    centers: Float[Array, "k d"],
    samples: Samples,
    constraints: CenterConstraints,
    *,
    tol,
    max_steps,
    capacity: int,
    options: LloydOptions,
    absolute: bool = False,
) -> Fit:
    """Iterate from initial centers until no label changes or the shift is at most ``tol``.

    Args:
        centers: (k, d) initial centers.
        samples: in the frame of the centers.
        constraints: frozen and inactive centers.
        tol: in units of the mean variance of the features, or in data units² where ``absolute``.
        max_steps: maximum number of steps.
        capacity: static length of the history.
        options: static options.
        absolute: the unit of ``tol``.
    """
    fit, limit = _start(options, capacity, absolute, centers, samples, constraints, tol)
    fit = advance(partial(_step, options, samples, constraints), fit, tol=limit, max_steps=max_steps)
    return with_last_step(fit, limit, max_steps)


def run_in_chunks(
    centers: Float[Array, "k d"],
    samples: Samples,
    constraints: CenterConstraints,
    *,
    tol,
    max_steps,
    capacity: int,
    options: LloydOptions,
    absolute: bool = False,
    shown: Callable[..., Any] | None = None,
    end: chunks.End | None = None,
) -> Fit:
    """`run` of concrete arrays.

    The arguments are those of `run`, ``shown`` that of `chunks.resume`, and ``end`` what the caller calls with the fit.
    """
    fit, limit = _compiled_start(options, capacity, absolute, centers, samples, constraints, tol)
    fitted = _compiled_last_step.compile(fit, limit, max_steps)
    if end is not None:
        end.compile(fitted)
    step = chunks.bind(_step, options, samples, constraints)
    work = step_work(samples, centers.shape[0])
    fit = chunks.resume(step, fit, tol=limit, max_steps=max_steps, work=work, shown=shown)
    return _compiled_last_step(fit, limit, max_steps)


def row_loop(prepare: Callable[..., Any], first_centers: Callable[..., Any], arguments: Any, mesh: Mesh) -> RowLoop:
    """Lloyd's iteration of samples that are spread over the devices of a mesh.

    Args:
        prepare: (static, *arguments) -> `Samples` and constraints. The static options have ``lloyd``, a `LloydOptions`,
            and ``capacity``.
        first_centers: (static, samples, constraints, *arguments) -> (k, d) initial centers, and ``tol``.
        arguments: specs.
        mesh: of one axis.
    """
    rows = rows_of(mesh)
    state = LloydState._make([rows.whole] * len(LloydState._fields))._replace(assignment=rows.row, prev_labels=rows.row)
    fit = Fit._make([rows.whole] * len(Fit._fields))._replace(state=state)
    begin = partial(_begin_over_rows, first_centers)
    return RowLoop(prepare, begin, _step_over_rows, arguments, (rows.row, rows.whole), fit, _refilled)


def _begin_over_rows(first_centers, static, operands, *arguments):
    centers, tol = first_centers(static, *operands, *arguments)
    samples, constraints = operands
    return _start(static.lloyd, static.capacity, False, centers, samples, constraints, tol)


def _step_over_rows(static, samples, constraints, state):
    return lloyd.step(state, samples, constraints, static.lloyd)


def _refilled(static, operands, fit):
    """A restored fit with the assignment of the samples to its centers."""
    samples, constraints = operands
    # The shift and the stability of the last step are restored: an ended loop must take no other.
    state = lloyd.init_state(fit.state.centers, samples, constraints, static.lloyd)
    return fit._replace(state=fit.state._replace(assignment=state.assignment, prev_labels=state.prev_labels))


def step_work(samples: Samples, k: int) -> int:
    """Products and sums of a step that computes every distance."""
    return samples.points.x.size * (k + PASS_CENTERS)


def _start(options, capacity, absolute, centers, samples, constraints, tol):
    """The fit before the first step, and the tolerance in the units of its residual."""
    state = lloyd.init_state(centers, samples, constraints, options)
    if not absolute:
        squares = all_reduce(samples.points.weight @ samples.norms, options.axis_name)
        tol = tol * variance_from_sums(jnp.sum(state.stats.weight), squares, jnp.sum(state.stats.sums, axis=0))
    return begin(state, capacity), tol


def _step(options: LloydOptions, samples: Samples, constraints: CenterConstraints, state: LloydState) -> LloydState:
    return lloyd.step(state, samples, constraints, options)


def with_last_step(fit, tol, max_steps):
    """The fit with the step by which other libraries find that no label changes: counted, but not computed."""
    state, capacity = fit.state, fit.history.shape[-1]
    more = state.stable & (state.shift > tol) & (fit.steps < max_steps)
    history = fit.history.at[jnp.where(more, fit.steps, capacity)].set(state.objective, mode="drop")
    return fit._replace(steps=fit.steps + more.astype(jnp.int32), history=history)


_compiled_start = persistent_jit(_start, static_argnums=(0, 1, 2))
_compiled_last_step = persistent_jit(with_last_step)

"""Runs of EM from one initialization, in one program or in chunks that Ctrl-C can end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.inference import far_rows
from jaxcluster.cluster.gmm.init import (
    CenteredInit,
    cluster_in_chunks,
    init_specs,
    initial_mixture,
    mean_feature_variance,
)
from jaxcluster.cluster.lloyd import LloydState
from jaxcluster.core import chunks
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.fold import all_reduce
from jaxcluster.core.iterate import advance, begin, trace
from jaxcluster.core.row_loops import RowLoop, Run
from jaxcluster.core.shard import Rows, over_rows, rows_of
from jaxcluster.types import Array, Bool, Fit, Float, KeyArray, Points, Status


class StaticOptions(NamedTuple):
    """Options that change the compiled program.

    Attributes:
        k: number of components.
        method: initialization method.
        runs: number of initializations.
        em: options of a step.
        capacity: length of the history.
        unrolled: number of steps to differentiate through; None for implicit differentiation.
    """

    k: int
    method: str
    runs: int
    em: em.EMOptions
    capacity: int
    unrolled: int | None = None


class TracedOptions(NamedTuple):
    """Options that are traced; ``reg`` is in units of the frame."""

    tol: float | Float[Array, ""]
    max_steps: int | Array
    reg: float | Float[Array, ""]
    active: Bool[Array, " k"] | None


class EMRun(NamedTuple):
    """State of EM, the mean log-density of a sample under its mixture (nats), and the mask of far samples."""

    em: em.EMState
    log_likelihood: Float[Array, "*batch"]
    far: Bool[Array, "*batch n"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The negative lower bound."""
        return self.em.objective


def run(static: StaticOptions, points: Points, init: CenteredInit, traced: TracedOptions, key: KeyArray) -> Fit:
    """One run of EM; its state is an `EMRun`."""
    options = static.em._replace(differentiable=static.unrolled is not None)
    samples, params, fit = _start(static, points, init, traced, key)
    step = partial(em.step, options, samples, params)
    if static.unrolled is not None:
        fitted = trace(step, fit.state, steps=static.unrolled)
        return _with_posterior(options, fitted, samples, params.total)

    def continue_em(carry):
        run, _ = carry
        fit = advance(step, run._replace(state=run.state.em, labels=None), tol=traced.tol, max_steps=traced.max_steps)
        return _with_last_bound(options, fit, samples, params.total, traced.tol)

    # Zeros that vary over the devices of a mapped axis if the samples do, as while_loop under shard_map demands.
    labels = jnp.where(points.weight > 0, 0, 0).astype(jnp.int32)
    empty = fit._replace(state=EMRun(fit.state, fit.state.lower_bound, labels > 0), labels=labels)
    return jax.lax.while_loop(lambda carry: carry[1], continue_em, (empty, jnp.asarray(True)))[0]


def run_in_chunks(
    static: StaticOptions,
    points: Points,
    init: CenteredInit,
    traced: TracedOptions,
    key: KeyArray,
    shown: Callable[..., Any] | None = None,
    end: chunks.End | None = None,
) -> Fit:
    """`run` of concrete samples, without ``unrolled``.

    ``shown`` is that of `chunks.resume`, and ``end`` what the caller calls with the fit.
    """
    clustering = cluster_in_chunks(static.em, static.method, key, points, init, traced.active, static.k)
    samples, params, fit = _compiled_start(static, points, init, traced, key, clustering)
    step, work = chunks.bind(em.step, static.em, samples, params), em.step_work(static.em, points.x.shape, static.k)
    last_bound = chunks.End(_compiled_last_bound, static.em, samples, params.total, traced.tol)
    fitted, _ = last_bound.compile(fit)
    if end is not None:
        end.compile(fitted)
    unfinished = True
    while unfinished:
        fit = chunks.resume(step, fit, tol=traced.tol, max_steps=traced.max_steps, work=work, shown=shown)
        run, unfinished = last_bound(fit)
        fit = run._replace(state=run.state.em, labels=None)
    return run


def run_over_rows(
    run: Run, points: Points, init: CenteredInit, traced: TracedOptions, key: KeyArray
) -> Callable[[KeyArray], Fit]:
    """`run_in_chunks` of samples that are spread over the devices of a mesh, as a function of the key.

    The specs of its results are those of `fit_specs`.
    """
    specs, loop = rows_of(run.mesh), row_loop(run.mesh)
    operands = loop.prepared(run, key, points, init, traced)
    places = (loop.fit, loop.operands, specs.whole), (fit_specs(specs), specs.whole)

    def one(key):
        fit, tol = loop(run, operands, key, points, init, traced)
        while True:
            # As `_with_last_bound` says: after a plateau EM continues.
            fitted, unfinished = over_rows(_last_bound_over_rows, run.static, run.mesh, *places, fit, operands, tol)
            if not unfinished:
                return fitted
            fit = loop.again(run, operands, fitted._replace(state=fitted.state.em, labels=None), tol)

    return one


def row_loop(mesh: Mesh) -> RowLoop:
    """EM of samples that are spread over the devices of a mesh; its arguments are a key, and points, init, traced."""
    specs = rows_of(mesh)
    operands = (em.TransposedPoints._make([specs.column, specs.row]), specs.whole)
    arguments = (specs.whole, specs.row, init_specs(specs), specs.whole)
    return RowLoop(_prepare_over_rows, _begin_over_rows, _step_over_rows, arguments, operands, specs.whole)


def fit_specs(specs: Rows) -> Fit:
    """Specs of a fit whose state is an `EMRun`."""
    return specs.fit._replace(state=EMRun._make([specs.whole, specs.whole, specs.row]))


def _prepare_over_rows(static, key, points, init, traced):
    return _operands(static, points, traced)


def _begin_over_rows(static, operands, key, points, init, traced):
    samples, params = operands
    return _begin(static, points, samples, params, init, key), jnp.asarray(traced.tol, points.x.dtype)


def _step_over_rows(static, samples, params, state):
    return em.step(static.em, samples, params, state)


def _last_bound_over_rows(static, fit, operands, tol):
    samples, params = operands
    return _with_last_bound(static.em, fit, samples, params.total, tol)


def m_step_params(options: em.EMOptions, points: Points, reg: Any, active: Any) -> em.MStepParams:
    """Parameters of an M-step: the total weight, the ridge and the mask of the components that take part."""
    total = all_reduce(jnp.sum(points.weight), options.axis_name)
    return em.MStepParams(total, jnp.asarray(reg, points.x.dtype), active)


def _start(static, points, init, traced, key, clustering: LloydState | None = None):
    """Transposed samples, parameters of the M-step, and the fit before its first step."""
    samples, params = _operands(static, points, traced)
    return samples, params, _begin(static, points, samples, params, init, key, clustering)


def _operands(static, points, traced):
    samples = em.transpose_points(points)
    params = m_step_params(static.em, points, traced.reg, traced.active)
    unweighted = points._replace(weight=(points.weight > 0).astype(points.x.dtype))
    params = params._replace(
        variance=mean_feature_variance(static.em, points),
        unweighted_variance=mean_feature_variance(static.em, unweighted),
    )
    return samples, params


def _begin(static, points, samples, params, init, key, clustering=None):
    options = static.em._replace(differentiable=static.unrolled is not None)
    mixture, collapsed = initial_mixture(
        options, static.method, key, points, samples, init, params, static.k, clustering
    )
    return begin(em.init_state(mixture, collapsed, init.previous_bound), static.capacity)


def _with_last_bound(options, fit, samples, total, tol):
    """The run with the labels and the bound of its last mixture, and whether EM has to continue.

    EM stops at a small change of the bound, which is that of the mixture before the last M-step. The final E-step, for
    the labels, gives the bound of the last mixture. After a plateau it may be much higher: then EM continues.
    """
    run = _with_posterior(options, fit, samples, total)
    state = run.state.em
    change = jnp.abs(run.state.log_likelihood - state.lower_bound)
    unfinished = change > tol + em.bound_slack(state.lower_bound)
    unfinished &= (run.status == Status.CONVERGED) & (state.bound_decrease == 0)
    state = state._replace(residual=jnp.where(unfinished, change, state.residual))
    return run._replace(state=run.state._replace(em=state)), unfinished


def _with_posterior(options, fitted, samples, total):
    """The fit with the labels of all samples and their mean log-density under its last mixture."""
    mixture, samples, total = jax.lax.stop_gradient((fitted.state.mixture, samples, total))
    components = em.components_of(mixture)
    labels, log_p = em.label(options, components, samples.x)
    log_likelihood = samples.weight @ jnp.where(samples.weight > 0, log_p, 0)
    log_likelihood = all_reduce(log_likelihood, options.axis_name) / total
    return fitted._replace(
        state=EMRun(fitted.state, log_likelihood, far_rows(options, components, log_p)), labels=labels
    )


_compiled_start = persistent_jit(_start, static_argnums=0)
_compiled_last_bound = persistent_jit(_with_last_bound, static_argnums=0)

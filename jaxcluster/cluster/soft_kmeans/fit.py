"""Soft k-means from one start."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.cluster.centroids import coarse_of_labels, mean_variance, with_precision
from jaxcluster.cluster.given import Given, check_given
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.cluster.soft_kmeans.step import SoftStats, soft_stats, soft_update
from jaxcluster.cluster.soft_kmeans.use import check_known, variance_in
from jaxcluster.core import check
from jaxcluster.core.fold import across
from jaxcluster.core.frame import Frame, finalize, prepare
from jaxcluster.core.implicit import at_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import in_groups
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published


class SoftKMeansState(NamedTuple):
    """A finished soft k-means.

    Attributes:
        centers: (k, d) cluster centers.
        objective: () the free energy −2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²): 2σ² times the negative
            log-likelihood, less a constant. It tends to the inertia as σ² → 0, and is the inertia at 0.
        weight: (k,) total weight of the shares of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²).
    """

    centers: Float[Published, "*batch k d"]
    objective: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    def leave(self, frame: Frame) -> SoftKMeansState:
        """The same state out of the frame of its fit."""
        return SoftKMeansState(
            frame.leave(self.centers),
            frame.unscale(self.objective, length=2, weight=1),
            frame.unscale(self.weight, weight=1),
            frame.unscale(self.residual, length=2),
        )


class Running(NamedTuple):
    """Centers, the statistics they lead to, and how far they last moved (squared)."""

    centers: Float[Array, "*batch k d"]
    stats: SoftStats
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The free energy."""
        return self.stats.energy


class Static(NamedTuple):
    """Options that change the program."""

    k: int
    init: str
    capacity: int
    axis_name: str | None


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    variance,
    weights=None,
    init="k-means++",
    known=None,
    tol=1e-4,
    max_steps=300,
    axis_name: str | None = None,
) -> Fit:
    """Fits k centers whose clusters share rows softly.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centers have their gradient with
    respect to ``x``, ``weights`` and ``variance`` by the implicit function theorem; it is right where the fit has
    converged, so ask for a small tol. So have the objective and the weight of the clusters.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        variance: σ² >= 0 (data units²), how soft the shares are; 0 for Lloyd's hard ones. Half of the temperature T of
            shares in proportion to exp(−‖x − c‖²/T). Traced.
        weights: (n,) non-negative row weights, or None.
        init: as in ``kmeans.fit``; seeded centers of clusters with known rows start at the means of these.
        known: (n,) integers, the cluster that a row belongs to whole, −1 where that is to be found; None for −1
            everywhere.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns. Traced.
        max_steps: the most steps taken. Traced.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `SoftKMeansState`, labels (n,) int32 of the nearest center, which are constants for gradients,
        steps, status and the free energy after each step. A cluster that no row has a share in keeps its center; status
        EMPTY_CLUSTERS says that there is one, and PRECISION that rows of a cluster differ by less than float32 tells.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    key = check.check_key(key)
    x, k = check.check_samples(x, k, axis_name)
    check.check_positive("variance", variance, zero=True)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    name, given = check_given(init, None, None, k, x.shape[1])
    known = None if known is None else check_known(known, x.shape[0], k)
    prepared = prepare(x, weights, axis_name=axis_name)
    points, frame = prepared.points, prepared.frame
    if known is not None:
        known = jnp.pad(known, (0, points.weight.shape[0] - x.shape[0]), constant_values=-1)
    static = Static(k, name, history_capacity(max_steps), axis_name)
    variance = variance_in(frame, variance, points.x.dtype)
    fitted = _fit(static, key, points, given.enter(frame), known, variance, tol, max_steps)
    coarse = coarse_of_labels(points, fitted.state.centers, fitted.labels) if prepared.narrowed else None
    fitted = finalize(fitted, prepared, SoftKMeansState.leave, length=2, weight=1)
    return with_precision(fitted, x, frame, coarse)


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, given, known, variance, tol, max_steps):
    best = partial(run_once, static)
    run = best if static.axis_name else in_groups(best)
    fitted = run(*jax.lax.stop_gradient((points, given, known, variance, tol)), max_steps, key)
    return finish(fitted, points, known, variance, static.axis_name)


def run_once(
    static: Static,
    points: Points,
    given: Given,
    known: Int[Array, " n"] | None,
    variance: Float[Array, ""],
    tol,
    max_steps,
    key: KeyArray,
) -> Fit:
    """One run in a frame, from given centers or seeded ones; its state is a `Running`."""
    axis_name = static.axis_name
    centers = given.start
    if centers is None:
        centers = seed_centers(key, points, static.k, init=static.init, axis_name=axis_name)
        centers = centers if known is None else _means_of_known(centers, points, known, axis_name)
    columns = em.as_columns(points)
    tol = tol * mean_variance(points, squared_norms(points.x), axis_name=axis_name)

    def advance(state):
        centers = soft_update(state.stats, state.centers)
        stats = soft_stats(centers, columns, variance, known=known, axis_name=axis_name)
        return Running(centers, stats, jnp.sum(jnp.square(centers - state.centers)))

    stats = soft_stats(centers, columns, variance, known=known, axis_name=axis_name)
    start = Running(centers, stats, jnp.asarray(jnp.inf, centers.dtype))
    return iterate(advance, start, tol=tol, max_steps=max_steps, capacity=static.capacity)


def finish(
    fitted: Fit,
    points: Points,
    known: Int[Array, " n"] | None,
    variance: Float[Array, ""],
    axis_name: str | None,
) -> Fit:
    """Labels, gradients and the status of a run, in its frame.

    Args:
        fitted: of a state with ``centers``, their ``stats`` and a ``residual``; held constant for gradients.
        points: the rows.
        known: as in `fit`.
        variance: σ² of the fit, in the frame.
        axis_name: the mapped axis over which rows are spread.
    """
    held, inputs = fitted.state, (points, known, variance)
    centers = at_fixed_point(partial(_map, axis_name), held.centers, *inputs)
    summary = (held.stats.weight, held.stats.energy)
    weight, energy = with_derivative_of(partial(_summary, axis_name), summary, centers, *inputs)
    labels, _ = nearest(jax.lax.stop_gradient(points.x), held.centers)
    labels = labels if known is None else jnp.where(known >= 0, known, labels)
    empty = jnp.any(held.stats.weight <= jnp.finfo(weight.dtype).tiny)
    status = status_with(fitted.status, incomplete=empty, objective=energy)
    state = SoftKMeansState(centers, energy, weight, held.residual)
    return Fit(state, labels, fitted.steps, status, fitted.history)


def _means_of_known(centers, points, known, axis_name):
    """The means of clusters with known rows in place of their seeds."""
    k = centers.shape[0]
    members = jnp.where(known >= 0, known, k)
    sums, weight = across(cluster_sums(points, members, k), axis_name)
    return jnp.where(weight[:, None] > 0, sums / jnp.where(weight > 0, weight, 1)[:, None], centers)


def _map(axis_name, centers, points, known, variance):
    """One step as a function of centers and data, which reverse mode can follow."""
    stats = soft_stats(centers, em.as_columns(points), variance, known=known, axis_name=axis_name)
    return soft_update(stats, centers)


def _summary(axis_name, centers, points, known, variance):
    stats = soft_stats(centers, em.as_columns(points), variance, known=known, axis_name=axis_name)
    return stats.weight, stats.energy

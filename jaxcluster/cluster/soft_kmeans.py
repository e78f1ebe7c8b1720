"""Soft k-means: EM of a mixture of spherical Gaussians of equal weight and one fixed variance σ²; only means move.

Each row is shared out by the softmax of −‖x − c‖²/2σ², and each centre becomes the mean of its shares. As σ² → 0 the
softmax becomes the argmin and the steps become Lloyd's: k-means is the small-variance limit of a mixture, and this
project derives it so. Here σ² = 0 is that limit itself.

Sources: C. M. Bishop, Pattern Recognition and Machine Learning (2006), 9.3.2; B. Kulis and M. I. Jordan, Revisiting
k-means: new algorithms via Bayesian nonparametrics, ICML 2012.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.centroids import mean_variance
from jaxcluster.cluster.given import check_given
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, map_rows
from jaxcluster.core.implicit import at_fixed_point, with_derivative_of
from jaxcluster.core.iterate import history_capacity, iterate, status_with
from jaxcluster.core.restart import in_groups
from jaxcluster.core.rows import place, trim
from jaxcluster.ops import logsumexp
from jaxcluster.ops.distance import FULL, squared_norms
from jaxcluster.ops.gaussian import FAMILIES, expandable
from jaxcluster.ops.gaussian.family import product_over_rows, with_ones
from jaxcluster.ops.gaussian.spherical import square_distances
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, KeyArray

FAR = 750.0
"""Squared distances, in units of 2σ², beyond that to the nearest centre at which a share is 0 in float64 too."""


class SoftKMeansState(NamedTuple):
    """A finished soft k-means.

    Attributes:
        centers: (k, d) cluster centres.
        objective: () the free energy −2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²): 2σ² times the negative
            log-likelihood, less a constant. It tends to the inertia as σ² → 0, and is the inertia at 0.
        weight: (k,) total weight of the shares of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²).
    """

    centers: Float[Array, "*batch k d"]
    objective: Float[Array, "*batch"]
    weight: Float[Array, "*batch k"]
    residual: Float[Array, "*batch"]


class SoftStats(NamedTuple):
    """What rows contribute: Σ r·w·x and Σ r·w by cluster, and the free energy."""

    sums: Float[Array, "*batch k d"]
    weight: Float[Array, "*batch k"]
    energy: Float[Array, "*batch"]


class _Running(NamedTuple):
    """Centres, the statistics they lead to, and how far they last moved (squared)."""

    centers: Float[Array, "*batch k d"]
    stats: SoftStats
    residual: Float[Array, "*batch"]

    @property
    def objective(self):
        return self.stats.energy


class _Static(NamedTuple):
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
    tol=1e-4,
    max_steps=300,
    axis_name: str | None = None,
) -> Fit:
    """Fits k centres whose clusters share rows softly.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centres have their gradient with
    respect to ``x``, ``weights`` and ``variance`` by the implicit function theorem; it is right where the fit has
    converged, so ask for a small tol. So have the objective and the weight of the clusters.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        variance: σ² >= 0 (data units²), how soft the shares are; 0 for Lloyd's hard ones. Traced.
        weights: (n,) non-negative row weights, or None.
        init: as in ``kmeans.fit``.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns. Traced.
        max_steps: the most steps taken. Traced.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `SoftKMeansState`, labels (n,) int32 of the nearest centre, steps, status and the free energy after
        each step. A cluster that no row has a share in keeps its centre; status EMPTY_CLUSTERS says that there is one.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    x = check.check_matrix(x)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    k = check.check_clusters(k, n)
    check.check_positive("variance", variance, zero=True)
    check.check_positive("tol", tol, zero=True)
    check.check_positive("max_steps", max_steps)
    name, given = check_given(init, None, None, k, x.shape[1])
    placed = place(x, weights, axis_name=axis_name)
    static = _Static(k, name, history_capacity(max_steps), axis_name)
    fitted = _fit(static, key, placed.points, placed.origin, given, variance, tol, max_steps)
    return fitted._replace(labels=trim(fitted.labels, placed.n))


def responsibilities(centers, x, variance) -> Float[Array, "n k"]:
    """The share of each of (k, d) centres in each of (n, d) rows; one-hot at variance 0, ties to the lower index.

    Differentiable with respect to all three.
    """
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    check.check_positive("variance", variance, zero=True)
    if check.is_traced(centers):
        origin = jax.lax.stop_gradient(jnp.mean(centers, axis=0))
    else:
        origin = np.mean(np.asarray(centers), axis=0)
    placed = place(x, origin=origin)
    shares = _shares(jnp.asarray(centers, placed.origin.dtype), placed.origin, placed.points.x, variance)
    return trim(shares, placed.n, axis=0)


def soften(distance: Float[Array, "k n"], variance: Float[Array, ""]) -> tuple[Float[Array, " n"], Float[Array, "k n"]]:
    """Each column's free energy (data units²) and shares, from squared distances (data units²).

    Distances are taken from the least one, which then stands outside of the logarithm: at a small variance both stay
    finite, and so do their derivatives.
    """
    k = distance.shape[0]
    least = jnp.min(distance, axis=0)
    gap = distance - least
    twice = 2 * variance
    soft = twice > 4 * FAR * jnp.finfo(distance.dtype).tiny
    hard = jnp.arange(k)[:, None] == jnp.argmin(distance, axis=0)
    near = jnp.where(soft, gap <= FAR * twice, hard)
    held = jnp.where(soft, jax.lax.stop_gradient(twice), 1)
    # 1, with the derivative of held/twice: that of a quotient would square a small variance, and underflow.
    scale = jnp.exp(jnp.log(held) - jnp.log(jnp.where(soft, twice, 1)))
    logits = jnp.where(near, -jnp.where(near & soft, gap, 0) / held * scale, -jnp.inf)
    log_sum, shares = logsumexp.responsibilities(logits)
    return least + jnp.where(soft, twice, 0) * (jnp.log(jnp.asarray(k, distance.dtype)) - log_sum), shares


def soft_stats(
    centers: Float[Array, "k d"], columns: em.Columns, variance: Float[Array, ""], *, axis_name: str | None = None
) -> SoftStats:
    """The shares of centred rows, folded into statistics; no more than a tile of them exists at a time."""
    distances = _distances(centers, variance)

    @jax.checkpoint
    def tile(columns):
        x, weight = columns
        energy, shares = soften(distances(x), variance)
        sums = product_over_rows(shares * weight, with_ones(x))
        return SoftStats(sums[:, 1:], sums[:, 0], weight @ energy), ()

    size = em.em_tile(em.EMOptions("spherical"), columns.weight.shape[0], *centers.shape)
    return fold_rows(tile, columns, tile=size, axis=-1, axis_name=axis_name)[0]


def soft_update(stats: SoftStats, centers: Float[Array, "k d"]) -> Float[Array, "k d"]:
    """Means of the shares; a cluster without any keeps its centre."""
    filled = stats.weight > jnp.finfo(centers.dtype).tiny
    means = stats.sums / jnp.where(filled, stats.weight, 1)[:, None]
    return jnp.where(filled[:, None], means, centers)


def _distances(centers, variance):
    """Columns to squared distances, by products where their rounding is small beside the variance."""
    k, d = centers.shape
    family = FAMILIES["spherical"]
    _, factor, _ = family.factor(jnp.broadcast_to(jax.lax.stop_gradient(variance), (k,)), d)
    expanded = expandable(family, centers, factor)
    return lambda x: square_distances(centers, x, expanded, FULL)


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, origin, given, variance, tol, max_steps):
    given = given.in_frame(origin, spherical=False)
    variance = jnp.asarray(variance, points.x.dtype)
    best = partial(_run, static)
    run = best if static.axis_name else in_groups(best)
    fitted = run(*jax.lax.stop_gradient((points, given, variance, tol)), max_steps, key)
    held, inputs = fitted.state, (points, variance)
    centers = at_fixed_point(partial(_map, static.axis_name), held.centers, *inputs)
    summary = (held.stats.weight, held.stats.energy)
    weight, energy = with_derivative_of(partial(_summary, static.axis_name), summary, centers, *inputs)
    labels, _ = nearest(jax.lax.stop_gradient(points.x), held.centers)
    empty = jnp.any(held.stats.weight <= jnp.finfo(weight.dtype).tiny)
    status = status_with(fitted.status, incomplete=empty, objective=energy)
    state = SoftKMeansState(centers + origin, energy, weight, held.residual)
    return Fit(state, labels, fitted.steps, status, fitted.history)


def _run(static, points, given, variance, tol, max_steps, key):
    """One run on centred rows; its state is a `_Running`."""
    axis_name = static.axis_name
    centers = given.start
    if centers is None:
        centers = seed_centers(key, points, static.k, init=static.init, axis_name=axis_name)
    columns = em.as_columns(points)
    tol = tol * mean_variance(points, squared_norms(points.x), axis_name=axis_name)

    def advance(state):
        centers = soft_update(state.stats, state.centers)
        stats = soft_stats(centers, columns, variance, axis_name=axis_name)
        return _Running(centers, stats, jnp.sum(jnp.square(centers - state.centers)))

    stats = soft_stats(centers, columns, variance, axis_name=axis_name)
    start = _Running(centers, stats, jnp.asarray(jnp.inf, centers.dtype))
    return iterate(advance, start, tol=tol, max_steps=max_steps, capacity=static.capacity)


def _map(axis_name, centers, points, variance):
    """One step as a function of centres and data, which reverse mode can follow."""
    return soft_update(soft_stats(centers, em.as_columns(points), variance, axis_name=axis_name), centers)


def _summary(axis_name, centers, points, variance):
    stats = soft_stats(centers, em.as_columns(points), variance, axis_name=axis_name)
    return stats.weight, stats.energy


@jax.jit
def _shares(centers, origin, x, variance):
    variance = jnp.asarray(variance, x.dtype)
    distances = _distances(centers - origin, variance)
    tile = em.em_tile(em.EMOptions("spherical"), x.shape[0], *centers.shape)
    return map_rows(lambda rows: soften(distances(rows.T), variance)[1].T, x, tile=tile)

"""k-means by Lloyd's iteration, Euclidean or spherical; with weights, restarts, sweeps, frozen centres and gradients.

Sources: S. P. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982); I. S. Dhillon and
D. S. Modha, Concept decompositions for large sparse text data using clustering, Machine Learning 42 (2001), for the
spherical form.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import lloyd
from jaxcluster.cluster.centroids import differentiable_directions, differentiable_means, inertia_of, mean_variance
from jaxcluster.cluster.given import GIVEN, Given, check_given
from jaxcluster.cluster.seeding import INITS, seed_centers
from jaxcluster.core import check
from jaxcluster.core.implicit import without_derivative
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.core.restart import best_of, in_groups, many, side_by_side
from jaxcluster.core.rows import place, trim
from jaxcluster.ops.distance import METRICS as DISTANCES
from jaxcluster.ops.distance import matrix_precision, normalize, squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points

METRICS = ("sqeuclidean", "cosine")

AUTO_RESTARTS = 10
"""Runs of ``n_init="auto"`` from random rows; starts that already choose well are run once."""


class KMeansState(NamedTuple):
    """A finished k-means.

    Attributes:
        centers: (k, d) cluster centres; unit rows under the cosine metric.
        inertia: () Σ w·‖x − c‖² (data units²), or Σ w·(1 − cos) under the cosine metric.
        weight: (k,) total weight of the rows of each cluster.
        residual: () Σ‖Δc‖² of the last step (data units²); 0 if it changed no label.
    """

    centers: Float[Array, "*batch k d"]
    inertia: Float[Array, "*batch"]
    weight: Float[Array, "*batch k"]
    residual: Float[Array, "*batch"]

    @property
    def objective(self) -> Float[Array, "*batch"]:
        """The inertia, by which runs are compared."""
        return self.inertia


class _Static(NamedTuple):
    """Options that change the program."""

    k: int
    init: str
    runs: int
    metric: str
    precision: str | None
    uniform: bool
    capacity: int
    axis_name: str | None = None

    @property
    def spherical(self):
        return self.metric == "cosine"

    @property
    def lloyd(self):
        return lloyd.LloydOptions(self.spherical, self.uniform, matrix_precision(self.precision), self.axis_name)


def fit(
    key: KeyArray,
    x,
    k: int,
    *,
    weights=None,
    init="k-means++",
    n_init: int | str = 1,
    tol=1e-4,
    max_steps=300,
    metric: str = "sqeuclidean",
    precision: str | None = None,
    frozen=None,
    active=None,
    axis_name: str | None = None,
) -> Fit:
    """Clusters rows around k centres that minimise the inertia.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centres and inertia have their
    exact gradient with respect to ``x`` and ``weights`` with labels held fixed: the labels of a fit are constants.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        weights: (n,) non-negative row weights; a row of weight 0 is labelled but does not count. None for 1 each.
        init: "k-means++" (greedy), "random" (distinct rows by weight), "k-means||" (few passes, for many devices), or
            (k, d) starting centres.
        n_init: runs from different starts, of which the least inertia wins. "auto" is 10 for "random", else 1.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns. Traced.
        max_steps: the most steps taken. Traced.
        metric: "sqeuclidean", or "cosine" for spherical k-means on rows scaled to unit length.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        frozen: centres that never move: a (k,) mask over given starting centres, or (m, d) centres that take the
            first m places while the rest are seeded around them.
        active: (k,) mask of the centres that take part, for batches of problems with different k. Inactive centres
            have no rows and weight 0.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `KMeansState`, labels (n,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS says that there were fewer distinct rows than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    x = check.check_matrix(x)
    n = x.shape[0] if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    k = check.check_clusters(k, n)
    _check_options(metric, precision, max_steps)
    tol = check.check_positive("tol", tol, zero=True)
    name, given = check_given(init, frozen, active, k, x.shape[1])
    runs = check_runs(name, n_init)
    placed = place(x, weights, center=metric == "sqeuclidean", axis_name=axis_name)
    static = _Static(k, name, runs, metric, precision, placed.uniform, history_capacity(max_steps), axis_name)
    fitted = _fit(static, key, placed.points, placed.origin, given, tol, max_steps)
    return fitted._replace(labels=trim(fitted.labels, placed.n))


def predict(centers, x, *, metric: str = "sqeuclidean") -> Int[Array, " n"]:
    """Index of the nearest of (k, d) centres for each of (n, d) rows; ties go to the lower index.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; a gradient with respect to labels, which have none.
    """
    against, placed = _place_against(centers, x, metric)
    labels = trim(_predict(against, placed.origin, placed.points.x, metric), placed.n)
    return without_derivative(labels, centers, x)


def transform(centers, x, *, metric: str = "sqeuclidean") -> Float[Array, "n k"]:
    """Distance of each row to each centre: Euclidean (data units), or 1 − cos under the cosine metric."""
    centers, placed = _place_against(centers, x, metric)
    return trim(_transform(centers, placed.origin, placed.points.x, metric), placed.n, axis=0)


def score(centers, x, *, weights=None, metric: str = "sqeuclidean") -> Float[Array, ""]:
    """The negative inertia of rows under given centres: higher is better."""
    centers, placed = _place_against(centers, x, metric, weights)
    return _score(centers, placed.origin, placed.points, metric)


def sweep(
    key: KeyArray,
    x,
    ks,
    *,
    n_seeds: int = 1,
    weights=None,
    init: str = "k-means++",
    tol=1e-4,
    max_steps=300,
    metric: str = "sqeuclidean",
    precision: str | None = None,
) -> Fit:
    """Fits every k in ``ks`` from ``n_seeds`` starts, all in one compile.

    Args:
        ks: distinct numbers of clusters.
        n_seeds: starts for each k.
        weights, init, tol, max_steps, metric, precision: as in `fit`.

    Returns:
        A `Fit` whose arrays have two more leading axes, (len(ks), n_seeds). Centres are padded to max(ks) places;
        those beyond a problem's k are zeros of weight 0.

    Raises:
        ValueError, TypeError: as `fit`, or ``ks`` empty or with repetitions.
    """
    x = check.check_matrix(x)
    ks = [check.check_clusters(k, x.shape[0], name="ks") for k in np.atleast_1d(ks)]
    if not ks or len(set(ks)) < len(ks):
        raise ValueError(f"ks={ks} must be one or more distinct numbers of clusters.")
    check.check_choice("init", init, INITS)
    check.check_count("n_seeds", n_seeds)
    _check_options(metric, precision, max_steps)
    tol = check.check_positive("tol", tol, zero=True)
    placed = place(x, weights, center=metric == "sqeuclidean")
    static = _Static(max(ks), init, 1, metric, precision, placed.uniform, history_capacity(max_steps))
    shape = (len(ks), n_seeds)
    counts, index = np.repeat(np.asarray(ks, np.int32), n_seeds), np.arange(len(ks) * n_seeds)
    run = partial(_many_fits, static, len(index), key, placed.points, placed.origin, tol, max_steps)
    traced = check.is_traced(key, placed.points, tol, max_steps)
    fits = run(counts, index) if traced else side_by_side(run, counts, index)
    fits = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), fits)
    fits = fits if traced else jax.device_put(fits)
    return fits._replace(labels=trim(fits.labels, placed.n))


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, origin, given, tol, max_steps):
    points = _prepare(points, static.spherical)
    caller, given = given, given.in_frame(origin, static.spherical)
    held = jax.lax.stop_gradient(points)
    rows = lloyd.Rows(held, squared_norms(held.x))
    centered = static.uniform and not static.spherical
    tol = tol * mean_variance(held, rows.norms, centered=centered, axis_name=static.axis_name)
    best = partial(_best_run, static)
    fitted = (best if static.axis_name else in_groups(best))(rows, given, tol, max_steps, key)
    return _finish(static, fitted, points, origin, given, caller)


@partial(jax.jit, static_argnums=(0, 1))
def _many_fits(static, total, key, points, origin, tol, max_steps, counts, index):
    """Fits for several (k, start): ``counts`` centres take part, and ``index`` says which of ``total`` keys is used."""

    def one(count, key):
        given = Given(active=jnp.arange(static.k) < count)
        return _fit(static, key, points, origin, given, tol, max_steps)

    return many(one, counts, jax.random.split(key, total)[index])


def _best_run(static, rows, given, tol, max_steps, key):
    run = partial(_run, static, rows, given, tol, max_steps)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


def _run(static, rows, given, tol, max_steps, key):
    """One run from one start, on centred rows; its state is a `LloydState`."""
    centers = given.start
    if centers is None:
        masks = {"active": given.active, "fixed": given.fixed, "axis_name": static.axis_name}
        centers = seed_centers(key, rows.points, static.k, init=static.init, **masks)
    limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
    return lloyd.run(centers, rows, given, **limits, options=static.lloyd)


def _finish(static, fitted, points, origin, given, caller):
    """From the frame of the iteration to the caller's: exact inertia, gradients, status."""
    state, axis_name = fitted.state, static.axis_name
    members = state.members
    if given.movable is not None:
        members = jnp.where(given.movable[members], members, static.k)
    attach = differentiable_directions if static.spherical else differentiable_means
    centers = attach(axis_name, state.centers, points, members)
    labels, weight = state.found.labels, state.stats.weight
    inertia = inertia_of(points, centers, labels, spherical=static.spherical, axis_name=axis_name)
    empty = weight <= 0
    if given.active is not None:
        empty &= given.active
        centers = jnp.where(given.active[:, None], centers, -origin)
    status = status_with(fitted.status, incomplete=jnp.any(empty), objective=inertia)
    centers = centers + origin
    if given.movable is not None and not static.spherical:
        centers = caller.keep_frozen(centers)
    public = KMeansState(centers, inertia, weight, state.residual)
    return Fit(public, labels, fitted.steps, status, fitted.history)


def _prepare(points, spherical):
    return Points(normalize(points.x), points.weight) if spherical else points


def _place_against(centers, x, metric, weights=None):
    check.check_choice("metric", metric, METRICS)
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    if check.is_traced(centers):
        origin = jax.lax.stop_gradient(jnp.mean(centers, axis=0))
    else:
        origin = np.mean(np.asarray(centers), axis=0)
    placed = place(x, weights, origin=origin, center=metric == "sqeuclidean")
    return jnp.asarray(centers, placed.origin.dtype), placed


@partial(jax.jit, static_argnums=3)
def _predict(centers, origin, x, metric):
    if metric == "cosine":
        x, centers = normalize(x), normalize(centers)
    return nearest(x, centers - origin)[0]


@partial(jax.jit, static_argnums=3)
def _transform(centers, origin, x, metric):
    return DISTANCES["euclidean" if metric == "sqeuclidean" else metric](x, centers - origin)


@partial(jax.jit, static_argnums=3)
def _score(centers, origin, points, metric):
    spherical = metric == "cosine"
    points, centers = _prepare(points, spherical), centers - origin
    centers = normalize(centers) if spherical else centers
    labels, _ = nearest(jax.lax.stop_gradient(points.x), jax.lax.stop_gradient(centers))
    return -inertia_of(points, centers, labels, spherical=spherical)


def _check_options(metric, precision, max_steps):
    check.check_choice("metric", metric, METRICS)
    matrix_precision(precision)
    check.check_positive("max_steps", max_steps)


def check_runs(name: str, n_init: int | str) -> int:
    """How many starts ``n_init`` asks of the seeding ``name``; given centres are started from once."""
    if n_init == "auto":
        return AUTO_RESTARTS if name == "random" else 1
    if isinstance(n_init, str):
        raise ValueError(f"n_init={n_init!r} must be 'auto' or a number of runs.")
    runs = check.check_count("n_init", n_init)
    return 1 if name == GIVEN else runs

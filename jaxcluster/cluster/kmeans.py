"""k-means by Lloyd's iteration, Euclidean or spherical; with weights, restarts, sweeps, frozen centers and gradients.

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
from jaxcluster.cluster.centroids import (
    coarse_samples,
    differentiable_directions,
    differentiable_means,
    inertia_of,
    with_precision,
)
from jaxcluster.cluster.given import GIVEN, Given, check_given
from jaxcluster.cluster.seeding import INITS, seed_centers
from jaxcluster.core import check, memory
from jaxcluster.core.fold import across, map_rows, tile_rows
from jaxcluster.core.frame import Frame, finalize, frame_of, prepare, publish
from jaxcluster.core.implicit import without_derivative
from jaxcluster.core.iterate import DEFAULT_CAPACITY, history_capacity, status_with
from jaxcluster.core.restart import best_of, in_groups, many, side_by_side
from jaxcluster.ops.distance import METRICS as DISTANCES
from jaxcluster.ops.distance import distances_to_assigned, matrix_precision, normalize, squared_norms
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Points, Published

METRICS = ("sqeuclidean", "cosine")

TRANSFORM_TILE = 1 << 22
"""Distances that `transform` computes at a time."""

AUTO_RESTARTS = 10
"""Runs of ``n_init="auto"`` from random rows; starts that already choose well are run once."""


class KMeansState(NamedTuple):
    """A finished k-means.

    Attributes:
        centers: (k, d) cluster centers; unit rows under the cosine metric.
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

    def leave(self, frame: Frame, *, spherical: bool = False) -> KMeansState:
        """The same state out of the frame of its fit."""
        length = 0 if spherical else 2
        return KMeansState(
            frame.leave(self.centers),
            frame.unscale(self.inertia, length=length, weight=1),
            frame.unscale(self.weight, weight=1),
            frame.unscale(self.residual, length=length),
        )


class _Static(NamedTuple):
    """Options that change the program."""

    k: int
    init: str
    runs: int
    metric: str
    precision: str | None
    uniform: bool
    narrowed: bool
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
    """Clusters rows around k centers that minimize the inertia.

    A pure function: it works under jit, vmap and shard_map and inside other functions. Centers and inertia have their
    exact gradient with respect to ``x`` and ``weights`` with labels held fixed: the labels of a fit are constants.

    Args:
        key: random key for the start.
        x: (n, d) rows.
        k: number of clusters, static, 1 <= k <= n.
        weights: (n,) non-negative row weights; a row of weight 0 is labeled but does not count. None for 1 each.
        init: "k-means++" (greedy), "random" (distinct rows by weight), "k-means||" (few passes, for many devices), or
            (k, d) starting centers.
        n_init: runs from different starts, of which the least inertia wins. "auto" is 10 for "random", else 1.
        tol: stop when Σ‖Δc‖² <= tol × the mean variance of the columns. Traced.
        max_steps: the most steps taken. Traced.
        metric: "sqeuclidean", or "cosine" for spherical k-means on rows scaled to unit length.
        precision: of matrix products: None for full float32, "fast" for the platform's fastest.
        frozen: centers that never move: a (k,) mask over given starting centers, or (m, d) centers that take the
            first m places while the rest are seeded around them.
        active: (k,) mask of the centers that take part, for batches of problems with different k. Inactive centers
            have no rows and weight 0.
        axis_name: the mapped axis over which rows are spread, inside shard_map.

    Returns:
        `Fit` with a `KMeansState`, labels (n,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS says that there were fewer distinct rows than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    options = {"weights": weights, "init": init, "n_init": n_init, "frozen": frozen, "active": active}
    options |= {"tol": tol, "max_steps": max_steps, "metric": metric, "precision": precision, "axis_name": axis_name}
    return fit_framed(key, x, k, **options)[0]


def fit_framed(
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
) -> tuple[Fit, Frame]:
    """`fit`, and the frame in which it was computed."""
    key = check.check_key(key)
    x, k = check.check_samples(x, k, axis_name)
    _check_options(metric, precision, max_steps)
    tol = check.check_positive("tol", tol, zero=True)
    name, given = check_given(init, frozen, active, k, x.shape[1])
    runs = check_runs(name, n_init)
    prepared = prepare(x, weights, unit_rows=metric == "cosine", axis_name=axis_name)
    capacity = history_capacity(max_steps)
    static = _Static(k, name, runs, metric, precision, prepared.uniform, prepared.narrowed, capacity, axis_name)
    inside = given.enter(prepared.frame, static.spherical)
    fitted, coarse = _fit(static, key, prepared.points, inside, tol, max_steps)
    fitted = finalize(fitted, prepared, partial(KMeansState.leave, spherical=metric == "cosine"), **_units(metric))
    centers = fitted.state.centers
    if given.movable is not None and metric != "cosine":
        centers = given.keep_frozen(centers)
    if given.active is not None:
        centers = _blank(centers, given.active)
    fitted = fitted._replace(state=fitted.state._replace(centers=centers))
    return with_precision(fitted, x, prepared.frame, coarse), prepared.frame


def predict(centers, x, *, metric: str = "sqeuclidean", frame: Frame | None = None) -> Int[Array, " n"]:
    """Index of the nearest of (k, d) centers for each of (n, d) samples; ties go to the lower index.

    Args:
        centers: (k, d) in the caller's coordinates.
        x: (n, d) samples.
        metric: as in `fit`.
        frame: of the fit that the centers are from; None for one about the centers.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; a gradient with respect to labels, which have none.
    """
    inside, prepared = _compared(centers, x, metric, frame=frame)
    return without_derivative(prepared.trim(_predict(inside, prepared.points.x, metric)), centers, x)


def transform(centers, x, *, metric: str = "sqeuclidean", frame: Frame | None = None) -> Float[Published, "n k"]:
    """Distance of each sample to each center: Euclidean (data units), or 1 − cos under the cosine metric.

    Arguments as in `predict`. Concrete distances have the dtype of x, float64 too.
    """
    inside, prepared = _compared(centers, x, metric, frame=frame)
    memory.check_table(prepared.n, inside.shape[0], prepared.dtype, "the distances")
    distances = prepared.trim(_transform(inside, prepared.points.x, metric), axis=0)
    return prepared.unscale(distances, length=1 if metric == "sqeuclidean" else 0)


def score(centers, x, *, weights=None, metric: str = "sqeuclidean", frame: Frame | None = None) -> Float[Published, ""]:
    """The negative inertia of samples under given centers: higher is better; see `predict`."""
    inside, prepared = _compared(centers, x, metric, weights, frame=frame)
    return prepared.unscale(_score(inside, prepared.points, metric), **_units(metric))


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
        A `Fit` whose arrays have two more leading axes, (len(ks), n_seeds). Centers are padded to max(ks) places;
        those beyond a problem's k are zeros of weight 0.

    Raises:
        ValueError, TypeError: as `fit`, or ``ks`` empty or with repetitions.
    """
    key = check.check_key(key)
    x = check.check_matrix(x)
    ks = check.check_every_k(ks, x.shape[0])
    if not ks or len(set(ks)) < len(ks):
        raise ValueError(f"ks={ks} must be one or more distinct numbers of clusters.")
    check.check_choice("init", init, INITS)
    check.check_count("n_seeds", n_seeds)
    _check_options(metric, precision, max_steps)
    tol = check.check_positive("tol", tol, zero=True)
    prepared = prepare(x, weights, unit_rows=metric == "cosine")
    static = _Static(
        max(ks), init, 1, metric, precision, prepared.uniform, prepared.narrowed, history_capacity(max_steps)
    )
    shape = (len(ks), n_seeds)
    counts, index = np.repeat(np.asarray(ks, np.int32), n_seeds), np.arange(len(ks) * n_seeds)
    run = partial(_many_fits, static, len(index), key, prepared.points, tol, max_steps)
    traced = check.is_traced(key, prepared.points, tol, max_steps)
    fits = run(counts, index) if traced else side_by_side(run, counts, index)
    fits, coarse = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), fits)
    fits = finalize(fits, prepared, partial(KMeansState.leave, spherical=metric == "cosine"), **_units(metric))
    taking_part = np.arange(static.k) < counts.reshape(*shape, 1)
    fits = fits._replace(state=fits.state._replace(centers=_blank(fits.state.centers, taking_part)))
    fits = fits._replace(**{name: jax.device_put(getattr(fits, name)) for name in ("labels", "steps", "status")})
    return with_precision(fits, x, prepared.frame, coarse)


@partial(jax.jit, static_argnums=0)
def _fit(static, key, points, given, tol, max_steps):
    points = _directions(points, static.spherical)
    held = jax.lax.stop_gradient(points)
    rows = lloyd.Rows(held, squared_norms(held.x))
    best = partial(_best_run, static)
    fitted = (best if static.axis_name else in_groups(best))(rows, given, tol, max_steps, key)
    return _finish(static, fitted, points, rows.norms, given)


@partial(jax.jit, static_argnums=(0, 1))
def _many_fits(static, total, key, points, tol, max_steps, counts, index):
    """Fits for several (k, start): ``counts`` centers take part, and ``index`` says which of ``total`` keys is used."""

    def one(count, key):
        given = Given(active=jnp.arange(static.k, dtype=jnp.int32) < count)
        return _fit(static, key, points, given, tol, max_steps)

    return many(one, counts, jax.random.split(key, total)[index])


def run_in_frame(key: KeyArray, points: Points, k: int, *, active=None, axis_name: str | None = None) -> Fit:
    """One k-means of samples that are in a frame, its state a `lloyd.LloydState`: where other methods start.

    Args:
        key: random key for k-means++.
        points: in the frame of a fit, traced or not.
        k: number of clusters, static.
        active: (k,) mask of the centers that take part, or None.
        axis_name: the mapped axis over which the samples are spread.
    """
    static = _Static(k, "k-means++", 1, "sqeuclidean", None, False, False, DEFAULT_CAPACITY, axis_name)
    points = jax.lax.stop_gradient(points)
    rows = lloyd.Rows(points, squared_norms(points.x))
    return _run(static, rows, Given(active=active), 1e-4, 300, key)


def _best_run(static, rows, given, tol, max_steps, key):
    run = partial(_run, static, rows, given, tol, max_steps)
    return run(key) if static.runs == 1 else best_of(many(run, jax.random.split(key, static.runs)))


def _run(static, rows, given, tol, max_steps, key):
    """One run from one start, on centered rows; its state is a `LloydState`."""
    centers = given.start
    if centers is None:
        masks = {"active": given.active, "fixed": given.fixed, "axis_name": static.axis_name}
        centers = seed_centers(key, rows.points, static.k, init=static.init, **masks)
    limits = {"tol": tol, "max_steps": max_steps, "capacity": static.capacity}
    return lloyd.run(centers, rows, given, **limits, options=static.lloyd)


def _finish(static, fitted, points, norms, given):
    """Exact inertia, gradients and the status of a run, in its frame; and which samples are coarse there."""
    state, axis_name = fitted.state, static.axis_name
    members = state.members
    if given.movable is not None:
        members = jnp.where(given.movable[members], members, static.k)
    attach = differentiable_directions if static.spherical else differentiable_means
    centers = attach(axis_name, state.centers, points, members)
    labels, weight = state.found.labels, state.stats.weight
    own = distances_to_assigned(points.x, centers, labels, spherical=static.spherical)
    inertia = across(points.weight @ own, axis_name)
    empty = weight <= 0
    if given.active is not None:
        empty &= given.active
    status = status_with(fitted.status, objective=inertia, incomplete=jnp.any(empty))
    public = KMeansState(centers, inertia, weight, state.residual)
    coarse = None
    if static.narrowed and not static.spherical:
        coarse = coarse_samples(points.weight, norms, own)
    return Fit(public, labels, fitted.steps, status, fitted.history), coarse


def _directions(points, spherical):
    return Points(normalize(points.x), points.weight) if spherical else points


def _units(metric):
    """The unit of the inertia, for `Frame.unscale`."""
    return {"length": 0 if metric == "cosine" else 2, "weight": 1}


def _blank(centers, active):
    """Centers with those that take no part 0."""
    if check.is_traced(centers, active):
        return jnp.where(jnp.asarray(active)[..., None], centers, 0)
    return publish(np.where(np.asarray(active)[..., None], np.asarray(centers), 0), centers.dtype)


def _compared(centers, x, metric, weights=None, frame=None):
    """Centers and samples in one frame."""
    check.check_choice("metric", metric, METRICS)
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    if metric == "cosine":
        prepared = prepare(x, weights, unit_rows=True)
        return Given(start=centers).enter(prepared.frame, spherical=True).start, prepared
    prepared = prepare(x, weights, frame=frame_of(centers) if frame is None else frame)
    return prepared.frame.enter(centers), prepared


@partial(jax.jit, static_argnums=2)
def _predict(centers, x, metric):
    if metric == "cosine":
        return nearest(normalize(x), centers, unit=True)[0]
    return nearest(x, centers)[0]


@partial(jax.jit, static_argnums=2)
def _transform(centers, x, metric):
    distances = DISTANCES["euclidean" if metric == "sqeuclidean" else metric]
    tile = tile_rows(x.shape[0], centers.shape[0], TRANSFORM_TILE)
    return map_rows(lambda rows: distances(rows, centers), x, tile=tile)


@partial(jax.jit, static_argnums=2)
def _score(centers, points, metric):
    spherical = metric == "cosine"
    points = _directions(points, spherical)
    labels, _ = nearest(*jax.lax.stop_gradient((points.x, centers)), unit=spherical)
    return -inertia_of(points, centers, labels, spherical=spherical)


def _check_options(metric, precision, max_steps):
    check.check_choice("metric", metric, METRICS)
    matrix_precision(precision)
    check.check_positive("max_steps", max_steps)


def check_runs(name: str, n_init: int | str) -> int:
    """How many starts ``n_init`` asks of the seeding ``name``; given centers are started from once."""
    if n_init == "auto":
        return AUTO_RESTARTS if name == "random" else 1
    if isinstance(n_init, str):
        raise ValueError(f"n_init={n_init!r} must be 'auto' or a number of runs.")
    runs = check.check_count("n_init", n_init)
    return 1 if name == GIVEN else runs


memory.guard_functions(__name__)

"""The start of a mixture: parameters, responsibilities, or a quick clustering of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import GMMState, Mixture, Ridge, covariance_type_of, enter_means, shifted
from jaxcluster.cluster.lloyd import mean_variance
from jaxcluster.cluster.seeding import kmeans_plus_plus, random_rows
from jaxcluster.core import check
from jaxcluster.core.frame import Frame
from jaxcluster.core.shard import shard_index
from jaxcluster.ops.distance import HIGHEST, squared_norms
from jaxcluster.ops.gaussian import CovarianceType
from jaxcluster.ops.gaussian.full import factor_dense
from jaxcluster.ops.nearest import nearest
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Points

METHODS = ("kmeans", "k-means++", "random", "random_from_data")


class Start(NamedTuple):
    """The given part of a start; what is None is found by ``method``.

    Attributes:
        means: (k, d). Rows join the nearest of them: what is not given beside them belongs to these components, whereas
            the clusters of a ``method`` other than "random" would come in another order.
        weights: (k,), summing to 1.
        precisions: inverse covariances: (k, d, d) full, (d, d) tied, (k, d) diagonal, (k,) spherical.
        responsibilities: (n, k) of each row for each component, in place of ``method``.
        method: "kmeans" (a k-means of the rows), "k-means++" or "random_from_data" (rows join the nearest of k seeds),
            or "random" (random responsibilities).
        state: a fit to go on from, in place of all others.
    """

    means: Any = None
    weights: Any = None
    precisions: Any = None
    responsibilities: Any = None
    method: str = "kmeans"
    state: GMMState | None = None


class Given(NamedTuple):
    """The arrays of a start in a frame.

    Attributes:
        means: (k, d).
        weights: (k,).
        covariances: in the shape of their type.
        responsibilities: (k, n).
        last_bound: () lower bound of the fit that is continued (nats).
    """

    means: Float[Array, "k d"] | None = None
    weights: Float[Array, " k"] | None = None
    covariances: Array | None = None
    responsibilities: Float[Array, "k n"] | None = None
    last_bound: Float[Array, ""] | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be found."""
        return self.means is not None and self.weights is not None and self.covariances is not None


def check_start(init: Any, covariance_type: CovarianceType, n: int, k: int, d: int) -> Start:
    """``init`` as a `Start` of checked arrays.

    Args:
        init: a method's name, (k, d) means, a `Start`, a tuple or mapping of its fields, or a fitted `GMMState`.

    Raises:
        ValueError, TypeError: an unknown name, a wrong shape, weights that are no shares, precisions that are not
            symmetric positive definite.
    """
    start = _as_start(init)
    check.check_choice("init", start.method, METHODS)
    if start.state is not None:
        _check_state(start.state, covariance_type, k, d)
        return Start(state=start.state)
    shapes = {"means": (k, d), "weights": (k,), "precisions": covariance_type.shape(k, d), "responsibilities": (n, k)}
    arrays = {}
    for name, shape in shapes.items():
        value = getattr(start, name)
        if value is None:
            continue
        value = arrays[name] = value if check.is_traced(value) else np.asarray(value)
        if value.shape != shape:
            raise ValueError(
                f"{name} of the start must have shape {shape} for {covariance_type.name}, got {value.shape}."
            )
        if not check.is_traced(value):
            check.check_finite(value, name=name)
    _check_shares(arrays.get("weights"))
    _check_responsibilities(arrays.get("responsibilities"))
    _check_precisions(arrays.get("precisions"), covariance_type)
    return start._replace(**arrays)


def _check_state(state, covariance_type, k, d):
    if state.means.shape != (k, d):
        raise ValueError(f"init is a state with means of shape {state.means.shape}, but {(k, d)} is asked for.")
    found, _ = covariance_type_of(state)
    # Of one component the shapes do not tell tied from full.
    if found.name != covariance_type.name and not (k == 1 and {found.name, covariance_type.name} == {"full", "tied"}):
        raise ValueError(
            f"init is a state with {found.name} covariances, but covariance={covariance_type.name!r} is asked for."
        )


def enter(
    start: Start, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, rows: int, dtype: np.dtype
) -> Given:
    """A start in a frame, for rows that are padded to so many, as arrays of ``dtype``."""

    def place(value):
        if value is None:
            return None
        return jnp.asarray(value if check.is_traced(value) else np.asarray(value).astype(dtype)).astype(dtype)

    if start.state is not None:
        state = start.state
        covariances = state.covariances[0] if covariance_type.name == "tied" else state.covariances
        last_bound = shifted(state.lower_bound, state.means.shape[1], -1 * ridge.cell, frame)
        covariances = place(frame.scale(covariances, length=2))
        return Given(place(enter_means(state.means, frame)), place(state.weights), covariances, None, place(last_bound))
    r = place(start.responsibilities)
    if r is not None:
        r = jnp.pad(r.T, ((0, 0), (0, rows - r.shape[0])))
    means = None if start.means is None else place(frame.enter(start.means))
    covariances = None if start.precisions is None else _inverse(covariance_type, start.precisions)
    covariances = None if covariances is None else place(frame.scale(covariances, length=2))
    return Given(means, place(start.weights), covariances, r)


def first_mixture(
    options: em.EMOptions,
    method: str,
    key: KeyArray,
    points: Points,
    columns: em.Columns,
    start: Given,
    prior: em.Prior,
    k: int,
) -> tuple[Mixture, Bool[Array, " k"]]:
    """The mixture of a start, and which of its components were kept from collapsing."""
    d = points.x.shape[1]
    covariance_type = options.covariance_type
    if start.complete:
        covariances, factor, repaired = covariance_type.factor(start.covariances, d)
        return Mixture(start.weights, start.means, covariances, factor), jnp.zeros((k,), bool) | repaired
    centers, members = membership(options, method, key, points, start, prior, k)
    broad = broad_mixture(options, points, prior, centers)
    mixture, collapsed, _ = em.fit_moments(
        options,
        lambda reference: em.given_stats(options, broad, reference, columns, members),
        centers,
        broad,
        prior,
    )
    if start.covariances is not None:
        covariances, factor, _ = covariance_type.factor(start.covariances, d)
        mixture = mixture._replace(covariances=covariances, factor=factor)
    given = {name: getattr(start, name) for name in ("weights", "means") if getattr(start, name) is not None}
    return mixture._replace(**given), collapsed


def membership(
    options: em.EMOptions, method: str, key: KeyArray, points: Points, start: Given, prior: em.Prior, k: int
) -> tuple[Float[Array, "k d"], em.Membership]:
    """Centers near the means to come, and the responsibilities of the start."""
    x, weight = points
    origin = jnp.zeros((k, x.shape[1]), x.dtype)
    if start.responsibilities is not None:
        return origin, em.Membership(start.responsibilities, lambda r: r)
    if method == "random":
        return origin, _random_membership(key, points, k, prior.active, options.axis_name)
    filled = jnp.where(jnp.isnan(x), 0, x) if options.missing else x
    points = jax.lax.stop_gradient(Points(filled, weight))
    masks = {"active": prior.active, "axis_name": options.axis_name}
    if start.means is not None:
        return start.means, one_hot_membership(nearest(points.x, start.means, active=prior.active)[0], k)
    if method == "kmeans":
        state = kmeans.run_in_frame(key, points, k, **masks).state
        return state.centers, one_hot_membership(state.found.labels, k)
    if method == "k-means++":
        centers = kmeans_plus_plus(key, points, k, **masks)
    else:
        centers = random_rows(key, points, k, axis_name=options.axis_name)
    return centers, one_hot_membership(nearest(points.x, centers, active=prior.active)[0], k)


def one_hot_membership(labels: Int[Array, " n"], k: int) -> em.Membership:
    """Each row with the component of its label alone."""
    return em.Membership(labels, lambda labels: labels[None, :] == jnp.arange(k, dtype=jnp.int32)[:, None])


def _random_membership(key, points, k, active, axis_name):
    """Uniform responsibilities drawn by the number of a row, whatever rows come after it or on which device it lies."""
    n, dtype = points.weight.shape[0], points.x.dtype
    numbers = jnp.arange(n, dtype=jnp.int32) + shard_index(axis_name) * n

    def draw(numbers):
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (k,), dtype))(keys).T
        drawn = drawn if active is None else jnp.where(active[:, None], drawn, 0)
        return drawn / jnp.sum(drawn, axis=0)[None, :]

    return em.Membership(numbers, draw)


def broad_mixture(options, points, prior, centers):
    """A mixture as wide as the rows: what components without rows keep, and what missing cells are first taken from."""
    k, d = centers.shape
    variance = mean_square(options, points) + prior.reg
    covariances = options.covariance_type.isotropic(variance, k, d).astype(centers.dtype)
    covariances, factor, _ = options.covariance_type.factor(covariances, d)
    return Mixture(jnp.full((k,), 1 / k, centers.dtype), centers, covariances, factor)


def mean_square(options: em.EMOptions, points: Points) -> Float[Array, ""]:
    """The variance of a cell about its column's mean, the mean over the columns (units of the frame, squared).

    A missing cell counts as one at the origin.
    """
    x, weight = jax.lax.stop_gradient(points)
    x = jnp.where(jnp.isnan(x), 0, x) if options.missing else x
    return mean_variance(Points(x, weight), squared_norms(x), axis_name=options.axis_name)


def _inverse(covariance_type, precisions):
    """Covariances of precisions; concrete ones are inverted in float64."""
    if covariance_type.name in ("diag", "spherical"):
        return 1 / (precisions if check.is_traced(precisions) else np.asarray(precisions, np.float64))
    if not check.is_traced(precisions):
        return np.linalg.inv(np.asarray(precisions, np.float64))
    _, factor, _ = factor_dense(precisions)
    return jnp.matmul(factor.root, jnp.swapaxes(factor.root, -1, -2), precision=HIGHEST)


def _as_start(init):
    if isinstance(init, str):
        return Start(method=init)
    if isinstance(init, Start):
        return init
    if isinstance(init, GMMState):
        return Start(state=init)
    if isinstance(init, Mapping):
        unknown = set(init) - set(Start._fields)
        if unknown:
            raise ValueError(f"init has unknown entries {sorted(unknown)}; those known are {list(Start._fields)}.")
        return Start(**init)
    if isinstance(init, tuple):
        return Start(*init)
    return Start(means=check.check_matrix(init, name="init"))


def _check_shares(weights):
    if weights is None or check.is_traced(weights):
        return
    if (weights < 0).any() or not np.isclose(weights.sum(), 1, atol=1e-4):
        raise ValueError(
            f"weights of the start must be shares: not negative, summing to 1. The least is {weights.min():.4g}, the "
            f"sum {weights.sum():.6g}."
        )


def _check_responsibilities(r):
    if r is None or check.is_traced(r):
        return
    sums = r.sum(axis=1)
    if (r < 0).any() or not np.allclose(sums, 1, atol=1e-4):
        worst = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(
            f"responsibilities of the start must be shares of each row: not negative, summing to 1. The least is "
            f"{r.min():.4g}; row {worst} sums to {sums[worst]:.6g}."
        )


def _check_precisions(precisions, covariance_type):
    if precisions is None or check.is_traced(precisions):
        return
    if covariance_type.name in ("diag", "spherical"):
        _refuse(precisions > 0, "positive")
        return
    matrices = np.asarray(precisions, np.float64)
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    scale = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    _refuse((np.abs(matrices - np.swapaxes(matrices, 1, 2)) <= 1e-5 * scale).all(axis=(1, 2)), "symmetric")
    _refuse(np.array([np.linalg.eigvalsh(matrix)[0] > 0 for matrix in matrices]), "positive definite")


def _refuse(sound, what):
    bad = np.flatnonzero(~sound.reshape(sound.shape[0], -1).all(axis=1))
    if bad.size:
        listed = ", ".join(map(str, bad[:8]))
        raise ValueError(f"precisions of the start are not {what} for component{'s' * (bad.size > 1)} {listed}.")

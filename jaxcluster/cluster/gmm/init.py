"""Initialization of a mixture: from parameters, from responsibilities, or by a quick clustering of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster import kmeans
from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import GMMState, Mixture, Ridge, covariance_type_of, enter_means, to_data_units
from jaxcluster.cluster.lloyd import LloydState, mean_variance
from jaxcluster.cluster.seeding import kmeans_plus_plus, random_rows
from jaxcluster.core import processes, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.frame import Frame
from jaxcluster.core.shard import Rows, row_numbers
from jaxcluster.ops.distance import HIGHEST
from jaxcluster.ops.gaussian import CovarianceType
from jaxcluster.ops.gaussian.full import factor_dense
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.rows import squared_norms
from jaxcluster.types import Absent, Array, Bool, Float, Int, KeyArray, Points

METHODS = ("kmeans", "k-means++", "random", "random_from_data")
"""Initialization methods by name; scikit-learn's ``init_params``."""


class GMMInit(NamedTuple):
    """Initial parameters of a mixture; those that are None are computed by ``method``.

    Attributes:
        means: (n_components, n_features). Other parameters that are None are then computed from the samples nearest to
            each mean, not by ``method``, whose clusters would come in another order.
        weights: (n_components,), summing to 1.
        precisions: inverse covariances: (k, d, d) full, (d, d) tied, (k, d) diagonal, (k,) spherical.
        responsibilities: (n_samples, n_components), in place of ``method``.
        method: "kmeans" (the clusters of k-means), "k-means++" or "random_from_data" (samples join the nearest of k
            seeds), or "random" (random responsibilities).
        state: fitted mixture to continue from, in place of all others.
    """

    means: Any = None
    weights: Any = None
    precisions: Any = None
    responsibilities: Any = None
    method: str = "kmeans"
    state: GMMState | None = None


class CenteredInit(NamedTuple):
    """Initial parameters in a frame; those that are None are computed by the method.

    Attributes:
        means: (k, d).
        weights: (k,).
        covariances: in the shape of their type.
        responsibilities: (k, n).
        previous_bound: () lower bound of the fit that is continued (nats per sample).
    """

    means: Float[Array, "k d"] | Absent = None
    weights: Float[Array, " k"] | Absent = None
    covariances: Array | Absent = None
    responsibilities: Float[Array, "k n"] | None = None
    previous_bound: Float[Array, ""] | None = None

    @property
    def complete(self) -> bool:
        """True if all parameters are there, so that no method is needed."""
        return self.means is not None and self.weights is not None and self.covariances is not None


def check_init(init: Any, covariance_type: CovarianceType, n: int, k: int, d: int) -> GMMInit:
    """``init`` as a `GMMInit` of checked arrays.

    Args:
        init: name of a method, (k, d) means, a `GMMInit`, a tuple or mapping of its fields, or a fitted `GMMState`.
        covariance_type: of the mixture.
        n, k, d: numbers of samples, components and features.

    Raises:
        ValueError, TypeError: an unknown name, a wrong shape, weights that are negative or do not sum to 1, precisions
            that are not symmetric positive definite.
    """
    init = _as_init(init)
    validation.check_choice("init", init.method, METHODS)
    if init.state is not None:
        _check_state(init.state, covariance_type, k, d)
        return GMMInit(state=init.state)
    shapes = {"means": (k, d), "weights": (k,), "precisions": covariance_type.shape(k, d), "responsibilities": (n, k)}
    arrays = {}
    for name, shape in shapes.items():
        value = getattr(init, name)
        if value is None:
            continue
        value = arrays[name] = value if validation.is_traced(value) else np.asarray(value)
        if value.shape != shape:
            raise ValueError(f"{name} of init must have shape {shape} for {covariance_type.name}, got {value.shape}.")
        if not validation.is_traced(value):
            validation.check_finite(value, name=name)
    _check_weights(arrays.get("weights"))
    _check_responsibilities(arrays.get("responsibilities"))
    _check_precisions(arrays.get("precisions"), covariance_type)
    return init._replace(**arrays)


def _check_state(state, covariance_type, k, d):
    if state.means.shape != (k, d):
        raise ValueError(f"init is a state with means of shape {state.means.shape}, but {(k, d)} is asked for.")
    actual, _ = covariance_type_of(state)
    # With one component, tied and full covariances have the same shape.
    if actual.name != covariance_type.name and not (k == 1 and {actual.name, covariance_type.name} == {"full", "tied"}):
        raise ValueError(
            f"init is a state with {actual.name} covariances, but covariance={covariance_type.name!r} is asked for."
        )


def center_init(
    init: GMMInit, frame: Frame, covariance_type: CovarianceType, ridge: Ridge, points: Points
) -> CenteredInit:
    """Initial parameters in a frame.

    Args:
        init: checked parameters.
        frame: of the samples.
        covariance_type: of the mixture.
        ridge: of the frame.
        points: samples in the frame, whose dtype the arrays get and to whose padding responsibilities are padded.
    """
    rows, dtype = points.weight.shape[0], points.x.dtype

    def as_array(value):
        if value is None:
            return None
        return jnp.asarray(value if validation.is_traced(value) else np.asarray(value).astype(dtype)).astype(dtype)

    if init.state is not None:
        state = init.state
        covariances = state.covariances[0] if covariance_type.name == "tied" else state.covariances
        previous_bound = to_data_units(state.lower_bound, state.means.shape[1], -1 * ridge.log_jacobian, frame)
        covariances = as_array(frame.scale(covariances, length=2))
        return CenteredInit(
            as_array(enter_means(state.means, frame)),
            as_array(state.weights),
            covariances,
            None,
            as_array(previous_bound),
        )
    if init.responsibilities is not None and processes.is_spread(points.x):
        # Those of this process would stand where the samples of the first one are.
        raise ValueError("responsibilities as init are for one process: pass means, or the name of a method.")
    r = as_array(init.responsibilities)
    if r is not None:
        r = jnp.pad(r.T, ((0, 0), (0, rows - r.shape[0])))
    # Precisions are inverted before they are scaled: the frame scales covariances exactly, by a power of two.
    means = None if init.means is None else as_array(frame.enter(init.means))
    covariances = None if init.precisions is None else _inverse(covariance_type, init.precisions)
    covariances = None if covariances is None else as_array(frame.scale(covariances, length=2))
    return CenteredInit(means, as_array(init.weights), covariances, r)


def init_specs(rows: Rows) -> CenteredInit:
    """Specs of a `CenteredInit` over devices: the samples are the columns of the responsibilities."""
    init = CenteredInit._make([rows.whole] * len(CenteredInit._fields))
    return init._replace(responsibilities=rows.column)


def initial_mixture(
    options: em.EMOptions,
    method: str,
    key: KeyArray,
    points: Points,
    samples: em.TransposedPoints,
    init: CenteredInit,
    params: em.MStepParams,
    k: int,
    clustering: LloydState | None = None,
) -> tuple[Mixture, Bool[Array, " k"]]:
    """Mixture of the initial parameters; ``clustering`` is that of the method "kmeans", where it is known.

    Returns:
        The mixture, and the mask (k,) of the components that were kept from collapsing.
    """
    d = points.x.shape[1]
    covariance_type = options.covariance_type
    if init.complete:
        covariances, factor, repaired = covariance_type.factor(init.covariances, d)
        return Mixture(init.weights, init.means, covariances, factor), jnp.zeros((k,), bool) | repaired
    centers, responsibilities = initial_responsibilities(options, method, key, points, init, params, k, clustering)
    broad = _broad_mixture(options, points, params, centers)
    mixture, collapsed, _ = em.recentered_m_step(
        options,
        lambda reference: em.stats_from_responsibilities(options, broad, reference, samples, responsibilities),
        centers,
        broad,
        params,
    )
    if init.covariances is not None:
        covariances, factor, _ = covariance_type.factor(init.covariances, d)
        mixture = mixture._replace(covariances=covariances, factor=factor)
    fixed = {name: getattr(init, name) for name in ("weights", "means") if getattr(init, name) is not None}
    return mixture._replace(**fixed), collapsed


def initial_responsibilities(
    options: em.EMOptions,
    method: str,
    key: KeyArray,
    points: Points,
    init: CenteredInit,
    params: em.MStepParams,
    k: int,
    clustering: LloydState | None = None,
) -> tuple[Float[Array, "k d"], em.TiledResponsibilities]:
    """Initial responsibilities: those of ``init``, random ones, or one-hot ones of nearest means or of a clustering.

    ``clustering`` is that of the method "kmeans", where it is known.

    Returns:
        Centers (k, d) near the means that follow, and the responsibilities.
    """
    x = points.x
    origin = jnp.zeros((k, x.shape[1]), x.dtype)
    if init.responsibilities is not None:
        return origin, em.TiledResponsibilities(init.responsibilities, lambda r: r)
    if method == "random":
        return origin, _random_responsibilities(key, points, k, params.active, options.axis_name)
    points = _filled(options, points)
    masks = {"active": params.active, "axis_name": options.axis_name}
    if init.means is not None:
        return init.means, one_hot_responsibilities(nearest(points.x, init.means, active=params.active)[0], k)
    if method == "kmeans":
        state = kmeans.run_in_frame(key, points, k, **masks).state if clustering is None else clustering
        return state.centers, one_hot_responsibilities(state.assignment.labels, k)
    if method == "k-means++":
        centers = kmeans_plus_plus(key, points, k, **masks)
    else:
        centers = random_rows(key, points, k, axis_name=options.axis_name)
    return centers, one_hot_responsibilities(nearest(points.x, centers, active=params.active)[0], k)


def cluster_in_chunks(
    options: em.EMOptions,
    method: str,
    key: KeyArray,
    points: Points,
    init: CenteredInit,
    active: Bool[Array, " k"] | None,
    k: int,
) -> LloydState | None:
    """The clustering of `initial_responsibilities` for concrete samples, which Ctrl-C can end; None for none."""
    if method != "kmeans" or init.complete or init.means is not None or init.responsibilities is not None:
        return None
    return kmeans.run_in_chunks(key, _compiled_filled(options, points), k, active=active).state


def _filled(options, points):
    """Samples for a clustering: missing values are 0, the origin of the frame, and there is no gradient."""
    x, weight = points
    return jax.lax.stop_gradient(Points(jnp.where(jnp.isnan(x), 0, x) if options.missing else x, weight))


_compiled_filled = persistent_jit(_filled, static_argnums=0)


def one_hot_responsibilities(labels: Int[Array, " n"], k: int) -> em.TiledResponsibilities:
    """Responsibility 1 of each sample's label."""
    return em.TiledResponsibilities(labels, lambda labels: labels[None, :] == jnp.arange(k, dtype=jnp.int32)[:, None])


def _random_responsibilities(key, points, k, active, axis_name):
    """Uniform random responsibilities, drawn for each sample from its number."""
    # The key of a sample depends on its number alone: neither padding nor the number of devices changes the draw.
    dtype, indices = points.x.dtype, row_numbers(points.weight, axis_name)

    def draw(indices):
        keys = jax.vmap(partial(jax.random.fold_in, key))(indices)
        r = jax.vmap(lambda key: jax.random.uniform(key, (k,), dtype))(keys).T
        r = r if active is None else jnp.where(active[:, None], r, 0)
        return r / jnp.sum(r, axis=0)[None, :]

    return em.TiledResponsibilities(indices, draw)


def _broad_mixture(options, points, params, centers):
    """Mixture with the variance of the data, for components without samples and for missing values at first."""
    k, d = centers.shape
    variance = mean_feature_variance(options, points) + params.reg
    covariances = options.covariance_type.isotropic(variance, k, d).astype(centers.dtype)
    covariances, factor, _ = options.covariance_type.factor(covariances, d)
    return Mixture(jnp.full((k,), 1 / k, centers.dtype), centers, covariances, factor)


def mean_feature_variance(options: em.EMOptions, points: Points) -> Float[Array, ""]:
    """Weighted variance of the features, averaged over the features (frame units²); missing values count as 0."""
    x, weight = jax.lax.stop_gradient(points)
    x = jnp.where(jnp.isnan(x), 0, x) if options.missing else x
    return mean_variance(Points(x, weight), squared_norms(x), axis_name=options.axis_name)


def _inverse(covariance_type, precisions):
    """Covariances from precisions; concrete ones are inverted in float64."""
    if covariance_type.name in ("diag", "spherical"):
        return 1 / (precisions if validation.is_traced(precisions) else np.asarray(precisions, np.float64))
    if not validation.is_traced(precisions):
        return np.linalg.inv(np.asarray(precisions, np.float64))
    _, factor, _ = factor_dense(precisions)
    return jnp.matmul(factor.root, jnp.swapaxes(factor.root, -1, -2), precision=HIGHEST)


def _as_init(init):
    if isinstance(init, str):
        return GMMInit(method=init)
    if isinstance(init, GMMInit):
        return init
    if isinstance(init, GMMState):
        return GMMInit(state=init)
    if isinstance(init, Mapping):
        unknown = set(init) - set(GMMInit._fields)
        if unknown:
            raise ValueError(f"init has unknown entries {sorted(unknown)}; known are {list(GMMInit._fields)}.")
        return GMMInit(**init)
    if isinstance(init, tuple):
        return GMMInit(*init)
    return GMMInit(means=validation.check_matrix(init, name="init"))


def _check_weights(weights):
    if weights is None or validation.is_traced(weights):
        return
    if (weights < 0).any() or not np.isclose(weights.sum(), 1, atol=1e-4):
        raise ValueError(
            f"weights of init must not be negative and must sum to 1. The least is {weights.min():.4g}, the sum "
            f"{weights.sum():.6g}."
        )


def _check_responsibilities(r):
    if r is None or validation.is_traced(r):
        return
    sums = r.sum(axis=1)
    if (r < 0).any() or not np.allclose(sums, 1, atol=1e-4):
        worst = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(
            f"responsibilities of init must not be negative and must sum to 1 for each row. The least is "
            f"{r.min():.4g}; row {worst} sums to {sums[worst]:.6g}."
        )


def _check_precisions(precisions, covariance_type):
    if precisions is None or validation.is_traced(precisions):
        return
    if covariance_type.name in ("diag", "spherical"):
        _raise_unless(precisions > 0, "positive")
        return
    matrices = np.asarray(precisions, np.float64)
    matrices = matrices.reshape(-1, *matrices.shape[-2:])
    scale = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    _raise_unless((np.abs(matrices - np.swapaxes(matrices, 1, 2)) <= 1e-5 * scale).all(axis=(1, 2)), "symmetric")
    _raise_unless(np.array([np.linalg.eigvalsh(matrix)[0] > 0 for matrix in matrices]), "positive definite")


def _raise_unless(sound, what):
    bad = np.flatnonzero(~sound.reshape(sound.shape[0], -1).all(axis=1))
    if bad.size:
        listed = ", ".join(map(str, bad[:8]))
        raise ValueError(f"precisions of init are not {what} for component{'s' * (bad.size > 1)} {listed}.")

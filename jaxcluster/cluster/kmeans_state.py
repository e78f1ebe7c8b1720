"""State of a finished k-means, and the assignment of samples to its centers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.lloyd import inertia_of
from jaxcluster.cluster.seeding import FROM_CENTERS, CenterConstraints
from jaxcluster.core import memory, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import publish
from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.core.frame import Frame, frame_of
from jaxcluster.core.implicit import non_differentiable
from jaxcluster.core.padding import padded_clusters
from jaxcluster.core.preparation import Prepared, prepare, unpad
from jaxcluster.core.sources import RowSource
from jaxcluster.core.sparse_input import check_rows
from jaxcluster.core.streaming import over_blocks, rows_of_block
from jaxcluster.ops.nearest import nearest
from jaxcluster.ops.rows import distances_to_centers, normalize
from jaxcluster.types import Array, Float, Int, Points, Published

METRICS = ("sqeuclidean", "cosine")

TRANSFORM_TILE = 1 << 22
"""Distances that `transform` computes at a time."""


class KMeansState(NamedTuple):
    """A finished k-means.

    Attributes:
        centers: (k, d) cluster centers; unit rows under the cosine metric.
        inertia: () Σ w·‖x − c‖² (data units²), or Σ w·(1 − cos) under the cosine metric.
        weight: (k,) total weight of the samples of each cluster.
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

    def leave(self, frame: Frame, *, k: int | None = None, spherical: bool = False) -> KMeansState:
        """The same state out of the frame of its fit; of padded clusters the first k."""
        length, centers, weight = 0 if spherical else 2, self.centers, self.weight
        if k is not None:
            centers, weight = unpad(centers, k, axis=-2), unpad(weight, k)
        return KMeansState(
            frame.leave(centers),
            frame.unscale(self.inertia, length=length, weight=1),
            frame.unscale(weight, weight=1),
            frame.unscale(self.residual, length=length),
        )


def zero_inactive(centers: Any, active: Any) -> Any:
    """Centers (…, k, d), those outside of the mask ``active`` (…, k) 0."""
    if validation.is_traced(centers, active):
        return jnp.where(jnp.asarray(active)[..., None], centers, 0)
    return publish(np.where(np.asarray(active)[..., None], np.asarray(centers), 0), centers.dtype)


@over_blocks
def predict(state: Any, x: Any, *, metric: str = "sqeuclidean", frame: Frame | None = None) -> Int[Array, " n"]:
    """Index of the nearest center of each sample; ties go to the lower index.

    Args:
        state: of a fit; or any (k, n_features) centers, in the caller's coordinates.
        x: (n_samples, n_features), dense or sparse, or a source of rows.
        metric: as in `fit`.
        frame: of the fit that the centers are from; None for one about the centers.

    Returns:
        (n_samples,) int32 labels.

    Raises:
        ValueError, TypeError: wrong shapes, values or names; a gradient with respect to labels, which have none.
    """
    inside, active, prepared = _in_one_frame(state, x, metric, frame=frame)
    labels = prepared.unpad(_predict(inside, active, prepared.points.x, metric))
    return non_differentiable(labels, _centers_of(state), x)


@over_blocks
def transform(
    state: Any, x: Any, *, metric: str = "sqeuclidean", frame: Frame | None = None
) -> Float[Published, "n k"]:
    """Distance of each sample to each center: Euclidean (data units), or 1 − cos under the cosine metric.

    Arguments as in `predict`.

    Returns:
        (n_samples, k) distances; concrete ones have the dtype of x, float64 too.
    """
    inside, _, prepared = _in_one_frame(state, x, metric, frame=frame)
    k = np.shape(_centers_of(state))[0]
    memory.check_table(prepared.n, k, prepared.dtype, "the distances")
    distances = unpad(prepared.unpad(_transform(inside, prepared.points.x, metric), axis=0), k, axis=1)
    return prepared.unscale(distances, length=1 if metric == "sqeuclidean" else 0)


def score(
    state: Any, x: Any, *, weights: Any = None, metric: str = "sqeuclidean", frame: Frame | None = None
) -> Float[Published, ""]:
    """Negative inertia of samples (higher is better); arguments as in `fit` and `predict`."""
    if isinstance(x, RowSource):
        weights = None if weights is None else validation.check_weights(weights, len(x))
        total, start = 0.0, 0
        for block in x.blocks(rows_of_block(x)):
            part = None if weights is None else weights[start : start + len(block)]
            start += len(block)
            if part is None or part.any():
                total += float(score(state, block, weights=part, metric=metric, frame=frame))
        return np.asarray(total)
    inside, active, prepared = _in_one_frame(state, x, metric, weights, frame=frame)
    return prepared.unscale(_score(inside, active, prepared.points, metric), **units_of_inertia(metric))


def padded_number(k: int, prepared: Prepared, init: str, mesh: Any, *arguments: Any) -> int | None:
    """`padded_clusters` of a fit; k-means‖ is not padded, as more clusters would draw other candidates."""
    if mesh is not None or init == "k-means||":
        return None
    rows, d = prepared.points.x.shape
    return padded_clusters(k, rows, rows * d, prepared.points, *arguments)


def directions(points: Points, spherical: bool) -> Points:
    """Samples of unit length where ``spherical``, else as they are."""
    return Points(normalize(points.x), points.weight) if spherical else points


def units_of_inertia(metric: str) -> dict[str, int]:
    """Unit of the inertia, for `Frame.unscale`."""
    return {"length": 0 if metric == "cosine" else 2, "weight": 1}


def _centers_of(state):
    """Centers of the state of a fit, or the centers themselves."""
    return getattr(state, "centers", state)


def _in_one_frame(state, x, metric, weights=None, frame=None):
    """Centers and samples in one frame, the centers padded; and the mask of those that are no padding."""
    validation.check_choice("metric", metric, METRICS)
    centers = validation.check_matrix(_centers_of(state), name="centers")
    x = check_rows(x)
    validation.check_width(x, centers.shape[1])
    if metric == "cosine":
        # Directions have no origin to be centered about, and unit vectors no scale.
        prepared = prepare(x, weights, unit_rows=True, pad_columns=True)
    else:
        prepared = prepare(x, weights, frame=frame_of(centers) if frame is None else frame, pad_columns=True)
    k, columns = centers.shape[0], prepared.points.x.shape[1]
    padded = padded_number(k, prepared, FROM_CENTERS, None, centers, frame)
    constraints = CenterConstraints(initial=centers).padded(k, padded)
    inside = constraints.enter(prepared.frame, spherical=metric == "cosine", columns=columns)
    return inside.initial, inside.active, prepared


@persistent_jit(static_argnums=3)
def _predict(centers, active, x, metric):
    spherical = metric == "cosine"
    return nearest(normalize(x) if spherical else x, centers, active=active, unit=spherical)[0]


@persistent_jit(static_argnums=2)
def _transform(centers, x, metric):
    metric = "euclidean" if metric == "sqeuclidean" else metric
    tile = tile_rows(x.shape[0], centers.shape[0], TRANSFORM_TILE)
    return map_rows(lambda rows: distances_to_centers(rows, centers, metric), x, tile=tile)


@persistent_jit(static_argnums=3)
def _score(centers, active, points, metric):
    spherical = metric == "cosine"
    points = directions(points, spherical)
    labels, _ = nearest(*jax.lax.stop_gradient((points.x, centers)), active=active, unit=spherical)
    return -inertia_of(points, centers, labels, spherical=spherical)


memory.guard_functions(__name__)

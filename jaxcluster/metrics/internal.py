"""Scores of a labeling by the rows alone: silhouette, Davies–Bouldin, Calinski–Harabasz.

They need concrete arrays, because how many clusters the labels hold decides what is computed; inside ``jit`` and
under ``grad`` use `soft_silhouette`. Rows are computed in float32 (float64 where JAX has it on) from an origin within
each cluster, so neither an offset nor the unit of the data matters, nor how far apart the clusters are. A label such
as −1 is a cluster like any other: leave noise out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxcluster.core import check
from jaxcluster.core.fold import fold_rows, tile_rows
from jaxcluster.core.rows import bucket, float_dtype, place
from jaxcluster.metrics.labels import Coded, encode
from jaxcluster.metrics.silhouette import problem, silhouettes
from jaxcluster.ops.distance import METRICS, metric_function, squared_norms
from jaxcluster.ops.segments import cluster_sums
from jaxcluster.types import Array, Float, Int, Points

PRECOMPUTED = "precomputed"

TILE_ELEMENTS = 1 << 20
"""Entries of a tile of rows, or of a precomputed matrix, whose copies stay in cache."""


def silhouette_samples(
    X: ArrayLike, labels: ArrayLike, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> np.ndarray:
    """The silhouette of each row: (b − a) / max(a, b), in [−1, 1].

    a is the mean distance to the other rows of its cluster, b the least mean distance to the rows of another. Costs
    n² distances in O(n·d) memory; "sqeuclidean" and "cosine" cost n·k.

    Args:
        X: (n, d) rows, or (n, n) distances with a zero diagonal if ``metric`` is "precomputed".
        labels: (n,) cluster of each row, 2 to n − 1 of them.
        metric: a name in ``ops.distance.METRICS``, "precomputed", or a JAX function (n, d), (m, d) -> (n, m).
        p: Minkowski's power.

    Returns:
        (n,) silhouettes; 0 for the row of a cluster of one.

    Raises:
        ValueError: rows or distances that are not finite, labels of another length, fewer than 2 clusters or as many
            as rows, an unknown metric, or a callable that does not return (n, m).
        TypeError: rows that are not numeric, or traced.

    Source: Rousseeuw, Silhouettes, 1987.
    """
    metric = _check_metric(metric, p)
    X, coded = _check_labeled(X, labels, "silhouette_samples")
    if metric == PRECOMPUTED:
        return _precomputed_silhouettes(_check_distances(X), coded)
    if callable(metric):
        _check_shape(metric, X.shape[1])
    placed = _place(X, movable=isinstance(metric, str) and metric != "cosine")
    arguments, program = problem(placed, coded, metric, p)
    return np.asarray(silhouettes(*arguments, **program))[: placed.n]


def silhouette_score(
    X: ArrayLike,
    labels: ArrayLike,
    *,
    metric: str | Callable = "euclidean",
    sample_size: int | None = None,
    random_state: Any = None,
    p: float = 2.0,
) -> float:
    """The mean silhouette of all rows, or of a sample of them, in [−1, 1]: higher is better.

    Args:
        X, labels, metric, p: as for `silhouette_samples`.
        sample_size: draw as many rows without replacement first; None for all.
        random_state: of the drawing: an int (draws the rows that scikit-learn draws), a NumPy generator, a JAX key, or
            None for another sample each time.

    Raises:
        ValueError, TypeError: as `silhouette_samples`, of the sample.
    """
    if sample_size is not None:
        X, _ = _check_labeled(X, labels, "silhouette_score", count=False)
        rows = _draw(X.shape[0], sample_size, random_state)
        X, labels = np.asarray(X)[rows], np.asarray(labels)[rows]
        X = X[:, rows] if isinstance(metric, str) and metric == PRECOMPUTED else X
    return float(np.mean(silhouette_samples(X, labels, metric=metric, p=p), dtype=np.float64))


def davies_bouldin_score(X: ArrayLike, labels: ArrayLike) -> float:
    """Mean over clusters of the worst (s_i + s_j) / ‖c_i − c_j‖, at least 0: lower is better.

    s is the mean Euclidean distance of a cluster's rows to its mean c. Clusters whose means coincide are not compared.

    Args:
        X: (n, d) rows.
        labels: (n,) cluster of each row, 2 to n − 1 of them.

    Raises:
        ValueError, TypeError: as `silhouette_samples`.

    Source: Davies and Bouldin, A cluster separation measure, 1979.
    """
    coded, centers, squared = _spread(X, labels, "davies_bouldin_score")
    within = np.bincount(coded.codes, np.sqrt(squared)) / coded.counts
    return float(np.mean(_worst_ratios(centers, within)))


def calinski_harabasz_score(X: ArrayLike, labels: ArrayLike) -> float:
    """Scatter between the clusters over scatter within, each by its degrees of freedom: higher is better.

    Args:
        X: (n, d) rows.
        labels: (n,) cluster of each row, 2 to n − 1 of them.

    Returns:
        The ratio; 1 by convention if no row is away from the mean of its cluster.

    Raises:
        ValueError, TypeError: as `silhouette_samples`.

    Source: Caliński and Harabasz, A dendrite method for cluster analysis, 1974.
    """
    coded, centers, squared = _spread(X, labels, "calinski_harabasz_score")
    n, k = coded.codes.size, coded.counts.size
    within = squared.sum()
    if within == 0:
        return 1.0
    overall = coded.counts @ centers / n
    between = coded.counts @ np.sum((centers - overall) ** 2, axis=1)
    return float(between * (n - k) / (within * (k - 1)))


def _spread(X, labels, name):
    """Codes, cluster means and the squared distance of each row to its mean, in float64 and a unit of their own."""
    X, coded = _check_labeled(X, labels, name)
    placed = _place(X, movable=True)
    k = coded.counts.size
    label = np.zeros(placed.points.x.shape[0], np.int32)
    label[: placed.n] = coded.codes
    anchor = np.zeros(bucket(k, least=8), np.int32)
    anchor[coded.codes] = np.arange(placed.n)
    parts, squared = _distances_to_means(placed.points, label, anchor)
    centers = sum(np.asarray(part, np.float64) for part in parts)
    return coded, centers[:k], np.asarray(squared, np.float64)[: placed.n]


@jax.jit
def _distances_to_means(
    points: Points, label: Int[Array, " n"], anchor: Int[Array, " k"]
) -> tuple[tuple[Float[Array, "k d"], ...], Float[Array, " n"]]:
    """Cluster means in three parts, and the squared distance of each row to its mean, at unit scale.

    The parts are the row ``anchor`` of each cluster, the mean seen from there, and what its rounding left over: each
    is small beside the one before, so their sum has more digits than the dtype. Seen from a row of its own cluster
    every row is near, so that differences lose none either.
    """
    x, weight = points
    _, exponent = jnp.frexp(jnp.max(jnp.where(weight[:, None] > 0, jnp.abs(x - x[0]), 0)))
    x = jnp.ldexp(x, -exponent)
    k, tile = anchor.shape[0], tile_rows(*x.shape, TILE_ELEMENTS)
    anchors = x[anchor]

    def sums_from(origins, rows):
        x, weight, label = rows
        away = x
        for origin in origins:
            away = away - origin[label]
        return cluster_sums(Points(away, weight), label, k, uniform=True), squared_norms(away)

    rows = (x, weight, label)
    (sums, counts), _ = fold_rows(lambda tile: sums_from((anchors,), tile), rows, tile=tile)
    counts = jnp.maximum(counts, 1)[:, None]
    shifts = sums / counts
    (sums, _), squared = fold_rows(lambda tile: sums_from((anchors, shifts), tile), rows, tile=tile)
    return (anchors, shifts, sums / counts), squared


def _worst_ratios(centers, within):
    """The largest (s_i + s_j) / ‖c_i − c_j‖ of each cluster, over clusters whose means do not coincide."""
    from scipy.spatial.distance import cdist

    worst = np.empty_like(within)
    tile = max(1, TILE_ELEMENTS // within.size)
    for start in range(0, within.size, tile):
        rows = slice(start, start + tile)
        apart, together = cdist(centers[rows], centers), within[rows, None] + within
        distinct = apart > np.finfo(np.float32).eps * together
        worst[rows] = np.max(np.where(distinct, together, 0) / np.where(distinct, apart, 1), axis=1)
    return worst


def _precomputed_silhouettes(distances, coded):
    order = np.argsort(coded.codes, kind="stable")
    starts = np.cumsum(coded.counts) - coded.counts
    n = coded.codes.size
    out = np.empty(n, distances.dtype)
    tile = max(1, TILE_ELEMENTS // n)
    for start in range(0, n, tile):
        rows = slice(start, start + tile)
        own = coded.codes[rows]
        means = np.add.reduceat(distances[rows][:, order], starts, axis=1, dtype=np.float64)
        here = np.arange(own.size), own
        within = means[here] / np.maximum(coded.counts[own] - 1, 1)
        means /= coded.counts
        means[here] = np.inf
        between = means.min(axis=1)
        larger = np.maximum(within, between)
        defined = (larger > 0) & (coded.counts[own] > 1)
        out[rows] = np.where(defined, (between - within) / np.where(defined, larger, 1), 0)
    return out


def _place(X, *, movable):
    """The rows on the device; those that lose digits when rounded to its dtype are moved to their mean before."""
    if movable and (X.dtype.kind != "f" or X.dtype.itemsize > float_dtype(X.dtype).itemsize):
        check.check_finite(X, name="X")
        X = np.asarray(X) - np.mean(X, axis=0, dtype=np.float64)
    return place(X, center=False)


def _check_labeled(X, labels, name, *, count=True) -> tuple[Any, Coded]:
    """Checked rows and coded labels, of equal length, with 2 to n − 1 clusters unless ``count`` is False."""
    if check.is_traced(X, labels):
        raise TypeError(
            f"{name} needs concrete arrays: the number of clusters decides what is computed. Inside jit, vmap or "
            "grad use soft_silhouette, with one-hot rows for hard labels."
        )
    X, coded = check.check_matrix(X, name="X"), encode(labels)
    n, k = coded.codes.size, coded.counts.size
    if X.shape[0] != n:
        raise ValueError(f"X has {X.shape[0]} rows but labels has {n} entries: inconsistent numbers of samples.")
    if count and not 2 <= k < n:
        raise ValueError(f"Number of labels is {k}. Valid values are 2 to n_samples - 1 = {n - 1} (inclusive).")
    return X, coded


def _check_metric(metric, p):
    """The metric, Minkowski's spelled as the faster one that it equals."""
    if callable(metric):
        return metric
    check.check_choice("metric", metric, [*METRICS, PRECOMPUTED])
    if metric != "minkowski":
        return metric
    metric_function(metric, p=p)
    return {1: "manhattan", 2: "euclidean"}.get(p, metric)


def _check_shape(metric, d):
    x, y = (jax.ShapeDtypeStruct((m, d), float_dtype(np.float32)) for m in (2, 3))
    shape = getattr(jax.eval_shape(metric, x, y), "shape", None)
    if shape != (2, 3):
        raise ValueError(
            f"metric must map (n, d) and (m, d) to (n, m); for n=2 and m=3 it returned shape {shape}. "
            "A function of two rows becomes one by jax.vmap(jax.vmap(f, (None, 0)), (0, None))."
        )


def _check_distances(distances):
    distances = np.asarray(distances)
    n = distances.shape[0]
    if distances.shape != (n, n):
        raise ValueError(f"precomputed distances must be square, got shape {distances.shape}.")
    check.check_finite(distances, name="X")
    distances = distances if distances.dtype.kind == "f" else distances.astype(np.float64)
    diagonal = np.abs(distances.diagonal())
    if (diagonal > 100 * np.finfo(distances.dtype).eps).any():
        raise ValueError(
            "The precomputed distance matrix contains non-zero elements on the diagonal, "
            f"{diagonal.max()} the largest. Use np.fill_diagonal(X, 0)."
        )
    return distances


def _draw(n, size, random_state):
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"sample_size={size!r} must be None or an integer of at least 1.")
    if isinstance(random_state, jax.Array):
        return np.asarray(jax.random.permutation(random_state, n))[:size]
    if not hasattr(random_state, "permutation"):
        random_state = np.random.RandomState(random_state)
    return random_state.permutation(n)[:size]

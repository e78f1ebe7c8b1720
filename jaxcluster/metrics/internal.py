"""Scores of a labeling by the rows alone: silhouette, Davies–Bouldin, Calinski–Harabasz.

They need concrete arrays, because how many clusters the labels hold decides what is computed; inside ``jit`` and
under ``grad`` use `soft_silhouette`. Neither an offset nor the unit of the data matters, nor how far apart the clusters
are, nor single far rows. Davies–Bouldin, Calinski–Harabasz, and silhouettes of few rows are computed on the host in
float64; silhouettes of many in float32 (float64 where JAX has it on), from differences within float32's reach. A label
such as −1 is a cluster like any other: leave noise out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from jaxcluster.core import check
from jaxcluster.core.frame import float_dtype, published_dtype
from jaxcluster.core.integers import moved_alike
from jaxcluster.core.programs import make_room
from jaxcluster.metrics.labels import Coded, encode
from jaxcluster.metrics.silhouette import problem, silhouettes
from jaxcluster.ops.distance import TRANSLATION_INVARIANT, plain_metric
from jaxcluster.ops.host_distance import checked, host_distance

PRECOMPUTED = "precomputed"

ON_DEVICE = (*TRANSLATION_INVARIANT, "cosine", "correlation")
"""Metrics of which the device has a form that loses no digits of float64 rows."""

HOST_WORK = 1 << 22
"""Squared differences, n²·d, up to which the host is done in a few milliseconds, and no program is compiled."""

MEAN_ROUNDING = 8 * np.finfo(np.float64).eps
"""Relative to their lengths, how far apart rounding leaves two means that are the same."""

ORIGIN_SAMPLE = 17
"""Rows whose median is the origin of sums."""

UNSCALED_EXPONENTS = 400
"""Rows that are spread over 2⁻⁴⁰⁰ to 2⁴⁰⁰ keep their unit: sums of their squares are within float64's range."""

TILE_ELEMENTS = 1 << 20
"""Distances that are held at a time."""

BLOCK_ELEMENTS = 1 << 18
"""Entries of rows that a host thread takes at a time, and that stay in its cache."""


def silhouette_samples(
    X: Any, labels: ArrayLike, *, metric: str | Callable = "euclidean", p: float = 2.0
) -> np.ndarray:
    """The silhouette of each row: (b − a) / max(a, b), in [−1, 1].

    a is the mean distance to the other rows of its cluster, b the least mean distance to the rows of another. Costs
    n² distances in O(n·d) memory; "sqeuclidean", "cosine" and "correlation" cost n·k.

    Args:
        X: (n, d) rows, or (n, n) distances with a zero diagonal if ``metric`` is "precomputed".
        labels: (n,) cluster of each row, 2 to n − 1 of them.
        metric: a name in ``ops.distance.METRICS``, "precomputed", or a function of two matrices of rows, (n, d) and
            (m, d), that gives (n, m) distances, or of two rows that gives a number. A function of matrices that JAX can
            trace runs compiled where the dtype it computes in holds the rows exactly; others run on the host.
        p: Minkowski's power.

    Returns:
        (n,) silhouettes, float64 for float64 rows and integers in NumPy, else in the dtype of the rows; 0 for the row
        of a cluster of one.

    Raises:
        ValueError: rows or distances that are not finite, labels of another length, fewer than 2 clusters or as many
            as rows, an unknown metric, or a callable that gives other shapes or no numbers >= 0.
        TypeError: rows that are not numeric, sparse, or traced.

    Source: Rousseeuw, Silhouettes, 1987.
    """
    metric = plain_metric(metric, p, also=(PRECOMPUTED,))
    dtype = _published(X)
    X, coded = _check_labeled(X, labels, "silhouette_samples")
    X = np.asarray(X)
    if metric == PRECOMPUTED:
        distances = _check_distances(X)
        return _by_rows(lambda index: distances[index], coded).astype(dtype)
    check.check_finite(X, name="X")
    if X.dtype.kind != "f":
        X = moved_alike(X)[0] if metric in TRANSLATION_INVARIANT else X.astype(np.float64)
    if _is_traceable(metric, X) if callable(metric) else metric in ON_DEVICE and X.size * len(X) > HOST_WORK:
        make_room()
        arguments, program = problem(X, coded, metric, p)
        return np.asarray(silhouettes(*arguments, **program))[: len(X)].astype(dtype)
    wide = X.astype(np.float64)
    distance = partial(checked, host_distance(metric, wide, p=p))

    def distances_of(index):
        distances = distance(wide[index], wide, index)
        distances[np.arange(index.size), index] = 0
        return distances

    return _by_rows(distances_of, coded).astype(dtype)


def silhouette_score(
    X: Any,
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


def davies_bouldin_score(X: Any, labels: ArrayLike) -> float:
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


def calinski_harabasz_score(X: Any, labels: ArrayLike) -> float:
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
    X = np.asarray(X)
    check.check_finite(X, name="X")
    X = X if X.dtype.kind == "f" else moved_alike(X)[0]
    origin, k = _middle(X), coded.counts.size
    exponent = np.frexp(np.float64(X.max()) / 2 - np.float64(X.min()) / 2)[1]

    def moved(rows):
        away = np.subtract(X[rows], origin)  # float64, as the origin is
        return away if abs(exponent) <= UNSCALED_EXPONENTS else np.ldexp(away, -exponent)

    def sums(rows):
        codes = coded.codes[rows]
        ends = np.arange(codes.size + 1)
        return scipy.sparse.csc_array((np.ones(codes.size), codes, ends), shape=(k, codes.size)) @ moved(rows)

    def squares(rows):
        away = moved(rows)
        away -= means[coded.codes[rows]]
        return np.einsum("ij,ij->i", away, away)

    step = max(1, BLOCK_ELEMENTS // X.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(X), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy lets go of the interpreter
        means = sum(pool.map(sums, blocks)) / coded.counts[:, None]
        return coded, means, np.concatenate(list(pool.map(squares, blocks)))


def _middle(X):
    """The median of a few rows, which one far row cannot drag away as it does a mean."""
    sample = X[np.arange(ORIGIN_SAMPLE) * len(X) // ORIGIN_SAMPLE]
    return np.sort(sample, axis=0)[ORIGIN_SAMPLE // 2].astype(np.float64)


def _worst_ratios(centers, within):
    """The largest (s_i + s_j) / ‖c_i − c_j‖ of each cluster, over clusters whose means do not coincide."""
    from scipy.spatial.distance import cdist

    worst, lengths = np.empty_like(within), np.sqrt(np.sum(centers * centers, axis=1))
    tile = max(1, TILE_ELEMENTS // within.size)
    for start in range(0, within.size, tile):
        rows = slice(start, start + tile)
        apart, together = cdist(centers[rows], centers), within[rows, None] + within
        rounding = MEAN_ROUNDING * (together + lengths[rows, None] + lengths)
        distinct = apart > rounding
        worst[rows] = np.max(np.where(distinct, together, 0) / np.where(distinct, apart, 1), axis=1)
    return worst


def _by_rows(distances_of, coded):
    """The silhouettes from a function of (m,) row numbers that gives (m, n) distances."""
    order = np.argsort(coded.codes, kind="stable")
    starts = np.cumsum(coded.counts) - coded.counts
    n = coded.codes.size
    out = np.empty(n)
    tile = max(1, TILE_ELEMENTS // n)
    for start in range(0, n, tile):
        rows = np.arange(start, min(start + tile, n))
        own = coded.codes[rows]
        means = np.add.reduceat(distances_of(rows)[:, order], starts, axis=1, dtype=np.float64)
        here = np.arange(own.size), own
        within = means[here] / np.maximum(coded.counts[own] - 1, 1)
        means /= coded.counts
        means[here] = np.inf
        between = means.min(axis=1)
        larger = np.maximum(within, between)
        defined = (larger > 0) & (coded.counts[own] > 1)
        out[rows] = np.where(defined, (between - within) / np.where(defined, larger, 1), 0)
    return out


def _check_labeled(X, labels, name, *, count=True) -> tuple[Any, Coded]:
    """Checked rows and coded labels, of equal length, with 2 to n − 1 clusters unless ``count`` is False."""
    if check.is_traced(X, labels):
        raise TypeError(
            f"{name} needs concrete arrays: the number of clusters decides what is computed. Inside jit, vmap or "
            "grad use soft_silhouette, with one-hot rows for hard labels."
        )
    _refuse_sparse(X)
    X, coded = check.check_matrix(X, name="X"), encode(labels)
    n, k = coded.codes.size, coded.counts.size
    if X.shape[0] != n:
        raise ValueError(f"X has {X.shape[0]} rows but labels has {n} entries: inconsistent numbers of samples.")
    if count and not 2 <= k < n:
        raise ValueError(
            f"Number of labels is {k}. Valid values are 2 to n_samples - 1 (inclusive), and n_samples is {n}."
        )
    return X, coded


def _published(X):
    """The dtype of results about rows, float64 where it is not known what they are made of."""
    return published_dtype(X) if isinstance(X, (np.ndarray, jax.Array)) else np.dtype(np.float64)


def _refuse_sparse(X):
    if scipy.sparse.issparse(X):
        raise TypeError(
            "X is a sparse matrix, and scores are computed from dense rows or distances. Pass X.toarray(); in a matrix "
            "of distances set what is absent to what it stands for."
        )


def _is_traceable(metric, X):
    """Whether a callable gives (2, 3) distances for traced matrices, in a dtype that holds these rows exactly."""
    dtype = float_dtype(X.dtype)
    if X.dtype != dtype and not np.array_equal(X, X.astype(dtype)):
        return False
    x, y = (jax.ShapeDtypeStruct((m, X.shape[1]), dtype) for m in (2, 3))
    try:
        return getattr(jax.eval_shape(metric, x, y), "shape", None) == (2, 3)
    except (TypeError, ValueError, IndexError, AttributeError):
        return False  # NumPy's functions, tests of values, or a function of two rows: the host says what is wrong


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

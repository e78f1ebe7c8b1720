"""Scores of a labeling without known classes: silhouette, Davies–Bouldin, Calinski–Harabasz; distances by Gower.

They need concrete arrays, as the number of clusters decides the computation; inside ``jit`` and under ``grad`` use
`soft_silhouette`. Neither an offset nor the unit of the data costs digits, nor the distance between clusters, nor
single far samples. Davies–Bouldin, Calinski–Harabasz, and silhouettes of few samples are computed on the host in
float64; silhouettes of many in float32 (float64 where JAX has it on), from differences that float32 resolves. A label
such as −1 is a cluster like any other: leave noise out.

>>> import numpy as np
>>> silhouette_score(np.array([[0.0], [1.0], [9.0], [10.0]]), [0, 0, 1, 1])
0.8885448916408669
>>> gower_distances([["red", 1.0], ["blue", 3.0], ["red", None]]).tolist()
[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
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

from jaxcluster.core import memory, validation
from jaxcluster.core.dtypes import float_dtype, published_dtype, translated_alike
from jaxcluster.core.processes import gather_parts, gather_rows, spans_processes
from jaxcluster.core.programs import limit_programs
from jaxcluster.core.shard import check_mesh, own_mesh
from jaxcluster.core.sparse_input import check_rows
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.datasets.gower import encode_gower
from jaxcluster.metrics.contingency import EncodedLabels, encode
from jaxcluster.metrics.silhouette import silhouette_arguments, silhouettes
from jaxcluster.ops.distance import GOWER, TRANSLATION_INVARIANT, plain_metric
from jaxcluster.ops.gower import gower
from jaxcluster.ops.metric_space import checked_distances, host_distance, row_lengths, tiles
from jaxcluster.ops.sparse_distance import distances_to_all, means_and_squares

PRECOMPUTED = "precomputed"

DEVICE_METRICS = (*TRANSLATION_INVARIANT, "cosine", "correlation")
"""Metrics with a device implementation that loses no digits of float64 samples."""

MAX_HOST_OPERATIONS = 1 << 22
"""Number of squared differences, n²·d, up to which the host takes a few milliseconds and nothing is compiled."""

MEAN_TOLERANCE = 8 * np.finfo(np.float64).eps
"""Distance of two means, relative to their lengths, that rounding leaves between equal ones."""

ORIGIN_SAMPLE = 17
"""Number of samples whose median is the origin of sums."""

UNSCALED_EXPONENTS = 400
"""Data with a range from 2⁻⁴⁰⁰ to 2⁴⁰⁰ are squared as they are: up to 2⁸⁰⁰, within float64's 2^±1022."""

LARGEST_EXPONENT, HEADROOM = 900, 64
"""Numbers above 2⁹⁰⁰ are divided by 2⁶⁴, so that sums of many are finite; a larger divisor costs the others digits."""

TILE_ELEMENTS = 1 << 20
"""Distances in memory at a time, 8 MiB."""

BLOCK_ELEMENTS = 1 << 18
"""Matrix entries per block of a host thread: 2 MiB, which stay in its cache."""


def silhouette_samples(
    X: Any,
    labels: ArrayLike,
    *,
    metric: str | Callable = "euclidean",
    p: float = 2.0,
    categorical: Any = None,
    mesh: Any = None,
) -> np.ndarray:
    """The silhouette of each sample: (b − a) / max(a, b), in [−1, 1].

    a is the mean distance to the other samples of its cluster, b the least mean distance to another cluster. Costs n²
    distances in O(n·d) memory; "sqeuclidean", "cosine" and "correlation" cost n·k.

    Args:
        X: (n_samples, n_features), or (n_samples, n_samples) distances with a zero diagonal if ``metric`` is
            "precomputed"; sparse ones must be those of all pairs of samples that do not coincide.
        labels: (n_samples,) cluster labels, 2 to n_samples − 1 distinct ones.
        metric: a name in ``ops.distance.METRICS``, "precomputed", "gower" for a table of numbers and categories that
            may have missing cells, or a function of two matrices, (n, d) and (m, d), that returns (n, m) distances, or
            of two samples that returns a number. A function of matrices that JAX can trace is compiled if the dtype it
            computes in holds the samples exactly; others run on the host.
        p: Minkowski's power.
        categorical: for "gower", the categorical columns, as in `jaxcluster.metrics.gower_distances`.
        mesh: devices that share the work, such as ``jaxcluster.sharding.row_mesh()``, each with all samples; None for
            one. For metrics that are computed on devices. Where they are those of several processes, X and labels are
            of this one, and so is the result; each process needs memory for the samples of all.

    Returns:
        (n_samples,) silhouettes, float64 for float64 and integer samples in NumPy, else in the dtype of the samples; 0
        for a cluster of one sample.

    Raises:
        ValueError: samples or distances that are not finite, labels of another length, fewer than 2 clusters or as many
            as samples, an unknown metric, or a callable that returns other shapes or numbers that are not >= 0.
        TypeError: samples that are not numeric or are traced; sparse ones with another metric than "euclidean",
            "sqeuclidean" or "cosine".

    Source: Rousseeuw, Silhouettes, 1987.
    """
    check_mesh(mesh, X)
    X, labels, own = gather_parts(mesh, X, labels)
    X, metric = _encode_tables(X, metric, categorical)
    metric = plain_metric(metric, p, also=(PRECOMPUTED,))
    dtype = published_dtype(X) if isinstance(X, (np.ndarray, jax.Array)) else np.dtype(np.float64)
    X, encoded = _check_samples(X, labels, "silhouette_samples", distances=metric == PRECOMPUTED)
    if is_sparse(X):
        X = _in_own_unit(X) if metric == "sqeuclidean" else X
        return _host_silhouettes(distances_to_all(X, metric), encoded).astype(published_dtype(X.data))
    X = np.asarray(X)
    if metric == PRECOMPUTED and mesh is None:
        distances = _check_distances(X)
        return _host_silhouettes(lambda index: distances[index], encoded).astype(dtype)
    validation.check_finite(X, name="X")
    if X.dtype.kind != "f":
        X = translated_alike(X)[0] if metric in TRANSLATION_INVARIANT else X.astype(np.float64)
    many = mesh is not None or X.size * len(X) > MAX_HOST_OPERATIONS
    if _is_traceable(metric, X) if callable(metric) else many and metric in DEVICE_METRICS:
        limit_programs()
        prepared = silhouette_arguments(X, encoded, metric, p)
        if prepared is not None:
            arguments, program = prepared
            return silhouettes(*arguments, mesh=own_mesh(mesh), own=own, **program)[: len(X)].astype(dtype)[own]
    if mesh is not None:
        raise ValueError(f"metric={metric!r} is computed on the host: leave out mesh=.")
    wide = X.astype(np.float64)
    largest = np.frexp(np.abs(wide).max())[1]
    if metric == "sqeuclidean":
        wide = _in_own_unit(wide)
    elif metric in TRANSLATION_INVARIANT and largest > LARGEST_EXPONENT:
        wide = np.ldexp(wide, -HEADROOM)
    distance = partial(checked_distances, host_distance(metric, wide, p=p))

    def distances_of(index):
        distances = distance(wide[index], wide, index)
        # Exactly 0, whatever a callable returns for a sample and itself.
        distances[np.arange(index.size), index] = 0
        return distances

    return _host_silhouettes(distances_of, encoded).astype(dtype)


def silhouette_score(
    X: Any,
    labels: ArrayLike,
    *,
    metric: str | Callable = "euclidean",
    sample_size: int | None = None,
    random_state: Any = None,
    p: float = 2.0,
    categorical: Any = None,
    mesh: Any = None,
) -> float:
    """The mean silhouette of all samples, or of a random subset, in [−1, 1]: higher is better.

    Args:
        X, labels, metric, p, categorical, mesh: as for `silhouette_samples`. Ranges of columns are those of all
            samples.
        sample_size: size of a subset drawn without replacement; None for all samples.
        random_state: of the subset: an int (draws the subset of scikit-learn), a NumPy generator, a JAX key, or None
            for another one each time.

    Raises:
        ValueError, TypeError: as `silhouette_samples`, of the subset.
    """
    _check_concrete(X, labels, "silhouette_score")
    if spans_processes(mesh):
        if sample_size is not None:
            raise ValueError("sample_size= draws from the samples of one process: leave it out, or leave out mesh=.")
        options = {"metric": metric, "p": p, "categorical": categorical, "mesh": mesh}
        return float(np.mean(gather_rows(silhouette_samples(X, labels, **options)), dtype=np.float64))
    X, metric = _encode_tables(X, metric, categorical)
    if sample_size is not None:
        X, _ = _check_samples(X, labels, "silhouette_score", count=False, distances=metric == PRECOMPUTED)
        rows = _draw_indices(X.shape[0], sample_size, random_state)
        X, labels = (X if is_sparse(X) else np.asarray(X))[rows], np.asarray(labels)[rows]
        X = X[:, rows] if isinstance(metric, str) and metric == PRECOMPUTED else X
    return float(np.mean(silhouette_samples(X, labels, metric=metric, p=p, mesh=mesh), dtype=np.float64))


def davies_bouldin_score(X: Any, labels: ArrayLike) -> float:
    """Mean over clusters of the worst (s_i + s_j) / ‖c_i − c_j‖, at least 0: lower is better.

    s is the mean Euclidean distance of a cluster's samples to its mean c. Clusters with equal means are not compared.

    Args:
        X: (n_samples, n_features), dense or sparse.
        labels: (n_samples,) cluster labels, 2 to n_samples − 1 distinct ones.

    Raises:
        ValueError, TypeError: as `silhouette_samples`.

    Source: Davies and Bouldin, A cluster separation measure, 1979.
    """
    encoded, centers, lengths = _cluster_scatter(X, labels, "davies_bouldin_score")
    within = np.bincount(encoded.codes, lengths) / encoded.counts
    return float(np.mean(_worst_ratios(centers, within)))


def calinski_harabasz_score(X: Any, labels: ArrayLike) -> float:
    """Ratio of between-cluster to within-cluster scatter, each by its degrees of freedom: higher is better.

    Args:
        X: (n_samples, n_features), dense or sparse.
        labels: (n_samples,) cluster labels, 2 to n_samples − 1 distinct ones.

    Returns:
        The ratio; 1 by convention if all samples equal the mean of their cluster.

    Raises:
        ValueError, TypeError: as `silhouette_samples`.

    Source: Caliński and Harabasz, A dendrite method for cluster analysis, 1974.
    """
    encoded, centers, lengths = _cluster_scatter(X, labels, "calinski_harabasz_score")
    n, k = encoded.codes.size, encoded.counts.size
    longest = lengths.max()
    # Clusters of equal samples: 1, scikit-learn's value in place of a division by 0.
    if longest == 0:
        return 1.0
    # The root of the sum, as squares of numbers beyond 1e154 overflow where the ratio does not.
    within = longest * np.sqrt(np.sum(np.square(lengths / longest)))
    between = row_lengths(centers - encoded.counts @ centers / n)
    with np.errstate(over="ignore"):
        return float(encoded.counts @ np.square(between / within) * (n - k) / (k - 1))


def _cluster_scatter(X, labels, name):
    """Encoded labels, cluster means, and distances to the means, in float64 about an origin of the data.

    Both scores are ratios, so that the data may be shifted and scaled: by a median, which one far sample cannot move as
    it moves a mean, and a power of two.
    """
    X, encoded = _check_samples(X, labels, name)
    if is_sparse(X):
        memory.check_centers(encoded.counts.size, X.shape[1], np.dtype(np.float64))
        means, squares = means_and_squares(X, encoded.codes, encoded.counts)
        return encoded, means, np.sqrt(squares)
    X = np.asarray(X)
    validation.check_finite(X, name="X")
    X = X if X.dtype.kind == "f" else translated_alike(X)[0]
    sample = X[np.arange(ORIGIN_SAMPLE) * len(X) // ORIGIN_SAMPLE]
    origin = np.sort(sample, axis=0)[ORIGIN_SAMPLE // 2].astype(np.float64)
    k = encoded.counts.size
    # Halves: the range of data near the limit of float64 would overflow.
    exponent = np.frexp(np.float64(X.max()) / 2 - np.float64(X.min()) / 2)[1]
    extreme = abs(exponent) > UNSCALED_EXPONENTS
    shift = -HEADROOM if exponent > LARGEST_EXPONENT else -exponent if extreme and exponent < 0 else 0
    origin = np.ldexp(origin, shift)

    def center(rows):
        return np.subtract(np.ldexp(X[rows], shift) if shift else X[rows], origin)  # float64, as the origin is

    def sums(rows):
        codes = encoded.codes[rows]
        ends = np.arange(codes.size + 1)
        return scipy.sparse.csc_array((np.ones(codes.size), codes, ends), shape=(k, codes.size)) @ center(rows)

    def lengths(rows):
        deviations = center(rows)
        deviations -= means[encoded.codes[rows]]
        return row_lengths(deviations) if extreme else np.sqrt(np.einsum("ij,ij->i", deviations, deviations))

    step = max(1, BLOCK_ELEMENTS // X.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(X), step)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy releases the GIL
        means = sum(pool.map(sums, blocks)) / encoded.counts[:, None]
        return encoded, means, np.concatenate(list(pool.map(lengths, blocks)))


def _worst_ratios(centers, within):
    """The largest (s_i + s_j) / ‖c_i − c_j‖ of each cluster, over clusters whose means differ by more than rounding."""
    worst, lengths = np.empty_like(within), row_lengths(centers)
    distance = host_distance("euclidean", centers)
    tile = max(1, TILE_ELEMENTS // within.size)
    for start in range(0, within.size, tile):
        rows = slice(start, start + tile)
        between, sums = distance(centers[rows], centers), within[rows, None] + within
        # The distances are of differences, so their error is that of the means: of their lengths and the spread.
        rounding = MEAN_TOLERANCE * (sums + lengths[rows, None] + lengths)
        distinct = between > rounding
        worst[rows] = np.max(np.where(distinct, sums, 0) / np.where(distinct, between, 1), axis=1)
    return worst


def _in_own_unit(x):
    """Rows in the power of two of their median entry: silhouettes have no unit, and squares half of the exponents.

    Not of the largest: beside one far row the squares of all others would be 0. Its own are infinite then.
    """
    entries = np.abs(x.data if is_sparse(x) else x).astype(np.float64)
    entries = entries[entries > 0]
    if not entries.size:
        return x
    median, largest = np.frexp([np.median(entries), entries.max()])[1]
    exponent = min(-median, LARGEST_EXPONENT - largest)
    if not is_sparse(x):
        return np.ldexp(x, exponent)
    x = x.astype(np.float64, copy=True)
    x.data = np.ldexp(x.data, exponent)
    return x


def _host_silhouettes(distances_of, encoded):
    """Silhouettes from a function of (m,) sample indices that returns (m, n) distances."""
    order = np.argsort(encoded.codes, kind="stable")
    starts = np.cumsum(encoded.counts) - encoded.counts
    n = encoded.codes.size
    out = np.empty(n)
    tile = max(1, TILE_ELEMENTS // n)
    for start in range(0, n, tile):
        rows = np.arange(start, min(start + tile, n))
        own = encoded.codes[rows]
        # One pass sums the columns of each cluster: sorted by cluster, they are contiguous.
        with np.errstate(over="ignore"):
            means = np.add.reduceat(distances_of(rows)[:, order], starts, axis=1, dtype=np.float64)
        diagonal = np.arange(own.size), own
        within = means[diagonal] / np.maximum(encoded.counts[own] - 1, 1)
        means /= encoded.counts
        means[diagonal] = np.inf
        between = means.min(axis=1)
        several = encoded.counts[own] > 1
        if (beyond := np.isinf(within) & several).any():
            raise ValueError(
                f"distances of row {rows[beyond][0]} are beyond float64, which holds numbers up to 1e308. Scale the "
                "columns."
            )
        # A mean distance to the others that is beyond float64 leaves nothing of that within the cluster.
        infinite = np.isinf(between) & several
        larger = np.maximum(within, between)
        defined = (larger > 0) & several & ~infinite
        with np.errstate(invalid="ignore"):
            scores = (between - within) / np.where(defined, larger, 1)
        out[rows] = np.where(defined, scores, infinite)
    return out


def _check_concrete(X, labels, name):
    if validation.is_traced(X, labels):
        raise TypeError(
            f"{name} needs concrete arrays: the number of clusters decides what is computed. Inside jit, vmap or "
            "grad use soft_silhouette, with one-hot rows for hard labels."
        )


def _encode_tables(X, metric, categorical):
    """Encoded rows and Gower's distance for the metric "gower"; X and the metric themselves for any other."""
    if isinstance(metric, str) and metric == GOWER:
        return encode_gower(X, categorical=categorical)[1], gower
    if categorical is not None:
        raise ValueError(f"categorical= is for metric='gower', and metric is {metric!r}. Leave it out.")
    return X, metric


def _check_samples(X, labels, name, *, count=True, distances=False) -> tuple[Any, EncodedLabels]:
    """Check samples, or distances, and labels.

    Returns:
        The samples and encoded labels, of equal length, with 2 to n − 1 clusters unless ``count`` is False.
    """
    _check_concrete(X, labels, name)
    X, encoded = check_rows(X, name="X"), encode(labels)
    if distances and is_sparse(X):
        X = _fill_distances(X)
    n, k = encoded.codes.size, encoded.counts.size
    if X.shape[0] != n:
        raise ValueError(f"X has {X.shape[0]} rows but labels has {n} entries: inconsistent numbers of samples.")
    if count and not 2 <= k < n:
        raise ValueError(
            f"Number of labels is {k}. Valid values are 2 to n_samples - 1 (inclusive), and n_samples is {n}."
        )
    return X, encoded


def _fill_distances(X: Any) -> np.ndarray:
    """Sparse distances as a dense matrix, in which those that are absent are 0.

    Samples at distance 0 are equally far from all others. Where they are not, distances are missing, as in a graph of
    neighbors, and not 0.
    """
    n, m = X.shape
    memory.check_table(n, m, np.float64, "dense distances")
    filled = X.toarray()
    if n != m:
        return filled  # to be refused as a dense one
    zero = (filled == 0) | np.eye(n, dtype=bool)
    first = np.argmax(zero, axis=1)  # the first of the samples that coincide
    if not (np.array_equal(zero, zero[first]) and np.allclose(filled, filled[first], rtol=1e-5, atol=0)):
        raise ValueError(
            "X is a sparse matrix of distances that misses some, as a graph of neighbors does, and silhouettes are of "
            "all distances. Pass X.toarray() with the absent entries filled."
        )
    return filled


def _is_traceable(metric, X):
    """True for a callable of traced matrices, if the dtype it computes in holds these samples exactly."""
    dtype = float_dtype(X.dtype)
    if X.dtype != dtype and not np.array_equal(X, X.astype(dtype)):
        return False
    x, y = (jax.ShapeDtypeStruct((m, X.shape[1]), dtype) for m in (2, 3))
    try:
        return getattr(jax.eval_shape(metric, x, y), "shape", None) == (2, 3)
    except (TypeError, ValueError, IndexError, AttributeError):
        # NumPy's functions, tests of values, or a function of two samples: left to the host.
        return False


def _check_distances(distances):
    distances = np.asarray(distances)
    n = distances.shape[0]
    if distances.shape != (n, n):
        raise ValueError(f"precomputed distances must be square, got shape {distances.shape}.")
    validation.check_finite(distances, name="X")
    distances = distances if distances.dtype.kind == "f" else distances.astype(np.float64)
    if (distances < 0).any():
        i, j = np.argwhere(distances < 0)[0]
        raise ValueError(f"precomputed distances must not be negative: X[{i}, {j}] is {distances[i, j]}.")
    diagonal = np.abs(distances.diagonal())
    # Rounding of computed distances is tolerated, as in scikit-learn.
    if (diagonal > 100 * np.finfo(distances.dtype).eps).any():
        raise ValueError(
            "The precomputed distance matrix contains non-zero elements on the diagonal, "
            f"{diagonal.max()} the largest. Use np.fill_diagonal(X, 0)."
        )
    return distances


def _draw_indices(n, size, random_state):
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"sample_size={size!r} must be None or an integer of at least 1.")
    if isinstance(random_state, jax.Array):
        return np.asarray(jax.random.permutation(random_state, n))[:size]
    if not hasattr(random_state, "permutation"):
        # scikit-learn's generator, so that a seed draws the same subset.
        random_state = np.random.RandomState(random_state)
    return random_state.permutation(n)[:size]


def gower_distances(x: Any, y: Any = None, *, categorical: Any = None) -> np.ndarray:
    """Gower's distances between the rows of a table, or of two: in [0, 1].

    The mean over the columns that both rows have of |x_j − y_j| / range_j for numbers, and of 0 or 1 for equal and
    different categories. The ranges are those of all rows; a constant column counts as equal.

    Args:
        x: (n, n_features) array, list of rows, or table of pandas, polars or Arrow; None and NaN are missing cells.
        y: (m, n_features) rows of the same columns; None for x.
        categorical: positions or names of the categorical columns, or a mask. None for those that are so by their type:
            text, booleans and categories; objects unless all of them are numbers.

    Returns:
        (n, m) float64 distances.

    Raises:
        ValueError, TypeError: two rows without a common column; infinite numbers; text in a column of numbers.
        MemoryError: the distances would not fit.

    Source: J. C. Gower, A general coefficient of similarity and some of its properties, Biometrics 27 (1971).
    """
    scale, rows = encode_gower(x, categorical=categorical, others=y, name="x")
    columns = rows if y is None else _encode_other(scale, y)
    memory.check_table(len(rows), len(columns), np.float64, "the distances")
    out = np.empty((len(rows), len(columns)))
    # By tiles: the terms of a pair, one for each column, are never held for all pairs.
    for index in tiles(len(rows), len(columns)):
        out[index] = gower(rows[index], columns)
    if np.isnan(out).any():
        i, j = np.argwhere(np.isnan(out))[0]
        raise ValueError(f"row {i} of x and row {j} of {'x' if y is None else 'y'} have no column that both have.")
    return out


def gower_rows(x: Any, *, categorical: Any = None) -> np.ndarray:
    """Rows for functions that take a metric: pass ``metric=jaxcluster.ops.gower.gower`` with them.

    Args:
        x, categorical: as for `gower_distances`.

    Returns:
        (n, n_features) float64: numbers divided by their range, codes of categories, and a mark for missing cells.
    """
    return encode_gower(x, categorical=categorical, name="x")[1]


def _encode_other(scale, y):
    from jaxcluster.datasets.categories import read_mixed

    return scale.encode(*read_mixed(y, like=scale.columns, missing=True, unseen="ignore", name="y")[1])

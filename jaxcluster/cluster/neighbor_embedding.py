"""Neighbor embedding: a map of samples that keeps near neighbors near, by the objective of UMAP.

Each sample has edges to its nearest neighbors, with weights that fall with the distance beyond the nearest one; the
weights of both ends are joined to those of a fuzzy graph. The map minimizes the cross-entropy of these weights and
q = 1/(1 + a·‖y − y'‖^2b) of the map, by stochastic steps: edges drawn by weight attract their ends, and random samples
repel. Steps of many edges at once are one compiled program, and the same key gives the same map.

>>> import jax, numpy as np
>>> from jaxcluster import neighbor_embedding
>>> x = np.random.default_rng(0).normal(size=(60, 3)) + 20 * (np.arange(60) % 2)[:, None]
>>> y = neighbor_embedding.fit(jax.random.key(0), x, 2, n_neighbors=5, epochs=50).embedding
>>> y.shape
(60, 2)

Source: L. McInnes, J. Healy and J. Melville, UMAP: uniform manifold approximation and projection for dimension
reduction, arXiv:1802.03426 (2018).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.sparse

from jaxcluster.cluster import spectral
from jaxcluster.core import chunks, memory, signals, validation
from jaxcluster.core.compilation import persistent_jit
from jaxcluster.core.dtypes import beyond_float64, translated_alike
from jaxcluster.core.fold import map_rows
from jaxcluster.core.preparation import padded_size
from jaxcluster.ops.metric_space import as_metric_space, unit_exponent
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.types import Array, Float, KeyArray

__all__ = ["INITS", "NeighborMap", "curve_parameters", "fit", "fuzzy_graph", "smooth_distances", "transform"]

INITS = ("spectral", "pca")
"""Starts of a map: eigenvectors of the fuzzy graph, or principal components of the samples."""

INITIAL_EXTENT = 10.0
"""Largest coordinate of the start."""

INITIAL_NOISE = 1e-4
"""Standard deviation of the noise on the start, so that samples that coincide part."""

MAX_GRADIENT = 4.0
"""Bound of each coordinate of the gradient of an edge or a pair."""

MIN_SQUARE = 1e-3
"""Added to squared distances of samples that repel each other, which may coincide."""

BISECTIONS = 64
"""Steps for the width of a neighborhood: more than float32 has digits."""

MIN_WIDTH = 1e-3
"""Least width of a neighborhood relative to its mean distance, for neighbors at equal distances."""

LARGEST_EXPONENT = 480
"""Exponent of the largest coordinate in another unit: squares up to 2⁹⁶⁰ and their sums are finite in float64."""

LARGE_SAMPLES = 10_000
"""Samples from which 200 epochs are enough; 500 for fewer."""

BATCH_EDGES = 4096
"""Edges of a step, at most; at most one for each two samples, since those of a sample are summed."""

TRANSFORM_STEPS = 50
"""Gradient steps that place a new sample on the map."""

TRANSFORM_NEGATIVES = 256
"""Samples of the map that repel a new sample."""

EDGE_BYTES = 160
"""Bytes for each neighbor of each sample while the fuzzy graph is made (measured)."""

PAIR_WORK = 64
"""Products and sums of the gradient of an edge or a pair, for each coordinate: powers, and draws of the ends."""


def __dir__() -> list[str]:
    return __all__


class NeighborMap(NamedTuple):
    """A map of samples, with all that places new ones.

    Attributes:
        embedding: (n_samples, n_components) float32 places.
        samples: (n_samples, n_features) the samples, float64, or integers where float64 would round them.
        a, b: parameters of the curve, see `curve_parameters`.
        n_neighbors: neighbors of a sample.
        negatives: samples that repel, for each edge.
        finite: False where a place is not finite.
        complete: False where Ctrl-C ended the steps.
    """

    embedding: np.ndarray
    samples: np.ndarray
    a: float
    b: float
    n_neighbors: int
    negatives: int
    finite: bool
    complete: bool = True


@signals.keeping_result()
def fit(
    key: KeyArray,
    x: Any,
    n_components: int = 2,
    *,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    spread: float = 1.0,
    init: str = "spectral",
    epochs: int | None = None,
    negatives: int = 5,
    learning_rate: float = 1.0,
) -> NeighborMap:
    """Embed concrete samples.

    Args:
        key: random key of the start and the steps.
        x: (n_samples, n_features) finite samples; at least two.
        n_components: dimension of the map.
        n_neighbors: neighbors of a sample; at most n_samples − 1 are used.
        min_dist: >= 0, distance in the map up to which samples count as equal; less than 3·spread.
        spread: > 0, scale of the map.
        init: a name in `INITS`. "spectral" is "pca" for fewer than n_components + 2 samples.
        epochs: draws of the heaviest edge; None for 500, or 200 from 10,000 samples on.
        negatives: random samples that repel one end of each edge.
        learning_rate: of the first step; it falls to 0.

    Returns:
        `NeighborMap`. Where Ctrl-C ended the steps it is the map so far, and ``complete`` is False.

    Raises:
        ValueError, TypeError: wrong shapes, values or names.
    """
    key = validation.check_key(key)
    samples = _concrete(x)
    rows = translated_alike(samples)[0]
    rows = np.ldexp(rows, unit_exponent(rows, LARGEST_EXPONENT))
    n, n_components = len(rows), validation.check_count("n_components", n_components)
    if n < 2:
        raise ValueError(f"n_samples={n} should be at least 2: one row has no neighbors.")
    validation.check_choice("init", init, INITS)
    used, negatives = min(validation.check_count("n_neighbors", n_neighbors), n - 1), _check_whole(negatives)
    epochs = (500 if n < LARGE_SAMPLES else 200) if epochs is None else validation.check_count("epochs", epochs)
    rate = jnp.float32(validation.check_positive("learning_rate", learning_rate))
    a, b = curve_parameters(min_dist, spread)
    subject = f"the edges of the graph of {used:,} neighbors of {n:,} rows"
    memory.check(EDGE_BYTES * n * used, subject, "Lower n_neighbors, or pass fewer rows.")
    graph = fuzzy_graph(*nearest_rows(as_metric_space(rows), used + 1))
    start_key, noise_key, step_key = jax.random.split(key, 3)
    start = _start(start_key, rows, graph, n_components, init)
    start = start + INITIAL_NOISE * np.asarray(jax.random.normal(noise_key, start.shape))
    batch = min(BATCH_EDGES, max(1, n // 2))
    edges = graph.tocoo()
    # An epoch draws the heaviest edge once on average, and each edge from one of its ends at a time.
    steps = max(1, round(epochs * float(edges.data.sum() / edges.data.max()) / batch))
    # Their number depends on the values of the samples: repeats of the last edge, of no weight, let other samples share
    # the program.
    short = padded_size(edges.nnz) - edges.nnz
    ends = tuple(jnp.asarray(np.pad(each, (0, short), "edge"), jnp.int32) for each in (edges.row, edges.col))
    rising = np.pad(np.cumsum(edges.data) / edges.data.sum(), (0, short), constant_values=1)
    cumulative = jnp.asarray(rising, jnp.float32)
    operands = step_key, ends, cumulative, (jnp.float32(a), jnp.float32(b)), rate, jnp.int32(steps)
    places, taken = _optimize(batch, negatives, jnp.asarray(start, jnp.float32), operands, steps)
    return NeighborMap(places, samples, a, b, used, negatives, bool(np.isfinite(places).all()), taken == steps)


def transform(state: NeighborMap, x: Any) -> np.ndarray:
    """Places of new samples in a map, (n_samples, n_components) float32, each independent of the others.

    A sample that coincides with one of the map has its place. Others start at the mean of their neighbors' places by
    weight, and go down the gradient of the cross-entropy for these neighbors and random samples of the map.

    Args:
        state: of `fit`.
        x: (n_samples, n_features) finite samples.

    Raises:
        ValueError, TypeError: another number of features; values that are not finite.
    """
    rows = _concrete(x)
    if rows.shape[1] != state.samples.shape[1]:
        raise ValueError(f"x has {rows.shape[1]} columns, and the map {state.samples.shape[1]}. Pass the same ones.")
    samples, rows = translated_alike(state.samples, rows)
    exponent = unit_exponent(samples, LARGEST_EXPONENT)
    samples, rows = np.ldexp(samples, exponent), np.ldexp(rows, exponent)
    index, distances = nearest_rows(as_metric_space(samples), state.n_neighbors, queries=rows)
    weights = np.asarray(_weights(jnp.asarray(distances / (distances.mean() or 1.0), jnp.float32)))
    chosen = np.random.default_rng(0).permutation(len(state.embedding))[:TRANSFORM_NEGATIVES]
    inputs = (jnp.asarray(state.embedding[index]), jnp.asarray(weights))
    curve = jnp.float32(state.a), jnp.float32(state.b)
    places = np.array(_place(state.negatives, inputs, jnp.asarray(state.embedding[chosen]), curve))
    equal = distances[:, 0] == 0
    places[equal] = state.embedding[index[equal, 0]]
    return places


def _concrete(x):
    """Checked finite samples, float64, or integers where float64 would round them."""
    rows = np.asarray(validation.check_matrix(x, name="x"))
    validation.check_finite(rows, name="x")
    return rows if beyond_float64(rows) else rows.astype(np.float64)


def smooth_distances(distances: Any) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Distance ρ of the nearest neighbor and width σ of each neighborhood: Σ_j exp(−max(0, d_j − ρ)/σ) = log₂ k.

    Args:
        distances: (n_samples, k) of k neighbors, ascending, the sample itself left out. Neighbors at distance 0 count,
            but ρ is the least distance above 0.

    Returns:
        ρ, 0 where all distances are 0, and σ, (n_samples,) each, in the units of the distances.
    """
    distances, k = jnp.asarray(distances), distances.shape[1]
    positive = jnp.where(distances > 0, distances, jnp.inf)
    nearest = jnp.min(positive, axis=1)
    nearest = jnp.where(jnp.isfinite(nearest), nearest, 0)
    beyond = jnp.maximum(distances - nearest[:, None], 0)
    target = jnp.log2(jnp.asarray(k, distances.dtype))

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        above = jnp.sum(jnp.exp(-beyond / jnp.maximum(middle, jnp.finfo(beyond.dtype).tiny)[:, None]), axis=1) > target
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    # At the width k·max the sum is above k·exp(−1/k), and so above log₂ k.
    high = k * jnp.max(beyond, axis=1)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(high), high))
    return nearest, jnp.maximum((low + high) / 2, MIN_WIDTH * jnp.mean(distances, axis=1))


def fuzzy_graph(index: Any, distances: Any) -> scipy.sparse.csr_array:
    """Symmetric weights in [0, 1] of a graph of neighbors: w + w' − w·w' of the weights from both ends.

    Args:
        index: (n_samples, k + 1) positions of the nearest rows of each row, itself most often among them.
        distances: (n_samples, k + 1) their distances.
    """
    index, distances = np.asarray(index), np.asarray(distances, np.float64)
    n, width = index.shape
    others = index != np.arange(n)[:, None]
    others[others.all(axis=1), -1] = False
    index, distances = index[others].reshape(n, width - 1), distances[others].reshape(n, width - 1)
    # In units of the mean distance, for float32.
    weights = np.asarray(_weights(jnp.asarray(distances / (distances.mean() or 1.0), jnp.float32)), np.float64)
    rows = np.repeat(np.arange(n), width - 1)
    one_way = scipy.sparse.csr_array((weights.ravel(), (rows, index.ravel())), shape=(n, n))
    other_way = one_way.T.tocsr()
    return scipy.sparse.csr_array(one_way + other_way - one_way.multiply(other_way))


@cache
def curve_parameters(min_dist: float = 0.1, spread: float = 1.0) -> tuple[float, float]:
    """Parameters a and b for which 1/(1 + a·d^2b) is nearest to 1 up to ``min_dist`` and exp(−(d − min_dist)/spread).

    Returns:
        a and b.

    Raises:
        ValueError, TypeError: a negative ``min_dist``, or one of 3·spread or more; ``spread`` that is not positive.
    """
    low, scale = validation.check_positive("min_dist", min_dist, zero=True), validation.check_positive("spread", spread)
    if low >= 3 * scale:
        raise ValueError(f"min_dist={min_dist} must be less than three times spread={spread}. Lower it.")
    d = np.linspace(0, 3 * scale, 300)
    wanted = np.where(d < low, 1.0, np.exp(-(d - low) / scale))
    (a, b), _ = scipy.optimize.curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), d, wanted)
    return float(a), float(b)


@persistent_jit
def _weights(distances):
    """Weights exp(−max(0, d − ρ)/σ) of neighbors at these distances."""
    nearest, width = smooth_distances(distances)
    width = jnp.where(width > 0, width, 1)
    return jnp.exp(-jnp.maximum(distances - nearest[:, None], 0) / width[:, None])


def _start(key, rows, graph, n_components, init):
    """(n_samples, n_components) start, its largest coordinate `INITIAL_EXTENT`."""
    if init == "spectral" and len(rows) >= n_components + 2:
        start = np.asarray(spectral.embed(key, graph, n_components, affinity="precomputed", drop_first=True).vectors)
    else:
        centered = rows - rows.mean(axis=0)
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        # Rounding may turn a component around, and the map with it.
        u = u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
        start = np.zeros((len(rows), n_components))
        start[:, : min(n_components, len(s))] = (u * s)[:, :n_components]
    start = start - start.mean(axis=0)
    return start * (INITIAL_EXTENT / (np.abs(start).max() or 1.0))


def attraction(difference: Float[Array, "... m"], curve: tuple[Any, Any]) -> Float[Array, "... m"]:
    """Gradient of log q with respect to the first place: for an edge."""
    a, b = curve
    square = jnp.sum(jnp.square(difference), axis=-1, keepdims=True)
    safe = jnp.where(square > 0, square, 1)
    factor = -2 * a * b * safe ** (b - 1) / (1 + a * safe**b)
    return jnp.clip(jnp.where(square > 0, factor, 0) * difference, -MAX_GRADIENT, MAX_GRADIENT)


def repulsion(difference: Float[Array, "... m"], curve: tuple[Any, Any]) -> Float[Array, "... m"]:
    """Gradient of log(1 − q) with respect to the first place, bounded near 0: for a pair without an edge."""
    a, b = curve
    square = jnp.sum(jnp.square(difference), axis=-1, keepdims=True)
    safe = jnp.where(square > 0, square, 1)
    factor = 2 * b / ((MIN_SQUARE + square) * (1 + a * jnp.where(square > 0, safe**b, 0)))
    return jnp.clip(factor * difference, -MAX_GRADIENT, MAX_GRADIENT)


def _optimize(batch, negatives, places, operands, steps):
    """Take all steps, in chunks between which Ctrl-C ends them.

    Returns:
        The places as NumPy, and the number of steps taken.
    """
    work = PAIR_WORK * batch * (1 + negatives) * places.shape[1]
    budget, taken = chunks.Budget(work), 0
    while taken < steps and not signals.interrupted():
        stop = min(steps, taken + budget.steps) if chunks.is_long(work, steps) else steps
        with budget:
            places = _steps(batch, negatives, places, *operands, jnp.int32(taken), jnp.int32(stop))
            places.block_until_ready()
        taken = stop
    return np.array(places), taken


@persistent_jit(static_argnums=(0, 1))
def _steps(batch, negatives, places, key, ends, cumulative, curve, rate, steps, first, stop):
    """Places after the steps from number ``first`` on, before ``stop``, each of ``batch`` edges drawn by weight."""
    n = places.shape[0]

    def step(i, places):
        draw_key, other_key = jax.random.split(jax.random.fold_in(key, i))
        points = jax.random.uniform(draw_key, (batch,), cumulative.dtype)
        edge = jnp.minimum(jnp.searchsorted(cumulative, points, side="right"), cumulative.shape[0] - 1)
        head, tail = ends[0][edge], ends[1][edge]
        pull = attraction(places[head] - places[tail], curve)
        others = jax.random.randint(other_key, (batch, negatives), 0, n, jnp.int32)
        push = repulsion(places[head][:, None] - places[others], curve)
        push = jnp.sum(jnp.where((others == head[:, None])[:, :, None], 0, push), axis=1)
        size = rate * (1 - i.astype(rate.dtype) / jnp.asarray(steps, rate.dtype))
        return places.at[head].add(size * (pull + push)).at[tail].add(-size * pull)

    return jax.lax.fori_loop(first, stop, step, places)


@persistent_jit(static_argnums=0)
def _place(negatives, inputs, others, curve):
    """Places of new samples, from the places of their neighbors (n, k, m) and the weights of these (n, k)."""

    def place(rows):
        neighbors, weights = rows
        total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), jnp.finfo(weights.dtype).tiny)
        start = jnp.sum((weights / total)[:, :, None] * neighbors, axis=1)

        def step(i, y):
            pull = jnp.sum(weights[:, :, None] * attraction(y[:, None] - neighbors, curve), axis=1)
            push = negatives * total * jnp.mean(repulsion(y[:, None] - others[None], curve), axis=1)
            size = (1 - i.astype(y.dtype) / TRANSFORM_STEPS) / total
            return y + size * (pull + push) / 4

        return jax.lax.fori_loop(jnp.int32(0), jnp.int32(TRANSFORM_STEPS), step, start)

    return map_rows(place, inputs, tile=1024)


def _check_whole(negatives):
    return 0 if isinstance(negatives, int) and negatives == 0 else validation.check_count("negatives", negatives)


memory.guard_functions(__name__)

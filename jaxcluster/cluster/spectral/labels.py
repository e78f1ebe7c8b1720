"""Labels from the rows of an embedding, without k-means: rotated until they are nearly indicators, or by pivots.

Sources: S. X. Yu and J. Shi, Multiclass spectral clustering, ICCV 2003; A. Damle, V. Minden and L. Ying, Simple, direct
and efficient multi-way spectral clustering, Information and Inference 8 (2019).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import check
from jaxcluster.core.frame import exponent_of, times_power_of_two
from jaxcluster.core.iterate import iterate
from jaxcluster.ops.distance import HIGHEST, normalize
from jaxcluster.types import Array, Float, Int, KeyArray, Published, Status


class RotationState(NamedTuple):
    """A rotation that turns unit rows towards the axes.

    Attributes:
        rotation: (k, k) orthonormal columns.
        labels: (n,) int32, the axis that each row is nearest to.
        objective: Σ over rows of 2·(1 − cos) to their axes, after the best rotation for the labels.
        residual: how much the last step lowered it.
    """

    rotation: Float[Array, "k k"]
    labels: Int[Array, " n"]
    objective: Float[Array, ""]
    residual: Float[Array, ""]


def discretize(key: KeyArray, vectors: Float[Published, "n k"], *, tol=1e-6, max_steps=30) -> Int[Array, " n"]:
    """Labels of the rows of k eigenvectors, by the rotation that takes them nearest to indicators: (n,) int32.

    Rows are scaled to length 1; the start is the rows that are most nearly at right angles to each other, from a random
    one on. Works under jit.

    Args:
        key: random key for the first row.
        vectors: of `embed`, of any size.
        tol: stop when a step lowers the distance of the rows from their indicators, squared and summed, by no more than
            this share of the rows. Traced.
        max_steps: the most steps. Traced.
    """
    if check.is_traced(key, vectors, tol, max_steps):
        return _discretize(key, vectors, tol, max_steps)
    with jax.enable_x64(True):
        return jax.device_put(np.asarray(_discretize(key, _checked(vectors), float(tol), max_steps)))


def cluster_qr(vectors: Float[Published, "n k"]) -> Int[Array, " n"]:
    """Labels of the rows of k eigenvectors, by a pivoted QR decomposition of their transpose: (n,) int32.

    The pivots are k rows that stand for the clusters; the eigenvectors are rotated so that these lie along the axes, as
    nearly as an orthonormal matrix allows, and each row takes the axis along which it is longest. Works under jit, and
    there is no chance in it.

    Args:
        vectors: of `embed`, of any size.
    """
    if check.is_traced(vectors):
        exponent = exponent_of(jax.lax.stop_gradient(jnp.max(jnp.abs(vectors))))
        return _cluster_qr(times_power_of_two(vectors, -exponent))
    with jax.enable_x64(True):
        return jax.device_put(np.asarray(_cluster_qr(_checked(vectors))))


def ending(status: Int[Array, ""]) -> Int[Array, ""]:
    """The status of k-means on an embedding: rows that belong together coincide in it but for rounding.

    K-means tells of such clusters as PRECISION, and here nothing else was to be expected.
    """
    return jnp.where(status == Status.PRECISION, jnp.int32(Status.CONVERGED), status)


def _checked(vectors):
    """Concrete vectors in float64, times a power of two that brings the largest entry near 1.

    Divided by the roots of degrees, whose unit is that of the weights, their squares may leave the range of a dtype.
    """
    vectors = np.asarray(check.check_matrix(vectors, name="vectors"), np.float64)
    check.check_finite(vectors, name="vectors")
    return jnp.asarray(np.ldexp(vectors, -np.frexp(np.abs(vectors).max())[1]))


@jax.jit
def _discretize(key, vectors, tol, max_steps):
    rows = normalize(vectors)
    n = rows.shape[0]
    step = partial(_rotate, rows)
    infinite = jnp.full((), jnp.inf, rows.dtype)
    start = RotationState(_nearly_orthogonal(key, rows), jnp.zeros((n,), jnp.int32), infinite, infinite)
    return iterate(step, start, tol=tol * n, max_steps=max_steps).state.labels


@jax.jit
def _cluster_qr(vectors):
    left, _, right = jnp.linalg.svd(vectors[_pivots(vectors)].T)
    turned = jnp.matmul(vectors, jnp.matmul(left, right, precision=HIGHEST), precision=HIGHEST)
    return jnp.argmax(jnp.abs(turned), axis=1).astype(jnp.int32)


def _pivots(vectors):
    """(k,) rows, each the longest of what is left when the directions of those before it are taken away."""

    def choose(left, _):
        lengths = jnp.sum(jnp.square(left), axis=1)
        pivot = jnp.argmax(lengths)
        direction = left[pivot] / jnp.sqrt(jnp.where(lengths[pivot] > 0, lengths[pivot], 1))
        shares = jnp.matmul(left, direction, precision=HIGHEST)
        return left - shares[:, None] * direction[None, :], pivot

    return jax.lax.scan(choose, vectors, length=vectors.shape[1])[1]


def _nearly_orthogonal(key, rows):
    """(k, k) columns: a random row, then again and again the one that is least along those before it."""
    n, k = rows.shape
    first = rows[jax.random.randint(key, (), 0, n)]

    def choose(carry, _):
        along, last = carry
        along = along + jnp.abs(jnp.matmul(rows, last, precision=HIGHEST))
        following = rows[jnp.argmin(along)]
        return (along, following), following

    others = jax.lax.scan(choose, (jnp.zeros_like(rows[:, 0]), first), length=k - 1)[1]
    return jnp.concatenate([first[None], others]).T


def _rotate(rows, state):
    """The labels of a rotation, and the best rotation for them: the polar factor of their products."""
    turned = jnp.matmul(rows, state.rotation, precision=HIGHEST)
    labels = jnp.argmax(turned, axis=1).astype(jnp.int32)
    sums = jnp.zeros_like(state.rotation).at[labels].add(rows)
    left, sizes, right = jnp.linalg.svd(sums)
    objective = 2 * (rows.shape[0] - jnp.sum(sizes))
    rotation = jnp.matmul(left, right, precision=HIGHEST).T
    return RotationState(rotation, labels, objective, jnp.abs(state.objective - objective))

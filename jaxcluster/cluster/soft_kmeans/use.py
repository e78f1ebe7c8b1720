"""Using soft centres: how rows are shared out among them, and at what free energy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.soft_kmeans.step import distances_to, soft_stats, soften
from jaxcluster.core import check
from jaxcluster.core.fold import map_rows
from jaxcluster.core.rows import place, trim
from jaxcluster.types import Array, Float, Int


def free_energy(centers, x, variance, *, weights=None, known=None) -> Float[Array, ""]:
    """−2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²): what `fit` minimises, of any (k, d) centres.

    A row of a known cluster counts with that cluster's term of the sum alone. Differentiable with respect to centers,
    x, variance and weights; arguments as of `fit`.
    """
    centers, placed, variance = _place(centers, x, variance, weights)
    n, rows = placed.n, placed.points.weight.shape[0]
    known = None if known is None else check_known(known, n, centers.shape[0])
    if known is not None:
        known = jnp.pad(known, (0, rows - n), constant_values=-1)
    return _energy(centers, placed.origin, placed.points, known, variance)


def responsibilities(centers, x, variance) -> Float[Array, "n k"]:
    """The share of each of (k, d) centres in each of (n, d) rows; one-hot at variance 0, ties to the lower index.

    Differentiable with respect to all three.
    """
    centers, placed, variance = _place(centers, x, variance)
    return trim(_shares(centers, placed.origin, placed.points.x, variance), placed.n, axis=0)


def check_known(known, n: int, k: int) -> Int[Array, " n"]:
    """``known`` as an int32 array of n clusters below k, −1 for none.

    Raises:
        TypeError: it does not hold integers.
        ValueError: another shape, or numbers that are no cluster's.
    """
    if not check.is_traced(known):
        known = np.asarray(known)
    if known.dtype.kind not in "iu":
        raise TypeError(f"known must hold integers, the cluster of each row or -1 for none, got dtype {known.dtype}.")
    if known.shape != (n,):
        raise ValueError(f"known must have shape ({n},), one a row, got {known.shape}.")
    if not check.is_traced(known) and (known.min() < -1 or known.max() >= k):
        raise ValueError(f"known must lie between -1 (not known) and {k - 1}, got {known.min()} to {known.max()}.")
    return jnp.asarray(known, jnp.int32)


def _place(centers, x, variance, weights=None):
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    check.check_positive("variance", variance, zero=True)
    if check.is_traced(centers):
        origin = jax.lax.stop_gradient(jnp.mean(centers, axis=0))
    else:
        origin = np.mean(np.asarray(centers), axis=0)
    placed = place(x, weights, origin=origin)
    dtype = placed.origin.dtype
    return jnp.asarray(centers, dtype), placed, jnp.asarray(variance, dtype)


@jax.jit
def _energy(centers, origin, points, known, variance):
    return soft_stats(centers - origin, em.as_columns(points), variance, known=known).energy


@jax.jit
def _shares(centers, origin, x, variance):
    distances = distances_to(centers - origin, variance)
    tile = em.em_tile(em.EMOptions("spherical"), x.shape[0], *centers.shape)
    return map_rows(lambda rows: soften(distances(rows.T), variance)[1].T, x, tile=tile)

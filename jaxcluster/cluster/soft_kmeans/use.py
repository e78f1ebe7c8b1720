"""Responsibilities and the free energy of rows under soft centers."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.compare import map_in_place
from jaxcluster.cluster.gmm.state import scaled
from jaxcluster.cluster.soft_kmeans.step import distances_to, soft_stats, soften
from jaxcluster.core import check, memory
from jaxcluster.core.fold import map_rows
from jaxcluster.core.frame import Frame, frame_of, prepare
from jaxcluster.core.implicit import with_derivative_of
from jaxcluster.types import Array, Float, Int, Published

LARGEST_VARIANCE = 100
"""A variance above 2¹⁰⁰ in a frame is taken for that: coordinates are below 2⁴⁰, and all rows are shared alike."""


def free_energy(centers, x, variance, *, weights=None, known=None, frame: Frame | None = None) -> Float[Published, ""]:
    """−2σ²·Σ w·log((1/k)·Σ_j exp(−‖x − c_j‖²/2σ²)) (data units²): what `fit` minimizes, of any (k, d) centers.

    A row of a known cluster counts with that cluster's term of the sum alone. Differentiable with respect to centers,
    x, variance and weights; arguments as of `fit`.

    Args:
        frame: of the fit that the centers are from; None for one about the centers.
    """
    inside, prepared, variance = _compared(centers, x, variance, weights, frame)
    n, rows = prepared.n, prepared.points.weight.shape[0]
    known = None if known is None else check_known(known, n, inside.shape[0])
    if known is not None:
        known = jnp.pad(known, (0, rows - n), constant_values=-1)
    return prepared.unscale(_energy(inside, prepared.points, known, variance), length=2, weight=1)


def responsibilities(centers, x, variance, *, frame: Frame | None = None) -> Float[Published, "n k"]:
    """The share of each of (k, d) centers in each of (n, d) rows; one-hot at variance 0, ties to the lower index.

    Differentiable with respect to all three. ``frame`` is that of the fit, or None for one about the centers.
    """
    inside, prepared, variance = _compared(centers, x, variance, None, frame)
    memory.check_table(prepared.n, inside.shape[0], prepared.dtype, "the shares")
    return prepared.unscale(prepared.trim(_shares(inside, prepared.points.x, variance), axis=0))


def variance_in(frame: Frame, variance, dtype) -> Float[Array, ""]:
    """σ² (data units²) in a frame, at most 2^`LARGEST_VARIANCE`."""
    inside = scaled(frame, variance, length=2)
    if check.is_traced(inside):
        return jnp.minimum(inside, 2.0**LARGEST_VARIANCE).astype(dtype)
    return jnp.asarray(np.minimum(inside, 2.0**LARGEST_VARIANCE).astype(dtype))


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


def _compared(centers, x, variance, weights, frame):
    """Centers, rows and σ² in one frame."""
    centers = check.check_matrix(centers, name="centers")
    x = check.check_matrix(x)
    check.check_width(x, centers.shape[1])
    check.check_positive("variance", variance, zero=True)
    prepared = prepare(x, weights, frame=frame_of(centers) if frame is None else frame)
    dtype = prepared.points.x.dtype
    return prepared.frame.enter(centers).astype(dtype), prepared, variance_in(prepared.frame, variance, dtype)


@jax.jit
def _energy(centers, points, known, variance):
    return soft_stats(centers, em.as_columns(points), variance, known=known).energy


@jax.jit
def _shares(centers, x, variance):
    tile = em.em_tile(em.EMOptions("spherical"), x.shape[0], *centers.shape)
    distances = distances_to(centers, variance)
    shares = map_in_place(lambda rows: soften(distances(rows.T), variance)[1].T, x, tile)
    return with_derivative_of(partial(_mapped, tile), shares, centers, x, variance)


def _mapped(tile, centers, x, variance):
    distances = distances_to(centers, variance)
    return map_rows(lambda rows: soften(distances(rows.T), variance)[1].T, x, tile=tile)

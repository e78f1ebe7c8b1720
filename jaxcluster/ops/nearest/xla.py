"""Nearest centers by XLA alone, in three forms.

- *unrolled*: squared differences, written out for a handful of centers and columns; exact, and free of temporaries.
- *packed*: for the CPU. XLA fuses a matrix product with a plain minimum into one kernel that never writes n×k, but
  not with an argmin. So distances are cut into whole steps of a quantum and the center's index is put below them:
  one minimum of ``step·k + index`` brings both out. A window that is known to hold the least distance makes the
  quantum small; without one a first minimum finds it.
- *direct*: tiles of n×k and an argmin; for accelerators, float64, and on a CPU for small problems of few centers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcluster.core.fold import map_rows, tile_rows
from jaxcluster.ops.distance import HIGHEST, distances_to_assigned, inner_products, squared_norms
from jaxcluster.ops.nearest.refine import refine, rounding_bound
from jaxcluster.types import Array, Bool, Float, Int

UNROLLED_TERMS = 64
"""Centers × columns up to which distances are written out; compile time grows with it."""

DIRECT_CENTERS = 18
"""Up to this many centers XLA's compiler for CPUs writes out the loop of an argmin, which then takes a third of the
time of the packed form; from the next one on it is a loop, and takes up to three times that."""

PACKED_CENTERS, WINDOW_CENTERS = 1 << 12, 1 << 10
"""More centers than this leave too few of float32's 24 bits for the distance; and for a window, which is wider."""

EXACT_CENTERS = 64
"""Up to this many centers the bits that are left tell distances apart as well as float32 does, in any window."""

LOOSE = 1.25
"""Upper bounds above this multiple of the distances are worth a pass that tightens them."""

FUSED_ELEMENTS, CACHED_ELEMENTS, DEVICE_ELEMENTS = 1 << 28, 1 << 21, 1 << 26
"""Distances a tile: fused into their minimum on a CPU and never written (cutting rows into tiles copies them), kept in
its cache, and enough to fill an accelerator."""


COPIED_SHARE = 16
"""Distances that a tile may hold for each coordinate of its copied rows: 2²⁴ coordinates, 64 MB, in a fused tile."""


class Nearest(NamedTuple):
    """Each row's nearest center.

    Attributes:
        labels: index of the nearest center; ties, to within rounding, go to the lower index.
        distance: squared distance to it (data units²).
        slack: how far ``distance`` may be from the truth (data units²); None from a form that has no use for windows.
    """

    labels: Int[Array, "*batch n"]
    distance: Float[Array, "*batch n"] | None
    slack: Float[Array, "*batch n"] | None


class Window(NamedTuple):
    """Bounds (data units²) between which each row's least squared distance is known to lie."""

    lower: Float[Array, "*batch n"]
    upper: Float[Array, "*batch n"]


def nearest(
    x: Float[Array, "n d"],
    centers: Float[Array, "k d"],
    *,
    active: Bool[Array, " k"] | None = None,
    precision: jax.lax.Precision = HIGHEST,
    unit: bool = False,
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Label and squared distance (data units²) of each row's nearest center; ties go to the lower index.

    n×k is never built. Rows far from the origin relative to their distances are refined, which costs: `core.frame`
    puts the origin among them first.

    Args:
        active: centers that take part; None for all.
        unit: rows and centers have length 1, or are zeros; see `search`.
    """
    k, d = centers.shape
    tile = search_tile(x.shape[0], k, d, x.dtype)

    def assign(rows):
        found = search(rows, centers, active=active, precision=precision, unit=unit)
        return found.labels, found.distance

    return map_rows(assign, x, tile=tile)


def search_tile(n: int, k: int, d: int, dtype) -> int:
    """How many of n rows `search` should be given at once."""
    if k * d <= UNROLLED_TERMS:
        return n
    on_cpu = jax.default_backend() == "cpu"
    fused = on_cpu and dtype == jnp.float32 and k <= PACKED_CENTERS
    budget = FUSED_ELEMENTS if fused else CACHED_ELEMENTS if on_cpu else DEVICE_ELEMENTS
    # A tile of several is a copy of its rows, which wide ones make larger than a fused tile's distances.
    return n if n * k <= budget else tile_rows(n, max(k, COPIED_SHARE * d), budget)


def search(
    x: Float[Array, "n d"],
    centers: Float[Array, "k d"],
    *,
    active: Bool[Array, " k"] | None = None,
    norms: Float[Array, " n"] | None = None,
    window: Window | None = None,
    precision: jax.lax.Precision = HIGHEST,
    unit: bool = False,
) -> Nearest:
    """`nearest` for one tile of rows.

    Args:
        norms: squared lengths of the rows, where they are at hand.
        window: bounds of each row's least distance, which save a pass where they are at hand.
        unit: rows and centers have length 1, or are zeros. All centers are equally far from a row of zeros, which
            their rounded lengths would not say.
    """
    k, d = centers.shape
    if k * d <= UNROLLED_TERMS:
        return _unrolled(x, centers, active, unit)
    norms = squared_norms(x) if norms is None else norms
    bias = jnp.ones_like(centers[:, 0]) if unit else squared_norms(centers)
    bias = bias if active is None else jnp.where(active, bias, jnp.inf)
    found = _search(x, centers, norms, bias, window, precision)
    return Nearest(*refine(*found, x, centers, norms, active=active))


def _search(x, centers, norms, bias, window, precision):
    """Nearest centers by expanded squares, in the form that is fast on the platform."""
    k = centers.shape[0]
    doubled = -2 * centers

    def direct(x, norms, bias, doubled, window):
        found = _direct(x, norms, bias, doubled, precision)
        return found._replace(slack=rounding_bound(norms, found.distance))

    def packed(x, norms, bias, doubled, window):
        return _packed(x, norms, bias, doubled, window, precision)

    few = k <= DIRECT_CENTERS and x.shape[0] * k <= CACHED_ELEMENTS
    if few or x.dtype != jnp.float32 or k > PACKED_CENTERS:
        return _direct(x, norms, bias, doubled, precision)
    return jax.lax.platform_dependent(x, norms, bias, doubled, window, cpu=packed, default=direct)


def widen(found: Nearest, moved: Float[Array, " k"], x: Float[Array, "n d"], centers: Float[Array, "k d"]) -> Window:
    """The window that holds each row's least distance now that center j has moved by ``moved[j]`` (data units).

    The row's present center is at most ``moved`` farther off than it was, and no center is nearer than the nearest
    one was, less the longest move. After long moves that bound is loose, which many centers leave no bits for: then
    the distance to the present center is taken itself.
    """
    near = jnp.sqrt(jnp.maximum(found.distance - found.slack, 0))
    far = jnp.sqrt(found.distance + found.slack)
    lower = jnp.square(jnp.maximum(near - jnp.max(moved), 0))
    upper = jnp.square(far + moved[found.labels])
    if centers.shape[0] <= EXACT_CENTERS:
        return Window(lower, upper)

    def measured():
        return (1 + 16 * jnp.finfo(x.dtype).eps) * distances_to_assigned(x, centers, found.labels)

    loose = jnp.sum(upper) > LOOSE * jnp.sum(found.distance)
    return Window(lower, jax.lax.cond(loose, measured, lambda: upper))


def _unrolled(x, centers, active, unit):
    labels = distance = None
    k, d = centers.shape
    norms = squared_norms(x) if unit else None
    for j in range(k):
        if unit:
            to_j = norms + 1 - 2 * sum(x[:, i] * centers[j, i] for i in range(d))
        else:
            to_j = sum(jnp.square(x[:, i] - centers[j, i]) for i in range(d))
        if active is not None:
            to_j = jnp.where(active[j], to_j, jnp.inf)
        if labels is None:
            labels, distance = jnp.zeros(to_j.shape, jnp.int32), to_j
        else:
            labels, distance = jnp.where(to_j < distance, j, labels), jnp.minimum(to_j, distance)
    # Cheap to write out: fused into everything that reads labels, all of this would be computed over and over.
    labels, distance = jax.lax.optimization_barrier((labels, distance))
    return Nearest(labels, distance, None)


def _direct(x, norms, bias, doubled, precision):
    relative = inner_products(x, doubled, precision) + bias[None, :]
    # In whole steps of the rounding error, so that ties are ties. The center nearest the origin bounds the least.
    quantum = 4 * jnp.finfo(x.dtype).eps * (norms + jnp.min(bias)) + jnp.finfo(x.dtype).tiny
    steps = jnp.floor((relative + norms[:, None]) * (1 / quantum)[:, None])
    distance = jnp.maximum((jnp.min(steps, axis=1) + 0.5) * quantum, 0)
    return Nearest(jnp.argmin(steps, axis=1).astype(jnp.int32), distance, None)


def _packed(x, norms, bias, doubled, window, precision):
    k = bias.shape[0]
    levels = 2.0**24 / k
    window = window if k <= WINDOW_CENTERS else None
    # Fused with its own broadcast, the bias would be written out as n×k before the product is. And JAX 0.12 confuses a
    # fused iota with that of an earlier compile for another k, and mislabels rows.
    bias, index = jax.lax.optimization_barrier((bias, jnp.arange(k, dtype=x.dtype)))
    if window is None:
        least = jnp.maximum(jnp.min(inner_products(x, doubled, precision) + bias[None, :], axis=1) + norms, 0)
        window = Window(least, least)
        # Two products of the same operands would be merged into one that writes n×k.
        x, bias, doubled, window = jax.lax.optimization_barrier((x, bias, doubled, window))
    rounding = rounding_bound(norms, window.upper)
    lower = window.lower - rounding
    quantum = (window.upper - lower + rounding) / (levels - 2)
    quantum = jnp.maximum(quantum, rounding / 4) + jnp.finfo(x.dtype).tiny
    scale, offset = 1 / quantum, norms - lower
    scaled = (inner_products(x, doubled, precision) + bias[None, :] + offset[:, None]) * scale[:, None]
    least = jnp.min(jnp.floor(scaled) * k + index[None, :], axis=1)
    # Whole numbers below 2²⁴: taken apart as integers, for a float quotient may round up to the next step.
    step, labels = jnp.divmod(least.astype(jnp.int32), k)
    distance = jnp.maximum(lower + (step.astype(x.dtype) + 0.5) * quantum, 0)
    return Nearest(labels, distance, quantum + rounding)

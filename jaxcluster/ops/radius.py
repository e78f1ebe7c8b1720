"""What lies within a radius of each row, exactly: counts, sums of weights and least labels, n×n never built.

Distances are sums over columns of |difference|^power, compared with a ``reach`` in the same units; dense work is done
on the pairs of blocks that are near enough. The device compares in float32. Where two rows lie so near to the reach
that rounding could decide, their blocks are compared on the host in float64, in the order of the columns: the answers
are those of a plain float64 loop.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.blocks import BLOCK, Blocks, near_pairs, partition
from jaxcluster.types import Array, Float, Int

UNIT = 2.0**-24
"""Rounding of a float32 relative to itself."""

FAR = 256
"""Rows farther from the origin than so many radii are held as sums of two float32, lest differences round too much."""

MOST_ERROR = 1 / 8
"""Error of a sum near 1 beyond which the host compares all that is near."""

CHUNK = 256
"""Pairs of blocks that the device compares at a time."""

HOST_PAIRS = 256
"""Pairs of blocks that the host compares at a time."""

NOBODY = np.iinfo(np.int32).max
"""The label of a row that no other row gives one to."""


class Ball(NamedTuple):
    """Which rows are near: those with Σ|difference|^power <= reach."""

    power: float
    reach: float


class Near(NamedTuple):
    """Rows prepared for looking around each of them.

    Attributes:
        blocks: the rows in blocks.
        ball: what near means.
        pairs: (p, 2) int32 pairs of blocks, both ways.
        edges: (e, 2) int32 places, counted through all blocks, of near rows that float32 may miss.
        columns: device parts of the rows, (b, d, BLOCK) each, in units of the radius: one, or two that add up to them.
        error: bound on how far a float32 sum near 1 may be off; infinite where float32 tells nothing.
    """

    blocks: Blocks
    ball: Ball
    pairs: np.ndarray
    edges: np.ndarray
    columns: tuple[Float[Array, "b d w"], ...]
    error: float


class Pass(NamedTuple):
    """What the device needs to know of a pass over some pairs of blocks; the rest of ``pairs`` is room."""

    pairs: Int[Array, "p 2"]
    count: Int[Array, ""]
    error: Float[Array, ""]


def look_around(x: np.ndarray, ball: Ball, weights: np.ndarray | None = None) -> tuple[Near, np.ndarray]:
    """Prepares (n, d) concrete rows, and counts the rows near each, itself among them.

    Args:
        x: finite rows.
        ball: what near means.
        weights: (n,) to be added up in place of counting.

    Returns:
        The rows prepared, and (n,) counts, int64, or sums of weights, float64: to `sum_error` of themselves.
    """
    blocks = partition(x)
    upper = near_pairs(blocks, ball.reach, ball.power)
    pairs = np.concatenate([upper, upper[upper[:, 0] < upper[:, 1]][:, ::-1]])
    columns, error = _on_device(blocks, ball)
    near = Near(blocks, ball, pairs, np.empty((0, 2), np.int32), columns, error)
    value = np.ones(len(x), np.int32) if weights is None else weights.astype(np.float32)
    placed = blocks.places(value, 0)
    sums, doubtful = jax.device_get(_add_up(ball.power, columns, _pass_over(near, pairs), placed))
    sums = sums.astype(np.int64 if weights is None else np.float64)
    exact, edges = _settle(near, pairs[doubtful[: len(pairs)]], blocks.places(value.astype(sums.dtype), 0))
    return near._replace(edges=edges), blocks.rows(sums + exact, len(x))


def sum_error(near: Near) -> float:
    """How far a sum of weights may be off, relative to itself: float32 over a block, and over all blocks."""
    return 2 * UNIT * (BLOCK + len(near.blocks.x))


def exact_sums(near: Near, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(m,) float64 sums of the (n,) weights near those rows that an (n,) mask picks, added up on the host."""
    picked = near.blocks.places(rows, False).any(axis=1)
    sums, _ = _settle(near, near.pairs[picked[near.pairs[:, 0]]], near.blocks.places(weights.astype(np.float64), 0))
    return near.blocks.rows(sums, len(rows))[rows]


def least_near(near: Near, labels: Int[Array, "b w"], pairs: np.ndarray) -> Int[Array, "b w"]:
    """The least label near each place, `NOBODY` where there is none, over some of the pairs of blocks."""
    edges = _with_room(near.edges, len(near.edges))
    return _least(near.ball.power, near.columns, _pass_over(near, pairs), edges, labels)


def _pass_over(near, pairs):
    return jax.device_put(Pass(_with_room(pairs, len(near.pairs)), np.int32(len(pairs)), np.float32(near.error)))


def _with_room(pairs, most):
    """Pairs, and zeros up to a length that hardly ever changes with the most there may be, so nor does the program."""
    padded = np.zeros((max(CHUNK, 1 << max(0, most - 1).bit_length()), 2), np.int32)
    padded[: len(pairs)] = pairs
    return padded


def _on_device(blocks, ball):
    """The rows on the device in units of the radius, and the error of their sums of |difference|^power near 1."""
    least, most = blocks.low.min(axis=0), blocks.high.max(axis=0)
    radius = max(ball.reach, np.finfo(float).tiny) ** (1 / ball.power)
    d, power, farthest = len(least), ball.power, float((most - least).max() / 2 / radius)
    with np.errstate(over="ignore", invalid="ignore"):
        columns = np.swapaxes((blocks.x - (least + most) / 2) / radius, 1, 2)
        high = columns.astype(np.float32)
        parts, coordinate = (high,), 2 * UNIT * farthest
        if farthest > FAR:
            low = np.where(np.isfinite(high), columns - high, 0).astype(np.float32)
            parts, coordinate = (high, low), 4 * UNIT**2 * farthest
    # Minkowski's inequality bounds what rounded coordinates do to a sum near 1, and every term is rounded itself.
    error = (1 + min(1, coordinate * d ** (1 / power))) ** power - 1 + (d + 2 * power + 8) * UNIT
    if error > MOST_ERROR:
        parts, error = (np.zeros_like(high),), np.inf  # all are doubtful, and none overflows
    return jax.device_put(parts), error


def _settle(near, pairs, values):
    """Of pairs of blocks, in float64: what their near rows add up to, and those that float32 may miss."""
    flat = np.arange(near.blocks.index.size, dtype=np.int32).reshape(-1, BLOCK)
    sums, edges = np.zeros(flat.shape, values.dtype), [np.empty((0, 2), np.int32)]
    for start in range(0, len(pairs), HOST_PAIRS):
        first, second = pairs[start : start + HOST_PAIRS].T
        distances = _in_float64(near.blocks.x[first], near.blocks.x[second], near.ball.power)
        within = distances <= near.ball.reach
        np.add.at(sums, first, np.einsum("pij,pj->pi", within, values[second]))
        which, i, j = np.nonzero(within & (distances >= near.ball.reach * (1 - 4 * min(near.error, 1))))
        edges.append(np.stack([flat[first[which], i], flat[second[which], j]], axis=1))
    return sums, np.concatenate(edges)


def _in_float64(a, b, power):
    """(p, BLOCK, BLOCK) sums of |difference|^power, added column by column as a plain loop adds them."""
    total = np.zeros((len(a), BLOCK, BLOCK))
    with np.errstate(invalid="ignore"):
        for column in range(a.shape[2]):
            difference = a[:, :, None, column] - b[:, None, :, column]
            total += difference * difference if power == 2 else np.abs(difference) ** power
    return total


def _sums(power, columns, first, second):
    """(c, BLOCK, BLOCK) sums of |difference|^power: rows of the second blocks, then of the first."""
    parts = [(part[first][:, :, None, :], part[second][:, :, :, None]) for part in columns]

    def add(total, column):
        difference = sum(a[:, column] - b[:, column] for a, b in parts)
        term = difference * difference if power == 2 else jnp.abs(difference) ** power
        return total + term

    total = jnp.zeros((first.shape[0], BLOCK, BLOCK), columns[0].dtype)
    for column in range(columns[0].shape[1]):
        total = add(total, column)
    return total


def _fold_pairs(todo: Pass, chunk, start):
    """Goes over the pairs a chunk at a time: chunk(carry, first, second, real, at) -> carry."""

    def advance(carry):
        at, values = carry
        index = at + jnp.arange(CHUNK)
        first, second = jax.lax.dynamic_slice_in_dim(todo.pairs, at, CHUNK).T
        return at + CHUNK, chunk(values, first, second, index < todo.count, at)

    return jax.lax.while_loop(lambda carry: carry[0] < todo.count, advance, (jnp.int32(0), start))[1]


@partial(jax.jit, static_argnums=0)
def _add_up(power, columns, todo, values):
    """Sums of the values near each place over the pairs that are beyond doubt, and which are not."""

    def chunk(carry, first, second, real, at):
        sums, doubtful = carry
        distances = _sums(power, columns, first, second)
        near = distances <= 1 - 3 * todo.error
        added = jnp.sum(jnp.where(near, values[second][:, :, None], 0), axis=1)
        doubt = jnp.any((distances <= 1 + todo.error) & ~near, axis=(1, 2))
        sums = sums.at[first].add(jnp.where((real & ~doubt)[:, None], added, 0))
        return sums, jax.lax.dynamic_update_slice_in_dim(doubtful, doubt & real, at, 0)

    return _fold_pairs(todo, chunk, (jnp.zeros_like(values), jnp.zeros(todo.pairs.shape[0], bool)))


@partial(jax.jit, static_argnums=0)
def _least(power, columns, todo, edges, labels):
    def chunk(least, first, second, real, at):
        near = (_sums(power, columns, first, second) <= 1 - todo.error) & real[:, None, None]
        return least.at[first].min(jnp.min(jnp.where(near, labels[second][:, :, None], NOBODY), axis=1))

    flat = _fold_pairs(todo, chunk, jnp.full_like(labels, NOBODY)).ravel()
    # Pairs of zeros say that a place is near itself, which is so.
    return flat.at[edges[:, 0]].min(labels.ravel()[edges[:, 1]]).reshape(labels.shape)

"""What lies within a radius of each row, exactly: counts, sums of weights and least labels, n×n never built.

Distances are sums over columns of |difference|^power, compared with a ``reach`` in the same units; dense work is done
on the pairs of blocks that are near enough. The device compares in float32, and tells pairs of rows that are near from
those that lie so close to the reach that rounding could decide. Most such pairs do not matter to what is asked. Those
that may are compared on the host in float64, in the order of the columns: the answers are a plain float64 loop's.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.ops.block_pairs import NOBODY, fold_pairs, groups, room, sums_between
from jaxcluster.ops.blocks import A_HAIR, BLOCK, UNIT, Blocks, near_pairs, partition, spans
from jaxcluster.ops.pairwise import power_sums
from jaxcluster.types import Array, Float, Int

FAR = 256
"""Rows farther from the origin than so many radii are held as sums of two float32, lest differences round too much."""

MOST_ERROR = 1 / 8
"""Error of a sum near 1 beyond which the host compares all that is near."""

SURE, MAYBE = -3, 1
"""Errors by which a sum must be below 1 for its rows to be near for sure, and may be above for them to be so at all."""

HOST_ROWS = 1 << 13
"""Rows that the host compares with a block each at a time."""

FIRST_APART = (1, 4, 32)
"""Places between blocks that are looked at together, before all others are."""

HALF = 1 << 16
"""What is above counts one thing, and what is below another."""


class Ball(NamedTuple):
    """Which rows are near: those with Σ|difference|^power <= reach."""

    power: float
    reach: float


class OnDevice(NamedTuple):
    """Rows of blocks on the device, in units of the radius.

    Attributes:
        parts: (b, d, BLOCK) rows, each column a line: one array, or two that add up to them.
        error: () how far a sum near 1 may be off; infinite where float32 tells nothing.
    """

    parts: tuple[Float[Array, "b d w"], ...]
    error: Float[Array, ""]


class Near(NamedTuple):
    """Rows prepared for looking around each of them.

    Attributes:
        blocks: the rows in blocks.
        ball: what near means.
        pairs: (p, 2) int32 pairs of blocks, both ways, between which some rows may be near.
        whole: (w, 2) int32 other pairs, both ways: each row of the one is near each of the other.
        doubtful: (p,) of ``pairs``, between which there may be rows that float32 cannot tell to be near or not.
        device: the rows on the device.
    """

    blocks: Blocks
    ball: Ball
    pairs: np.ndarray
    whole: np.ndarray
    doubtful: np.ndarray
    device: OnDevice


def prepare(x: np.ndarray, ball: Ball) -> Near:
    """Prepares (n, d) finite concrete rows.

    Raises:
        MemoryError: there are too many pairs of blocks that may hold near rows.
    """
    blocks = partition(x)
    upper = near_pairs(blocks, ball.reach, ball.power)
    whole = spans(blocks, upper, ball.power) <= ball.reach / A_HAIR
    whole, pairs = _both_ways(upper[whole]), _both_ways(upper[~whole])
    return Near(blocks, ball, pairs, whole, np.ones(len(pairs), bool), _on_device(blocks, ball))


def dense_rows(near: Near, at_least: float, weights: np.ndarray | None = None) -> tuple[Near, np.ndarray]:
    """Which rows have so many rows near them, themselves among these, or so much of their weight.

    Blocks of which all rows are known to be dense are looked at no more. Where clusters are, that is soon.

    Args:
        near: n rows.
        at_least: count or sum.
        weights: (n,) to be added up in place of counting.

    Returns:
        The rows, with what was seen of doubtful pairs, and an (n,) mask.
    """
    blocks, n = near.blocks, int((near.blocks.index >= 0).sum())
    value = blocks.places(np.ones(n, np.int32) if weights is None else weights.astype(np.float32), 0)
    given = _of_whole(near, blocks.places(np.ones(n) if weights is None else weights.astype(float), 0))
    # Float32 sums over a block, and over all blocks.
    error = 0 if weights is None else 2 * UNIT * (BLOCK + len(blocks.x))
    sums, value = (room(np.zeros_like(value), 0),) * 2, room(value, 0)
    short, doubtful = np.ones(len(blocks.x), bool), near.doubtful.copy()
    for band in bands(near.pairs):
        looked_at = band[short[near.pairs[band, 0]]]
        sums, doubtful[looked_at] = _add_up_over(near, near.pairs[looked_at], value, sums)
        least = (np.asarray(sums[0])[: len(short)] + given) * (1 - error)
        short = ((least < at_least) & (blocks.index >= 0)).any(axis=1)
    near = near._replace(doubtful=doubtful)
    most = (np.asarray(sums[1])[: len(short)] + given) * (1 + error)
    dense = blocks.rows(least >= at_least, n)
    unclear = ~dense & blocks.rows(most >= at_least, n)
    if unclear.any():
        dense[unclear] = exact_mass(near, unclear, weights) >= at_least
    return near, dense


def bands(pairs: np.ndarray) -> list[np.ndarray]:
    """Which of (p, 2) pairs of blocks to take together: first those that were cut from each other last, or are one.

    They are the nearest, and what they tell spares a look at most others.
    """
    band = np.searchsorted(FIRST_APART, np.abs(pairs[:, 0] - pairs[:, 1]))
    return [np.flatnonzero(band == number) for number in range(len(FIRST_APART) + 1)]


def _add_up_over(near, pairs, value, sums):
    doubtful = [np.zeros(0, bool)]
    for todo in groups(pairs):
        sums, doubt = _add_up(near.ball.power, near.device, value, todo, sums)
        doubtful.append(np.asarray(doubt))
    return sums, np.concatenate(doubtful)[: len(pairs)]


def _both_ways(upper):
    return np.concatenate([upper, upper[upper[:, 0] < upper[:, 1]][:, ::-1]])


def _of_whole(near, values):
    """(b, 1) sums of the values of the blocks that are wholly near each block."""
    first, second = near.whole.T
    return np.bincount(first, values.sum(axis=1)[second], len(values))[:, None]


def exact_mass(near: Near, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(m,) counts or float64 sums of weights near those rows that an (n,) mask picks, added up on the host."""
    value = near.blocks.places(np.ones(len(rows)) if weights is None else weights.astype(np.float64), 0)
    sums = np.zeros(value.shape) + _of_whole(near, value)
    for places, second, within in _compare(near, near.pairs, near.blocks.places(rows, False)):
        np.add.at(sums, places, np.einsum("pj,pj->p", within, value[second]))
    return near.blocks.rows(sums, len(rows))[rows]


def least_near(near: Near, labels: Int[Array, "b w"], pairs: np.ndarray, *, surely: bool = True) -> Int[Array, "b w"]:
    """The least label of the rows near each place over some of ``near.pairs``, `NOBODY` where there is none.

    Args:
        near: the rows.
        labels: of places; there may be room for more blocks than there are.
        pairs: (p, 2) pairs of blocks.
        surely: False takes for near what may be.
    """
    least = jnp.full_like(labels, NOBODY)
    for todo in groups(pairs):
        least = _least(near.ball.power, near.device, labels, todo, np.float32(SURE if surely else MAYBE), least)
    return least


def least_of_whole(near: Near, labels: np.ndarray) -> np.ndarray:
    """(b, 1) the least label of the blocks that are wholly near each block, `NOBODY` where there is none."""
    least = np.full(len(labels), NOBODY, labels.dtype)
    np.minimum.at(least, near.whole[:, 0], labels.min(axis=1)[near.whole[:, 1]])
    return least[:, None]


def exact_least(near: Near, labels: np.ndarray, pairs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(b, BLOCK) the same, exactly, of those places that a mask picks, compared on the host."""
    least = np.full(labels.shape, NOBODY, labels.dtype)
    for places, second, within in _compare(near, pairs, wanted):
        np.minimum.at(least, places, np.where(within, labels[second], NOBODY).min(axis=1))
    return least


def _compare(near, pairs, wanted):
    """Some picked places at a time, the block that each is compared with, and which of its rows are near in float64."""
    x, first = near.blocks.x, pairs[:, 0]
    counts = wanted.sum(axis=1)[first]
    which = np.repeat(np.arange(len(pairs)), counts)
    rows = np.nonzero(wanted)
    starts = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])
    at = starts[first[which]] + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    for start in range(0, len(which), HOST_ROWS):
        some = slice(start, start + HOST_ROWS)
        places, second = (rows[0][at[some]], rows[1][at[some]]), pairs[which[some], 1]
        yield places, second, power_sums(x[places][:, None], x[second], near.ball.power) <= near.ball.reach


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
    return OnDevice(tuple(room(part, np.inf) for part in parts), jax.device_put(np.float32(error)))


@partial(jax.jit, static_argnums=0)
def _add_up(power, device, weights, todo, sums):
    """Adds up the weights near each place over some pairs, at least and at most; which pairs leave room between.

    Whole weights are 1 for a row and 0 for none.
    """
    weighted = weights.dtype.kind == "f"

    def chunk(carry, first, second, real, at):
        least, most, doubtful = carry
        distances = sums_between(power, device.parts, first, second)
        near, maybe = distances <= 1 + SURE * device.error, distances <= 1 + MAYBE * device.error
        given = jnp.where(real[:, None], weights[second], 0)[:, :, None]
        # Both counts in one number: a sum for each would take twice as long.
        both = near.astype(jnp.int32) + maybe.astype(jnp.int32) * HALF
        counts = jnp.sum(both * real[:, None, None].astype(jnp.int32) if weighted else both * given, axis=1)
        surely, perhaps = counts % HALF, counts // HALF
        doubt = jnp.any(surely != perhaps, axis=1)
        if weighted:
            surely, perhaps = (jnp.sum(jnp.where(which, given, 0), axis=1) for which in (near, maybe))
        doubtful = jax.lax.dynamic_update_slice_in_dim(doubtful, doubt, at, 0)
        return least.at[first].add(surely), most.at[first].add(perhaps), doubtful

    least, most, doubtful = fold_pairs(todo, chunk, (*sums, jnp.zeros(todo.pairs.shape[0], bool)))
    return (least, most), doubtful


@partial(jax.jit, static_argnums=0)
def _least(power, device, labels, todo, slack, least):
    def chunk(least, first, second, real, at):
        near = sums_between(power, device.parts, first, second) <= 1 + slack * device.error
        given = jnp.where(near & real[:, None, None], labels[second][:, :, None], NOBODY)
        return least.at[first].min(jnp.min(given, axis=1))

    return fold_pairs(todo, chunk, least)

"""Preparation of samples of which each process has a part: one frame, one unit of weights and one padding for all."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcluster.core.dtypes import float_dtype
from jaxcluster.core.frame import (
    Frame,
    binary_exponent,
    bound_between,
    center_and_spread,
    frame_about,
    sample_size,
    spread_indices,
)
from jaxcluster.core.preparation import Prepared, enter_block, enter_rows, entry_range, padded_size, row_exponents
from jaxcluster.core.processes import gather, gather_rows
from jaxcluster.core.shard import row_sharding
from jaxcluster.types import Points


def prepare_part(
    x: np.ndarray, weights: Any, center: bool, frame: Frame | None, unit_rows: bool, published: np.dtype, mesh: Mesh
) -> Prepared:
    """`jaxcluster.core.preparation.prepare` of the samples of this process, in the frame of all.

    Every process must call it. The parts may have any sizes: shorter ones are padded with weight 0.

    Raises:
        ValueError: parts of different widths, or values that are not finite.
    """
    n, d = x.shape
    sizes = gather(np.array([n, d]))
    if (sizes[:, 1] != d).any():
        raise ValueError(
            f"the processes have rows of {', '.join(map(str, sizes[:, 1]))} columns. Pass parts of one table."
        )
    dtype = float_dtype(x.dtype)
    devices = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    rows = padded_size(int(sizes[:, 0].max()))
    # Each process has the same number of rows, and each of its devices too: arrays over a mesh are cut evenly.
    rows += -rows % devices
    out, weight = np.zeros((rows, d), dtype), np.zeros(rows, dtype)
    weights, weight_exponent = _scaled_weights(weights, n)
    if unit_rows:
        entry_range(x, None)
        frame, crushed = Frame(np.zeros(d, published)), False
        enter_block(x, frame.origin, row_exponents(x)[:, None], out[:n])
    else:
        frame = _frame(x, weights, center, published) if frame is None else frame
        frame, crushed = enter_rows(x, weights, center, None, frame, published, out)
    weight[:n] = 1 if weights is None else weights
    unit_weights = bool(gather((weight[:n] == 1).all()).all())
    sharding, count = row_sharding(mesh), len(sizes)
    points = Points(
        jax.make_array_from_process_local_data(sharding, out, (count * rows, d)),
        jax.make_array_from_process_local_data(sharding, weight, (count * rows,)),
    )
    frame = frame._replace(weight_exponent=weight_exponent)
    narrowed = dtype.itemsize < x.dtype.itemsize
    return Prepared(points, frame, n, unit_weights, published, narrowed, is_part=True, crushed=crushed)


def _frame(x, weights, center, published):
    """Frame of the samples of all processes: that which one process with all of them finds."""
    counted = np.arange(len(x)) if weights is None else np.flatnonzero(weights)
    counts = gather(len(counted))
    before, total = int(counts[: jax.process_index()].sum()), int(counts.sum())
    index = spread_indices(total, sample_size(total, x.shape[1])) - before
    sample = gather_rows(x[counted[index[(index >= 0) & (index < len(counted))]]])
    least, most = entry_range(x, None)
    extremes = gather(np.array([least, most], np.float64))
    origin, spread = center_and_spread(sample, x, center)
    bound = bound_between(origin, extremes[:, 0].min(), extremes[:, 1].max())
    return frame_about(origin, spread, bound, published)


def _scaled_weights(weights, n):
    """`jaxcluster.core.preparation.scaled_weights` of the weights of all processes."""
    if not gather(weights is not None).any():
        return None, 0
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    positive = weights[weights > 0]
    # The unit of the weights is that of all processes, so that their sums add up.
    largest = binary_exponent(gather(positive.max(initial=0)).max())
    total, count = gather(np.array([np.ldexp(positive, -largest).sum(), positive.size])).sum(axis=0)
    exponent = 1 - largest - binary_exponent(total / count)
    return np.ldexp(weights, exponent), exponent

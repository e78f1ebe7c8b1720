"""Rates of machines: of this one by a short calibration, of accelerators from the public figures of their makers.

Sources of `CHIPS`: Google Cloud's pages of TPU v5e, v5p and v6e (products in bfloat16, memory, and the interconnect in
both directions, of which half is one); NVIDIA's data sheets of the A100 80 GB SXM, H100 SXM and H200 SXM (float32, TF32
without sparsity, memory, and NVLink, of which half is one direction).
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

CALIBRATION_SECONDS = 0.15
"""Time for each of the three rates; the fastest call within it counts, as other work on the machine only slows."""

TILE_ROWS, MAX_CENTERS = 4096, 1024
"""Rows and most columns of the product of the calibration."""

MAX_FEATURES = 1 << 12
"""Most features of the samples that are measured: products of more are not faster."""

LEAST_PASS = 0.05
"""Least part of the time of a search that its pass is taken to need: differences of times may be negative."""

COPIED_BYTES = 1 << 26
"""Bytes of the copy of the calibration: more than caches hold."""

TPU_PASSES = 6
"""Products in bfloat16 for one in full float32 on a TPU, which is JAX's precision "highest"."""


class Rates(NamedTuple):
    """Rates of one device, or of all devices of one host that share its cores.

    Attributes:
        name: of the chip or the machine.
        products: floating-point operations a second in products of float32 matrices.
        fast_products: those with ``precision="fast"``.
        bandwidth: bytes of its memory read or written a second.
        link: bytes that it sends to other devices a second.
        memory: bytes of its memory.
        entries: entries of a table by row and center that a pass over it reduces a second; None where it is not known,
            and counts as free.
        shared: True if all devices of the host together have these rates.
    """

    name: str
    products: float
    fast_products: float
    bandwidth: float
    link: float
    memory: float
    entries: float | None = None
    shared: bool = False

    def of_device(self, devices: int) -> Rates:
        """Rates of one of ``devices`` devices, which share those of their host if ``shared``."""
        if not self.shared:
            return self
        rates = {name: getattr(self, name) / devices for name in ("products", "fast_products", "bandwidth", "link")}
        entries = None if self.entries is None else self.entries / devices
        return self._replace(**rates, memory=self.memory / devices, entries=entries)


def _tpu(name: str, products: float, bandwidth: float, link: float, memory: float) -> Rates:
    return Rates(name, products / TPU_PASSES, products, bandwidth, link, memory)


CHIPS = {
    "v5e": _tpu("TPU v5e", 197e12, 819e9, 200e9, 16e9),
    "v5p": _tpu("TPU v5p", 459e12, 2765e9, 600e9, 95e9),
    "v6e": _tpu("TPU v6e", 918e12, 1638e9, 400e9, 32e9),
    "a100": Rates("NVIDIA A100 80 GB SXM", 19.5e12, 156e12, 2039e9, 300e9, 80e9),
    "h100": Rates("NVIDIA H100 SXM", 66.9e12, 494.7e12, 3350e9, 450e9, 80e9),
    "h200": Rates("NVIDIA H200 SXM", 66.9e12, 494.7e12, 4800e9, 450e9, 141e9),
}
"""Peak rates of accelerators, by short names; a run reaches a part of them."""


def measured(d: int, k: int, *, fused: bool = False) -> Rates:
    """Rates of this machine, by products of (rows, d) and (d, k) matrices, a pass over their result, and a copy.

    It takes about a second, with the compiler. Devices of a CPU share its cores and its memory; what they send to each
    other is a copy too.

    Args:
        d: number of features.
        k: number of centers.
        fused: True for a search of nearest centers, which on a CPU is one kernel with its product (`ops.nearest`):
            the pass is what that kernel takes longer than the product alone.
    """
    device = jax.devices()[0]
    d, columns = min(d, MAX_FEATURES), min(k, MAX_CENTERS)
    rng = np.random.default_rng(0)
    x, centers = (
        jax.device_put(rng.normal(size=shape).astype(np.float32), device) for shape in ((TILE_ROWS, d), (d, columns))
    )
    table = _product(jax.lax.Precision.HIGHEST, x, centers)
    offset = jax.device_put(np.zeros(columns, np.float32), device)
    operations = 2 * TILE_ROWS * d * columns
    product = _seconds(partial(_product, jax.lax.Precision.HIGHEST), x, centers)
    fast = operations / _seconds(partial(_product, None), x, centers)
    if fused and device.platform == "cpu":
        both = _seconds(_search, x, centers, offset)
        entries = TILE_ROWS * columns / max(both - product, LEAST_PASS * both)
    else:
        entries = TILE_ROWS * columns / _seconds(_nearest, table, offset)
    source = jax.device_put(np.zeros(COPIED_BYTES // 4, np.float32), device)
    bandwidth = 2 * COPIED_BYTES / _seconds(_copy, source)
    host = device.platform == "cpu"
    stats = None if host else device.memory_stats()
    memory = stats["bytes_limit"] if stats and "bytes_limit" in stats else psutil.virtual_memory().total
    precise = operations / product
    return Rates(f"this machine ({device.device_kind})", precise, fast, bandwidth, bandwidth / 2, memory, entries, host)


def _seconds(run: Any, *arguments: Any) -> float:
    """Seconds of the fastest call."""
    jax.block_until_ready(run(*arguments))  # compiled
    best, end = np.inf, time.perf_counter() + CALIBRATION_SECONDS
    while True:
        start = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


@partial(jax.jit, static_argnums=0)
def _product(precision, x, centers):
    return jnp.matmul(x, centers, precision=precision)


@jax.jit
def _nearest(table, offset):
    return jnp.argmin(offset[None, :] - 2 * table, axis=1)


@jax.jit
def _search(x, centers, offset):
    """The minimum of whole steps with the index of the center below them, as `ops.nearest` packs them on a CPU."""
    steps = jnp.floor((offset[None, :] - 2 * jnp.matmul(x, centers, precision=jax.lax.Precision.HIGHEST)) * 64)
    return jnp.min(steps * len(offset) + jnp.arange(len(offset), dtype=x.dtype), axis=1)


@jax.jit
def _copy(source):
    return source + 1

"""Prediction of a fit before it runs: operations, memory, bytes between devices, and seconds.

A step is counted by its formulas, and its time is that of the slower of products and memory, and of what follows them:

    seconds = max(operations / products, bytes / bandwidth) + entries / passes + bytes sent / link

with the rates of `Rates` as divisors.

`n` rows are spread over D devices. All-reduce of b bytes sends 2·(D − 1)/D·b bytes from each of them, as a ring does
(P. Patarasuk and X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, J. Parallel Distrib.
Comput. 69 (2009)). Rates of accelerators are peaks, so that their times are the least possible; those of this machine
are measured when they are asked for.

>>> plan("kmeans", 1_000_000_000, 128, 32_768, devices=64, chip="h100").memory < 80e9
True
"""

from __future__ import annotations

import html
from typing import Any, NamedTuple

from jaxcluster.cluster.seeding import OVERSAMPLING, PARALLEL_ROUNDS, candidates_tried
from jaxcluster.core import machine, memory, validation
from jaxcluster.core.machine import CHIPS, Rates
from jaxcluster.core.messages import facts
from jaxcluster.ops.distance import matrix_precision
from jaxcluster.ops.nearest import CACHED_ELEMENTS, DEVICE_ELEMENTS

__all__ = ["CHIPS", "INITS", "METHODS", "Plan", "Rates", "plan"]

METHODS = ("kmeans", "gmm-full", "gmm-tied", "gmm-diag", "gmm-spherical", "silhouette")
"""Methods that can be planned: Lloyd's k-means, mixtures by covariance, the silhouettes of all rows."""

INITS = ("k-means++", "k-means||", "random")
"""Initializations; a mixture by "kmeans" takes a k-means before, which is a plan of its own."""

WORD = 4
"""Bytes of a float32 number or an index."""

ROW_WORDS = 10
"""Numbers beside the coordinates of a sample: weight, norm, and label, distance and error of two assignments."""

EM_PASSES = 4
"""Passes over a table of responsibilities: logarithm of the sum, exponential, division, weight."""


def __dir__() -> list[str]:
    return __all__


class Work(NamedTuple):
    """Work of one device.

    Attributes:
        operations: in products of matrices.
        bytes: read from and written to its memory.
        entries: of tables by row and center that a pass reduces.
        sent: bytes that it sends.
    """

    operations: float = 0.0
    bytes: float = 0.0
    entries: float = 0.0
    sent: float = 0.0

    def seconds(self, rates: Rates, *, fast: bool) -> float:
        """Predicted time at the rates of the device."""
        products = self.operations / (rates.fast_products if fast else rates.products)
        passes = 0.0 if rates.entries is None else self.entries / rates.entries
        return max(products, self.bytes / rates.bandwidth) + passes + self.sent / rates.link


class Plan(NamedTuple):
    """Predicted cost of a fit.

    Attributes:
        method, n, d, k, devices, steps: what was asked for.
        rates: of one device.
        operations: floating-point operations of a step, of all devices together.
        bytes: that a device reads and writes in a step.
        sent: bytes that a device sends to others in a step.
        memory: bytes of a device at the peak.
        start_seconds, step_seconds: of the initialization and of a step.
        seconds: of the initialization and all steps.
        limit: what takes most of a step: "products", "memory", "passes" or "links".
    """

    method: str
    n: int
    d: int
    k: int
    devices: int
    steps: int
    rates: Rates
    operations: float
    bytes: float
    sent: float
    memory: float
    start_seconds: float
    step_seconds: float
    seconds: float
    limit: str

    @property
    def fits(self) -> bool:
        """True if a device has the memory."""
        return self.memory <= self.rates.memory

    def __repr__(self) -> str:
        """The plan in a line: ``Plan(kmeans, 1,000 × 8, k = 3, 2 devices: 0.1 s, 1.0 MB a device)``."""
        devices = f"{self.devices} device{'' if self.devices == 1 else 's'} ({self.rates.name})"
        size = memory.format_bytes(self.memory) + ("" if self.fits else ", more than it has")
        problem = f"{self.method}, {self.n:,} × {self.d:,}, k = {self.k:,}"
        return f"Plan({problem}, {devices}: {self.seconds:.3g} s, {size} a device)"

    def _repr_html_(self) -> str:
        """Operations, memory and seconds, for a notebook."""
        return facts(repr(self), {name: html.escape(str(value)) for name, value in as_rows(self)})


def plan(
    method: str,
    n: int,
    d: int,
    k: int = 1,
    *,
    devices: int = 1,
    chip: str | None = None,
    rates: Rates | None = None,
    steps: int = 100,
    init: str = "k-means++",
    precision: str | None = None,
) -> Plan:
    """Predict what a fit in float32 takes, without running it.

    Args:
        method: one of `METHODS`.
        n: number of samples, of all devices together.
        d: number of features.
        k: number of clusters; not used by "silhouette".
        devices: number of devices that the samples are spread over.
        chip: one of `CHIPS`; None for this machine, whose rates are measured in about a second.
        rates: of a device, in place of ``chip``.
        steps: number of steps; "silhouette" has one.
        init: one of `INITS`.
        precision: as in ``kmeans.fit``.

    Raises:
        ValueError, TypeError: an unknown name, numbers below 1, or more clusters than samples.
    """
    validation.check_choice("method", method, METHODS)
    validation.check_choice("init", init, INITS)
    for name, value in (("n", n), ("d", d), ("k", k), ("devices", devices), ("steps", steps)):
        validation.check_count(name, value)
    if method != "silhouette":
        validation.check_clusters(k, n)
    fast = matrix_precision(precision) != matrix_precision(None)
    if rates is None:
        if chip is not None:
            validation.check_choice("chip", chip, CHIPS)
        columns = machine.MAX_CENTERS if method == "silhouette" else k
        rates = machine.measured(d, columns, fused=method == "kmeans") if chip is None else CHIPS[chip]
    scatter, rates = rates.shared, rates.of_device(devices)
    rows = -(-n // devices)
    if method == "silhouette":
        start, step, needed, steps = Work(), _silhouette_step(n, rows, d), _silhouette_memory(n, d, scatter), 1
    else:
        step = _lloyd_step(rows, d, k, scatter) if method == "kmeans" else _em_step(rows, d, k, method[4:])
        start = _start(init, rows, d, k)
        needed = _fit_memory(rows, d, k, method, scatter)
        step, start = (work._replace(sent=_all_reduce(work.sent, devices)) for work in (step, start))
    start_seconds, step_seconds = start.seconds(rates, fast=fast), step.seconds(rates, fast=fast)
    return Plan(
        method,
        n,
        d,
        k,
        devices,
        steps,
        rates,
        step.operations * devices,
        step.bytes,
        step.sent,
        needed,
        start_seconds,
        step_seconds,
        start_seconds + steps * step_seconds,
        _limit(step, rates, fast),
    )


def _limit(step: Work, rates: Rates, fast: bool) -> str:
    none = Work()
    seconds = {
        "products": none._replace(operations=step.operations).seconds(rates, fast=fast),
        "memory": none._replace(bytes=step.bytes).seconds(rates, fast=fast),
        "passes": none._replace(entries=step.entries).seconds(rates, fast=fast),
        "links": none._replace(sent=step.sent).seconds(rates, fast=fast),
    }
    return max(seconds, key=seconds.__getitem__)


def _all_reduce(size: float, devices: int) -> float:
    """Bytes that each device of a ring sends to add up ``size`` bytes."""
    return 2 * (devices - 1) / devices * size


def _lloyd_step(rows: int, d: int, k: int, scatter: bool) -> Work:
    """One step of k-means: distances, nearest centers, sums. ``sent`` is the size of what is added up."""
    products = 2.0 * rows * k * d
    # On a CPU sums are scattered; elsewhere they are products with a one-hot matrix (`ops.cluster_sums`).
    operations = products if scatter else 2 * products
    read = 2.0 * rows * d + ROW_WORDS * rows + 2 * k * d
    return Work(operations, read * WORD, float(rows) * k, (k * d + k + 1.0) * WORD)


def _em_step(rows: int, d: int, k: int, covariance: str) -> Work:
    """One step of EM: Mahalanobis distances, responsibilities, moments."""
    if covariance == "full":
        each, parameters = 4.0 * d * d, k * (d * d + d + 1.0)
    elif covariance == "tied":
        each, parameters = 4.0 * d, k * (d + 1.0)
    else:
        each, parameters = 8.0 * d, k * (2.0 * d + 1)
    operations = rows * k * each + (2.0 * rows * d * d if covariance == "tied" else 0)
    read = 2.0 * rows * d + ROW_WORDS * rows + 2 * parameters
    return Work(operations, read * WORD, EM_PASSES * float(rows) * k, parameters * WORD)


def _silhouette_step(n: int, rows: int, d: int) -> Work:
    """Distances of the rows of a device to all n, and their sums by cluster; devices exchange nothing."""
    pairs = float(rows) * n
    return Work(2 * pairs * d, (n + rows) * d * float(WORD), 2 * pairs)


def _start(init: str, rows: int, d: int, k: int) -> Work:
    """An initialization; ``sent`` is the size of what is added up."""
    if init == "random":
        return Work(bytes=float(rows) * WORD, sent=float(k) * d * WORD)
    if init == "k-means||":
        drawn = PARALLEL_ROUNDS * OVERSAMPLING * k
        # Once as they are drawn, and once for the weight of each.
        pairs, read = 2.0 * rows * drawn, (PARALLEL_ROUNDS + 2.0) * rows * d
        return Work(2 * pairs * d, read * WORD, pairs, float(drawn) * (d + 1) * WORD)
    tried = candidates_tried(k)
    pairs = float(rows) * k * tried
    # Every center is a pass over all samples.
    return Work(2 * pairs * d, float(k) * rows * (d + 2) * WORD, pairs, float(k) * tried * (d + 1) * WORD)


def _fit_memory(rows: int, d: int, k: int, method: str, on_cpu: bool) -> float:
    """Bytes at the peak: samples, assignments, copies of the parameters, and a tile of the table."""
    parameters = k * (d * (d + 1.0) if method == "gmm-full" else 2.0 * d)
    tile = min(float(rows) * k, CACHED_ELEMENTS if on_cpu else DEVICE_ELEMENTS)
    # EM keeps the samples in columns, so that it has them twice.
    copies = 1 if method == "kmeans" else 2
    return (rows * (copies * d + ROW_WORDS) + memory.CENTER_COPIES * parameters + tile) * float(WORD)


def _silhouette_memory(n: int, d: int, on_cpu: bool) -> float:
    """Bytes at the peak: every device has all samples, once in their order and once by cluster."""
    return (n * (2.0 * d + ROW_WORDS) + (CACHED_ELEMENTS if on_cpu else DEVICE_ELEMENTS)) * WORD


def as_rows(planned: Plan) -> list[tuple[str, Any]]:
    """Names and values of a plan, for a table."""
    p, size = planned, memory.format_bytes
    has = f"{size(p.memory)} of {size(p.rates.memory)}" + ("" if p.fits else ": TOO MUCH")
    return [
        ("device", p.rates.name),
        ("devices", p.devices),
        ("operations of a step", f"{p.operations:.3g}"),
        ("bytes read and written a device and step", size(p.bytes)),
        ("bytes sent a device and step", size(p.sent)),
        ("memory a device", has),
        ("seconds of the initialization", f"{p.start_seconds:.3g}"),
        ("seconds of a step", f"{p.step_seconds:.3g}, most of it {p.limit}"),
        (f"seconds of {p.steps} step{'s' * (p.steps > 1)} in all", f"{p.seconds:.3g}"),
    ]

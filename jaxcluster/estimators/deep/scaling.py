"""Scaling of samples for networks, independent of their units: on the host in float64, then as float32."""

from __future__ import annotations

import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale

UPPER_SPREAD = 3.0
"""Largest ratio of the 0.9 quantile of the features' ranges to their median, for features of one unit."""

LOWER_SPREAD = 10.0
"""Largest ratio of the median of the ranges to their 0.1 quantile, for features of one unit."""

MAX_SPREAD = 30.0
"""Largest ratio of the largest range to the median, for features of one unit: a single feature of a far larger unit
leaves all others no variance, however many they are."""

FAR_ROW_FRACTION = 0.01
"""Fraction of the samples, the farthest ones, whose part of the total variance is checked."""

FAR_VARIANCE_FRACTION = 0.99
"""Part of the total variance above which these samples are warned of."""

SCALING_CHOICES = ("auto", *SCALINGS)


def scaled(
    x: np.ndarray, how: str, likelihood: str = "gaussian", *, images: bool = False
) -> tuple[np.ndarray, Scaling]:
    """Scale samples for a network.

    "auto" maps images to [0, 1] by one range for all pixels, and leaves samples of a Bernoulli likelihood as they are.
    Others are centered. Features of similar ranges, such as pixels and counts, share one divisor: a small range is
    then information. Features that clearly have units of their own are divided each by its standard deviation.

    Args:
        x: (n_samples, n_features) finite numbers.
        how: "auto", or a name in `jaxcluster.datasets.scaling.SCALINGS`.
        likelihood: "gaussian" or "bernoulli", of the reconstruction.
        images: True if samples are flat images.

    Returns:
        (n_samples, n_features) float32 scaled samples, and the scaling.

    Raises:
        ValueError: an unknown ``how``; values beyond float32 after scaling.

    Warns:
        UserWarning: a few samples so far from the others that these hardly differ after scaling.
    """
    validation.check_choice("scaling", how, SCALING_CHOICES)
    x = validation.widen(x)
    scaling = _fitted(x, how, likelihood, images)
    rows = rescaled(x, scaling)
    if scaling.shift is not None and not images:
        _warn_of_far_rows(rows)
    return rows, scaling


def rescaled(x: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Apply a fitted scaling, as float32.

    Raises:
        ValueError: values beyond float32 after scaling.
    """
    with np.errstate(over="ignore"):
        rows = scaling.apply(validation.widen(x)).astype(np.float32)
    beyond = ~np.isfinite(rows).all(axis=0)
    if beyond.any():
        columns = ", ".join(map(str, np.flatnonzero(beyond)[:8]))
        advice = "Pass scaling='auto'" if scaling.shift is None else "Drop the rows that hold them"
        raise ValueError(
            f"X has values that float32, in which networks compute, does not hold, in column"
            f"{'s' if beyond.sum() > 1 else ''} {columns}. {advice}, or look for placeholders of missing values."
        )
    return rows


def _fitted(x, how, likelihood, images):
    if how != "auto":
        return scale(x, how)[1]
    if images:
        low, high = float(x.min()), float(x.max())
        columns = np.ones(x.shape[1])
        return Scaling("minmax", low * columns, (high - low if high > low else 1.0) * columns)
    if likelihood == "bernoulli":
        return scale(x, "none")[1]
    scaling = scale(x, "standard")[1]
    if not share_unit(x):
        return scaling
    varying = x.max(axis=0) > x.min(axis=0)
    # The root mean square of the factors, relative to the largest: squares of factors above 1e154 overflow.
    most = scaling.factor[varying].max()
    shared = most * np.sqrt(np.mean(np.square(scaling.factor[varying] / most)))
    return scaling._replace(factor=np.full(scaling.factor.shape, shared))


def share_unit(x: np.ndarray) -> bool:
    """True if the features of (n_samples, n_features) samples seem to be in one unit, such as pixels."""
    # Half of each: the range of ±1e308 itself overflows float64.
    ranges = x.max(axis=0).astype(np.float64) / 2 - x.min(axis=0).astype(np.float64) / 2
    return _of_one_unit(ranges[ranges > 0])


def _of_one_unit(ranges: np.ndarray) -> bool:
    """True if features of these ranges are in the same unit.

    Ranges, not standard deviations: those of pixels differ by far more than the ranges of pixels. Quantiles are
    interpolated between logarithms, as ranges are compared by ratios: of ranges 1 and 1e5 the 0.1 quantile is 3.2.
    """
    if not ranges.size:
        return False
    low, median, high, most = np.exp(np.quantile(np.log(ranges / ranges.max()), (0.1, 0.5, 0.9, 1.0)))
    return bool(high <= UPPER_SPREAD * median and median <= LOWER_SPREAD * low and most <= MAX_SPREAD * median)


def _warn_of_far_rows(rows):
    squares = np.square(rows, dtype=np.float64).sum(axis=1)
    count = max(1, int(FAR_ROW_FRACTION * len(rows)))
    if len(rows) < 1 / FAR_ROW_FRACTION or not squares.any():
        return
    # Selection in linear time; the order of the far samples does not matter.
    far = np.argpartition(squares, -count)[-count:]
    if squares[far].sum() <= FAR_VARIANCE_FRACTION * squares.sum():
        return
    far = np.sort(far[squares[far] > squares.mean()])
    listed = ", ".join(map(str, far[:8])) + (" …" if len(far) > 8 else "")
    warn(
        f"{len(far)} of {len(rows)} rows lie so far from the others that these hardly differ once X is scaled (row"
        f"{'s' if len(far) > 1 else ''} {listed}). Drop or clip them to tell the others apart.",
        UserWarning,
    )

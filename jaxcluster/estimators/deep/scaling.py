"""Rows as networks want them, whatever their units: scaled on the host in float64, then float32."""

from __future__ import annotations

import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.caution import warn
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale

UPPER_SPREAD, LOWER_SPREAD, MAX_SPREAD = 3.0, 10.0, 30.0
"""Of the ranges of columns, their upper tenth over their median, that over their lower tenth, and the largest over the
median: with more of one of them, columns are taken to have units apart. The largest counts too, since one column of a
far larger unit leaves all others no variance, however many they are."""

FAR_ROW_FRACTION, FAR_VARIANCE_FRACTION = 0.01, 0.99
"""The share of the rows that may have this share of the variance of all, without a warning."""

SCALING_CHOICES = ("auto", *SCALINGS)


def scaled(
    x: np.ndarray, how: str, likelihood: str = "gaussian", *, images: bool = False
) -> tuple[np.ndarray, Scaling]:
    """Rows scaled for a network, float32, and the scaling itself.

    "auto" brings images to [0, 1] as a whole, so that they stay images, and leaves rows that must be in [0, 1] as they
    are. Others are centered, and divided by one number where columns have about the same range, as pixels and counts
    do: small variation says little there. Columns that plainly have units of their own are divided each by its
    deviation.

    Raises:
        ValueError: an unknown ``how``; values that float32 does not hold once they are scaled.

    Warns:
        UserWarning: a few rows so far from the others that these hardly differ once they are scaled.
    """
    validation.check_choice("scaling", how, SCALING_CHOICES)
    x = validation.widen(x)
    scaling = _fitted(x, how, likelihood, images)
    rows = rescaled(x, scaling)
    if scaling.shift is not None and not images:
        _warn_of_far_rows(rows)
    return rows, scaling


def rescaled(x: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Rows in a scaling that was fitted before, float32.

    Raises:
        ValueError: values that float32 does not hold once they are scaled.
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
    # Half of each: the range of ±1e308 is beyond float64.
    ranges = x.max(axis=0).astype(np.float64) / 2 - x.min(axis=0).astype(np.float64) / 2
    varying = ranges > 0
    if not _share_unit(ranges[varying]):
        return scaling
    most = scaling.factor[varying].max()
    shared = most * np.sqrt(np.mean(np.square(scaling.factor[varying] / most)))
    return scaling._replace(factor=np.full(scaling.factor.shape, shared))


def _share_unit(ranges: np.ndarray) -> bool:
    """Whether columns of these ranges are in the same units.

    Not by deviations: those of pixels differ by far more than the ranges of pixels. Quantiles lie between ranges as
    ratios, not as differences: of two columns with ranges of 1 and 1e5 the lower tenth is 3.2.
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

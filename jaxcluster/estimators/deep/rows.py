"""Rows as networks want them, whatever their units."""

from __future__ import annotations

import numpy as np

from jaxcluster.core import check
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale

ABOVE, BELOW = 3.0, 10.0
"""Of the ranges of columns, their upper tenth over their median, and that over their lower tenth: with more of one or
the other, columns are taken to have units apart."""

CHOICES = ("auto", *SCALINGS)


def scaled(
    x: np.ndarray, how: str, likelihood: str = "gaussian", *, images: bool = False
) -> tuple[np.ndarray, Scaling]:
    """Rows scaled for a network, float32, and the scaling itself.

    "auto" brings images to [0, 1] as a whole, so that they stay images, and leaves rows that must be in [0, 1] as they
    are. Others are centred, and divided by one number where columns have about the same range, as pixels and counts do:
    what varies little there says little. Those that have plainly units of their own are divided each by its deviation.
    """
    check.check_choice("scaling", how, CHOICES)
    if how != "auto":
        return scale(x, how)
    if images:
        low, high = float(x.min()), float(x.max())
        columns = np.ones(x.shape[1])
        scaling = Scaling("minmax", low * columns, (high - low if high > low else 1.0) * columns)
        return scaling.apply(x), scaling
    if likelihood == "bernoulli":
        return scale(x, "none")
    scaling = scale(x, "standard")[1]
    ranges = np.ptp(x, axis=0)
    varying = ranges > 0
    if _alike(ranges[varying]):
        shared = np.sqrt(np.mean(np.square(scaling.factor[varying])))
        scaling = scaling._replace(factor=np.full(scaling.factor.shape, shared))
    return scaling.apply(x), scaling


def _alike(ranges: np.ndarray) -> bool:
    """Whether columns of these ranges are in the same units.

    Not by deviations: those of pixels differ by far more than what a pixel can be.
    """
    if not ranges.size:
        return False
    low, median, high = np.quantile(ranges, (0.1, 0.5, 0.9))
    return bool(high <= ABOVE * median and median <= BELOW * low)

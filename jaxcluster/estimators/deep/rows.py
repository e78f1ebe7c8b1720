"""Rows as networks want them, whatever their units."""

from __future__ import annotations

import numpy as np

from jaxcluster.core import check
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale

SPREAD = 3.0
"""Of deviations of columns, their upper tenth over their median: with more, columns are taken to have units apart."""

CHOICES = ("auto", *SCALINGS)


def scaled(
    x: np.ndarray, how: str, likelihood: str = "gaussian", *, images: bool = False
) -> tuple[np.ndarray, Scaling]:
    """Rows scaled for a network, float32, and the scaling itself.

    "auto" brings images to [0, 1] as a whole, so that they stay images, and leaves rows that must be in [0, 1] as they
    are. Others are centred, and divided by one number where columns vary about alike, as pixels and counts do: what
    varies little there says little. Columns that have plainly units of their own are divided each by its deviation.
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
    varying = scaling.factor[x.min(0) != x.max(0)]
    if varying.size:
        scaling = scaling._replace(factor=_divisors(scaling.factor, varying))
    return scaling.apply(x), scaling


def _divisors(deviations: np.ndarray, varying: np.ndarray) -> np.ndarray:
    """What each column is divided by, from the deviations of all, and of those that are not constant."""
    median, high = np.quantile(varying, (0.5, 0.9))
    if high <= SPREAD * median:
        return np.full(deviations.shape, np.sqrt(np.mean(np.square(varying))))
    return deviations

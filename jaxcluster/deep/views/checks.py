"""Checks of what views are made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_share(name: str, value: Any, what: str, *, whole: bool = True) -> None:
    """Raises ValueError, saying ``what`` it is, unless ``value`` is in [0, 1]; below 1 where not ``whole``."""
    if not (0 <= value <= 1 if whole else 0 <= value < 1):
        raise ValueError(f"{name}={value} must be in [0, 1{']' if whole else ')'}: it is {what}.")


def check_interval(name: str, bounds: Sequence[Any], *, most: float | None = None) -> tuple[float, float]:
    """``bounds`` as (least, greatest), both positive and at most ``most``.

    Raises:
        ValueError: bounds in another order, out of range, or of another number.
    """
    bounds = tuple(map(float, bounds))
    limit = float("inf") if most is None else most
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= limit:
        end = "" if most is None else f" <= {most:g}"
        raise ValueError(f"{name}={bounds} must be (least, greatest) with 0 < least <= greatest{end}.")
    return bounds

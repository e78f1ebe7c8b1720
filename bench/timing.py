"""Timing: one thing at a time, every side in turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

SETTLE = 0.25
"""Seconds between calls: the threads of one library stop spinning before the next one is timed."""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Time one call.

    Returns:
        Wall-clock seconds, and the result of the call.
    """
    gc.collect()
    time.sleep(SETTLE)
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def alternate(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls a side, in rounds that start with another side each time."""
    names, seconds = list(calls), {name: [] for name in calls}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(timed(calls[name])[0])
    return seconds


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, least and all seconds; empty where a side was not timed."""
    if not seconds:
        return {}
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "seconds": seconds}

"""All trials, kind by kind."""

from __future__ import annotations

from collections.abc import Iterator

from bench.trials import kinds
from bench.trials.kinds import Trial


def trials() -> Iterator[Trial]:
    """Every trial there is."""
    yield from kinds.trials()

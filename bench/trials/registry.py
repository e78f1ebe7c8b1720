"""All trials, kind by kind."""

from __future__ import annotations

from collections.abc import Iterator

from bench.trials import graphs, kinds, scores, switches, truth
from bench.trials.kinds import Trial


def trials() -> Iterator[Trial]:
    """Every trial there is."""
    for module in (kinds, scores, graphs, truth, switches):
        yield from module.trials()

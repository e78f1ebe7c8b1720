"""Fixtures of the bench's tests: no pauses between timed calls, and tiny cases."""

from __future__ import annotations

import importlib.metadata
import types
from dataclasses import replace
from functools import cache

import pytest
from bench_records import TINY

from bench import __main__ as bench
from bench.cases import shrink

distributions = cache(importlib.metadata.packages_distributions)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Remove pauses and garbage collection before timed calls, and read the installed distributions once.

    No test reads the times, and to collect the garbage of the tests' process takes a second.
    """
    monkeypatch.setattr("bench.timing.SETTLE", 0)
    monkeypatch.setattr("bench.timing.gc", types.SimpleNamespace(collect=lambda: None))
    monkeypatch.setattr("importlib.metadata.packages_distributions", distributions)


@pytest.fixture
def tiny_cases(monkeypatch):
    """Shrink the cases of ``--quick`` further, to the size of `TINY`: a peer's min-cost flows take long."""

    def tiny(case):
        case = shrink(case)
        return replace(case, n=min(case.n, TINY.n), d=min(case.d, TINY.d), k=min(case.k, TINY.k))

    monkeypatch.setattr(bench, "shrink", tiny)

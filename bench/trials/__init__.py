"""Trials of every method on samples that nobody looked at: ``python -m bench.trials``."""

from __future__ import annotations

import sys

from bench.provenance import ROOT

# The problems and the registry of algorithms are those of the tests.
sys.path.append(str(ROOT / "tests" / "helpers"))

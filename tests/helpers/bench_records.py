"""A tiny case of the bench, and records as its runner writes them."""

from __future__ import annotations

from bench.cases import Case
from bench.peers import SKLEARN

TINY = Case("tiny", "lloyd", n=400, d=6, k=5, steps=4)


def record(case="lloyd", *, date="2025-01-01", median=0.5, peer=1.0, failure=None, quick=False, **changes):
    """A record as the runner writes it, with one peer that took ``peer`` seconds."""
    ratio = None if failure else peer / median
    made = {"date": date, "quick": quick, "commit": "0123456789abcdef", "dirty": False, "platform": "cpu"}
    made |= {"device": "Chip", "cores": 2, "dtype": "float32"}
    made |= {"versions": {"jax": "0.10", "numpy": "2.0", "scikit-learn": "1.7"}}
    return {
        "case": case,
        "title": f"The {case} case",
        "data": "generated",
        "ours": {"first_call_s": 2.0, "median_s": median},
        "peers": {SKLEARN: {"median_s": None if failure else peer, "ratio": ratio, "disagreement": failure}},
        "ratio": ratio,
        "target": 1.5,
        "provenance": made,
    } | changes

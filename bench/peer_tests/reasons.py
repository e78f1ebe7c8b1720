"""Tests of scikit-learn that are known not to pass, each with its reason: reviewed by hand, and shown in the docs.

An entry speaks for the tests that its pattern names (``*`` stands for anything) and for one error: a test that fails
with another error has no reason.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORDING = "another library's wording"
PRIVATE = "private attribute or function"
STREAM = "another random stream"
SPARSE = "sparse rows (not yet)"
CATEGORIES = (WORDING, PRIVATE, STREAM, SPARSE)


class Reason(NamedTuple):
    """Why some tests of a file need not pass.

    Attributes:
        tests: file and test, as in "cluster/test_dbscan.py::test_dbscan_sparse*".
        category: one of `CATEGORIES`.
        sentence: the reason, for a reader of the docs.
        error: a part of the error that it speaks for.
    """

    tests: str
    category: str
    sentence: str
    error: str = ""

    def names(self, test: str) -> bool:
        """Whether the pattern names this test."""
        return re.fullmatch(".*".join(map(re.escape, self.tests.split("*"))), test, re.DOTALL) is not None

    def explains(self, test: str, error: str) -> bool:
        """Whether this is the reason of a failure."""
        return self.names(test) and self.error in error


REASONS: tuple[Reason, ...] = ()

"""Warnings that point at the line of the user, however many calls of the library lie between."""

from __future__ import annotations

import sys
import warnings

PASSED_OVER = {"jaxcluster", "jax", "sklearn", "joblib", "contextlib", "jaxtyping", "beartype"}
"""Packages whose frames no user wrote: the library, what it is called through, and checks of types."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """`warnings.warn` with the place of the first caller outside the library.

    Python shows a warning once a place. With the place of a line of the library, the second model would be silent.
    """
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)

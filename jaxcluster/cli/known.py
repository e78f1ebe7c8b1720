"""What the command line tells a method of the classes of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxcluster.cli.errors import MistakeError, mistakes

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.cli.inputs import Rows

LEARNERS = ("metric-embedding", "joint-clustering")
"""Methods that learn from classes."""


def check_learns(algorithm: str) -> None:
    """Refuses labels for a method that learns from none."""
    if algorithm not in LEARNERS:
        raise MistakeError(f"--labels means nothing to {algorithm}; {' and '.join(LEARNERS)} learn from them.")


def known_labels(labels: str, rows: Rows, seed: int) -> np.ndarray:
    """(n,) classes as words or numbers, those not known as the method wants them: from a file, or part of the truth.

    Raises:
        MistakeError: a share out of (0, 1], or of no truth; a file that there is not, or of another number of rows.
    """
    share = _share(labels)
    if share is None:
        return _from_file(labels, len(rows.x))
    import numpy as np

    truth = rows.dataset.y
    if truth is None:
        raise MistakeError(
            f"--labels {labels} is a share of the truth, and {rows.dataset.name} has none: pass --truth."
        )
    drawn = np.random.default_rng(seed).random(len(truth)).argsort() < max(1, round(share * len(truth)))
    if truth.dtype.kind == "U":
        return np.where(drawn, truth.astype(object), None)
    if truth.dtype.kind in "iu" and truth.min() >= -1:
        return np.where(drawn, truth, -1)
    # Other numbers by their place among them, so that -1 can stand for those that are not known.
    return np.where(drawn, np.unique(truth, return_inverse=True)[1].ravel(), -1)


def _share(labels: str) -> float | None:
    """The share that ``labels`` is; None where it is a file."""
    if Path(labels).is_file():
        return None
    try:
        share = float(labels)
    except ValueError:
        raise MistakeError(f"--labels {labels} is neither a file that there is nor a share such as 0.1.") from None
    if not 0 < share <= 1:
        raise MistakeError(f"--labels {labels} is a share of the truth, and must be above 0 and at most 1.")
    return share


def _from_file(path: str, n: int) -> np.ndarray:
    import numpy as np

    from jaxcluster.datasets import load_labels

    with mistakes():
        labels = load_labels(path)
    if labels.dtype.kind == "U":
        labels = np.where(np.isin(labels, ("", "-1")), None, labels.astype(object))
    if len(labels) != n:
        raise MistakeError(f"--labels {path} has {len(labels):,} labels for {n:,} rows: one is needed for each.")
    return labels

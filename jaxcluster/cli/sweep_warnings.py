"""What a sweep says of fits that did not simply converge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.cli.console import complain
from jaxcluster.types import Status

if TYPE_CHECKING:
    from jaxcluster.cli.inputs import Rows

CAUSES = {
    Status.MAX_STEPS: "some starts stopped at their limit of steps{}. Raise --max-iter, or --tol.",
    Status.NOT_FINITE: "some starts met numbers that are not finite{}. Pass --scale standard, or raise the "
    "--reg-covar of mixtures.",
    Status.COLLAPSED: "in some starts a component collapsed{}. Take fewer components, or raise --reg-covar.",
    Status.PRECISION: "some rows differ by less than the computation can tell apart{}. Set JAX_ENABLE_X64=1 before the "
    "command, or pass --scale standard.",
}
"""What to say of each status, with a place for the names of the fits."""


def warn_of(found: Any, names: Sequence[str], ks: Sequence[int], rows: Rows, *, by: str = ", with k = ") -> None:
    """Says what the data or the limit of steps did not allow.

    Args:
        found: (m, seeds) statuses.
        names: m, of the fits.
        ks: m numbers of clusters.
        rows: that were clustered.
        by: what stands before the names.
    """
    found = np.asarray(found)
    for status, cause in CAUSES.items():
        hit = [name for name, each in zip(names, found, strict=True) if (each == status).any()]
        if hit:
            complain("Warning", cause.format(f"{by}{', '.join(hit)}"), "yellow")
    empty = [(k, name) for k, name, each in zip(ks, names, found, strict=True) if (each == Status.EMPTY_CLUSTERS).any()]
    if not empty:
        return
    distinct = _distinct(rows)
    few = [name for k, name in empty if k > distinct]
    other = [name for k, name in empty if k <= distinct]
    if few:
        complain("Warning", f"there are fewer distinct rows than clusters for k = {', '.join(few)}.", "yellow")
    if other:
        cause = "though there are enough different rows. Try more --seeds"
        complain("Warning", f"some starts left clusters empty{by}{', '.join(other)}, {cause}.", "yellow")


def _distinct(rows: Rows) -> int:
    """How many different rows of positive weight there are."""
    x = rows.x if rows.weights is None else rows.x[rows.weights > 0]
    return len(np.unique(x, axis=0))

"""Columns of rows, and how well each comes back through the code of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.maps import check_columns
from jaxcluster.plots.style import MUTED, PALETTE, finish, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 24


def reconstruction_errors(
    x: Any, returned: Any, ax: Axes | None = None, *, columns: Sequence[str] | None = None
) -> Axes:
    """The share of each column's variance that does not come back, the worst columns on top; 24 of more.

    0 is a column that comes back whole, 1 one of which nothing but its mean does. Columns that do not vary are left
    out.

    Args:
        x: (n, d) rows.
        returned: (n, d), as they came back.
        columns: d names, instead of numbers.

    Raises:
        ValueError: where they do not fit, or no column varies.
    """
    x, returned = np.asarray(x, float), np.asarray(returned, float)
    if x.ndim != 2 or x.shape != returned.shape:
        raise ValueError(f"rows {x.shape} and {returned.shape} do not fit: (n, d) both are needed.")
    check_columns(columns, x.shape[1])
    variance = x.var(axis=0)
    varying = np.flatnonzero(variance > 0)
    if not varying.size:
        raise ValueError("no column of x varies: there is no error to compare.")
    lost = np.mean(np.square(x - returned), axis=0)[varying] / variance[varying]
    worst = np.argsort(-lost, kind="stable")[:MOST_COLUMNS]
    names = [f"column {j}" if columns is None else plain(columns[j]) for j in varying[worst]]
    ax = new_axes(ax, 6.4, 1.2 + 0.24 * len(worst))
    bars = ax.barh(np.arange(len(worst)), lost[worst], color=PALETTE[0], height=0.7)
    ax.bar_label(bars, fmt="{:.1%}", padding=4, color=MUTED, fontsize=8.5)
    ax.set_yticks(np.arange(len(worst)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    more = "" if len(worst) == x.shape[1] else f" ({len(worst)} of {x.shape[1]} columns)"
    finish(ax, f"What does not come back{more}", "share of the column's variance")
    ax.grid(False, axis="y")
    return ax

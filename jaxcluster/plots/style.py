"""What all pictures share: colors, axes, titles, and how rows and labels are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.words import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (
    *("#2f6fde", "#f07d1e", "#0f957c", "#c2304c", "#a884ea", "#e8c21c", "#58bdf0", "#6f4122"),
    *("#9fd694", "#f58cc3", "#70388f", "#78689f", "#58b778", "#bf6800", "#972060", "#c778af"),
    *("#60dfef", "#706000", "#1850b7", "#cf6060", "#975078", "#e79797", "#e7a740", "#9770bf"),
)
"""Ten colors by hand, then each the farthest from those before it in OKLab, under the worst of normal, deuteranopic
and protanopic sight (Machado et al., 2009), at a lightness that shows on white and on black. Label 24 is 0's again."""

INK, MUTED, GRID, PAPER, NOISE = "#1f2430", "#66707d", "#dfe3e8", "#fefefe", "#b9c0c9"
"""Text, lesser text, grid lines, background, noise. The report gives them other values on a dark page."""

NUMBERED = 40
"""Beyond this many clusters their numbers would hide the picture."""


def new_axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """``ax``, or one in a new figure of this size in inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def plain(text: Any) -> str:
    r"""A name from the data as matplotlib draws it letter by letter: no mathematics between $ signs, no control signs.

    >>> plain("price in $")
    'price in \\$'
    """
    return visible(str(text)).replace("$", r"\$")


def finish(ax: Axes, title: str, xlabel: str = "", ylabel: str = "", *, integer: bool = False, pad: float = 10) -> Axes:
    """Titles and the quiet frame around every picture.

    ``integer`` keeps fractions off the x axis, ``pad`` is the room in points between the title and the axes.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_title(plain(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=pad)
    ax.set_xlabel(plain(xlabel), color=MUTED, fontsize=10)
    ax.set_ylabel(plain(ylabel), color=MUTED, fontsize=10)
    ax.tick_params(colors=MUTED, labelsize=9, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    if integer:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    return ax


def compact(value: float) -> str:
    """A number in about four digits: 78.85, 12.3k, 1.165M."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power * (10 if power == 3 else 1):
            return f"{value / 10**power:.4g}{letter}"
    return f"{value:.4g}"


def rows_and_labels(x: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays. Raises ValueError unless they are (n, d) and (n,)."""
    x, labels = wide(x), np.asarray(labels)
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"rows {x.shape} and labels {labels.shape} do not fit: (n, d) and (n,) are needed.")
    return x, labels


def wide(x: Any) -> np.ndarray:
    """Numbers as they are where they are float32 or float64, all others as float64: nothing is drawn in less."""
    x = np.asarray(x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def sample(n: int, most: int, seed: int = 0) -> np.ndarray:
    """Positions of at most that many of n rows, drawn without replacement, in order."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def of_rows(kept: int, n: int) -> str:
    """What a title says where not all rows are shown."""
    return "" if kept == n else f" ({kept:,} of {n:,} rows)"


def is_noise(labels: np.ndarray) -> np.ndarray:
    """(n,) whether a row is noise: -1 among numbers, never among text."""
    return labels == -1 if labels.dtype.kind in "iuf" else np.zeros(labels.shape, bool)


def color_of(cluster: int) -> str:
    """Color of the cluster of this number, from 0."""
    return PALETTE[cluster % len(PALETTE)]


def colors_of(labels: np.ndarray) -> dict[Any, str]:
    """Color of each label: a cluster's goes by its number, a named class's by its place among the names."""
    names = np.unique(labels)
    by_number = names.dtype.kind in "iuf"
    colors = {name: color_of(int(name) if by_number else i) for i, name in enumerate(names.tolist())}
    return colors | ({-1: NOISE} if by_number else {})


def colors_like(truth: np.ndarray, labels: np.ndarray) -> dict[Any, str]:
    """Color of each class: that of the cluster it is matched with, so that most rows keep theirs; then others'.

    Classes and clusters are matched one to one so that as many rows as possible are in a matched pair (Kuhn, 1955).
    """
    from scipy.optimize import linear_sum_assignment

    colors = colors_of(labels)
    kept = ~is_noise(truth) & ~is_noise(labels)
    classes, class_ = np.unique(truth[~is_noise(truth)], return_inverse=True)
    clusters, cluster = np.unique(labels[~is_noise(labels)], return_inverse=True)
    counts = np.zeros((len(classes), len(clusters)), np.int64)
    inverse = np.zeros((2, len(truth)), np.int64)
    inverse[0, ~is_noise(truth)], inverse[1, ~is_noise(labels)] = class_.ravel(), cluster.ravel()
    np.add.at(counts, (inverse[0, kept], inverse[1, kept]), 1)
    pairs = dict(zip(*map(np.ndarray.tolist, linear_sum_assignment(-counts)), strict=True))
    found = {i: colors[clusters[j].item()] for i, j in pairs.items() if counts[i, j]}
    free = iter([color for color in PALETTE if color not in found.values()] + list(PALETTE) * len(classes))
    named = {name: found.get(i) or next(free) for i, name in enumerate(classes.tolist())}
    return named | ({-1: NOISE} if truth.dtype.kind in "iuf" else {})


def on_top(color: str) -> str:
    """White or ink, whichever is read more easily on ``color`` (WCAG's relative luminance)."""
    red, green, blue = ((int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.36 else "#101318"


def halo() -> list[Any]:
    """Path effects that keep a text legible over whatever is drawn below it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground=PAPER)]

"""Style of all plots: colors, axes, titles, number formats, and checks of samples and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.messages import printable
from jaxcluster.metrics.contingency import narrow_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (
    *("#2f6fde", "#f07d1e", "#0f957c", "#c2304c", "#a884ea", "#e8c21c", "#58bdf0", "#6f4122"),
    *("#9fd694", "#f58cc3", "#70388f", "#78689f", "#58b778", "#bf6800", "#972060", "#c778af"),
    *("#60dfef", "#706000", "#1850b7", "#cf6060", "#975078", "#e79797", "#e7a740", "#9770bf"),
)
"""Colors of labels 0 to 23; label 24 has the color of 0 again. Ten were chosen by hand. Each of the others is the
farthest in OKLab from those before it, in the worst of normal, deuteranopic and protanopic vision (Machado et al.,
2009), at a lightness that is visible on white and on black."""

INK, MUTED, GRID, PAPER, NOISE = "#1f2430", "#66707d", "#dfe3e8", "#fefefe", "#b9c0c9"
"""Text, secondary text, grid lines, background, noise. The report replaces them on a dark page."""

MAX_NUMBERED = 40
"""Number of clusters beyond which their numbers would hide the plot."""


def new_axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """``ax``, or the axes of a new figure of this size in inches."""
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def escape_text(text: Any) -> str:
    r"""A name from the data as literal text for matplotlib: no mathtext between $ signs, no control characters.

    >>> escape_text("price in $")
    'price in \\$'
    """
    return printable(str(text)).replace("$", r"\$")


def style_axes(
    ax: Axes, title: str, xlabel: str = "", ylabel: str = "", *, integer: bool = False, pad: float = 10
) -> Axes:
    """Set the title, labels and common style of a plot.

    Args:
        integer: no fractions on the x axis.
        pad: space between title and axes, in points.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.set_title(escape_text(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=pad)
    ax.set_xlabel(escape_text(xlabel), color=MUTED, fontsize=10)
    ax.set_ylabel(escape_text(ylabel), color=MUTED, fontsize=10)
    ax.tick_params(colors=MUTED, labelsize=9, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.grid(True, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    if integer:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    return ax


def annotate(ax: Axes, text: str, at: tuple[Any, Any], offset: tuple[float, float], **style: Any) -> None:
    """Write bold text beside a point, ``offset`` points away from it."""
    style = {"color": INK, "fontsize": 9.5, "fontweight": "bold", **style}
    ax.annotate(text, at, offset, textcoords="offset points", **style)


def format_number(value: float) -> str:
    """A number in about four digits.

    >>> format_number(78.851), format_number(1165189)
    ('78.85', '1.165M')
    """
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power * (10 if power == 3 else 1):
            return f"{value / 10**power:.4g}{letter}"
    return f"{value:.4g}"


def check_labeled(x: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Samples and labels as arrays. Raises ValueError unless they are (n, d) and (n,).

    Returns:
        (n, d) floating samples and (n,) labels.
    """
    x, labels = as_float(x), narrow_labels(labels)
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"rows {x.shape} and labels {labels.shape} do not fit: (n, d) and (n,) are needed.")
    return x, labels


def as_float(x: Any) -> np.ndarray:
    """An array in float32 or float64: other dtypes become float64, as half precision shows in a plot."""
    x = np.asarray(x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def sample_indices(n: int, most: int, seed: int = 0) -> np.ndarray:
    """Sorted indices of at most ``most`` of n samples, drawn without replacement."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def subset_note(kept: int, n: int) -> str:
    """The end of a title that tells that ``kept`` of n samples are drawn; empty if all are."""
    return "" if kept == n else f" ({kept:,} of {n:,} rows)"


def is_noise(labels: np.ndarray) -> np.ndarray:
    """(n,) mask of noise: label -1 among numbers; text labels are never noise."""
    return labels == -1 if labels.dtype.kind in "iuf" else np.zeros(labels.shape, bool)


def color_of(cluster: int) -> str:
    """Color of a cluster number, from 0."""
    return PALETTE[cluster % len(PALETTE)]


def colors_of(labels: np.ndarray) -> dict[Any, str]:
    """Color of each label: by number, or by position among the sorted names."""
    names = np.unique(labels)
    by_number = names.dtype.kind in "iuf"
    colors = {name: color_of(int(name) if by_number else i) for i, name in enumerate(names.tolist())}
    return colors | ({-1: NOISE} if by_number else {})


def match_classes(truth: np.ndarray, labels: np.ndarray) -> dict[Any, Any]:
    """The cluster that each class is matched with; classes without a cluster of their own are left out.

    Classes and clusters are matched one to one to maximize the samples in matched pairs (Kuhn, 1955).

    >>> match_classes(np.array(["a", "a", "b", "c"]), np.array([1, 1, 0, 0]))
    {'a': 1, 'b': 0}
    """
    from scipy.optimize import linear_sum_assignment

    paired = ~is_noise(truth) & ~is_noise(labels)
    classes, class_ = np.unique(truth[paired], return_inverse=True)
    clusters, cluster = np.unique(labels[paired], return_inverse=True)
    counts = np.zeros((len(classes), len(clusters)), np.int64)
    np.add.at(counts, (class_.ravel(), cluster.ravel()), 1)
    pairs = zip(*map(np.ndarray.tolist, linear_sum_assignment(-counts)), strict=True)
    return {classes[i].item(): clusters[j].item() for i, j in pairs if counts[i, j]}


def colors_like(truth: np.ndarray, labels: np.ndarray) -> dict[Any, str]:
    """Color of each class: that of the cluster it is matched with, so that most samples keep theirs; then unused ones.

    See `match_classes`.
    """
    colors, pairs = colors_of(labels), match_classes(truth, labels)
    matched = {name: colors[cluster] for name, cluster in pairs.items()}
    classes = np.unique(truth[~is_noise(truth)]).tolist()
    unused = iter([color for color in PALETTE if color not in matched.values()] + list(PALETTE) * len(classes))
    class_colors = {name: matched.get(name) or next(unused) for name in classes}
    return class_colors | ({-1: NOISE} if truth.dtype.kind in "iuf" else {})


def contrast_color(color: str) -> str:
    """White or near-black text, whichever has more contrast on ``color`` (WCAG's relative luminance)."""
    red, green, blue = ((int(color[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.36 else "#101318"


def halo() -> list[Any]:
    """Path effects that keep text legible over the plot."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground=PAPER)]

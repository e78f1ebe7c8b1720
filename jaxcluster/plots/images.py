"""Samples that are images: cluster centers, reconstructions, and samples of a generative model.

>>> from matplotlib import use
>>> use("Agg")
>>> centers_as_images(np.eye(4), (2, 2)).get_title(loc="left")
'Centers as images'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import INK, MAX_NUMBERED, MUTED, escape_text, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_IMAGES, MAX_PAIRS = 100, 16
"""Images of a sheet, and pairs of an image and its reconstruction: more would be too small to see."""


def centers_as_images(
    centers: Any,
    image_shape: Sequence[int],
    ax: Axes | None = None,
    *,
    names: Sequence[Any] | None = None,
    title: str = "Centers as images",
) -> Axes:
    """Each center as an image, numbered or named; at most the first 100.

    Args:
        centers: (k, h·w) or (k, h·w·c) in any units: the least value over all is black, the greatest white.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: k, instead of numbers.
        title: of the plot.

    Raises:
        ValueError: centers that are not images of this shape.
    """
    centers, shape = np.asarray(centers, np.float32), _check_shape(image_shape)
    if centers.ndim != 2 or centers.shape[1] != math.prod(shape) or not len(centers):
        raise ValueError(f"centers {centers.shape} are not images of shape {shape}: (k, {math.prod(shape)}) is needed.")
    shown = centers[:MAX_IMAGES].reshape(-1, *shape)
    sheet, corners = _contact_sheet(shown)
    ax = _sheet(ax, sheet)
    for number, (top, left) in enumerate(corners):
        _label(ax, left + shape[1] / 2, top, number if names is None else names[number])
    more = "" if len(shown) == len(centers) else f" (the first {len(shown)} of {len(centers)})"
    return _set_title(ax, f"{title}{more}")


def reconstructions(
    x: Any,
    reconstruction: Any,
    image_shape: Sequence[int],
    ax: Axes | None = None,
    *,
    names: Sequence[Any] | None = None,
) -> Axes:
    """Images, and below each its reconstruction; at most the first 16.

    Args:
        x: (n, h·w) or (n, h·w·c), in any units: the least value over both is black, the greatest white.
        reconstruction: of the same shape, the output of the decoder.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: n, titles of the images, such as their clusters.

    Raises:
        ValueError: arrays that do not fit, or are not images of this shape.
    """
    x, reconstruction = np.asarray(x, np.float32), np.asarray(reconstruction, np.float32)
    shape = _check_shape(image_shape)
    if x.shape != reconstruction.shape or x.ndim != 2 or x.shape[1] != math.prod(shape) or not len(x):
        raise ValueError(f"rows {x.shape} and {reconstruction.shape} are not pairs of images of shape {shape}.")
    pairs = np.concatenate([x[:MAX_PAIRS], reconstruction[:MAX_PAIRS]]).reshape(-1, *shape)
    n = len(pairs) // 2
    sheet, corners = _contact_sheet(pairs, n, gap=0.12)
    ax = _sheet(ax, sheet, 9.6)
    for number, (top, left) in enumerate(corners[:n]):
        _label(ax, left + shape[1] / 2, top, "" if names is None else names[number])
    for text, (top, left) in (("input", corners[0]), ("output", corners[n])):
        _label(ax, left, top + shape[0] / 2, text, left=True)
    return _set_title(ax, "Inputs and reconstructions")


def samples(
    rows: Any,
    image_shape: Sequence[int],
    ax: Axes | None = None,
    *,
    names: Sequence[Any] | None = None,
    title: str = "Drawn from each cluster",
) -> Axes:
    """Generated or typical images of each cluster, one line per cluster; at most the first 40 clusters.

    Args:
        rows: (k, m, h·w) or (k, m, h·w·c), m images of each cluster, in any units.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: k, instead of numbers.
        title: of the plot.

    Raises:
        ValueError: rows that are not images of this shape.
    """
    rows, shape = np.asarray(rows, np.float32), _check_shape(image_shape)
    if rows.ndim != 3 or rows.shape[2] != math.prod(shape) or not rows.size:
        raise ValueError(f"rows {rows.shape} are not images of shape {shape}: (k, m, {math.prod(shape)}) is needed.")
    m, names = rows.shape[1], range(len(rows)) if names is None else names
    sheet, corners = _contact_sheet(rows[:MAX_NUMBERED].reshape(-1, *shape), m, gap=0.12)
    ax = _sheet(ax, sheet)
    for name, (top, left) in zip(names, corners[::m], strict=False):
        _label(ax, left, top + shape[0] / 2, name, left=True)
    more = f" (the first {MAX_NUMBERED} of {len(rows)})" if len(rows) > MAX_NUMBERED else ""
    return _set_title(ax, f"{title}{more}")


def _check_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in image_shape)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"image_shape={shape} must be (h, w), or (h, w, c) with 3 or 4 channels.")
    return shape


def _sheet(ax: Axes | None, sheet: np.ndarray, width: float = 6.4) -> Axes:
    ax = new_axes(ax, width, width * sheet.shape[0] / sheet.shape[1] + 0.4)
    # Without interpolation, as images of a few pixels would blur.
    ax.imshow(sheet, interpolation="none")
    ax.set_axis_off()
    return ax


def _label(ax: Axes, x: float, y: float, name: Any, *, left: bool = False) -> None:
    """Write a name above a point, or left of it; pixel i of an image reaches from i − ½ to i + ½."""
    style = {"ha": "right", "va": "center"} if left else {"ha": "center", "va": "bottom"}
    offset, style = (-4, 0) if left else (0, 2), {"color": MUTED, "fontsize": 9, **style}
    ax.annotate(escape_text(name), (x - 0.5, y - 0.5), offset, textcoords="offset points", **style)


def _set_title(ax: Axes, title: str) -> Axes:
    ax.set_title(escape_text(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)
    return ax


def _contact_sheet(
    images: np.ndarray, across: int | None = None, *, gap: float = 0.3
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Arrange images on one transparent sheet.

    Args:
        images: (k, h, w) or (k, h, w, c).
        across: images per line.
        gap: space above each image, relative to its height.

    Returns:
        (height, width, 4) sheet, and the (top, left) corner of each image.
    """
    k, h, w = images.shape[:3]
    columns = min(k, max(5, math.ceil(math.sqrt(2 * k)))) if across is None else across
    down = -(-k // columns)
    # One gray scale for all images, so that they can be compared.
    low, high = np.nanmin(images), np.nanmax(images)
    images = (images - low) / (high - low if high > low else 1)
    gap_x, gap_y = max(1, round(0.12 * w)), max(1, round(gap * h))
    sheet = np.zeros((down * (h + gap_y), columns * (w + gap_x) - gap_x, 4), np.float32)
    corners = [(gap_y + i // columns * (h + gap_y), i % columns * (w + gap_x)) for i in range(k)]
    for image, (top, left) in zip(images, corners, strict=True):
        place = sheet[top : top + h, left : left + w]
        place[..., 3] = 1
        place[..., : image.shape[2] if image.ndim == 3 else 3] = image if image.ndim == 3 else image[..., None]
    return sheet, corners

"""Rows that are images: centers, what comes back of rows, and what a model draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import INK, MUTED, NUMBERED, new_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES, MOST_PAIRS = 100, 16


def centers_as_images(
    centers: Any,
    image_shape: Sequence[int],
    ax: Axes | None = None,
    *,
    names: Sequence[Any] | None = None,
    title: str = "Centers as images",
) -> Axes:
    """Each center as an image, numbered or named; the first 100 of more.

    Args:
        centers: (k, h·w) or (k, h·w·c) in any units: the least value over all is black, the greatest white.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: k, instead of numbers.
        title: of the picture.

    Raises:
        ValueError: where centers of this width are no images of this shape.
    """
    centers, shape = np.asarray(centers, np.float32), _checked(image_shape)
    if centers.ndim != 2 or centers.shape[1] != math.prod(shape) or not len(centers):
        raise ValueError(f"centers {centers.shape} are no images {shape}: (k, {math.prod(shape)}) is needed.")
    shown = centers[:MOST_IMAGES].reshape(-1, *shape)
    sheet, corners = _contact_sheet(shown)
    ax = _sheet(ax, sheet)
    for number, (top, left) in enumerate(corners):
        _above(ax, left + shape[1] / 2, top, number if names is None else names[number])
    more = "" if len(shown) == len(centers) else f" (the first {len(shown)} of {len(centers)})"
    return _titled(ax, f"{title}{more}")


def reconstructions(
    x: Any, returned: Any, image_shape: Sequence[int], ax: Axes | None = None, *, names: Sequence[Any] | None = None
) -> Axes:
    """Rows that are images, and below each what came back of it; the first 16 of more.

    Args:
        x: (n, h·w) or (n, h·w·c) rows, in any units: the least value over both is black, the greatest white.
        returned: as many rows, as they came back.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: n, what stands above each, such as its cluster.

    Raises:
        ValueError: where the two do not fit, or are no images of this shape.
    """
    x, returned, shape = np.asarray(x, np.float32), np.asarray(returned, np.float32), _checked(image_shape)
    if x.shape != returned.shape or x.ndim != 2 or x.shape[1] != math.prod(shape) or not len(x):
        raise ValueError(f"rows {x.shape} and {returned.shape} are no pairs of images {shape}.")
    pairs = np.concatenate([x[:MOST_PAIRS], returned[:MOST_PAIRS]]).reshape(-1, *shape)
    n = len(pairs) // 2
    sheet, corners = _contact_sheet(pairs, n, gap=0.12)
    ax = _sheet(ax, sheet, 9.6)
    for number, (top, left) in enumerate(corners[:n]):
        _above(ax, left + shape[1] / 2, top, "" if names is None else names[number])
    for text, (top, left) in (("row", corners[0]), ("back", corners[n])):
        _beside(ax, left, top + shape[0] / 2, text)
    return _titled(ax, "Rows, and what comes back of them")


def samples(
    rows: Any,
    image_shape: Sequence[int],
    ax: Axes | None = None,
    *,
    names: Sequence[Any] | None = None,
    title: str = "Drawn from each cluster",
) -> Axes:
    """Images that a model drew, or that stand for clusters, a line a cluster; the first 40 clusters of more.

    Args:
        rows: (k, m, h·w) or (k, m, h·w·c), m of each cluster, in any units.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: k, instead of numbers.
        title: of the picture.

    Raises:
        ValueError: where rows are no images of this shape.
    """
    rows, shape = np.asarray(rows, np.float32), _checked(image_shape)
    if rows.ndim != 3 or rows.shape[2] != math.prod(shape) or not rows.size:
        raise ValueError(f"rows {rows.shape} are no images {shape}: (k, m, {math.prod(shape)}) is needed.")
    m, names = rows.shape[1], range(len(rows)) if names is None else names
    sheet, corners = _contact_sheet(rows[:NUMBERED].reshape(-1, *shape), m, gap=0.12)
    ax = _sheet(ax, sheet)
    for name, (top, left) in zip(names, corners[::m], strict=False):
        _beside(ax, left, top + shape[0] / 2, name)
    more = f" (the first {NUMBERED} of {len(rows)})" if len(rows) > NUMBERED else ""
    return _titled(ax, f"{title}{more}")


def _checked(image_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in image_shape)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"image_shape={shape} must be (h, w), or (h, w, c) with 3 or 4 channels.")
    return shape


def _sheet(ax: Axes | None, sheet: np.ndarray, width: float = 6.4) -> Axes:
    ax = new_axes(ax, width, width * sheet.shape[0] / sheet.shape[1] + 0.4)
    ax.imshow(sheet, interpolation="none")
    ax.set_axis_off()
    return ax


def _above(ax: Axes, x: float, y: float, name: Any) -> None:
    style = {"textcoords": "offset points", "ha": "center", "va": "bottom", "color": MUTED, "fontsize": 9}
    ax.annotate(plain(name), (x - 0.5, y - 0.5), (0, 2), **style)


def _beside(ax: Axes, x: float, y: float, name: Any) -> None:
    style = {"textcoords": "offset points", "ha": "right", "va": "center", "color": MUTED, "fontsize": 9}
    ax.annotate(plain(name), (x - 0.5, y - 0.5), (-4, 0), **style)


def _titled(ax: Axes, title: str) -> Axes:
    ax.set_title(plain(title), loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)
    return ax


def _contact_sheet(
    images: np.ndarray, across: int | None = None, *, gap: float = 0.3
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All images in rows, (height, width, 4), transparent between them; and the upper left corner of each.

    ``gap`` is the room above each, as a share of its height.
    """
    k, h, w = images.shape[:3]
    across = min(k, max(5, math.ceil(math.sqrt(2 * k)))) if across is None else across
    down = -(-k // across)
    low, high = np.nanmin(images), np.nanmax(images)
    images = (images - low) / (high - low if high > low else 1)
    gap_x, gap_y = max(1, round(0.12 * w)), max(1, round(gap * h))
    sheet = np.zeros((down * (h + gap_y), across * (w + gap_x) - gap_x, 4), np.float32)
    corners = [(gap_y + i // across * (h + gap_y), i % across * (w + gap_x)) for i in range(k)]
    for image, (top, left) in zip(images, corners, strict=True):
        place = sheet[top : top + h, left : left + w]
        place[..., 3] = 1
        place[..., : image.shape[2] if image.ndim == 3 else 3] = image if image.ndim == 3 else image[..., None]
    return sheet, corners

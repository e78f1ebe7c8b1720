"""Centers as the images they are means of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.style import INK, MUTED, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 100


def centers_as_images(
    centers: Any, image_shape: Sequence[int], ax: Axes | None = None, *, names: Sequence[Any] | None = None
) -> Axes:
    """Each center as an image, numbered or named; the first 100 of more.

    Args:
        centers: (k, h·w) or (k, h·w·c) in any units: the least value over all is black, the greatest white.
        image_shape: (h, w), or (h, w, c) with 3 or 4 channels.
        names: k, instead of numbers.

    Raises:
        ValueError: where centers of this width are no images of this shape.
    """
    centers, shape = np.asarray(centers, np.float32), tuple(int(size) for size in image_shape)
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,), (4,)):
        raise ValueError(f"image_shape={shape} must be (h, w), or (h, w, c) with 3 or 4 channels.")
    if centers.ndim != 2 or centers.shape[1] != math.prod(shape) or not len(centers):
        raise ValueError(f"centers {centers.shape} are no images {shape}: (k, {math.prod(shape)}) is needed.")
    shown = centers[:MOST_IMAGES].reshape(-1, *shape)
    sheet, corners = _contact_sheet(shown)
    ax = new_axes(ax, 6.4, 6.4 * sheet.shape[0] / sheet.shape[1] + 0.4)
    ax.imshow(sheet, interpolation="none")
    for number, (top, left) in enumerate(corners):
        name = number if names is None else names[number]
        ax.annotate(
            str(name),
            (left + shape[1] / 2 - 0.5, top - 0.5),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=MUTED,
            fontsize=9,
        )
    ax.set_axis_off()
    more = "" if len(shown) == len(centers) else f" (the first {len(shown)} of {len(centers)})"
    ax.set_title(f"Centers as images{more}", loc="left", fontsize=12, fontweight="bold", color=INK, pad=10)
    return ax


def _contact_sheet(images: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """All images in rows, (height, width, 4), transparent between them; and the upper left corner of each."""
    k, h, w = images.shape[:3]
    across = min(k, max(5, math.ceil(math.sqrt(2 * k))))
    down = -(-k // across)
    low, high = np.nanmin(images), np.nanmax(images)
    images = (images - low) / (high - low if high > low else 1)
    gap_x, gap_y = max(1, round(0.12 * w)), max(1, round(0.3 * h))
    sheet = np.zeros((down * (h + gap_y), across * (w + gap_x) - gap_x, 4), np.float32)
    corners = [(gap_y + i // across * (h + gap_y), i % across * (w + gap_x)) for i in range(k)]
    for image, (top, left) in zip(images, corners, strict=True):
        place = sheet[top : top + h, left : left + w]
        place[..., 3] = 1
        place[..., : image.shape[2] if image.ndim == 3 else 3] = image if image.ndim == 3 else image[..., None]
    return sheet, corners

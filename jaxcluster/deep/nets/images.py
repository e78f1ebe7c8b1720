"""Images in rows: what shape they are, and how flat ones get it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jaxcluster.core import check


def as_image_shape(shape: Any) -> tuple[int, int, int]:
    """(height, width, channels); a shape of two has one channel.

    Raises:
        ValueError, TypeError: a shape of another length, or that is none.
    """
    if not isinstance(shape, Sequence):
        raise TypeError(f"image_shape={shape!r} must be (height, width) or (height, width, channels).")
    shape = tuple(check.check_count("a side of image_shape", side) for side in shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"image_shape={shape} must be (height, width) or (height, width, channels).")
    return shape if len(shape) == 3 else (*shape, 1)


def as_images(x: Any, image_shape: tuple[int, int, int]) -> Any:
    """Rows as (n, height, width, channels).

    Flat rows, (n, d), are of ``image_shape``. Images that come as images, (n, h, w, channels) or (n, h, w) of one
    channel, keep their own height and width, which crops may have made others.

    Raises:
        ValueError: rows that are no images of that shape, or of another number of channels.
    """
    channels = image_shape[2]
    if x.ndim == 2 and x.shape[1] == math.prod(image_shape):
        return x.reshape(-1, *image_shape)
    if x.ndim == 3 and channels == 1:
        return x[..., None]
    if x.ndim == 4 and x.shape[3] == channels:
        return x
    seen = f"{x.shape[1]} columns" if x.ndim == 2 else f"the shape {x.shape}"
    if x.ndim == 4 and x.shape[1] == channels:
        seen += " with the channels first (bring them to the end by x.transpose(0, 2, 3, 1))"
    raise ValueError(
        f"rows have {seen}, which image_shape={image_shape} does not make images of: it wants {math.prod(image_shape)} "
        f"columns, or the shape (n, height, width, {channels}). Pass image_shape=(height, width) of images of one "
        "channel, (height, width, channels) of others."
    )

"""Random boxes of images: what is shown of them, or what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.deep.nets import as_images
from jaxcluster.deep.views.checks import check_interval, check_share
from jaxcluster.deep.views.images import ImageView
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class RandomResizedCrop(ImageView):
    """Shows a random box of each image, bilinear at the size of the whole or at another; smoothed where that is less.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        scale: (least, greatest) share of the image's area that a box has, in (0, 1].
        ratio: (least, greatest) width over height of a box, uniform in its logarithm; brought to what fits into the
            image at the box's area.
        size: (height, width) of what is shown, or one number for both; images come back as (n, height, width,
            channels) then, so that a network sees their size. None for the size and the shape they came in.

    Source: C. Szegedy et al., Going deeper with convolutions, CVPR 2015.
    """

    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    size: int | Sequence[int] | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "scale", check_interval("scale", self.scale, most=1))
        object.__setattr__(self, "ratio", check_interval("ratio", self.ratio))
        if self.size is not None:
            object.__setattr__(self, "size", _as_size(self.size))

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """A box of each image."""
        if self.size is None:
            return super().__call__(key, x)
        return self.show(key, as_images(x, self.image_shape)).astype(x.dtype)

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n a b c"]:
        """A box of each image, of the size that is asked for."""
        size = images.shape[1:3]
        boxes = drawn(key, images.shape[0], size, self.scale, self.ratio)
        return cropped(images, boxes, size if self.size is None else self.size)


@dataclass(frozen=True)
class Erase(ImageView):
    """Covers a random box of an image.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        scale: (least, greatest) share of the image's area that a box has, in (0, 1].
        ratio: (least, greatest) width over height of a box, uniform in its logarithm; brought to what fits into the
            image at the box's area.
        probability: in [0, 1], of an image to have one.
        value: what covers it, in data units.

    Source: Z. Zhong, L. Zheng, G. Kang, S. Li and Y. Yang, Random erasing data augmentation, AAAI 2020.
    """

    scale: Sequence[float] = (0.02, 0.2)
    ratio: Sequence[float] = (1 / 3, 3.0)
    probability: float = 0.5
    value: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "scale", check_interval("scale", self.scale, most=1))
        object.__setattr__(self, "ratio", check_interval("ratio", self.ratio))
        check_share("probability", self.probability, "that of an image to have a box covered")

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Images, some of them with a covered box."""
        n, height, width, _ = images.shape
        box_key, which_key = jax.random.split(key)
        top, left, high, wide = drawn(box_key, n, (height, width), self.scale, self.ratio).T[:, :, None]
        # A pixel is covered if its center is.
        rows, columns = ((jnp.arange(side, dtype=jnp.float32) + 0.5)[None, :] for side in (height, width))
        down = (rows >= top) & (rows < top + high)
        across = (columns >= left) & (columns < left + wide)
        covered = jax.random.bernoulli(which_key, self.probability, (n, 1, 1))
        return jnp.where((covered & down[:, :, None] & across[:, None])[..., None], float(self.value), images)


def drawn(
    key: KeyArray, n: int, size: Sequence[int], scale: Sequence[float], ratio: Sequence[float]
) -> Float[Array, "n 4"]:
    """Top, left, height and width (pixels) of n random boxes that lie within an image of ``size``."""
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    sides = jnp.array(size, jnp.float32)
    area = jax.random.uniform(area_key, (n,), jnp.float32, *scale)
    # In units of the image's sides a box is √(a/t) × √(a·t), which fits for a <= t <= 1/a.
    least, greatest = (math.log(bound * size[0] / size[1]) for bound in ratio)
    tilt = jax.random.uniform(ratio_key, (n,), jnp.float32, least, greatest)
    tilt = jnp.clip(tilt, jnp.log(area), -jnp.log(area))
    spans = jnp.sqrt(area)[:, None] * jnp.exp(jnp.stack([-tilt, tilt], axis=1) / 2) * sides[None]
    corners = jax.random.uniform(place_key, (n, 2), jnp.float32) * (sides[None] - spans)
    return jnp.concatenate([corners, spans], axis=1)


def cropped(
    images: Float[Array, "n h w c"], boxes: Float[Array, "n 4"], size: Sequence[int]
) -> Float[Array, "n a b c"]:
    """What is in ``boxes`` (top, left, height, width; pixels), one an image, drawn at ``size``."""
    shape = (*size, images.shape[3])

    def crop(image, box):
        zoom = jnp.array(size, jnp.float32) / box[2:]
        return jax.image.scale_and_translate(image, shape, (0, 1), zoom, -box[:2] * zoom, "linear")

    return jax.vmap(crop)(images, boxes)


def _as_size(size):
    """(height, width) of a pair, or of one number for both."""
    sides = (size, size) if not isinstance(size, (tuple, list)) else tuple(size)
    if len(sides) != 2:
        raise ValueError(f"size={sides} must be (height, width), or one number for both.")
    return tuple(check.check_count("a side of size", side) for side in sides)

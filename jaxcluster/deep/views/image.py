"""Augmentations of images: shift and rotation, flip, crop, erasing, color and blur.

>>> import jax, jax.numpy as jnp
>>> from jaxcluster.deep.views import Flip
>>> Flip((1, 3), probability=1.0)(jax.random.key(0), jnp.array([[1.0, 2.0, 3.0]])).tolist()
[[3.0, 2.0, 1.0]]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dm_pix
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxcluster.core import validation
from jaxcluster.deep.nets import as_image_shape, as_images
from jaxcluster.deep.views.compose import check_fraction, check_interval
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class ImageView:
    """A random augmentation of images that keeps their shape. Subclasses implement `_transform`.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image in a flat row. Images in the shape
            (n_samples, height, width, channels), or without the last axis for one channel, may have another size.
    """

    image_shape: Sequence[int]

    def __post_init__(self):
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Augmented images in the shape and dtype of the input.

        Raises:
            ValueError: rows that are not images of ``image_shape``.
        """
        return self._transform(key, as_images(x, self.image_shape)).astype(x.dtype).reshape(x.shape)

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Apply the augmentation to images of shape (n_samples, height, width, channels)."""
        raise NotImplementedError


# Geometry


@dataclass(frozen=True)
class ShiftRotate(ImageView):
    """Random shift and rotation of each image, with bilinear interpolation; edge pixels are repeated outside.

    Args:
        image_shape: see `ImageView`.
        shift: maximum shift as a fraction of each side, in [0, 1].
        rotation: maximum rotation in either direction (degrees).

    Source: X. Guo et al., Deep embedded clustering with data augmentation, ACML 2018.
    """

    shift: float = 0.1
    rotation: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        check_fraction("shift", self.shift, "a share of the image's sides")
        validation.check_positive("rotation", self.rotation, zero=True)

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, height, width, _ = images.shape
        # bfloat16 and float16 hold integers exactly up to 256 and 2048 only: too few for pixel coordinates.
        images = validation.widen(images)
        shift_key, angle_key = jax.random.split(key)
        sides = jnp.array([height, width], images.dtype)
        shifts = jax.random.uniform(shift_key, (n, 2), images.dtype, -self.shift, self.shift) * sides[None]
        angles = jax.random.uniform(angle_key, (n,), images.dtype, -1, 1) * (self.rotation * math.pi / 180)
        rows, columns = jnp.meshgrid(*(jnp.arange(side, dtype=images.dtype) for side in (height, width)), indexing="ij")

        def transform(image, shift, angle):
            # The inverse map: each output pixel reads the source position that it comes from, so there are no holes.
            down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
            sources = (
                jnp.cos(angle) * down - jnp.sin(angle) * right + (height - 1) / 2 + shift[0],
                jnp.sin(angle) * down + jnp.cos(angle) * right + (width - 1) / 2 + shift[1],
            )
            sample = lambda channel: map_coordinates(channel, sources, order=1, mode="nearest")  # noqa: E731
            return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)

        return jax.vmap(transform)(images, shifts, angles)


@dataclass(frozen=True)
class Flip(ImageView):
    """Random horizontal flip of each image.

    Args:
        image_shape: see `ImageView`.
        probability: of a flip, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_fraction("probability", self.probability, "that of an image to be mirrored")

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        flipped = jax.random.bernoulli(key, self.probability, (images.shape[0], 1, 1, 1))
        return jnp.where(flipped, images[:, :, ::-1], images)


# Boxes


@dataclass(frozen=True)
class RandomResizedCrop(ImageView):
    """Crop of a random box of each image, resized bilinearly and antialiased where it is made smaller.

    Args:
        image_shape: see `ImageView`.
        scale: (least, greatest) area of a box as a fraction of the image's area, in (0, 1].
        ratio: (least, greatest) aspect ratio, width over height, of a box; log-uniform, and clipped to boxes that fit
            into the image at their area.
        size: (height, width) of the output, or one number for both. Images then come back in the shape (n_samples,
            height, width, channels), so that a network can read their size. None keeps the size and shape of the input.

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
            sides = tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size, self.size)
            if len(sides) != 2:
                raise ValueError(f"size={sides} must be (height, width), or one number for both.")
            object.__setattr__(self, "size", tuple(validation.check_count("a side of size", side) for side in sides))

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Cropped images."""
        if self.size is None:
            return super().__call__(key, x)
        return self._transform(key, as_images(x, self.image_shape)).astype(x.dtype)

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n a b c"]:
        size = images.shape[1:3]
        boxes = sample_boxes(key, images.shape[0], size, self.scale, self.ratio)
        return crop_and_resize(images, boxes, size if self.size is None else cast("Sequence[int]", self.size))


@dataclass(frozen=True)
class RandomErasing(ImageView):
    """A random box of each image, overwritten with a constant.

    Args:
        image_shape: see `ImageView`.
        scale: (least, greatest) area of a box as a fraction of the image's area, in (0, 1].
        ratio: (least, greatest) aspect ratio, as for `RandomResizedCrop`.
        probability: of an image to have a box, in [0, 1].
        value: of the pixels in the box (data units).

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
        check_fraction("probability", self.probability, "that of an image to have a box covered")

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, height, width, _ = images.shape
        box_key, erase_key = jax.random.split(key)
        top, left, high, wide = sample_boxes(box_key, n, (height, width), self.scale, self.ratio).T[:, :, None]
        # A pixel is in the box if its center is.
        rows, columns = ((jnp.arange(side, dtype=jnp.float32) + 0.5)[None, :] for side in (height, width))
        down = (rows >= top) & (rows < top + high)
        across = (columns >= left) & (columns < left + wide)
        erased = jax.random.bernoulli(erase_key, self.probability, (n, 1, 1))
        return jnp.where((erased & down[:, :, None] & across[:, None])[..., None], float(self.value), images)


def sample_boxes(
    key: KeyArray, n: int, size: Sequence[int], scale: Sequence[float], ratio: Sequence[float]
) -> Float[Array, "n 4"]:
    """Top, left, height and width (pixels) of n random boxes inside an image of ``size`` (height, width)."""
    area_key, ratio_key, corner_key = jax.random.split(key, 3)
    sides = jnp.array(size, jnp.float32)
    area = jax.random.uniform(area_key, (n,), jnp.float32, *scale)
    # In units of the image's sides a box of area a and aspect t is √(a/t) × √(a·t). It fits if a <= t <= 1/a, so
    # clipping log t to ±log a keeps the area exact and needs no rejection of boxes.
    least, greatest = (math.log(bound * size[0] / size[1]) for bound in ratio)
    log_aspect = jax.random.uniform(ratio_key, (n,), jnp.float32, least, greatest)
    log_aspect = jnp.clip(log_aspect, jnp.log(area), -jnp.log(area))
    spans = jnp.sqrt(area)[:, None] * jnp.exp(jnp.stack([-log_aspect, log_aspect], axis=1) / 2) * sides[None]
    corners = jax.random.uniform(corner_key, (n, 2), jnp.float32) * (sides[None] - spans)
    return jnp.concatenate([corners, spans], axis=1)


def crop_and_resize(
    images: Float[Array, "n h w c"], boxes: Float[Array, "n 4"], size: Sequence[int]
) -> Float[Array, "n a b c"]:
    """The content of one box (top, left, height, width; pixels) of each image, resized to ``size``."""
    shape = (*size, images.shape[3])

    def crop(image, box):
        zoom = jnp.array(size, jnp.float32) / box[2:]
        return jax.image.scale_and_translate(image, shape, (0, 1), zoom, -box[:2] * zoom, "linear")

    return jax.vmap(crop)(images, boxes)


# Color. Values are not clipped to [0, 1]: that would lose information before the next augmentation.


@dataclass(frozen=True)
class ColorJitter(ImageView):
    """Random changes of brightness, contrast, saturation and hue, in this order, of each image.

    Args:
        image_shape: see `ImageView`.
        brightness: maximum offset of all values of an image (data units).
        contrast: c in [0, 1]: differences from the channel's mean are multiplied by 1 − c to 1 + c.
        saturation: s in [0, 1]: differences from gray are multiplied by 1 − s to 1 + s. Three channels only.
        hue: maximum rotation in either direction as a fraction of the color circle, in [0, 1/2]. Three channels only.

    Source: T. Chen, S. Kornblith, M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual
    representations, ICML 2020.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        validation.check_positive("brightness", self.brightness, zero=True)
        check_fraction("contrast", self.contrast, "by how much differences within an image may grow or shrink")
        check_fraction("saturation", self.saturation, "by how much differences from gray may grow or shrink")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue={self.hue} must be in [0, 0.5]: half the circle of colors either way is all of it.")
        if self.saturation or self.hue:
            _check_three_channels("saturation and hue are", self.image_shape)

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        amounts = (self.brightness, self.contrast, self.saturation, self.hue)
        # One key for each of the four, used or not: leaving one change out does not alter the others.
        keys = jax.random.split(key, len(COLOR_CHANGES))
        for change, change_key, amount in zip(COLOR_CHANGES, keys, amounts, strict=True):
            if amount:
                per_image = (images.shape[0], 1, 1, 1)
                images = change(images, amount * jax.random.uniform(change_key, per_image, images.dtype, -1, 1))
        return images


@dataclass(frozen=True)
class Grayscale(ImageView):
    """Random conversion of images to gray: all three channels become the luma (ITU-R BT.601).

    Args:
        image_shape: (height, width, 3), see `ImageView`.
        probability: of an image to be gray, in [0, 1].
    """

    probability: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        _check_three_channels("gray is", self.image_shape)
        check_fraction("probability", self.probability, "that of an image to be gray")

    def _transform(self, key: KeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        gray = jax.random.bernoulli(key, self.probability, (images.shape[0], 1, 1, 1))
        return jnp.where(gray, dm_pix.rgb_to_grayscale(images), images)


def adjust_contrast(images: Float[Array, "n h w c"], change: Float[Array, "n 1 1 1"]) -> Float[Array, "n h w c"]:
    """Differences from each channel's mean, multiplied by 1 + ``change``."""
    return jnp.asarray(dm_pix.adjust_contrast(images, 1 + change))


def adjust_saturation(images: Float[Array, "n h w 3"], change: Float[Array, "n 1 1 1"]) -> Float[Array, "n h w 3"]:
    """Differences from gray, multiplied by 1 + ``change``."""
    # dm_pix's saturation goes through HSV, which is defined for values in [0, 1] only; brightness, contrast and scaled
    # data leave that range.
    return images + change * (images - dm_pix.rgb_to_grayscale(images))


def adjust_hue(images: Float[Array, "n h w 3"], change: Float[Array, "n 1 1 1"]) -> Float[Array, "n h w 3"]:
    """Hues rotated by ``change``, a fraction of the color circle."""
    # A hue depends on the differences of a pixel's channels only. dm_pix's form is right for values >= 0, so with the
    # least channel subtracted it is right for any values.
    least = jnp.min(images, axis=3, keepdims=True)
    with jax.numpy_dtype_promotion("standard"):  # dm_pix multiplies booleans and floats
        return least + dm_pix.adjust_hue(images - least, change[..., 0])


COLOR_CHANGES: tuple[Callable[..., Any], ...] = (
    dm_pix.adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


def _check_three_channels(what, image_shape):
    if image_shape[2] != 3:
        raise ValueError(
            f"{what} for images of three channels, and image_shape={image_shape} has {image_shape[2]}. Pass "
            "(height, width, 3), or leave them out."
        )


# Blur


@dataclass(frozen=True)
class Blur(ImageView):
    """Random Gaussian blur of each image; at an edge the weights of the pixels inside are normalized to 1.

    Args:
        image_shape: see `ImageView`.
        sigma: (least, greatest) standard deviation of the Gaussian (pixels).
        probability: of an image to be blurred, in [0, 1].
    """

    sigma: Sequence[float] = (0.1, 2.0)
    probability: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sigma", check_interval("sigma", self.sigma))
        check_fraction("probability", self.probability, "that of an image to be blurred")

    def _transform(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n = images.shape[0]
        sigma_key, blur_key = jax.random.split(key)
        sigma = jax.random.uniform(sigma_key, (n,), jnp.float32, *self.sigma)
        blur = jax.random.bernoulli(blur_key, self.probability, (n, 1, 1, 1))
        return jnp.where(blur, gaussian_blur(images, sigma), images.astype(sigma.dtype))


def gaussian_blur(images: Float[Array, "n h w c"], sigma: Float[Array, " n"]) -> Float[Array, "n h w c"]:
    """Each image blurred with its own standard deviation (pixels)."""
    # A Gaussian is separable: two matrix products, one along each axis. dm_pix's convolutions need one kernel size for
    # all deviations and pad with zeros, which darkens the edges.
    down, across = (jax.vmap(_smoothing_matrix, in_axes=(None, 0))(side, sigma) for side in images.shape[1:3])
    return jnp.einsum("nah,nhwc,nbw->nabc", down, images.astype(sigma.dtype), across, precision="highest")


def _smoothing_matrix(side, sigma):
    """(side, side) weights exp(−(i − j)²/2σ²) of pixel j in the mean at pixel i, normalized over j."""
    steps = jnp.arange(side, dtype=sigma.dtype)
    return jax.nn.softmax(-jnp.square((steps[:, None] - steps[None, :]) / sigma) / 2, axis=1)

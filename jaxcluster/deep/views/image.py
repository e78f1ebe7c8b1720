"""What all views of images share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import dm_pix
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxcluster.core import check
from jaxcluster.deep.nets import as_image_shape, as_images
from jaxcluster.deep.views.compose import check_interval, check_share
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class ImageView:
    """A random change of images that keeps their shape: a subclass has it in `show`.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image where rows are flat. Images that come as
            (n, h, w, channels), or (n, h, w) of one channel, may be of another size.
    """

    image_shape: Sequence[int]

    def __post_init__(self):
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Changed images, in the shape and dtype they came in.

        Raises:
            ValueError: rows that are no images of ``image_shape``.
        """
        return self.show(key, as_images(x, self.image_shape)).astype(x.dtype).reshape(x.shape)

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """The change itself."""
        raise NotImplementedError


# Random boxes of images: what is shown of them, or what is not.


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


# Images moved, turned and mirrored as wholes.


@dataclass(frozen=True)
class ShiftRotate(ImageView):
    """Moves and turns each image by its own random amount, bilinear in between; what comes in repeats the edges.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        shift: in [0, 1], the most that it moves, as a share of each side.
        rotation: the most that it turns either way (degrees).

    Source: X. Guo et al., Deep embedded clustering with data augmentation, ACML 2018.
    """

    shift: float = 0.1
    rotation: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        check_share("shift", self.shift, "a share of the image's sides")
        check.check_positive("rotation", self.rotation, zero=True)

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Images moved and turned."""
        n, height, width, _ = images.shape
        images = check.widen(images)  # half precision has no places of pixels
        move_key, turn_key = jax.random.split(key)
        sides = jnp.array([height, width], images.dtype)
        moves = jax.random.uniform(move_key, (n, 2), images.dtype, -self.shift, self.shift) * sides[None]
        turns = jax.random.uniform(turn_key, (n,), images.dtype, -1, 1) * (self.rotation * math.pi / 180)
        rows, columns = jnp.meshgrid(*(jnp.arange(side, dtype=images.dtype) for side in (height, width)), indexing="ij")

        def move(image, by, turn):
            down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
            sources = (
                jnp.cos(turn) * down - jnp.sin(turn) * right + (height - 1) / 2 + by[0],
                jnp.sin(turn) * down + jnp.cos(turn) * right + (width - 1) / 2 + by[1],
            )
            draw = lambda channel: map_coordinates(channel, sources, order=1, mode="nearest")  # noqa: E731
            return jax.vmap(draw, in_axes=-1, out_axes=-1)(image)

        return jax.vmap(move)(images, moves, turns)


@dataclass(frozen=True)
class Flip(ImageView):
    """Mirrors images left to right.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        probability: in [0, 1], of an image to be mirrored.
    """

    probability: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_share("probability", self.probability, "that of an image to be mirrored")

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Images, some of them mirrored."""
        mirrored = jax.random.bernoulli(key, self.probability, (images.shape[0], 1, 1, 1))
        return jnp.where(mirrored, images[:, :, ::-1], images)


# Images lit and colored otherwise. Nothing is cut off at 0 or 1, so that one change may follow another.


@dataclass(frozen=True)
class ColorJitter(ImageView):
    """Changes brightness, contrast, saturation and hue, in this order, of each image by its own random amounts.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        brightness: the most that is added to all values of an image, or taken off (data units).
        contrast: c in [0, 1]: differences from the mean of their channel are taken 1 − c to 1 + c times.
        saturation: s in [0, 1]: differences from gray are taken 1 − s to 1 + s times. Three channels.
        hue: in [0, 1/2], the most that colors turn either way, as a share of their circle. Three channels.

    Source: T. Chen, S. Kornblith, M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual
    representations, ICML 2020.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check.check_positive("brightness", self.brightness, zero=True)
        check_share("contrast", self.contrast, "by how much differences within an image may grow or shrink")
        check_share("saturation", self.saturation, "by how much differences from gray may grow or shrink")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue={self.hue} must be in [0, 0.5]: half the circle of colors either way is all of it.")
        if self.saturation or self.hue:
            _check_colored("saturation and hue are", self.image_shape)

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Images lit and colored otherwise."""
        most = (self.brightness, self.contrast, self.saturation, self.hue)
        keys = jax.random.split(key, len(CHANGES))
        for change, change_key, amount in zip(CHANGES, keys, most, strict=True):
            if amount:
                one_an_image = (images.shape[0], 1, 1, 1)
                images = change(images, amount * jax.random.uniform(change_key, one_an_image, images.dtype, -1, 1))
        return images


@dataclass(frozen=True)
class Grayscale(ImageView):
    """Takes the color from images: all three channels become the luma (ITU-R BT.601).

    Args:
        image_shape: (height, width, 3) of an image; rows may be flat.
        probability: in [0, 1], of an image to be gray.
    """

    probability: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        _check_colored("gray is", self.image_shape)
        check_share("probability", self.probability, "that of an image to be gray")

    def show(self, key: KeyArray, images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
        """Images, some of them gray."""
        grayed = jax.random.bernoulli(key, self.probability, (images.shape[0], 1, 1, 1))
        return jnp.where(grayed, dm_pix.rgb_to_grayscale(images), images)


def contrasted(images, by):
    """Differences from each channel's mean taken 1 + ``by`` times."""
    return dm_pix.adjust_contrast(images, 1 + by)


def saturated(images, by):
    """Differences from gray taken 1 + ``by`` times.

    Not dm_pix's saturation, which works through hue, saturation and value: those are defined in [0, 1] alone, and
    brightness, contrast and scaled data leave that range.
    """
    return images + by * (images - dm_pix.rgb_to_grayscale(images))


def turned(images, by):
    """Hues turned by a share of their circle.

    A hue depends on the differences of a pixel's channels alone: with the least of them taken off, dm_pix's form, right
    for what is not negative, is right for any values.
    """
    least = jnp.min(images, axis=3, keepdims=True)
    with jax.numpy_dtype_promotion("standard"):  # dm_pix multiplies truth values
        return least + dm_pix.adjust_hue(images - least, by[..., 0])


CHANGES = (dm_pix.adjust_brightness, contrasted, saturated, turned)


def _check_colored(what, image_shape):
    if image_shape[2] != 3:
        raise ValueError(
            f"{what} for images of three channels, and image_shape={image_shape} has {image_shape[2]}. Pass "
            "(height, width, 3), or leave them out."
        )


# Images out of focus.


@dataclass(frozen=True)
class Blur(ImageView):
    """Takes Gaussian means of neighboring pixels; at an edge, of those there are.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        sigma: (least, greatest) deviation of the Gaussian (pixels).
        probability: in [0, 1], of an image to be blurred.
    """

    sigma: Sequence[float] = (0.1, 2.0)
    probability: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "sigma", check_interval("sigma", self.sigma))
        check_share("probability", self.probability, "that of an image to be blurred")

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Images, some of them blurred."""
        n = images.shape[0]
        sigma_key, which_key = jax.random.split(key)
        sigma = jax.random.uniform(sigma_key, (n,), jnp.float32, *self.sigma)
        blurs = jax.random.bernoulli(which_key, self.probability, (n, 1, 1, 1))
        return jnp.where(blurs, blurred(images, sigma), images.astype(sigma.dtype))


def blurred(images: Float[Array, "n h w c"], sigma: Float[Array, " n"]) -> Float[Array, "n h w c"]:
    """Each image blurred with its own deviation (pixels).

    Two matrix products, not dm_pix's convolutions: those take what is beyond an edge for 0, which darkens it, and need
    one size of all Gaussians.
    """
    down, across = (jax.vmap(_means, in_axes=(None, 0))(side, sigma) for side in images.shape[1:3])
    wide = images.astype(sigma.dtype)
    return jnp.einsum("nah,nhwc,nbw->nabc", down, wide, across, precision="highest")


def _means(side, sigma):
    """(side, side) the weight of each pixel of a line in the mean that takes another's place."""
    steps = jnp.arange(side, dtype=sigma.dtype)
    return jax.nn.softmax(-jnp.square((steps[:, None] - steps[None, :]) / sigma) / 2, axis=1)

"""Images lit and colored otherwise. Nothing is cut off at 0 or 1, so that one change may follow another."""

from __future__ import annotations

from dataclasses import dataclass

import dm_pix
import jax
import jax.numpy as jnp

from jaxcluster.core import check
from jaxcluster.deep.views.checks import check_share
from jaxcluster.deep.views.images import ImageView
from jaxcluster.types import Array, Float, KeyArray


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

"""Images moved, turned and mirrored as wholes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxcluster.core import check
from jaxcluster.deep.views.checks import check_share
from jaxcluster.deep.views.images import ImageView
from jaxcluster.types import Array, Float, KeyArray


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

"""Random changes of a batch that leave its rows what they are: noise for any rows, moves for images.

Each is a small value that is called with a key and rows: equal ones are one program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxcluster.core import check
from jaxcluster.deep.nets import as_image_shape
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class Masking:
    """Sets entries to 0, and scales up the others so that the mean stays: the noise of stacked denoising autoencoders.

    Args:
        rate: in [0, 1), the share of entries set to 0.
    """

    rate: float = 0.2

    def __post_init__(self):
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate={self.rate} must be in [0, 1): it is the share of entries that are set to 0.")

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Spoiled rows."""
        kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)


@dataclass(frozen=True)
class GaussianNoise:
    """Adds normal noise.

    Args:
        deviation: of the noise, in data units.
    """

    deviation: float = 0.2

    def __post_init__(self):
        check.check_positive("deviation", self.deviation, zero=True)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Rows with noise."""
        return x + self.deviation * jax.random.normal(key, x.shape, x.dtype)


@dataclass(frozen=True)
class ShiftRotate:
    """Moves and turns each image by its own random amount, bilinear in between; what comes in repeats the edges.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image; rows may be flat.
        shift: in [0, 1], the most that it moves, as a share of each side.
        rotation: the most that it turns either way (degrees).

    Source: X. Guo et al., Deep embedded clustering with data augmentation, ACML 2018.
    """

    image_shape: tuple[int, ...]
    shift: float = 0.1
    rotation: float = 10.0

    def __post_init__(self):
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))
        if not 0 <= self.shift <= 1:
            raise ValueError(f"shift={self.shift} must be in [0, 1]: it is a share of the image's sides.")
        check.check_positive("rotation", self.rotation, zero=True)

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Images moved and turned."""
        height, width, _ = self.image_shape
        images = x.reshape(x.shape[0], *self.image_shape)
        move_key, turn_key = jax.random.split(key)
        sides = jnp.array([height, width], x.dtype)
        moves = jax.random.uniform(move_key, (x.shape[0], 2), x.dtype, -self.shift, self.shift) * sides
        turns = jax.random.uniform(turn_key, x.shape[:1], x.dtype, -1, 1) * (self.rotation * math.pi / 180)
        rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")

        def move(image, by, turn):
            down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
            sources = (
                jnp.cos(turn) * down - jnp.sin(turn) * right + (height - 1) / 2 + by[0],
                jnp.sin(turn) * down + jnp.cos(turn) * right + (width - 1) / 2 + by[1],
            )
            draw = lambda channel: map_coordinates(channel, sources, order=1, mode="nearest")  # noqa: E731
            return jax.vmap(draw, in_axes=-1, out_axes=-1)(image)

        return jax.vmap(move)(images, moves, turns).reshape(x.shape)

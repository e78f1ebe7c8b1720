"""Images out of focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcluster.deep.views.checks import check_interval, check_share
from jaxcluster.deep.views.images import ImageView
from jaxcluster.types import Array, Float, KeyArray


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

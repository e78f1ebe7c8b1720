"""Networks of ClusterGAN: generators from codes to rows, and what looks at rows, for its critic and its encoder.

Weights begin as N(0, 0.02²), biases at 0. The generators normalize by the batch while they are trained; critic and
encoder do not, since the gradient penalty is of single rows.

Source: S. Mukherjee, H. Asnani, E. Lin and S. Kannan, ClusterGAN: latent space clustering in generative adversarial
networks, AAAI 2019.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.nets import MLP, as_image_shape, as_images, halved
from jaxcluster.deep.nets.convnet import checked_channels
from jaxcluster.deep.nets.convolve import convolve
from jaxcluster.deep.nets.normed import batch_norm
from jaxcluster.deep.nets.transposed import Double
from jaxcluster.types import Array, Float

CHANNELS = (64, 128)
"""Of the convolutions that look at images, each of which halves height and width."""

DENSE = 1024
"""Width of the dense layer between convolutions and codes."""

leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)
narrow = nnx.initializers.normal(0.02)


def dense_reader(widths: Sequence[int], *, rngs: nnx.Rngs) -> MLP:
    """Dense layers with leaky ReLU between them: a critic, where the last width is 1, or an encoder.

    Args:
        widths: of the rows, the hidden layers and the output.
        rngs: its stream "params" draws the weights.
    """
    return MLP(widths, activation=leaky, kernel_init=narrow, rngs=rngs)


class DenseGenerator(nnx.Module):
    """Dense layers with batch normalization and leaky ReLU between them, and neither after the last.

    Args:
        widths: of the code, the hidden layers and the rows: at least two.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths, or one that is no count.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        dense = MLP(widths, activation=leaky, kernel_init=narrow, rngs=rngs)
        self.layers = dense.layers
        self.norms = nnx.List([batch_norm(width, rngs=rngs) for width in dense.widths[1:-1]])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The row of each code, float32."""
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            z = leaky(norm(layer(z)))
        return jnp.float32(self.layers[-1](z))


class ImageReader(nnx.Module):
    """Convolutions of 4×4 and stride 2 and a dense layer, each with leaky ReLU, and a linear one: critic or encoder.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image.
        width: of the output; 1 for a critic.
        channels: of each convolution; each halves height and width.
        dense: width of the dense layer.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none, or widths that are no counts.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        width: int,
        *,
        channels: Sequence[int] = CHANNELS,
        dense: int = DENSE,
        rngs: nnx.Rngs,
    ):
        self.image_shape = as_image_shape(image_shape)
        channels = checked_channels(channels)
        pairs = itertools.pairwise((self.image_shape[2], *channels))
        options = {"strides": 2, "conv_general_dilated": convolve, "kernel_init": narrow, "rngs": rngs}
        self.convolutions = nnx.List([nnx.Conv(a, b, (4, 4), **options) for a, b in pairs])
        flat = math.prod(halved(self.image_shape[:2], len(channels))) * channels[-1]
        self.last = dense_reader((flat, dense, width), rngs=rngs)

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n m"]:
        """What the last layer gives for each image, float32; images may be flat."""
        x = as_images(x, self.image_shape)
        for convolution in self.convolutions:
            x = leaky(convolution(x))
        return self.last(x.reshape(x.shape[0], -1))


class ImageGenerator(nnx.Module):
    """Two dense layers and transposed convolutions, with batch normalization and ReLU between them: codes to images.

    Args:
        width: of the code.
        image_shape: (height, width) or (height, width, channels) of an image.
        channels: as `ImageReader` has them, in its order.
        dense: width of the first dense layer.
        bounded: whether values are in (0, 1), by a sigmoid.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: a shape that is none, or widths that are no counts.
    """

    def __init__(
        self,
        width: int,
        image_shape: Sequence[int],
        *,
        channels: Sequence[int] = CHANNELS,
        dense: int = DENSE,
        bounded: bool = True,
        rngs: nnx.Rngs,
    ):
        self.image_shape, self.bounded = as_image_shape(image_shape), bounded
        channels = checked_channels(channels)
        self.sizes = tuple(halved(self.image_shape[:2], times) for times in reversed(range(len(channels))))
        self.start = (*halved(self.image_shape[:2], len(channels)), channels[-1])
        check.check_count("dense", dense)
        self.first = nnx.Linear(width, dense, kernel_init=narrow, rngs=rngs)
        self.second = nnx.Linear(dense, math.prod(self.start), kernel_init=narrow, rngs=rngs)
        pairs = itertools.pairwise((*reversed(channels), self.image_shape[2]))
        self.convolutions = nnx.List([Double(a, b, kernel_init=narrow, rngs=rngs) for a, b in pairs])
        self.norms = nnx.List([batch_norm(each, rngs=rngs) for each in (dense, *reversed(channels))])

    def __call__(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The flat image of each code, float32."""
        x = jax.nn.relu(self.norms[0](self.first(z)))
        x = self.second(x).reshape(z.shape[0], *self.start)
        for norm, convolution, (height, width) in zip(self.norms[1:], self.convolutions, self.sizes, strict=True):
            x = convolution(jax.nn.relu(norm(x)))[:, :height, :width]
        x = jnp.float32(x).reshape(z.shape[0], -1)
        return jax.nn.sigmoid(x) if self.bounded else x

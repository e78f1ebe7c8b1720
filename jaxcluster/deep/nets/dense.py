"""Dense networks, and encoders of Gaussian codes.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep.nets import MLP, mirror
>>> MLP(mirror((4, 8, 2)), rngs=nnx.Rngs(0))(jnp.ones((3, 2))).shape
(3, 4)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.nets.layers import batch_norm, glorot, he
from jaxcluster.ops.distance import inner_products, normalize
from jaxcluster.types import Array, ArrayLike, Float


class MLP(nnx.Module):
    """Multilayer perceptron: dense layers with an activation between them.

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        activation: between layers.
        kernel_init: of the weights; biases start at 0.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths; one below 1 or not an integer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: Callable[[Any], Any] = jax.nn.relu,
        kernel_init: Callable[..., Any] = glorot,
        rngs: nnx.Rngs,
    ):
        self.widths = _check_widths(widths)
        self.activation = activation
        pairs = itertools.pairwise(self.widths)
        self.layers = nnx.List([nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs) for a, b in pairs])

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        return {"widths": self.widths, "activation": self.activation}

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """Output of the last layer, float32."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return jnp.float32(self.layers[-1](x))


class Projector(nnx.Module):
    """Dense layers with batch normalization and ReLU between them.

    The projection head of SwAV and SimCLR, in whose space the loss is computed; also an encoder of tables.

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        rngs: its stream "params" draws the weights.

    Raises:
        ValueError, TypeError: fewer than two widths; one below 1 or not an integer.
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.widths = _check_widths(widths)
        *inner, last = itertools.pairwise(self.widths)
        # Without a bias: the normalization subtracts it again.
        self.layers = nnx.List([nnx.Linear(a, b, use_bias=False, kernel_init=he, rngs=rngs) for a, b in inner])
        self.norms = nnx.List([batch_norm(b, rngs=rngs) for _, b in inner])
        self.last = nnx.Linear(*last, kernel_init=glorot, rngs=rngs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of a network of the same layers, besides ``rngs``."""
        return {"widths": self.widths}

    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n m"]:
        """Output of the last layer, float32."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x)))
        return jnp.float32(self.last(x))


class Prototypes(nnx.Module):
    """Cosines of vectors and learned prototypes: a linear layer with weights, and inputs, of length 1.

    The last layer of DINO's projector, whose outputs are the logits of the prototypes.

    Args:
        width: of the vectors.
        n_prototypes: number of prototypes.
        rngs: its stream "params" draws the prototypes.

    Raises:
        ValueError, TypeError: numbers below 1 or not integers.
    """

    def __init__(self, width: int, n_prototypes: int, *, rngs: nnx.Rngs):
        shape = validation.check_count("n_prototypes", n_prototypes), validation.check_count("width", width)
        self.vectors = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32))

    def get_config(self) -> dict[str, Any]:
        """Arguments of a layer of the same widths, besides ``rngs``."""
        n_prototypes, width = self.vectors.shape
        return {"width": width, "n_prototypes": n_prototypes}

    def __call__(self, z: Float[Array, "n w"]) -> Float[Array, "n m"]:
        """Cosines (n_samples, n_prototypes), float32."""
        return inner_products(normalize(jnp.float32(z)), normalize(self.vectors[...]))


class GaussianHead(nnx.Module):
    """Mean and log-variance of a Gaussian code: two linear maps of the same features.

    Args:
        width: of the features.
        latent: width of the code.
        rngs: its stream "params" draws the weights.
    """

    def __init__(self, width: int, latent: int, *, rngs: nnx.Rngs):
        self.mean = nnx.Linear(width, latent, kernel_init=glorot, rngs=rngs)
        self.log_variance = nnx.Linear(width, latent, kernel_init=glorot, rngs=rngs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of a head of the same widths, besides ``rngs``."""
        return {"width": self.mean.in_features, "latent": self.mean.out_features}

    def __call__(self, features: Float[Array, "n m"]) -> tuple[Float[Array, "n l"], Float[Array, "n l"]]:
        """Gaussian code of each row of features.

        Returns:
            Mean and log-variance, (n_samples, latent) each, float32.
        """
        return jnp.float32(self.mean(features)), jnp.float32(self.log_variance(features))

    def set_variance(self, variance: ArrayLike) -> None:
        """Make ``variance`` the initial variance of every code: one by random weights may blur all clusters."""
        kernel, bias = self.log_variance.kernel, self.log_variance.bias
        kernel[...] = jnp.zeros_like(kernel[...])
        if bias is not None:
            bias[...] = jnp.full_like(bias[...], jnp.log(variance))


class VariationalEncoder(nnx.Module):
    """A network of features, and the Gaussian code of these.

    Args:
        trunk: samples to features, before the activation.
        head: features to (mean, log-variance).
        activation: of the features.
    """

    def __init__(self, trunk: nnx.Module, head: nnx.Module, *, activation: Callable[[Any], Any] = jax.nn.relu):
        self.trunk, self.head, self.activation = trunk, head, activation

    def get_config(self) -> dict[str, Any]:
        """Arguments of an encoder of the same networks."""
        return {"trunk": self.trunk, "head": self.head, "activation": self.activation}

    def __call__(self, x: Float[Array, "n ..."]) -> tuple[Float[Array, "n l"], Float[Array, "n l"]]:
        """Gaussian code of each sample.

        Returns:
            Mean and log-variance, (n_samples, latent) each.
        """
        return self.head(self.activation(self.trunk(x)))


def mirror(widths: Sequence[int]) -> tuple[int, ...]:
    """Decoder widths of an encoder.

    Returns:
        The widths in reverse order.
    """
    return tuple(reversed(widths))


def _check_widths(widths):
    widths = [validation.check_count("a width", width) for width in widths]
    if len(widths) < 2:
        raise ValueError(f"widths={widths} must hold at least the width of the input and that of the output.")
    return tuple(widths)

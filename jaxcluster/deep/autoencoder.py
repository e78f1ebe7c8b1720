"""Autoencoders: a network to a short code and one back, trained to give back what went in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.nets import MLP
from jaxcluster.deep.protocol import Batch
from jaxcluster.deep.trainer import Trained, train
from jaxcluster.types import Array, Float, KeyArray, Status

LIKELIHOODS = ("gaussian", "bernoulli")

View = Callable[[KeyArray, Float[Array, "n ..."]], Float[Array, "n ..."]]
"""A random change of rows: see `jaxcluster.deep.views`."""


class Autoencoder(nnx.Module):
    """An encoder and a decoder, and the error of what comes back.

    Trained, it minimizes the mean over rows and columns of (x − x̂)² ("gaussian") or of the cross-entropy of x in
    [0, 1] and σ(logits) ("bernoulli"; nats).

    Args:
        encoder: rows to codes, (n, latent).
        decoder: codes to flat rows, (n, d): their means, or logits.
        likelihood: "gaussian" or "bernoulli".
        noise: a view that spoils what is encoded, not what is to come back: a denoising autoencoder. None for a plain
            one.
        augment: a view that stands for the rows themselves: what it gives is encoded and is to come back. None for the
            rows as they are.

    Source: P. Vincent et al., Stacked denoising autoencoders, JMLR 11 (2010).
    """

    def __init__(
        self,
        encoder: nnx.Module,
        decoder: nnx.Module,
        *,
        likelihood: str = "gaussian",
        noise: View | None = None,
        augment: View | None = None,
    ):
        check.check_choice("likelihood", likelihood, LIKELIHOODS)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.noise, self.augment = noise, augment

    def encode(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """The code of each row: of a Gaussian one its mean."""
        return code_of(self.encoder(x))

    def decode(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """The row that each code stands for."""
        return means_of(self.decoder(z), self.likelihood)

    def reconstruct(self, x: Float[Array, "n ..."]) -> Float[Array, "n d"]:
        """What comes back of each row."""
        return self.decode(self.encode(x))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The error of what comes back of a batch."""
        augment_key, noise_key = jax.random.split(key)
        x = viewed(self.augment, augment_key, batch.x)
        error = self.error(x, self.decoder(self.encode(viewed(self.noise, noise_key, x))))
        return error, {}

    def error(self, x: Float[Array, "n ..."], decoded: Float[Array, "n d"]) -> Float[Array, ""]:
        """The mean error of what the decoder gave, over rows and columns."""
        return jnp.mean(errors(x.reshape(decoded.shape), decoded, self.likelihood))


def viewed(view: View | None, key: KeyArray, x: Any) -> Any:
    """Rows as a view shows them; without one as they are."""
    return x if view is None else view(key, x)


def code_of(encoded: Any) -> Float[Array, "n l"]:
    """The code in what an encoder gave: the mean, of a Gaussian code."""
    return encoded[0] if isinstance(encoded, tuple) else encoded


def means_of(decoded: Float[Array, "n d"], likelihood: str) -> Float[Array, "n d"]:
    """The expected row of what a decoder gave."""
    return jax.nn.sigmoid(decoded) if likelihood == "bernoulli" else decoded


def errors(x: Float[Array, "n d"], decoded: Float[Array, "n d"], likelihood: str) -> Float[Array, "n d"]:
    """(x − x̂)², or the cross-entropy of x and σ(logits) (nats)."""
    if likelihood == "gaussian":
        return jnp.square(x - decoded)
    # −x log σ(l) − (1 − x) log(1 − σ(l)), with nothing that overflows
    return jax.nn.softplus(decoded) - x * decoded


def check_likelihood(likelihood: str, x: Any) -> None:
    """Raises ValueError, with the range seen, where rows are not in [0, 1] and the likelihood needs them there."""
    check.check_choice("likelihood", likelihood, LIKELIHOODS)
    least, most = float(x.min()), float(x.max())
    if likelihood == "bernoulli" and (least < 0 or most > 1):
        raise ValueError(
            f"likelihood='bernoulli' needs values in [0, 1], and X has values from {least:g} to {most:g}. Scale them "
            "to that range, or use likelihood='gaussian'."
        )


# Layer-wise pretraining: each layer learns to undo noise on what the layers before it give.
#
# Source: P. Vincent et al., Stacked denoising autoencoders, JMLR 11 (2010), as J. Xie et al., ICML 2016, use it.


class Step(nnx.Module):
    """One layer of a stack, followed by the non-linearity or not."""

    def __init__(self, layer: nnx.Linear, activation: Any = None):
        self.layer, self.activation = layer, activation

    def __call__(self, x: Any) -> Any:
        """What the layer gives."""
        x = self.layer(x)
        return x if self.activation is None else self.activation(x)


def pretrain_layers(
    key: KeyArray, autoencoder: Autoencoder, x: Any, *, noise: View | None, **options: Any
) -> tuple[Autoencoder, list[Trained]]:
    """Trains the layers of an autoencoder pair by pair, from the outermost in.

    Pair i is the i-th layer of the encoder and the one of the decoder that mirrors it; between them stands what the
    whole network has there, so codes stay linear, and so do the rows that come back.

    Args:
        key: split between the layers.
        autoencoder: of two `MLP` that mirror each other; is not changed.
        x: (n, d) rows.
        noise: a view that spoils what a pair is given, not what it is to give back.
        **options: of `train`, for each pair; with ``checkpoints`` those of pair i in the folder ``layer-i``.

    Returns:
        The autoencoder with trained layers, and the ending of the training of each pair. Pairs after one that failed
        are not trained.

    Raises:
        TypeError, ValueError: an encoder or decoder that is no `MLP`, or does not mirror the other.
    """
    made = nnx.clone(autoencoder)
    encoder, decoder = made.encoder, made.decoder
    if not (isinstance(encoder, MLP) and isinstance(decoder, MLP)):
        raise TypeError("layer-wise pretraining needs an encoder and a decoder that are jaxcluster.deep.nets.MLP.")
    if encoder.widths != decoder.widths[::-1]:
        raise ValueError(f"the widths {decoder.widths} of the decoder do not mirror {encoder.widths} of the encoder.")
    layers = len(encoder.layers)
    checkpoints = options.pop("checkpoints", None)
    endings = []
    for i, layer_key in enumerate(jax.random.split(key, layers)):
        inner = None if i == layers - 1 else encoder.activation
        outer = None if i == 0 else decoder.activation
        likelihood = autoencoder.likelihood if i == 0 else "gaussian"
        pair = Autoencoder(
            Step(encoder.layers[i], inner),
            Step(decoder.layers[layers - 1 - i], outer),
            likelihood=likelihood,
            noise=noise,
        )
        own = {} if checkpoints is None else {"checkpoints": checkpoints.within(f"layer-{i}")}
        trained = train(layer_key, pair, x, **options, **own)
        encoder.layers[i], decoder.layers[layers - 1 - i] = trained.module.encoder.layer, trained.module.decoder.layer
        endings.append(trained)
        if trained.status == Status.NOT_FINITE:
            break
        x = map_module(trained.module, "encode", x)
    return made, endings

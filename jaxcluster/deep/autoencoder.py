"""Autoencoders, and their layer-wise pretraining.

Source: P. Vincent et al., Stacked denoising autoencoders, JMLR 11 (2010).

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep import Autoencoder, nets
>>> rngs = nnx.Rngs(0)
>>> model = Autoencoder(nets.MLP((4, 2), rngs=rngs), nets.MLP((2, 4), rngs=rngs))
>>> model.encode(jnp.ones((3, 4))).shape
(3, 2)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.nets import MLP
from jaxcluster.deep.protocol import Batch, ClusteringModule
from jaxcluster.deep.trainer import TrainResult, train
from jaxcluster.types import Array, Float, KeyArray, Status

LIKELIHOODS = ("gaussian", "bernoulli")

View = Callable[[KeyArray, Float[Array, "n ..."]], Float[Array, "n ..."]]
"""A random augmentation of samples, see `jaxcluster.deep.views`."""


class Autoencoder(ClusteringModule):
    """An encoder and a decoder, trained by the reconstruction error.

    The loss is the mean over samples and features of (x − x̂)² ("gaussian"), or of the cross-entropy of x in [0, 1] and
    σ(logits) ("bernoulli"; nats).

    Args:
        encoder: (n_samples, …) samples to (n_samples, latent) codes.
        decoder: codes to (n_samples, n_features) means or logits of flat samples.
        likelihood: "gaussian" or "bernoulli".
        noise: an augmentation of the encoder's input only, for a denoising autoencoder; None for none.
        augment: an augmentation of the samples, both encoded and to be reconstructed; None for none.
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
        validation.check_choice("likelihood", likelihood, LIKELIHOODS)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.noise, self.augment = noise, augment

    def encode(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample; the mean of a Gaussian code."""
        return latent_mean(self.encoder(x))

    def decode(self, z: Float[Array, "n l"]) -> Float[Array, "n d"]:
        """Expected sample of each code."""
        return output_mean(self.decoder(z), self.likelihood)

    def reconstruct(self, x: Float[Array, "n ..."]) -> Float[Array, "n d"]:
        """Reconstruction of each sample."""
        return self.decode(self.encode(x))

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Reconstruction error of a batch.

        Returns:
            The error, and no metrics.
        """
        augment_key, noise_key = jax.random.split(key)
        x = apply_view(self.augment, augment_key, batch.x)
        error = self.error(x, self.decoder(self.encode(apply_view(self.noise, noise_key, x))))
        return error, {}

    def error(self, x: Float[Array, "n ..."], decoded: Float[Array, "n d"]) -> Float[Array, ""]:
        """Mean reconstruction error over samples and features of the decoder's output."""
        return jnp.mean(errors(x.reshape(decoded.shape), decoded, self.likelihood))


def apply_view(view: View | None, key: KeyArray, x: Any) -> Any:
    """Augmented samples; the samples themselves without an augmentation."""
    return x if view is None else view(key, x)


def latent_mean(encoded: Any) -> Float[Array, "n l"]:
    """The code in an encoder's output: the mean, if that is (mean, log-variance)."""
    return encoded[0] if isinstance(encoded, tuple) else encoded


def output_mean(decoded: Float[Array, "n d"], likelihood: str) -> Float[Array, "n d"]:
    """Expected samples of a decoder's output."""
    return jax.nn.sigmoid(decoded) if likelihood == "bernoulli" else decoded


def errors(x: Float[Array, "n d"], decoded: Float[Array, "n d"], likelihood: str) -> Float[Array, "n d"]:
    """(x − x̂)², or the cross-entropy of x and σ(logits) (nats)."""
    if likelihood == "gaussian":
        return jnp.square(x - decoded)
    # −x·log σ(l) − (1 − x)·log(1 − σ(l)) = softplus(l) − x·l, which neither overflows nor takes log 0.
    return jax.nn.softplus(decoded) - x * decoded


def check_likelihood(likelihood: str, x: Any) -> None:
    """Raise ValueError for an unknown likelihood, or for "bernoulli" and samples outside [0, 1]."""
    validation.check_choice("likelihood", likelihood, LIKELIHOODS)
    least, most = float(x.min()), float(x.max())
    if likelihood == "bernoulli" and (least < 0 or most > 1):
        raise ValueError(
            f"likelihood='bernoulli' needs values in [0, 1], and X has values from {least:g} to {most:g}. Scale them "
            "to that range, or use likelihood='gaussian'."
        )


class ActivatedLayer(nnx.Module):
    """One layer of a network with its activation; None for a linear one."""

    def __init__(self, layer: nnx.Linear, activation: Any = None):
        self.layer, self.activation = layer, activation

    def __call__(self, x: Any) -> Any:
        """Output of the layer."""
        x = self.layer(x)
        return x if self.activation is None else self.activation(x)


def pretrain_layers(
    key: KeyArray, autoencoder: Autoencoder, x: Any, *, noise: View | None, **options: Any
) -> tuple[Autoencoder, list[TrainResult]]:
    """Greedy layer-wise pretraining of an autoencoder, as DEC uses it (J. Xie et al., ICML 2016).

    Layer i of the encoder and its mirror in the decoder are trained as a denoising autoencoder of the codes of the
    layers before. Activations are those of the whole network: the innermost codes and the reconstructions are linear.

    Args:
        key: random key, split between the layers.
        autoencoder: of two `MLP` with mirrored widths; is not changed.
        x: (n_samples, n_features) samples.
        noise: an augmentation of each pair's input only.
        **options: of `train`, for each pair; the ``checkpoints`` of pair i are in the subfolder ``layer-i``.

    Returns:
        The autoencoder with trained layers, and the `TrainResult` of each pair. Pairs after a failed one are not
        trained.

    Raises:
        TypeError, ValueError: an encoder or decoder that is not an `MLP`, or does not mirror the other.
    """
    trained = nnx.clone(autoencoder)
    encoder, decoder = trained.encoder, trained.decoder
    if not (isinstance(encoder, MLP) and isinstance(decoder, MLP)):
        raise TypeError("layer-wise pretraining needs an encoder and a decoder that are jaxcluster.deep.nets.MLP.")
    if encoder.widths != decoder.widths[::-1]:
        raise ValueError(f"the widths {decoder.widths} of the decoder do not mirror {encoder.widths} of the encoder.")
    n_layers = len(encoder.layers)
    checkpoints = options.pop("checkpoints", None)
    results = []
    for i, layer_key in enumerate(jax.random.split(key, n_layers)):
        pair = Autoencoder(
            ActivatedLayer(encoder.layers[i], None if i == n_layers - 1 else encoder.activation),
            ActivatedLayer(decoder.layers[n_layers - 1 - i], None if i == 0 else decoder.activation),
            # The likelihood is that of the samples; codes between layers are real numbers in any case.
            likelihood=autoencoder.likelihood if i == 0 else "gaussian",
            noise=noise,
        )
        own = {} if checkpoints is None else {"checkpoints": checkpoints.within(f"layer-{i}")}
        result = train(layer_key, pair, x, **options, **own)
        encoder.layers[i], decoder.layers[n_layers - 1 - i] = result.module.encoder.layer, result.module.decoder.layer
        results.append(result)
        if result.status == Status.NOT_FINITE:
            break
        x = map_module(result.module, "encode", x)
    return trained, results

"""Layer-wise pretraining: each layer learns to undo noise on what the layers before it give.

Source: P. Vincent et al., Stacked denoising autoencoders, JMLR 11 (2010), as J. Xie et al., ICML 2016, use it.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from jaxcluster.deep.autoencoder import Autoencoder, View
from jaxcluster.deep.nets import MLP
from jaxcluster.deep.trainer import Trained, train
from jaxcluster.deep.use import map_module
from jaxcluster.types import KeyArray, Status


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

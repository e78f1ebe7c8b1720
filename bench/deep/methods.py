"""Each method from a set of images to its trained module: pretraining, start on the codes, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from bench.deep.settings import BATCH, CLASSES, STEPS, TOL, WIDTHS, Settings
from jaxcluster import deep, gmm, kmeans
from jaxcluster.deep import nets
from jaxcluster.deep.inference import weights_of, with_weights
from jaxcluster.deep.views import Masking, ShiftRotate

PASSES = {"joint": {"layers": 0, "joint": 45}, "layers": {"layers": 15, "joint": 30}}
"""Passes over the samples of each kind of pretraining, layer by layer and whole. A pass over every layer costs what one
over the whole costs, so that both kinds take the same time: some six minutes of two cores for 70,000 samples."""

LEAST_STEPS = 2_500
"""Steps of pretraining that a small set gets at least."""

NOISE = Masking(0.2)
"""A fifth of the pixels set to 0, as published."""

AUGMENTATION = ShiftRotate((28, 28))
"""The augmentation of DEC-DA, in pretraining and in clustering."""

VADE_RATE, VADE_FLOOR = 5e-4, 5e-5
"""First and least learning rate of Adam for VaDE, with batches of 256. Chosen by the bound on MNIST, in few epochs: 95
nats; the published 2e-3 with batches of 100 gave 102."""


class Start(NamedTuple):
    """Start of a training.

    Attributes:
        centers: (k, latent) of the clusters of the codes.
        labels: (n,) of k-means or EM on the codes.
        simple: (n,) of k-means on the codes.
        codes: (n, latent).
    """

    centers: np.ndarray
    labels: np.ndarray
    simple: np.ndarray
    codes: np.ndarray


def pretrained(x: np.ndarray, seed: int, kind: str, work: Path, *, augmented: bool = False) -> deep.Autoencoder:
    """The autoencoder of a seed: trained, or from the folder, where every method finds the same."""
    widths = (x.shape[1], *WIDTHS)
    file = work / f"{'augmented' if augmented else kind}-{seed}.npz"
    noise = {"augment": AUGMENTATION} if augmented else {"noise": NOISE}
    rngs = nnx.Rngs(seed)
    made = deep.Autoencoder(nets.MLP(widths, rngs=rngs), nets.MLP(nets.mirror(widths), rngs=rngs), **noise)
    if file.exists():
        with np.load(file) as weights:
            return with_weights(made, dict(weights))
    more = max(1.0, LEAST_STEPS / 45 * BATCH / len(x))
    passes = {name: round(more * each) for name, each in PASSES["joint" if augmented else kind].items()}
    key = jax.random.key(seed)
    if passes["layers"]:
        made, _ = deep.pretrain_layers(key, made, x, noise=NOISE, epochs=passes["layers"], optimizer=deep.adam(1e-3))
        made.noise = None
    trained = deep.train(key, made, x, epochs=passes["joint"], optimizer=deep.adam(1e-3)).module
    work.mkdir(parents=True, exist_ok=True)
    np.savez(file, **{name: np.asarray(value) for name, value in weights_of(trained).items()})
    return trained


def start_on(autoencoder: deep.Autoencoder, x: np.ndarray, seed: int, kind: str) -> Start:
    """Clusters of the codes, by k-means or by EM that begins with them."""
    key, codes = jax.random.key(seed), deep.map_module(autoencoder, "encode", x)
    found = kmeans.fit(key, codes, CLASSES, n_init=20)
    centers, labels = found.state.centers, found.labels
    if kind == "mixture":
        mixture = gmm.fit(key, codes, CLASSES, init=one_hot_start(found.labels))
        centers, labels = mixture.state.means, mixture.labels
    return Start(*map(np.asarray, (centers, labels, found.labels, codes)))


def one_hot_start(labels: jax.Array) -> gmm.GMMInit:
    """A mixture to begin with: each sample is wholly of its cluster."""
    return gmm.GMMInit(responsibilities=jax.nn.one_hot(labels, CLASSES))


def train(
    method: str,
    autoencoder: deep.Autoencoder,
    x: np.ndarray,
    start: Start,
    settings: Settings,
    seed: int,
    **options: Any,
) -> deep.TrainResult:
    """Train a method from its start.

    Args:
        method: of METHODS, not the first.
        autoencoder: pretrained, the augmented one for DEC-DA.
        x: (n, d) images.
        start: on its codes.
        settings: chosen without labels.
        seed: of the training.
        **options: more of `deep.train`.
    """
    if method == "vade":
        return _train_vade(autoencoder, x, start, seed, **options)
    if method == "dcn":
        module = deep.DCN(autoencoder, start.centers, np.bincount(start.labels, minlength=CLASSES))
    elif method == "idec":
        module = deep.IDEC(autoencoder, start.centers)
    else:
        module = deep.DEC(autoencoder, start.centers, augment=AUGMENTATION if method == "dec-da" else None)
    own = {"steps_per_epoch": STEPS, "tol": TOL, "batch_size": BATCH, "optimizer": deep.adam(settings.rate)}
    return deep.train(jax.random.key(seed + 1), module, x, **own, **options)


def _train_vade(plain, x, start, seed, **options):
    """VaDE from the autoencoder with Gaussian codes and the cross-entropy of pixels, after five more passes."""
    rngs = nnx.Rngs(seed)
    trunk = nets.MLP((x.shape[1], *WIDTHS[:-1]), rngs=rngs)
    encoder = nets.VariationalEncoder(trunk, nets.GaussianHead(WIDTHS[-2], WIDTHS[-1], rngs=rngs))
    for new, old in zip([*trunk.layers, encoder.head.mean], plain.encoder.layers, strict=True):
        new.kernel[...], new.bias[...] = old.kernel[...], old.bias[...]
    made = deep.Autoencoder(encoder, plain.decoder, likelihood="bernoulli", noise=NOISE)
    adam = deep.adam(1e-3, decay_steps=5 * (len(x) // BATCH))
    autoencoder = deep.train(jax.random.key(seed), made, x, epochs=5, optimizer=adam, batch_size=BATCH).module
    begin = one_hot_start(start_on(autoencoder, x, seed, "mixture").labels)
    codes = deep.map_module(autoencoder, "encode", x)
    mixture = gmm.init(jax.random.key(seed), codes, CLASSES, covariance="diag", init=begin).mixture()
    autoencoder.encoder.head.set_variance(0.1 * np.mean(mixture.covariances))
    module = deep.VaDE(autoencoder, mixture.weights, mixture.means, mixture.covariances)
    steps = 10 * (len(x) // BATCH)
    rate = optax.exponential_decay(VADE_RATE, steps, 0.9, staircase=True, end_value=VADE_FLOOR)
    adam = optax.adam(rate, eps=1e-4)
    return deep.train(jax.random.key(seed + 1), module, x, optimizer=adam, batch_size=BATCH, **options)

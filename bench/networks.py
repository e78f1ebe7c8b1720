"""Training of networks: DEC and VaDE, on our side and in ClustPy.

A call draws the weights, by one rule on both sides, and goes through all that a user waits for: pretraining, the
clusters to begin with, from as many starts on both sides, the training of both together, and the labels of all rows.
Widths, non-linearity, batches, epochs and rates of Adam are the same; the last, incomplete batch that only ClustPy
would take does not occur. A fit of ClustPy ends with one more k-means or mixture on its codes, which is part of its
time as it is of a user's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxcluster
from bench.cases import Case
from bench.peers import Answer, Call
from jaxcluster import deep
from jaxcluster.deep import nets

Build = Callable[[Case, Any, np.ndarray], Call]
"""The call of a case, from its rows and what each was drawn from."""

LATENT, PRETRAINING, CLUSTERING = 10, 1e-3, 1e-4
"""Width of the code, and Adam's rate in each phase."""

KMEANS_STARTS, MIXTURE_STARTS = 20, 10


def our_dec(case: Case, x: Any, truth: np.ndarray) -> Call:
    """DEC; the value is the ARI of its labels."""

    def call() -> Answer:
        pretraining = _pretrained(_networks(case, nets.MLP), case, x)
        codes = deep.map_module(pretraining.module, "encode", x)
        start = jaxcluster.kmeans.fit(jax.random.key(1), codes, case.k, n_init=KMEANS_STARTS).state
        return _clustered(pretraining, deep.DEC(pretraining.module, start.centers), case, x, truth)

    return call


def our_vade(case: Case, x: Any, truth: np.ndarray) -> Call:
    """VaDE; the value is the ARI of its labels."""

    def call() -> Answer:
        pretraining = _pretrained(_networks(case, _variational, likelihood="bernoulli"), case, x)
        codes = deep.map_module(pretraining.module, "encode", x)
        options = {"covariance": "diag", "n_init": MIXTURE_STARTS}
        start = jaxcluster.gmm.fit(jax.random.key(1), codes, case.k, **options).state
        module = deep.VaDE(pretraining.module, start.weights, start.means, start.covariances)
        return _clustered(pretraining, module, case, x, truth)

    return call


def clustpy_dec(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`our_dec` in ClustPy, whose target is that of each batch, not of all rows."""
    network = importlib.import_module("clustpy.deep.neural_networks").FeedforwardAutoencoder
    return _clustpy("DEC", network, case, x, truth, initial_clustering_params={"n_init": KMEANS_STARTS})


def clustpy_vade(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`our_vade` in ClustPy, its sums over a batch weighed to the published bound."""
    # The class that VaDE makes itself where it is given none: in pretraining a plain autoencoder.
    network = importlib.import_module("clustpy.deep.vade")._VaDE_VAE
    start = {"n_init": MIXTURE_STARTS, "covariance_type": "diag"}
    return _clustpy("VaDE", network, case, x, truth, initial_clustering_params=start, ssl_loss_weight=1 / case.batch)


def _networks(case: Case, encoder: Callable[..., nnx.Module], **options: Any) -> deep.Autoencoder:
    rngs, widths = nnx.Rngs(0), _widths(case)
    return deep.Autoencoder(encoder(widths, rngs=rngs), nets.MLP(nets.mirror(widths), rngs=rngs), **options)


def _variational(widths: tuple[int, ...], *, rngs: nnx.Rngs) -> nnx.Module:
    *trunk, latent = widths
    return nets.VariationalEncoder(nets.MLP(trunk, rngs=rngs), nets.GaussianHead(trunk[-1], latent, rngs=rngs))


def _pretrained(autoencoder: deep.Autoencoder, case: Case, x: Any) -> deep.TrainResult:
    options = {"epochs": case.steps, "batch_size": case.batch, "optimizer": deep.adam(PRETRAINING)}
    return deep.train(jax.random.key(0), autoencoder, x, **options)


def _clustered(pretraining: deep.TrainResult, module: nnx.Module, case: Case, x: Any, truth: np.ndarray) -> Answer:
    options = {"epochs": case.steps, "batch_size": case.batch, "optimizer": deep.adam(CLUSTERING)}
    result = deep.train(jax.random.key(2), module, x, **options)
    return Answer(ari(truth, result.labels), steps=pretraining.steps + result.steps)


def _clustpy(method: str, network: type, case: Case, x: np.ndarray, truth: np.ndarray, **options: Any) -> Call:
    estimator, adam = getattr(importlib.import_module("clustpy.deep"), method), _counted_adam()

    def call() -> Answer:
        adam.taken = 0
        with _quiet():
            fit = estimator(
                case.k,
                batch_size=case.batch,
                pretrain_epochs=case.steps,
                clustering_epochs=case.steps,
                pretrain_optimizer_params={"lr": PRETRAINING},
                clustering_optimizer_params={"lr": CLUSTERING},
                optimizer_class=adam,
                neural_network=_initialized(network, case),
                embedding_size=LATENT,
                random_state=0,
                **options,
            ).fit(x)
        return Answer(ari(truth, getattr(fit, f"{method.lower()}_labels_")), steps=adam.taken)

    return call


def _initialized(network: type, case: Case) -> Any:
    """A network of ClustPy, its weights drawn as ours are: by its own draw it is far behind after as many steps."""
    nn = importlib.import_module("torch").nn
    layers = network(list(_widths(case)), activation_fn=nn.ReLU, random_state=0)
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return layers


def _counted_adam() -> Any:
    """PyTorch's Adam, and in ``taken`` how many steps all that were made of it have taken."""

    class Counted(importlib.import_module("torch").optim.Adam):
        taken = 0

        def step(self, *arguments: Any) -> Any:
            type(self).taken += 1
            return super().step(*arguments)

    return Counted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars that ClustPy prints."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _widths(case: Case) -> tuple[int, ...]:
    return (case.d, *case.hidden, LATENT)


def ari(truth: np.ndarray, labels: Any) -> float:
    """Adjusted Rand index of labels and the true clusters."""
    return float(jaxcluster.metrics.adjusted_rand_score(truth, np.asarray(labels, np.int32)))

"""DeepCluster on our side: a look at all rows, and the steps up to the next one, are compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import nnx

from bench.cases import Case
from bench.networks import ari
from bench.peers import Answer, Call
from jaxcluster import deep
from jaxcluster.deep import nets

LATENT, COMPONENTS = 64, 16
"""Width of the features, and principal components that clusters are found among."""

PER_CLUSTER, STARTS, RATE = 3, 10, 1e-3
"""Learned clusters for each of the case's; starts of the k-means that finds those in the end; rate of Adam."""


def ours(case: Case, x: Any, truth: np.ndarray) -> Call:
    """The first version, by whitening and a fresh head; the value is the ARI of clusters of the features at the end."""
    options = {"epochs": case.steps, "batch_size": case.batch, "optimizer": deep.adam(RATE)}

    def call() -> Answer:
        rngs = nnx.Rngs(0)
        encoder = nets.Projector((case.d, *case.hidden, LATENT), rngs=rngs)
        sizes = {"n_clusters": case.k, "components": COMPONENTS, "n_init": STARTS}
        module = deep.DeepCluster(encoder, LATENT, PER_CLUSTER * case.k, rngs=rngs, **sizes)
        result = deep.train(jax.random.key(0), module, x, **options)
        return Answer(ari(truth, result.labels), steps=result.steps)

    return call

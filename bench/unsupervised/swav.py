"""SwAV on our side: views, assignments and steps of an epoch are one compiled scan."""

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
from jaxcluster.deep.views import table_views

LATENT = 64
"""Width of the features, of the layer of the head and of the space of the prototypes."""

SWAPPED, DEVIATION = 0.3, 0.1
"""Augmentation of a view: fraction of entries swapped with those of other samples, and deviation of the noise."""

TEMPERATURE, EPSILON, ROUNDS, RATE = 0.1, 0.05, 3, 1e-3
"""Temperature of the predictions, ε and Sinkhorn iterations of the assignments, and learning rate of Adam."""


def ours(case: Case, x: Any, truth: np.ndarray) -> Call:
    """Two views of each row; the value is the ARI of the groups of prototypes that rows are in."""
    options = {"temperature": TEMPERATURE, "epsilon": EPSILON, "sinkhorn_iterations": ROUNDS}
    views = table_views(rate=SWAPPED, deviation=DEVIATION)
    training = {"epochs": case.steps, "batch_size": case.batch, "optimizer": deep.adam(RATE)}

    def call() -> Answer:
        rngs = nnx.Rngs(0)
        encoder = nets.Projector((case.d, *case.hidden, LATENT), rngs=rngs)
        head = nets.Projector((LATENT, LATENT, LATENT), rngs=rngs)
        module = deep.SwAV(encoder, views, case.k, prototypes(case), LATENT, head=head, rngs=rngs, **options)
        result = deep.train(jax.random.key(0), module, x, **training)
        return Answer(ari(truth, result.labels), steps=result.steps)

    return call


def prototypes(case: Case) -> int:
    """Number of prototypes: five per cluster, and no more than the samples of a batch."""
    return min(5 * case.k, case.batch)

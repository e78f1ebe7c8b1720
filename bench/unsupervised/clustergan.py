"""ClusterGAN on our side: the whole training is one compiled scan."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from bench.cases import Case
from bench.networks import ari
from bench.peers import Answer, Call
from jaxcluster import deep
from jaxcluster.deep import clustergan as nets

LATENT, DEVIATION, WEIGHT, PENALTY, CRITIC_STEPS = 30, 0.10, 10.0, 10.0, 5
"""Settings of the paper: dimension and deviation of the noise, β_n and β_c, λ, and critic updates per step."""

RATE, B1, B2 = 5e-4, 0.5, 0.9
"""Learning rate and moment decays of Adam."""

Networks = tuple[nnx.Module, ...]
"""Generator, critic and encoder."""


def dense(case: Case, x: Any, truth: np.ndarray) -> Call:
    """Dense networks; the value is the ARI of the clusters of all rows among their codes."""
    width, hidden = LATENT + case.k, tuple(case.hidden)

    def networks(rngs: nnx.Rngs) -> Networks:
        return (
            nets.DenseGenerator((width, *hidden, case.d), rngs=rngs),
            nets.dense_encoder((case.d, *hidden, 1), rngs=rngs),
            nets.dense_encoder((case.d, *hidden, width), rngs=rngs),
        )

    return _trained(networks, case, x, truth)


def images(case: Case, x: Any, truth: np.ndarray) -> Call:
    """The convolutions of the paper, on rows taken for square images; the value is that of `dense`."""
    width, shape = LATENT + case.k, image_shape(case)

    def networks(rngs: nnx.Rngs) -> Networks:
        return (
            nets.ImageGenerator(width, shape, rngs=rngs),
            nets.ImageEncoder(shape, 1, rngs=rngs),
            nets.ImageEncoder(shape, width, rngs=rngs),
        )

    return _trained(networks, case, x, truth)


def image_shape(case: Case) -> tuple[int, int]:
    """The shape of a sample taken for a square image.

    Returns:
        Height and width.
    """
    side = math.isqrt(case.d)
    return side, side


def steps(case: Case) -> int:
    """Number of training steps; in the steps of an epoch the critic sees every sample once."""
    return case.steps * (case.n // (case.batch * CRITIC_STEPS))


def _trained(networks: Callable[[nnx.Rngs], Networks], case: Case, x: Any, truth: np.ndarray) -> Call:
    weights = {"code_weight": WEIGHT, "cluster_weight": WEIGHT, "penalty": PENALTY}
    options = {"epochs": case.steps, "batch_size": case.batch, "optimizer": deep.adam(RATE, b1=B1, b2=B2)}

    def call() -> Answer:
        parts = networks(nnx.Rngs(0))
        module = deep.ClusterGAN(
            *parts, case.k, latent=LATENT, deviation=DEVIATION, critic_steps=CRITIC_STEPS, **weights
        )
        result = deep.train(jax.random.key(0), module, x, **options)
        return Answer(ari(truth, result.labels), steps=result.steps)

    return call

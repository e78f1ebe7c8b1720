"""Training through clusters: prototypes of digits from one labeled row a class and ten rows without labels.

An episode shows rows of a few classes: one of each with its label, some without, and queries whose class is asked for.
A network maps them to features, and a query belongs to the nearest prototype. Without the layer prototypes are the
labeled rows; with it they are the solution of a soft k-means in which the labeled rows keep their clusters and the
others find theirs, and the loss of the queries is differentiated through that solution. The rows of the test are others
than those of the training. Most of what the layer gains here is that it sees the rows without labels at all.

Source: M. Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from jaxcluster.deep import ClusterLayer

WAYS, SHOTS, UNLABELED, QUERIES = 5, 1, 10, 10
"""Classes of an episode, and rows of each: with a label, without, and asked for."""

TRAINED, UNSEEN = slice(0, 1000), slice(1000, None)
"""Rows that episodes of the training and of the test are made of."""

WIDTH, VARIANCE = 32, 1.0
"""Width of the features, and σ² to begin with."""

STEPS, EPISODES, RATE = 60, 50, 3e-3
"""Steps of the training, episodes of the test, and the learning rate of Adam."""


class Episode(NamedTuple):
    """Rows to find prototypes with, their class or −1, and rows to classify."""

    rows: np.ndarray
    known: np.ndarray
    queries: np.ndarray
    answers: np.ndarray


class Prototypes(nnx.Module):
    """A small network whose features are compared with prototypes, with the cluster layer between them or without."""

    def __init__(self, *, clustered: bool, rngs: nnx.Rngs):
        self.first, self.second = nnx.Linear(64, 64, rngs=rngs), nnx.Linear(64, WIDTH, rngs=rngs)
        self.log_variance = nnx.Param(jnp.log(jnp.float32(VARIANCE)))
        options = {"variance": VARIANCE, "learn_variance": True, "max_steps": 30, "tol": 1e-5}
        self.layer = ClusterLayer(WAYS, WIDTH, **options, rngs=rngs) if clustered else None

    def features(self, rows):
        return self.second(nnx.relu(self.first(rows)))

    def logits(self, episode: Episode):
        z = self.features(episode.rows)
        if self.layer is not None:
            prototypes = self.layer(z, known=episode.known).centers
        else:
            members = jax.nn.one_hot(episode.known, WAYS)
            prototypes = members.T @ z / jnp.sum(members, axis=0)[:, None]
        gaps = self.features(episode.queries)[:, None] - prototypes
        return -jnp.sum(jnp.square(gaps), axis=2) / (2 * jnp.exp(self.log_variance[...]))


def episodes(seed: int, rows: slice, count: int) -> Episode:
    """So many random episodes, along the first axis of every array."""
    digits, target = (each[rows] for each in load_digits(return_X_y=True))
    digits = (digits * (3 / 16)).astype(np.float32)
    rng = np.random.default_rng(seed)
    answers = np.repeat(np.arange(WAYS), QUERIES)
    known = np.concatenate([np.repeat(np.arange(WAYS), SHOTS), np.full(WAYS * UNLABELED, -1)])
    made = []
    for _ in range(count):
        chosen = rng.permutation(10)[:WAYS]
        size = SHOTS + UNLABELED + QUERIES
        drawn = [digits[rng.permutation(np.flatnonzero(target == digit))[:size]] for digit in chosen]
        parts = [np.split(rows, [SHOTS, SHOTS + UNLABELED]) for rows in drawn]
        shots, others, queries = (np.concatenate(each) for each in zip(*parts, strict=True))
        made.append(Episode(np.concatenate([shots, others]), known, queries, answers))
    return Episode(*(np.stack(each) for each in zip(*made, strict=True)))


@nnx.jit
def train_step(model, optimizer, episode):
    """One step of the optimizer on one episode."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model.logits(episode), episode.answers).mean()

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


@nnx.jit
def right(model, episode):
    """The share of queries that are classified right."""
    return jnp.mean(jnp.argmax(model.logits(episode), axis=1) == episode.answers)


def train(seed: int, *, clustered: bool) -> Prototypes:
    """A network trained on episodes of the rows of the training."""
    model = Prototypes(clustered=clustered, rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)
    seen = episodes(seed, TRAINED, STEPS)
    for step in range(STEPS):
        train_step(model, optimizer, jax.tree.map(lambda leaf, step=step: leaf[step], seen))
    return model


def accuracy(model: Prototypes, seed: int = 1000) -> float:
    """Mean accuracy on episodes of rows that no training has seen."""
    unseen = episodes(seed, UNSEEN, EPISODES)
    return float(np.mean([right(model, jax.tree.map(lambda leaf, i=i: leaf[i], unseen)) for i in range(EPISODES)]))

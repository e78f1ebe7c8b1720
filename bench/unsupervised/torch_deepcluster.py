"""DeepCluster in a loop of PyTorch, which hands the features of all rows to a library on the host at each look."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import cross_entropy

from bench.cases import Case
from bench.networks import ari
from bench.peers import Answer, Call
from bench.unsupervised.deepcluster import COMPONENTS, LATENT, PER_CLUSTER, RATE, STARTS
from bench.unsupervised.torch_parts import adam, device, features, kmeans, projector, to_device
from jaxcluster.deep.deepcluster import HEAD_DEVIATION, REFRESH_LLOYD_STEPS


def loop(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`bench.unsupervised.deepcluster.ours` with the PCA and the k-means of scikit-learn."""
    rows, learned, per_look = to_device(x), PER_CLUSTER * case.k, case.n // case.batch

    def look(encoder: nn.Module, k: int, **options: Any) -> np.ndarray:
        return _clusters(features(encoder, rows), k, **options)

    def call() -> Answer:
        torch.manual_seed(0)
        encoder = projector((case.d, *case.hidden, LATENT))
        learner = adam(encoder, rate=RATE)
        for _ in range(case.steps):
            labels = (
                torch.from_numpy(look(encoder, learned, n_init=1, max_iter=REFRESH_LLOYD_STEPS)).long().to(device())
            )
            head = _head(learned)
            head_learner = adam(head, rate=RATE)
            for batch in _evenly(labels, per_look, case.batch):
                loss = cross_entropy(head(encoder(rows[batch])), labels[batch])
                learner.zero_grad()
                head_learner.zero_grad()
                loss.backward()
                learner.step()
                head_learner.step()
        return Answer(ari(truth, look(encoder, case.k, n_init=STARTS)), steps=case.steps * per_look)

    return call


def _head(k: int) -> nn.Linear:
    """A fresh head."""
    head = nn.Linear(LATENT, k)
    nn.init.normal_(head.weight, std=HEAD_DEVIATION)
    nn.init.zeros_(head.bias)
    return head.to(device())


def _evenly(labels: torch.Tensor, steps: int, batch: int) -> torch.Tensor:
    """The rows of each batch, drawn so that clusters have equal parts, (steps, batch)."""
    return torch.multinomial(1 / labels.bincount()[labels], steps * batch, replacement=True).view(steps, batch)


def _clusters(z: np.ndarray, k: int, **options: Any) -> np.ndarray:
    """k-means among the directions of the whitened components."""
    whitened = PCA(COMPONENTS, whiten=True).fit_transform(z)
    return kmeans(whitened / np.linalg.norm(whitened, axis=1, keepdims=True), k, **options).labels_

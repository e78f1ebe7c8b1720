"""SwAV in a loop of PyTorch, with the loss of lightly: Sinkhorn's rounds, and the swapped predictions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from bench.cases import Case
from bench.networks import ari
from bench.peers import Answer, Call
from bench.unsupervised.swav import (
    DEVIATION,
    EPSILON,
    LATENT,
    RATE,
    ROUNDS,
    SWAPPED,
    TEMPERATURE,
    prototypes,
)
from bench.unsupervised.torch_parts import adam, batches, device, features, kmeans, projector, to_device

STARTS = 10
"""Restarts of k-means on the features: lightly has no clustering of its own."""


def loop(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`bench.unsupervised.swav.ours`, but that clusters are those of k-means among the features."""
    rows, loss_of = to_device(x), _lightly_loss()(TEMPERATURE, ROUNDS, EPSILON)

    def call() -> Answer:
        torch.manual_seed(0)
        encoder = projector((case.d, *case.hidden, LATENT))
        head = projector((LATENT, LATENT, LATENT))
        # Not lightly's own layer, which adds a bias to the cosines.
        scores = nn.Linear(LATENT, prototypes(case), bias=False).to(device())
        _restrain(scores)
        optimizer, steps = adam(encoder, head, scores, rate=RATE), case.steps * (len(rows) // case.batch)
        batch = batches(rows, case.batch)
        for _ in range(steps):
            x = next(batch)
            logits = scores(normalize(head(encoder(torch.cat((_view(x), _view(x)))))))
            optimizer.zero_grad()
            loss_of(logits.chunk(2), []).backward()
            optimizer.step()
            _restrain(scores)
        return Answer(ari(truth, kmeans(features(encoder, rows), case.k, n_init=STARTS).labels_), steps=steps)

    return call


def _lightly_loss() -> type:
    """The class SwaVLoss, from its own file: the package around it loads torchvision too, which it has no need of."""
    (folder,) = importlib.util.find_spec("lightly").submodule_search_locations
    spec = importlib.util.spec_from_file_location("lightly_swav_loss", Path(folder) / "loss" / "swav_loss.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SwaVLoss


@torch.no_grad()
def _restrain(scores: nn.Linear) -> None:
    """Prototypes at length 1."""
    scores.weight.copy_(normalize(scores.weight))


def _view(x: torch.Tensor) -> torch.Tensor:
    """Rows with entries of others, and noise."""
    own, n = torch.arange(len(x), device=x.device)[:, None], len(x)
    others = x.gather(0, (own + torch.randint(1, n, x.shape, device=x.device)) % n)
    swapped = torch.where(torch.rand_like(x) < SWAPPED, others, x)
    return swapped + DEVIATION * torch.randn_like(x)

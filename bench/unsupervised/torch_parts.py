"""Common parts of the PyTorch loops: networks initialized as ours are, samples on the device, batches, Adam."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

TILE = 4096
"""Rows that go through a network at a time in evaluation."""


def device() -> str:
    """The device of PyTorch, which is the kind of device that JAX runs on too."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def to_device(x: np.ndarray) -> torch.Tensor:
    """Rows on the device."""
    # Layers of ours take TF32 on a GPU, as is JAX's default.
    torch.set_float32_matmul_precision("high")
    return torch.from_numpy(x).to(device())


def batches(x: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Batches without end, in passes of an order each; rows over at the end of a pass are left out."""
    while True:
        yield from (x[rows] for rows in torch.randperm(len(x), device=x.device).split(size) if len(rows) == size)


def adam(*modules: nn.Module, rate: float, b1: float = 0.9, b2: float = 0.999) -> torch.optim.Adam:
    """Adam of modules' parameters, in the form of PyTorch that takes fewest passes over them."""
    parameters = itertools.chain.from_iterable(module.parameters() for module in modules)
    return torch.optim.Adam(parameters, lr=rate, betas=(b1, b2), fused=True)


def projector(widths: Sequence[int]) -> nn.Sequential:
    """`jaxcluster.deep.nets.Projector`."""
    layers = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-3].weight, nonlinearity="relu")
    layers.append(nn.Linear(*widths[-2:]))
    nn.init.xavier_uniform_(layers[-1].weight)
    nn.init.zeros_(layers[-1].bias)
    return nn.Sequential(*layers).to(device())


@torch.no_grad()
def features(encoder: nn.Module, x: torch.Tensor) -> np.ndarray:
    """Outputs of a network in evaluation mode for all samples, on the host; training mode is restored."""
    encoder.eval()
    parts = [encoder(rows) for rows in x.split(TILE)]
    encoder.train()
    return torch.cat(parts).cpu().numpy()


def kmeans(z: np.ndarray, k: int, **options: Any) -> Any:
    """k-means of scikit-learn, fitted."""
    from sklearn.cluster import KMeans

    return KMeans(k, random_state=0, **options).fit(z)

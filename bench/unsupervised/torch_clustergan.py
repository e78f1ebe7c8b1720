"""ClusterGAN in a loop of PyTorch: each move is a forward and a backward pass, the penalty by a graph of the slopes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, softmax

from bench.cases import Case
from bench.networks import ari
from bench.peers import Answer, Call
from bench.unsupervised.clustergan import (
    B1,
    B2,
    CRITIC_STEPS,
    DEVIATION,
    LATENT,
    PENALTY,
    RATE,
    WEIGHT,
    image_shape,
    steps,
)
from bench.unsupervised.torch_parts import adam, batches, device, features, kmeans, to_device
from jaxcluster.deep.clustergan import CHANNELS, DENSE

NEGATIVE_SLOPE, WEIGHT_DEVIATION = 0.2, 0.02
"""Negative slope of leaky ReLU, and standard deviation of the initial weights."""

Networks = tuple[nn.Module, ...]
"""Generator, critic and encoder."""


def dense(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`bench.unsupervised.clustergan.dense`."""
    width, hidden = LATENT + case.k, tuple(case.hidden)

    def networks() -> Networks:
        return (
            _dense((width, *hidden, case.d), normed=True),
            _dense((case.d, *hidden, 1)),
            _dense((case.d, *hidden, width)),
        )

    return _trained(networks, case, x, truth)


def images(case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    """`bench.unsupervised.clustergan.images`."""
    width, shape = LATENT + case.k, image_shape(case)

    def networks() -> Networks:
        return _image_generator(width, shape), _image_reader(shape, 1), _image_reader(shape, width)

    return _trained(networks, case, x, truth)


def _dense(widths: Sequence[int], *, normed: bool = False) -> nn.Sequential:
    layers = []
    for a, b in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if normed else []), nn.LeakyReLU(NEGATIVE_SLOPE)]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


def _image_reader(shape: tuple[int, int], width: int) -> nn.Sequential:
    first, second = CHANNELS
    return nn.Sequential(
        nn.Unflatten(1, (1, *shape)),
        nn.Conv2d(1, first, 4, stride=2, padding=1),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.LeakyReLU(NEGATIVE_SLOPE),
        nn.Flatten(),
        *_dense((second * math.prod(_quarter(shape)), DENSE, width)),
    )


def _image_generator(width: int, shape: tuple[int, int]) -> nn.Sequential:
    last, first = CHANNELS
    start = (first, *_quarter(shape))
    return nn.Sequential(
        nn.Linear(width, DENSE),
        nn.BatchNorm1d(DENSE),
        nn.ReLU(),
        nn.Linear(DENSE, math.prod(start)),
        nn.Unflatten(1, start),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.ConvTranspose2d(first, last, 4, stride=2, padding=1),
        nn.BatchNorm2d(last),
        nn.ReLU(),
        nn.ConvTranspose2d(last, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
        nn.Flatten(),
    )


def _quarter(shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width after two convolutions; sides that 4 divides are halved alike by us and by PyTorch."""
    return shape[0] // 4, shape[1] // 4


def _initialized(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=WEIGHT_DEVIATION)
            nn.init.zeros_(layer.bias)
    return network.to(device())


def _trained(networks: Callable[[], Networks], case: Case, x: np.ndarray, truth: np.ndarray) -> Call:
    rows = to_device(x)

    def call() -> Answer:
        torch.manual_seed(0)
        generator, critic, encoder = map(_initialized, networks())
        sides = adam(critic, rate=RATE, b1=B1, b2=B2), adam(generator, encoder, rate=RATE, b1=B1, b2=B2)
        real = batches(rows, case.batch)
        for _ in range(steps(case)):
            for _ in range(CRITIC_STEPS):
                _move(sides[0], _critic_loss(generator, critic, next(real), case.k))
            # What the critic's weights would do to the others' loss is nobody's business.
            critic.requires_grad_(False)
            _move(sides[1], _players_loss(generator, critic, encoder, case))
            critic.requires_grad_(True)
        codes = features(nn.Sequential(encoder, _Softmax()), rows)
        return Answer(ari(truth, _clusters(codes, case.k)), steps=steps(case))

    return call


def _move(optimizer: torch.optim.Adam, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _draw(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and the cluster of each."""
    noise, labels = DEVIATION * torch.randn(n, LATENT, device=device()), torch.randint(k, (n,), device=device())
    return torch.cat((noise, one_hot(labels, k)), 1), labels


def _critic_loss(generator: nn.Module, critic: nn.Module, real: torch.Tensor, k: int) -> torch.Tensor:
    with torch.no_grad():
        fake = generator(_draw(len(real), k)[0])
    gap = critic(fake).mean() - critic(real).mean()
    points = torch.lerp(fake, real, torch.rand(len(real), 1, device=device())).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return gap + PENALTY * (gradient.norm(dim=1) - 1).square().mean()


def _players_loss(generator: nn.Module, critic: nn.Module, encoder: nn.Module, case: Case) -> torch.Tensor:
    z, labels = _draw(case.batch, case.k)
    fake = generator(z)
    codes = encoder(fake)
    code, cluster = mse_loss(codes[:, :LATENT], z[:, :LATENT]), cross_entropy(codes[:, LATENT:], labels)
    return WEIGHT * (code + cluster) - critic(fake).mean()


class _Softmax(nn.Module):
    """Codes with the logits of clusters as shares."""

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.cat((codes[:, :LATENT], softmax(codes[:, LATENT:], dim=1)), 1)


def _clusters(codes: np.ndarray, k: int) -> np.ndarray:
    """k-means from the means of the rows whose greatest share is in one column; from one-hots where there are none."""
    most, start = codes[:, LATENT:].argmax(1), np.eye(k, codes.shape[1], LATENT, np.float32)
    for j in np.unique(most):
        start[j] = codes[most == j].mean(0)
    return kmeans(codes, k, init=start, n_init=1).labels_

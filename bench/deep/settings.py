"""The settings of the protocol: what is fixed, what may be chosen, and the file that holds what was chosen.

Fixed are the published ones: widths 500-500-2000-10, ReLU, linear codes, batches of 256, a refresh every 140 steps, the
end when at most 0.1 % of the labels change (J. Xie et al., ICML 2016; X. Guo et al., IJCAI 2017).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("settings.json")

WIDTHS = (500, 500, 2000, 10)
"""Layer widths of the published encoder, without the input layer."""

BATCH, STEPS, TOL = 256, 140, 1e-3
"""Samples in a batch, steps between two refreshes, and the fraction of changed labels at which a training ends."""

CLASSES = 10
"""Number of clusters of every set."""

PRETRAINING = ("joint", "layers")
"""Kinds of pretraining: the whole denoising autoencoder at once; or layer by layer, then the whole without noise."""

STARTS = ("k-means", "mixture")
"""Kinds of start on the codes: k-means, best of 20; or EM with full covariances from its clusters."""

METHODS = ("autoencoder", "dec", "idec", "dcn", "dec-da", "vade")
"""The first is its own start: k-means or EM on the codes of the autoencoder."""

RATES = (1e-3, 1e-4)
"""Learning rates of Adam from which that of DEC, IDEC, DCN and DEC with augmentation is chosen."""

RATED = ("dec", "dcn")
"""Methods on which the learning rate is chosen."""


class Settings(NamedTuple):
    """Settings that were chosen without labels.

    Attributes:
        pretraining: one of PRETRAINING.
        start: one of STARTS.
        rate: learning rate of Adam.
    """

    pretraining: str
    start: str
    rate: float


def frozen(path: Path = FILE) -> Settings:
    """The settings of the file."""
    return Settings(**json.loads(path.read_text())["settings"])

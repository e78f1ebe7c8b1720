"""Fits of an estimator to many distinct shapes in one process: ``python -m bench.reliability.shapes NAME COUNT …``.

Prints JSON: the shapes, the most memory maps, how often programs were released, and the most bytes before and after
the first release. Between two releases memory rises: only its tops can be compared.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil

from jaxcluster.core import programs
from jaxcluster.estimators import ESTIMATORS

SHORT: dict[str, Any] = {
    "n_init": 1,
    "max_iter": 3,
    "random_state": 0,
    "epochs": 1,
    "pretrain_epochs": 1,
    "hidden": (8,),
    "latent": 2,
    "batch_size": 32,
    "n_heads": 2,
    "n_neighbors": 5,
    "critic_steps": 1,
}
"""Parameters with which a fit is short, for the estimators that have them."""

OWN: dict[str, dict[str, Any]] = {
    "kprototypes": {"categorical": [0]},
    "neighbor-embedding": {"init": "pca"},
    "n2d": {"init": "pca", "n_components": 2},
    "spectral-embedding": {"affinity": "rbf"},
}
"""Further parameters of some."""


def shapes(count: int) -> Iterator[tuple[int, int, int]]:
    """Distinct triples of samples, columns and clusters."""
    for number in range(count):
        yield 40 + 7 * (number % 143), 2 + number % 29, 2 + number % 11


def rows(name: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Samples without any structure, whole numbers for categories."""
    x = rng.normal(size=(n, d))
    if name in ("kmodes", "kprototypes"):
        x[:, : d if name == "kmodes" else 1] = rng.integers(0, 4, size=(n, d if name == "kmodes" else 1))
    return x.astype(int) if name == "kmodes" else x


def estimator(name: str, k: int) -> Any:
    """An unfitted estimator of k clusters or components, whose fit is short."""
    made = ESTIMATORS[name]()
    known = made.get_params(deep=False)
    wanted = {"n_clusters" if "n_clusters" in known else "n_components": k, "n_prototypes": k, **SHORT}
    return made.set_params(**{key: value for key, value in (wanted | OWN.get(name, {})).items() if key in known})


def measure(name: str, count: int, early: int, seconds: float) -> dict[str, Any]:
    """Fit an estimator to distinct shapes.

    Args:
        name: its registered name.
        count: shapes, at most.
        early: shapes of the first part at least, whose memory is compared with that of the others. It goes on to the
            first release of programs, if that comes later.
        seconds: time after which no further shape is begun.
    """
    warnings.simplefilter("ignore")
    rng, process = np.random.default_rng(0), psutil.Process()
    maps, memory, begin = [], [], time.monotonic()
    for n, d, k in shapes(count):
        estimator(name, k).fit(rows(name, n, d, rng))
        maps.append(programs.memory_maps())
        memory.append(process.memory_info().rss)
        if len(memory) % 25 == 0:
            print(f"{name} {len(memory)}: {maps[-1]:,} maps, {memory[-1] / 1e6:,.0f} MB", file=sys.stderr, flush=True)
        if time.monotonic() - begin > seconds:
            break
    return {"estimator": name, **summary(maps, memory, early)}


def summary(maps: Sequence[int], memory: Sequence[int], early: int) -> dict[str, int]:
    """Tops of the memory maps and bytes after each shape, before and after the first release of programs."""
    released = [number for number in range(1, len(maps)) if 2 * maps[number] < maps[number - 1]]
    early = min(max([early, *released[:1]]), len(maps))
    tops = {"early_bytes": max(memory[:early]), "late_bytes": max(memory[early:], default=memory[-1])}
    return {
        "shapes": len(maps),
        "maps": max(maps),
        "early_maps": max(maps[:early]),
        "releases": len(released),
        **tops,
        "bytes": memory[-1],
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))

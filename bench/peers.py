"""The libraries beside which jaxcluster is timed: which are installed, and Lloyd's iterations in each of them.

Every Lloyd peer takes the rows, the starting centers and the number of iterations, and returns a call that does the
whole fit: what it needs before the clock starts (rows on the device, an import) it does when it is built.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Answer(NamedTuple):
    """The result of one side: a number, and its labels and its number of iterations if it has them."""

    value: float
    labels: np.ndarray | None = None
    steps: int | None = None


Call = Callable[[], Answer]

SKLEARN, INTELEX, FAISS, GMMX, TORCH = "scikit-learn", "scikit-learn-intelex", "faiss", "gmmx", "torch"
CLUSTPY, LIGHTLY = "ClustPy", "lightly"
LOOP = "PyTorch loop"
WANG, FAST_HDBSCAN = "dbscan (Wang, Gu, Shun)", "fast_hdbscan"
KMEDOIDS, CONSTRAINED = "kmedoids", "k-means-constrained"
KMODES, GOWER = "kmodes", "gower"
POT, POT_LOG, OTT = "POT", "POT, log domain", "OTT-JAX"
MODULES = {
    SKLEARN: "sklearn",
    INTELEX: "sklearnex",
    FAISS: "faiss",
    GMMX: "gmmx",
    WANG: "dbscan",
    FAST_HDBSCAN: "fast_hdbscan",
    KMEDOIDS: "kmedoids",
    CONSTRAINED: "k_means_constrained",
    KMODES: "kmodes",
    GOWER: "gower",
    POT: "ot",
    POT_LOG: "ot",
    OTT: "ott",
    CLUSTPY: "clustpy",
    TORCH: "torch",
    LOOP: "torch",
    LIGHTLY: "lightly",
}


def installed(platform: str, *, cpu_peers: bool = True) -> dict[str, str]:
    """Version of each peer that is installed and belongs on the platform."""
    names = _wanted(platform, cpu_peers)
    return {name: _version(MODULES[name]) for name in names if importlib.util.find_spec(MODULES[name])}


def missing(platform: str, *, cpu_peers: bool = True) -> list[str]:
    """The peers that belong on the platform and are not installed."""
    found = installed(platform, cpu_peers=cpu_peers)
    return [name for name in _wanted(platform, cpu_peers) if name not in found]


def _wanted(platform: str, cpu_peers: bool) -> list[str]:
    """Torch's Lloyd is for accelerators, what can run on either for wherever JAX runs, the others for processors."""
    on_accelerator = platform != "cpu"
    everywhere = dict.fromkeys((GMMX, OTT, CLUSTPY, LOOP, LIGHTLY), on_accelerator or cpu_peers)
    belongs = {TORCH: on_accelerator, **everywhere}
    return [name for name in MODULES if belongs.get(name, cpu_peers)]


def _version(module: str) -> str:
    distributions = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(distributions[0]) if distributions else "unknown"


def estimator(name: str) -> type:
    """The KMeans class of scikit-learn or of its Intel build."""
    return importlib.import_module(f"{MODULES[name]}.cluster").KMeans


def sklearn_lloyd(x: np.ndarray, start: np.ndarray, steps: int, *, name: str = SKLEARN) -> Call:
    """Lloyd in scikit-learn, or in its Intel build."""
    kmeans_class = estimator(name)

    def call() -> Answer:
        fit = kmeans_class(len(start), init=start, n_init=1, max_iter=steps, tol=0, algorithm="lloyd").fit(x)
        return Answer(float(fit.inertia_), fit.labels_, int(fit.n_iter_))

    return call


def intelex_lloyd(x: np.ndarray, start: np.ndarray, steps: int) -> Call:
    """Lloyd in scikit-learn's Intel build."""
    return sklearn_lloyd(x, start, steps, name=INTELEX)


def faiss_lloyd(x: np.ndarray, start: np.ndarray, steps: int) -> Call:
    """Lloyd in FAISS on all the rows, then the labels and the inertia of its last centers."""
    faiss = importlib.import_module("faiss")

    def call() -> Answer:
        fit = faiss.Kmeans(x.shape[1], len(start), niter=steps, max_points_per_centroid=len(x))
        fit.train(x, init_centroids=start)
        squared, labels = fit.index.search(x, 1)
        return Answer(float(squared.sum(dtype=np.float64)), labels[:, 0], steps)

    return call


def torch_lloyd(x: np.ndarray, start: np.ndarray, steps: int) -> Call:
    """Lloyd in plain PyTorch on the accelerator: one product a tile of rows, argmin, scattered sums; float32."""
    torch = importlib.import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("highest")
    samples, first = torch.from_numpy(x).to(device), torch.from_numpy(start).to(device)
    tile = max(1, (1 << 28) // len(start))

    def assign(centers):
        bias = 0.5 * centers.square().sum(1)
        tiles = (torch.addmm(bias, rows, centers.T, alpha=-1).argmin(1) for rows in samples.split(tile))
        return torch.cat(list(tiles))

    def update(labels, centers):
        sums = torch.zeros_like(centers).index_add_(0, labels, samples)
        counts = torch.bincount(labels, minlength=len(centers))[:, None]
        return torch.where(counts > 0, sums / counts.clamp(min=1), centers)

    def call() -> Answer:
        centers = first
        for _ in range(steps):
            centers = update(assign(centers), centers)
        labels = assign(centers)
        inertia = sum(
            (rows - centers[near]).square().sum()
            for rows, near in zip(samples.split(tile), labels.split(tile), strict=True)
        )
        return Answer(float(inertia), labels.cpu().numpy(), steps)

    return call


LLOYD = {SKLEARN: sklearn_lloyd, INTELEX: intelex_lloyd, FAISS: faiss_lloyd, TORCH: torch_lloyd}

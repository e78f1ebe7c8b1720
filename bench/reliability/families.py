"""Ctrl-C in a fit: ``python -m bench.reliability.families NAME SEED`` gets a real SIGINT twice, and prints JSON.

Both signals come in the loop: the first where the programs that end a fit are not compiled, the second where they all
are there. A fit never ends by itself before its signal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse

import jaxcluster as jc
from jaxcluster.core import chunks, signals

LONG: dict[str, Any] = {"tol": 0, "max_iter": 20_000, "random_state": 0}
STARTS: dict[str, Any] = {"n_init": 1000, "max_iter": 20_000, "random_state": 0}
EPOCHS: dict[str, Any] = {"random_state": 0, "batch_size": 256, "epochs": 100_000}
CODES: dict[str, Any] = {"hidden": (64,), "latent": 8, **EPOCHS, "pretrain_epochs": 100_000}
HEADS: dict[str, Any] = {"n_heads": 2, **EPOCHS}
SPECTRAL: dict[str, Any] = {"affinity": "nearest_neighbors", "n_neighbors": 10, "eigen_tol": 0, "random_state": 0}


PATIENCE_SECONDS = 300.0
"""Seconds in which the loop of a fit must begin."""


class Family(NamedTuple):
    """A fit that lasts longer than anyone waits.

    Attributes:
        run: rows -> a fitted estimator, or a fit with a status.
        raises: True where the documentation says KeyboardInterrupt.
        n, d: rows and their columns.
        unit: True where the documentation says that a pass or an epoch is finished first.
    """

    run: Callable[[np.ndarray], Any]
    raises: bool = False
    n: int = 20_000
    d: int = 8
    unit: bool = False


def _codes(x: np.ndarray) -> np.ndarray:
    return np.clip(np.round(x), -4, 4).astype(int) + 4


def _holes(x: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)


def _sparse(x: np.ndarray) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.where(np.abs(x) > 3, x, 0))


def _source(x: np.ndarray) -> Any:
    file = Path(tempfile.mkdtemp()) / "rows.npy"
    np.save(file, x)
    return jc.datasets.scan(file)


def _deep(make: Callable[[], Any]) -> Family:
    return Family(lambda x: make().fit(x), raises=True, n=4000, d=32, unit=True)


def _mixed(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, _codes(x)[:, :4]])


FAMILIES: dict[str, Family] = {
    "k-means": Family(lambda x: jc.KMeans(100, n_init=1000, **LONG).fit(x)),
    "k-means of sparse rows": Family(lambda x: jc.KMeans(100, n_init=1000, **LONG).fit(_sparse(x))),
    "k-means of a source": Family(lambda x: jc.KMeans(100, **LONG).fit(_source(x)), unit=True),
    "k-POD": Family(lambda x: jc.KMeans(100, missing="ignore", n_init=1000, **LONG).fit(_holes(x))),
    "mini-batch k-means": Family(
        lambda x: jc.MiniBatchKMeans(100, **(STARTS | {"n_init": 1}), max_no_improvement=None).fit(x)
    ),
    "bisecting k-means": Family(lambda x: jc.BisectingKMeans(200, **STARTS).fit(x)),
    "balanced k-means": Family(lambda x: jc.BalancedKMeans(20, **STARTS).fit(x), n=3000),
    "constrained k-means": Family(
        lambda x: jc.ConstrainedKMeans(20, **STARTS).fit(x, must_link=[(0, 1), (2, 3)]), n=3000
    ),
    "k-medoids": Family(lambda x: jc.KMedoids(100, init="random", **STARTS).fit(x), n=3000),
    "CLARA": Family(lambda x: jc.KMedoids(20, method="clara", **STARTS).fit(x)),
    "k-modes": Family(lambda x: jc.KModes(100, init="random", **STARTS).fit(_codes(x))),
    "k-prototypes": Family(
        lambda x: jc.KPrototypes(50, categorical=[8, 9, 10, 11], init="random", **STARTS).fit(_mixed(x))
    ),
    "mixture": Family(lambda x: jc.GaussianMixture(20, n_init=1000, init_params="random", **LONG).fit(x)),
    "mixture of sparse rows": Family(
        lambda x: jc.GaussianMixture(20, init_params="random", covariance_type="diag", **LONG).fit(_sparse(x)),
    ),
    "mixture of a source": Family(
        lambda x: jc.GaussianMixture(20, covariance_type="diag", **LONG).fit(_source(x)), unit=True
    ),
    "Bayesian mixture": Family(
        lambda x: jc.BayesianGaussianMixture(n_components=20, init_params="random", **LONG).fit(x)
    ),
    "spectral": Family(lambda x: jc.SpectralClustering(20, assign_labels="cluster_qr", **SPECTRAL).fit(x), n=100_000),
    "spectral embedding": Family(lambda x: jc.SpectralEmbedding(20, **SPECTRAL).fit(x), n=100_000),
    "neighbor embedding": Family(
        lambda x: jc.NeighborEmbedding(init="pca", epochs=1_000_000, random_state=0).fit(x), n=5000
    ),
    "N2D": Family(lambda x: jc.N2D(5, init="pca", epochs=1_000_000, random_state=0).fit(x), n=5000),
    "soft k-means": Family(
        lambda x: jc.soft_kmeans.fit(jax.random.key(0), x, 100, variance=9.0, tol=0, max_steps=20_000)
    ),
    "annealing": Family(lambda x: jc.soft_kmeans.anneal(jax.random.key(0), x, 50, variance=0.01, rate=0.999)),
    "Sinkhorn": Family(
        lambda x: jc.sinkhorn.solve(x[:2000], x[2000:], epsilon=1e-3, tol=1e-12, max_steps=10**6), n=4000
    ),
    "barycenter": Family(
        lambda x: jc.sinkhorn.barycenter(jax.random.key(0), [x[:1500], x[1500:]], 500, epsilon=0.1, tol=0), n=3000
    ),
    "sweep": Family(
        lambda x: jc.kmeans.sweep(jax.random.key(0), x, range(50, 200), n_seeds=20, tol=0, max_steps=5000), raises=True
    ),
    "silhouette": Family(
        lambda x: [jc.metrics.silhouette_score(x, np.arange(len(x)) % 50) for _ in range(1000)], raises=True
    ),
    "DBSCAN": Family(lambda x: [jc.DBSCAN(eps=3.0).fit(x) for _ in range(1000)], raises=True),
    "HDBSCAN": Family(lambda x: [jc.HDBSCAN().fit(x) for _ in range(1000)], raises=True),
    "OPTICS": Family(lambda x: [jc.OPTICS().fit(x) for _ in range(1000)], raises=True),
    "autoencoder and k-means": _deep(lambda: jc.AutoencoderKMeans(4, **_without("epochs", CODES))),
    "denoising": _deep(lambda: jc.DenoisingAutoencoderClustering(4, **CODES)),
    "DEC": _deep(lambda: jc.DEC(4, **CODES | {"pretrain_epochs": 1, "tol": 0.0})),
    "IDEC": _deep(lambda: jc.IDEC(4, **CODES | {"pretrain_epochs": 1, "tol": 0.0})),
    "DCN": _deep(lambda: jc.DCN(4, **CODES | {"pretrain_epochs": 1})),
    "VaDE": _deep(lambda: jc.VaDE(4, **CODES | {"pretrain_epochs": 1})),
    "ClusterGAN": _deep(lambda: jc.ClusterGAN(4, hidden=(64,), **EPOCHS)),
    "DeepCluster": _deep(lambda: jc.DeepCluster(4, hidden=(64,), **EPOCHS)),
    "SwAV": _deep(lambda: jc.SwAV(4, hidden=(64,), **EPOCHS)),
    "metric embedding": _deep(lambda: jc.MetricEmbedding(4, hidden=(64,), **EPOCHS)),
    "self-supervised embedding": _deep(lambda: jc.SelfSupervisedEmbedding(4, hidden=(64,), projection=32, **EPOCHS)),
    "TEMI": _deep(lambda: jc.TEMI(4, **HEADS)),
    "SCAN": _deep(lambda: jc.SCAN(4, **HEADS)),
    "TURTLE": _deep(lambda: jc.TURTLE(4, **HEADS)),
}


def _without(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


class Answer(NamedTuple):
    """Answer to a signal: the outcome, and the seconds and those of the processor from the signal to it."""

    outcome: str
    seconds: float
    cpu_seconds: float


@contextmanager
def _asking(name: str, begun: threading.Event) -> Iterator[None]:
    """Context in which an event is set once a loop asks for signals, by a function of `jaxcluster.core.signals`."""
    original = getattr(signals, name)

    def ask() -> Any:
        begun.set()
        return original()

    setattr(signals, name, ask)
    try:
        yield
    finally:
        setattr(signals, name, original)


def press(run: Callable[[], Any], after: float, begun: threading.Event) -> Answer:
    """Call a function, send this process a SIGINT, and time the answer.

    Args:
        run: the function.
        after: seconds from the event on.
        begun: set once the loop has begun.
    """
    sent = []

    def send() -> None:
        if begun.wait(PATIENCE_SECONDS):
            time.sleep(after)
            sent.extend((time.perf_counter(), time.process_time()))
            os.kill(os.getpid(), signal.SIGINT)

    signals._last_press = -9e9  # as if the fit before had ended long ago
    threading.Thread(target=send, daemon=True).start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            outcome = _checked(run(), any("Ctrl-C ended the fit" in str(each.message) for each in caught))
        except KeyboardInterrupt:
            outcome = "raised"
    if not sent:
        return Answer("ended before the signal", 0.0, 0.0)
    clean = signals.stop_requested() is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    outcome = outcome if clean else f"{outcome}, and the handler stays"
    return Answer(outcome, time.perf_counter() - sent[0], time.process_time() - sent[1])


def _checked(fitted: Any, warned: bool) -> str:
    """``interrupted`` for a usable result that says so, or its fault in words."""
    fitted = fitted[-1] if isinstance(fitted, list) else fitted
    status = getattr(fitted, "status_", getattr(fitted, "status", None))
    if status is None or jc.Status(int(status)) is not jc.Status.INTERRUPTED:
        return f"status {status}"
    for name in ("labels_", "embedding_", "cluster_centers_", "means_"):
        values = getattr(fitted, name, None)
        if values is not None and not np.isfinite(np.asarray(values, float)).all():
            return f"{name} is not finite"
    return "interrupted" if warned else "interrupted without a warning"


def main(name: str, seed: int) -> dict[str, Any]:
    """Send two signals to the fit of a family."""
    family, moments = FAMILIES[name], random.Random(seed)
    x = np.random.default_rng(0).normal(size=(family.n, family.d)).astype(np.float32) * 3
    ask = "check_stopped" if family.raises else "interrupted"
    answers = []
    for _ in range(2):
        begun = threading.Event()
        # A source is read several times for the first centers, when there is no result yet: its steps are told of.
        steps = chunks.watching(lambda _, begun=begun: begun.set(), short=False)
        with steps if family.unit and not family.raises else _asking(ask, begun):
            answers.append(press(lambda: family.run(x), moments.uniform(0.2, 2.0), begun))
    return {"family": name, "raises": family.raises, "answers": [answer._asdict() for answer in answers]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))

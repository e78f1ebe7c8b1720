"""Ctrl-C in a long fit: the fit ends at once, and its result is the best state so far.

One process goes through the families, each a fit in chunks of one step, and gets a real signal at a chosen step.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcluster import gmm, kmeans, kmedoids, neighbor_embedding, sinkhorn, soft_kmeans
from jaxcluster.cluster import kpod
from jaxcluster.core import chunks, signals

PRESSED = """
import os, signal, sys, warnings
import jax
import numpy as np
import jaxcluster as jc
from jaxcluster.core import chunks, signals, streaming

chunks.SHORT_WORK = chunks.FIRST_WORK = chunks.CHUNK_SECONDS = 0
warnings.simplefilter("error", RuntimeWarning)
key = jax.random.key(0)
x = (np.random.default_rng(0).normal(size=(300, 3)) + np.arange(300)[:, None] % 4).astype(np.float32)
codes = np.abs(np.round(x)).astype(int)
holes = np.where(np.random.default_rng(1).random(x.shape) < 0.2, np.nan, x)
holes[:, 0] = x[:, 0]
np.save(sys.argv[1], x)
source = jc.datasets.scan(sys.argv[1])
long = {"tol": 0, "max_iter": 500, "random_state": 0}
starts = {"n_init": 2, "max_iter": 50, "random_state": 0}
compiled = []  # one entry a program that was compiled since Ctrl-C was pressed

def count(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(duration)

jax.monitoring.register_event_duration_secs_listener(count)

def press_at(calls, *names):
    # A real signal at one of the moments at which a loop asks whether Ctrl-C was pressed.
    left, originals = [calls], {name: getattr(signals, name) for name in names}

    def ask(name):
        left[0] -= 1
        if left[0] == 0:
            compiled.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return originals[name]()

    for name in names:
        setattr(signals, name, lambda name=name: ask(name))
    signals._last_press = -9.0  # as if the fit before ended long ago
    return originals

def run(fit, calls, *names):
    originals = press_at(calls, *names)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return fit(), ["Ctrl-C ended the fit" in str(each.message) for each in caught]
    finally:
        for name, original in originals.items():
            setattr(signals, name, original)
        assert signals.stop_requested() is None
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""

ENDED = (
    PRESSED
    + """
spectral = {"affinity": "nearest_neighbors", "eigen_tol": 1e-9, "random_state": 0}
models = {
    "k-means": (jc.KMeans(8, n_init=3, **long), x),
    "k-means||": (jc.KMeans(8, init="k-means||", **long), x),
    "k-means of a source": (jc.KMeans(8, **long), source),
    "mini-batch k-means": (jc.MiniBatchKMeans(4, batch_size=30, max_no_improvement=None, **starts), x),
    "bisecting k-means": (jc.BisectingKMeans(6, **starts), x),
    "balanced k-means": (jc.BalancedKMeans(4, **long), x),
    "constrained k-means": (jc.ConstrainedKMeans(4, **long), x),
    "mixture": (jc.GaussianMixture(3, n_init=2, init_params="random", covariance_type="diag", **long), x),
    "mixture of a source": (jc.GaussianMixture(3, covariance_type="diag", **long), source),
    "Bayesian mixture": (jc.BayesianGaussianMixture(n_components=3, covariance_type="diag", **long), x),
    "k-medoids": (jc.KMedoids(8, init="random", **starts), x),
    "CLARA": (jc.KMedoids(4, method="clara", **starts), x),
    "k-modes": (jc.KModes(5, init="random", **starts), codes),
    "k-POD": (jc.KMeans(8, missing="ignore", n_init=2, **long), holes),
    "N2D": (jc.N2D(3, init="pca", epochs=500, n_neighbors=5, n_init=1, random_state=0), x),
    "k-prototypes": (jc.KPrototypes(5, categorical=[3], **starts), np.column_stack([x, codes[:, 0]])),
    "spectral": (jc.SpectralClustering(3, assign_labels="cluster_qr", **spectral), np.tile(x, (2, 1))),
}
# What ends these fits is compiled before their loops: all that is left is to change the status.
ready = "k-modes", "k-prototypes", "mini-batch k-means", "mixture", "soft k-means", "online EM", "Sinkhorn"
for name, (model, rows) in models.items():
    _, messages = run(lambda: model.fit(rows), 6 if "source" not in name else 14, "interrupted")
    assert messages.count(True) == 1, (name, messages)
    assert model.status_ is jc.Status.INTERRUPTED, (name, model.status_)
    assert name not in ready or len(compiled) <= 1, (name, compiled)
    assert model.labels_.shape == (len(rows) if rows is not source else len(x),), name
    if hasattr(model, "predict"):
        assert model.predict(rows).shape == model.labels_.shape, name

clouds = [x[:100], x[100:250]]
functions = {
    "soft k-means": lambda: jc.soft_kmeans.fit(key, x, 4, variance=1.0, tol=0, max_steps=100),
    "annealing": lambda: jc.soft_kmeans.anneal(key, x, 4, variance=0.5),
    "online EM": lambda: jc.gmm.minibatch_fit(key, x, 2, covariance="diag", init="random", batch_size=30, max_epochs=9),
    "Sinkhorn": lambda: jc.sinkhorn.solve(*clouds, epsilon=0.1, tol=1e-9, max_steps=40),
    "barycenter": lambda: jc.sinkhorn.barycenter(key, clouds, 5, epsilon=0.1, tol=0),
}
for name, fit in functions.items():
    result, messages = run(fit, 6, "interrupted")
    assert messages.count(True) == 1, (name, messages)
    assert jc.Status(int(result.status)) is jc.Status.INTERRUPTED, name
    assert name not in ready or len(compiled) <= 1, (name, compiled)
    known = [not np.isnan(leaf).any() for leaf in jax.tree.leaves(jax.device_get(result))]
    assert all(known), (name, known)

# In the middle of an assignment on the host the state before it is the result.
model = jc.BalancedKMeans(4, **long)
run(lambda: model.fit(x), 20, "check_stopped")
assert model.status_ is jc.Status.INTERRUPTED and model.n_iter_ > 0
assert (np.bincount(model.labels_) == 75).all()

# Methods without a best state so far raise, and the estimator is not fitted.
unfitted = {
    "HDBSCAN": jc.HDBSCAN(),
    "DBSCAN": jc.DBSCAN(),
    "OPTICS": jc.OPTICS(),
    "k-means of a source": jc.KMeans(3),
}
works = {
    "sweep": lambda: jc.kmeans.sweep(key, x, [2, 3], n_seeds=2),
    "sweep of k-medoids": lambda: jc.kmedoids.sweep(key, x, [2, 3]),
    "silhouette": lambda: jc.metrics.silhouette_score(x, np.arange(300) % 4),
}
for name, model in unfitted.items():
    works[name] = lambda model=model, rows=source if "source" in name else x: model.fit(rows)
for name, work in works.items():
    try:
        run(work, 1 if name == "silhouette" else 2, "check_stopped", "interrupted")
    except KeyboardInterrupt:
        print(name)
assert not any(hasattr(model, "labels_") for model in unfitted.values())
"""
)


def process(program, *words):
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=300
    )


def test_every_family_answers_ctrl_c(tmp_path):
    done = process(ENDED, str(tmp_path / "rows.npy"))
    expected = ["sweep", "sweep of k-medoids", "silhouette", "HDBSCAN", "DBSCAN", "OPTICS", "k-means of a source"]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


TWICE = (
    PRESSED
    + """
def press_twice(progress):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)

try:
    with chunks.watching(press_twice):
        jc.KMeans(8, n_init=3, **long).fit(x)
except KeyboardInterrupt:
    print("left")

# Inside JAX nothing is raised: its compiler would go on in a thread without its devices, and crash.
@jax.jit
def traced(x):
    os.kill(os.getpid(), signal.SIGINT)
    print("traced")
    return x

try:
    with signals.stoppable():
        traced(x)
        print("went on")
except KeyboardInterrupt:
    print("stopped", signals.stop_requested())
"""
)


def test_two_presses_leave_and_jax_is_not_broken_into(tmp_path):
    done = process(TWICE, str(tmp_path / "rows.npy"))
    expected = ["left", "traced", "went on", "stopped None"]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


def rows(n=300, d=3):
    return (np.random.default_rng(0).normal(size=(n, d)) + np.arange(n)[:, None] % 4).astype(np.float32)


def with_holes():
    x = rows()
    x[::3, 1] = np.nan
    return x


def places():
    return neighbor_embedding.fit(jax.random.key(0), rows(), 2, n_neighbors=5, init="pca", epochs=5).embedding


# Of the shapes and options of the process above, whose programs are on the disk.
EXACT = {
    "kmeans": lambda: kmeans.fit(jax.random.key(0), rows(), 8, n_init=3, tol=0, max_steps=12),
    "gmm": lambda: gmm.fit(
        jax.random.key(0), rows(), 3, covariance="diag", init="random", n_init=2, tol=0, max_steps=12
    ),
    "kmedoids": lambda: kmedoids.fit(jax.random.key(0), rows(), 8, init="random", n_init=2, max_steps=12),
    "sinkhorn": lambda: sinkhorn.solve(rows()[:100], rows()[100:250], epsilon=0.1, max_steps=40),
    "annealing": lambda: soft_kmeans.anneal(jax.random.key(0), rows(), 4, variance=0.5, rate=0.5),
    "k-POD": lambda: kpod.fit(jax.random.key(0), with_holes(), 8, n_init=2, tol=0, max_steps=12),
    "neighbor embedding": lambda: places(),
    "sweep": lambda: kmeans.sweep(jax.random.key(0), rows(), [2, 3], n_seeds=2, max_steps=12),
}


@pytest.fixture
def chunked(monkeypatch):
    """Every fit is a long one, in chunks of one step, and no Ctrl-C was pressed a moment ago."""
    monkeypatch.setattr(signals, "_last_press", -math.inf)
    monkeypatch.setattr(chunks, "SHORT_WORK", 0)
    monkeypatch.setattr(chunks, "FIRST_WORK", 0)
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)


@pytest.mark.parametrize("name", EXACT)
def test_chunks_are_bit_by_bit_one_program(name, chunked, monkeypatch):
    in_chunks = EXACT[name]()
    monkeypatch.setattr(chunks, "SHORT_WORK", 1 << 60)
    jax.tree.map(np.testing.assert_array_equal, in_chunks, EXACT[name]())


def test_an_interrupted_fit_is_one_of_fewer_steps(chunked):
    def press(progress):
        if progress.steps == 2:
            signals.request_stop(signal.SIGINT)

    with chunks.watching(press), pytest.warns(UserWarning, match="Ctrl-C ended the fit early"):
        ended = EXACT["kmeans"]()
    assert int(ended.steps) == 2
    assert signals.stop_requested() is None


def test_a_process_with_own_handlers_is_stopped(chunked):
    previous = signal.signal(signal.SIGINT, signals.request_stop)
    try:
        with chunks.watching(lambda _: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(signals.Stopped):
            EXACT["kmeans"]()
    finally:
        signal.signal(signal.SIGINT, previous)
        signals.clear_request()

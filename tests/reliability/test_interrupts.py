"""Ctrl-C in a long fit: the fit ends at once, and its result is the best state so far."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcluster import bayesian_gmm, gmm, kmeans, kmedoids, minibatch
from jaxcluster.core import chunks, signals
from jaxcluster.types import Status

IN_A_FIT = """
import os, signal, warnings
import numpy as np
from jaxcluster import GaussianMixture, KMeans
from jaxcluster.core import chunks, signals
from jaxcluster.types import Status

x = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)
chunks.SHORT_WORK = chunks.FIRST_WORK = chunks.CHUNK_SECONDS = 0
long = {"tol": 0, "max_iter": 500, "random_state": 0}

def press_once(progress):
    if not pressed:
        pressed.append(progress.steps)
        os.kill(os.getpid(), signal.SIGINT)

warnings.simplefilter("error", RuntimeWarning)
for model in (KMeans(20, n_init=3, **long), GaussianMixture(3, init_params="random", **long)):
    pressed = []
    with warnings.catch_warnings(record=True) as caught, chunks.watching(press_once):
        warnings.simplefilter("always")
        model.fit(x)
    assert model.status_ is Status.INTERRUPTED, model
    assert ["Ctrl-C ended the fit" in str(warning.message) for warning in caught] == [True]
    assert len(model.history_) == model.n_iter_ > 0
    assert np.isfinite(model.history_).all()
    assert (model.predict(x) == model.labels_).all()
    signals._last_press = -9.0  # as if the next fit began much later

def press_twice(progress):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)

try:
    with chunks.watching(press_twice):
        KMeans(20, n_init=3, **long).fit(x)
except KeyboardInterrupt:
    print("left", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_keeps_the_best_state():
    done = subprocess.run([sys.executable, "-c", IN_A_FIT], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "left True\n"), done.stderr


def rows(n=300, d=3):
    return (np.random.default_rng(0).normal(size=(n, d)) + np.arange(n)[:, None] % 4).astype(np.float32)


def fit_kmeans(**options):
    return kmeans.fit(jax.random.key(0), rows(), 8, n_init=3, tol=0, **options)


def fit_gmm(**options):
    return gmm.fit(jax.random.key(0), rows(), 3, n_init=2, tol=0, **options)


def fit_minibatch(max_steps):
    return minibatch.fit(jax.random.key(0), rows(), 4, batch_size=30, max_epochs=0.1 * max_steps)


def fit_online_em(max_steps):
    return gmm.minibatch_fit(
        jax.random.key(0), rows(), 2, covariance="diag", init="random", batch_size=30, max_epochs=0.1 * max_steps
    )


def fit_bayesian_gmm(**options):
    return bayesian_gmm.fit(jax.random.key(0), rows(), 3, covariance="diag", init="random", tol=0, **options)


def fit_kmedoids(max_steps):
    return kmedoids.fit(jax.random.key(0), rows(), 8, init="random", n_init=2, tol=0, max_steps=max_steps)


EXACT = {"kmeans": fit_kmeans, "gmm": fit_gmm, "kmedoids": fit_kmedoids}
ENDED = {"kmeans": fit_kmeans, "gmm": fit_gmm, "minibatch": fit_minibatch}
ENDED |= {"online EM": fit_online_em, "bayesian gmm": fit_bayesian_gmm}


@pytest.fixture
def chunked(monkeypatch):
    """Every fit is a long one, in chunks of one step, and no Ctrl-C was pressed a moment ago."""
    monkeypatch.setattr(signals, "_last_press", -math.inf)
    monkeypatch.setattr(chunks, "SHORT_WORK", 0)
    monkeypatch.setattr(chunks, "FIRST_WORK", 0)
    monkeypatch.setattr(chunks, "CHUNK_SECONDS", 0.0)


@pytest.mark.parametrize("name", EXACT)
def test_chunks_are_bit_by_bit_one_program(name, chunked, monkeypatch):
    in_chunks = EXACT[name](max_steps=12)
    monkeypatch.setattr(chunks, "SHORT_WORK", 1 << 60)
    jax.tree.map(np.testing.assert_array_equal, in_chunks, EXACT[name](max_steps=12))


@pytest.mark.parametrize("name", ENDED)
def test_an_interrupted_fit_is_one_of_fewer_steps(name, chunked):
    def press(progress):
        if progress.steps == 2:
            signals.request_stop(signal.SIGINT)

    with chunks.watching(press), pytest.warns(UserWarning, match="Ctrl-C ended the fit early"):
        ended = ENDED[name](max_steps=12)
    assert Status(int(ended.status)) is Status.INTERRUPTED
    assert int(ended.steps) == 2
    assert ended.labels.shape == (len(rows()),)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ended))
    assert signals.stop_requested() is None


def test_a_process_with_own_handlers_is_stopped(chunked):
    previous = signal.signal(signal.SIGINT, signals.request_stop)
    try:
        with chunks.watching(lambda _: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(signals.Stopped):
            fit_kmeans(max_steps=12)
    finally:
        signal.signal(signal.SIGINT, previous)
        signals.clear_request()

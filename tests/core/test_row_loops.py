"""Long fits over a mesh: chunks, checkpoints that any number of devices restores, and requests to stop."""

from __future__ import annotations

import os
import signal
from functools import partial

import jax
import numpy as np
import pytest
from small_chunks import set_small_chunks

import jaxcluster as jc
from jaxcluster.checkpoint import resumable
from jaxcluster.core import chunks
from jaxcluster.types import Status

LIMITS = {"tol": 1e-9, "max_steps": 9}
FITS = {
    "kmeans": partial(jc.kmeans.fit, k=9, init="random", n_init=2, tol=0.0),
    "gmm": partial(jc.gmm.fit, k=5, init="random", covariance="diag", **LIMITS),
    "bayesian_gmm": partial(jc.bayesian_gmm.fit, k=5, init="random", covariance="diag", **LIMITS),
    "soft_kmeans": partial(jc.soft_kmeans.fit, k=6, variance=2.0, init="random", **LIMITS),
}


class Lost(Exception):
    """End of a process."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of one step, and a checkpoint after each."""
    set_small_chunks(monkeypatch)


def cut_after(calls, seen):
    def observe(progress):
        seen.append(progress.steps)
        if len(seen) == calls:
            raise Lost

    return observe


@pytest.mark.parametrize("name", FITS)
def test_other_devices_go_on(name, blobs, key, tmp_path):
    x = blobs.x[:299]
    one, two = jc.sharding.row_mesh(jax.devices()[:1]), jc.sharding.row_mesh(jax.devices()[:2])
    fit, before, after = partial(FITS[name], key), [], []
    with pytest.raises(Lost), resumable(tmp_path, every_seconds=0), chunks.watching(cut_after(4, before)):
        fit(x, mesh=two)
    with pytest.raises(ValueError, match="belongs to another configuration: data and options"), resumable(tmp_path):
        fit(x + 1, mesh=two)
    if name == "soft_kmeans":
        with pytest.raises(ValueError, match="belongs to another configuration"), resumable(tmp_path):
            fit(x, mesh=two, known=np.where(np.arange(299) == 5, 1, -1))
    with resumable(tmp_path, every_seconds=0), chunks.watching(cut_after(99, after)):
        resumed = fit(x, mesh=one)
    assert len(before) == 4
    assert before + after == list(range(1, resumed.steps + 1)) or name == "kmeans"  # which has two starts
    assert not list(tmp_path.glob("loop-*"))
    whole = fit(x)
    np.testing.assert_array_equal(resumed.labels, whole.labels)
    assert resumed.steps == whole.steps
    np.testing.assert_allclose(resumed.history, whole.history, rtol=1e-4)


def test_ctrl_c_keeps_the_best_so_far(blobs, key):
    def press(progress):
        if progress.steps == 2:
            os.kill(os.getpid(), signal.SIGINT)

    mesh = jc.sharding.row_mesh(jax.devices()[:2])
    with pytest.warns(UserWarning, match="Ctrl-C ended the fit early"), chunks.watching(press):
        fitted = FITS["kmeans"](key, blobs.x[:299], mesh=mesh)
    assert fitted.status == Status.INTERRUPTED
    assert fitted.steps == 2

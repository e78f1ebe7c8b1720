"""Long fits that are stopped, and go on in another process as if they had never been."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

import jax
import numpy as np
import pytest
from small_chunks import set_small_chunks

import jaxcluster
from jaxcluster import kmeans
from jaxcluster.checkpoint import resumable
from jaxcluster.core import chunks, signals
from jaxcluster.core.sources import ArraySource


@pytest.fixture(scope="module")
def cloud():
    return np.random.default_rng(0).random((400, 5), np.float32)


@pytest.fixture(autouse=True)
def long(monkeypatch):
    """Every fit counts as long, in chunks of a step."""
    set_small_chunks(monkeypatch)


def fit(cloud, **options):
    return kmeans.fit(jax.random.key(0), cloud, 12, init="random", tol=0, n_init=2, **options)


@pytest.fixture(scope="module")
def whole(cloud):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "SHORT_WORK", 0)
        return fit(cloud)


def stopped(cloud, folder, after):
    """A fit in a process that is asked to stop after so many chunks; its checkpoints stay."""
    seen = []

    def observe(progress):
        seen.append(progress)
        if len(seen) == after:
            signals.request_stop(signal.SIGTERM)

    try:
        with pytest.raises(signals.Stopped), chunks.watching(observe), resumable(folder):
            fit(cloud)
    finally:
        signals.clear_request()


@pytest.mark.parametrize("after", [1, 40])
def test_a_stopped_fit_goes_on(after, cloud, whole, tmp_path, monkeypatch):
    # As in a program with handlers of its own, such as the command line.
    monkeypatch.setattr(signals, "_takes_over", lambda: False)
    steps = []
    stopped(cloud, tmp_path, after)
    assert list(tmp_path.rglob("manifest.json"))
    with resumable(tmp_path), chunks.watching(lambda progress: steps.append(progress.steps)):
        resumed = fit(cloud)
    assert steps[0] > 1
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_a_stopped_fit_of_a_source_goes_on(method, cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_takes_over", lambda: False)
    options = {"covariance": "diag"} if method == "gmm" else {}
    source, function = ArraySource(cloud), getattr(jaxcluster, method).fit
    fit = partial(function, jax.random.key(0), source, 4, init=cloud[:4], tol=0, max_steps=12, **options)
    seen = []

    def observe(progress):
        seen.append(progress.steps)
        if progress.steps == 5:
            signals.request_stop(signal.SIGTERM)

    whole = fit()
    try:
        with pytest.raises(signals.Stopped), chunks.watching(observe), resumable(tmp_path):
            fit()
    finally:
        signals.clear_request()
    with resumable(tmp_path), chunks.watching(observe):
        resumed = fit()
    assert seen == list(range(1, 13))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_other_data_is_refused(cloud, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_takes_over", lambda: False)
    stopped(cloud, tmp_path, 3)
    with pytest.raises(ValueError, match="belongs to another configuration: data and options is"), resumable(tmp_path):
        fit(np.flip(cloud, axis=0).copy())
    (manifest,) = tmp_path.rglob("manifest.json")
    file = max((path for path in manifest.parent.glob("arrays/**/*") if path.is_file()), key=os.path.getsize)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256 does not match"), resumable(tmp_path):
        fit(cloud)


def test_a_full_disk_ends_no_fit(cloud, whole, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxcluster.core.checkpoint._write_arrays", full)
    with (
        resumable(tmp_path, every_seconds=0),
        pytest.warns(UserWarning, match="steps could not be written to .*: No sp"),
    ):
        again = fit(cloud)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_checkpoints_are_in_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file is no folder"), resumable(tmp_path / "file"):
        raise AssertionError


def test_a_fit_is_saved_within_a_chunk(cloud, whole, tmp_path):
    class Ended(Exception):
        """End of the process within a chunk."""

    def end(progress):
        if progress.steps == 3:
            thread = threading.Thread(target=signals.run_hooks)
            thread.start()
            thread.join()
            raise Ended

    with pytest.raises(Ended), chunks.watching(end), resumable(tmp_path):
        fit(cloud)
    assert [path.name for path in tmp_path.glob("loop-*/checkpoint-*")] == ["checkpoint-0000000003"]
    with resumable(tmp_path):
        again = fit(cloud)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)

"""Compiled programs are let go before they hold all memory maps that a process may have."""

from __future__ import annotations

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import DBSCAN, KMeans, __version__, kmeans, losses, metrics, sinkhorn
from jaxcluster.core import programs


@pytest.fixture
def crowded(monkeypatch):
    """A process that has too many maps, and is looked at in every call; gives how often its programs were let go."""
    cleared = []
    monkeypatch.setattr(programs, "MAX_MEMORY_MAPS", -1)
    monkeypatch.setattr(programs, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(programs, "COUNT_SHARE", np.inf)
    monkeypatch.setattr(programs, "_next_check", 0.0)
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    monkeypatch.setattr(programs.gc, "collect", lambda: None)  # which takes a second, in every call
    return cleared


def test_every_door_makes_room(crowded, blobs):
    for work in (
        lambda: kmeans.fit(jax.random.key(0), blobs.x, 4),
        lambda: KMeans(4, random_state=0).fit(blobs.x),
        lambda: DBSCAN(eps=3.0).fit(blobs.x),
        lambda: sinkhorn.solve_cost(np.ones((4, 4), np.float32), epsilon=1.0, max_steps=1),
        lambda: metrics.silhouette_score(np.repeat(blobs.x, 6, axis=0), np.arange(1800) % 4),
        lambda: metrics.soft_silhouette(np.abs(blobs.x[:8]), np.full((8, 2), 0.5, np.float32), metric="cosine"),
        lambda: losses.kmeans_loss(blobs.x, blobs.x[:2]),
    ):
        crowded.clear()
        work()
        assert crowded


def test_scores_on_the_host_need_no_room(crowded, blobs):
    metrics.adjusted_rand_score(blobs.y, blobs.y)
    assert not crowded


def test_nothing_is_let_go_while_something_is_traced(crowded, blobs):
    def fit(scale):
        assert kmeans.fit(jax.random.key(0), np.asarray(blobs.x), 4).labels.shape == (300,)  # concrete rows
        return scale

    jax.jit(fit)(1.0)
    assert not crowded


def test_programs_that_are_let_go_give_their_maps_back(monkeypatch):
    if not programs.MAPS_FILE.exists():
        pytest.skip("no other platform than Linux counts memory maps")
    before = programs.memory_maps()
    for n in range(8):
        jax.jit(lambda x: jnp.sort(x) @ x)(jnp.ones(100 + n))
    grown = programs.memory_maps()
    assert grown > before
    monkeypatch.setattr(programs, "MAX_MEMORY_MAPS", before)
    monkeypatch.setattr(programs, "_next_check", 0.0)
    programs.limit_programs()
    assert programs.memory_maps() < grown


def test_memory_of_dropped_programs_is_given_back(crowded, monkeypatch):
    trimmed = []
    monkeypatch.setattr(programs, "_trim_heap", lambda: trimmed.append(True))
    programs.limit_programs()
    assert trimmed == crowded == [True]


def test_another_c_library_keeps_its_memory(monkeypatch):
    monkeypatch.setattr(programs.ctypes, "CDLL", lambda _: SimpleNamespace())
    programs._trim_heap()


def test_a_look_is_taken_now_and_then(crowded, monkeypatch):
    monkeypatch.setattr(programs, "CHECK_SECONDS", 1000.0)
    for _ in range(3):
        programs.limit_programs()
    assert len(crowded) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_fork_is_warned_of_with_what_to_do_instead(blobs):
    KMeans(4, random_state=0).fit(blobs.x)
    with pytest.warns(RuntimeWarning, match="a child that computes may hang.*'spawn'.*'forkserver'.*loky"):
        child_that_ends()


def child_that_ends():
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def settings(monkeypatch):
    """Updates of JAX's configuration, in a process whose caller has set nothing."""
    updates = {}
    monkeypatch.setattr(
        programs, "jax", SimpleNamespace(config=SimpleNamespace(values={**SET_BY_NOBODY}, update=updates.__setitem__))
    )
    return updates


SET_BY_NOBODY = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True}


def test_programs_are_kept_in_the_users_cache(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs.compilation_cache, "reset_cache", lambda: None)
    programs.enable_disk_cache()
    folder = tmp_path / "jaxcluster" / __version__
    assert settings["jax_compilation_cache_dir"] == str(folder)
    assert folder.is_dir()


@pytest.mark.parametrize("given", [{"jax_compilation_cache_dir": ""}, {"jax_enable_compilation_cache": False}])
def test_what_the_caller_has_set_stays(settings, monkeypatch, tmp_path, given):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in given.items():
        programs.jax.config.values[name] = value
    programs.enable_disk_cache()
    assert not settings
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home_computes_all_the_same(settings, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(programs, "cache_folder", fail)
    programs.enable_disk_cache()
    assert not settings

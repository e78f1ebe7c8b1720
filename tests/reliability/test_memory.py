"""Memory: what a method will need is said before it is taken, and what it was asked for ends in one sentence."""

from __future__ import annotations

import importlib
import re
from inspect import isfunction

import jax
import numpy as np
import pytest

import jaxcluster as jc
from jaxcluster.core import memory

KEY = jax.random.key(0)
N, K = 1500, 40


def rows(n=N, d=3):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def plan():
    x = rows(64)
    solved = jc.sinkhorn.solve(x, x, epsilon=1.0, max_steps=2)
    return lambda: jc.sinkhorn.plan(solved, x, x)


def proba():
    state = jc.gmm.fit(KEY, rows(64), 3, max_steps=1).state
    return lambda: jc.gmm.predict_proba(state, rows(64))


ASKED = {
    "rows of a fit": lambda: lambda: jc.kmeans.fit(KEY, rows(), 3),
    "distances of all pairs": lambda: lambda: jc.kmedoids.fit(KEY, rows(), 3),
    "distances that are given": lambda: lambda: jc.kmedoids.fit(KEY, np.zeros((N, N)), 3, metric="precomputed"),
    "weights that are given": lambda: lambda: jc.spectral.fit(KEY, np.ones((N, N)), 3, affinity="precomputed"),
    "weights of a function": lambda: lambda: jc.spectral.fit(KEY, rows(), 3, affinity=lambda x, y: np.exp(x @ y.T)),
    "neighbors of a graph": lambda: lambda: jc.spectral.fit(KEY, rows(), 3, affinity="nearest_neighbors"),
    "neighbors of a map": lambda: lambda: jc.neighbor_embedding.fit(KEY, rows(), 2, n_neighbors=30),
    "neighbors of an ordering": lambda: lambda: jc.optics.fit(rows(), min_samples=60),
    "distances to centers": lambda: lambda: jc.kmeans.transform(rows(K), rows()),
    "distances to medoids": lambda: lambda: jc.kmedoids.transform(rows(K), rows()),
    "responsibilities": proba,
    "shares of centers": lambda: lambda: jc.soft_kmeans.responsibilities(rows(K), rows(), 1.0),
    "covariances": lambda: lambda: jc.gmm.fit(KEY, rows(64, 30), 3),
    "covariances of a posterior": lambda: lambda: jc.bayesian_gmm.fit(KEY, rows(64, 30), 3),
    "costs within bounds": lambda: lambda: jc.balanced.fit(KEY, rows(), K),
    "costs under links": lambda: lambda: jc.constrained.fit(KEY, rows(), K),
    "weights of categories": lambda: lambda: jc.kmodes.fit(KEY, np.arange(2 * N).reshape(N, 2), 9),
    "a plan": plan,
    "a contingency matrix": lambda: lambda: jc.metrics.contingency_matrix(np.arange(N), np.arange(N)),
    "components": lambda: lambda: jc.preprocessing.TruncatedSVD(8).fit(rows(N, 50)),
}


@pytest.mark.parametrize("prepare", ASKED.values(), ids=ASKED)
def test_what_is_not_there_is_not_taken(prepare, monkeypatch):
    asked = prepare()
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    monkeypatch.setattr(memory, "available", lambda: memory.Available(100, "the machine"))
    with pytest.raises(MemoryError, match=r"take \d+\.\d MB, and the machine has 0\.0 MB left\. \w.*\.$"):
        asked()


def test_the_least_room_counts(monkeypatch):
    monkeypatch.setattr(memory, "_process_limits", lambda: [memory.Available(3_000_000_000, "this process")])
    monkeypatch.setattr(memory, "_control_group_limits", lambda: [memory.Available(2_000_000_000, "the container")])
    assert memory.available() <= (2_000_000_000, "the container")
    with pytest.raises(MemoryError, match=r"the distances of all pairs of 60,000 rows take 1[0-9]\.\d GB, and the"):
        jc.kmedoids.fit(KEY, np.zeros((60_000, 1), np.float32), 2)


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups_of_either_version(tmp_path, monkeypatch, version):
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
    limit, used, cached = names.get(version, ("memory.max", "memory.current", "inactive_file"))
    outer = tmp_path / "memory" if version == 1 else tmp_path
    inner = outer / "service" / "job"
    inner.mkdir(parents=True)
    for folder, most in ((inner, "max" if version == 2 else str(2**63 - 4096)), (inner.parent, "5000")):
        (folder / limit).write_text(most + "\n")
        (folder / used).write_text("3000\n")
        (folder / "memory.stat").write_text(f"anon 7\n{cached} 1000\n")
    lines = tmp_path / "cgroup"
    lines.write_text("4:memory:/service/job\n" if version == 1 else "1:name=systemd:/\n0::/service/job\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", lines)
    assert [room.free for room in memory._control_group_limits()] == [3000]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
        RuntimeError("std::bad_alloc"),
        np._core._exceptions._ArrayMemoryError((9,), float),
        MemoryError(),
    ],
)
def test_what_runs_out_is_one_sentence(error):
    assert re.fullmatch(
        r"this took more memory than there was: .* has .* left\. Pass fewer .*\.", memory.shortage_message(error)
    )


def test_other_errors_are_no_shortage():
    assert memory.shortage_message(RuntimeError("no more ink")) is None
    assert memory.shortage_message(MemoryError("the distances take 1 TB.")) == "the distances take 1 TB."


@pytest.mark.parametrize(
    "raised", [RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), MemoryError()]
)
def test_a_shortage_is_one_sentence_whoever_raises_it(raised, monkeypatch):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(jc.kmeans, "fit_framed", fail)
    with pytest.raises(MemoryError, match=r"this took more memory than there was: .* left\. Pass fewer rows"):
        jc.KMeans(3).fit(rows())


FUNCTIONAL = [name for name, module in jc._MODULES.items() if ".cluster." in module]


@pytest.mark.parametrize("name", [*FUNCTIONAL, "metrics", "losses", "model_selection"])
def test_every_public_function_says_so(name):
    module = importlib.import_module(jc._MODULES[name])
    known = getattr(module, "__all__", None) or [
        each
        for each, value in vars(module).items()
        if isfunction(value) and value.__module__ == module.__name__ and each[0] != "_"
    ]
    functions = [value for value in (getattr(module, each) for each in known) if isfunction(value)]
    assert functions
    assert all(getattr(function, memory.GUARD_ATTRIBUTE, False) for function in functions)


def test_a_guard_is_put_once_and_lets_all_else_pass():
    assert jc.balanced.predict is jc.kmeans.predict
    guarded = jc.kmeans.predict
    memory.guard_functions("jaxcluster.cluster.kmeans")
    assert jc.kmeans.predict is guarded
    with pytest.raises(ValueError, match="n_features|columns|width") as caught:
        jc.kmeans.predict(rows(3), rows(5, 7))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_score_is_not_told_to_be_a_method(monkeypatch):
    monkeypatch.setattr(jc.metrics.internal, "check_labels", None, raising=False)
    monkeypatch.setattr(np, "asarray", fail_for_memory)
    with pytest.raises(MemoryError, match=r"Pass fewer rows or columns\.$"):
        jc.metrics.silhouette_score(rows(), np.arange(N) % 3)


def fail_for_memory(*_, **__):
    raise MemoryError

"""Programs on the disk: found again without tracing, told apart by all that determines them, and never damaged."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.core import compilation
from jaxcluster.core.chunks import Step, bind
from jaxcluster.core.compilation import NotStorableError, PersistentJit
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import advance
from jaxcluster.types import Status

FITS = """
import json, jax, numpy as np
from jaxcluster.core import compilation
traced = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **options: traced.append(options["fun_name"]) if event.endswith("jaxpr_trace_duration") else None
)
import jaxcluster as jc
x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
x[100:] += 9
mixture = jc.GaussianMixture(2, random_state=0).fit(x)
kmeans = jc.KMeans(2, random_state=0).fit(x)
known = [name for name in traced if name in ("solve", "_fit", "_whole")]
print(json.dumps({"means": mixture.means_.tolist(), "labels": kmeans.labels_.tolist(), "traced": known}))
"""
"""A process that fits two models, of which one calls LAPACK, and tells which of their programs it traced."""


@pytest.fixture
def fitted(tmp_path):
    """A function that runs `FITS` in a process with a new cache of its own."""

    def run():
        done = subprocess.run(
            [sys.executable, "-c", FITS],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""},  # one device
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_second_process_traces_nothing(fitted, tmp_path):
    first, second = fitted(), fitted()
    assert first["traced"]
    assert second.pop("traced") == []
    first.pop("traced")
    assert first == second
    files = list(tmp_path.glob("jaxcluster/*"))
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    damaged = fitted()
    assert damaged.pop("traced")
    assert damaged == first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        ((1, 2), [1, 2]),
        (Status.CONVERGED, int(Status.CONVERGED)),
        (np.float32(1), np.float64(1)),
        (functools.partial(advance, tol=1), functools.partial(advance, tol=2)),
        (Step(advance, 1), (advance, 1)),
        (frozenset({"a"}), frozenset({"b"})),
    ],
)
def test_unequal_options_have_unequal_texts(one, other):
    assert compilation._text(one) != compilation._text(other)


@pytest.mark.parametrize("unknown", [lambda x: x, object(), np.zeros(2), functools.partial(lambda x: x), json.dumps])
def test_only_names_of_this_package_are_stored(unknown):
    with pytest.raises(NotStorableError):
        compilation._text(unknown)


def test_structures_have_texts():
    def text(*arguments):
        return compilation._tree_text(jax.tree.structure(arguments))

    step = bind(advance, ("options",), jnp.zeros(2))
    frame = Frame(np.zeros(2), 1, 1)
    texts = [text(step), text(frame), text(None), text(1), text({"a": 1}), text({"b": 1}), text([1]), text((1,))]
    assert len(set(texts)) == len(texts)
    assert text(step) == text(bind(advance, ("options",), jnp.ones(3)))
    assert text(step) != text(bind(advance, ("others",), jnp.zeros(2)))


def test_what_jit_alone_can_do_is_left_to_it():
    """Traced arguments, keyword arguments, static names, gradients, and another dtype under 64 bits."""

    def scaled(x, power=1, *, factor=2.0):
        return factor * x**power

    program = PersistentJit(scaled, static_argnames=("power",))
    assert float(program(3.0, power=2)) == 18
    assert float(jax.jit(program)(3.0)) == 6
    assert float(jax.grad(lambda x: program(x, power=2))(3.0)) == 12
    np.testing.assert_array_equal(jax.vmap(program)(jnp.arange(3.0)), [0, 2, 4])
    with jax.enable_x64(True):
        assert program(np.ones(2), factor=np.float64(3)).dtype == np.float64
    assert program.compile(jnp.ones(3)).shape == (3,)
    assert program.lower(jnp.ones(3)).compile() is not None


def test_the_oldest_files_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "MAX_BYTES", 25)
    for i in range(4):
        path = tmp_path / str(i)
        path.write_bytes(bytes(10))
        os.utime(path, (i, i))
    compilation._shrink(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this platform has no owners of files")
def test_a_folder_of_others_is_not_read(tmp_path, monkeypatch):
    """A program is code: who may write the file may run anything."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert compilation._folder_of(str(tmp_path), True) == tmp_path / "jaxcluster"
    (tmp_path / "jaxcluster").chmod(0o777)
    compilation._folder_of.cache_clear()
    assert compilation._folder_of(str(tmp_path), True) is None
    assert compilation._folder_of(str(tmp_path), False) is None
    assert compilation._folder_of("gs://bucket/cache", True) is None
    compilation._folder_of.cache_clear()

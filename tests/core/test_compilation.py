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

from jaxcluster.core import compilation, program_keys
from jaxcluster.core.chunks import Step, bind
from jaxcluster.core.compilation import PersistentJit
from jaxcluster.core.frame import Frame
from jaxcluster.core.iterate import advance
from jaxcluster.core.program_keys import NotStorableError
from jaxcluster.types import Status

FITS = """
import json, jax, numpy as np
from jaxcluster.core import compilation, program_keys
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

COMPARED = """
import jax, jax.numpy as jnp, numpy as np
from jaxcluster.core import compilation, program_keys, programs
from jaxcluster.core.compilation import PersistentJit
programs._initialize()
names = iter(range(100))
program_keys._name_of = lambda value: getattr(value, "name", value.__qualname__)  # those of the package are another's
def both(function, **options):
    function.name = f"function {next(names)}"
    return PersistentJit(function, **options), jax.jit(function, **options)
x = np.arange(3, dtype=np.int32)
stored, jitted = both(lambda x, k: x * k, static_argnums=1)
for k in (1, True, 1.0, 0, False, 0.0):
    assert stored(x, k).dtype == jitted(x, k).dtype, k
stored, jitted = both(lambda: jax.random.normal(jax.random.key(0)))
for seed in (0, 7, 0):
    jax.config.update("jax_random_seed_offset", seed)
    assert stored() == jitted(), seed
stored, jitted = both(lambda x: x + 2)
expected = stored(x).sharding
with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
    assert stored(x).sharding == jitted(x).sharding != expected
assert stored(x).sharding == expected
host = jax.device_put(x, jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host"))
assert compilation._shape(host) is None and compilation._shape(jnp.ones(3)) is not None
stored, jitted = both(lambda x: jax.lax.psum(x, "rows"))
for n in (2, 3):
    sums = [jax.vmap(lambda y: y + each(x), axis_name="rows")(np.ones(n)).tolist() for each in (stored, jitted)]
    assert sums[0] == sums[1] == [[1, 1 + n, 1 + 2 * n]] * n
written = []
compilation._write = lambda *_: written.append(1)
def printed(x):
    jax.debug.print("{}", x)
    return x - 5
assert PersistentJit(printed)(x).tolist() == [-5, -4, -3] and not written
"""
"""A process that compares functions with those of `jax.jit`, under options and settings that look alike."""


@pytest.fixture
def fitted(tmp_path):
    """A function that runs `FITS`, or another script, in a process with a new cache of its own."""

    def run(script=FITS):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_FLAGS": ""},  # one device
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if script is FITS else done.stdout

    return run


def test_a_second_process_traces_nothing(fitted, tmp_path):
    first, second = fitted(), fitted()
    assert first["traced"]
    assert second.pop("traced") == []
    first.pop("traced")
    assert first == second
    files = sorted(tmp_path.glob("jaxcluster/*"))
    contents = [path.read_bytes() for path in files]
    assert len(files) > 1
    files[0].write_bytes(contents[0][:-1] + b"?")
    for path, other in zip(files[1:], contents, strict=False):
        path.write_bytes(other)
    damaged = fitted()
    assert damaged.pop("traced")
    assert damaged == first


def test_programs_are_those_of_jit(fitted, tmp_path):
    fitted(COMPARED)
    assert list(tmp_path.glob("jaxcluster/*"))  # the functions took the way that was meant


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
    assert program_keys.text_of(one) != program_keys.text_of(other)


@pytest.mark.parametrize("unknown", [lambda x: x, object(), np.zeros(2), functools.partial(lambda x: x), json.dumps])
def test_only_names_of_this_package_are_stored(unknown):
    with pytest.raises(NotStorableError):
        program_keys.text_of(unknown)


def test_structures_have_texts():
    def text(*arguments):
        return program_keys.tree_text(jax.tree.structure(arguments))

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
    assert float(program(3.0, power=2)) == float(program(3.0, 2)) == 18
    assert float(PersistentJit(scaled, static_argnums=1)(3.0, power=2)) == 18
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


def test_files_of_the_caller_stay(tmp_path, monkeypatch):
    """JAX's folder may be one that the caller has chosen, with whatever else is in it."""
    monkeypatch.setattr(compilation, "MAX_BYTES", 25)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, others = compilation.cache_folder(), tmp_path / "others"
    for folder in (own, others):
        (folder / "jaxcluster").mkdir(parents=True)
        for i in range(4):
            (folder / str(i)).write_bytes(bytes(10))
            (folder / "jaxcluster" / str(i)).write_bytes(bytes(10))
        compilation._limit_size(folder / "jaxcluster")

    def count(folder):
        return sum(path.is_file() for path in folder.iterdir())

    assert (count(own), count(own / "jaxcluster")) == (2, 2)
    assert (count(others), count(others / "jaxcluster")) == (4, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no pipes")
def test_only_plain_files_of_the_user_are_read(tmp_path, monkeypatch):
    """A pipe would be waited for, and a file that others may write to is code of theirs."""
    path = tmp_path / "program"
    path.write_bytes(b"content")
    assert compilation._content(path) == b"content"
    path.chmod(0o666)
    assert compilation._content(path) == b""
    path.chmod(0o600)
    monkeypatch.setattr(compilation, "MAX_BYTES", 6)
    assert compilation._content(path) == b""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "missing", "."):
        assert compilation._content(tmp_path / name) == b""


def test_programs_may_be_dropped_meanwhile(tmp_path, monkeypatch):
    """A thread drops all programs while another has just compiled one."""
    program = PersistentJit(jnp.negative)
    found = compilation._Program(lambda x: "found", None)
    monkeypatch.setattr(compilation, "_folder", lambda: tmp_path)

    class Cleared(dict):
        def __setitem__(self, key, value):
            """Nothing: the entry is dropped at once."""

    monkeypatch.setattr(program, "_loaded", Cleared())
    monkeypatch.setattr(PersistentJit, "_find", lambda *_: found)
    assert program(np.ones(2)) == "found"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this platform has no owners of files")
def test_a_folder_of_others_is_not_read(tmp_path):
    """A program is code: who may write the file may run anything."""
    assert compilation._folder_of(str(tmp_path), True) == tmp_path / "jaxcluster"
    (tmp_path / "jaxcluster").chmod(0o777)
    compilation._folder_of.cache_clear()
    assert compilation._folder_of(str(tmp_path), True) is None
    assert compilation._folder_of(str(tmp_path), False) is None
    assert compilation._folder_of("gs://bucket/cache", True) is None
    compilation._folder_of.cache_clear()

"""Setup of all tests: two host devices, checked signatures, fixed data, and a count of compilations."""

from __future__ import annotations

import ast
import atexit
import gc
import os
import shutil
import signal
import tempfile
import threading
from importlib.metadata import version

# Read when JAX, matplotlib and the OpenMP libraries are first imported, so before everything else.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
HOST_DEVICES = 2
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

# A shell lets what it starts in the background ignore Ctrl-C, and its children too; tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nearly all of the time of the tests is XLA's compiler, and most of that is polish that tests do not need: without it
# a mixture compiles in a fifth of the time. What the caller asks for comes last and wins, so the programs that users
# get are tested by XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true
# --xla_disable_hlo_passes=". The two passes take a quarter of the time of a program with many loops.
FLAGS = [
    f"--xla_force_host_platform_device_count={HOST_DEVICES}",
    "--xla_backend_optimization_level=0",
    "--xla_disable_hlo_passes=while-loop-invariant-code-motion,simplify-while-loops",
    "--xla_cpu_parallel_codegen_split_count=2",
]
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# The workers of pytest-xdist and the notebooks inherit what the process that starts them sets: one of them loads what
# another has compiled.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"  # the bench, which tests import, would switch it off
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # a twentieth of the time went into lines that nobody reads
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxcluster-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from jaxtyping import _import_hook, install_import_hook

make_checked = _import_hook.JaxtypingTransformer.visit_FunctionDef


def check_annotated(self: object, node: ast.FunctionDef) -> ast.AST:
    """Let the hook change functions with annotations alone.

    A third of the functions have none: nothing is checked for them, at each call and each definition of an inner one.
    """
    arguments = [each for each in ast.walk(node.args) if isinstance(each, ast.arg)]
    if node.returns is None and all(each.annotation is None for each in arguments):
        return self.generic_visit(node)
    return make_checked(self, node)


_import_hook.JaxtypingTransformer.visit_FunctionDef = check_annotated

# Before any module of the package is imported: from here on its annotations, shapes included, are checked at every
# call. An int is a float, as type checkers have it.
install_import_hook("jaxcluster", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from jax._src.interpreters import mlir

from jaxcluster.core import programs
from jaxcluster.core.compilation import clear_programs

settings.register_profile(
    "jaxcluster",
    deadline=None,  # the first example compiles
    derandomize=True,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("jaxcluster")

MEMORY_MAPS = 20_000
"""Maps from which the compiled programs are let go: each holds dozens of them, and Linux gives a process 65,530."""

programs.MAX_MEMORY_MAPS = 2 * MEMORY_MAPS  # tests count compilations: programs go between two files, not within one

gc.set_threshold(200_000, 20, 50)  # tracing makes many objects and few cycles: looking for them took 8% of the time

PROGRAMS_OF_A_CONTEXT = 100
"""Programs that one MLIR context holds in the tests."""


make_context = getattr(mlir, "make_ir_context", None)
"""The function of JAX that makes an MLIR context, which is not part of its interface."""


class Contexts(threading.local):
    """The MLIR contexts of a thread, each for many programs.

    JAX makes one for each program, with all its dialects: two thirds of the time in which it lowers a small program.
    """

    left, context = 0, None

    def __call__(self) -> object:
        if self.left == 0:
            self.context, self.left = make_context(), PROGRAMS_OF_A_CONTEXT
        self.left -= 1
        return self.context


if make_context is not None:
    mlir.make_ir_context = Contexts()

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"

collect_ignore_glob = ["conftest.py", "*/conftest.py"]
"""Files without tests or examples: as modules of the examples they would all have one name."""


class Blobs(NamedTuple):
    """Generated rows, the cluster each came from, and the centers they were drawn around."""

    x: np.ndarray
    y: np.ndarray
    centers: np.ndarray


class Compilations:
    """A count of the programs that JAX requests, compiled by XLA or loaded from the cache."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: str, duration: float, **_: object) -> None:
        self.count += event == COMPILE_EVENT


@contextmanager
def count_compiles() -> Iterator[Compilations]:
    """Counts XLA's compilations inside a with block: ``with compiles() as seen: ...; seen.count``."""
    seen = Compilations()
    jax.monitoring.register_event_duration_secs_listener(seen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(seen)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leaves out what stays for good, modules and tests, whenever objects in cycles are looked for."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between two files, lets the compiled programs go where they have become too many."""
    if nextitem is not None and item.path != nextitem.path and programs.memory_maps() > MEMORY_MAPS:
        clear_programs()
        gc.collect()


@pytest.fixture
def compiles() -> Callable[[], AbstractContextManager[Compilations]]:
    return count_compiles


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def blobs() -> Blobs:
    """300 rows in 5 columns around 4 centers, far enough apart that every method should find them."""
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0, 0, 0, 0], [9, 0, 0, 3, 0], [0, 9, 0, 0, 3], [0, 0, 9, 3, 3]], np.float32)
    y = np.repeat(np.arange(4, dtype=np.int32), 75)
    rng.shuffle(y)
    x = centers[y] + rng.normal(size=(300, 5)).astype(np.float32)
    x.flags.writeable = False
    return Blobs(x, y, centers)

"""`jax.jit` whose programs a later process finds on the disk without tracing or lowering them.

JAX's persistent compilation cache is searched by the lowered program, so each process traces and lowers again before it
finds an entry: two thirds of the time of a first fit that compiles nothing. Here an entry is found by what determines a
program: the function, this package's source, the static arguments, the shapes and dtypes of the others, JAX's settings
and version, and the processor.

>>> import jax.numpy as jnp
>>> double = persistent_jit(lambda x: 2 * x)
>>> double(jnp.ones(3)).tolist()
[2.0, 2.0, 2.0]
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import os
import pickle
import re
import stat
import threading
import weakref
from collections.abc import Callable, Hashable
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib.version
import numpy as np
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.sharding import SingleDeviceSharding

from jaxcluster import __version__
from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.program_keys import PACKAGE, NotStorableError, environment, text_of, tree_text

QUICK_NUMBERS = 1 << 16
"""Numbers in the arguments of a program up to which XLA compiles it by `QUICK_OPTIONS`: most run for less time than
they compile."""

QUICK_OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 1,
    # XLA refuses an option that its version does not know.
    **({"xla_cpu_use_fusion_emitters": False} if jaxlib.version.__version__.startswith("0.10.") else {}),
}
"""XLA's options for such a program. For 1,000 samples k-means and mixtures compile in 60 to 90 % of the time and run
up to a quarter longer; silhouettes, Sinkhorn and spectral clustering of some thousand samples run as fast. Without any
optimization they compile in a third of the time, and run two to four times as long."""

MISS_EVENT = "/jax/compilation_cache/cache_misses"
"""JAX's event of a program that it compiles and writes to its cache."""

MAX_BYTES = 1 << 29
"""Size in bytes of a folder of programs above which its oldest files are deleted: that of this module, and JAX's where
this package has chosen it."""

SETTINGS = (
    "jax_enable_x64",
    "jax_explicit_x64_dtypes",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_default_matmul_precision",
    "jax_allow_f16_reductions",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_enable_custom_prng",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_bcoo_cusparse_lowering",
    "jax_use_magma",
    "jax_compiler_enable_remat_pass",
    "jax_exec_time_optimization_effort",
    "jax_memory_fitting_effort",
    "jax_optimization_level",
    "jax_memory_fitting_level",
)
"""Settings of JAX, also those of a thread, that change a program."""

DEBUG_SETTINGS = (
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
    "jax_check_tracer_leaks",
    "jax_log_compiles",
    "jax_debug_key_reuse",
    "jax_enable_checks",
    "jax_no_tracing",
    "jax_no_execution",
    "jax_default_device",
)
"""Settings under which functions take `jax.jit`'s own way: they act while a function is traced, or on each call."""

_programs: weakref.WeakSet[PersistentJit] = weakref.WeakSet()
_programs_lock = threading.Lock()


def _known(names):
    """The settings of these names, of those that this version of JAX has."""
    return attrgetter(*(name for name in names if hasattr(jax.config, name)))


_settings_of, _debug_settings_of = _known(SETTINGS), _known(DEBUG_SETTINGS)
_cache_settings_of = attrgetter("jax_compilation_cache_dir", "jax_enable_compilation_cache")
_thread = threading.local()


def persistent_jit(function: Callable | None = None, **options: Any) -> Any:
    """`jax.jit` of a function of this package, with its programs on the disk.

    Args:
        function: defined at the top level of a module; programs of others are not stored.
        options: static_argnums and static_argnames, as in `jax.jit`.
    """
    return functools.partial(PersistentJit, **options) if function is None else PersistentJit(function, **options)


class _Program(NamedTuple):
    """A compiled program, and the shapes of its result."""

    call: Any
    shapes: Any


class PersistentJit:
    """The function that `persistent_jit` returns.

    Arguments that are traced, sharded or on several devices, settings for debugging, accelerators and jobs of several
    processes take `jax.jit`'s own way.
    """

    def __init__(
        self,
        function: Callable,
        static_argnums: int | tuple[int, ...] = (),
        static_argnames: str | tuple[str, ...] = (),
    ) -> None:
        numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
        names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
        # As in `jax.jit`: a name stands for its position, and a position for its name.
        parameters = inspect.signature(function).parameters.values()
        places = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        self._static_numbers = tuple(sorted({*numbers, *(i for i, name in enumerate(places) if name in names)}))
        self._static_names = tuple(sorted({*names, *(places[i] for i in numbers if i < len(places))}))
        # Given one of them alone, and the other empty, `jax.jit` would not infer it.
        self._jitted = jax.jit(function, static_argnums=self._static_numbers, static_argnames=self._static_names)
        self._function = function
        self._loaded: dict[Hashable, Any] = {}
        with suppress(AttributeError):  # a `functools.partial` has no name
            functools.update_wrapper(self, function)
        with _programs_lock:
            _programs.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the function."""
        traced = [each for i, each in enumerate(args) if i not in self._static_numbers]
        named = {name: each for name, each in kwargs.items() if name not in self._static_names}
        program = self._program_of(traced, named, args, kwargs)
        return self._jitted(*args, **kwargs) if program is None else program.call(*traced, **named)

    def compile(self, *args: Any) -> Any:
        """Compile the program of such arguments, or of their shapes, for a later call.

        Returns:
            The shapes of its result, which may be arguments of the next program.
        """
        program = self._program_of([each for i, each in enumerate(args) if i not in self._static_numbers], {}, args, {})
        if program is not None:
            return program.shapes
        self._jitted.lower(*args).compile()
        return self._jitted.eval_shape(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jitted, name)

    def _program_of(self, traced, named, args, kwargs):
        """The program of a call's arguments; None where it is `jax.jit`'s own."""
        folder = _folder()
        settings = None if folder is None else _settings()
        if settings is None:
            return None
        leaves, tree = jax.tree.flatten((traced, named))
        shapes = [_shape(leaf) for leaf in leaves]
        if None in shapes:
            return None
        static = [args[i] for i in self._static_numbers if i < len(args)]
        static += [(name, kwargs[name]) for name in self._static_names if name in kwargs]
        # As in `jax.jit`, 1 and True and 1.0 are three options, although they are equal.
        key = (tuple(static), tuple(map(type, static)), tree, tuple(shapes), settings)
        try:
            return self._loaded[key]
        except KeyError:
            program = self._loaded[key] = self._find(folder, key, args, kwargs)
            return program  # another thread may have cleared the programs

    def _find(self, folder, key, args, kwargs):
        """The program of the arguments, read from the disk or compiled; None where no key tells it from others."""
        try:
            static, _, tree, shapes, settings = key
            named = text_of((self._function, self._static_numbers, self._static_names, static))
            parts = [named, tree_text(tree), repr(shapes), repr(settings)]
        except NotStorableError:
            return None
        digest = hashlib.sha256("\n".join([environment(), *parts]).encode()).hexdigest()
        path = folder / digest
        program = _read(path)
        if program is None:
            traced = self._jitted.trace(*args, **kwargs)
            if traced.jaxpr.effects:  # such as a sum over an axis of an enclosing `vmap`
                return None
            lowered = traced.lower()
            with _counted_misses() as misses:
                compiled = lowered.compile(_compiler_options(shapes))
            program = _Program(compiled, self._jitted.eval_shape(*args, **kwargs))
            # XLA cannot serialize what JAX read from its own cache: only what was compiled just now is written.
            if misses:
                _write(path, program, _foreign_calls(lowered))
        return program


def _compiler_options(shapes):
    """Options of XLA: a program of few numbers is compiled quickly. Those of ``XLA_FLAGS`` stay as they are."""
    numbers = sum(math.prod(shape) for shape, *_ in shapes)
    if numbers > QUICK_NUMBERS:
        return None
    return {name: value for name, value in QUICK_OPTIONS.items() if name not in os.environ.get("XLA_FLAGS", "")}


@contextmanager
def _counted_misses():
    """List with an entry for each program that this thread compiles and JAX writes to its cache."""
    _register_listener()
    misses = _thread.misses = []
    try:
        yield misses
    finally:
        _thread.misses = None


@functools.cache
def _register_listener():
    def listen(event, **_):
        if event == MISS_EVENT and getattr(_thread, "misses", None) is not None:
            _thread.misses.append(event)

    jax.monitoring.register_event_listener(listen)


def clear_programs() -> None:
    """Drop all compiled programs of the process, JAX's and those of `persistent_jit`."""
    with _programs_lock:  # a thread that imports a module adds to them
        programs = list(_programs)
    for each in programs:
        each._loaded.clear()
    jax.clear_caches()


def _shape(leaf):
    """Shape, dtype and weak type of an argument; None for one that needs `jax.jit`'s own way."""
    if isinstance(leaf, Tracer):
        return None
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf.shape, leaf.dtype, leaf.weak_type
    if isinstance(leaf, jax.Array):
        weak = getattr(leaf, "weak_type", False)  # keys have none
        return (leaf.shape, leaf.dtype, weak) if leaf.sharding == _default_sharding() else None
    if not isinstance(leaf, (np.ndarray, np.generic, bool, int, float)):
        return None
    try:
        leaf = jax.typeof(leaf)  # float64 is float32 unless 64 bits are on
    except (TypeError, OverflowError):  # no array of JAX: `jax.jit` says so
        return None
    return leaf.shape, leaf.dtype, leaf.weak_type


@functools.cache
def _default_sharding():
    """Sharding of an array in the memory of the first device, which is that of the programs."""
    return SingleDeviceSharding(jax.devices()[0])


def _settings():
    """Values of `SETTINGS`; None where functions are traced anew, or results are laid out on a mesh."""
    if any(_debug_settings_of(jax.config)) or not jax.sharding.get_abstract_mesh().empty:
        return None
    return _settings_of(jax.config)


@functools.cache
def _folder_of(setting, enabled):
    """Folder of the programs, in JAX's own folder of compiled programs; None where there is none, or several processes.

    Only a folder of the user's is used that no other user can write to: a program is code.
    """
    # A package in an archive has no source files that tell its versions apart. On accelerators this is untested.
    if not setting or not enabled or "://" in setting or not PACKAGE.is_dir():
        return None
    if jax.default_backend() != "cpu" or jax.process_count() != 1:
        return None
    folder = Path(setting) / "jaxcluster"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    return folder if _is_own(status) and os.access(folder, os.W_OK) else None


def _folder():
    return _folder_of(*_cache_settings_of(jax.config))


def cache_folder() -> Path:
    """Folder of this version's programs in the user's cache: XDG_CACHE_HOME, or ~/.cache.

    A version has a folder of its own as `persistent_jit` cannot store a program that JAX finds in its cache.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home and Path(home).is_absolute() else Path("~").expanduser() / ".cache"
    return base / "jaxcluster" / __version__


def _limit_size(folder):
    """Make room in the folder of the programs, and in JAX's unless the caller chose it: other files may be there."""
    _shrink(folder)
    with suppress(RuntimeError):  # a user without a home
        if folder.parent == cache_folder():
            _shrink(folder.parent)


def _shrink(folder):
    """Delete the files of a folder that were written, or read by `persistent_jit`, longest ago, beyond `MAX_BYTES`."""
    with suppress(OSError):  # another process deletes, too
        entries = [(entry, entry.stat()) for entry in os.scandir(folder) if entry.is_file()]
        files = sorted((status.st_mtime, status.st_size, entry.path) for entry, status in entries)
        excess = sum(size for _, size, _ in files) - MAX_BYTES
        for _, size, path in files:
            if excess <= 0:
                break
            os.unlink(path)
            excess -= size


def _read(path):
    """The program in a file; None if there is none, or its file is damaged."""
    content = _content(path)
    digest, body = content[:32], content[32:]
    if _checksum(path, body) != digest:
        return None
    with suppress(OSError):
        os.utime(path)
    try:
        calls_lapack, shapes, (executable, in_tree, out_tree) = pickle.loads(body)
        if calls_lapack:
            _initialize_lapack()
        compiled = serialize_executable.deserialize_and_load(
            executable, in_tree, out_tree, execution_devices=jax.devices()[:1]
        )
        shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in shapes]
        return _Program(compiled, jax.tree.unflatten(out_tree, shapes))
    except Exception:  # whatever XLA raises for code that it cannot load
        return None


def _checksum(path, body):
    """Digest of a file's name and content: under another name it is another program's."""
    return hashlib.sha256(path.name.encode() + body).digest()


def _content(path):
    """Bytes of a file of the user's own, of a size that programs have; none of any other, such as a pipe."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and _is_own(status) and status.st_size <= MAX_BYTES:
                return stream.read()
    return b""


def _is_own(status):
    """True for a file or folder of the user's that no other user can write to."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _foreign_calls(lowered):
    """Names of the functions that a program calls by name, such as LAPACK's."""
    return set(re.findall(r'custom_call @"?([^\s"(]+)', lowered.as_text()))


@functools.cache
def _initialize_lapack():
    """Register LAPACK's functions, as a lowering would: a program that calls others ends the process."""
    jax.jit(jax.lax.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), np.float32))


def _write(path, program, foreign_calls):
    """Write a program to a file, unless JAX cannot serialize it or the disk is full."""
    lapack = {name for name in foreign_calls if name.startswith("lapack_")}
    if foreign_calls - lapack:  # registered by who knows whom, at what time
        return
    try:
        shapes = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(program.shapes)]
        body = pickle.dumps((bool(lapack), shapes, serialize_executable.serialize(program.call)))
    except Exception:  # a callback to the host, constants, a platform without serialization: the program runs unstored
        return
    with suppress(OSError):
        write_atomic(path, _checksum(path, body) + body, durable=False)  # the checksum tells a part from the whole
        _limit_size(path.parent)

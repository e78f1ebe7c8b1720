"""Checkpoints of any state, written atomically, and restored only if every file is unchanged.

A checkpoint is a folder: ``arrays/``, written by Orbax, and ``manifest.json``, with the progress of the run, its
configuration, and a SHA-256 of every file. Orbax restores a flipped bit without an error; the digests detect it. This
is the only file that uses Orbax.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import validation
from jaxcluster.core.atomic import replace_dir

FORMAT = "jaxcluster-checkpoint"
FORMAT_VERSION = 1
ARRAYS, MANIFEST = "arrays", "manifest.json"
NAME = re.compile(r"checkpoint-(\d{10})")


class Checkpoint(NamedTuple):
    """Restored checkpoint: a pytree of arrays, and the progress of the run as JSON values."""

    state: Any
    progress: dict[str, Any]


class Checkpoints(NamedTuple):
    """Checkpoints of a run in a folder.

    Attributes:
        folder: folder for this run only; created with the first checkpoint.
        every: epochs between checkpoints; the end of a run always has one.
        keep: number of newest checkpoints to keep.
        config: configuration of the run as JSON values; `restore` refuses a checkpoint of another one.
    """

    folder: str | os.PathLike
    every: int = 10
    keep: int = 2
    config: Mapping[str, Any] = {}

    def save(self, number: int, state: Any, progress: Mapping[str, Any]) -> Path:
        """Write a checkpoint atomically, and delete older ones beyond ``keep``.

        Args:
            number: number of the checkpoint; the largest is the newest.
            state: pytree of arrays.
            progress: further values, as in JSON.

        Returns:
            The folder of the checkpoint.
        """
        keep = validation.check_count("keep", self.keep)
        folder = Path(os.path.realpath(self.folder))
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"checkpoint-{number:010d}"
        mark = secrets.token_hex(4)
        fresh, aside = (folder / f".{place.name}.{mark}.{kind}" for kind in ("new", "old"))
        fresh.mkdir()
        try:
            arrays = _named(state)
            _write_arrays(fresh / ARRAYS, arrays)
            content = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "config": _as_json(self.config),
                "progress": _as_json(progress),
                "arrays": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
                "files": {str(path.relative_to(fresh)): _sha256(path.read_bytes()) for path in _files(fresh)},
            }
            (fresh / MANIFEST).write_text(_seal(content), encoding="utf-8")
            replace_dir(fresh, place, backup=aside)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)
        for old in [*self._places()[:-keep], *folder.glob(".checkpoint-*")]:  # of killed runs
            shutil.rmtree(old, ignore_errors=True)
        return place

    def any(self) -> bool:
        """True if there is a checkpoint, intact or not."""
        return bool(self._places())

    def numbers(self) -> list[int]:
        """Numbers of the checkpoints in the folder, intact or not."""
        return [int(place.name.rpartition("-")[2]) for place in self._places()]

    def restore(self, like: Any) -> Checkpoint | None:
        """Newest complete checkpoint; None without one.

        Args:
            like: pytree with the structure, shapes and dtypes of the state.

        Returns:
            `Checkpoint` with the structure of ``like``.

        Raises:
            ValueError: a changed or missing file, another configuration (the differing field is named), or arrays that
                do not fit ``like``.
        """
        places = self._places()
        if not places:
            return None
        content = _read_manifest(places[-1])
        _check_config(places[-1], content["config"], _as_json(self.config))
        _check_arrays(places[-1], content["arrays"], like)
        arrays = _read_arrays(places[-1] / ARRAYS, content["arrays"])
        return Checkpoint(_unnamed(like, arrays), content["progress"])

    def within(self, name: str) -> Checkpoints:
        """Checkpoints of a part of the run, in a subfolder."""
        return self._replace(folder=Path(self.folder) / name)

    def clear(self) -> None:
        """Delete all checkpoints of the folder."""
        for place in self._places():
            shutil.rmtree(place)

    def _places(self) -> list[Path]:
        """Complete checkpoints, oldest first: a folder is renamed to that of a checkpoint once it is complete."""
        folder = Path(os.path.realpath(self.folder))  # a link to itself holds none
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []


def prepare() -> None:
    """Import Orbax, which takes a second: a process that is asked to stop has no time for it."""
    import orbax.checkpoint  # noqa: F401


def fingerprint(x: Any, rows: int = 1024) -> str:
    """Short digest of the shape, the dtype and up to ``rows`` rows of an array, to identify a data set."""
    sample = np.ascontiguousarray(x[chosen_rows(len(x), rows)])
    return _sha256(f"{x.shape}{x.dtype}".encode() + sample.tobytes())[:16]


def chosen_rows(n: int, rows: int = 1024) -> np.ndarray:
    """Up to ``rows`` evenly spaced indices of n rows."""
    return np.unique(np.linspace(0, n - 1, min(rows, n)).astype(np.int64))


def _named(state) -> dict[str, np.ndarray]:
    """Leaves by path, random keys as their words; without empty arrays, which Orbax cannot write."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    words = {jax.tree_util.keystr(path): np.asarray(_words(leaf)) for path, leaf in leaves}
    return {name: array for name, array in words.items() if array.size}


def _check_arrays(place, table, like):
    """Raise ValueError unless a manifest lists the arrays of a state: none is read, or allocated, on its word alone."""
    leaves = jax.tree_util.tree_flatten_with_path(like)[0]
    words = {jax.tree_util.keystr(path): _words(leaf) for path, leaf in leaves}
    wanted = {name: [str(leaf.dtype), list(np.shape(leaf))] for name, leaf in words.items() if np.size(leaf)}
    for name in sorted(wanted.keys() ^ table.keys()):
        where = "is not in the checkpoint" if name in wanted else "is in the checkpoint alone"
        raise ValueError(f"{place} belongs to another model or optimizer: {name} {where}.")
    for name, (dtype, shape) in wanted.items():
        if table[name] != [dtype, shape]:
            there = "".join(map(str, table[name])) if isinstance(table[name], list) else table[name]
            raise ValueError(f"{place} belongs to another model: {name} is {there} there and {dtype}{shape} here.")


def _unnamed(like, arrays):
    """Arrays by path in the structure of ``like``."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return structure.unflatten(_as_leaf(leaf, arrays.get(jax.tree_util.keystr(path))) for path, leaf in leaves)


def _as_leaf(leaf, array):
    if array is None or (not isinstance(leaf, jax.Array) and hasattr(leaf, "dtype")):
        return leaf if array is None else array
    array = jnp.array(array)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf):
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)


def _checkpointer():
    """Orbax's checkpointer for this process alone: by default those of a job wait for each other."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process-{index}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _write_arrays(place, arrays):
    try:
        with _quiet_orbax(), _checkpointer() as checkpointer:
            checkpointer.save(place, {str(i): array for i, array in enumerate(arrays.values())})
            checkpointer.wait_until_finished()
    except OSError:
        raise
    except Exception as error:  # of a full disk Orbax raises a ValueError, by the file library that it writes with
        number = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else errno.EIO
        raise OSError(number, os.strerror(number), os.fspath(place)) from error


def _read_arrays(place, table):
    with _quiet_orbax(), _checkpointer() as checkpointer:
        like = {str(i): np.empty(shape, _dtype(dtype)) for i, (dtype, shape) in enumerate(table.values())}
        arrays = checkpointer.restore(place, like)
    return {name: np.asarray(arrays[str(i)]) for i, name in enumerate(table)}


def _dtype(name):
    return jnp.dtype(name)  # with bfloat16 too


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Suppress log messages of Orbax: its errors are raised besides, and their traces fill pages."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _read_manifest(place):
    """Manifest of a checkpoint, after a check of all its files."""
    file = place / MANIFEST
    remedy = f"Delete {place} to go on from the checkpoint before it."
    if not file.is_file():
        raise ValueError(f"{file} is missing: the checkpoint was copied only in part. {remedy}")
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
        content.pop("sha256")
        kinds = all(isinstance(content[name], dict) for name in ("config", "progress", "arrays", "files"))
        kinds &= isinstance(content["format_version"], int)
        # The seal covers the text as it was written: a manifest that JSON reads the same, but is other text, was
        # edited.
        intact = _seal(content) == text and content["format"] == FORMAT and kinds
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise ValueError(f"{file} was changed since it was written: its SHA-256 does not match. {remedy}")
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{file} has format version {content['format_version']}, of a newer jaxcluster. Upgrade it.")
    for name, written in content["files"].items():
        path = place / name
        if not path.is_file():
            raise ValueError(f"{path} is missing: the checkpoint was copied only in part. {remedy}")
        if _sha256(path.read_bytes()) != written:
            raise ValueError(f"{path} was changed since it was written: its SHA-256 does not match. {remedy}")
    return content


def _check_config(place, there, here):
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"{place} belongs to another configuration: {name} is {there.get(name)!r} there and "
                f"{here.get(name)!r} here. Use the same again, or another folder for checkpoints."
            )


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _as_json(values):
    """Values after a round trip through JSON, to be compared with values that were read."""
    return json.loads(json.dumps(dict(values), allow_nan=True, default=str))


def _seal(content):
    """Text of a manifest, with the SHA-256 of its content."""
    text = json.dumps(content, indent=1)
    return json.dumps({**content, "sha256": _sha256(text.encode())}, indent=1) + "\n"


def _sha256(payload):
    return hashlib.sha256(payload).hexdigest()

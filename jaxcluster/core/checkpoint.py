"""Checkpoints: any state, written whole or not at all, and read back only if not a bit of it has changed.

A checkpoint is a folder: ``arrays/``, written by Orbax, and ``manifest.json``, which holds what else a run must
remember, the configuration that it belongs to, and a SHA-256 of every file. Orbax restores a flipped bit without
complaint; the sums find it. This is the only file that knows Orbax.
"""

from __future__ import annotations

import contextlib
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

from jaxcluster.core import check
from jaxcluster.core.files import take_place

FORMAT = "jaxcluster-checkpoint"
FORMAT_VERSION = 1
ARRAYS, MANIFEST = "arrays", "manifest.json"
NAME = re.compile(r"checkpoint-(\d{10})")


class Checkpoint(NamedTuple):
    """What was saved: a pytree of arrays, and what else a run remembers, as JSON has it."""

    state: Any
    progress: dict[str, Any]


class Checkpoints(NamedTuple):
    """Where a run keeps its checkpoints, and how many.

    Attributes:
        folder: for checkpoints of this run alone; made when the first is written.
        every: epochs from one to the next; the end of a run has one in any case.
        keep: how many of the newest stay.
        config: what the run is, as JSON has it; a checkpoint of another configuration is refused.
    """

    folder: str | os.PathLike
    every: int = 10
    keep: int = 2
    config: Mapping[str, Any] = {}

    def save(self, number: int, state: Any, progress: Mapping[str, Any]) -> Path:
        """Writes the checkpoint ``number``: beside its place first, then renamed. Older ones beyond ``keep`` go."""
        keep = check.check_count("keep", self.keep)
        folder = Path(self.folder).resolve()
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
            take_place(fresh, place, aside=aside)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)
        for old in [*self._places()[:-keep], *folder.glob(".checkpoint-*")]:  # what killed runs left behind too
            shutil.rmtree(old, ignore_errors=True)
        return place

    def any(self) -> bool:
        """Whether there is a checkpoint, be it sound or not."""
        return bool(self._places())

    def restore(self, like: Any) -> Checkpoint | None:
        """The newest whole checkpoint, in the structure of ``like``; None where there is none.

        What a killed run left half written does not count: it never got its name.

        Raises:
            ValueError: a changed or missing file, another configuration (the differing field is named), or arrays that
                do not fit ``like``.
        """
        places = self._places()
        if not places:
            return None
        content = _read_manifest(places[-1])
        _check_config(places[-1], content["config"], _as_json(self.config))
        arrays = _read_arrays(places[-1] / ARRAYS, content["arrays"])
        return Checkpoint(_unnamed(like, arrays, places[-1]), content["progress"])

    def within(self, name: str) -> Checkpoints:
        """Those of a part of the run, in a folder of its own."""
        return self._replace(folder=Path(self.folder) / name)

    def clear(self) -> None:
        """Forgets all checkpoints of the folder."""
        for place in self._places():
            shutil.rmtree(place)

    def _places(self) -> list[Path]:
        """The checkpoints, oldest first: a folder has the name of one only once it is whole."""
        folder = Path(self.folder).resolve()
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name)) if folder.is_dir() else []


def prepare() -> None:
    """Loads what writes checkpoints, which takes a second: a process that is told to stop has no time for it."""
    import orbax.checkpoint  # noqa: F401


def fingerprint(x: Any, rows: int = 1024) -> str:
    """A short digest of an array's shape, dtype and of up to ``rows`` rows spread over it, to tell data sets apart."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(rows, len(x))).astype(np.int64))
    sample = np.ascontiguousarray(x[chosen])
    return _sha256(f"{x.shape}{x.dtype}".encode() + sample.tobytes())[:16]


def _named(state) -> dict[str, np.ndarray]:
    """Leaf by path; a random key as the words that it is made of. Orbax has no empty arrays: they are left out."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    words = {jax.tree_util.keystr(path): np.asarray(_words(leaf)) for path, leaf in leaves}
    return {name: array for name, array in words.items() if array.size}


def _unnamed(like, arrays, place):
    """``arrays`` in the structure of ``like``."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    wanted = {name for name, (_, leaf) in zip(names, leaves, strict=True) if np.size(_words(leaf))}
    for name in sorted(wanted ^ set(arrays)):
        where = "is not in the checkpoint" if name in wanted else "is in the checkpoint alone"
        raise ValueError(f"{place} belongs to another model or optimizer: {name} {where}.")
    return structure.unflatten(
        _as_leaf(name, leaf, arrays.get(name), place) for name, (_, leaf) in zip(names, leaves, strict=True)
    )


def _as_leaf(name, leaf, array, place):
    like = _words(leaf)
    if array is None:
        return leaf
    if np.shape(array) != np.shape(like) or array.dtype != like.dtype:
        raise ValueError(
            f"{place} belongs to another model: {name} is {array.dtype}{list(array.shape)} there and "
            f"{like.dtype}{list(np.shape(like))} here."
        )
    if not isinstance(leaf, jax.Array) and hasattr(leaf, "dtype"):
        return array
    array = jnp.array(array)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(leaf):
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)


def _write_arrays(place, arrays):
    import orbax.checkpoint as ocp

    with _quiet_orbax(), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(place, {str(i): array for i, array in enumerate(arrays.values())})
        checkpointer.wait_until_finished()


def _read_arrays(place, table):
    import orbax.checkpoint as ocp

    with _quiet_orbax(), ocp.StandardCheckpointer() as checkpointer:
        like = {str(i): np.empty(shape, _dtype(dtype)) for i, (dtype, shape) in enumerate(table.values())}
        arrays = checkpointer.restore(place, like)
    return {name: np.asarray(arrays[str(i)]) for i, name in enumerate(table)}


def _dtype(name):
    return jnp.dtype(name)  # which knows bfloat16 too


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Without the lines that Orbax logs of its own doings; its errors are raised."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _read_manifest(place):
    """The checked manifest of a checkpoint all of whose files are as they were written."""
    file = place / MANIFEST
    remedy = f"Delete {place} to go on from the checkpoint before it."
    if not file.is_file():
        raise ValueError(f"{file} is missing: the checkpoint was copied only in part. {remedy}")
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
        content.pop("sha256")
        intact = _seal(content) == text and content["format"] == FORMAT
    except (ValueError, KeyError, AttributeError, TypeError):
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
    """What ``values`` come back as from JSON, so that what was read can be compared with what is."""
    return json.loads(json.dumps(dict(values), allow_nan=True, default=str))


def _seal(content):
    """The manifest's text, with the SHA-256 of the rest of it."""
    text = json.dumps(content, indent=1)
    return json.dumps({**content, "sha256": _sha256(text.encode())}, indent=1) + "\n"


def _sha256(payload):
    return hashlib.sha256(payload).hexdigest()

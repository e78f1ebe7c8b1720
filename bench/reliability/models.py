"""Saved models that a stranger has changed, with checksums that fit: a model, or one ValueError from ``load``."""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from bench.reliability.shapes import estimator, rows
from bench.reliability.trial import Bench, Trial
from jaxcluster.estimators import load, persistence

CHANGES = 20
"""Changed models for each repeat."""

SECONDS = 60
"""Seconds in which a model must load and label its rows."""

REMOVED = object()
"""In place of a value: the key is deleted."""

VALUES = (
    *(None, True, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**70), 1e308, 0.5, -0.0, "", "x", "auto", "scale", "$x^{$"),
    *([], [1], [[1, 2], [3]], {}, {"a": 1}, {"$array": "elsewhere"}, {"$tuple": [1, 2]}, {"$dict": {}}, REMOVED),
    *({"$status": "CONVERGED"}, "../..", "/dev/zero", "\x1b[2J"),
)
"""Values that take the place of others."""


class Hung(BaseException):
    """A model took longer than `SECONDS`."""


def hostile_models(bench: Bench, name: str) -> Iterator[Trial]:
    """Models with other fields and arrays: refused when loaded, or loaded, and then whole."""
    warnings.simplefilter("ignore")
    x = rows(name, 40, 3, np.random.default_rng(0))
    model, changed = bench.place() / "model", bench.place() / "model"
    estimator(name, 3).fit(x).save(model)
    for _ in range(CHANGES * bench.repeats):
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(model, changed)
        what = change(changed, bench.random)
        if what is not None:
            yield _tried(changed, x, f"{name}: {what}")


def change(folder: Path, rng: random.Random) -> str | None:
    """Change one or two fields or arrays of a model, and its checksums.

    Returns:
        The change in words; None where the model cannot be written.
    """
    content = json.loads((folder / "model.json").read_text())
    content.pop("sha256")
    arrays = safetensors.numpy.load((folder / "arrays.safetensors").read_bytes())
    places = [path for path in _places({name: content[name] for name in ("params", "attributes")}) if len(path) > 1]
    words = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if arrays and rng.random() < 0.45:
            name = rng.choice(sorted(arrays))
            how = rng.choice(sorted(ARRAYS))
            arrays[name] = np.ascontiguousarray(ARRAYS[how](arrays[name]))
            words.append(f"{name}: {how}")
        else:
            *path, last = rng.choice(places)
            value, at = rng.choice(VALUES), content
            try:
                for key in path:
                    at = at[key]
                if value is REMOVED:
                    del at[last]
                else:
                    at[last] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):  # the first change has removed it
                continue
            words.append(f"{[*path, last]} is {'removed' if value is REMOVED else repr(value)}")
    payload = safetensors.numpy.save(arrays)
    content["arrays"] = persistence._array_specs(arrays)
    content["files"] = {"arrays.safetensors": {"bytes": len(payload), "sha256": persistence._sha256(payload)}}
    (folder / "arrays.safetensors").write_bytes(payload)
    (folder / "model.json").write_text(persistence._to_json(persistence._with_checksum(content)))
    return "; ".join(words) or None


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 3)) if isinstance(value, list) else ()
    for key in keys:
        yield from _places(value[key], (*path, key))


def _with_nan(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    if changed.dtype.kind == "f" and changed.size:
        changed.flat[changed.size // 2] = np.nan
    return changed


ARRAYS = {
    "NaN": _with_nan,
    "float64": lambda array: array.astype(np.float64),
    "int8": lambda array: np.nan_to_num(array).astype(np.int8),
    "uint64": lambda array: np.nan_to_num(np.abs(array)).astype(np.uint64),
    "one axis": lambda array: array.reshape(-1),
    "empty": lambda array: array.reshape(-1)[:0] if array.ndim == 0 else array[:0],
    "large": lambda array: array * array.dtype.type(10**30 if array.dtype.kind == "f" else 2),
    "negative": lambda array: ~array if array.dtype.kind == "b" else np.negative(array),
    "a number": lambda array: np.zeros((), array.dtype),
    "transposed": lambda array: array.T,
    "zero": np.zeros_like,
    "short": lambda array: array if array.ndim == 0 else array[:-1],
    "wide": lambda array: array if array.ndim == 0 else np.concatenate([array, array], -1),
}
"""Changes of an array, by what it becomes."""


def _tried(folder: Path, x: np.ndarray, report: str) -> Trial:
    stage = "load"
    try:
        with _limited(SECONDS):
            try:
                model = load(folder)
            except ValueError:
                return Trial("named")
            for stage in ("predict", "transform"):
                if hasattr(model, stage):
                    getattr(model, stage)(x)
            stage = "repr"
            repr(model)
            stage = "save"
            model.save(folder)
    except Hung:
        return Trial("hung", f"{report}: {stage}")
    except Exception as error:  # every kind is what this looks for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Trial("crashed", f"{report}: {stage}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    return Trial("survived")


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def end(number: int, frame: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

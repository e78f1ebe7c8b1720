"""Checks of the parameters and the partial labels of deep estimators. All run before the first training step."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.core.messages import warn
from jaxcluster.deep.nets import as_image_shape

MAX_CHANNELS = 4
"""Largest number of channels of an image file: red, green, blue and opacity."""


def check_number(name: str, value: Any, *, zero: bool = False, below: float | None = None) -> float:
    """``value`` as a finite float > 0, or >= 0 with ``zero``, and less than ``below``."""
    number = float(validation.check_positive(name, value, zero=zero))
    if not math.isfinite(number):
        raise ValueError(f"{name}={value} must be finite.")
    if below is not None and number >= below:
        raise ValueError(f"{name}={value} must be less than {below:g}.")
    return number


def check_whole(name: str, value: Any) -> int:
    """``value`` as an int >= 0."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return 0 if is_integer and value == 0 else validation.check_count(name, value)


def check_flag(name: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False.")


def check_widths(name: str, widths: Any, *, least: int = 0) -> None:
    """Raise TypeError or ValueError unless ``widths`` is a sequence of at least ``least`` counts."""
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise TypeError(f"{name}={widths!r} must be a sequence of widths, such as (256, 256).")
    for width in widths:
        validation.check_count(f"a width in {name}", width)
    if len(widths) < least:
        raise ValueError(f"{name}={tuple(widths)} must hold {least} width{'s' if least > 1 else ''} or more.")


def check_pair(name: str, pair: Any) -> tuple[int, int]:
    """Check the numbers of large and small views.

    Returns:
        the number of large views, at least 1, and that of small ones.
    """
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"{name}={pair!r} must be two numbers: of large views and of small ones.")
    return validation.check_count(f"the number of large views in {name}", pair[0]), check_whole(
        f"the number of small views in {name}", pair[1]
    )


def check_network(name: str, network: Any) -> None:
    """Raise TypeError unless ``network`` is None or a callable module of Flax, whose attributes have hashes."""
    if network is None:
        return
    if isinstance(network, nnx.Module) and callable(network):
        # Programs are found by what is constant in a network; JAX would print all of it.
        for attribute, value in nnx.graphdef(network).attributes:
            try:
                hash(value)
            except TypeError as error:
                raise TypeError(
                    f"{name} has the attribute {attribute}, which is constant and cannot be compared ({error}). Make "
                    "it a tuple, or a flax.nnx.Variable."
                ) from error
        return
    if inspect.isclass(network):
        raise TypeError(f"{name} is the class {network.__qualname__}. Pass a network, made with its widths and rngs.")
    raise TypeError(f"{name}={network!r} of type {type(network).__qualname__} must be None or a flax.nnx.Module.")


def check_view(name: str, view: Any, otherwise: str) -> None:
    """Raise TypeError unless ``view`` can be called with a key and rows, and compared.

    Args:
        name: of the parameter.
        view: its value, a function or an object.
        otherwise: what else the parameter may be, for the message.
    """
    if not callable(view):
        raise TypeError(f"{name}={view!r} must be {otherwise}, or called with a key and rows.")
    try:
        hash(view)
    except TypeError as error:
        raise TypeError(
            f"{name} of type {type(view).__name__} cannot be compared, as JAX asks of what it compiles ({error}). "
            "Make its class a dataclass with frozen=True, and its fields tuples or numbers."
        ) from error


def output_shape(name: str, network: Callable[..., Any], d: int) -> tuple[int, ...]:
    """Evaluate a network abstractly on one row of d columns.

    Returns:
        the shape of what it makes of the row.

    Raises:
        ValueError: it raised an error, such as for another number of columns, or returns no array.
    """
    try:
        made = jax.eval_shape(network, jax.ShapeDtypeStruct((1, d), np.float32))
    except Exception as error:
        raise ValueError(
            f"the {name} cannot be used: called with rows of shape (1, {d}) it raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, jax.ShapeDtypeStruct):
        raise ValueError(f"the {name} returns a {type(made).__name__}, not one array of rows.")
    return made.shape


class TrainingRun(NamedTuple):
    """Arguments of one training, which are no parameters of its model.

    Attributes:
        callbacks: functions that are called with an `EpochReport` after every epoch.
        folder: for checkpoints and the history; None for neither.
        resume: True to continue from the newest checkpoint there.
    """

    callbacks: tuple[Callable[..., Any], ...] = ()
    folder: Path | None = None
    resume: bool = False


def training_run(callbacks: Any, checkpoint_dir: Any, resume: Any) -> TrainingRun:
    """Arguments of a training; raises TypeError for those of another type."""
    check_callbacks(callbacks)
    check_flag("resume", resume)
    if checkpoint_dir is not None and not isinstance(checkpoint_dir, (str, os.PathLike)):
        raise TypeError(f"checkpoint_dir={checkpoint_dir!r} must be None or the path of a folder.")
    return TrainingRun(tuple(callbacks or ()), None if checkpoint_dir is None else Path(checkpoint_dir), resume)


def check_callbacks(callbacks: Any) -> None:
    """Raise TypeError unless ``callbacks`` is None or a sequence of functions."""
    if callbacks is None:
        return
    if callable(callbacks) or isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks={callbacks!r} must be a list of functions that take a report, or None.")
    for each in callbacks:
        if not callable(each):
            raise TypeError(f"{each!r} in callbacks cannot be called; each takes a report.")


def check_image_shape(image_shape: Any, d: int) -> None:
    """Raise ValueError unless ``image_shape`` has d entries; warn if its channels seem to come first."""
    height, width, channels = as_image_shape(image_shape)
    if height * width * channels != d:
        raise ValueError(
            f"image_shape={tuple(image_shape)} makes {height * width * channels} values an image, but X has {d} "
            "columns."
        )
    if len(image_shape) == 3 and height <= MAX_CHANNELS < min(width, channels):
        warn(
            f"image_shape={tuple(image_shape)} is read as (height, width, channels): {height}×{width} pixels of "
            f"{channels} channels. If X holds {height} channel{'s' if height > 1 else ''} of {width}×{channels} "
            f"pixels one after the other, pass {channels_last('X', (height, width, channels))}.",
            UserWarning,
        )


def channels_last(name: str, shape: tuple[int, int, int]) -> str:
    """Advice for flat images of the shape (channels, height, width)."""
    axes = ", ".join(map(str, shape))
    flat = f"{name}.reshape(-1, {axes}).transpose(0, 2, 3, 1).reshape(len({name}), -1)"
    return f"{flat} and image_shape={(*shape[1:], shape[0])}"


def flat_images(name: str, shape: tuple[int, ...]) -> str:
    """Advice for an array of images, (n, height, width) or with channels, in place of flat samples.

    The shorter one of the first and the last axis of an image is taken for the channels.
    """
    image = shape[1:]
    flat = f"{name}.reshape(len({name}), -1), and image_shape={tuple(image)} for convolutions and views of images"
    if len(image) == 2:
        return f"Of images, pass {flat}."
    first = f"{name}.transpose(0, 2, 3, 1).reshape(len({name}), -1), and image_shape={(*image[1:], image[0])}"
    if image[0] < image[2]:
        return f"Of images whose channels come first, pass {first} for convolutions and views of images."
    if image[0] > image[2]:
        return f"Of images, pass {flat}."
    return f"Of images, pass {flat}; where channels come first, {first}."


HINT = "Pass one integer or string a row, with -1, or None among strings, where the class is not known."


class PartialLabels(NamedTuple):
    """Known classes of samples.

    Attributes:
        codes: (n_samples,) int32 index of each sample's class in ``classes``, −1 for unknown.
        classes: (n_classes,) the known classes, ascending.
    """

    codes: np.ndarray
    classes: np.ndarray


def encode_classes(y: Any, n: int) -> PartialLabels:
    """Encode ``y`` as the classes of n samples.

    Classes are integers, integral floats or booleans, with −1 for unknown; or strings, with −1, None or NaN for
    unknown. NaN among numbers is refused: −1 exists for that, and NaN tends to be an accident.

    Raises:
        ValueError: another number than one per sample; integers below −1, fractions or NaN; the string "-1".
        TypeError: other values, or integers and strings together.
    """
    given = np.asarray(y)
    if given.shape != (n,):
        raise ValueError(f"y has shape {given.shape}, but X has {n} rows. {HINT}")
    if given.dtype.kind in "OUT":
        # As objects: NumPy makes strings of all entries of a list with one string, and None would be a class "None".
        known, values = _objects(given if isinstance(y, np.ndarray) else np.asarray(y, object))
    else:
        values = _numbers(given)
        known = values != -1 if values.dtype != bool else np.ones(n, bool)
    classes, codes_of_known = np.unique(values[known], return_inverse=True)
    codes = np.full(n, -1, np.int32)
    codes[known] = codes_of_known
    return PartialLabels(codes, classes)


def _numbers(values):
    """Check numeric classes: integers of at least −1, or booleans."""
    if values.dtype.kind not in "biuf":
        raise TypeError(f"y has dtype {values.dtype}. {HINT}")
    if values.dtype.kind == "f":
        missing = int(np.isnan(values).sum())
        if missing:
            raise ValueError(f"y holds {missing} NaN. {HINT}")
        broken = values != np.floor(values)
        if broken.any() or np.isinf(values).any():
            example = values[broken][0] if broken.any() else "infinity"
            raise ValueError(f"y holds {example}, which is the number of no class. {HINT}")
        values = values.astype(np.int64)
    if values.size and values.min() < -1:
        raise ValueError(f"y holds {values.min()}: no class has a number below -1. {HINT}")
    return values


def _objects(values):
    """Split values of mixed types.

    Returns:
        a mask of the known values, and all values as strings or integers.
    """
    values = values.astype(object)
    known = np.array([not _missing(value) for value in values], bool)
    kinds = {type(value).__name__ for value in values[known]}
    if all(isinstance(value, str) for value in values[known]):
        if "-1" in values[known]:
            raise ValueError(f"y holds the string '-1', which could be a class or none. {HINT}")
        return known, np.where(known, values, "").astype(str)
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values[known]):
        return known, _numbers(np.where(known, values, -1).astype(np.int64))
    raise TypeError(f"y holds values of type {', '.join(sorted(kinds))}. {HINT}")


def _missing(value):
    absent = (
        value is None
        or type(value).__name__ == "NAType"
        or (isinstance(value, (float, np.floating)) and np.isnan(value))
    )
    return absent or (isinstance(value, (int, np.integer)) and value == -1)

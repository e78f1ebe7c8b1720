"""Saved models: a folder of ``model.json`` and ``arrays.safetensors`` with SHA-256 checksums, and no pickle.

The checksums detect accidents: flipped bits, truncated files, files of two models. They are no signature.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import scipy.sparse

import jaxcluster
from jaxcluster.core.atomic import replace_dir, short_name
from jaxcluster.estimators.registry import ESTIMATORS
from jaxcluster.estimators.saved_code import MissingCode, modules_of, trusting
from jaxcluster.estimators.serialization import Arrays, decode, encode
from jaxcluster.types import Status

FORMAT = "jaxcluster-model"
FORMAT_VERSION = 1
ATTRIBUTES_VERSION = 3
"""Version of the names and meanings of fitted attributes. 2: the frame of the fit; 3: ``epoch_history_`` in place of
``records_``, and new names of private attributes."""

TRANSFORMERS = {
    "standard-scaler": "StandardScaler",
    "min-max-scaler": "MinMaxScaler",
    "pca": "PCA",
    "truncated-svd": "TruncatedSVD",
}
"""Names of saved transformers, and their classes in `jaxcluster.preprocessing`."""

MODEL_FILE = "model.json"
ARRAYS_FILE = "arrays.safetensors"
MAX_JSON_BYTES = 1 << 30
"""Largest model.json that is read, in bytes. All large values are in the arrays file."""

MAX_ROWS = 1 << 48
"""Number of samples for parameter checks of models without labels: more than any fit has seen."""

PROBE_ROWS = 4
"""Samples on which a model with networks of the caller's is compared with the one that would be loaded."""

NUMBER_WORDS = ("auto", "scale")
"""Strings that a numeric parameter may have."""

FINITE_ARRAYS = (
    *("cluster_centers_", "means_", "weights_", "covariances_", "precisions_", "precisions_cholesky_", "variances_"),
    *(
        "prototypes_",
        "components_",
        "embedding_",
        "mean_precision_",
        "degrees_of_freedom_",
        "_published_means",
        "_means_residual",
    ),
)
"""Fitted arrays that must be finite."""

FEATURE_ARRAYS = ("means_", "components_", "_fitted_rows")
"""Fitted arrays with one column per feature."""

_DECODING_ERRORS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""Exceptions that decoding of wrong content raises."""

REQUIRED_KEYS = {
    "format",
    "format_version",
    "jaxcluster_version",
    "estimator",
    "params",
    "attributes",
    "arrays",
    "files",
}


def save(estimator: Any, path: str | os.PathLike) -> None:
    """Write a fitted estimator to the folder ``path``: beside it first, then renamed, so a model is never incomplete.

    Raises:
        TypeError: a class that is not registered, or a parameter that is not data.
        ValueError: a parameter that was set after the fit, with which the model could not be loaded.
        FileExistsError: ``path`` exists and is not a saved model.
    """
    folder = Path(os.path.realpath(path))
    name = ESTIMATORS.name_of(estimator) or _transformer_name(estimator)
    if name is None:
        known = ", ".join([*ESTIMATORS, *TRANSFORMERS])
        raise TypeError(f"{type(estimator).__qualname__} is not one of the estimators that can be saved: {known}.")
    _check_replaceable(folder)
    arrays: Arrays = {}
    params = estimator.get_params(deep=False)
    fitted = {key: value for key, value in vars(estimator).items() if key not in params}
    if name in ESTIMATORS:
        _check_params(type(estimator), params, fitted)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "attributes_version": ATTRIBUTES_VERSION,
        "jaxcluster_version": jaxcluster.__version__,
        "estimator": name,
        "params": {key: encode(key, value, arrays) for key, value in params.items()},
        "attributes": {key: encode(key, value, arrays) for key, value in fitted.items()},
        "arrays": _array_specs(arrays),
    }
    if modules := modules_of(content["params"]):
        _check_code(estimator, content, arrays, modules)
    payload = safetensors.numpy.save(arrays)
    content["files"] = {ARRAYS_FILE: {"bytes": len(payload), "sha256": _sha256(payload)}}
    _replace_folder(folder, {ARRAYS_FILE: payload, MODEL_FILE: _to_json(_with_checksum(content)).encode()})


def _class_of(name: str) -> type:
    """Class that models of a name are of."""
    return getattr(_preprocessing(), TRANSFORMERS[name]) if name in TRANSFORMERS else ESTIMATORS[name]


def _transformer_name(estimator: Any) -> str | None:
    """Name of a class of `jaxcluster.preprocessing`; None for any other, such as one of a subclass."""
    names = {getattr(_preprocessing(), class_name): name for name, class_name in TRANSFORMERS.items()}
    return names.get(type(estimator))


def _preprocessing() -> Any:
    return importlib.import_module("jaxcluster.preprocessing")  # which imports this module


def load(path: str | os.PathLike, *, trusted: Sequence[str] = ()) -> Any:
    """Load the estimator that `save` wrote to the folder ``path``; its predictions are the same to the bit.

    Only registered classes are created, and nothing in the files is executed: an untrusted folder gives a model or one
    ValueError. No more is read than the size that the file system states, and nothing outside the folder.

    Args:
        path: folder of the model.
        trusted: names of modules and packages of your own. A model with networks or views from them (``encoder=``,
            ``views=``) holds their import paths and configurations, and loading it imports them. A network has a method
            ``get_config()`` that returns what its class takes besides ``rngs``, a dict of data and networks. A view is
            a function of a module, `functools.partial` of one, or a dataclass.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file was changed, truncated, or written by a newer or much older version; one that is a link, a
            pipe or a device; parameters that no fit takes; numbers that are no model, such as centers that are not
            finite; a module that is not trusted. The message names it.
    """
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file, and a saved model is a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"no model at {folder}: it {problem}.")
    while True:
        before = os.stat(folder)
        try:
            with trusting(trusted):
                return _load(folder)
        except (ValueError, FileNotFoundError):
            # If the model was saved again meanwhile, the files that were read belong to two models: read them again.
            if os.path.samestat(before, os.stat(folder)):
                raise


def _load(folder):
    content = _read_model(folder / MODEL_FILE)
    arrays = _read_arrays(folder / ARRAYS_FILE, content)
    try:
        return _decoded(content, arrays)
    except MissingCode as error:
        raise ValueError(f"{folder / MODEL_FILE} {error}") from error.__cause__
    except _DECODING_ERRORS as error:
        raise ValueError(f"{folder / MODEL_FILE} does not describe an estimator of this version: {error}") from error


def _decoded(content, arrays):
    """The estimator that the content of ``model.json`` and its arrays describe."""
    params = {key: decode(value, arrays) for key, value in content["params"].items()}
    attributes = {key: decode(value, arrays) for key, value in content["attributes"].items()}
    return _rebuild(_class_of(content["estimator"]), params, attributes)


def _check_code(estimator, content, arrays, modules):
    """Raise ValueError unless a model with networks of the caller's can be loaded again, and computes the same.

    What their get_config() leaves out would be noticed at the next load, when the model that was fitted is gone.
    """
    refusal = "the model cannot be saved: get_config() of its networks, or the fields of its views,"
    try:
        with trusting(sorted(modules)):
            again = _decoded(content, arrays)
    except _DECODING_ERRORS as error:
        raise ValueError(f"{refusal} do not make them again: {error}") from error
    rows = np.random.default_rng(0).normal(size=(PROBE_ROWS, estimator.n_features_in_)).astype(np.float32)
    for name in ("transform", "predict_proba", "reconstruct"):
        try:
            ours = getattr(estimator, name)(rows)
        except (AttributeError, TypeError, ValueError):  # no such method, or one of tables
            continue
        if not np.array_equal(ours, getattr(again, name)(rows), equal_nan=True):
            raise ValueError(f"{refusal} make other ones: {name} gives other numbers.")


def _rebuild(cls, params, attributes):
    # Constructors do not validate, as scikit-learn requires, so the type of a default stands for that of the parameter.
    defaults = cls().get_params(deep=False)
    for name, value in params.items():
        number = isinstance(defaults.get(name), (int, float)) and isinstance(value, str)
        if number and value not in NUMBER_WORDS:
            raise ValueError(f"the parameter {name} is {value!r}, and should be a number.")
    estimator = cls(**params)
    missing = [
        name for name in estimator._required_attributes if isinstance(attributes.get(name), (type(None), str, bool))
    ]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}, by which rows are labeled.")
    if cls.__name__ not in TRANSFORMERS.values():  # which check their attributes themselves
        _check_fitted(attributes, str(getattr(cls, "__module__", "")))
        _check_params(cls, params, attributes)
    for name, value in attributes.items():
        of_class = getattr(cls, name, None) is not None  # a method; None is the class default of a fitted attribute
        if name.startswith("__") or not (name.startswith("_") or name.endswith("_")) or of_class:
            raise ValueError(f"{name!r} is not the name of a fitted attribute.")
        setattr(estimator, name, value)
    estimator._check_attributes()
    return estimator


def _check_params(cls, params, attributes):
    """Raise on parameters that contradict the fitted attributes, such as those set after the fit."""
    per_row = attributes.get("labels_", attributes.get("embedding_"))
    # partial_fit keeps only the labels of its last batch.
    n = MAX_ROWS if per_row is None or hasattr(cls, "partial_fit") else attributes.get("_n_rows", len(per_row))
    # On a copy: some estimators store values that they derive from the parameters.
    cls(**params)._check_params(n, attributes["n_features_in_"])


def _check_fitted(attributes, module):
    """Raise ValueError unless the arrays that predictions use are finite and of the right shape."""
    width, status = attributes.get("n_features_in_"), attributes.get("status_")
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise ValueError(f"n_features_in_ is {width!r}, not a number of columns.")
    if not isinstance(status, Status):
        raise ValueError(f"status_ is {status!r}, not the status of a fit.")
    labels = attributes.get("labels_")
    if "labels_" in attributes and not (
        isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    ):
        raise ValueError("labels_ are no integers, one a row.")
    # Centers of deep methods lie in the space of the codes, of another dimension than the samples.
    of_rows = set(FEATURE_ARRAYS) | ({"cluster_centers_"} if ".deep" not in module else set())
    for name, value in attributes.items():
        if value is None:
            continue
        if name in FINITE_ARRAYS or name in of_rows:
            numbers = value.data if scipy.sparse.issparse(value) else value
            if not isinstance(numbers, (np.ndarray, float)) or not _is_finite(numbers):
                raise ValueError(f"{name} holds NaN or infinity, or no numbers at all.")
        rows = 1 if name in ("cluster_centers_", "means_") else 0
        if name in of_rows and (np.ndim(value) != 2 or value.shape[1] != width or value.shape[0] < rows):
            raise ValueError(f"{name} has shape {np.shape(value)}, not one of rows of {width} columns.")
        parts = value._asdict() if name == "_frame" and hasattr(value, "_asdict") else {}
        if name in ("input_imputation_", "input_encoding_", "input_vectorizer_"):
            value.check(width)
        parts = value if name == "_weights" and isinstance(value, dict) else parts
        for part, numbers in parts.items():
            if not ((numbers is None and name != "_frame") or part == "how" or _is_finite(numbers)):
                raise ValueError(f"{part} of {name} holds NaN or infinity, or no numbers at all.")


def _is_finite(numbers):
    numbers = np.asarray(numbers)
    return numbers.dtype.kind in "iub" or (numbers.dtype.kind == "f" and bool(np.isfinite(numbers).all()))


def _read_model(file):
    """Verified content of ``model.json``."""
    # Bytes that are no UTF-8 become U+FFFD: the text then differs from what was written, and the checksum says so.
    text = _read(file, MAX_JSON_BYTES).decode("utf-8", errors="replace")
    try:
        sealed = json.loads(text)
        content = {key: value for key, value in sealed.items() if key != "sha256"}
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not a model: it was changed or truncated since it was written ({error})."
        ) from error
    if content.get("format") != FORMAT or not content.keys() >= REQUIRED_KEYS:
        raise ValueError(f"{file} is not a model of jaxcluster, or was changed: it does not hold format {FORMAT!r}.")
    try:
        # The whole text is compared, not only the checksum: JSON readers accept duplicate keys and other spacing.
        intact = _to_json(_with_checksum(content)) == text
    except (ValueError, RecursionError):  # NaN, which the file cannot hold
        intact = False
    if not intact:
        raise ValueError(f"{file} was changed since it was written: its SHA-256 does not match. Save the model again.")
    for name, current in (("format_version", FORMAT_VERSION), ("attributes_version", ATTRIBUTES_VERSION)):
        _check_version(file, content, name, current)
    known = [*ESTIMATORS, *TRANSFORMERS]
    if not isinstance(content["estimator"], str) or content["estimator"] not in known:
        raise ValueError(
            f"{file} holds the unknown estimator {content['estimator']!r}; those known are {', '.join(known)}."
        )
    kinds = dict.fromkeys(("params", "attributes", "arrays", "files"), dict)
    if any(not isinstance(content[name], kind) for name, kind in kinds.items()):
        raise ValueError(f"{file} is not a model of jaxcluster: one of {', '.join(kinds)} is no object.")
    return content


def _check_version(file, content, name, current):
    """Raise ValueError unless the file has the current version."""
    version = content.get(name, 1)
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError(f"{file} is not a model of jaxcluster, or was changed: its {name} is {version!r}.")
    if version == current:
        return
    prefix = f"{file} has {name.replace('_', ' ')} {version}, written by jaxcluster {content['jaxcluster_version']}"
    if version > current:
        raise ValueError(f"{prefix}; {jaxcluster.__version__} reads up to {current}. Upgrade jaxcluster.")
    raise ValueError(
        f"{prefix}; {jaxcluster.__version__} reads {current}, since the attributes of a fit are others now. Fit "
        "the estimator again, or load the file with the version that wrote it."
    )


def _read_arrays(file, content):
    """Verified arrays of ``content``."""
    try:
        size, digest = content["files"][ARRAYS_FILE]["bytes"], content["files"][ARRAYS_FILE]["sha256"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file.parent / MODEL_FILE} does not say what {ARRAYS_FILE} holds.") from error
    payload = _read(file, size)
    if len(payload) != size:
        raise ValueError(f"{file} is truncated or was changed: {size} bytes were written, {len(payload)} are there.")
    if _sha256(payload) != digest:
        raise ValueError(f"{file} was changed since it was written: its SHA-256 does not match. Save the model again.")
    try:
        arrays = safetensors.numpy.load(payload)
    except (safetensors.SafetensorError, *_DECODING_ERRORS) as error:
        raise ValueError(f"{file} is not a safetensors file: {error}") from error
    if _array_specs(arrays) != content["arrays"]:
        raise ValueError(f"{file} does not hold the arrays that {MODEL_FILE} lists. Were files of two models mixed?")
    return arrays


def _read(file, most):
    """Bytes of a regular file of at most ``most`` bytes."""
    try:
        # O_NOFOLLOW: no link leads out of the folder. O_NONBLOCK: a pipe without a writer does not block.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file} is missing: {file.parent} is not a saved model, or was copied only in part."
        ) from None
    except OSError as error:
        if file.is_symlink():
            raise ValueError(f"{file} is a link, and a model has its own files. Copy the file itself.") from error
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from error
    # Of the open file, not of its path, which another process may replace in between.
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ValueError(f"{file} is a folder, a pipe or a device, not a file of a saved model.")
    with open(descriptor, "rb") as stream:
        if not isinstance(most, int) or status.st_size > most:
            raise ValueError(f"{file} is larger than a model's can be, or was changed: {status.st_size:,} bytes.")
        # Not to the end: the file may grow after its size was checked.
        return stream.read(status.st_size)


def _array_specs(arrays):
    return {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in sorted(arrays.items())}


def _with_checksum(content):
    """``content`` with the SHA-256 of its JSON text."""
    return {**content, "sha256": _sha256(_to_json(content).encode())}


def _to_json(content):
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _sha256(payload):
    return hashlib.sha256(payload).hexdigest()


def _check_replaceable(folder):
    """Raise FileExistsError unless ``folder`` does not exist, is empty, or holds only a saved model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Give the path of a folder for the model.")
    names = {entry.name for entry in folder.iterdir()}
    if names and (MODEL_FILE not in names or names - {MODEL_FILE, ARRAYS_FILE}):
        others = ", ".join(sorted(names - {MODEL_FILE, ARRAYS_FILE})[:4]) or f"no {MODEL_FILE}"
        raise FileExistsError(f"{folder} is not a saved model (it has {others}) and is not replaced. Give a new path.")


def _replace_folder(folder, files):
    """Write ``files`` to a new folder and rename it; the old folder is deleted last, or restored on failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A random name: two processes that save to one path do not write to the same folder.
    mark = secrets.token_hex(4)
    fresh, old = (folder.with_name(f".{short_name(folder.name)}.{mark}.{kind}") for kind in ("new", "old"))
    fresh.mkdir()
    try:
        for name, payload in files.items():
            _write(fresh / name, payload)
        replace_dir(fresh, folder, backup=old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # exists only if the rename did not happen
    shutil.rmtree(old, ignore_errors=True)


def _write(file, payload):
    with open(file, "xb") as stream:
        stream.write(payload)
        stream.flush()
        # On the disk before the folder is renamed: after a power failure no model has a half-written file.
        os.fsync(stream.fileno())

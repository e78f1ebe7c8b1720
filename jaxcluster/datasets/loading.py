"""Load a `Dataset` or labels from a path or the name of a built-in set.

Built in are sets bundled with scikit-learn, and generated ones such as ``blobs:n=1000,k=5``.

>>> load("blobs:n=10,d=3").x.shape
(10, 3)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from jaxcluster.core.atomic import check_regular
from jaxcluster.datasets import arrays
from jaxcluster.datasets.base import (
    DataError,
    DataNotFoundError,
    Dataset,
    Format,
    as_labels,
    check_lengths,
    choose_columns,
    did_you_mean,
    exclude_column,
    listing,
    unknown_name,
)
from jaxcluster.datasets.delimited import open_csv
from jaxcluster.datasets.tables import Table, open_parquet, table_dataset, table_labels

TEXT_EXTENSIONS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
EXTENSIONS = (".npy", ".npz", *TEXT_EXTENSIONS, ".parquet")

Columns = str | int | Sequence[str | int]


def load(
    spec: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Columns | None = None,
    truth: str | int | None = None,
    leave_out: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Dataset:
    """Load a data set, with the numbers of the file unchanged: see `Dataset`.

    Args:
        spec: a path to an .npy, .npz (``file.npz:key`` chooses an array), .csv, .tsv, .parquet or idx file, or a
            built-in set: digits, iris, wine, breast_cancer, blobs, moons, circles, the last three with options, as
            ``blobs:n=1000,d=2,k=5,std=1.0,seed=0``.
        key: the array of an .npz file; optional if it holds only one besides the truth.
        columns: the columns to cluster, by name or index; a string is split at its commas. By default all, except a
            first one that numbers or names the rows.
        truth: the known classes: a column by name or index, another array of the .npz file, or another file. They are
            never features.
        leave_out: a column of something else, such as weights, that is no feature.
        header: of a text table: True if its first line holds the column names.
        delimiter: of its fields: one character, or tab, semicolon, pipe, comma or blank.
        decimal: its decimal mark, "." or ",".
        encoding: of its text. All four are detected from the first lines by default; `Dataset.notes` tells how an
            ambiguous file was read.

    Raises:
        DataError: a mistake in the request or the file; DataNotFoundError if the file does not exist.
    """
    form = Format(header, delimiter, decimal, encoding)
    if isinstance(spec, str) and is_builtin(spec):
        if truth is not None or key is not None:
            raise DataError(f"{spec} is built in and brings its own truth: leave truth and key out.")
        _check_text_table(spec, form)
        return _with_columns(builtin(spec), columns, leave_out)
    path, key = _resolve(spec, key)
    y = None
    if truth is not None and _names_file(truth):
        y, truth = load_labels(truth), None
    table = _table(path, form)
    if table is not None:
        dataset = table_dataset(table, columns=columns, truth=truth, leave_out=leave_out)
        dataset = dataset if y is None else dataset._replace(y=y)
    else:
        array, named = _read_array(path, key, truth)
        if named is not None:
            y, truth = as_labels(named, f"{path.name}: array {truth!r}"), None
        name = f"{path.name}:{key}" if key else path.name
        dataset = arrays.array_dataset(name, array, columns=columns, truth=truth, leave_out=leave_out, y=y)
    return check_lengths(dataset, path.name)


def load_labels(
    spec: str | os.PathLike,
    *,
    key: str | None = None,
    column: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> np.ndarray:
    """Load (n_samples,) labels, text or numbers, from any file that `load` reads, or the classes of a built-in set.

    Args:
        spec, key: as for `load`.
        column: of a table; by default the only one, or one called label, cluster, truth or the like.
        header, delimiter, decimal, encoding: of a text table, as for `load`.

    Raises:
        DataError: as `load`.
    """
    form = Format(header, delimiter, decimal, encoding)
    if isinstance(spec, str) and is_builtin(spec):
        _check_text_table(spec, form)
        return np.asarray(builtin(spec).y)
    path, key = _resolve(spec, key)
    table = _table(path, form)
    if table is not None:
        return table_labels(table, column)
    return as_labels(_read_array(path, key)[0], path.name)


def column_names(spec: str | os.PathLike, **form: Any) -> list[str] | None:
    """Column names of a table, read with the options of `load`; None for other files."""
    if isinstance(spec, str) and is_builtin(spec):
        return None
    table = _table(_resolve(spec, None)[0], Format(**form))
    return None if table is None else table.names


def is_text_table(spec: str | os.PathLike) -> bool:
    """True if ``spec`` is a text table, by its extension."""
    return _extension(Path(spec)) in TEXT_EXTENSIONS


def _table(path: Path, form: Format) -> Table | None:
    """The opened table, or None for a file of arrays."""
    if _extension(path) in TEXT_EXTENSIONS:
        return open_csv(path, form)
    _check_text_table(path.name, form)
    return open_parquet(path) if _extension(path) == ".parquet" else None


def _check_text_table(name: str, form: Format) -> None:
    """Raise DataError if there are options for the layout of a file that is no text table."""
    option = next((option for option, value in form._asdict().items() if value is not None), None)
    if option is not None:
        raise DataError(f"{name} is no text table, so that the {option} has no effect ({option}=). Leave it out.")


def _read_array(path: Path, key: str | None, truth: str | int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a file of arrays.

    Returns:
        The array, and the truth if that is another array of the same file.
    """
    if _extension(path) == ".npz":
        return arrays.read_npz(path, key, truth)
    return (arrays.read_npy(path) if _extension(path) == ".npy" else arrays.read_idx(path)), None


def _with_columns(dataset: Dataset, columns: Columns | None, leave_out: str | int | None) -> Dataset:
    width = dataset.x.shape[1]
    chosen = choose_columns(columns, dataset.columns, width, dataset.name)
    if leave_out is not None:
        chosen = exclude_column(leave_out, chosen, dataset.columns, width, dataset.name)
    if chosen is None:
        return dataset
    names = dataset.columns and [dataset.columns[i] for i in chosen]
    return dataset._replace(x=dataset.x[:, chosen], columns=names, image_shape=None)


def _extension(path: Path) -> str:
    """Extension in lower case; ".csv.gz" of a zipped file."""
    return ("".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix).lower()


def _names_file(truth: str | int | os.PathLike) -> TypeGuard[str | os.PathLike]:
    """True if a truth is another file: by its extension, or an idx file."""
    if isinstance(truth, (int, np.integer)):
        return False
    path = Path(_split(truth)[0])
    return _extension(path) in EXTENSIONS or (path.is_file() and arrays.is_idx(path))


def _split(spec: str | os.PathLike) -> tuple[str, str | None]:
    """Split ``file.npz:key``.

    Returns:
        Path, and key or None.
    """
    text = os.fspath(spec)
    stem, colon, key = text.rpartition(".npz:")
    # A file whose own name holds ".npz:" takes precedence.
    return (stem + ".npz", key) if colon and not Path(text).exists() else (text, None)


def _resolve(spec: str | os.PathLike, key: str | None) -> tuple[Path, str | None]:
    """Find the file that ``spec`` names.

    Returns:
        The path of an existing file of a known kind, and the key of an array.

    Raises:
        DataError: other files, or two keys.
    """
    text, inline = _split(spec)
    if inline is not None and key not in (None, inline):
        raise DataError(f"{spec} names the array {inline!r}, but key={key!r} another. Give one of them.")
    path, key = Path(text), inline or key
    if not path.exists():
        raise _not_found_error(path)
    try:
        check_regular(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if path.is_dir():
        raise DataError(f"{path} is a folder{_suggest_files(path)}. Name a file.")
    if _extension(path) not in EXTENSIONS and not arrays.is_idx(path):
        seen = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise DataError(
            f"{path.name} {seen} and is no idx file (MNIST's format); known endings: {listing(EXTENSIONS)}."
        )
    if key is not None and _extension(path) != ".npz":
        raise DataError(f"{path.name} is no .npz file, so key={key!r} has no effect. Leave it out.")
    return path, key


def _not_found_error(path: Path) -> DataError:
    text = str(path)
    if len(path.parts) == 1 and (":" in text or not path.suffix):
        names = builtin_names()
        hint = did_you_mean(text.partition(":")[0], [name.partition(":")[0] for name in names])
        return DataNotFoundError(
            f"{text!r} is neither a built-in set nor a file{_suggest_files(path.parent, text, others=False)}. "
            f"Built in are {'; '.join(names)}.{hint}"
        )
    if not path.parent.is_dir():
        return DataNotFoundError(f"{path} does not exist: there is no folder {path.parent}.")
    return DataNotFoundError(f"{path} does not exist{_suggest_files(path.parent, path.name)}.")


def _suggest_files(folder: Path, name: str | None = None, *, others: bool = True) -> str:
    """Files of the folder to suggest: those with a similar name, else readable ``others``."""
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if near := difflib.get_close_matches(name, files, n=3) if name else []:
        return f" (with a name like it: {listing(near)})"
    readable = [file for file in files if others and _extension(Path(file)) in EXTENSIONS]
    return f" (the folder holds: {listing(readable, 8)})" if readable else ""


BUNDLED = ("digits", "iris", "wine", "breast_cancer")

GENERATED: dict[str, dict[str, int | float]] = {
    "blobs": {"n": 1000, "d": 2, "k": 5, "std": 1.0, "seed": 0},
    "moons": {"n": 1000, "noise": 0.05, "seed": 0},
    "circles": {"n": 1000, "noise": 0.05, "factor": 0.5, "seed": 0},
}
"""Options of each generator and their defaults, which also give the types."""


def is_builtin(spec: str) -> bool:
    """True if ``spec`` starts with the name of a built-in set."""
    name = spec.partition(":")[0]
    return name in BUNDLED or name in GENERATED


def builtin_names() -> list[str]:
    """Every built-in set with its options and their defaults."""
    generated = (f"{name}:{','.join(f'{o}={v}' for o, v in options.items())}" for name, options in GENERATED.items())
    return [*BUNDLED, *generated]


def builtin(spec: str) -> Dataset:
    """Load a built-in set. Raises DataError for an option that is unknown or out of range."""
    name, colon, options = spec.partition(":")
    if name in GENERATED:
        return _generate(name, spec, _parse(name, options))
    if colon:
        raise DataError(f"{name} takes no options, got {options!r}. Write just {name!r}.")
    return _bundled(name)


def _bundled(name: str) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return Dataset(
        name=name,
        x=np.asarray(bunch.data, np.float64),
        y=np.asarray(bunch.target_names)[bunch.target],
        columns=[str(column) for column in bunch.feature_names],
        image_shape=bunch.images.shape[1:] if "images" in bunch else None,
    )


def _parse(name: str, text: str) -> dict[str, Any]:
    options = dict(GENERATED[name])
    for part in filter(None, (part.strip() for part in text.split(","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if option not in options:
            raise unknown_name(f"{name}: option", option, options)
        if not equals:
            raise DataError(f"{name}: option {option!r} has no value; write for example {option}={options[option]}.")
        options[option] = _number(f"{name}: {option}", value, type(options[option]))
    for option, value in options.items():
        least = 1 if option in ("n", "d", "k") else 0
        if not value >= least:
            raise DataError(f"{name}: {option}={value} must be at least {least}.")
    return options


def _number(what: str, text: str, kind: type) -> int | float:
    """``text`` as an int or a finite float; 1e6 is an integer here."""
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{what} must be a number, got {text!r}.") from None
    if not np.isfinite(value) or (kind is int and value != int(value)):
        raise DataError(f"{what} must be {'an integer' if kind is int else 'finite'}, got {text!r}.")
    return kind(value)


def _generate(name: str, spec: str, options: dict[str, Any]) -> Dataset:
    from sklearn import datasets

    n, seed = options["n"], options["seed"]
    if name == "blobs":
        shape = {"centers": options["k"], "cluster_std": options["std"], "random_state": seed}
        x, y = datasets.make_blobs(n, options["d"], **shape)[:2]
    elif name == "moons":
        x, y = datasets.make_moons(n, noise=options["noise"], random_state=seed)
    else:
        if options["factor"] >= 1:
            raise DataError(f"circles: factor={options['factor']} must be less than 1: the inner circle's radius.")
        x, y = datasets.make_circles(n, noise=options["noise"], factor=options["factor"], random_state=seed)
    return Dataset(name=spec, x=np.asarray(x), y=np.asarray(y))

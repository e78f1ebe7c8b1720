"""From what a user writes, a path or a built-in name, to a `Dataset`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcluster.core.files import check_regular
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
    listing,
    without,
)
from jaxcluster.datasets.builtin import builtin, is_builtin, usage
from jaxcluster.datasets.delimited import open_csv
from jaxcluster.datasets.parquet import open_parquet
from jaxcluster.datasets.tables import Table, table_dataset, table_labels

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ENDINGS = (".npy", ".npz", *TEXT, ".parquet")

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
    """The data set that ``spec`` names, its numbers as they are in the file: see `Dataset`.

    Args:
        spec: a path to an .npy, .npz (``file.npz:key`` chooses an array), .csv, .tsv, .parquet or idx file, or a
            built-in set: digits, iris, wine, breast_cancer, blobs, moons, circles, the last three with options, as
            ``blobs:n=1000,d=2,k=5,std=1.0,seed=0``.
        key: the array of an .npz file; not needed where it holds but one besides the truth.
        columns: the columns to cluster, by name or index; a string is split at its commas. All, without it, but for a
            first one that numbers or names the rows.
        truth: what holds the known classes: a column by name or index, another array of the .npz file, or another
            file. It is never among the rows to cluster.
        leave_out: a column that holds something else, such as weights, and is not among the rows either.
        header: of a text table, whether its first line holds the names of the columns.
        delimiter: of its fields: one character, or tab, semicolon, pipe, comma or blank.
        decimal: "." or ",", the mark before the fraction of its numbers.
        encoding: of its text. All four are found out from the first lines where they are None; what could be read in
            two ways is told in `Dataset.notes`.

    Raises:
        DataError: one line saying what was seen and what to do; a DataNotFoundError where there is no such file.
    """
    form = Format(header, delimiter, decimal, encoding)
    if isinstance(spec, str) and is_builtin(spec):
        if truth is not None or key is not None:
            raise DataError(f"{spec} is built in and brings its own truth: leave truth and key out.")
        _check_text_table(spec, form)
        return _with_columns(builtin(spec), columns, leave_out)
    path, key = _resolve(spec, key)
    y = None
    if truth is not None and _is_file(truth):
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
    """(n,) labels, text or numbers, from any file that `load` reads, or the truth of a built-in set.

    In a table of several columns the one called label, cluster, truth or the like is taken where ``column`` names none.
    Of a text table ``header``, ``delimiter``, ``decimal`` and ``encoding`` are as `load` takes them.
    """
    form = Format(header, delimiter, decimal, encoding)
    if isinstance(spec, str) and is_builtin(spec):
        _check_text_table(spec, form)
        return builtin(spec).y
    path, key = _resolve(spec, key)
    table = _table(path, form)
    if table is not None:
        return table_labels(table, column)
    return as_labels(_read_array(path, key)[0], path.name)


def column_names(spec: str | os.PathLike, **form: Any) -> list[str] | None:
    """The names of a table's columns, as `load` takes it with the same options; None for anything but a table."""
    if isinstance(spec, str) and is_builtin(spec):
        return None
    table = _table(_resolve(spec, None)[0], Format(**form))
    return None if table is None else table.names


def is_text_table(spec: str | os.PathLike) -> bool:
    """Whether ``spec`` names a file of text, by its ending."""
    return _ending(Path(spec)) in TEXT


def _table(path: Path, form: Format) -> Table | None:
    """The opened table, or None for a file of arrays."""
    if _ending(path) in TEXT:
        return open_csv(path, form)
    _check_text_table(path.name, form)
    return open_parquet(path) if _ending(path) == ".parquet" else None


def _check_text_table(name: str, form: Format) -> None:
    """Refuses a layout for what has none."""
    given = [option for option, value in form._asdict().items() if value is not None]
    if given:
        option = "header" if given[0] == "header" else given[0]
        raise DataError(f"{name} is no text table, so that the {option} chooses nothing ({option}=). Leave it out.")


def _read_array(path: Path, key: str | None, truth: str | int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The array, and the truth where that is another array of the same file."""
    if _ending(path) == ".npz":
        return arrays.read_npz(path, key, truth)
    return (arrays.read_npy(path) if _ending(path) == ".npy" else arrays.read_idx(path)), None


def _with_columns(dataset: Dataset, columns: Columns | None, leave_out: str | int | None) -> Dataset:
    width = dataset.x.shape[1]
    chosen = choose_columns(columns, dataset.columns, width, dataset.name)
    if leave_out is not None:
        chosen = without(leave_out, chosen, dataset.columns, width, dataset.name)
    if chosen is None:
        return dataset
    names = dataset.columns and [dataset.columns[i] for i in chosen]
    return dataset._replace(x=dataset.x[:, chosen], columns=names, image_shape=None)


def _ending(path: Path) -> str:
    """What the name ends in: ".csv", or ".csv.gz" where it is zipped."""
    return ("".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix).lower()


def _is_file(truth: str | int | os.PathLike) -> bool:
    """Whether a truth names another file: by its ending, or by being an idx file."""
    if isinstance(truth, (int, np.integer)):
        return False
    path = Path(_split(truth)[0])
    return _ending(path) in ENDINGS or (path.is_file() and arrays.is_idx(path))


def _split(spec: str | os.PathLike) -> tuple[str, str | None]:
    """Path and array key of ``file.npz:key``."""
    text = os.fspath(spec)
    stem, colon, key = text.rpartition(".npz:")
    return (stem + ".npz", key) if colon and not Path(text).exists() else (text, None)


def _resolve(spec: str | os.PathLike, key: str | None) -> tuple[Path, str | None]:
    """The existing file that ``spec`` names and the array key; raises where the file is missing or of no known kind."""
    text, inline = _split(spec)
    if inline is not None and key not in (None, inline):
        raise DataError(f"{spec} names the array {inline!r}, but key={key!r} another. Give one of them.")
    path, key = Path(text), inline or key
    if not path.exists():
        raise _missing(path)
    try:
        check_regular(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if path.is_dir():
        raise DataError(f"{path} is a folder{_offer(path)}. Name a file.")
    if _ending(path) not in ENDINGS and not arrays.is_idx(path):
        seen = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise DataError(f"{path.name} {seen} and is no idx file (MNIST's format); known endings: {listing(ENDINGS)}.")
    if key is not None and _ending(path) != ".npz":
        raise DataError(f"{path.name} is no .npz file, so key={key!r} chooses nothing. Leave it out.")
    return path, key


def _missing(path: Path) -> DataError:
    text = str(path)
    if len(path.parts) == 1 and (":" in text or not path.suffix):
        names = usage()
        hint = did_you_mean(text.partition(":")[0], [name.partition(":")[0] for name in names])
        return DataNotFoundError(
            f"{text!r} is neither a built-in set nor a file{_offer(path.parent, text, others=False)}. "
            f"Built in are {'; '.join(names)}.{hint}"
        )
    if not path.parent.is_dir():
        return DataNotFoundError(f"{path} does not exist: there is no folder {path.parent}.")
    return DataNotFoundError(f"{path} does not exist{_offer(path.parent, path.name)}.")


def _offer(folder: Path, name: str | None = None, *, others: bool = True) -> str:
    """Files of the folder to choose from: those with a name like it, else ``others`` that can be read."""
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if near := difflib.get_close_matches(name, files, n=3) if name else []:
        return f" (with a name like it: {listing(near)})"
    readable = [file for file in files if others and _ending(Path(file)) in ENDINGS]
    return f" (the folder holds: {listing(readable, 8)})" if readable else ""

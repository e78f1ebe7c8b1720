"""Load a `Dataset` or labels from a path or the name of a built-in set.

Built in are sets bundled with scikit-learn, and generated ones such as ``blobs:n=1000,k=5``.

>>> load("blobs:n=10,d=3").x.shape
(10, 3)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from jaxcluster.core.atomic import check_regular
from jaxcluster.core.messages import did_you_mean
from jaxcluster.datasets import annotated, arrays, svmlight
from jaxcluster.datasets.base import (
    COMPRESSIONS,
    DataError,
    DataNotFoundError,
    Dataset,
    Format,
    as_labels,
    check_lengths,
    choose_columns,
    exclude_columns,
    extension,
    listing,
    unknown_name,
)
from jaxcluster.datasets.delimited import open_csv
from jaxcluster.datasets.encoding import Encoding, rules
from jaxcluster.datasets.file_sources import scan
from jaxcluster.datasets.files import join_tables, matching_files, open_excel
from jaxcluster.datasets.json_lines import open_json_lines
from jaxcluster.datasets.tables import Table, open_parquet, table_dataset, table_labels
from jaxcluster.datasets.texts import TEXT_FILE, TextVectorizer, column_dataset, folder_dataset, holds_texts, text_files

DELIMITED = tuple(f"{kind}{packed}" for packed in ("", *COMPRESSIONS) for kind in (".csv", ".tsv"))
JSON_EXTENSIONS = tuple(f"{kind}{packed}" for packed in ("", *COMPRESSIONS) for kind in (".jsonl", ".ndjson"))
TABLE_EXTENSIONS = (*DELIMITED, *JSON_EXTENSIONS, ".parquet", ".xlsx")
EXTENSIONS = (".npy", ".npz", annotated.EXTENSION, *TABLE_EXTENSIONS, *svmlight.EXTENSIONS)

BLOCK_ROWS = 1 << 16
"""Rows of several files that are read at a time."""

Columns = str | int | Sequence[str | int]


def load(
    spec: str | os.PathLike,
    *,
    key: str | None = None,
    columns: Columns | None = None,
    truth: str | int | None = None,
    drop: Columns | None = None,
    row_id: str | int | None = None,
    encode: str | Sequence[str] | Encoding | None = None,
    dates: bool = False,
    na: Sequence[str] | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    categories: bool = False,
    text: str | int | None = None,
    vectorizer: TextVectorizer | None = None,
) -> Dataset:
    """Load a data set, with the numbers of the file unchanged: see `Dataset`.

    Args:
        spec: a path to an .npy, .npz (``file.npz:key`` chooses an array), idx, .csv, .tsv, .jsonl, .parquet, .xlsx or
            .h5ad file, text also with .gz, .zst, .bz2 or .xz behind; a pattern of tables with the same columns, as
            ``part-*.csv``, or of .npy files; a folder of .npy or of .parquet files; a file of
            ``scipy.sparse.save_npz`` or of SVMlight (.svm, .svmlight, .libsvm), whose rows stay sparse; a folder of
            .txt files; or a built-in set: digits, iris, wine, breast_cancer, blobs, moons, circles, the last three
            with options, as ``blobs:n=1000,d=2,k=5,std=1.0,seed=0``.
        key: the array of an .npz file, or the sheet of an .xlsx file; optional if it holds only one besides the truth.
            The space of ``obsm`` in an .h5ad file, in place of its ``X``.
        columns: the columns to cluster, by name or index; a string is split at its commas. By default all, except a
            first one that numbers or names the rows.
        truth: the known classes: a column by name or index, another array of the .npz file, or another file. They are
            never features. "folder" for those of text files by their folders, "label" for those of SVMlight.
        drop: columns of something else, such as weights, that are no features.
        row_id: the column of a table that names its rows, and is no feature.
        encode: "onehot" or "ordinal" for the columns of words of a table, or such texts as "NAME=onehot" and
            "NAME=small<large" for single ones; or the `Dataset.encoding` of another table. Columns of words are an
            error otherwise.
        dates: take columns of dates as days since 1970-01-01. They are an error otherwise.
        na: cells that are missing values, besides the usual ones (empty, NA, nan, null, ...).
        header: of a text table: True if its first line holds the column names.
        delimiter: of its fields: one character, or tab, semicolon, pipe, comma or blank.
        decimal: its decimal mark, "." or ",".
        encoding: of its text. These four are detected from the first lines by default; `Dataset.notes` tells how an
            ambiguous file was read.
        categories: True to keep columns of words, in `Dataset.cells`, for methods that take them.
        text: the column of a table whose texts are clustered by the weights of their terms, and no other column.
        vectorizer: options of these weights, or the `Dataset.vectorizer` of other texts.

    Raises:
        DataError: a mistake in the request or the file; DataNotFoundError if the file does not exist.
    """
    if categories and encode is not None:
        raise DataError("categories=True keeps the words that encode= turns into numbers. Leave one of them out.")
    form = Format(header, delimiter, decimal, encoding, None if na is None else tuple(na))
    of_table = {"row_id": row_id, "encode": encode, "dates": dates}
    if isinstance(spec, str) and is_builtin(spec):
        if truth is not None or key is not None:
            raise DataError(f"{spec} is built in and brings its own truth: leave truth and key out.")
        _check_text_table(spec, form)
        _check_table(spec, of_table | {"na": na})
        return _with_columns(builtin(spec), columns, drop)
    path, key = _resolve(spec, key)
    y = None
    if truth is not None and _names_file(truth):
        y, truth = load_labels(truth), None
    chosen = {"columns": columns, "drop": drop, "na": na}
    sparse = _sparse_rows(path, form, key, truth, of_table | chosen, (text, vectorizer))
    table = None if sparse is not None else _table(path, form, key)
    if sparse is not None:
        dataset = sparse if y is None else sparse._replace(y=y)
    elif table is not None:
        if encode is not None and not isinstance(encode, Encoding):
            of_table["encode"] = rules(*([encode] if isinstance(encode, str) else encode))
        chosen = {"columns": columns, "truth": truth, "drop": drop, "na": tuple(na or ()), "categories": categories}
        dataset = table_dataset(table, **chosen, **of_table)
        dataset = dataset if y is None else dataset._replace(y=y)
    else:
        _check_table(path.name, of_table | {"na": na})
        array, named = _read_array(path, key, truth)
        if named is not None:
            y, truth = as_labels(named, f"{path.name}: array {truth!r}"), None
        name = f"{path.name}:{key}" if key else path.name
        dataset = arrays.array_dataset(name, array, columns=columns, truth=truth, drop=drop, y=y)
    return check_lengths(dataset, path.name)


def _check_table(name: str, options: Mapping[str, Any]) -> None:
    """Raise DataError if there are options of a table for something else."""
    _check_no_effect(name, "is no table", options)


def _sparse_rows(
    path: Path,
    form: Format,
    key: str | None,
    truth: Any,
    options: Mapping[str, Any],
    terms: tuple[str | int | None, TextVectorizer | None],
) -> Dataset | None:
    """The rows of texts, of SVMlight's format or of an AnnData file; None for other files.

    Args:
        path, form, key, truth: as in `load`.
        options: others of `load` by name, of which these rows take few.
        terms: the column of texts, and their vectorizer.
    """
    text, vectorizer = terms
    if path.is_dir() and not matching_files(str(path)):
        _check_text_table(path.name, form._replace(encoding=None))
        _check_no_effect(path.name, "is a folder of texts", {**options, "text": text})
        return folder_dataset(path, vectorizer or TextVectorizer(), truth=truth, encoding=form.encoding)
    if text is not None:
        _check_no_effect(path.name, "is clustered by its texts", {**options, "row_id": None})
        table = _table(path, form, key)
        if table is None:
            raise DataError(f"{path.name} is no table, so that it has no column {text!r} of texts (text=).")
        return column_dataset(table, text, vectorizer or TextVectorizer(), truth=truth, row_id=options["row_id"])
    if extension(path) == annotated.EXTENSION:
        _check_text_table(path.name, form)
        _check_no_effect(path.name, "names its rows", {**options, "columns": None, "drop": None})
        chosen = {name: options[name] for name in ("columns", "drop")}
        return annotated.annotated_dataset(path, key=key, truth=truth, **chosen)
    if extension(path) not in svmlight.EXTENSIONS:
        return None
    _check_text_table(path.name, form)
    _check_no_effect(path.name, "holds sparse rows", {**options, "columns": None})
    return svmlight.svmlight_dataset(path, names=options["columns"], truth=truth)


def _check_no_effect(name: str, why: str, options: Mapping[str, Any]) -> None:
    """Raise DataError for an option of columns that has no effect on such rows."""
    option = next((option for option, value in options.items() if value not in (None, False)), None)
    if option is not None:
        raise DataError(f"{name} {why}, so that {option} has no effect ({option}=). Leave it out.")


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
    if path.is_dir() or extension(path) in (annotated.EXTENSION, *svmlight.EXTENSIONS):
        raise DataError(f"{path.name} holds rows and no labels. Name a file with one label a row.")
    table = _table(path, form, key)
    if table is not None:
        return table_labels(table, column)
    return as_labels(_read_array(path, key)[0], path.name)


def column_names(spec: str | os.PathLike, *, key: str | None = None, **form: Any) -> list[str] | None:
    """Column names of a table, read with the options of `load`; None for other files."""
    if isinstance(spec, str) and is_builtin(spec):
        return None
    path, key = _resolve(spec, key)
    table = None if holds_texts(path) else _table(path, Format(**form), key)
    return None if table is None else table.names


def is_text_table(spec: str | os.PathLike) -> bool:
    """True if ``spec`` is a text table, by its extension."""
    return extension(Path(spec)) in DELIMITED


def _table(path: Path, form: Format, key: str | None = None) -> Table | None:
    """The opened table, of several files if the path is a pattern, or None for a file of arrays."""
    if paths := matching_files(str(path)):
        if all(each.suffix == ".npy" for each in paths):
            return None
        tables = [_table(each, form, key) for each in paths]
        if None in tables:
            raise DataError(f"{path} stands for several files, which must be tables: {listing(TABLE_EXTENSIONS)}.")
        return join_tables(str(path), [table for table in tables if table is not None])
    if extension(path) in DELIMITED:
        return open_csv(path, form)
    _check_text_table(path.name, form)
    if extension(path) in JSON_EXTENSIONS:
        return open_json_lines(path)
    if extension(path) == ".xlsx":
        return open_excel(path, key, form.na)
    return open_parquet(path) if extension(path) == ".parquet" else None


def _check_text_table(name: str, form: Format) -> None:
    """Raise DataError if there are options for the layout of a file that is no text table."""
    option = next((option for option, value in form._replace(na=None)._asdict().items() if value is not None), None)
    if option is not None:
        raise DataError(f"{name} is no text table, so that the {option} has no effect ({option}=). Leave it out.")


def _read_array(path: Path, key: str | None, truth: str | int | None = None) -> tuple[Any, np.ndarray | None]:
    """Read a file of arrays.

    Returns:
        The array, and the truth if that is another array of the same file.
    """
    if matching_files(str(path)):
        return np.concatenate(list(scan(str(path)).blocks(BLOCK_ROWS))), None
    if extension(path) == ".npz":
        return arrays.read_npz(path, key, truth)
    return (arrays.read_npy(path) if extension(path) == ".npy" else arrays.read_idx(path)), None


def _with_columns(dataset: Dataset, columns: Columns | None, drop: Columns | None) -> Dataset:
    width = dataset.x.shape[1]
    chosen = choose_columns(columns, dataset.columns, width, dataset.name)
    if drop is not None:
        chosen = exclude_columns(drop, chosen, dataset.columns, width, dataset.name)
    if chosen is None:
        return dataset
    names = dataset.columns and [dataset.columns[i] for i in chosen]
    return dataset._replace(x=dataset.x[:, chosen], columns=names, image_shape=None)


def _names_file(truth: str | int | os.PathLike) -> TypeGuard[str | os.PathLike]:
    """True if a truth is another file: by its extension, or an idx file."""
    if isinstance(truth, (int, np.integer)):
        return False
    path = Path(_split(truth)[0])
    return extension(path) in EXTENSIONS or (path.is_file() and arrays.is_idx(path))


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
    if paths := matching_files(text):
        for each in paths:
            _check_file(each, key)
        return path, key
    if not path.exists():
        raise _not_found_error(path)
    _check_file(path, key)
    return path, key


def _check_file(path: Path, key: str | None) -> None:
    """Raise DataError for a path that is no file of a known kind, and for a key of a file without any."""
    try:
        check_regular(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if path.is_dir():
        if text_files(path) and key is None:
            return
        raise DataError(
            f"{path} is a folder{_suggest_files(path)}. Name a file, or a folder of .txt, .npy or .parquet files."
        )
    if extension(path) not in EXTENSIONS and not arrays.is_idx(path):
        if path.suffix == TEXT_FILE:
            raise DataError(
                f"{path.name} ends in {TEXT_FILE!r}. Of texts name the folder that holds them, a file each; of a table "
                "let the name end in .csv."
            )
        seen = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise DataError(
            f"{path.name} {seen} and is no idx file (MNIST's format); known endings: {listing(EXTENSIONS)}."
        )
    if key is not None and extension(path) not in (".npz", ".xlsx", annotated.EXTENSION):
        raise DataError(f"{path.name} is no .npz, .xlsx or .h5ad file, so key={key!r} has no effect. Leave it out.")


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
    readable = [file for file in files if others and extension(Path(file)) in EXTENSIONS]
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

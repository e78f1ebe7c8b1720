"""Inputs of the commands: rows, weights, partial labels and pairs, read from the words on the command line."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcluster.cli.errors import UserError, user_errors

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.datasets import Dataset, Encoding, Imputation, Scaling
    from jaxcluster.datasets.texts import TextVectorizer

IMPUTE_HINT = "Fill them (--impute median), leave out their columns (--drop), or drop those rows first"
"""Advice on missing cells, in words of the command line."""

INFINITY_HINT = (
    "Take them as missing cells (--na inf --na=-inf, with --impute median), leave out their columns (--drop), or drop "
    "those rows first"
)
"""The same for infinite cells."""

CATEGORIES_HINT = "Leave out their columns (--drop), drop those rows, or write 'missing' there if the column has words"
"""The same for a method that takes categories."""

STDIN = "-"
"""Word for a table on standard input."""

LAYOUT = ("header", "delimiter", "decimal", "encoding")
"""Fields of `Source` that describe the layout of a text table."""


class Source(NamedTuple):
    """Origin of rows, word for word: the arguments of `datasets.load`, the imputation, and the layout of a text table.

    The options of a command have the same names.
    """

    data: str
    key: str | None = None
    columns: str | None = None
    truth: str | None = None
    weights: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    drop: str | None = None
    row_id: str | None = None
    encode: Sequence[str] | None = None
    dates: bool = False
    na: Sequence[str] | None = None
    impute: str | None = None
    text: str | None = None
    stop_words: str | None = None
    max_terms: int | None = None

    @property
    def layout(self) -> dict[str, Any]:
        """The options of `jaxcluster.datasets.load` for the layout of a text table."""
        return {name: getattr(self, name) for name in LAYOUT}


class Rows(NamedTuple):
    """Rows to cluster.

    Attributes:
        dataset: as read, in the data's own units.
        x: (n_samples, n_features) float32 or float64, imputed and scaled; a CSR array for sparse rows and texts.
        scaling: the transformation from the data's units to ``x``.
        weights: (n_samples,), or None for 1 each.
        imputation: of missing cells, before the scaling, or None.
        cells: table of numbers, scaled, and of categories, for a method that takes these; ``x`` then holds their codes.
    """

    dataset: Dataset
    x: Any
    scaling: Scaling
    weights: np.ndarray | None
    imputation: Imputation | None = None
    cells: Any = None

    @property
    def samples(self) -> Any:
        """Samples for an estimator: the cells, or ``x`` without any."""
        return self.x if self.cells is None else self.cells

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.x.shape[0]

    @property
    def is_sparse(self) -> bool:
        """True for rows in a sparse matrix."""
        return not hasattr(self.x, "__array_interface__")

    @property
    def encoding(self) -> Encoding | None:
        """The encoding of new rows: with an imputation a word that these rows lack is a missing cell."""
        encoding = self.dataset.encoding
        return encoding if encoding is None else encoding._replace(lenient=self.imputation is not None)


def read(
    source: Source,
    how: str,
    *,
    missing: bool | None = None,
    missing_option: str = "missing=True",
    metric: str | None = None,
    categories: Mapping[str, Any] | None = None,
) -> Rows:
    """Rows of ``source``, scaled.

    Args:
        source: of the rows.
        how: one of `jaxcluster.datasets.SCALINGS`.
        missing: True lets NaN through as missing cells; False mentions in the message the option that does.
        missing_option: this option, in the words of the estimator.
        metric: of the method. Rows that float64 does not hold are translated if the metric takes differences.
        categories: options of `jaxcluster.datasets.categories.read_mixed` for a method that takes categories.

    Raises:
        DataError, ValueError: rows or weights that cannot be clustered.
    """
    import numpy as np
    from scipy.sparse import issparse

    from jaxcluster.cli.table_checks import check_observed, check_scaling
    from jaxcluster.core.validation import check_finite, check_weights
    from jaxcluster.datasets import impute, scale
    from jaxcluster.ops.distance import TRANSLATION_INVARIANT, plain_metric

    if categories is not None:
        _check_words(source, missing)
    if source.impute is not None and missing:
        raise UserError("--impute fills the cells that --missing is for: leave one of them out.")
    with on_disk(source) as file:
        dataset, weights = _weighted(file, categories is not None)
    check_scaling(dataset, how, source.impute)
    allowed = True if source.impute is not None else missing
    try:
        if not issparse(dataset.x):
            check_finite(dataset.x, name=dataset.name, missing=allowed, columns=dataset.columns, option=missing_option)
    except ValueError as error:
        infinite = np.isinf(dataset.x).any()
        hint = INFINITY_HINT if infinite else IMPUTE_HINT if categories is None else CATEGORIES_HINT
        raise ValueError(str(error).replace("Drop or impute those rows first", hint)) from error
    if categories is not None:
        weights = weights if weights is None else check_weights(weights, dataset.x.shape[0])
        return _mixed_rows(dataset, weights, how, dict(categories))
    if missing:
        check_observed(dataset)
    x, imputation = dataset.x, None
    codes = zip(dataset.encoding.columns, dataset.encoding.slices(), strict=True) if dataset.encoding else ()
    groups = [at for code, at in codes if code.kind == "onehot"]
    if source.impute is not None:
        x, imputation = impute(x, source.impute, groups=groups, columns=dataset.columns)
    if weights is not None:
        weights = check_weights(weights, dataset.x.shape[0])
    # float64 has 53 bits: integers beyond 2^53 keep all digits only as differences to one of the rows, which change no
    # distance of a translation-invariant metric.
    movable = metric is None or plain_metric(metric) in TRANSLATION_INVARIANT
    x, scaling = scale(x, how, missing=bool(missing), movable=movable, groups=groups)
    if scaling.origin is not None:
        origin = ", ".join(map(str, scaling.origin[:4])) + (", …" if len(scaling.origin) > 4 else "")
        note = f"integers beyond 2^53 are clustered as differences to those of one row: {origin}."
        dataset = dataset._replace(notes=(*dataset.notes, note))
    return Rows(dataset, x, scaling, weights, imputation)


def _check_words(source: Source, missing: bool | None) -> None:
    """Raise UserError for codes and imputation of rows that a method takes with their words."""
    if source.encode is not None:
        raise UserError("--encode turns words into numbers, and this method takes the words: leave --encode out.")
    if source.impute is not None and missing:
        raise UserError("--impute fills missing cells, which Gower's distance takes as they are: leave --impute out.")
    if source.impute is not None:
        remedy = f"leave --impute out. {CATEGORIES_HINT}"
        raise UserError(f"--impute fills columns of numbers, and this method takes words: {remedy}.")


@contextmanager
def on_disk(source: Source) -> Iterator[Source]:
    """``source`` with standard input written to a file, which is removed when the block ends.

    Raises:
        UserError: nothing on standard input.
    """
    from jaxcluster.datasets.decoding import ending_of

    if source.data != STDIN:
        yield source
        return
    if sys.stdin.isatty():
        raise UserError("- is a table on standard input, and there is none: write jaxcluster behind a pipe, or < FILE.")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise UserError("standard input is empty: there is no table.")
    ending = ending_of(content) or ".csv"
    with tempfile.TemporaryDirectory(prefix="jaxcluster-") as folder:
        path = Path(folder, f"stdin{ending}")
        path.write_bytes(content)
        yield source._replace(data=str(path))


def _mixed_rows(dataset: Dataset, weights: np.ndarray | None, how: str, options: dict[str, Any]) -> Rows:
    """Rows for a method that takes categories, with its columns of numbers scaled."""
    import numpy as np
    import pyarrow as pa

    from jaxcluster.datasets import Scaling, scale
    from jaxcluster.datasets.categories import read_mixed

    cells: Any = dataset.x if dataset.cells is None else dataset.cells
    columns, table = read_mixed(cells, **options, missing=True, name=dataset.name)
    x, scaling = np.array(dataset.x, np.float64), Scaling("none")
    if how != "none" and columns.numeric:
        numbers, scaling = scale(table.numbers, how, missing=True)
        x[:, columns.numeric] = numbers
        for i, j in enumerate(columns.numeric):
            if dataset.cells is None:
                cells = np.asarray(x)
            else:
                cells = cells.set_column(j, cells.column_names[j], pa.array(numbers[:, i], from_pandas=True))
    return Rows(dataset, x, scaling, weights, cells=cells)


def describe(source: Source, dataset: Dataset) -> dict[str, Any]:
    """Origin, shape and checksum of the data for config.json, enough to tell whether they are still the same."""
    from jaxcluster.cli.table_checks import digest_of
    from jaxcluster.datasets.categories import read_mixed

    n, d = dataset.x.shape
    digest = digest_of(dataset.x)
    if dataset.cells is not None:  # the rows hold codes of its text
        digest.update(repr(read_mixed(dataset.cells, missing=True)[0].categories).encode())
    return {
        **source._asdict(),
        "name": dataset.name,
        "rows": n,
        "width": d,
        "column_names": dataset.columns,
        **({} if dataset.id_name is None else {"id_name": dataset.id_name}),
        **({} if dataset.encoding is None else {"codes": [code._asdict() for code in dataset.encoding.columns]}),
        "sha256": digest.hexdigest(),
        **({"notes": list(dataset.notes)} if dataset.notes else {}),
    }


def imputation_entry(rows: Rows) -> dict[str, Any]:
    """The entry of config.json on the imputation; none without one. The rows of "knn" are in the model alone."""
    if rows.imputation is None:
        return {}
    return {"imputation": {"how": rows.imputation.how, "values": rows.imputation.values.tolist()}}


def read_like(
    data: Mapping[str, Any],
    source: Source,
    encoding: Encoding | None = None,
    *,
    categories: bool = False,
    vectorizer: TextVectorizer | None = None,
) -> Dataset:
    """New rows with the columns that a run was fitted on, unless ``source`` names others.

    Columns of a table are found by name, those of an array by position. A text table of the same kind as that of the
    run has its layout too, unless ``source`` gives one.

    Args:
        data: the entry "data" of config.json, or the names of the columns of a model without a run.
        source: the new rows.
        encoding: of the rows of the run, or None.
        categories: the model takes columns of words.
        vectorizer: of the texts of the run, or None.
    """
    from jaxcluster.datasets.texts import holds_texts

    with on_disk(source) as file:
        folder = holds_texts(Path(file.data))
        if vectorizer is not None and (folder or _is_table(file.data)):
            return _texts_like(data, file, vectorizer)
        if folder or file.text is not None:
            raise UserError(f"{file.data} holds texts, and the model was fitted to rows of numbers.")
        return _read_like(data, file, encoding, categories)


def _read_like(data: Mapping[str, Any], source: Source, encoding: Encoding | None, categories: bool) -> Dataset:
    from jaxcluster.datasets import load
    from jaxcluster.datasets.loading import column_names
    from jaxcluster.datasets.svmlight import EXTENSIONS as SVM_EXTENSIONS

    if _ending(source.data) == _ending(str(data.get("data"))) and all(each is None for each in source.layout.values()):
        source = source._replace(**{name: data.get(name) for name in LAYOUT})
    if _ending(source.data) == _ending(str(data.get("data"))) == ".h5ad" and source.key is None:
        source = source._replace(key=data.get("key"))
    columns: Any = source.columns
    if not _is_table(source.data):
        encoding = None  # an array holds the features
    if columns is None:
        names, chosen = data.get("column_names"), data.get("columns")
        if encoding is not None:
            columns = encoding.names
            _check_has(source, columns)
        elif _is_table(source.data):
            parquet = _ending(str(data.get("data", source.data))) == ".parquet"
            columns = (_same_columns(source, _whole(names) if parquet else names) if names else None) or chosen
        elif not _is_table(str(data.get("data"))):
            columns = names if _ending(source.data) in SVM_EXTENSIONS else chosen
    options = {"key": source.key, "na": source.na or data.get("na"), **source.layout}
    options["dates"] = categories and bool(data.get("dates"))
    row_id = source.row_id
    if row_id is None and _is_table(source.data):
        # The names of rows of the run, if the new rows have them.
        names = column_names(source.data, key=source.key, **source.layout) or []
        row_id = data.get("id_name") if data.get("id_name") in names else None
    if not _is_table(source.data):
        options |= {"na": source.na, "dates": False}
    dataset = load(source.data, columns=columns, row_id=row_id, encode=encoding, categories=categories, **options)
    if source.columns is None and not dataset.encoding:
        dataset = dataset._replace(notes=(*dataset.notes, *_position_notes(data.get("column_names"), dataset)))
    return dataset


def _position_notes(names: Sequence[str] | None, dataset: Dataset) -> list[str]:
    """A note on new rows whose columns have names where those of the fit have numbers alone, ``names`` or none."""
    from jaxcluster.datasets.base import listing

    named = [name for name in dataset.columns or [] if not name.isdecimal()]
    if not named or not all(name.isdecimal() for name in names or ()):
        return []
    taken = listing(map(repr, dataset.columns or []), 8)
    return [f"the columns of the fit have no names, and those of {dataset.name} are taken in their order: {taken}."]


def _check_has(source: Source, columns: Sequence[str]) -> None:
    """Raise UserError for a table without some of the columns that a run was fitted to."""
    from jaxcluster.datasets.base import listing
    from jaxcluster.datasets.loading import column_names

    names = column_names(source.data, key=source.key, **source.layout) or columns
    if lacking := [name for name in columns if name not in names]:
        table, plural = Path(source.data).name, "s" * (len(lacking) > 1)
        raise UserError(
            f"{table} lacks the column{plural} {listing(map(repr, lacking))}, which the run was fitted to; there are: "
            f"{listing(names)}."
        )


def _texts_like(data: Mapping[str, Any], source: Source, vectorizer: TextVectorizer) -> Dataset:
    """New texts, in the column of those of the run unless ``source`` names another one."""
    from jaxcluster.datasets import load
    from jaxcluster.datasets.loading import column_names

    names = column_names(source.data, key=source.key, **source.layout)
    text = source.text or (data.get("text") if names is not None else None)
    if names is not None and text is None:
        raise UserError(f"{source.data} is a table, and the model was fitted to texts: name their column (--text).")
    row_id = source.row_id or (data.get("id_name") if names is not None and data.get("id_name") in names else None)
    layout = {"key": source.key, **source.layout}
    return load(source.data, text=text, vectorizer=vectorizer, row_id=row_id, columns=source.columns, **layout)


def _same_columns(source: Source, names: list[str]) -> list[str | int]:
    """Columns of these names: by name, but by position where several columns share one or have none."""
    from jaxcluster.datasets.loading import column_names

    header = column_names(source.data, key=source.key, **source.layout) or []
    columns: list[str | int] = []
    for i, name in enumerate(names):
        positions = [position for position, other in enumerate(header) if other == name]
        rank = names[:i].count(name)  # the first of several columns of one name stands for the first, and so on
        by_position = (len(positions) > 1 and rank < len(positions)) or (not name and positions)
        columns.append(positions[rank] if by_position else name)
    return columns


def _whole(names: list[str]) -> list[str]:
    """The columns of a Parquet file: one that holds lists is read as ``name[0]``, ``name[1]`` and so on."""
    whole = [re.sub(r"\[\d+\]$", "", name) for name in names]
    return [name for i, name in enumerate(whole) if name == names[i] or name not in whole[:i]]


def _is_table(spec: str) -> bool:
    from jaxcluster.datasets.loading import TABLE_EXTENSIONS

    return spec == STDIN or _ending(spec) in TABLE_EXTENSIONS


def _ending(spec: str) -> str:
    """Ending of a file without that of its compression."""
    from jaxcluster.datasets.base import COMPRESSIONS, extension

    packed = extension(Path(spec))
    return next((packed.removesuffix(each) for each in COMPRESSIONS if packed.endswith(each)), packed)


def _weighted(source: Source, categories: bool) -> tuple[Dataset, np.ndarray | None]:
    """The rows, and the weights from another file or from a column that is then not among the rows."""
    from jaxcluster.cli.table_checks import vectorizer_of
    from jaxcluster.datasets import load, load_labels
    from jaxcluster.datasets.base import split_columns

    options = {"key": source.key, "na": source.na, **source.layout}
    chosen = {name: getattr(source, name) for name in ("columns", "truth", "row_id", "encode", "dates")}
    chosen |= {"categories": categories, "text": source.text, "vectorizer": vectorizer_of(source)}
    drop = split_columns(source.drop or "")
    if source.weights is None or Path(source.weights).is_file():
        dataset = load(source.data, **chosen, drop=drop or None, **options)
        return dataset, None if source.weights is None else load_labels(source.weights)
    left_out = [*drop, source.weights] if source.text is None else drop or None  # texts leave out all other columns
    dataset = load(source.data, **chosen, drop=left_out, **options)
    return dataset, load(source.data, columns=[source.weights], **options).x[:, 0]


def partial_labels(labels: str, rows: Rows, seed: int) -> np.ndarray:
    """Classes of some rows, (n_samples,), from a file or drawn from the truth.

    The class of the other rows is -1, or None where classes are words.

    Args:
        labels: a file, or a fraction of the truth.
        rows: of the fit.
        seed: of the random choice of rows.

    Raises:
        UserError: a fraction outside (0, 1], or without a truth; a missing file, or one of another length.
    """
    fraction = _fraction(labels)
    if fraction is None:
        return _from_file(labels, rows.n)
    import numpy as np

    truth = rows.dataset.y
    if truth is None:
        raise UserError(f"--labels {labels} is a share of the truth, and {rows.dataset.name} has none: pass --truth.")
    # Ranks of random numbers: exactly this number of rows is drawn, at least one, each with equal probability.
    drawn = np.random.default_rng(seed).random(len(truth)).argsort() < max(1, round(fraction * len(truth)))
    if truth.dtype.kind == "U":
        return np.where(drawn, truth.astype(object), np.array(None))
    if truth.dtype.kind in "iu" and truth.min() >= -1:
        return np.where(drawn, truth, -1)
    # Negative or fractional classes are numbered by rank, so that -1 can stand for the unknown ones.
    return np.where(drawn, np.unique(truth, return_inverse=True)[1].ravel(), -1)


def _fraction(labels: str) -> float | None:
    """``labels`` as a number; None where it names a file."""
    if Path(labels).is_file():
        return None
    try:
        fraction = float(labels)
    except ValueError:
        raise UserError(f"--labels {labels} is neither a file that there is nor a share such as 0.1.") from None
    if not 0 < fraction <= 1:
        raise UserError(f"--labels {labels} is a share of the truth, and must be above 0 and at most 1.")
    return fraction


def _from_file(path: str, n: int) -> np.ndarray:
    import numpy as np

    from jaxcluster.datasets import load_labels

    with user_errors():
        labels = load_labels(path)
    if labels.dtype.kind == "U":
        labels = np.where(np.isin(labels, ("", "-1")), np.array(None), labels.astype(object))
    if len(labels) != n:
        raise UserError(f"--labels {path} has {len(labels):,} labels for {n:,} rows: one is needed for each.")
    return labels


def read_pairs(path: Path, option: str) -> np.ndarray:
    """Pairs of row numbers in a file, (n_pairs, 2).

    Raises:
        UserError: a file that cannot be read, or does not hold two columns of whole numbers.
    """
    import numpy as np

    from jaxcluster.datasets.loading import column_names, is_text_table, load

    with user_errors():
        names = column_names(path) or []
        numbers = bool(names) and all(name.isdigit() for name in names)  # a first line such as 0,1 is a pair
        pairs = load(path, header=False if numbers and is_text_table(path) else None).x
    if pairs.shape[1] != 2 or not np.array_equal(pairs, np.round(pairs)):
        raise UserError(f"{option} {path} must have two columns of row numbers, got shape {pairs.shape}.")
    return pairs.astype(np.int64)

"""Texts as sparse rows of term weights (TF-IDF): a folder of text files, or a column of a table.

The vocabulary and the weights of its terms are those of the first texts, and stored, so that new texts get the same
columns.

>>> x, vectorizer = vectorize(["a late goal", "a late train"], TextVectorizer())
>>> vectorizer.vocabulary, x.shape
(('goal', 'late', 'train'), (2, 3))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcluster.core.sparse_input import as_csr
from jaxcluster.datasets.base import DataError, Dataset, as_labels, column_index, listing
from jaxcluster.datasets.decoding import check_encoding

if TYPE_CHECKING:
    import scipy.sparse

    from jaxcluster.datasets.tables import Table
    from jaxcluster.types import Absent

TEXT_FILE = ".txt"
"""Ending of the files of a folder that are read as texts."""

STOP_WORDS = ("english",)
"""Lists of words that say nothing about a text."""

FILE, FOLDER = "file", "folder"
"""Name of the column of ids of a folder of texts, and the word for its folders as the known classes."""


class TextVectorizer(NamedTuple):
    """Term weights of texts: scikit-learn's ``TfidfVectorizer`` with its defaults, as numbers and words alone.

    Attributes:
        stop_words: "english" leaves out the commonest words of that language; None leaves out none.
        max_terms: most terms, the commonest ones; None for all.
        vocabulary: the term of each column; empty before the fit.
        idf: (n_terms,) inverse document frequency of each term; None before the fit.
    """

    stop_words: str | None = None
    max_terms: int | None = None
    vocabulary: tuple[str, ...] = ()
    idf: np.ndarray | Absent = None

    def apply(self, texts: Sequence[str]) -> scipy.sparse.csr_array:
        """(n_texts, n_terms) weights, rows of length 1; a text without a known term is a row of zeros.

        Raises:
            DataError: something else than texts.
        """
        check_texts(texts)
        tfidf = self._tfidf(vocabulary={term: j for j, term in enumerate(self.vocabulary)})
        tfidf.idf_ = np.asarray(self.idf, np.float64)
        return as_csr(tfidf.transform(texts), name="the weights of the terms")

    def check(self, width: int) -> None:
        """Raise DataError unless it gives rows of so many columns: for one that was loaded from a file."""
        terms = set(self.vocabulary)
        if len(terms) != width or len(self.vocabulary) != width or not all(isinstance(term, str) for term in terms):
            raise DataError(f"a vocabulary of {len(self.vocabulary)} terms does not fit {width} columns.")
        idf = np.asarray(self.idf)
        if idf.shape != (width,) or idf.dtype.kind != "f" or not np.isfinite(idf).all():
            raise DataError(f"the weights of the terms are no {width} finite numbers.")
        if self.stop_words not in (None, *STOP_WORDS):
            raise DataError(f"stop words {self.stop_words!r} are not known.")

    def _tfidf(self, **options: Any) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(stop_words=self.stop_words, **options)


def vectorize(
    texts: Sequence[str], vectorizer: TextVectorizer, where: str = "X"
) -> tuple[scipy.sparse.csr_array, TextVectorizer]:
    """Weights of texts: those of a fitted vectorizer, or of one that is fitted to them.

    Args:
        texts: n_texts of them.
        vectorizer: its options; with a vocabulary it is applied as it is.
        where: name of the texts, for messages.

    Returns:
        (n_texts, n_terms) weights, and the fitted vectorizer.

    Raises:
        DataError: texts without any term.
    """
    if vectorizer.vocabulary:
        return vectorizer.apply(texts), vectorizer
    check_texts(texts, where)
    tfidf = vectorizer._tfidf(max_features=vectorizer.max_terms)
    try:
        tfidf.fit(texts)
    except ValueError as error:
        raise DataError(
            f"{where}: no text has a term, which is a word of two letters at least"
            f"{' and no stop word' * (vectorizer.stop_words is not None)}."
        ) from error
    fitted = vectorizer._replace(vocabulary=tuple(map(str, tfidf.get_feature_names_out())), idf=tfidf.idf_.copy())
    return fitted.apply(texts), fitted


def check_texts(texts: Any, where: str = "X") -> None:
    """Raise DataError unless ``texts`` is a list, an array or a column of texts."""
    if isinstance(texts, (str, bytes)) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where} holds something else than texts: pass a list of str.")


def is_texts(X: Any) -> bool:
    """True for a list, a column or an array of one dimension whose first entry is a text."""
    if isinstance(X, (str, bytes)) or getattr(X, "ndim", 1) != 1 or not hasattr(X, "__len__"):
        return False
    return len(X) > 0 and isinstance(next(iter(X), None), str)


def text_files(folder: Path) -> list[Path]:
    """Text files of a folder and the folders in it, sorted by their names."""
    return sorted(path for path in folder.rglob(f"*{TEXT_FILE}") if path.is_file())


def holds_texts(path: Path) -> bool:
    """True for a folder of text files."""
    return path.is_dir() and bool(text_files(path))


def folder_dataset(folder: Path, vectorizer: TextVectorizer, *, truth: Any, encoding: str | None) -> Dataset:
    """The `Dataset` of a folder of texts, named by their files.

    Args:
        folder: with files that end in .txt, also in folders inside.
        vectorizer: of the texts.
        truth: "folder" takes the name of each file's folder as its class; None for no classes.
        encoding: of the files; UTF-8 by default.

    Raises:
        DataError: another truth, a file that cannot be decoded, or texts without any term.
    """
    if truth not in (None, FOLDER):
        raise DataError(f"{folder.name} is a folder of texts: its classes are those of a file, or truth={FOLDER!r}.")
    if encoding is not None:
        check_encoding(encoding)
    paths = text_files(folder)
    texts = [_decoded(path, encoding or "utf-8-sig") for path in paths]
    ids = np.array([path.relative_to(folder).as_posix() for path in paths])
    y = None if truth is None else np.array([path.parent.name for path in paths])
    return _dataset(folder.name, texts, vectorizer, ids=ids, id_name=FILE, y=y)


def _decoded(path: Path, encoding: str) -> str:
    try:
        return path.read_bytes().decode(encoding)
    except UnicodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(f"{path.name} is no text in {name}. Name the encoding of the files (encoding=).") from error
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.") from error


def column_dataset(
    table: Table, column: str | int, vectorizer: TextVectorizer, *, truth: Any = None, row_id: Any = None
) -> Dataset:
    """The `Dataset` of a column of texts of a table; all other columns are left out.

    Args:
        table: opened.
        column: of the texts, by name or position.
        vectorizer: of the texts.
        truth, row_id: columns of the known classes and of the names of the rows, or None.

    Raises:
        DataError: a column of something else than texts, or without any term.
    """
    from jaxcluster.datasets.columns import plain, title_of
    from jaxcluster.datasets.tables import _labels

    names, where = table.names, table.path.name
    index = column_index(column, names, len(names), where)
    others = {
        kind: column_index(other, names, len(names), where)
        for kind, other in (("truth", truth), ("row_id", row_id))
        if other is not None
    }
    title = f"{where}: column {title_of(names, index)}"
    if index in others.values():
        raise DataError(f"{title} is the text and something else too. Name another column.")
    read = table.read([index, *others.values()], list(others.values()), words=True)
    cells = plain(read[index]).to_pylist()
    if others_than_text := [cell for cell in cells if cell is not None and not isinstance(cell, str)]:
        raise DataError(f"{title} holds {str(others_than_text[0])[:40]!r}, which is no text.")
    labels = {kind: _labels(read[i], f"{where}: column {title_of(names, i)}") for kind, i in others.items()}
    dataset = _dataset(title, [cell or "" for cell in cells], vectorizer, y=labels.get("truth"))
    dataset = dataset._replace(name=where, notes=(*table.notes, *dataset.notes))
    if row_id is None:
        return dataset
    return dataset._replace(ids=labels["row_id"], id_name=names[others["row_id"]])


def _dataset(where: str, texts: Sequence[str], vectorizer: TextVectorizer, **more: Any) -> Dataset:
    if not texts:
        raise DataError(f"{where} has no texts.")
    x, fitted = vectorize(texts, vectorizer, where)
    n, d = len(texts), len(fitted.vocabulary)
    notes = [f"{n:,} texts are clustered by the weights (TF-IDF) of {d:,} terms."]
    empty = np.flatnonzero(np.diff(x.indptr) == 0)
    if empty.size:
        which = [str(more["ids"][i]) for i in empty] if "ids" in more else [f"row {i}" for i in empty]
        notes.append(
            f"{empty.size:,} of {n:,} texts have none of the terms, and are rows of zeros: {listing(which, 5)}."
        )
    y = more.pop("y", None)
    y = None if y is None else as_labels(y, where)
    return Dataset(where, x, y, notes=tuple(notes), vectorizer=fitted, **more)

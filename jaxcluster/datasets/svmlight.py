"""Sparse rows of a text file in the format of SVMlight and LIBSVM: a label, and ``column:value`` for each entry.

>>> EXTENSIONS[:2]
('.svm', '.svmlight')
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.sparse

from jaxcluster.core.sparse_input import as_csr, shape_of
from jaxcluster.datasets.base import COMPRESSIONS, DataError, Dataset, open_arrow_stream, split_columns

EXTENSIONS = tuple(f"{kind}{packed}" for packed in ("", *COMPRESSIONS) for kind in (".svm", ".svmlight", ".libsvm"))
"""Endings of such files, packed ones too."""

LABEL = "label"
"""Word for the first number of each line as the known classes."""


def svmlight_dataset(path: Path, *, names: Any = None, truth: str | int | None = None) -> Dataset:
    """The `Dataset` of a file; its columns are named by their numbers in the file.

    Args:
        path: of the file.
        names: of the columns of a fit, which new rows have too; None takes as many columns as the file names, numbered
            from 1, or from 0 if it has a column 0.
        truth: "label" takes the labels of the file as the known classes.

    Raises:
        DataError: a file of another format, columns beyond those of the fit, or another truth.
    """
    from sklearn.datasets import load_svmlight_file

    if truth not in (None, LABEL):
        raise DataError(f"{path.name}: its classes are those of another file, or of its own lines: truth={LABEL!r}.")
    try:
        with open_arrow_stream(path) as stream:
            x, y = load_svmlight_file(io.BytesIO(stream.read()), zero_based=cast("Any", True))
    except (ValueError, OSError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path.name} cannot be read as SVMlight's format, such as '1 3:0.5 7:2' ({path.stat().st_size} bytes): "
            f"{reason}"
        ) from error
    if not y.size:
        raise DataError(f"{path.name} is empty.")
    if names is None and not x.nnz:
        raise DataError(f"{path.name} has no entries, such as 3:0.5, in its {y.size:,} lines.")
    matrix = as_csr(x, name=path.name)
    n, width = shape_of(matrix)
    known = [] if names is None else split_columns(names)
    numbers = [int(name) for name in known if str(name).isdigit()]
    start = numbers[0] if numbers else 0
    if numbers != list(range(start, start + len(known))):
        raise DataError(f"{path.name} holds sparse rows, of which no columns can be chosen (columns=). Leave it out.")
    first = numbers[0] if numbers else 0 if matrix.indices.size and matrix.indices.min() == 0 else 1
    last = numbers[-1] if numbers else width - 1
    if width - 1 > last or (first and matrix.indices.size and matrix.indices.min() < first):
        used = np.unique(matrix.indices)
        raise DataError(
            f"{path.name} has columns {used[0]} to {used[-1]}, and the model was fitted on {first} to {last}."
        )
    parts = matrix.data, matrix.indices - first, matrix.indptr
    matrix = scipy.sparse.csr_array(parts, shape=(n, last + 1 - first))
    columns = [str(j) for j in range(first, last + 1)]
    return Dataset(path.name, matrix, y if truth is not None else None, columns)

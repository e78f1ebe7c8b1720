"""Tables of a caller as arrays of numbers, and the reason where they are none."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any

import jax
import numpy as np
import scipy.sparse

from jaxcluster.core import check


def numeric_table(X: Any, validate: Callable[[Any], Any]) -> Any:
    """What ``validate``, scikit-learn's check of a table, makes of X, in a dtype that sums can be taken in.

    Raises:
        ValueError, TypeError: as ``validate``, with the cause and its column where they are known.
    """
    _check_kind(X)
    if isinstance(X, (np.ndarray, jax.Array)) and X.dtype.kind not in "OSU":
        X = check.check_numeric(X, name="X")  # scikit-learn takes the dtypes of ml_dtypes for text
    try:
        found = validate(X)
        if isinstance(found, np.ndarray) and found.dtype.kind == "O":  # integers of Python beyond int64
            found = found.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        if reason := _why_no_numbers(X):
            raise (TypeError if isinstance(error, TypeError) else ValueError)(reason) from error
        raise
    return check.check_numeric(found, name="X") if isinstance(found, np.ndarray) else found


def check_names(X: Any, known: Iterable[str]) -> None:
    """Raises ValueError where a table has other columns than that of the fit, or has them in another order."""
    names = getattr(X, "column_names", getattr(X, "columns", None))
    if names is None or not all(isinstance(name, str) for name in names):
        return
    names, known = list(names), list(known)
    if names == known:
        return
    missing, new = ([name for name in ours if name not in others] for ours, others in ((known, names), (names, known)))
    differences = [f"{_listed(each)} {what}" for each, what in ((missing, "missing"), (new, "new")) if each]
    cause = " and ".join(differences) or f"the columns come as {_listed(names)}, not as {_listed(known)}"
    remedy = "Pass the columns of the fit" if missing else "Pass X[list(model.feature_names_in_)]"
    raise ValueError(f"The feature names should match those that were passed during fit: {cause}. {remedy}.")


def _listed(names):
    return ", ".join(map(repr, names[:8])) + (" …" if len(names) > 8 else "")


def _check_kind(X):
    """Raises ValueError on what is no table of rows and columns, in words of the caller."""
    wanted = "Pass rows by columns: an array, a table of pandas, polars or Arrow, or a list of lists."
    if scipy.sparse.issparse(X):  # of which one kind is a dict
        return
    if X is None or isinstance(X, (str, bytes, Mapping, Set, Iterator)):
        raise ValueError(f"X is {'None' if X is None else f'of type {type(X).__name__}'}, not a table. {wanted}")
    names = getattr(X, "column_names", getattr(X, "columns", None))  # Arrow's name for it, and the others'
    if names is None:
        return
    if len(names) == 0:
        raise ValueError(f"X has no columns. {wanted}")
    repeated = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if repeated:
        raise ValueError(f"X has more than one column of the name {', '.join(map(repr, repeated))}. Rename them.")


def _why_no_numbers(X):
    """The first entry that is no number, in words; None where none is found."""
    cells = np.asarray(X, object)
    if cells.ndim == 1 and any(isinstance(row, (list, tuple, np.ndarray)) for row in cells):
        return "X is no table: its rows have different lengths. Make them one length."
    if cells.ndim != 2:
        return None
    names = getattr(X, "columns", None)
    for j, column in enumerate(cells.T):
        for cell in column:
            if reason := _why_no_number(cell):
                name = repr(names[j]) if names is not None else str(j)
                return f"X has {reason[0]} in column {name}, such as {str(cell)[:40]!r}. {reason[1]}"
    if text := next((cell for cell in cells.flat if isinstance(cell, (str, bytes))), None):
        convert = "X.astype(float)" if hasattr(X, "astype") else "np.array(X).astype(float)"
        return f"X holds numbers as text, such as {str(text)[:40]!r}: pass {convert}."
    return None


def _why_no_number(cell):
    if isinstance(cell, (datetime.date, datetime.timedelta, np.datetime64, np.timedelta64)):
        return "dates or durations", "Pass numbers, such as seconds since the first."
    try:
        float(cell)
    except OverflowError:
        return "integers beyond float64", "Pass smaller numbers, such as differences or logarithms."
    except (TypeError, ValueError):
        return ("text", "Encode or drop such columns.") if isinstance(cell, (str, bytes)) else None
    return None

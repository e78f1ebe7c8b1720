"""Imputation of missing cells, stored so that new rows get the same.

>>> filled, imputation = impute(np.array([[1.0], [3.0], [np.nan]]), "mean")
>>> filled.ravel().tolist(), imputation.apply(np.array([[np.nan]])).tolist()
([1.0, 3.0, 2.0], [[2.0]])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcluster.datasets.base import DataError, listing, unknown_name
from jaxcluster.datasets.scaling import Scaling, scale

IMPUTATIONS = ("mean", "median", "knn")

N_NEIGHBORS = 5
"""Rows that a cell of "knn" is the mean of."""

MAX_DONORS = 10_000
"""Rows that "knn" compares with, drawn at random from more: its cost is theirs times the rows that have holes."""


class Imputation(NamedTuple):
    """A fitted imputation: ``apply`` it to new samples.

    Attributes:
        how: "mean", "median" or "knn" (mean of the nearest rows of the fit, in standardized columns).
        values: (n_features,) float64 that fill missing cells of "mean" and "median".
        rows: (n_donors, n_features) standardized rows of the fit, for "knn", else None.
        scaling: of those rows.
    """

    how: str
    values: np.ndarray
    rows: np.ndarray | None = None
    scaling: Scaling | None = None

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Samples without NaN, in their own dtype; ``x`` itself if it has none.

        Raises:
            DataError: another number of features than in the fit.
        """
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.values):
            raise DataError(f"the rows have shape {x.shape}, and the imputation is of {len(self.values)} columns.")
        holes = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
        rows = np.flatnonzero(holes.any(axis=1))
        if not len(rows):
            return x
        filled = x.copy()
        if self.rows is None or self.scaling is None:
            values = np.broadcast_to(self.values, (len(rows), x.shape[1]))
        else:
            values = self.scaling.undo(_neighbors(self.rows, self.scaling.apply(x[rows])))
        filled[rows] = np.where(holes[rows], values, x[rows])
        return filled

    def check(self, width: int) -> None:
        """Raise ValueError unless it can fill rows of so many features: for one that was loaded from a file."""
        values, rows = np.asarray(self.values), self.rows
        fits = values.shape == (width,) and values.dtype.kind == "f" and np.isfinite(values).all()
        donors = rows is None or (rows.ndim == 2 and rows.shape[1] == width and not np.isinf(rows).any())
        if self.how not in IMPUTATIONS or (self.how == "knn") != (rows is not None) or not fits or not donors:
            raise DataError(f"an imputation by {self.how!r} does not fit {width} columns, or holds NaN or infinity.")


def _neighbors(donors: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n, n_features) rows, filled by the means of the nearest donors that have the cell."""
    from sklearn.impute import KNNImputer

    imputer = KNNImputer(n_neighbors=min(N_NEIGHBORS, len(donors)), keep_empty_features=True).fit(donors)
    return np.asarray(imputer.transform(np.asarray(x, np.float64)))


def impute(
    x: np.ndarray, how: str, *, groups: Sequence[slice] = (), columns: Sequence[str] | None = None
) -> tuple[np.ndarray, Imputation]:
    """Fill missing cells.

    Args:
        x: (n_samples, n_features), NaN where a cell is missing.
        how: one of `IMPUTATIONS`. "mean" of words encoded by "onehot" is the frequency of each word; "median" is the
            most frequent word.
        groups: features of each column of words that "onehot" has encoded.
        columns: names of the features, for messages.

    Returns:
        Samples without NaN, and the `Imputation`, to be applied to new samples.

    Raises:
        DataError: an unknown ``how``, or columns without any value.
    """
    if how not in IMPUTATIONS:
        raise unknown_name("imputation", how, IMPUTATIONS)
    x = np.asarray(x)
    present = ~np.isnan(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    empty = np.flatnonzero(~present.any(axis=0)).tolist()
    if empty:
        names = listing(repr(columns[j]) if columns is not None else str(j) for j in empty)
        raise DataError(
            f"column{'s' * (len(empty) > 1)} {names} has no value to fill its cells with. Leave it out (drop=)."
        )
    imputation = Imputation(how, np.array([_fill(x[present[:, j], j], how) for j in range(x.shape[1])], np.float64))
    for group in groups if how == "median" else ():
        frequency = np.nanmean(np.asarray(x[:, group], np.float64), axis=0)
        # The median of a one-hot column is 0 where no word has half of the cells: the most frequent word is one of
        # them.
        imputation.values[group] = np.arange(len(frequency)) == frequency.argmax()
    if how == "knn":
        # Neighbors are found among scaled columns: a column of large units would choose them alone.
        scaled, scaling = scale(x, "standard", missing=True)
        donors = np.random.default_rng(0).permutation(len(x))[:MAX_DONORS]
        imputation = imputation._replace(rows=np.asarray(scaled[np.sort(donors)], np.float64), scaling=scaling)
    return imputation.apply(x), imputation


def _fill(cells: np.ndarray, how: str) -> float:
    """Mean or median, computed relative to a cell, as sums of numbers near 1e9 would lose the digits that differ."""
    origin = cells[0]
    differences = np.asarray(cells - origin, np.float64)
    return float(origin + (np.median(differences) if how == "median" else differences.mean()))

"""Profiles of clusters: what a person asks of each one, in the units and words of the data.

>>> from jaxcluster import KMeans, profile
>>> x = np.array([[0.0, 5.0], [0.1, 6.0], [9.0, 5.0], [9.1, 6.0]])
>>> found = profile(KMeans(2, random_state=0).fit(x), x, columns=["length", "width"])
>>> [(each.size, each.rules[0].conditions[0].column) for each in found.clusters]
[(2, 'length'), (2, 'length')]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxcluster import metrics, model_selection
from jaxcluster.core.messages import printable, valid_html
from jaxcluster.core.sparse_input import as_csr
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.core.validation import check_count
from jaxcluster.datasets.base import DataError
from jaxcluster.datasets.dataframes import as_rows
from jaxcluster.estimators.base import Estimator
from jaxcluster.estimators.input_tables import term_weights
from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.ops.metric_space import unit_rows
from jaxcluster.report.readable import Columns, names_of, readable_columns
from jaxcluster.report.rules import Rule, fit_rules
from jaxcluster.report.scores import silhouette_metric
from jaxcluster.report.sparse_profiles import Term, sparse_columns, sparse_distances

MOST_DIFFERENCES, MOST_WORDS = 10, 20
"""Columns of `ClusterProfile.differences`, and words of a column that are counted one by one."""

OUTLIER_RANGES = 1.5
"""Interquartile ranges above the third quartile of the distances from which a row is an outlier (Tukey's fences)."""

TILE_ENTRIES = 1 << 24
"""Entries of the differences of rows to their centers that are held at a time."""


class Difference(NamedTuple):
    """A column in which a cluster differs from the other rows.

    Attributes:
        column: name; ``column=word`` for the share of a word.
        center: mean of the cluster, in the units of the table, or share of the word in it.
        rest: mean of all other rows.
        difference: (center − rest) / standard deviation of all rows.
    """

    column: str
    center: float
    rest: float
    difference: float


class Share(NamedTuple):
    """Share of a word among the cells of a column that are not missing, in a cluster and in all rows."""

    word: str
    cluster: float
    all: float


class Row(NamedTuple):
    """A row of the table: number from 0, its name or None, and the number that it was chosen by."""

    row: int
    name: Any
    value: float


@dataclass(frozen=True)
class ClusterProfile:
    """Profile of one cluster.

    Attributes:
        label: of the cluster.
        size: number of rows.
        share: of all rows, noise included.
        silhouette: mean silhouette of its rows; None where it is not defined.
        center: mean of each column of numbers, in the units of the table, missing cells apart; of sparse rows the
            columns in which clusters differ most.
        differences: columns that set it apart, the greatest difference first.
        words: shares of the words of each column, the commonest in the cluster first.
        rules: leaves of the tree in which it is the commonest cluster, the largest first.
        terms: of sparse rows, such as texts, the columns with the greatest means; empty for others.
        typical: rows nearest to the mean of the cluster, and their distance as clustered.
        border: rows of the least silhouette, and that silhouette.
        outliers: rows far from the others: by HDBSCAN's outlier score, else by the distance to the mean of the cluster
            (above Q3 + 1.5 IQR of the cluster), with that number.
    """

    label: int
    size: int
    share: float
    silhouette: float | None
    center: dict[str, float | None]
    differences: list[Difference]
    words: dict[str, list[Share]]
    rules: list[Rule]
    terms: list[Term]
    typical: list[Row]
    border: list[Row]
    outliers: list[Row]


@dataclass(frozen=True, repr=False)
class Profile:
    """Profile of all clusters; ``print`` shows it as text, a notebook as a table.

    Attributes:
        clusters: in the order of their labels.
        n_rows: number of rows.
        noise: number of rows in no cluster.
        silhouette: mean silhouette of rows in clusters; None where it is not defined.
        depth: of the tree; 0 without one.
        accuracy: share of rows in clusters that the tree puts into their own.
        dates: columns whose numbers are days since 1970-01-01.
    """

    clusters: list[ClusterProfile]
    n_rows: int
    noise: int
    silhouette: float | None
    depth: int
    accuracy: float | None
    dates: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and text, for JSON."""
        shown = asdict(self)
        for plain, cluster in zip(shown["clusters"], self.clusters, strict=True):
            plain["differences"] = [each._asdict() for each in cluster.differences]
            plain["words"] = {name: [each._asdict() for each in counted] for name, counted in cluster.words.items()}
            plain["terms"] = [each._asdict() for each in cluster.terms]
            plain["rules"] = [each.to_dict() for each in cluster.rules]
            for name in ("typical", "border", "outliers"):
                plain[name] = [each._asdict() for each in getattr(cluster, name)]
        return shown

    def __repr__(self) -> str:
        return f"<Profile of {self.n_rows:,} rows in {len(self.clusters):,} clusters; print shows it>"

    def __str__(self) -> str:
        from jaxcluster.report.profile_view import as_text

        return "\n".join(map(printable, as_text(self).split("\n")))

    def _repr_html_(self) -> str:
        from jaxcluster.report.profile_view import as_html

        return valid_html(as_html(self))


def profile(
    model: Any,
    X: Any,
    *,
    labels: Any = None,
    table: Any = None,
    columns: Sequence[str] | None = None,
    ids: Any = None,
    depth: int | None = None,
    n_rows: int = 3,
) -> Profile:
    """Profile of the clusters of a fitted estimator.

    Each row counts once, whatever its weight. Noise is in no cluster, and among "all rows" of shares and differences.

    Args:
        model: fitted estimator.
        X: (n_samples, n_features) the rows of the fit, dense or sparse; others with ``labels``. Silhouettes and
            distances are of the rows as the model clusters them.
        labels: (n_samples,) clusters of the rows, -1 for noise; ``model.labels_`` by default.
        table: the same rows as a person reads them, in place of ``X``: a table of pandas, a mapping of columns by name,
            or an array. Columns of words are counted, those of numbers averaged.
        columns: names of the columns of an array.
        ids: (n_samples,) names of the rows.
        depth: of the tree of rules; 2 for up to 3 clusters, else 3.
        n_rows: most typical rows, border rows and outliers of a cluster.

    Returns:
        `Profile`.

    Raises:
        ValueError: labels, names or a table of another number of rows; rows without a cluster at all.
        NotFittedError: before a fit; TypeError: a model without labels, and none given.
    """
    if labels is None and not hasattr(model, "labels_"):
        check_is_fitted(model)
        raise TypeError(f"{type(model).__name__} has no labels_ to profile. Pass labels=.")
    labels = narrow_labels(model.labels_ if labels is None else labels)
    if labels.dtype.kind not in "iuf" or not np.array_equal(labels, np.round(labels)):
        raise DataError("labels of a profile must be whole numbers, -1 for noise. Number the clusters from 0.")
    depth, n_rows = depth if depth is None else check_count("depth", depth), n_rows and check_count("n_rows", n_rows)
    X = as_rows(X)
    X = term_weights(model, X) if isinstance(model, Estimator) else X
    described, terms = _described(model, X, labels, table, columns)
    _check_lengths(labels, X, ids, described)
    names = np.unique(labels[labels >= 0]).tolist()
    if not names:
        raise DataError("every row is noise: there is no cluster to profile.")
    silhouettes, distances = _silhouettes(model, X, labels), _distances(model, X, labels)
    features = {**described.numbers, **_indicators(described.words)}
    depth = (2 if len(names) <= 3 else 3) if depth is None else depth
    several = len(names) > 1
    rules, accuracy = fit_rules(features, described.words, described.dates, labels, depth) if several else ([], None)
    rows = _RowChoice(labels, silhouettes, distances, _outlier_scores(model, len(labels)), ids, n_rows)
    clusters = _cluster_profiles(names, labels, silhouettes, described, features, rules, terms, rows)
    kept = silhouettes[np.isfinite(silhouettes)]
    mean = float(kept.mean()) if kept.size else None
    noise = int((labels < 0).sum())
    return Profile(clusters, len(labels), noise, mean, depth if rules else 0, accuracy, sorted(described.dates))


def _described(
    model: Any, X: Any, labels: np.ndarray, table: Any, columns: Sequence[str] | None
) -> tuple[Columns, list[list[Term]] | None]:
    """Columns as a person reads them, and the terms of each cluster where the rows are sparse."""
    if table is None and is_sparse(X) and X.shape[0] == len(labels) and (labels >= 0).any():
        names = columns if columns is not None else names_of(model, X.shape[1])
        numbers, terms = sparse_columns(X, names, labels)
        return Columns(numbers, {}, frozenset()), terms
    return readable_columns(model, X if table is None else table, columns), None


def _check_lengths(labels: np.ndarray, X: Any, ids: Any, described: Columns) -> None:
    """Raise DataError for rows, names or columns of another number than the labels."""
    n = len(labels)
    lengths = {"X": np.shape(X)[0], "ids": n if ids is None else len(ids)}
    parts = {**described.numbers, **described.words}
    lengths |= {f"column {name!r} of the table": len(column) for name, column in parts.items()}
    for name, length in lengths.items():
        if length != n:
            raise DataError(f"{name} has {length:,} rows for {n:,} labels: one each is needed. New rows need labels=.")


def _outlier_scores(model: Any, n: int) -> Any:
    """(n_samples,) outlier scores of a fit, None for methods without any and for new rows."""
    scores = getattr(model, "outlier_scores_", None)
    return scores if scores is not None and len(scores) == n else None


def _cluster_profiles(
    names: list[int],
    labels: np.ndarray,
    silhouettes: np.ndarray,
    described: Columns,
    features: Mapping[str, np.ndarray],
    rules: list[Rule],
    terms: list[list[Term]] | None,
    rows: _RowChoice,
) -> list[ClusterProfile]:
    """The profile of each cluster, in the order of ``names``."""
    k = len(names)
    codes = np.where(labels < 0, k, np.searchsorted(names, labels))
    means = {each: _means(column, codes, k) for each, column in features.items()}
    shares_of = {each: _word_shares(column, codes, k) for each, column in described.words.items()}
    clusters = []
    for j, name in enumerate(names):
        inside = labels == name
        own = silhouettes[inside]
        clusters.append(
            ClusterProfile(
                label=name,
                size=int(inside.sum()),
                share=float(inside.mean()),
                silhouette=float(np.nanmean(own)) if np.isfinite(own).any() else None,
                center={each: _finite(means[each].cluster[j]) for each in described.numbers},
                differences=_differences(means, j),
                words={each: counted[j] for each, counted in shares_of.items()},
                rules=sorted((rule for rule in rules if rule.label == name), key=lambda rule: -rule.own),
                terms=[] if terms is None else terms[j],
                typical=rows.typical(name),
                border=rows.border(name),
                outliers=rows.outliers(name),
            )
        )
    return clusters


def _space(model: Any, X: Any) -> np.ndarray | None:
    """(n_samples, n_coordinates) rows as they are clustered: codes of a network; None for a matrix of distances."""
    if silhouette_metric(model)[0] == "precomputed":
        return None
    if getattr(getattr(model, "info", None), "family", "") == "deep":
        return np.asarray(model.transform(X), np.float64)
    x = np.asarray(clustered_rows(model, X), np.float64)
    if silhouette_metric(model)[0] == "cosine":
        x = np.asarray(unit_rows(x), np.float64)
    means = np.nanmean(x, axis=0) if np.isnan(x).any() else 0
    return np.where(np.isnan(x), means, x)


def clustered_rows(model: Any, X: Any) -> Any:
    """Rows in the units in which the model clusters them."""
    if not isinstance(model, Estimator):
        return X if is_sparse(X) else np.asarray(X)
    if is_sparse(X) and silhouette_metric(model)[0] != "precomputed":
        return model._validate(X, reset=False)
    mixed: Any = None if model.reading_options() is None else model
    return model._to_numeric(X, reset=False) if mixed is None else mixed.embed(X)[0]


def _silhouettes(model: Any, X: Any, labels: np.ndarray) -> np.ndarray:
    """(n_samples,) silhouettes, NaN for noise, for rows that were not drawn, and where they are not defined."""
    shown = np.full(len(labels), np.nan)
    metric, p = silhouette_metric(model)
    inside = np.flatnonzero(labels >= 0)
    rows = inside[model_selection.sampled_rows(len(inside))]
    x = clustered_rows(model, X)
    x: Any = as_csr(x) if is_sparse(x) else np.asarray(x)
    if not is_sparse(x) and np.isnan(x).any():
        return shown
    if not 2 <= len(np.unique(labels[rows])) < len(rows):
        return shown
    x = x[np.ix_(rows, rows)] if metric == "precomputed" else x[rows]
    shown[rows] = metrics.silhouette_samples(x, labels[rows], metric=metric, p=p)
    return shown


def _distances(model: Any, X: Any, labels: np.ndarray) -> np.ndarray:
    """(n_samples,) Euclidean distance to the mean of the cluster; NaN for noise and without coordinates."""
    distances, metric = np.full(len(labels), np.nan), silhouette_metric(model)[0]
    if is_sparse(X) and metric != "precomputed":
        return sparse_distances(clustered_rows(model, X), labels, cosine=metric == "cosine")
    space = _space(model, X)
    if space is None:
        return distances
    for name in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == name)
        step = max(1, TILE_ENTRIES // space.shape[1])
        origin = space[rows[0]]  # sums of numbers near 1e9 would lose the digits that differ
        mean = sum((space[rows[i : i + step]] - origin).sum(axis=0) for i in range(0, len(rows), step)) / len(rows)
        for i in range(0, len(rows), step):
            at = rows[i : i + step]
            distances[at] = np.linalg.norm(space[at] - origin - mean, axis=1)
    return distances


def _indicators(words: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A column of 0 and 1 for each of the commonest words, NaN for missing cells."""
    columns = {}
    for name, column in words.items():
        missing = np.array([cell is None for cell in column])
        distinct, counts = np.unique(column[~missing].astype(str), return_counts=True)
        # Of two words one says all.
        chosen = distinct[-1:] if len(distinct) == 2 else distinct[np.argsort(-counts, kind="stable")][:MOST_WORDS]
        for word in chosen.tolist():
            columns[f"{name}={word}"] = np.where(missing, np.nan, (column == word).astype(np.float64))
    return columns


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


class Means(NamedTuple):
    """Means of a column.

    Attributes:
        cluster: (n_clusters,) of the cells of each cluster that are not missing, NaN where all are.
        rest: (n_clusters,) of all other cells.
        deviation: standard deviation of all cells; 0 for a constant column.
    """

    cluster: np.ndarray
    rest: np.ndarray
    deviation: float


def _means(column: np.ndarray, codes: np.ndarray, k: int) -> Means:
    """Means of a column, in one pass over its cells; code k stands for noise."""
    known = np.isfinite(column)
    cells, codes = column[known], codes[known]
    if not cells.size:
        return Means(np.full(k, np.nan), np.full(k, np.nan), 0.0)
    # Relative to a cell of the same cluster: sums of numbers near 1e9 would lose the digits that differ.
    origins = np.zeros(k + 1)
    origins[codes] = cells
    counts = np.bincount(codes, minlength=k + 1)
    with np.errstate(invalid="ignore"):  # clusters without any cell have no mean
        means = origins + np.bincount(codes, cells - origins[codes], minlength=k + 1) / counts
    # Sums of those before and those behind: the sum of all would lose its digits where a far cluster is subtracted.
    parts = np.where(counts > 0, counts * (means - cells[0]), 0.0)
    others = np.r_[0.0, np.cumsum(parts[:-1])] + np.r_[np.cumsum(parts[:0:-1])[::-1], 0.0]
    with np.errstate(invalid="ignore"):
        rest = cells[0] + others / (len(cells) - counts)
    # In units of the range: squares of large or small numbers would over- or underflow.
    width = float(np.ptp(cells))
    deviation = float(np.std((cells - cells[0]) / width)) * width if width > 0 else 0.0
    return Means(means[:k], rest[:k], deviation)


def _differences(means: Mapping[str, Means], cluster: int) -> list[Difference]:
    found = []
    for name, column in means.items():
        center, rest = float(column.cluster[cluster]), float(column.rest[cluster])
        if column.deviation > 0 and np.isfinite(center) and np.isfinite(rest):
            found.append(Difference(name, center, rest, (center - rest) / column.deviation))
    return sorted(found, key=lambda each: -abs(each.difference))[:MOST_DIFFERENCES]


def _word_shares(column: np.ndarray, codes: np.ndarray, k: int) -> list[list[Share]]:
    """Shares of the words of a column in each cluster, the commonest first; code k stands for noise."""
    known = np.array([cell is not None for cell in column])
    words, index = np.unique(column[known].astype(str), return_inverse=True)
    m = len(words)
    counts = np.bincount(codes[known] * m + index.ravel(), minlength=(k + 1) * m).reshape(k + 1, m)
    everything = counts.sum(axis=0) / max(1, counts.sum())
    return [
        [
            Share(str(words[i]), float(own[i] / own.sum()), float(everything[i]))
            for i in np.argsort(-own, kind="stable")[:MOST_DIFFERENCES]
            if own[i]
        ]
        for own in counts[:k]
    ]


class _RowChoice(NamedTuple):
    """Choice of the rows that stand for a cluster.

    Attributes:
        labels: (n_samples,) clusters.
        silhouettes: (n_samples,) NaN where one is not defined.
        distances: (n_samples,) to the mean of the cluster; NaN for noise.
        scores: (n_samples,) outlier scores; None for the distances in their place.
        ids: (n_samples,) names of the rows, or None.
        most: rows of a kind.
    """

    labels: np.ndarray
    silhouettes: np.ndarray
    distances: np.ndarray
    scores: Any
    ids: Any
    most: int

    def typical(self, cluster: int) -> list[Row]:
        """The rows nearest to the mean."""
        return self._least(self.distances, self._rows_of(cluster, self.distances))

    def border(self, cluster: int) -> list[Row]:
        """The rows of the least silhouette."""
        return self._least(self.silhouettes, self._rows_of(cluster, self.silhouettes))

    def outliers(self, cluster: int) -> list[Row]:
        """Rows above Tukey's upper fence, the farthest first."""
        values = self.distances if self.scores is None else np.asarray(self.scores, np.float64)
        known = self._rows_of(cluster, values)
        if not len(known):
            return []
        first, third = np.quantile(values[known], [0.25, 0.75])
        far = known[values[known] > third + OUTLIER_RANGES * (third - first)]
        return [each._replace(value=-each.value) for each in self._least(-values, far)]

    def _rows_of(self, cluster, values):
        return np.flatnonzero((self.labels == cluster) & np.isfinite(values))

    def _least(self, values, rows):
        chosen = rows[np.argsort(values[rows], kind="stable")[: self.most]]
        names = [None] * len(chosen) if self.ids is None else np.asarray(self.ids)[chosen].tolist()
        return [Row(*each) for each in zip(chosen.tolist(), names, values[chosen].tolist(), strict=True)]

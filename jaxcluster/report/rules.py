"""Rules that tell clusters apart: the leaves of a shallow decision tree, in the units and words of the data."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcluster.datasets.dates import date_text

MAX_TREE_ROWS = 100_000
"""Rows that the tree is grown on, drawn at random from more; its leaves are counted on all rows."""


class Condition(NamedTuple):
    """A condition of a rule.

    Attributes:
        column: name.
        above, up_to: bounds of a number, above < number <= up_to, or None.
        word, is_not: of a column of words: the cell is this word, or is not.
        is_date: the bounds are days since 1970-01-01.
    """

    column: str
    above: float | None = None
    up_to: float | None = None
    word: str | None = None
    is_not: bool = False
    is_date: bool = False

    def __str__(self) -> str:
        if self.word is not None:
            return f"{self.column} is {'not ' * self.is_not}{self.word}"
        above, up_to = (
            None if bound is None else date_text(bound) if self.is_date else f"{bound:.15g}"
            for bound in (self.above, self.up_to)
        )
        if above is not None and up_to is not None:
            return f"{above} < {self.column} <= {up_to}"
        return f"{self.column} <= {up_to}" if above is None else f"{self.column} > {above}"


Path = tuple[Condition, ...]
"""Conditions from the root of a tree to a node."""


class Rule(NamedTuple):
    """A leaf of the tree.

    Attributes:
        label: the commonest cluster of its rows.
        conditions: all of which its rows fulfill.
        own: number of its rows that are of that cluster.
        size: number of its rows, noise apart.
        cluster_size: number of rows of that cluster.
    """

    label: int
    conditions: Path
    own: int
    size: int
    cluster_size: int

    def __str__(self) -> str:
        words = " and ".join(map(str, self.conditions))
        others = self.size - self.own
        return f"{words}: {self.own:,} of {self.cluster_size:,} rows, and {others:,} other{'s' * (others != 1)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self._asdict(), "conditions": [each._asdict() for each in self.conditions], "text": str(self)}


def fit_rules(
    features: Mapping[str, np.ndarray],
    words: Mapping[str, np.ndarray],
    dates: Collection[str],
    labels: np.ndarray,
    depth: int,
) -> tuple[list[Rule], float | None]:
    """Grow a tree on the rows in clusters, and read its leaves.

    Args:
        features: (n_samples,) columns by name, ``column=word`` for words; a missing cell counts as the median.
        words: columns of words by name.
        dates: names of the columns of dates.
        labels: (n_samples,), negative for noise.
        depth: of the tree.

    Returns:
        The leaves as rules, and the share of rows in clusters that the tree puts into their own; None without columns.
    """
    from sklearn.tree import DecisionTreeClassifier

    inside = labels >= 0
    labels, columns = labels[inside], {name: _filled(column[inside]) for name, column in features.items()}
    if not columns:
        return [], None
    # The tree rounds to float32: relative to their median columns keep the digits that differ.
    origins = {name: (float(np.median(column)), float(np.ptp(column)) or 1.0) for name, column in columns.items()}
    x = np.column_stack([(column - origins[name][0]) / origins[name][1] for name, column in columns.items()])
    rows = np.random.default_rng(0).permutation(len(x))[:MAX_TREE_ROWS]
    with warnings.catch_warnings():
        # Clusters are classes, however many there are.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(x[rows], labels[rows]).tree_
    rules = []

    def narrowed(path: Path, name: str, **bounds: Any) -> Path:
        """Conditions with one more, joined with that on the same column."""
        column = next((each for each in words if name not in words and name.startswith(f"{each}=")), None)
        if column is not None:
            return (*path, Condition(column, word=name.removeprefix(f"{column}="), is_not="up_to" in bounds))
        earlier = next((each for each in path if each.column == name and each.word is None), None)
        if earlier is None:
            return (*path, Condition(name, **bounds, is_date=name in dates))
        return tuple(each._replace(**bounds) if each is earlier else each for each in path)

    def visit(node: int, mask: np.ndarray, path: Path) -> None:
        if tree.children_left[node] < 0:
            if path and mask.any():
                names, counts = np.unique(labels[mask], return_counts=True)
                label, own = int(names[counts.argmax()]), int(counts.max())
                rules.append(Rule(label, path, own, int(mask.sum()), int((labels == label).sum())))
            return
        name = list(columns)[tree.feature[node]]
        origin, width = origins[name]
        bound = origin + width * float(tree.threshold[node])
        bound = _short_bound(columns[name][mask], bound, whole=name in dates)
        below = columns[name] <= bound
        visit(int(tree.children_left[node]), mask & below, narrowed(path, name, up_to=bound))
        visit(int(tree.children_right[node]), mask & ~below, narrowed(path, name, above=bound))

    visit(0, np.ones(len(labels), bool), ())
    return rules, (sum(rule.own for rule in rules) / len(labels) if rules else None)


def _filled(column: np.ndarray) -> np.ndarray:
    known = column[np.isfinite(column)]
    return np.where(np.isfinite(column), column, np.median(known) if known.size else 0.0)


def _short_bound(cells: np.ndarray, bound: float, *, whole: bool = False) -> float:
    """The number of fewest digits that parts the cells as ``bound`` does, or a whole one if there is any."""
    below, above = cells[cells <= bound], cells[cells > bound]
    if not (below.size and above.size):
        return bound
    least, most = float(below.max()), float(above.min())
    # Any bound from the greatest cell below up to the least above parts the cells alike.
    middle = (least + most) / 2
    for digits in range(1 if whole else 2, 17):
        short = float(round(middle)) if digits == 1 else float(f"{middle:.{digits}g}")
        if least <= short < most:
            return short
    return least

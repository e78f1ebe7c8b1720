"""Tables of numbers and categories: the data of the cases, k-prototypes and medoids by Gower's distance in each peer.

Half the columns are numbers, the others codes of categories.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

import numpy as np

from bench.cases import Case
from bench.peers import GOWER, KMODES, Answer, Call

CATEGORIES = 8
"""Categories of a column."""

SWITCHED = 0.3
"""Share of the categories that are drawn anew, whatever the cluster."""

GAMMA = 0.5
"""Cost of a mismatch in k-prototypes: half the standard deviation of a number."""


class MixedRows(NamedTuple):
    """Rows of numbers and categories.

    Attributes:
        numbers: (n, d) float64.
        codes: (n, q) int32.
    """

    numbers: np.ndarray
    codes: np.ndarray

    @property
    def table(self) -> np.ndarray:
        """(n, d + q) float64, the numbers and then the codes."""
        return np.column_stack([self.numbers, self.codes])

    @property
    def categorical(self) -> list[int]:
        """Positions of the codes in the table."""
        d = self.numbers.shape[1]
        return list(range(d, d + self.codes.shape[1]))


def mixed(case: Case) -> MixedRows:
    """Rows around k centers, the numbers in clear blobs, the categories mostly those of the cluster."""
    rng = np.random.default_rng(0)
    q = case.d // 2
    truth = rng.integers(case.k, size=case.n)
    centers = rng.uniform(-10, 10, (case.k, case.d - q))
    usual = rng.integers(CATEGORIES, size=(case.k, q))
    drawn = rng.integers(CATEGORIES, size=(case.n, q))
    codes = np.where(rng.random((case.n, q)) < SWITCHED, drawn, usual[truth])
    return MixedRows(centers[truth] + rng.standard_normal((case.n, case.d - q)), codes.astype(np.int32))


def first_of_each(rows: MixedRows, k: int) -> np.ndarray:
    """Numbers of k rows that are far from each other, to start every side from."""
    x = rows.numbers
    chosen = [0]
    while len(chosen) < k:
        chosen.append(int(np.square(x[:, None] - x[chosen]).sum(-1).min(1).argmax()))
    return np.array(chosen, np.int64)


def kmodes_prototypes(rows: MixedRows, start: np.ndarray) -> Call:
    """k-prototypes in the kmodes package, which updates a prototype after each row that it moves."""
    fit = importlib.import_module("kmodes.kprototypes").KPrototypes
    table, init = rows.table, [rows.numbers[start], rows.codes[start].astype(float)]

    def call() -> Answer:
        model = fit(len(start), init=init, n_init=1, gamma=GAMMA).fit(table, categorical=rows.categorical)
        return Answer(float(model.cost_))

    return call


def gower_medoids(rows: MixedRows, start: np.ndarray) -> Call | None:
    """FasterPAM of the kmedoids package on the distances of the gower package; None without kmedoids."""
    if importlib.util.find_spec("kmedoids") is None:
        return None
    matrix, fasterpam = importlib.import_module("gower").gower_matrix, importlib.import_module("kmedoids").fasterpam
    table = rows.table
    mask = np.isin(np.arange(table.shape[1]), rows.categorical)

    def call() -> Answer:
        return Answer(float(fasterpam(matrix(table, cat_features=mask.tolist()), start.astype(np.uint64)).loss))

    return call


PROTOTYPES = {KMODES: kmodes_prototypes}
MEDOIDS = {GOWER: gower_medoids}

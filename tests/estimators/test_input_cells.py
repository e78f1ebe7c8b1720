"""docs/inputs.md is true: each input that it says an estimator takes passes, and others get an error with a remedy."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from algorithms import make

from bench import inputs
from jaxcluster.core.sources import ArraySource
from jaxcluster.estimators import ESTIMATORS

X = np.arange(36.0).reshape(12, 3) % 7
HOLES = np.where(np.eye(12, 3, dtype=bool), np.nan, X)
WORDS = pd.DataFrame(X, columns=list("abc")).assign(a=np.where(X[:, 0] > 3, "red", "blue"))

ROWS = {
    "sparse": scipy.sparse.csr_array(X),
    "missing": HOLES,
    "categories": WORDS,
    "sources": ArraySource(X),
}

REMEDIES = {
    "sparse": r"\.toarray\(\)",
    "missing": r"[Ii]mpute|Drop|drop|fill|[Ww]rite a word",
    "categories": "Encode or drop such columns",
    "sources": r"np\.concatenate|in memory",
}


def estimator(name, kind):
    needs = ESTIMATORS.info(name).needs.get(kind, {})
    return make(name, 2, **{parameter: next(iter(values)) for parameter, values in needs.items()})


def read(fit, rows):
    """Samples as the fit of an estimator reads them."""
    return getattr(fit, "_rows_or_distances", fit._validate)(rows, reset=True)


@pytest.mark.parametrize(("name", "kind"), list(itertools.product(ESTIMATORS, ROWS)))
def test_inputs_are_taken_or_get_a_remedy(name, kind):
    info, fit = ESTIMATORS.info(name), estimator(name, kind)
    if not info.takes(kind):
        with pytest.raises((ValueError, TypeError), match=REMEDIES[kind]):
            fit.fit(ROWS[kind])
    elif info.takes_categories and kind != "sources":
        assert len(fit.fit(ROWS[kind]).labels_) == 12
    else:
        rows = read(fit, ROWS[kind])
        assert rows.shape[0] == 12
        assert rows is ROWS[kind] if kind == "sources" else scipy.sparse.issparse(rows) == (kind == "sparse")


NUMERIC = [name for name in ESTIMATORS if not ESTIMATORS.info(name).takes_categories]


@pytest.mark.parametrize("name", NUMERIC)
def test_numbers_of_every_width_are_taken(name):
    for dtype in inputs.NUMBERS:
        rows = read(estimator(name, "dense"), X.astype(dtype))
        np.testing.assert_array_equal(rows, X.astype(dtype))


def arrow(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame)


def polars(frame):
    return pytest.importorskip("polars").from_pandas(frame)


@pytest.mark.parametrize("convert", [pd.DataFrame, arrow, polars])
def test_tables_keep_the_names_of_their_columns(convert):
    table = convert(pd.DataFrame(X, columns=list("abc")))
    for name in NUMERIC:
        fit = estimator(name, "dense")
        np.testing.assert_array_equal(read(fit, table), X)
        assert list(fit.feature_names_in_) == list("abc")


def test_the_page_is_that_of_the_registry(tmp_path, capsys):
    assert inputs.main(["--check"]) == 0
    page = tmp_path / "inputs.md"
    page.write_text("old")
    assert inputs.main(["--check", "--page", str(page)]) == 1
    assert "run python -m bench.inputs" in capsys.readouterr().err
    assert inputs.main(["--page", str(page)]) == 0
    assert page.read_text() == inputs.PAGE.read_text()

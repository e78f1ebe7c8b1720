"""What an estimator is given in place of a table of numbers is named."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcluster import KMeans


@pytest.mark.parametrize(
    ("X", "told"),
    [
        (None, "X is None, not a table. Pass rows by columns"),
        ("rows.csv", "X is of type str, not a table"),
        ({"a": [1.0, 2.0]}, "X is of type dict, not a table"),
        ((row for row in [[1.0], [2.0]]), "X is of type generator, not a table"),
    ],
)
def test_what_is_no_table(X, told):
    with pytest.raises(ValueError, match=told):
        KMeans(2).fit(X)


def test_columns_of_a_data_frame():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="X has no columns"):
        KMeans(2).fit(pandas.DataFrame())
    with pytest.raises(ValueError, match="X has more than one column of the name 'a'. Rename them."):
        KMeans(2).fit(pandas.DataFrame(np.eye(3), columns=["a", "b", "a"]))

"""What an estimator is given in place of a table of numbers is named."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcluster import KMeans, kmeans


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


def test_columns_in_another_order_are_named_in_one_sentence():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.eye(3), columns=["a", "b", "c"])
    model = KMeans(2, random_state=0).fit(table)
    for wrong, told in (
        (table[["b", "a", "c"]], "the columns come as 'b', 'a', 'c', not as 'a', 'b', 'c'. Pass X"),
        (table[["a"]], "'b', 'c' missing. Pass the columns of the fit"),
        (table.rename(columns={"b": "d"}), "'b' missing and 'd' new. Pass the columns of the fit"),
        (table.assign(d=1.0), r"'d' new. Pass X\[list\(model.feature_names_in_\)\]"),
    ):
        with pytest.raises(ValueError, match=f"^The feature names should match .* during fit: {told}") as error:
            model.predict(wrong)
        assert "\n" not in str(error.value)
    np.testing.assert_array_equal(model.predict(table), model.labels_)


def test_numbers_as_text():
    text = np.array([["1", "2"], ["3", "4"]])
    with pytest.raises(ValueError, match=r"^X holds numbers as text, such as '1': pass X.astype\(float\)\.$"):
        KMeans(2).fit(text)
    with pytest.raises(ValueError, match=r"^X holds numbers as text, such as '1': pass np.array\(X\).astype\(float\)"):
        KMeans(2).fit(text.tolist())
    with pytest.raises(TypeError, match=r"x has dtype <U1, which is text, not numeric. Pass x.astype\(float\)"):
        kmeans.fit(jax.random.key(0), text, 2)

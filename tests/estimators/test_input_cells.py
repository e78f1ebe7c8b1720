"""docs/inputs.md is true: each input that it says an estimator takes passes, and others get an error with a remedy."""

from __future__ import annotations

import datetime
import itertools
from decimal import Decimal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from algorithms import make
from sklearn.base import clone
from sklearn.pipeline import FeatureUnion, make_pipeline

from bench import inputs
from jaxcluster import KMeans, KModes, kmeans
from jaxcluster.core.sources import ArraySource
from jaxcluster.datasets.dataframes import as_rows, number_matrix
from jaxcluster.estimators import ESTIMATORS
from jaxcluster.preprocessing import StandardScaler

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
    return pa.Table.from_pandas(frame)


def polars(frame):
    return pytest.importorskip("polars").from_pandas(frame)


def lazy(frame):
    return polars(frame).lazy()


class OfArrow:
    """A table of a library that narwhals does not know, which gives its columns in Arrow's C layout."""

    def __init__(self, frame):
        self.table = arrow(frame)

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("convert", [pd.DataFrame, arrow, polars, lazy, nw.from_native, OfArrow])
def test_tables_keep_the_names_of_their_columns(convert):
    table = convert(pd.DataFrame(X, columns=list("abc")))
    for name in NUMERIC if convert is not OfArrow else NUMERIC[:1]:
        fit = estimator(name, "dense")
        np.testing.assert_array_equal(read(fit, table), X)
        assert list(fit.feature_names_in_) == list("abc")


def test_jax_arrays_stay_on_their_device():
    x = jax.device_put(X.astype(np.float32), jax.devices()[1])
    for name in NUMERIC:
        assert read(estimator(name, "dense"), x) is x
    integers = read(KMeans(2), x.astype(int))  # whose differences are taken in float64
    assert isinstance(integers, np.ndarray)
    model = KMeans(2, random_state=0).fit(x)
    np.testing.assert_array_equal(model.labels_, KMeans(2, random_state=0).fit(np.asarray(x)).labels_)
    assert isinstance(model.transform(np.asarray(x)), np.ndarray)
    for rows in (model.transform(x), clone(model).fit_transform(x), StandardScaler().fit_transform(x)):
        assert isinstance(rows, jax.Array)
        assert rows.devices() == x.devices()


def test_set_output_gives_jax_arrays():
    for transformer in (StandardScaler(), KMeans(2, random_state=0)):
        pipeline = make_pipeline(transformer).set_output(transform="jax")
        rows = pipeline.fit_transform(pd.DataFrame(X, columns=list("abc")))
        assert isinstance(rows, jax.Array)
        np.testing.assert_allclose(rows, clone(transformer).fit_transform(X), rtol=1e-6, atol=1e-6)
    both = FeatureUnion([("a", StandardScaler()), ("b", StandardScaler())]).set_output(transform="jax").fit_transform(X)
    assert isinstance(both, jax.Array)
    assert both.shape == (12, 6)


class Shared:
    """An array of another framework, on a device of its own."""

    def __init__(self, x, device=(1, 0), **attributes):
        self.x, self.device = x, device
        vars(self).update(attributes)

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)


def test_arrays_of_other_frameworks_are_shared():
    rows = read(KMeans(2), Shared(X))
    assert np.shares_memory(rows, X)
    half = jnp.asarray(X, jnp.bfloat16)
    np.testing.assert_array_equal(read(KMeans(2), Shared(half)), X)
    assert kmeans.fit(jax.random.key(0), Shared(X), 2).labels.shape == (12,)
    image = SimpleNamespace(__array_interface__=X.__array_interface__)  # as images share their pixels
    np.testing.assert_array_equal(read(KMeans(2), image), X)
    modes = KModes(2)
    modes._read(image, reset=True)
    assert modes.n_features_in_ == X.shape[1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            Shared(X, (2, 3)),
            "a test_input_cells.Shared on cuda device 3, and JAX has cpu devices. Move it to the host",
        ),
        (Shared(X, (8, 0)), r"on a Metal device, and JAX has cpu devices. Move it to the host, such as X\.cpu\(\)"),
        (Shared(X, requires_grad=True), r"needs a gradient, and a fit gives none. Pass X\.detach\(\)"),
        (Shared(object()), "a test_input_cells.Shared that cannot be shared"),
    ],
)
def test_arrays_that_cannot_be_shared_get_a_remedy(array, message):
    with pytest.raises(TypeError, match=message):
        KMeans(2).fit(array)


OBJECTS = {
    "mixed": ([1.5, "x", None], "text beside numbers in column 'c', such as 'x'. Replace it by numbers or missing"),
    "text": (["red", None, "x"], "text in column 'c', such as 'red'. Encode or drop such columns"),
    "digits": (["1.5", "2", None], "numbers as text in column 'c', such as '1.5'. Make them numbers"),
    "dates": (pd.to_datetime(["2020-01-01"] * 3), "dates or durations in column 'c', such as '2020-01-01"),
    "days": ([datetime.date(2020, 1, 1)] * 3, "dates or durations in column 'c', such as '2020-01-01'. Pass numbers"),
    "lists": ([[1.0], [2.0], [3.0]], r"objects of type list in column 'c', such as '\[1.0\]'. Pass one number in each"),
    "times": (
        pd.array([1, 2, None], dtype=pd.ArrowDtype(pa.time64("ns"))),
        "dates or durations in column 'c', such as '1 n",
    ),
    "huge": (pd.Series([10**400, 1, 2], dtype=object), "integers beyond float64 in column 'c'"),
    "complex": ([1j, 1, 2], "complex in column 'c'. Complex data not supported"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_columns_that_are_no_numbers_are_named(kind):
    cells, message = OBJECTS[kind]
    with pytest.raises((ValueError, TypeError), match=f"X (has|holds|is) {message}"):
        KMeans(2).fit(pd.DataFrame({"a": [0.0, 1, 2], "c": cells}))


def test_columns_of_numbers_keep_their_types():
    table = pd.DataFrame(
        {
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "flags": [True, False, True],
            "objects": np.array([1, 2.5, None], object),
            "codes": pd.Categorical([2, 1, 2]),
            "sparse": pd.arrays.SparseArray([0.0, 0, 1]),
            "decimals": pd.array([Decimal("0.5"), None, Decimal(2)], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        }
    )
    nan = np.nan
    np.testing.assert_array_equal(
        number_matrix(as_rows(table)), [[1, 1, 1, 2, 0, 0.5], [nan, 0, 2.5, 1, 0, nan], [3, 1, nan, 2, 1, 2]]
    )
    whole = number_matrix(as_rows(pa.table({"a": [2**60 + 1, 5], "b": [1, 2]})))
    assert whole.dtype == np.int64
    assert whole[0, 0] == 2**60 + 1
    pairs = pa.table({"v": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float64(), 2))})
    with pytest.raises(TypeError, match="objects of type ndarray in column 'v'"):
        number_matrix(as_rows(pairs))
    with pytest.raises(ValueError, match="more than one column of the name 'a'"):
        as_rows(pa.table([[1], [2]], names=["a", "a"]))


def test_the_page_is_that_of_the_registry(tmp_path, capsys):
    assert inputs.main(["--check"]) == 0
    page = tmp_path / "inputs.md"
    page.write_text("old")
    assert inputs.main(["--check", "--page", str(page)]) == 1
    assert "run python -m bench.inputs" in capsys.readouterr().err
    assert inputs.main(["--page", str(page)]) == 0
    assert page.read_text() == inputs.PAGE.read_text()

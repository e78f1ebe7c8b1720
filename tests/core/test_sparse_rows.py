"""Sparse rows hold what the matrix of the caller holds, whatever its format, and parts of them do too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sparse_problems import FORMATS, topics

from jaxcluster.core import memory, sparse_input
from jaxcluster.core.fold import fold_rows
from jaxcluster.core.sparse_input import as_csr, sparse_rows
from jaxcluster.core.sparse_rows import TAIL_WIDTH

X = topics(40, 300)
X[7, :200] = 1  # a row of many pieces beside those of a dozen entries


@pytest.fixture(autouse=True)
def small_matrices_have_a_tail(monkeypatch):
    monkeypatch.setattr(sparse_input, "SMALL_ENTRIES", 0)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_entries(name):
    given = FORMATS[name](X)
    stored = None if not scipy.sparse.issparse(given) or given.format not in ("csr", "coo") else given.data.copy()
    matrix = as_csr(given)
    np.testing.assert_array_equal(matrix.toarray(), X)
    assert matrix.has_canonical_format
    assert matrix.data.all()
    assert stored is None or np.array_equal(given.data, stored)
    np.testing.assert_array_equal(as_csr(sparse_rows(given)).toarray(), X)


def test_long_rows_go_on_in_the_tail():
    rows = sparse_rows(X)
    assert rows.shape == (40, 300)
    assert rows.values.shape[1] < 64
    assert int(rows.counts[7]) > int(np.median(rows.counts)) == 0
    assert rows.tail_values.shape == (int(np.sum(rows.counts)), TAIL_WIDTH)
    np.testing.assert_array_equal(rows.dense(), X)


def test_small_matrices_have_no_tail(monkeypatch):
    monkeypatch.undo()
    rows = sparse_rows(X)
    assert not rows.tail_values.size
    np.testing.assert_array_equal(rows.dense(), X)


@pytest.mark.parametrize("index", [[3], [7, 7, 5, 0], [39, 5, 7]])
def test_drawn_rows_have_their_tail(index):
    rows = sparse_rows(X)
    np.testing.assert_array_equal(rows[jnp.array(index)], X[index])
    drawn = rows.take(jnp.array(index))
    np.testing.assert_array_equal(drawn.take(jnp.array([0])).dense(), X[index[:1]])
    np.testing.assert_array_equal(drawn.largest(), X[index].max(axis=1))
    np.testing.assert_array_equal(drawn.scaled(jnp.full(len(index), 2.0)).dense(), 2 * X[index])


def test_tiles_have_their_tail():
    def tile(rows):
        x, weight = rows
        return jnp.sum(x.dense() * weight[:, None], axis=0), jnp.sum(x.dense(), axis=1)

    weight = np.arange(40, dtype=np.float32)
    total, sums = fold_rows(tile, (sparse_rows(X), jnp.asarray(weight)), tile=9)
    np.testing.assert_allclose(total, weight @ X, rtol=1e-5)
    np.testing.assert_allclose(sums, X.sum(axis=1), rtol=1e-5)


def test_rows_are_a_pytree_for_vmap():
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), sparse_rows(X))
    np.testing.assert_array_equal(jax.vmap(lambda rows: rows.dense())(both), np.stack([X, X]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (scipy.sparse.coo_array((np.array([100, 100], np.int8), ([0, 0], [1, 1])), (1, 2)), [[0, 200]]),
        (scipy.sparse.coo_array((np.array([True, True]), ([0, 0], [1, 1])), (1, 2)), [[0, 1]]),
        (scipy.sparse.csr_array((1, 2), dtype=np.float64), [[0, 0]]),
        (scipy.sparse.csr_array(np.array([[0, 1.5]], np.longdouble)), [[0, 1.5]]),
        (np.array([[0.0, 2.0]]), [[0, 2]]),
    ],
    ids=["int8", "bool", "no entries", "longdouble", "dense"],
)
def test_number_types(given, expected):
    np.testing.assert_array_equal(sparse_rows(given).dense(), expected)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (scipy.sparse.csr_array(np.array([[0, 1j]])), ValueError, "x is complex"),
        (scipy.sparse.csr_array((0, 3)), ValueError, "x has no rows"),
        (scipy.sparse.csr_array((3, 0)), ValueError, "x has no columns"),
        (
            scipy.sparse.csr_array(np.array([[0, np.nan, -np.inf]])),
            ValueError,
            "1 NaN and 1 infinity values in columns 1, 2",
        ),
        (scipy.sparse.coo_array(np.ones(3)), ValueError, r"must be 2-D \(rows, columns\), got shape \(3,\)"),
        (scipy.sparse.csr_array((2, 2**40)), ValueError, "1,099,511,627,776 columns; at most 2,147,483,647"),
        (FORMATS["BCOO"](X[None]), ValueError, r"must be|batch or dense dimensions"),
    ],
)
def test_bad_matrices_are_named(given, error, message):
    with pytest.raises(error, match=message):
        sparse_rows(given)


def test_a_traced_matrix_is_named():
    with pytest.raises(TypeError, match="Make SparseRows of it before: jaxcluster.sparse_rows"):
        jax.jit(sparse_rows)(FORMATS["BCOO"](X))


def test_rows_that_do_not_fit_are_named(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: memory.Available(1 << 20, "the machine"))
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    with pytest.raises(MemoryError, match="40 sparse rows in their layout take .* MB, and the machine has 1.0 MB left"):
        sparse_rows(np.ones((40, 20_000), np.float32))

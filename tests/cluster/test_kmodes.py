"""k-modes, against a loop in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import kmodes
from jaxcluster.sharding import fit_sharded
from jaxcluster.types import Status

K, SIZES = 3, (4, 3, 2, 3)

START = np.array([[0, 0, 0, 1], [1, 2, 1, 0], [3, 1, 0, 2]])


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    y = rng.integers(0, K, 80)
    codes = np.array([[0, 0, 0, 0], [1, 2, 1, 1], [3, 1, 1, 2]])[y]
    drawn = np.stack([rng.integers(0, size, 80) for size in SIZES], 1)
    return np.where(rng.random(codes.shape) < 0.3, drawn, codes).astype(np.int32), rng.integers(1, 4, 80).astype(float)


def alternate(codes, weights, modes):
    """Labels, modes and inertia after each step."""
    history, labels = [], (codes[:, None] != modes).sum(-1).argmin(1)
    while True:
        own = [labels == j for j in range(K)]
        modes = np.array([[np.bincount(codes[m, c], weights[m], s).argmax() for c, s in enumerate(SIZES)] for m in own])
        table = (codes[:, None] != modes).sum(-1)
        history.append(weights @ table.min(1))
        if (table.argmin(1) == labels).all():
            return labels, modes, history
        labels = table.argmin(1)


def test_fit_equals_a_loop_from_the_same_start(rows, key):
    codes, weights = rows
    fit = kmodes.fit(key, codes, K, weights=weights, init=START)
    labels, modes, history = alternate(codes, weights, START)
    np.testing.assert_array_equal(fit.labels, labels)
    np.testing.assert_array_equal(fit.state.centers, modes)
    np.testing.assert_array_equal(fit.history[: int(fit.steps)], history)
    assert (float(fit.state.inertia), int(fit.status)) == (history[-1], Status.CONVERGED)
    np.testing.assert_array_equal(kmodes.predict(fit.state.centers, codes), labels)
    assert float(kmodes.score(fit.state.centers, codes, weights=weights)) == -history[-1]
    repeated = kmodes.fit(key, np.repeat(codes, weights.astype(int), axis=0), K, init=START)
    np.testing.assert_array_equal(repeated.state.centers, modes)
    assert float(repeated.state.inertia) == history[-1]


def test_sharded_equals_single(rows, key):
    codes, weights = rows
    single = kmodes.fit(key, codes, K, weights=weights, init="cao")

    def of_shards(key, x, k, **options):
        return kmodes.fit(key, x.astype(jnp.int32), k, init="cao", n_categories=SIZES, **options)

    # An explicit axis, as `jax.make_mesh` makes unless told otherwise.
    mesh = jax.make_mesh((len(jax.devices()),), ("rows",))
    sharded = fit_sharded(of_shards, key, codes, K, weights=weights, mesh=mesh)
    np.testing.assert_array_equal(sharded.labels, single.labels)
    np.testing.assert_array_equal(sharded.state.centers, single.state.centers)


def test_a_category_that_no_mode_has_differs_from_all(rows):
    codes, _ = rows
    modes = codes[:K]
    new = codes[:10].copy()
    new[:, 0] = -2
    expected = (new[:, None, 1:] != modes[None, :, 1:]).sum(-1).argmin(1)
    np.testing.assert_array_equal(kmodes.predict(modes, new), expected)


def test_traced_codes_need_their_numbers_of_categories(rows, key):
    with pytest.raises(ValueError, match="codes is traced.*pass n_categories="):
        jax.jit(lambda codes: kmodes.fit(key, codes, K))(rows[0])
    with pytest.raises(ValueError, match="x has 1 masked entries"):
        kmodes.fit(key, np.ma.masked_equal([[1, 0], [2, 0]], 2), 2)
    with pytest.raises(ValueError, match="x is no table: its rows have different lengths"):
        kmodes.fit(key, [[1], [1, 2]], 2)
    with pytest.raises(ValueError, match="x has no columns"):
        kmodes.fit(key, np.zeros((5, 0), np.int32), 2)


def test_codes_of_any_width_and_no_fractions(rows, key):
    modes = np.array([[1, 1], [0, 0]])
    assert kmodes.predict(modes, np.array([[2**32, 2**32], [2**40, 0]])).tolist() == [0, 1]
    for call in (
        lambda: kmodes.predict(modes, np.full((1, 2), 0.6)),
        lambda: kmodes.predict(modes + 0.5, np.ones((1, 2), int)),
        lambda: kmodes.fit(key, modes, 2, init=np.full((2, 2), 0.6)),
    ):
        with pytest.raises(TypeError, match="must be integers, the categories of each column"):
            call()

"""k-prototypes, against a loop in NumPy's float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import kmeans, kprototypes
from jaxcluster.types import Status

K, SIZES = 3, (4, 3, 2)


class Mixed(NamedTuple):
    """Rows of numbers and categories around three prototypes, weights, and initial prototypes."""

    x: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    start: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, 60)
    x = rng.normal(size=(60, 2)) + 2 * np.array([[0, 0], [1, 1], [2, 0]])[y] + 50
    codes = np.array([[0, 0, 0], [1, 2, 1], [3, 1, 1]])[y]
    drawn = rng.random(codes.shape) < 0.3
    codes = np.where(drawn, np.stack([rng.integers(0, size, 60) for size in SIZES], 1), codes).astype(np.int32)
    return Mixed(x, codes, rng.integers(1, 4, 60).astype(float), (x[:K], codes[:K]))


def costs(x, codes, means, modes, gamma):
    """Squared distances and γ times the mismatches, (n, k)."""
    squares = np.square(x[:, None] - means).sum(-1)
    return squares + gamma * (codes[:, None] != modes).sum(-1)


def alternate(x, codes, weights, start, gamma, most=100):
    """Labels, means, modes, the inertia, and that after each step."""
    (means, modes), history = start, []
    labels = costs(x, codes, means, modes, gamma).argmin(1)
    for _ in range(most):
        members = [labels == j for j in range(len(means))]
        means = np.array([np.average(x[own], axis=0, weights=weights[own]) for own in members])
        counts = [[np.bincount(codes[own, c], weights[own], size) for c, size in enumerate(SIZES)] for own in members]
        modes = np.array([[each.argmax() for each in columns] for columns in counts])
        table = costs(x, codes, means, modes, gamma)
        history.append(weights @ table.min(1))
        if (table.argmin(1) == labels).all():
            return labels, means, modes, history
        labels = table.argmin(1)
    raise AssertionError


@pytest.mark.parametrize("gamma", [0.7, 0.0, 1e12])
def test_fit_equals_a_loop_from_the_same_start(mixed, key, gamma):
    x, codes, weights, start = mixed
    fit = kprototypes.fit(key, x, K, codes=codes, gamma=gamma, weights=weights, init=start, tol=0.0)
    labels, means, modes, history = alternate(x, codes, weights, start, gamma)
    np.testing.assert_array_equal(fit.labels, labels)
    np.testing.assert_allclose(fit.state.centers, means, rtol=1e-6)
    np.testing.assert_array_equal(fit.state.modes, modes)
    np.testing.assert_allclose(fit.history[: int(fit.steps)], history, rtol=1e-5)
    np.testing.assert_allclose(fit.state.inertia, history[-1], rtol=1e-6)
    assert (int(fit.status), int(fit.steps)) == (Status.CONVERGED, len(history))
    np.testing.assert_array_equal(kprototypes.predict(fit.state, x, codes=codes), labels)
    score = kprototypes.score((fit.state.centers, fit.state.modes), x, codes=codes, gamma=gamma, weights=weights)
    np.testing.assert_allclose(score, -history[-1], rtol=1e-5)


def test_distances_decide_between_equal_mismatches(mixed, key):
    # γ·mismatches alone is far beyond what float32 holds beside a distance.
    x, _, weights, _ = mixed
    codes = (np.arange(60)[:, None] % 2 * np.ones((1, 3), int)).astype(np.int32)
    start = x[[0, 1, 3]], codes[[0, 1, 3]]
    fit = kprototypes.fit(key, x, K, codes=codes, gamma=1e30, weights=weights, init=start, n_categories=SIZES)
    labels, *_ = alternate(x, codes, weights, start, 1e6)
    np.testing.assert_array_equal(fit.labels, labels)


def test_default_gamma_is_half_the_mean_deviation(mixed, key):
    x, codes, weights, start = mixed
    mean = np.average(x, axis=0, weights=weights)
    half = np.sqrt(np.average(np.square(x - mean), axis=0, weights=weights)).mean() / 2
    gamma = kprototypes.fit(key, x, K, codes=codes, weights=weights, init=start).state.gamma
    np.testing.assert_allclose(gamma, half, rtol=1e-6)
    inside = jax.jit(
        lambda x: kprototypes.fit(key, x, K, codes=codes, weights=weights, init=start, n_categories=SIZES).state.gamma
    )(jnp.asarray(x))
    np.testing.assert_allclose(inside, half, rtol=1e-5)
    constant = kprototypes.fit(key, np.ones_like(x), K, codes=codes, weights=weights, init=start)
    assert constant.state.gamma == 1


@pytest.mark.parametrize("unit", [1e-100, 1e100])
def test_units_change_no_label(mixed, key, unit):
    x, codes, weights, (means, modes) = mixed
    plain = kprototypes.fit(key, x, K, codes=codes, gamma=0.7, weights=weights, init=(means, modes))
    fit = kprototypes.fit(
        key, x * unit, K, codes=codes, gamma=0.7 * unit**2, weights=weights, init=(means * unit, modes)
    )
    np.testing.assert_array_equal(fit.labels, plain.labels)
    np.testing.assert_allclose(fit.state.inertia / unit**2, plain.state.inertia, rtol=1e-5)
    np.testing.assert_allclose(fit.history / unit**2, plain.history, rtol=1e-5)


def test_without_categories_it_is_k_means(mixed, key):
    x, start = mixed.x, mixed.start
    none = np.zeros((60, 0), np.int32)
    fit = kprototypes.fit(key, x, K, codes=none, init=(start[0], none[:K]), tol=0.0)
    plain = kmeans.fit(key, x, K, init=start[0], tol=0.0)
    np.testing.assert_array_equal(fit.labels, plain.labels)
    np.testing.assert_allclose(fit.state.inertia, plain.state.inertia, rtol=1e-5)


def test_gradients_are_those_of_means_at_fixed_labels(mixed, key):
    x, codes, weights, start = mixed

    def inertia(x, weights, gamma):
        fit = kprototypes.fit(
            key, x, K, codes=codes, gamma=gamma, weights=weights, init=start, n_categories=SIZES, tol=0.0
        )
        return fit.state.inertia

    by_x, by_weight, by_gamma = jax.jit(jax.grad(inertia, (0, 1, 2)))(*map(jnp.float32, (x, weights, 0.7)))
    labels, means, modes, _ = alternate(x, codes, weights, start, 0.7)
    differing = (codes != modes[labels]).sum(1)
    np.testing.assert_allclose(by_x, 2 * weights[:, None] * (x - means[labels]), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(by_weight, np.square(x - means[labels]).sum(1) + 0.7 * differing, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(by_gamma, weights @ differing, rtol=1e-5)


def test_cao_starts_from_frequent_rows_far_apart(mixed, key):
    x, codes, weights, _ = mixed
    counts = [np.bincount(codes[:, c], weights, size) for c, size in enumerate(SIZES)]
    density = np.mean([each[codes[:, c]] for c, each in enumerate(counts)], axis=0) / weights.sum()
    chosen = [int(density.argmax())]
    while len(chosen) < K:
        closest = costs(x, codes, x[chosen], codes[chosen], 0.7).min(1)
        chosen.append(int((closest * density).argmax()))
    fit, expected = (
        kprototypes.fit(key, x, K, codes=codes, gamma=0.7, weights=weights, init=init, max_steps=1)
        for init in ("cao", (x[chosen], codes[chosen]))
    )
    np.testing.assert_array_equal(fit.labels, expected.labels)
    np.testing.assert_allclose(fit.state.inertia, expected.state.inertia, rtol=1e-6)


@pytest.mark.parametrize("init", ["huang", "random"])
def test_the_best_of_several_runs_is_returned(mixed, key, init):
    x, codes, _, _ = mixed
    best = kprototypes.fit(key, x, K, codes=codes, init=init, n_init=3).state.inertia
    alone = [kprototypes.fit(each, x, K, codes=codes, init=init).state.inertia for each in jax.random.split(key, 3)]
    np.testing.assert_allclose(best, min(map(float, alone)), rtol=1e-6)


def test_fewer_distinct_rows_than_clusters_is_a_status(key):
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 30, axis=0)
    codes = np.repeat([[0, 0, 0], [1, 1, 1]], 30, axis=0)
    fit = kprototypes.fit(key, x, K, codes=codes, init="huang", n_categories=SIZES)
    assert int(fit.status) == Status.EMPTY_CLUSTERS
    assert fit.state.inertia == 0


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (np.zeros((5, 2), np.int32), {}, "x has 60 rows and codes 5"),
        (np.zeros((60, 2)), {}, "codes must be integers"),
        (np.full((60, 1), -1), {}, "A missing category is no code"),
        (np.full((60, 1), 3), {"n_categories": (3,)}, "less 1, got 3 to 3"),
        (np.zeros((60, 1), int), {"n_categories": (3, 4)}, "n_categories has 2 numbers for 1 columns"),
        (np.zeros((60, 1), int), {"gamma": -1.0}, "gamma=-1.0 must be at least 0"),
        (np.zeros((60, 1), int), {"init": "k-means++"}, r"init='k-means\+\+' is not known"),
        (np.zeros((60, 1), int), {"init": (np.zeros((2, 2)), np.zeros((2, 1)))}, "init has shapes"),
        (np.zeros((60, 1), int), {"init": np.zeros((2, 3))}, "a pair of"),
    ],
)
def test_bad_input_is_named(mixed, key, codes, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kprototypes.fit(key, mixed.x, K, codes=codes, **options)

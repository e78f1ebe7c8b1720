"""k-means with pairs together and apart: every pair is kept, and small problems are solved exactly."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcluster.cluster import constrained, kmeans
from jaxcluster.cluster.constrained import branch_and_bound, constraints
from jaxcluster.cluster.constrained.constraints import group_samples
from jaxcluster.types import Status


def cloud(n, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def planted(n, k, m, seed=0):
    """Pairs that some labels keep: those of rows alike in hidden labels, and those of rows unlike."""
    rng = np.random.default_rng(seed)
    hidden, pairs = rng.integers(0, k, n), rng.integers(0, n, (2 * m, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    alike = hidden[pairs[:, 0]] == hidden[pairs[:, 1]]
    return pairs[alike][: m // 3], pairs[~alike][:m]


def kept(labels, must, cannot):
    labels = np.asarray(labels)
    together = labels[must[:, 0]] == labels[must[:, 1]]
    apart = labels[cannot[:, 0]] != labels[cannot[:, 1]]
    return bool(together.all() and apart.all())


def inertia_of(x, labels, centers, weights=1.0):
    return float(np.sum(weights * np.sum((x - np.asarray(centers)[np.asarray(labels)]) ** 2, axis=1)))


@pytest.fixture(scope="module")
def problem():
    x = cloud(100)
    must, cannot = planted(100, 5, 60)
    return x, must, cannot, constrained.fit(jax.random.key(0), x, 5, must_link=must, cannot_link=cannot)


def test_every_pair_is_kept(problem):
    x, must, cannot, fit = problem
    assert kept(fit.labels, must, cannot)
    assert not kept(kmeans.fit(jax.random.key(0), x, 5).labels, must, cannot)
    assert fit.labels.dtype == jnp.int32
    assert Status(int(fit.status)) == Status.CONVERGED


def test_the_state_is_that_of_the_labels(problem):
    x, _, _, fit = problem
    labels = np.asarray(fit.labels)
    means = np.stack([x[labels == j].mean(axis=0) for j in range(5)])
    np.testing.assert_allclose(fit.state.centers, means, atol=1e-5)
    np.testing.assert_allclose(fit.state.inertia, inertia_of(x, labels, means), rtol=1e-5)
    np.testing.assert_array_equal(fit.state.weight, np.bincount(labels, minlength=5))
    assert float(fit.state.objective) == float(fit.state.inertia)


def test_the_inertia_never_rises(problem):
    fit = problem[-1]
    history, steps = np.asarray(fit.history), int(fit.steps)
    assert steps >= 3
    assert (np.diff(history[:steps]) <= 0).all()
    assert not history[steps:].any()
    np.testing.assert_allclose(history[steps - 1], fit.state.inertia, rtol=1e-6)


@settings(max_examples=10)
@given(st.integers(0, 2**16), st.integers(2, 4), st.integers(0, 30))
def test_pairs_that_can_be_kept_are(seed, k, m):
    must, cannot = planted(60, k, m, seed)
    fit = constrained.fit(jax.random.key(seed), cloud(60, seed=seed), k, must_link=must, cannot_link=cannot)
    assert kept(fit.labels, must, cannot)
    assert (np.diff(np.asarray(fit.history)[: int(fit.steps)]) <= 0).all()


@given(st.integers(0, 2**16), st.integers(2, 4))
def test_small_components_are_solved_exactly(seed, k):
    rng = np.random.default_rng(seed)
    costs = rng.normal(size=(7, k)) if seed % 2 else rng.integers(0, 3, (7, k)).astype(float)
    hidden = rng.integers(0, k, 7)
    pairs = [(u, v) for u, v in itertools.combinations(range(7), 2) if hidden[u] != hidden[v] and rng.random() < 0.5]
    conflicts = np.array(pairs).reshape(-1, 2).astype(np.int64)
    labels = costs.argmin(axis=1)
    for component in branch_and_bound.conflict_components(conflicts, 7, k, np.arange(7)):
        labels[component.groups] = branch_and_bound.label_component(component, costs[component.groups], None)
    every = np.array(list(itertools.product(range(k), repeat=7)))
    every = every[(every[:, conflicts[:, 0]] != every[:, conflicts[:, 1]]).all(axis=1)]
    best = costs[np.arange(7), every].sum(axis=1).min()
    assert (labels[conflicts[:, 0]] != labels[conflicts[:, 1]]).all()
    np.testing.assert_allclose(costs[np.arange(7), labels].sum(), best, atol=1e-12)


@pytest.mark.parametrize("branches", [1, 40])
def test_pairs_are_kept_without_time_to_search(branches, monkeypatch):
    monkeypatch.setattr(branch_and_bound, "MAX_BRANCHES", branches)
    rng = np.random.default_rng(3)
    _, cannot = planted(50, 4, 120, seed=3)
    conflicts = np.unique(np.sort(cannot, axis=1), axis=0)
    (component,) = [
        component
        for component in branch_and_bound.conflict_components(conflicts, 50, 4, np.arange(50))
        if len(component.groups) > 2
    ]
    costs = rng.normal(size=(len(component.groups), 4)) ** 2
    rows = np.arange(len(costs))
    first = branch_and_bound.label_component(component, costs, None)
    assert all((first[around] != first[u]).all() for u, around in enumerate(component.neighbors))
    assert costs[rows, first].sum() < costs[rows, branch_and_bound.match_colors(component.colors, costs)].sum()
    again = branch_and_bound.label_component(component, costs, first)
    assert costs[rows, again].sum() <= costs[rows, first].sum()


def test_large_components_are_kept_apart(key):
    """One component of more groups than are searched exactly."""
    ring = np.stack([np.arange(99), np.arange(1, 100)], axis=1)
    x = cloud(100)
    fit = constrained.fit(key, x, 5, cannot_link=ring)
    assert len(ring) + 1 > branch_and_bound.MAX_EXACT_GROUPS
    assert kept(fit.labels, ring[:0], ring)
    assert (np.diff(np.asarray(fit.history)[: int(fit.steps)]) <= 0).all()
    free = kmeans.fit(key, x, 5, init=np.asarray(fit.state.centers))
    assert float(free.state.inertia) < float(fit.state.inertia) < 2 * float(free.state.inertia)


def test_without_pairs_it_is_kmeans(key):
    x, weights = cloud(100), np.random.default_rng(2).integers(0, 4, 100)
    ours = constrained.fit(key, x, 5, init=x[:5], weights=weights)
    theirs = kmeans.fit(key, x, 5, init=x[:5], weights=weights)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.state.centers, theirs.state.centers, atol=1e-5)
    np.testing.assert_allclose(ours.state.inertia, theirs.state.inertia, rtol=1e-5)
    np.testing.assert_allclose(ours.state.weight, theirs.state.weight)


def test_groups_are_rows_at_their_mean(key):
    """Against k-means of the means, weighted by how many rows they stand for."""
    x = cloud(100)
    pairs = np.arange(100).reshape(50, 2)
    weights = np.random.default_rng(3).uniform(0.5, 2, 100)
    means = (x * weights[:, None]).reshape(50, 2, 3).sum(axis=1) / weights.reshape(50, 2).sum(axis=1, keepdims=True)
    ours = constrained.fit(key, x, 5, must_link=pairs, weights=weights, init=means[:5])
    theirs = kmeans.fit(key, means, 5, weights=weights.reshape(50, 2).sum(axis=1), init=means[:5])
    np.testing.assert_array_equal(ours.labels, np.repeat(np.asarray(theirs.labels), 2))
    np.testing.assert_allclose(ours.state.centers, theirs.state.centers, atol=1e-5)
    expected = inertia_of(x, ours.labels, ours.state.centers, weights)
    np.testing.assert_allclose(ours.state.inertia, expected, rtol=1e-5)


def test_weights_are_repetitions(key):
    x, repeats = cloud(60), np.random.default_rng(0).integers(1, 4, 60)
    must, cannot = planted(60, 4, 30, seed=5)
    places = np.cumsum(repeats) - repeats
    copies = np.repeat(places, repeats)
    same = np.stack([copies, np.arange(len(copies))], axis=1)[copies != np.arange(len(copies))]
    weighted = constrained.fit(key, x, 4, must_link=must, cannot_link=cannot, weights=repeats, init=x[:4])
    repeated = constrained.fit(
        key,
        np.repeat(x, repeats, axis=0),
        4,
        must_link=np.concatenate([places[must], same]),
        cannot_link=places[cannot],
        init=x[:4],
    )
    np.testing.assert_array_equal(np.repeat(np.asarray(weighted.labels), repeats), repeated.labels)
    np.testing.assert_allclose(weighted.state.inertia, repeated.state.inertia, rtol=1e-5)


def test_permuting_rows_permutes_labels(problem):
    x, must, cannot, _ = problem
    order = np.random.default_rng(1).permutation(100)
    place = np.argsort(order)
    first = constrained.fit(jax.random.key(0), x, 5, must_link=must, cannot_link=cannot, init=x[:5])
    second = constrained.fit(
        jax.random.key(0), x[order], 5, must_link=place[must], cannot_link=place[cannot], init=x[:5]
    )
    np.testing.assert_array_equal(np.asarray(first.labels)[order], second.labels)


def test_far_from_the_origin_nothing_changes(problem):
    x, must, cannot, _ = problem
    x = np.round(x * 64) / 64
    pairs = {"must_link": must, "cannot_link": cannot}
    near = constrained.fit(jax.random.key(0), x, 5, **pairs, init=x[:5])
    far = constrained.fit(jax.random.key(0), x + np.float32(1e4), 5, **pairs, init=x[:5] + np.float32(1e4))
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_allclose(near.state.inertia, far.state.inertia, rtol=1e-3)


def test_more_starts_do_not_do_worse(problem):
    x, must, cannot, _ = problem
    options = {"must_link": must, "cannot_link": cannot, "init": "random"}
    each = [
        float(constrained.fit(one, x, 5, **options).state.inertia) for one in jax.random.split(jax.random.key(0), 3)
    ]
    assert float(constrained.fit(jax.random.key(0), x, 5, n_init=3, **options).state.inertia) == min(each)


def test_all_rows_apart(key):
    pairs = np.array(list(itertools.combinations(range(5), 2)))
    fit = constrained.fit(key, cloud(5), 5, cannot_link=pairs)
    assert sorted(fit.labels.tolist()) == list(range(5))
    np.testing.assert_allclose(fit.state.inertia, 0, atol=1e-6)


def test_one_cluster(key):
    x = cloud(60)
    fit = constrained.fit(key, x, 1, must_link=[[0, 5]], cannot_link=[])
    np.testing.assert_allclose(fit.state.centers[0], x.mean(axis=0), atol=1e-5)


def test_equal_rows_are_kept_apart(key):
    fit = constrained.fit(key, np.full((60, 3), 2.5), 4, cannot_link=[[0, 1], [1, 2], [0, 2]])
    assert len(set(np.asarray(fit.labels)[:3].tolist())) == 3
    assert float(fit.state.inertia) == 0
    assert Status(int(fit.status)) == Status.EMPTY_CLUSTERS


def test_rows_without_weight_keep_their_pairs(key):
    weights = np.ones(60)
    weights[:4] = 0
    fit = constrained.fit(key, cloud(60), 4, weights=weights, must_link=[[0, 1]], cannot_link=[[1, 2], [2, 3], [3, 0]])
    labels = np.asarray(fit.labels)
    assert labels[0] == labels[1]
    assert len({labels[1], labels[2], labels[3]}) == 3
    np.testing.assert_allclose(fit.state.weight.sum(), 56)


def test_groups_are_closed_under_chains():
    groups = group_samples([[3, 1], [1, 4], [2, 6]], [[4, 6], [6, 3], [0, 5]], 7)
    assert groups.of_row.tolist() == [0, 1, 2, 1, 1, 3, 2]
    assert groups.first.tolist() == [0, 1, 2, 5]
    assert groups.conflicts.tolist() == [[0, 3], [1, 2]]


def test_a_way_is_found_wherever_there_is_one():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        pairs = np.array([pair for pair in itertools.combinations(range(6), 2) if rng.random() < 0.6]).reshape(-1, 2)
        every = np.array(list(itertools.product(range(3), repeat=6)))
        possible = (every[:, pairs[:, 0]] != every[:, pairs[:, 1]]).all(axis=1).any()
        if possible:
            components = branch_and_bound.conflict_components(pairs, 6, 3, np.arange(6))
            assert all((p.colors[a] != p.colors[u]).all() for p in components for u, a in enumerate(p.neighbors))
        else:
            with pytest.raises(ValueError, match="cannot_link"):
                branch_and_bound.conflict_components(pairs, 6, 3, np.arange(6))


ODD_WHEEL = [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], *([5, i] for i in range(5))]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"must_link": [[3, 5], [5, 7]], "cannot_link": [[3, 7]]},
            ValueError,
            "cannot_link says that rows 3 and 7 are apart, must_link that they are together (3–5–7)",
        ),
        ({"must_link": [[1, 2]], "cannot_link": [[2, 1]]}, ValueError, "rows 2 and 1 are apart"),
        (
            {"cannot_link": list(itertools.combinations([2, 4, 6, 8], 2))},
            ValueError,
            "cannot_link keeps 4 rows all apart from each other (rows 2, 4, 6, 8), which takes 4 clusters, more than "
            "the 3 asked for",
        ),
        ({"cannot_link": ODD_WHEEL}, ValueError, "every way was tried to keep apart rows 0, 1, 2, 3, 4, 5."),
        ({"must_link": [[1, 1]]}, ValueError, "must_link pairs row 1 with itself"),
        ({"cannot_link": [[0, 1], [4, 4]]}, ValueError, "cannot_link pairs row 4 with itself"),
        ({"must_link": [[0, 20]]}, ValueError, "must_link has the pair [0, 20], but rows are numbered from 0 to 19"),
        ({"cannot_link": [[-1, 2]]}, ValueError, "cannot_link has the pair [-1, 2]"),
        ({"must_link": [1, 2]}, ValueError, "must_link must have shape (m, 2), two row numbers a pair, got (2,)"),
        ({"must_link": [[1, 2, 3]]}, ValueError, "must_link must have shape (m, 2)"),
        ({"must_link": [[1.0, 2.0]]}, TypeError, "must_link must hold row numbers, integers, got dtype float64"),
        ({"must_link": [[i, i + 1] for i in range(18)]}, ValueError, "must_link leaves 2 groups of rows, fewer than"),
        ({"n_init": 0}, ValueError, "n_init=0 must be at least 1"),
    ],
)
def test_wrong_arguments_raise(options, error, message, key):
    with pytest.raises(error) as seen:
        constrained.fit(key, **{"x": cloud(20), "k": 3, **options})
    assert message in str(seen.value)


def test_a_search_that_ends_early_raises(monkeypatch):
    monkeypatch.setattr(constraints, "MAX_COLORINGS", 5)
    with pytest.raises(ValueError, match="No way to keep cannot_link with 3 clusters was found in 5 tries"):
        branch_and_bound.conflict_components(np.sort(np.array(ODD_WHEEL), axis=1), 6, 3, np.arange(6))


def test_traced_pairs_are_refused(key):
    with pytest.raises(TypeError, match="must_link is traced"):
        jax.jit(lambda pairs: constrained.fit(key, cloud(9), 2, must_link=pairs).labels)(np.array([[0, 1]]))

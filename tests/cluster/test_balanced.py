"""Balanced k-means: sizes hold without exception, and no labels of such sizes cost less."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from jaxcluster.cluster import balanced, kmeans
from jaxcluster.cluster.balanced import dual_newton, shortest_paths
from jaxcluster.cluster.balanced.dual_newton import check_sizes
from jaxcluster.cluster.balanced.shortest_paths import solve_assignment
from jaxcluster.types import Status


def cloud(n, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def oracle(costs, least, most):
    """The least cost by SciPy's assignment: a column for each place, and rows that fill the places left free."""
    n, k = costs.shape
    least, most = np.broadcast_to(least, k), np.minimum(np.broadcast_to(most, k), n)
    cluster = np.repeat(np.arange(k), most)
    needed = np.concatenate([np.arange(m) < low for m, low in zip(most, least, strict=True)])
    forbidden = n * (1 + np.ptp(costs))
    filling = np.tile(np.where(needed, forbidden, 0.0), (len(cluster) - n, 1))
    table = np.concatenate([costs[:, cluster], filling])
    rows, columns = linear_sum_assignment(table)
    return table[rows, columns].sum()


def linear_program(costs, least, most):
    """The same by SciPy's linear programs, for bounds that are far apart."""
    n, k = costs.shape
    of_row, of_cluster = scipy.sparse.kron(np.eye(n), np.ones(k)), scipy.sparse.kron(np.ones(n), np.eye(k))
    within = scipy.sparse.vstack([of_cluster, -of_cluster])
    bounds = np.repeat([most, -least], k)
    return linprog(costs.ravel(), within, bounds, of_row, np.ones(n), bounds=(0, 1)).fun


def cost_of(costs, labels):
    return costs[np.arange(len(costs)), np.asarray(labels)].sum()


def sizes_of(labels, k):
    return np.bincount(labels, minlength=k)


@pytest.fixture(scope="module")
def balanced_fit():
    return balanced.fit(jax.random.key(0), cloud(100), 7)


@st.composite
def problems(draw):
    """Costs, some of them full of ties, with bounds that some sizes keep."""
    n, k = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    costs = rng.normal(size=(n, k)) if draw(st.booleans()) else rng.integers(-2, 3, (n, k)).astype(float)
    inside = rng.multinomial(n, np.full(k, 1 / k))
    slack = draw(st.sampled_from([0, 1, 5, 40]))
    least = np.maximum(inside - rng.integers(0, slack + 1, k), 0)
    return costs, least, inside + rng.integers(0, slack + 1, k)


@given(problems())
def test_no_labels_of_such_sizes_cost_less(problem):
    costs, least, most = problem
    labels = balanced.assign_cost(costs, size_min=least, size_max=most)
    counts = sizes_of(labels, costs.shape[1])
    assert labels.dtype == jnp.int32
    assert (counts >= least).all()
    assert (counts <= most).all()
    np.testing.assert_allclose(cost_of(costs, labels), oracle(costs, least, most), atol=1e-9)


@given(problems(), st.integers(0, 2**16))
def test_duals_prove_the_optimum_from_any_start(problem, seed):
    costs, least, most = problem
    bounds = check_sizes(least, most, *costs.shape)
    start = np.random.default_rng(seed).normal(size=costs.shape[1]) * 3
    labels, duals = solve_assignment(costs, bounds, start)
    reduced, sizes = costs - duals, sizes_of(labels, costs.shape[1])
    np.testing.assert_allclose(cost_of(reduced, labels), reduced.min(axis=1).sum(), atol=1e-9)
    np.testing.assert_allclose(duals @ sizes, bounds.dual_term(duals), atol=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "blobs"])
@pytest.mark.parametrize("bounds", [(None, None), (9, 11), (None, 13), (6, None)])
def test_rows_are_assigned_at_the_least_cost(kind, bounds):
    rng = np.random.default_rng(1)
    spread = rng.uniform(size=(250, 5)) if kind == "uniform" else rng.normal(size=(250, 5)) + cloud(25, 5).repeat(10, 0)
    x = spread.astype(np.float32)
    centers = x[rng.choice(250, 25, replace=False)]
    labels = balanced.assign(x, centers, size_min=bounds[0], size_max=bounds[1])
    least, most = (10, 10) if bounds == (None, None) else (bounds[0] or 0, bounds[1] or 250)
    counts, costs = sizes_of(labels, 25), cdist(x.astype(float), centers.astype(float), "sqeuclidean")
    assert least <= counts.min() <= counts.max() <= most
    np.testing.assert_allclose(cost_of(costs, labels), linear_program(costs, least, most), rtol=1e-6)


def test_newton_leaves_few_rows_to_move():
    costs = cdist(cloud(2000, 4), cloud(40, 4, seed=3), "sqeuclidean")
    bounds = check_sizes(None, None, 2000, 40)
    first = dual_newton.assign_by_duals(costs, np.zeros(40))
    assert bounds.infeasibility(first.sizes, np.zeros(40)) > 400
    duals, assignment = dual_newton.maximize_dual(costs, bounds, np.zeros(40))
    assert bounds.infeasibility(assignment.sizes, duals) <= 20
    again, _ = dual_newton.maximize_dual(costs, bounds, duals)
    np.testing.assert_array_equal(again, duals)


def test_least_and_second_least_costs_by_duals():
    costs, duals = np.random.default_rng(0).normal(size=(50, 6)), np.linspace(-1, 1, 6)
    assignment = dual_newton.assign_by_duals(costs, duals)
    reduced = np.sort(costs - duals, axis=1)
    np.testing.assert_array_equal(assignment.labels, (costs - duals).argmin(axis=1))
    np.testing.assert_allclose(assignment.margin, reduced[:, 1] - reduced[:, 0])
    np.testing.assert_allclose((costs - duals)[np.arange(50), assignment.second], reduced[:, 1])
    np.testing.assert_array_equal(assignment.sizes, sizes_of(assignment.labels, 6))
    np.testing.assert_allclose(assignment.value, reduced[:, 0].sum())


@pytest.mark.parametrize("exact_to", [0, 0.1])
def test_updated_assignment_is_a_new_assignment(exact_to):
    costs, change = np.random.default_rng(0).normal(size=(200, 6)), np.linspace(-0.05, 0.1, 6)
    first = dual_newton.assign_by_duals(costs, np.zeros(6))
    again = dual_newton.update_assignment(costs, first, np.zeros(6), change, exact_to)
    full = dual_newton.assign_by_duals(costs, change)
    assert again.exact_to == exact_to
    assert (full.labels != first.labels).any()
    np.testing.assert_array_equal(again.labels, full.labels)
    np.testing.assert_allclose(again.value, full.value)
    near = full.margin <= exact_to
    np.testing.assert_array_equal(again.margin[near], full.margin[near])
    np.testing.assert_array_equal(again.second[near], full.second[near])
    assert (again.margin[~near] > exact_to).all()
    assert (again.margin <= full.margin + 1e-12).all()


@pytest.mark.parametrize("bounds", [(None, None), (2, 9), (5, None)])
def test_late_candidates_cost_nothing(bounds, monkeypatch):
    monkeypatch.setattr(shortest_paths, "INITIAL_CANDIDATES", 0)
    monkeypatch.setattr(dual_newton, "MAX_NEWTON_STEPS", 0)
    costs = cdist(cloud(60), cloud(9, seed=3), "sqeuclidean")
    labels = balanced.assign_cost(costs, size_min=bounds[0], size_max=bounds[1])
    least, most = (6, 7) if bounds == (None, None) else (bounds[0], bounds[1] or 60)
    np.testing.assert_allclose(cost_of(costs, labels), linear_program(costs, least, most))


def test_sizes_differ_by_one_at_most(balanced_fit):
    state = balanced_fit.state
    assert sorted(state.sizes.tolist()) == [14] * 5 + [15] * 2
    assert state.sizes.dtype == jnp.int32
    np.testing.assert_array_equal(state.sizes, sizes_of(balanced_fit.labels, 7))
    assert Status(int(balanced_fit.status)) == Status.CONVERGED
    assert float(state.objective) == float(state.inertia)


def test_a_fit_is_a_fixed_point(balanced_fit):
    x, labels = cloud(100), np.asarray(balanced_fit.labels)
    means = np.stack([x[labels == j].mean(axis=0) for j in range(7)])
    np.testing.assert_allclose(balanced_fit.state.centers, means, atol=1e-5)
    np.testing.assert_array_equal(balanced.assign(x, balanced_fit.state.centers), labels)
    costs = cdist(x.astype(float), np.asarray(balanced_fit.state.centers, float), "sqeuclidean")
    np.testing.assert_allclose(balanced_fit.state.inertia, oracle(costs, 14, 15), rtol=1e-5)


def test_without_bounds_it_is_kmeans(key):
    x = cloud(100)
    ours = balanced.fit(key, x, 7, init=x[:7], size_min=0)
    theirs = kmeans.fit(key, x, 7, init=x[:7])
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.state.centers, theirs.state.centers, atol=1e-5)
    np.testing.assert_allclose(ours.state.inertia, theirs.state.inertia, rtol=1e-5)


def test_a_bound_for_each_cluster(key):
    x = cloud(100)
    wanted = np.array([5, 5, 10, 10, 20, 20, 30])
    fit = balanced.fit(key, x, 7, size_min=wanted, size_max=wanted)
    np.testing.assert_array_equal(fit.state.sizes, wanted)


def test_far_from_the_origin_nothing_changes(key):
    # Numbers that float32 holds exactly there as well.
    x = np.round(cloud(100) * 64) / 64
    near = balanced.fit(key, x, 7, init=x[:7])
    far = balanced.fit(key, x + np.float32(1e4), 7, init=x[:7] + np.float32(1e4))
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_allclose(near.state.inertia, far.state.inertia, rtol=1e-4)
    np.testing.assert_array_equal(balanced.assign(x + np.float32(1e4), far.state.centers), far.labels)


def test_more_starts_do_not_do_worse(key):
    x = cloud(100)
    keys = jax.random.split(key, 4)
    each = [float(balanced.fit(one, x, 7, init="random").state.inertia) for one in keys]
    together = balanced.fit(key, x, 7, init="random", n_init=4)
    assert float(together.state.inertia) == min(each)
    assert len(set(each)) > 1


@pytest.mark.parametrize("k", [1, 6])
def test_the_least_and_the_most_clusters(k, key):
    x = cloud(6)
    fit = balanced.fit(key, x, k)
    assert fit.state.sizes.tolist() == [6 // k] * k
    expected = ((x - x.mean(axis=0)) ** 2).sum() if k == 1 else 0
    np.testing.assert_allclose(fit.state.inertia, expected, atol=1e-5)


@pytest.mark.parametrize("bounds", [(None, None), (10, 30), (0, 30)])
def test_equal_rows_are_split_by_the_bounds(bounds, key):
    fit = balanced.fit(key, np.full((100, 3), 2.5), 7, size_min=bounds[0], size_max=bounds[1])
    low, high = (14, 15) if bounds == (None, None) else bounds
    assert low <= int(fit.state.sizes.min()) <= int(fit.state.sizes.max()) <= high
    assert float(fit.state.inertia) == 0
    assert Status(int(fit.status)) in (Status.CONVERGED, Status.EMPTY_CLUSTERS)


def test_equal_rows_are_interchangeable(key):
    x = np.repeat(cloud(5), 20, axis=0)
    fit = balanced.fit(key, x, 7)
    assert sorted(fit.state.sizes.tolist()) == [14] * 5 + [15] * 2
    costs = cdist(x, np.asarray(fit.state.centers), "sqeuclidean")
    np.testing.assert_allclose(cost_of(costs, fit.labels), oracle(costs, 14, 15), rtol=1e-5)


def test_a_cluster_without_rows_keeps_its_center(key):
    x = cloud(100)
    start = np.concatenate([x[:6], np.full((1, 3), 99, np.float32)])
    fit = balanced.fit(key, x, 7, init=start, size_min=0, size_max=50)
    assert Status(int(fit.status)) == Status.EMPTY_CLUSTERS
    assert fit.state.sizes.tolist()[6] == 0
    np.testing.assert_allclose(fit.state.centers[6], start[6], rtol=1e-6)
    filled = balanced.fit(key, x, 7, init=start, size_min=1, size_max=50)
    assert int(filled.state.sizes.min()) >= 1


def test_steps_run_out(key):
    fit = balanced.fit(key, cloud(100), 7, init="random", max_steps=1, tol=0)
    assert Status(int(fit.status)) == Status.MAX_STEPS
    assert int(fit.steps) == 1
    assert float(fit.state.residual) > 0
    assert sorted(fit.state.sizes.tolist()) == [14] * 5 + [15] * 2


@pytest.mark.parametrize("unit", [1e-200, 1e30, 1e200])
def test_the_unit_of_the_rows_does_not_matter(unit, key):
    fit = balanced.fit(key, unit * np.array([[1.0], [-1.0], [3.0], [0.0]]), 2)
    assert Status(int(fit.status)) == Status.CONVERGED
    assert fit.state.sizes.tolist() == [2, 2]
    labels = fit.labels.tolist()
    assert labels[0] == labels[2] != labels[1] == labels[3]


def test_new_rows_go_to_the_nearest_center(balanced_fit):
    rows = cloud(30, seed=8)
    distances = cdist(rows, np.asarray(balanced_fit.state.centers))
    np.testing.assert_array_equal(balanced.predict(balanced_fit.state.centers, rows), distances.argmin(axis=1))
    np.testing.assert_allclose(balanced.transform(balanced_fit.state.centers, rows), distances, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size_max": 3}, ValueError, "size_max=3 × 4 clusters hold 12 rows, 8 fewer than the 20 given"),
        ({"size_min": 6}, ValueError, "size_min=6 × 4 clusters need 24 rows, 4 more than the 20 given"),
        ({"size_min": 5, "size_max": 4}, ValueError, "size_min=5 must not exceed size_max=4"),
        ({"size_min": [1, 9, 1, 1], "size_max": 8}, ValueError, "size_min=9 must not exceed size_max=8 for cluster 1"),
        ({"size_max": [1, 1, 1, 1]}, ValueError, "The size_max of 4 clusters hold 4 rows, 16 fewer"),
        ({"size_min": -1}, ValueError, "size_min=-1 must be at least 0"),
        ({"size_min": 2.5}, TypeError, "size_min must be an integer, or (4,) integers, got 2.5 of type float"),
        ({"size_max": True}, TypeError, "size_max must be an integer"),
        ({"size_min": [1, 2]}, ValueError, "size_min must be one number, or (4,), one a cluster, got shape (2,)"),
        (
            {"init": np.ones((3, 3))},
            ValueError,
            "The shape of the initial centers (3, 3) does not match the number of clusters 4.",
        ),
        ({"n_init": 0}, ValueError, "n_init=0 must be at least 1"),
        ({"max_steps": 0}, ValueError, "max_steps=0 must be greater than 0"),
    ],
)
def test_wrong_arguments_raise(options, error, message, key):
    with pytest.raises(error) as seen:
        balanced.fit(key, **{"x": cloud(20), "k": 4, **options})
    assert message in str(seen.value)


def test_wrong_costs_and_centers_raise():
    with pytest.raises(ValueError, match="costs contains 1 NaN values in column 1"):
        balanced.assign_cost(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="x has 3 columns, but the model was fitted on 2"):
        balanced.assign(cloud(9), np.ones((2, 2)))
    with pytest.raises(ValueError, match="centers contains 6 NaN"):
        balanced.assign(cloud(9), np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="size_max=1 × 2 clusters hold 2 rows, 1 fewer than the 3 given"):
        balanced.assign_cost(np.ones((3, 2)), size_max=1)


def test_traced_rows_are_refused():
    with pytest.raises(TypeError, match="sinkhorn.solve"):
        jax.jit(balanced.assign)(cloud(9), cloud(3))
    with pytest.raises(TypeError, match="sinkhorn.solve"):
        jax.jit(balanced.assign_cost)(cloud(9))

"""HDBSCAN's trees are what their definitions say, written out plainly: for rows in general position and for ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, is_valid_linkage, linkage
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist, squareform
from sklearn.datasets import make_blobs, make_moons

from jaxcluster.cluster import hdbscan
from jaxcluster.cluster.hdbscan.fit import reorder_as_prim
from jaxcluster.cluster.hdbscan.tree import condense, select_clusters
from jaxcluster.ops.metric_space import as_metric_space
from jaxcluster.ops.neighbors.exact_knn import nearest_rows
from jaxcluster.ops.spanning_tree import Tree, minimum_spanning_tree


def mutual_reachability(x, min_samples, alpha=1.0):
    distances = cdist(x, x)
    core = np.sort(distances, axis=1)[:, min_samples - 1]
    return np.maximum(np.maximum(distances / alpha, core), core[:, None]), core


def partition(labels):
    """The groups of rows with the same label, those of -1 left out."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels[labels >= 0])}


@st.composite
def rows(draw):
    """Duplicates, lattices, lines, and one dense cluster."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.sampled_from([2, 9, 30, 60])), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["spread", "lattice", "line", "dense", "copies"]))
    if kind == "lattice":
        return rng.integers(0, 4, size=(n, d)).astype(float)
    if kind == "line":
        return np.sort(rng.integers(0, 3 * n, size=(n, 1))) * np.ones((1, d))
    if kind == "copies":
        return rng.normal(size=(max(1, n // 4), d))[rng.integers(0, max(1, n // 4), n)]
    x = rng.normal(size=(n, d))
    if kind == "dense":
        x[: n // 2] *= 1e-3
    return x


SETS = {
    "blobs": make_blobs(700, 2, centers=5, random_state=0)[0],
    "moons": make_moons(300, noise=0.08, random_state=1)[0],
    "wide": make_blobs(600, 12, centers=4, random_state=2)[0],
    "lattice": np.random.default_rng(3).integers(0, 12, size=(600, 2)).astype(float),
}


@pytest.fixture
def boruvka(monkeypatch):
    """As if there were many rows."""
    monkeypatch.setattr("jaxcluster.ops.spanning_tree.PRIM_ROWS", 100)


@pytest.mark.parametrize("min_samples", [1, 4, 15])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("boruvka")
def test_the_spanning_tree_weighs_what_scipys_does(name, min_samples):
    x = SETS[name]
    reach, core = mutual_reachability(x, min_samples)
    state = hdbscan.fit(x, min_samples=min_samples).state
    np.testing.assert_allclose(state.core, core, rtol=1e-12)
    first, second = state.tree.edges.T
    np.testing.assert_allclose(state.tree.weights, reach[first, second], rtol=1e-12)
    lift = 1.0  # an edge of weight 0 is none in SciPy
    expected = csgraph.minimum_spanning_tree(np.where(np.eye(len(x)), 0, reach + lift)).sum() - lift * (len(x) - 1)
    np.testing.assert_allclose(state.tree.weights.sum(), expected, rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 1.7])
def test_alpha_divides_distances_not_core_distances(alpha):
    x = SETS["moons"]
    reach, core = mutual_reachability(x, 4, alpha)
    state = hdbscan.fit(x, min_samples=4, alpha=alpha).state
    np.testing.assert_allclose(state.core, core, rtol=1e-12)
    expected = csgraph.minimum_spanning_tree(np.where(np.eye(len(x)), 0, reach)).sum()
    np.testing.assert_allclose(state.tree.weights.sum(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_the_hierarchy_is_scipys(name):
    x = SETS[name][:400]
    state = hdbscan.fit(x, min_samples=5).state
    reach, _ = mutual_reachability(x, 5)
    assert is_valid_linkage(state.merges)
    np.fill_diagonal(reach, 0)
    flat = squareform(reach, checks=False)
    np.testing.assert_allclose(cophenet(state.merges), cophenet(linkage(flat, "single")), rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("min_samples", [2, 5, 9])
@pytest.mark.usefixtures("boruvka")
def test_a_tree_found_in_any_order_grows_as_prims_does(min_samples, seed):
    """Many rows, and so many pairs that are the last neighbors of each other, some of them where two parts meet."""
    x = np.random.default_rng(seed).normal(size=(900, 2))
    space, rng = as_metric_space(x), np.random.default_rng(0)
    neighbors = nearest_rows(space, 10)
    core = neighbors[1][:, min_samples - 1]
    tree = minimum_spanning_tree(space, core, neighbors=neighbors)
    order = rng.permutation(len(x) - 1)
    shuffled = Tree(tree.edges[order][:, ::-1], tree.weights[order])
    reach, _ = mutual_reachability(x, min_samples)
    edges, weights = prim(reach)
    for found in (reorder_as_prim(tree, core, neighbors), reorder_as_prim(shuffled, core, neighbors)):
        np.testing.assert_array_equal(found.edges, edges)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-12)


def prim(reach):
    """Edges from row 0 outwards: always to the nearest row, the first of several, from the first that it is near."""
    n = len(reach)
    best, sources, inside = np.full(n, np.inf), np.zeros(n, int), np.zeros(n, bool)
    row, edges, weights = 0, [], []
    for _ in range(n - 1):
        inside[row] = True
        nearer = reach[row] < best
        best[nearer], sources[nearer] = reach[row][nearer], row
        row = int(np.argmin(np.where(inside, np.inf, best)))
        edges.append((sources[row], row))
        weights.append(best[row])
    return np.array(edges), np.array(weights)


def test_a_tree_that_has_grown_is_kept():
    x = SETS["lattice"][:300]  # few enough rows for Prim's algorithm
    space = as_metric_space(x)
    neighbors = nearest_rows(space, 10)
    core = neighbors[1][:, 3]
    tree = minimum_spanning_tree(space, core)
    np.testing.assert_array_equal(tree.edges, prim(mutual_reachability(x, 4)[0])[0])
    assert reorder_as_prim(tree, core, neighbors) is tree


@given(x=rows(), min_samples=st.integers(1, 6), min_cluster_size=st.integers(2, 7))
def test_clusters_at_a_density_are_large_components(x, min_samples, min_cluster_size):
    """The definition, whatever the order of ties: rows connected by mutual reachability up to the distance."""
    assume(len(x) >= min_cluster_size)  # fewer are one cluster nevertheless
    min_samples = min(min_samples, len(x))
    state = hdbscan.fit(x, min_samples=min_samples, min_cluster_size=min_cluster_size).state
    tree = state.condensed
    reach, _ = mutual_reachability(x, min_samples)
    parents, births = tree.parents_and_births()
    clusters, levels = tree.row_exits()
    for distance in np.unique(state.merges[:, 2]):
        with np.errstate(divide="ignore"):
            level = 1 / distance
        _, components = csgraph.connected_components(reach <= distance * (1 + 1e-12))
        large = np.bincount(components)[components] >= min_cluster_size
        at = clusters.copy()
        while (late := (births[at] >= level) & (at > 0)).any():
            at = np.where(late, parents[at], at)
        assert partition(np.where(levels >= level, at, -1)) == partition(np.where(large, components, -1))


def plainly_condensed(merges, min_cluster_size):
    """{cluster: (birth, {row: density at which it leaves}, [clusters it splits into])}, clusters as sets of rows."""
    n = len(merges) + 1

    def below(node):
        return [node] if node < n else [row for part in merges[node - n, :2] for row in below(int(part))]

    def cluster(node, birth):
        all_rows, leaving, splits = frozenset(below(node)), {}, []
        while True:
            with np.errstate(divide="ignore"):
                level = 1 / merges[node - n, 2]
            parts = [int(part) for part in merges[node - n, :2]]
            large = [part for part in parts if len(below(part)) >= min_cluster_size]
            if len(large) == 2:
                splits = [cluster(part, level) for part in large]
                break
            leaving |= {row: level for part in parts if part not in large for row in below(part)}
            if not large:
                break
            (node,) = large
        found[all_rows, birth] = (leaving, splits)
        return all_rows, birth

    found = {}
    cluster(2 * n - 2, 0.0)
    return found


@given(x=rows(), min_cluster_size=st.integers(2, 7))
def test_the_condensed_tree_is_its_definition(x, min_cluster_size):
    state = hdbscan.fit(x, min_samples=min(3, len(x)), min_cluster_size=min_cluster_size).state
    tree = condense(state.merges, min_cluster_size)
    for found, kept in zip(tree, state.condensed, strict=True):
        np.testing.assert_array_equal(found, kept)
    expected = plainly_condensed(state.merges, min_cluster_size)
    assert tree.clusters == len(expected)
    parents, births = tree.parents_and_births()
    clusters, levels = tree.row_exits()
    inside = [set(np.flatnonzero(clusters == cluster).tolist()) for cluster in range(tree.clusters)]
    for cluster in range(tree.clusters - 1, 0, -1):
        assert parents[cluster] < cluster
        inside[parents[cluster]] |= inside[cluster]
    for cluster in range(tree.clusters):
        leaving, splits = expected[frozenset(inside[cluster]), births[cluster]]
        assert {row: levels[row] for row in np.flatnonzero(clusters == cluster).tolist()} == leaving
        children = np.flatnonzero(parents == cluster)
        assert [(frozenset(inside[child]), births[child]) for child in children.tolist()] == splits
    assert sorted(tree.child.tolist()) == [row for row in range(tree.n + tree.clusters) if row != tree.n]
    sizes = dict(zip(tree.child.tolist(), tree.child_size.tolist(), strict=True))
    assert all(sizes[row] == 1 for row in range(tree.n))
    assert all(sizes[tree.n + cluster] == len(inside[cluster]) for cluster in range(1, tree.clusters))


def plainly_selected(tree, allow_single_cluster=False):
    """The most stable choice of clusters none of which is in another, by recursion, and its stability."""
    stability = dict.fromkeys(range(tree.clusters), 0.0)
    births = {int(child) - tree.n: level for child, level in zip(tree.child, tree.lambda_val, strict=True)}
    births[0] = 0.0
    for parent, level, size in zip(tree.parent - tree.n, tree.lambda_val, tree.child_size, strict=True):
        stability[int(parent)] += (level - births[int(parent)]) * size
    splits = {cluster: [] for cluster in stability}
    for parent, child in zip(tree.parent - tree.n, tree.child - tree.n, strict=True):
        if child >= 0:
            splits[int(parent)].append(int(child))

    def best(cluster):
        chosen = [best(part) for part in splits[cluster]]
        total = sum(value for value, _ in chosen)
        if total > stability[cluster] or (cluster == 0 and not allow_single_cluster):
            return total, [each for _, part in chosen for each in part]
        return stability[cluster], [cluster]

    return sorted(best(0)[1]), [stability[cluster] for cluster in range(tree.clusters)]


@pytest.mark.parametrize("allow_single_cluster", [False, True])
@given(x=rows(), min_cluster_size=st.integers(2, 5))
def test_the_most_stable_clusters_are_selected(allow_single_cluster, x, min_cluster_size):
    tree = hdbscan.fit(x, min_samples=min(3, len(x)), min_cluster_size=min_cluster_size).state.condensed
    with np.errstate(invalid="ignore"):
        expected, stability = plainly_selected(tree, allow_single_cluster)
    np.testing.assert_allclose(hdbscan.stabilities(tree), stability, rtol=1e-12)
    assert select_clusters(tree, "eom", allow_single_cluster=allow_single_cluster).tolist() == expected


@given(x=rows(), min_cluster_size=st.integers(2, 5), epsilon=st.sampled_from([0.05, 0.3, 1.0, 2.0]))
def test_leaves_below_epsilon_give_way(x, min_cluster_size, epsilon):
    tree = hdbscan.fit(x, min_samples=min(3, len(x)), min_cluster_size=min_cluster_size).state.condensed
    parents, births = tree.parents_and_births()
    leaves = [cluster for cluster in range(1, tree.clusters) if cluster not in parents]
    assert select_clusters(tree, "leaf").tolist() == leaves
    with np.errstate(divide="ignore"):
        distances = 1 / births
    expected = set()
    for cluster in leaves:
        line = [cluster]
        while parents[line[-1]] > 0:
            line.append(int(parents[line[-1]]))
        above = [each for each in line if distances[each] > epsilon]
        expected.add(cluster if distances[cluster] >= epsilon else above[0] if above else line[-1])
    assert select_clusters(tree, "leaf", epsilon=epsilon).tolist() == sorted(expected)


def test_a_line_of_two_groups_by_hand():
    x = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [30.0]])
    state = hdbscan.fit(x, min_cluster_size=3, min_samples=1).state
    np.testing.assert_array_equal(np.sort(state.tree.weights), [1, 1, 1, 1, 8, 18])
    np.testing.assert_array_equal(state.merges[-2:], [[8, 10, 8, 6], [11, 6, 18, 7]])
    tree = state.condensed
    np.testing.assert_array_equal(tree.parent, [7, 7, 7, 8, 8, 8, 9, 9, 9])
    np.testing.assert_array_equal(tree.child, [6, 8, 9, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(tree.lambda_val, [1 / 18, 1 / 8, 1 / 8, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(tree.child_size, [1, 3, 3, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(hdbscan.stabilities(tree), [1 / 18 + 6 / 8, 3 * 7 / 8, 3 * 7 / 8])
    np.testing.assert_array_equal(state.selected, [8, 9])

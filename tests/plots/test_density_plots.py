"""Plots of density- and graph-based methods show the numbers that they are given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from figures import texts, title
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from scipy.cluster import hierarchy
from scipy.cluster.hierarchy import linkage
from sklearn.cluster import OPTICS
from sklearn.neighbors import kneighbors_graph

from jaxcluster import plots
from jaxcluster.plots import maps, neighbors, style, trees

RNG = np.random.default_rng(0)
TRUTH = np.repeat([0, 1, 2, -1], [30, 20, 10, 5])
X = (
    np.array([[0, 0], [9, 0], [0, 7], [20, 20]])[TRUTH]
    + RNG.normal(size=(65, 2)) * np.where(TRUTH < 0, 9, 0.5)[:, None]
)

TREE = np.array(
    [
        (8, 9, 1.0, 4),
        (8, 10, 1.0, 3),
        (8, 7, 0.5, 1),
        (9, 0, 2.0, 1),
        (9, 1, 2.5, 1),
        (9, 2, 4.0, 1),
        (9, 3, np.inf, 1),
        (10, 4, 3.0, 1),
        (10, 5, 3.0, 1),
        (10, 6, 1.5, 1),
    ],
    [("parent", "i8"), ("child", "i8"), ("lambda_val", "f8"), ("child_size", "i8")],
)
"""Eight rows: one leaves the root, which splits in a cluster of four and one of three."""

LABELS = np.array([1, 1, 1, 1, 0, 0, 0, -1])


@pytest.fixture(scope="module")
def order() -> OPTICS:
    return OPTICS(min_samples=5, cluster_method="dbscan", eps=1.5).fit(X)


def ticks(ax) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def faces(collection) -> list[str]:
    return [to_hex(color) for color in collection.get_facecolors()]


DRAWN = {
    "reachability": lambda ax: plots.reachability(np.arange(65.0), np.arange(65), TRUTH, ax=ax),
    "neighbor_distances": lambda ax: plots.neighbor_distances(np.arange(9.0), min_samples=3, eps=4.0, ax=ax),
    "dendrogram": lambda ax: plots.dendrogram(linkage(X), TRUTH, ax=ax),
    "condensed_tree": lambda ax: plots.condensed_tree(TREE, LABELS, ax=ax),
    "eigengap": lambda ax: plots.eigengap([0, 0.1, 0.5, 0.6], k=2, ax=ax),
    "neighbor_graph": lambda ax: plots.neighbor_graph(X, TRUTH, 4, ax=ax),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_draws_on_the_axes_given_or_makes_one(draw):
    ax = plt.subplots()[1]
    assert draw(ax) is ax
    made = draw(None)
    assert made is not ax
    assert title(made) == title(ax) != ""
    made.figure.canvas.draw()


# Reachability ---------------------------------------------------------------------------------------------------


def test_bars_of_rows_have_the_color_of_their_cluster(order):
    ax = plots.reachability(order.reachability_, order.ordering_, order.labels_, eps=1.5)
    (bars,) = ax.collections
    labels = order.labels_[order.ordering_]
    expected = [style.NOISE if label == -1 else style.PALETTE[label] for label in labels]
    assert faces(bars) == expected
    assert {style.NOISE, *style.PALETTE[:3]} == set(expected)
    heights = np.array([path.vertices[:, 1].max() for path in bars.get_paths()])
    reach = order.reachability_[order.ordering_]
    finite = np.isfinite(reach)
    np.testing.assert_allclose(heights[finite], reach[finite])
    np.testing.assert_allclose(heights[~finite], ax.get_ylim()[1])
    assert heights[finite].max() < ax.get_ylim()[1]
    assert texts(ax) == ["eps 1.5"]
    assert sorted(ticks(ax)) == ["0", "1", "2"]
    for at, name in zip(ax.get_xticks(), ticks(ax), strict=True):
        assert labels[int(at)] == int(name)


def test_many_rows_share_bars_and_the_title_says_so(monkeypatch):
    monkeypatch.setattr(neighbors, "MAX_BARS", 10)
    ax = plots.reachability(np.arange(65.0), np.arange(65), TRUTH)
    heights = [path.vertices[:, 1].max() for path in ax.collections[0].get_paths()]
    assert heights == [6, 13, 20, 27, 34, 41, 48, 55, 62, 64]
    assert faces(ax.collections[0])[3:5] == [style.PALETTE[0], style.PALETTE[1]]
    assert "the highest of every 7" in title(ax)


def test_a_bar_far_above_the_others_is_cut_off():
    heights = np.append(np.ones(64), 50.0)
    ax = plots.reachability(heights, np.arange(65), TRUTH)
    assert ax.get_ylim() == (0, pytest.approx(1.08 * neighbors.MAX_BAR_RATIO))
    assert ax.collections[0].get_paths()[-1].vertices[:, 1].max() == ax.get_ylim()[1]
    assert plots.reachability(heights, np.arange(65), TRUTH, eps=20.0).get_ylim()[1] == pytest.approx(1.08 * 20)


def test_infinite_reachability_is_drawn():
    ax = plots.reachability(np.full(4, np.inf), np.arange(4), np.full(4, -1))
    assert [path.vertices[:, 1].max() for path in ax.collections[0].get_paths()] == [1.0] * 4
    assert ticks(ax) == []


@pytest.mark.parametrize("ordering", [np.arange(64), np.r_[0, np.arange(64)]])
def test_an_ordering_must_be_a_permutation(ordering):
    with pytest.raises(ValueError, match="hold each row once"):
        plots.reachability(np.zeros(65), ordering, TRUTH)


def test_sorted_distances_and_core_fraction():
    distances = RNG.permutation(np.append(np.arange(1.0, 11.0), np.inf))
    ax = plots.neighbor_distances(distances, min_samples=3, eps=4.0)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.column_stack([np.arange(10, 101, 10), np.arange(1, 11)]))
    assert texts(ax) == ["eps 4: 40.0% are core rows"]
    assert "3rd nearest row" in title(ax)
    assert [neighbors._ordinal_suffix(i) for i in (1, 2, 4, 11, 12, 21, 112)] == [
        "st",
        "nd",
        "th",
        "th",
        "th",
        "st",
        "th",
    ]
    with pytest.raises(ValueError, match="no finite number"):
        plots.neighbor_distances([np.inf], min_samples=3)


# Trees ----------------------------------------------------------------------------------------------------------


def test_dendrogram_has_last_merges_in_cluster_colors():
    merges = linkage(X, "average")
    ax = plots.dendrogram(merges, TRUTH, most=12)
    heights = sorted(line.get_ydata()[0] for line in ax.lines if np.ptp(line.get_ydata()) == 0)
    np.testing.assert_allclose(heights, merges[-11:, 2])
    assert sum(map(int, ticks(ax))) == 65
    colors = {to_hex(line.get_color()) for line in ax.lines}
    assert style.MUTED in colors
    assert colors <= {style.MUTED, style.NOISE, *style.PALETTE[:3]}
    assert "the last 11 of 64 merges" in title(ax)


def test_branch_of_one_cluster_and_noise():
    merges = np.array([[0, 1, 1.0, 2], [2, 4, 2.0, 3], [3, 5, np.inf, 4]])
    ax = plots.dendrogram(merges, np.array([1, 1, -1, 0]), name="mutual reachability")
    bars = {to_hex(line.get_color()): line.get_ydata()[0] for line in ax.lines if np.ptp(line.get_ydata()) == 0}
    assert bars == {style.PALETTE[1]: 2.0, style.MUTED: pytest.approx(2.3)}
    legs = sorted((to_hex(line.get_color()), *line.get_ydata()) for line in ax.lines if np.ptp(line.get_ydata()))
    expected = [(1, 0, 1), (1, 0, 1), (-1, 0, 2), (1, 1, 2), (1, 2, 2.3), (0, 0, 2.3)]
    assert legs == sorted((style.NOISE if j < 0 else style.PALETTE[j], y, pytest.approx(top)) for j, y, top in expected)
    assert (title(ax), ax.get_ylabel()) == ("Dendrogram: 3 merges", "mutual reachability")
    plain = plots.dendrogram(merges)
    assert {to_hex(line.get_color()) for line in plain.lines} == {style.INK}


def test_small_branches_and_merges_are_skipped():
    # Rows 0 to 2 are joined, then 3 and 4; row 5 joins the former, which the latter join; then comes row 6.
    merges = np.array(
        [[0, 1, 1.0, 2], [2, 7, 1.1, 3], [3, 4, 1.2, 2], [5, 8, 2.0, 4], [10, 9, 3.0, 6], [11, 6, 4.0, 7]]
    )
    labels = np.array([0, 0, 0, 1, 1, -1, -1])
    ax = plots.dendrogram(merges, labels, least=2)
    assert {line.get_ydata().max() for line in ax.lines} == {3}
    assert sorted(ticks(ax)) == ["2", "4"]
    assert sorted(faces(ax.collections[0])) == sorted(style.PALETTE[:2])
    assert "1 merge of groups of at least 2 rows" in title(ax)
    whole = trees._large(merges, trees._branch_labels(merges, labels), 1)
    np.testing.assert_array_equal(whole.linkage, merges)
    with pytest.raises(ValueError, match="no two branches of at least=3 rows"):
        plots.dendrogram(merges, labels, least=3)


@pytest.mark.parametrize("least", [2, 5, 9])
def test_merges_of_large_branches_are_the_hierarchys(least):
    merges = linkage(X)
    rows = np.concatenate([np.ones(65), merges[:, 3]])
    large = (rows[merges[:, :2].astype(int)] >= least).all(1)
    result = trees._large(merges, trees._branch_labels(merges, TRUTH), least)
    np.testing.assert_array_equal(result.linkage[:, 2], merges[large, 2])
    assert hierarchy.is_valid_linkage(result.linkage)
    assert hierarchy.num_obs_linkage(result.linkage) == large.sum() + 1
    assert sorted(result.linkage[:, :2].ravel().tolist()) == list(range(2 * large.sum()))
    assert (result.rows >= least).all()
    assert len(result.rows) == len(result.labels) == 2 * large.sum() + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linkage": np.zeros((0, 4))}, r"\(0, 4\)"),
        ({"linkage": np.zeros((3, 3))}, r"\(3, 3\)"),
        ({"labels": TRUTH[:5]}, r"labels \(5,\) do not fit 65 rows"),
        ({"most": 1}, "most=1 must be at least 2"),
    ],
)
def test_wrong_dendrograms_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plots.dendrogram(**({"linkage": linkage(X)} | options))


@pytest.mark.parametrize("kind", ["records", "object"])
def test_icicles_show_sizes_and_lifetimes(kind):
    tree = TREE if kind == "records" else SimpleNamespace(**{name: TREE[name] for name in TREE.dtype.names})
    ax = plots.condensed_tree(tree, LABELS)
    (icicles,) = ax.collections
    assert sorted(faces(icicles)) == sorted([style.NOISE, style.PALETTE[0], style.PALETTE[1]])
    shapes = dict(zip(faces(icicles), (path.vertices for path in icicles.get_paths()), strict=True))
    root, first, second = (shapes[color] for color in (style.NOISE, style.PALETTE[0], style.PALETTE[1]))
    assert [np.ptp(shape[:, 0]) for shape in (root, first, second)] == [8, 3, 4]
    assert (root[:, 1].min(), root[:, 1].max()) == (0, 1)
    assert (first[:, 1].min(), first[:, 1].max()) == (1, 3)
    assert second[:, 1].max() == ax.get_ylim()[0] == 4  # the row that never leaves is cut off
    at = np.sort(second[np.isclose(second[:, 1], 2.5)][:, 0])
    assert np.ptp(at) == 3  # of four rows one had left, the second leaves here
    assert sorted(texts(ax)) == ["0", "1"]


def test_parts_of_a_cluster_lie_side_by_side():
    result = trees._icicles(*trees.tree_edges(TREE), LABELS)
    root, parts = result[0], sorted(result[1:], key=lambda icicle: icicle.left[0])
    assert (root.left[0], root.right[0]) == (0, 8)
    assert parts[0].left[0] >= root.left[-1]
    assert parts[0].right[0] == parts[1].left[0]
    assert parts[1].right[0] <= root.right[-1]


def test_colors_below_and_above_selected_clusters():
    labels = np.where(LABELS >= 0, 0, -1)
    assert [icicle.label for icicle in trees._icicles(*trees.tree_edges(TREE), labels)] == [-1, 0, 0]
    ax = plots.condensed_tree(TREE, np.zeros(8, int))
    assert faces(ax.collections[0]) == [style.PALETTE[0]] * 3
    assert texts(ax) == ["0"]


def test_outlines_are_thinned(monkeypatch):
    monkeypatch.setattr(trees, "MAX_OUTLINE_STEPS", 3)
    result = trees._icicles(*trees.tree_edges(TREE), LABELS)
    assert [len(icicle.levels) for icicle in result] == [3, 3, 3]
    assert result[0].levels[0] == 0


def test_labels_of_another_tree_are_refused():
    with pytest.raises(ValueError, match=r"labels \(5,\) do not fit a tree of 8 rows"):
        plots.condensed_tree(TREE, LABELS[:5])


# Graphs ---------------------------------------------------------------------------------------------------------


def test_widest_eigenvalue_gap_is_labeled():
    ax = plots.eigengap([0.5, 0.0, 0.55, 0.01, 0.02])
    assert texts(ax) == ["widest gap after 3"]
    before, after = (collection.get_offsets().data for collection in ax.collections)
    np.testing.assert_allclose(before, [[1, 0], [2, 0.01], [3, 0.02]])
    np.testing.assert_allclose(after, [[4, 0.5], [5, 0.55]])
    (band,) = ax.patches
    assert (band.get_y(), band.get_height()) == (pytest.approx(0.02), pytest.approx(0.48))


def test_a_k_other_than_the_widest_gap_is_noted():
    ax = plots.eigengap([0, 0.01, 0.02, 0.5, 0.55], k=4)
    assert texts(ax) == ["widest gap after 3; 4 chosen"]
    assert len(ax.patches) == 2
    assert len(ax.collections[0].get_offsets()) == 4
    assert texts(plots.eigengap([0, 0.01, 0.02, 0.5], k=3)) == ["widest gap after 3"]


def test_one_eigenvalue_has_no_gap():
    ax = plots.eigengap([0.0], k=1)
    assert not texts(ax)
    assert not ax.patches
    for bad in ([], [0, np.nan]):
        with pytest.raises(ValueError, match="must be finite, at least one"):
            plots.eigengap(bad)


def edges(ax) -> list[set]:
    """The edges within clusters, and those between: each as the pair of its ends."""
    drawn = [collection.get_segments() for collection in ax.collections[:2]]
    return [{frozenset(map(tuple, np.round(segment, 6))) for segment in segments} for segments in drawn]


@pytest.mark.parametrize("graph", ["number", "sparse", "dense", "one direction"])
def test_every_edge_is_drawn_once_and_cut_ones_dark(graph):
    neighbors = kneighbors_graph(X, 12)
    either = neighbors + neighbors.T
    given = {
        "number": 12,
        "sparse": either,
        "dense": either.toarray(),
        "one direction": scipy.sparse.triu(either),
    }[graph]
    ax = plots.neighbor_graph(X, TRUTH, given)
    pairs = np.argwhere(np.triu(either.toarray() != 0, 1))
    cut = (TRUTH[pairs[:, 0]] != TRUTH[pairs[:, 1]]) & (TRUTH[pairs] >= 0).all(1)
    expected = [{frozenset(map(tuple, np.round(X[pair], 6))) for pair in part} for part in (pairs[~cut], pairs[cut])]
    assert edges(ax) == expected
    assert len(expected[1]) > 5
    assert to_hex(ax.collections[1].get_colors()[0]) == style.INK
    assert f"{len(pairs)} edges, {cut.sum()} between clusters" in title(ax)


def test_of_many_rows_the_edges_among_some_are_drawn(monkeypatch):
    monkeypatch.setattr(maps, "MAX_GRAPH_ROWS", 40)
    ax = plots.neighbor_graph(X, TRUTH, np.ones((65, 65)))
    assert sum(map(len, edges(ax))) == 40 * 39 // 2
    assert "(40 of 65 rows)" in title(ax)


@pytest.mark.parametrize(
    ("graph", "message"),
    [(0, "graph=0 must be between 1 and 64"), (65, "between 1 and 64"), (np.eye(4), r"graph \(4, 4\) does not fit")],
)
def test_wrong_graphs_are_refused(graph, message):
    with pytest.raises(ValueError, match=message):
        plots.neighbor_graph(X, TRUTH, graph)

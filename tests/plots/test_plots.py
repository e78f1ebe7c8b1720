"""Plots return their axes and show the data: maps, clusters, images, and colors."""

from __future__ import annotations

import numpy as np
import pytest
from figures import texts, title
from matplotlib.colors import to_hex
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples

from jaxcluster import plots
from jaxcluster.plots import bars, maps, style

RNG = np.random.default_rng(0)
CENTERS = np.array([[0, 0, 0, 0, 0], [9, 0, 0, 0, 0], [0, 7, 0, 0, 0]], np.float32)
LABELS = np.repeat([0, 1, 2], [30, 20, 10])
X = (CENTERS[LABELS] + RNG.normal(size=(60, 5))).astype(np.float32)


DRAWN = {
    "clusters_2d": lambda ax: plots.clusters_2d(X, LABELS, ax=ax),
    "elbow": lambda ax: plots.elbow([1, 2, 3], [9, 2, 1], ax=ax),
    "sweep": lambda ax: plots.sweep([2, 3, 4], [0.1, 0.4, 0.3], ax=ax),
    "silhouette": lambda ax: plots.silhouette(X, LABELS, ax=ax),
    "history": lambda ax: plots.history([3.0, 2.0], ax=ax),
    "cluster_sizes": lambda ax: plots.cluster_sizes(LABELS, ax=ax),
    "ellipses": lambda ax: plots.ellipses(X, LABELS, CENTERS, np.ones((3, 5)), covariance_type="diag", ax=ax),
    "densities": lambda ax: plots.densities(X[:, :1], CENTERS[:, :1], np.ones(3), covariance_type="spherical", ax=ax),
    "information_criteria": lambda ax: plots.information_criteria([1, 2], {"full": [3, 2], "diag": [4, 1]}, ax=ax),
    "centers_as_images": lambda ax: plots.centers_as_images(np.eye(4), (2, 2), ax=ax),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_draws_on_the_axes_given_or_makes_one(ax, draw):
    assert draw(ax) is ax
    made = draw(None)
    assert made is not ax
    assert made.figure is not ax.figure
    assert title(made) == title(ax) != ""
    made.figure.canvas.draw()


# Maps -----------------------------------------------------------------------------------------------------------


def test_pca_map_is_scikit_learns_with_its_variance(ax):
    plots.clusters_2d(X, LABELS, centers=CENTERS, ax=ax)
    pca = PCA(2).fit(X)
    points, centers = (collection.get_offsets().data for collection in ax.collections)
    expected = pca.transform(X)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), atol=1e-3)
    np.testing.assert_allclose(centers, pca.transform(CENTERS), atol=1e-3)
    assert f"{pca.explained_variance_ratio_[0]:.1%}" in ax.get_xlabel()
    assert f"{pca.explained_variance_ratio_[1]:.1%}" in ax.get_ylabel()
    assert texts(ax) == ["0", "1", "2"]


def test_two_columns_are_drawn_in_cluster_colors(ax):
    plots.clusters_2d(X[:, :2], LABELS, ax=ax, columns=["length", "width"])
    (points,) = ax.collections
    pairs = zip(points.get_offsets(), points.get_facecolors(), strict=True)
    drawn = {tuple(np.float32(at)): to_hex(color) for at, color in pairs}
    assert drawn == {tuple(row): style.PALETTE[label] for row, label in zip(X[:, :2], LABELS, strict=True)}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "width")


def test_one_column_is_spread_out_but_keeps_its_values(ax):
    plots.clusters_2d(X[:, :1], LABELS, centers=CENTERS[:, :1], ax=ax)
    points, centers = (collection.get_offsets().data for collection in ax.collections)
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(X[:, 0]), atol=1e-6)
    assert np.ptp(points[:, 1]) > 1
    np.testing.assert_allclose(centers, [[0, 0], [9, 0], [0, 0]])
    assert len(ax.get_yticks()) == 0


def test_noise_is_gray_below_and_named(ax):
    labels = np.where(np.arange(60) % 4 == 0, -1, LABELS)
    plots.clusters_2d(X, labels, ax=ax)
    noise, rest = ax.collections
    assert {to_hex(color) for color in noise.get_facecolors()} == {style.NOISE}
    assert len(noise.get_offsets()) == 15
    assert len(rest.get_offsets()) == 45
    assert style.NOISE not in {to_hex(color) for color in rest.get_facecolors()}
    assert "25.0%" in ax.get_legend().get_texts()[0].get_text()
    assert texts(ax) == ["0", "1", "2"]


def test_nothing_but_noise_is_drawn_too(ax):
    plots.clusters_2d(X, np.full(60, -1), ax=ax)
    assert len(ax.collections) == 1
    assert not texts(ax)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_rows_that_are_all_the_same_are_drawn(ax, method):
    plots.clusters_2d(np.ones((9, 5)), np.zeros(9, int), method=method, ax=ax)
    assert np.isfinite(ax.collections[0].get_offsets()).all()
    assert "nan" not in ax.get_xlabel()


def test_a_single_row_is_drawn(ax):
    plots.clusters_2d(X[:1], LABELS[:1], centers=X[:1], ax=ax)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), X[:1, :2])


def test_classes_by_name(ax):
    plots.clusters_2d(X, np.array(["a", "b", "c"])[LABELS], ax=ax)
    assert texts(ax) == ["a", "b", "c"]


def test_tsne_embeds_rows_and_centers(ax):
    plots.clusters_2d(X, LABELS, centers=CENTERS, method="tsne", ax=ax)
    points, centers = (collection.get_offsets() for collection in ax.collections)
    assert points.shape == (60, 2)
    assert centers.shape == (3, 2)
    assert "t-SNE" in title(ax)
    assert len(ax.get_xticks()) == 0


def test_many_rows_are_sampled_and_the_title_says_so(ax, monkeypatch):
    monkeypatch.setattr(maps, "MAX_PCA_ROWS", 40)
    monkeypatch.setattr(maps, "MAX_TSNE_ROWS", 25)
    plots.clusters_2d(X, LABELS, ax=ax)
    assert "40 of 60 rows" in title(ax)
    assert len(ax.collections[0].get_offsets()) == 40
    made = plots.clusters_2d(X, LABELS, method="tsne")
    assert "25 of 60 rows" in title(made)
    assert len(made.collections[0].get_offsets()) == 25


def test_the_limits_on_rows():
    assert (maps.MAX_PCA_ROWS, maps.MAX_TSNE_ROWS, bars.MAX_SILHOUETTE_ROWS) == (20_000, 5_000, 10_000)


def test_the_same_seed_draws_the_same_map(monkeypatch):
    monkeypatch.setattr(maps, "MAX_PCA_ROWS", 40)
    same = [plots.clusters_2d(X, LABELS, random_state=3).collections[0].get_offsets() for _ in range(2)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "umap"}, "'umap'.*'pca' or 'tsne'"),
        ({"centers": np.zeros((3, 4))}, r"\(3, 4\)"),
        ({"columns": ["a"]}, "1 column names"),
        ({"labels": LABELS[:5]}, r"\(5,\)"),
        ({"x": X[:3], "labels": LABELS[:3], "method": "tsne"}, "at least 4 rows"),
    ],
)
def test_wrong_maps_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plots.clusters_2d(**({"x": X, "labels": LABELS} | options))


# Clusters -------------------------------------------------------------------------------------------------------


def test_silhouette_draws_scikit_learns_values(ax):
    labels = np.where(np.arange(60) % 10 == 0, -1, LABELS)
    plots.silhouette(X, labels, ax=ax)
    inside = labels >= 0
    values = silhouette_samples(X[inside], labels[inside])
    assert len(ax.collections) == 3
    for label, area in zip(range(3), ax.collections, strict=True):
        own = values[labels[inside] == label]
        drawn = area.get_paths()[0].vertices
        bars = drawn[np.lexsort((-np.abs(drawn[:, 0]), drawn[:, 1]))]  # from the top, the far end of each edge first
        np.testing.assert_allclose(bars[0, 0], own.max(), atol=1e-4)
        np.testing.assert_allclose(np.unique(drawn[drawn[:, 0] != 0, 0]), np.unique(own), atol=1e-4)
        assert to_hex(area.get_facecolor()[0]) == style.PALETTE[label]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), values.mean(), atol=1e-4)
    assert texts(ax) == [f"mean {values.mean():.3f}"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1", "2"]


def test_silhouette_of_many_rows_is_of_a_sample(ax, monkeypatch):
    monkeypatch.setattr(bars, "MAX_SILHOUETTE_ROWS", 50)
    plots.silhouette(X, LABELS, ax=ax)
    assert "50 of 60 rows" in title(ax)


@pytest.mark.parametrize("labels", [np.zeros(60, int), np.arange(60), np.full(60, -1)])
def test_silhouette_needs_two_to_n_minus_1_clusters(labels):
    with pytest.raises(ValueError, match="2 to n - 1"):
        plots.silhouette(X, labels)


def test_sizes_are_counted_and_noise_is_last(ax):
    plots.cluster_sizes([1, -1, 1, 3, 1, -1], ax=ax)
    assert [bar.get_height() for bar in ax.patches] == [3, 1, 2]
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == [style.PALETTE[1], style.PALETTE[3], style.NOISE]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "3", "noise"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 2])
    assert "2 clusters" in title(ax)


def test_many_clusters_keep_few_ticks(ax):
    plots.cluster_sizes(np.arange(200), ax=ax)
    assert len(ax.patches) == 200
    assert len(ax.get_xticks()) <= 20
    assert not ax.texts


def test_center_images_are_the_centers(ax):
    centers = np.arange(12, dtype=float).reshape(3, 4)
    plots.centers_as_images(centers, (2, 2), ax=ax, names=["a", "b", "c"])
    (sheet,) = (image.get_array() for image in ax.images)
    shown = sheet[..., 3] == 1
    assert shown.sum() == 12
    np.testing.assert_allclose(np.sort(sheet[..., 0][shown]), np.arange(12) / 11, atol=1e-6)
    np.testing.assert_allclose(sheet[-2:, :2, 0], [[0, 1 / 11], [2 / 11, 3 / 11]], atol=1e-6)
    assert texts(ax) == ["a", "b", "c"]


def test_color_centers_and_the_most_of_them(ax):
    plots.centers_as_images(RNG.random((120, 12)), (2, 2, 3), ax=ax)
    assert len(ax.texts) == 100
    assert "100 of 120" in title(ax)
    assert np.ptp(ax.images[0].get_array()[..., :3], axis=-1).max() > 0


@pytest.mark.parametrize(
    ("centers", "shape"), [(np.zeros((2, 5)), (2, 2)), (np.zeros((2, 4)), (4,)), (np.zeros((2, 8)), (2, 2, 2))]
)
def test_wrong_image_shapes_are_refused(centers, shape):
    with pytest.raises(ValueError, match="image"):
        plots.centers_as_images(centers, shape)


@pytest.mark.parametrize(
    ("value", "text"),
    [(78.851, "78.85"), (1234, "1234"), (12345, "12.35k"), (1165189, "1.165M"), (-2e9, "-2G"), (0, "0")],
)
def test_compact_numbers(value, text):
    assert style.format_number(value) == text


def test_colors_repeat_after_the_palette():
    assert len(set(style.PALETTE)) == 24
    assert style.colors_of(np.array([25, -1, 3])) == {25: style.PALETTE[1], 3: style.PALETTE[3], -1: style.NOISE}


# Samples of any kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize(("unit", "offset"), [(1e-200, 0), (1e200, 0), (1, 1e9)])
def test_the_plane_is_that_of_the_rows_in_any_unit(method, unit, offset):
    x = np.round(X.astype(np.float64), 3)
    expected = maps.plane(x, method=method)
    at = maps.plane(x * unit + offset, centers=CENTERS.astype(np.float64) * unit + offset, method=method)
    if method == "pca":
        np.testing.assert_allclose(at.points / unit, expected.points, atol=1e-6)
        np.testing.assert_allclose(at.centers / unit, (CENTERS - x.mean(0)) @ expected.basis, atol=1e-6)
        assert at.xlabel == expected.xlabel
    else:
        assert np.isfinite(at.points).all()
        assert len(np.unique(at.points, axis=0)) == len(x)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.uint8, np.longdouble, bool])
def test_rows_of_any_dtype_are_drawn(ax, dtype):
    x = np.clip(X * 10, 0, 200).astype(dtype)
    plots.clusters_2d(x, LABELS, ax=ax)
    np.testing.assert_allclose(maps.plane(x).points, maps.plane(x.astype(np.float64)).points)
    assert plots.silhouette(x, LABELS).get_xlabel() == "silhouette"


def test_missing_cells_are_drawn_at_column_means(ax):
    x = X[:, :2].astype(np.float64)
    x[3, 1] = np.nan
    at = maps.plane(x)
    assert at.points[3, 1] == pytest.approx(np.nanmean(x[:, 1]))
    assert np.isfinite(maps.plane(np.where(np.arange(300).reshape(60, 5) % 7, X, np.nan)).points).all()
    plots.densities(x[:, 1:], CENTERS[:, :1], np.ones(3), covariance_type="spherical", ax=ax)


def test_class_has_the_color_of_its_matched_cluster():
    labels = np.repeat([0, 1, 2, -1], [10, 20, 30, 5])
    truth = np.array(["c"] * 9 + ["a"] * 21 + ["b"] * 25 + ["d"] * 10)
    colors = style.colors_like(truth, labels)
    assert [colors[name] for name in "cab"] == [style.color_of(0), style.color_of(1), style.color_of(2)]
    assert len(set(colors.values())) == 4
    assert colors["d"] not in style.PALETTE[:3]
    swapped = style.colors_like(np.where(labels == 0, 1, np.where(labels == 1, 0, labels)), labels)
    assert (swapped[1], swapped[0], swapped[-1]) == (style.color_of(0), style.color_of(1), style.NOISE)
    noise = style.colors_like(truth, np.full(65, -1))
    assert len(set(noise.values())) == 4
    many = style.colors_like(np.arange(65), labels)
    assert len(many) == 65 + 1

"""Plots of mixtures and of model selection: components are the covariances, curves the values."""

from __future__ import annotations

import numpy as np
import pytest
from figures import texts, title
from matplotlib.colors import to_hex
from matplotlib.patches import Ellipse
from scipy.stats import norm
from sklearn.decomposition import PCA

from jaxcluster import plots
from jaxcluster.plots import components, style
from jaxcluster.types import Fit

RNG = np.random.default_rng(0)
CENTERS = np.array([[0, 0, 0, 0, 0], [9, 0, 0, 0, 0], [0, 7, 0, 0, 0]], np.float32)
LABELS = np.repeat([0, 1, 2], [30, 20, 10])
X = (CENTERS[LABELS] + RNG.normal(size=(60, 5))).astype(np.float32)

FULL = np.stack([part @ part.T + 0.1 * np.eye(5) for part in RNG.normal(size=(3, 5, 5))])
SPREADS = {
    "full": FULL,
    "tied": FULL[1],
    "diag": np.diagonal(FULL, axis1=1, axis2=2),
    "spherical": np.array([0.5, 2.0, 1.0]),
}
"""Covariances of three components, one set for each type."""

WEIGHTS = np.array([0.5, 0.3, 0.2])


def spread_out(kind: str) -> np.ndarray:
    """(3, 5, 5) covariances of each type."""
    return {
        "full": FULL,
        "tied": np.stack([FULL[1]] * 3),
        "diag": FULL * np.eye(5),
        "spherical": np.stack([variance * np.eye(5) for variance in SPREADS["spherical"]]),
    }[kind]


# Components -----------------------------------------------------------------------------------------------------


def outlines(ax) -> list[Ellipse]:
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def assert_outlines(ax, means: np.ndarray, spreads: np.ndarray, clusters=(0, 1, 2)) -> None:
    """Two ellipses for each component, along the eigenvectors of its covariance and as long as their deviations."""
    drawn = outlines(ax)
    assert len(drawn) == 2 * len(clusters)
    for cluster, mean, spread, *pair in zip(clusters, means, spreads, drawn[::2], drawn[1::2], strict=True):
        values, vectors = np.linalg.eigh(spread)
        for deviations, ellipse in zip((1, 2), pair, strict=True):
            np.testing.assert_allclose(ellipse.center, mean, atol=1e-4)
            lengths = 2 * deviations * np.sqrt(values[::-1])
            np.testing.assert_allclose([ellipse.width, ellipse.height], lengths, rtol=1e-4)
            if np.ptp(values) > 1e-6:  # a circle has no direction
                along = np.array([np.cos(np.radians(ellipse.angle)), np.sin(np.radians(ellipse.angle))])
                np.testing.assert_allclose(abs(along @ vectors[:, 1]), 1, atol=1e-6)
            assert to_hex(ellipse.get_edgecolor()) == style.PALETTE[cluster]


@pytest.mark.parametrize("kind", SPREADS)
def test_ellipses_are_eigenvectors_of_covariances(ax, kind):
    at = (slice(None), slice(2), slice(2)) if kind == "full" else np.s_[:2, :2] if kind == "tied" else np.s_[..., :2]
    spreads = SPREADS[kind] if kind == "spherical" else SPREADS[kind][at]
    plots.ellipses(X[:, :2], LABELS, CENTERS[:, :2], spreads, covariance_type=kind, weights=WEIGHTS, ax=ax)
    assert_outlines(ax, CENTERS[:, :2], spread_out(kind)[:, :2, :2])
    assert texts(ax) == ["0", "1", "2"]
    assert title(ax) == "Components"


@pytest.mark.parametrize("kind", SPREADS)
def test_ellipses_of_many_columns_are_marginals(ax, kind):
    plots.ellipses(X, LABELS, CENTERS, SPREADS[kind], covariance_type=kind, weights=WEIGHTS, ax=ax)
    pca = PCA(2).fit(X)
    assert_outlines(ax, pca.transform(CENTERS), pca.components_ @ spread_out(kind) @ pca.components_.T)
    assert title(ax) == "Components on the principal plane"
    assert [len(collection.get_offsets()) for collection in ax.collections] == [60, 3]


def test_ellipses_lie_within_the_axes(ax):
    x, means, labels = X[:, :2], CENTERS[:, :2], np.zeros(60, int)
    plots.ellipses(x, labels, means[:1], np.diag([4.0, 9.0])[None], ax=ax)
    low, high = ax.get_xlim()
    assert low <= -4
    assert high >= x[:, 0].max()
    made = plots.ellipses(x, labels, means[:1], [1e6], covariance_type="spherical")
    width = np.ptp(x[:, 0])
    assert np.ptp(made.get_xlim()) < 1.2 * (1 + 2 * components.MAX_OVERHANG) * width


def test_empty_or_nonfinite_components_are_left_out(ax):
    means, labels = CENTERS[:, :2], np.where(LABELS == 1, 0, LABELS)
    spreads = FULL[:, :2, :2].copy()
    empty = np.array([0.78, 0.02, 0.2])  # the weight of little more than a row, and no label
    plots.ellipses(X[:, :2], labels, means, spreads, weights=empty, ax=ax)
    assert_outlines(ax, means[[0, 2]], spreads[[0, 2]], (0, 2))
    assert texts(ax) == ["0", "2"]
    assert "1 of 3 left out" in title(ax)
    assert len(outlines(plots.ellipses(X[:, :2], LABELS, means, spreads, weights=empty))) == 6  # it has rows
    assert len(outlines(plots.ellipses(X[:, :2], labels, means, spreads, weights=WEIGHTS))) == 6  # it has weight
    assert len(outlines(plots.ellipses(X[:, :2], labels, means, spreads))) == 6  # nobody knows
    spreads[0, 0, 0] = np.nan
    made = plots.ellipses(X[:, :2], LABELS, means, spreads, weights=WEIGHTS)
    assert_outlines(made, means[1:], spreads[1:], (1, 2))
    assert "1 of 3 left out" in title(made)
    nothing = plots.ellipses(X[:, :2], LABELS, means * np.nan, spreads)
    assert not outlines(nothing)
    assert texts(nothing) == ["0", "1", "2"]


def test_a_component_without_extent_is_a_line(ax):
    plots.ellipses(X[:, :2], LABELS * 0, CENTERS[:1, :2], [[[1.0, 1.0], [1.0, 1.0]]], ax=ax)
    (inner, _) = outlines(ax)
    np.testing.assert_allclose([inner.width, inner.height], [2 * np.sqrt(2), 0], atol=1e-6)
    ax.figure.canvas.draw()


def curves(ax) -> list[np.ndarray]:
    return [line.get_xydata() for line in ax.lines]


def test_one_column_has_density_curves_and_their_sum(ax):
    x, means, variances = X[:, :1], np.array([[0.0], [9.0], [1.0]]), np.array([1.0, 0.25, 2.0])
    options = {"covariance_type": "spherical", "weights": WEIGHTS, "columns": ["length"]}
    plots.ellipses(x, LABELS, means, variances, **options, ax=ax)
    total, *each = curves(ax)
    assert len(each) == 3
    for j, curve in enumerate(each):
        expected = WEIGHTS[j] * norm.pdf(curve[:, 0], means[j, 0], np.sqrt(variances[j]))
        np.testing.assert_allclose(curve[:, 1], expected, atol=1e-9)
        assert ax.lines[j + 1].get_color() == style.PALETTE[j]
    np.testing.assert_allclose(total[:, 1], sum(curve[:, 1] for curve in each), rtol=1e-9)
    np.testing.assert_allclose(np.trapezoid(total[:, 1], total[:, 0]), 1, atol=0.02)
    np.testing.assert_allclose(sum(bar.get_height() * bar.get_width() for bar in ax.patches), 1, rtol=1e-6)
    assert texts(ax) == ["0", "1", "2"]
    peaks = ax.collections[0].get_offsets()
    np.testing.assert_allclose(peaks[:, 0], means[:, 0])
    np.testing.assert_allclose(peaks[:, 1], WEIGHTS / np.sqrt(2 * np.pi * variances), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "density")
    full = plots.densities(x, means, variances[:, None, None], weights=WEIGHTS)
    np.testing.assert_allclose(curves(full)[0], total)


def test_label_frequencies_replace_weights(ax):
    plots.ellipses(X[:, :1], LABELS, CENTERS[:, :1], np.ones((3, 1)), covariance_type="diag", ax=ax)
    np.testing.assert_allclose(curves(ax)[2][:, 1].max(), 20 / 60 * norm.pdf(0), rtol=1e-3)
    plain = plots.densities(X[:, :1], CENTERS[:, :1], np.ones((3, 1)), covariance_type="diag")
    np.testing.assert_allclose(curves(plain)[2][:, 1].max(), 1 / 3 * norm.pdf(0), rtol=1e-3)


def test_a_narrow_component_does_not_hide_the_others(ax):
    plots.densities(X[:, :1], CENTERS[:, :1], [1.0, 1e-8, 1.0], covariance_type="spherical", weights=WEIGHTS, ax=ax)
    tallest = max(bar.get_height() for bar in ax.patches)
    assert ax.get_ylim()[1] == pytest.approx(1.12 * components.MAX_CURVE_RATIO * tallest)
    assert curves(ax)[2][:, 1].max() > 100 * tallest  # its peak was not stepped over
    assert ax.collections[0].get_offsets()[1, 1] < ax.get_ylim()[1]


@pytest.mark.parametrize("variance", [1e-6, 0.0, np.nan])
def test_equal_values_in_one_column_are_drawn(ax, variance):
    plots.ellipses(np.ones((9, 1)), np.zeros(9, int), [[1.0]], [variance], covariance_type="spherical", ax=ax)
    assert len(ax.lines) == (2 if variance > 0 else 1)
    assert ("left out" in title(ax)) == (not variance > 0)
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"means": CENTERS[:, :3]}, r"means \(3, 3\) do not fit the rows \(60, 5\)"),
        ({"covariances": FULL[:2]}, r"covariances \(2, 5, 5\) do not fit 3 components of 5 columns.*\(3, 5, 5\)"),
        ({"covariance_type": "diag"}, r"'diag' ones must be \(3, 5\)"),
        ({"covariance_type": "round"}, "'round' is not known.*'spherical'"),
        ({"weights": [0.5, 0.5]}, r"weights \(2,\) do not fit 3 components"),
        ({"labels": LABELS[:5]}, r"\(5,\)"),
        ({"columns": ["a"]}, "1 column names"),
    ],
)
def test_wrong_components_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plots.ellipses(**({"x": X, "labels": LABELS, "means": CENTERS, "covariances": FULL} | options))


def test_densities_are_of_one_column():
    with pytest.raises(ValueError, match=r"\(60, 5\).*one column"):
        plots.densities(X, CENTERS, FULL)
    with pytest.raises(ValueError, match="2 column names"):
        plots.densities(X[:, :1], CENTERS[:, :1], np.ones((3, 1, 1)), columns=["a", "b"])


@pytest.mark.parametrize("kind", SPREADS)
def test_covariances_of_every_type_are_projected_alike(kind):
    values = components.as_covariances(SPREADS[kind], kind, 3, 5)
    basis = np.linalg.qr(RNG.normal(size=(5, 2)))[0]
    expected = basis.T @ spread_out(kind) @ basis
    np.testing.assert_allclose(components.project(values, kind, 3, basis), expected)
    expected = np.sqrt(np.diagonal(spread_out(kind), axis1=1, axis2=2))
    np.testing.assert_allclose(components.deviations(values, kind, 3, 5), expected)


def test_tied_covariances_may_have_an_axis_of_one():
    np.testing.assert_array_equal(components.as_covariances(FULL[1:2], "tied", 3, 5), FULL[1])


# Curves ---------------------------------------------------------------------------------------------------------


def test_elbow_marks_the_bend(ax):
    ks = [8, 2, 3, 4, 5, 6, 7]
    inertias = [88, 700, 400, 100, 97, 94, 91]
    plots.elbow(ks, inertias, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), sorted(zip(ks, inertias, strict=True)))
    assert texts(ax) == ["elbow at k = 4"]


@pytest.mark.parametrize("inertias", [[4, 3, 2, 1], [1, 1, 1, 1], [1, 2, 3, 4]])
def test_a_curve_without_a_bend_has_no_elbow(ax, inertias):
    plots.elbow([1, 2, 3, 4], inertias, ax=ax)
    assert not ax.texts


def test_seeds_are_dots_and_the_best_a_line(ax):
    inertias = np.array([[9.0, 8.0], [3.0, 4.0], [2.0, 2.5]])
    plots.elbow([1, 2, 3], inertias, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [8, 3, 2])
    assert len(ax.collections[0].get_offsets()) == 6


@pytest.mark.parametrize(("best", "k"), [("max", 3), ("min", 2)])
def test_sweep_marks_the_best(ax, best, k):
    plots.sweep([2, 3, 4], [[0.1, 0.2], [0.4, 0.3], [0.3, np.nan]], name="silhouette", best=best, ax=ax)
    assert texts(ax) == [f"best at k = {k}"]
    assert ax.texts[0].get_ha() == "left"
    assert plots.sweep([2, 3, 4], [1, 2, 3]).texts[0].get_ha() == "right"
    assert title(ax).startswith("Silhouette")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.2, 0.4, 0.3] if best == "max" else [0.1, 0.3, 0.3])


CRITERIA = {"full": [[30.0, 31.0], [12.0, 11.0], [14.0, 14.0]], "tied": [[30.0, 30.0], [20.0, 22.0], [10.0, np.nan]]}


def test_information_criteria_mark_the_least(ax):
    plots.information_criteria([3, 1, 2], {name: [v[2], v[0], v[1]] for name, v in CRITERIA.items()}, ax=ax)
    full, tied, at, mark = ax.lines
    np.testing.assert_array_equal(full.get_xydata(), [[1, 30], [2, 11], [3, 14]])
    np.testing.assert_array_equal(tied.get_xydata(), [[1, 30], [2, 20], [3, 10]])
    assert [len(dots.get_offsets()) for dots in ax.collections] == [6, 6]
    assert list(at.get_xdata()) == [3, 3]
    assert mark.get_xydata().tolist() == [[3, 10]]
    assert mark.get_color() == tied.get_color() == style.PALETTE[1]
    assert texts(ax) == ["least at k = 3, tied"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["full", "tied"]
    assert (title(ax), ax.get_ylabel()) == ("BIC by number of components", "BIC")


def test_the_legend_covers_neither_lines_nor_title():
    ax = plots.information_criteria([1, 2, 3], CRITERIA)
    ax.figure.canvas.draw()
    legend, inside = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert inside.y1 <= legend.y0 < legend.y1 <= ax._left_title.get_window_extent().y0
    callout = ax.texts[0].get_window_extent()
    assert callout.y0 > max(ax.transData.transform(line.get_xydata())[:, 1].max() for line in ax.lines[:2])


def test_a_single_criterion_needs_no_name(ax):
    plots.information_criteria([1, 2, 3], [9.0, np.inf, 4.0], name="AIC", ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 9], [2, np.nan], [3, 4]])
    assert texts(ax) == ["least at k = 3"]
    assert ax.get_legend() is None
    assert title(ax).startswith("AIC")


@pytest.mark.parametrize("values", [[np.nan, np.inf], {}, {"full": [np.nan, np.nan]}])
def test_criteria_without_a_finite_value_are_refused(values):
    with pytest.raises(ValueError, match="no finite"):
        plots.information_criteria([1, 2], values)


def test_the_history_of_a_fit_ends_with_its_steps(ax):
    fit = Fit(None, None, np.int32(2), np.int32(0), np.array([5.0, 0.0, 0.0, 0.0]))  # an inertia may well be 0
    plots.history(fit, ax=ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [5, 0])


def test_history_leaves_out_what_is_not_finite(ax):
    plots.history([5.0, 3.0, 2.5, np.nan, np.nan], ax=ax, name="loss")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 5], [2, 3], [3, 2.5]])
    assert "3 steps" in title(ax)
    assert ax.get_ylabel() == "loss"
    assert texts(ax) == ["2.5"]


def test_wrong_curves_are_refused():
    with pytest.raises(ValueError, match="no finite"):
        plots.history([np.nan])
    with pytest.raises(ValueError, match="do not fit"):
        plots.elbow([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="'best'"):
        plots.sweep([1], [1], best="best")

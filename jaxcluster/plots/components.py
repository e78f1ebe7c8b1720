"""Components of a mixture: ellipses in the plane, or density curves over one column.

Covariances are scikit-learn's of each ``covariance_type``; the smaller types are never expanded to (k, d, d).

>>> project(as_covariances([2.0], "spherical", 1, 3), "spherical", 1, np.eye(3, 2)).tolist()
[[[2.0, 0.0], [0.0, 2.0]]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.core.validation import check_choice
from jaxcluster.plots.maps import Plane, check_columns, draw_plane, mark_centers, plane
from jaxcluster.plots.style import INK, NOISE, PAPER, as_float, check_labeled, color_of, is_noise, new_axes, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_ROWS = 2
"""Weight, in samples, from which a component without labeled samples is drawn: a prior alone gives up to one."""

MAX_CURVE_RATIO = 4
"""Height of the axes, relative to the histogram: the peak of a narrow component is cut off, or it would flatten all."""

MAX_OVERHANG = 0.5
"""Distance beyond the samples, relative to their range, to which wide components may stretch the axes."""

SHAPES = {"full": "kdd", "tied": "dd", "diag": "kd", "spherical": "k"}
"""Axes of the covariances of each type: components k and features d."""


def ellipses(
    x: Any,
    labels: Any,
    means: Any,
    covariances: Any,
    *,
    covariance_type: str = "full",
    weights: Any = None,
    columns: Sequence[str] | None = None,
    random_state: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Samples in the plane, colored by label, and the ellipses of each component at 1 and 2 standard deviations.

    They are the ellipses of the marginal in that plane: the principal one if there are more than two features. For one
    feature `densities` are drawn instead. Components that are almost empty, or not finite, are left out, and the title
    says so.

    Args:
        x: (n_samples, n_features).
        labels: (n_samples,) integers, the component of each sample.
        means: (k, d), row j of label j.
        covariances: (k, d, d), (d, d), (k, d) or (k,), by ``covariance_type``.
        covariance_type: "full", "tied", "diag" or "spherical".
        weights: (k,) mixing proportions; by default, where they are needed, the frequencies of the labels.
        columns, random_state: as for `jaxcluster.plots.maps.plane`.

    Raises:
        ValueError: labels, means, covariances, weights and samples that do not fit, or an unknown type.
    """
    x, labels = check_labeled(x, labels)
    if x.shape[1] == 1:
        # Curves need weights, ellipses do not.
        if weights is None:
            clustered = labels[~is_noise(labels)]
            weights = [np.mean(clustered == j) if clustered.size else 0 for j in range(len(means))]
        options = {"covariance_type": covariance_type, "weights": weights, "labels": labels, "columns": columns}
        return densities(x, means, covariances, **options, ax=ax)
    means, covariances, weights = _check_parameters(x, means, covariances, covariance_type, weights)
    # A component that has collapsed has NaN means; it is left out below, but PCA needs numbers.
    at = plane(x, centers=np.nan_to_num(means), random_state=random_state, columns=columns)
    spreads = project(covariances, covariance_type, len(means), at.basis)
    shown = _drawable(means, spreads, weights, labels, len(x))
    at = at._replace(centers=at.centers[shown], clusters=np.flatnonzero(shown))
    ax = draw_plane(at, labels, ax, title=at.title.replace("Clusters", "Components", 1) + _left_out(shown))
    _outline(ax, at, spreads[shown])
    return ax


def densities(
    x: Any,
    means: Any,
    covariances: Any,
    *,
    covariance_type: str = "full",
    weights: Any = None,
    labels: Any = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Weighted density of each component of one feature, and their sum, over a histogram of the samples.

    Args:
        x: (n_samples, 1).
        means: (k, 1).
        covariances, covariance_type: as for `ellipses`, which leaves out the same components.
        weights: (k,) mixing proportions; equal by default.
        labels: (n_samples,) component of each sample; with None no component has labeled samples.
        columns: the name of the feature.

    Raises:
        ValueError: more features than one, and as `ellipses`.
    """
    x = as_float(x)
    if x.ndim != 2 or x.shape[1] != 1:
        raise ValueError(f"rows {x.shape} have no density to draw: one column, (n, 1), is needed.")
    check_columns(columns, 1)
    means, covariances, weights = _check_parameters(x, means, covariances, covariance_type, weights)
    variances = project(covariances, covariance_type, len(means), np.eye(1))
    shown = _drawable(means, variances, weights, labels, len(x)) & (variances[:, 0, 0] > 0)
    weights = np.full(len(means), 1 / len(means)) if weights is None else weights
    ax = new_axes(ax)
    name = "column 0" if columns is None else columns[0]
    style_axes(ax, "Components, and their sum dashed" + _left_out(shown), name, "density")
    _curves(
        ax,
        x[~np.isnan(x[:, 0]), 0].astype(np.float64),
        np.flatnonzero(shown),
        weights[shown],
        means[shown, 0],
        np.sqrt(variances[shown, 0, 0]),
    )
    return ax


def _curves(
    ax: Axes, rows: np.ndarray, clusters: np.ndarray, weights: np.ndarray, means: np.ndarray, deviations: np.ndarray
) -> None:
    """Draw the histogram, each component's curve with a disc on its peak, and the sum."""
    low, high = _axis_limits(rows, means - 3 * deviations, means + 3 * deviations)
    # Equal samples and components without extent span nothing: a histogram needs a range.
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    # Evenly spaced, and dense around each mean, so that no narrow peak falls between two points.
    near_means = means[:, None] + deviations[:, None] * np.linspace(-4, 4, 81)
    grid = np.unique(np.clip(np.concatenate([np.linspace(low, high, 400), near_means.ravel()]), low, high))
    curves = weights * _normal(grid[:, None], means, deviations)
    # √n bins, within the number that can be told apart.
    bins = int(np.clip(np.sqrt(len(rows)), 10, 60))
    bars, *_ = ax.hist(rows, bins=bins, range=(low, high), density=True, color=NOISE, alpha=0.55, linewidth=0)
    ax.plot(grid, curves.sum(1), color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    for cluster, curve in zip(clusters.tolist(), curves.T, strict=True):
        ax.plot(grid, curve, color=color_of(cluster), linewidth=2)
    # The histogram decides the height. The peak of a narrow component, 1/(σ√2π), may be far higher.
    highest = float(np.max(bars))
    top = 1.12 * min(max(highest, curves.sum(1).max(initial=0)), MAX_CURVE_RATIO * highest)
    ax.set(xlim=(low, high), ylim=(0, top))
    ax.grid(False, axis="x")
    # Discs of peaks that are cut off stay inside the axes.
    peaks = np.minimum(weights * _normal(means, means, deviations), 0.94 * top)
    mark_centers(ax, np.column_stack([means, peaks]), clusters)


def _check_parameters(
    x: np.ndarray, means: Any, covariances: Any, covariance_type: str, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check the parameters of a mixture.

    Returns:
        Means, covariances and weights in float64.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or means.shape[1] != x.shape[1]:
        raise ValueError(f"means {means.shape} do not fit the rows {x.shape}: they need the same number of columns.")
    covariances = as_covariances(covariances, covariance_type, *means.shape)
    if weights is None:
        return means, covariances, None
    weights = np.asarray(weights, np.float64)
    if weights.shape != means.shape[:1]:
        raise ValueError(f"weights {weights.shape} do not fit {len(means)} components: one each is needed.")
    return means, covariances, weights


def _drawable(means: np.ndarray, spreads: np.ndarray, weights: np.ndarray | None, labels: Any, n: int) -> np.ndarray:
    """(k,) mask of the components that are finite and describe any of n samples."""
    finite = np.asarray(np.isfinite(means).all(1) & np.isfinite(spreads).all((1, 2)))
    if weights is None:
        return finite
    labeled = False if labels is None else np.isin(np.arange(len(means)), labels)
    return np.asarray(finite & (labeled | (weights * n >= MIN_ROWS)))


def _left_out(shown: np.ndarray) -> str:
    return "" if shown.all() else f"\n({(~shown).sum():,} of {shown.size:,} left out)"


def _outline(ax: Axes, at: Plane, spreads: np.ndarray) -> None:
    """Draw both ellipses of each component, and extend the axes to them within `MAX_OVERHANG`."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import Normal, withStroke

    line = 1.8 if len(spreads) <= 12 else 1.2
    edge = [withStroke(linewidth=line + 1.4, foreground=PAPER), Normal()]
    for cluster, center, spread in zip(at.clusters.tolist(), at.centers, spreads, strict=True):
        # The axes of the ellipse are the eigenvectors, its radii the roots of the eigenvalues; rounding may leave these
        # below 0.
        values, vectors = np.linalg.eigh(spread)
        width, height = 2 * np.sqrt(np.maximum(values[::-1], 0))
        angle = np.degrees(np.arctan2(*vectors[::-1, 1]))
        style = {"edgecolor": color_of(cluster), "linewidth": line, "path_effects": edge, "zorder": 3}
        for deviation in (1, 2):
            size = (deviation * width, deviation * height)
            ax.add_artist(Ellipse(center, *size, angle=angle, facecolor="none", **style))
    extent = 2 * np.sqrt(np.maximum(np.diagonal(spreads, axis1=1, axis2=2), 0))
    corners = [
        _axis_limits(at.points[:, j], *(at.centers[:, j] + sign * extent[:, j] for sign in (-1, 1))) for j in (0, 1)
    ]
    ax.update_datalim(np.transpose(corners))
    ax.autoscale_view()


def _axis_limits(rows: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """Limits of an axis that holds the samples, and the components within `MAX_OVERHANG`."""
    low, high = float(rows.min()), float(rows.max())
    margin = MAX_OVERHANG * (high - low if high > low else 1)
    return (
        float(np.clip(lows.min(initial=low), low - margin, low)),
        float(np.clip(highs.max(initial=high), high, high + margin)),
    )


def _normal(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Normal density."""
    return np.exp(-0.5 * np.square((x - mean) / deviation)) / (deviation * np.sqrt(2 * np.pi))


def as_covariances(covariances: Any, covariance_type: str, k: int, d: int) -> np.ndarray:
    """float64 covariances of k components in d features; tied ones may be (1, d, d), as in a `GMMState`.

    Raises ValueError for another type or shape.
    """
    check_choice("covariance_type", covariance_type, SHAPES)
    covariances = np.asarray(covariances, np.float64)
    # `GMMState` stores a tied covariance with a leading axis of 1.
    if covariance_type == "tied" and covariances.shape[:-2] == (1,):
        covariances = covariances[0]
    shape = tuple({"k": k, "d": d}[axis] for axis in SHAPES[covariance_type])
    if covariances.shape != shape:
        raise ValueError(
            f"covariances {covariances.shape} do not fit {k} components of {d} columns: "
            f"{covariance_type!r} ones must be {shape}."
        )
    return covariances


def project(covariances: np.ndarray, covariance_type: str, k: int, basis: np.ndarray) -> np.ndarray:
    """(k, p, p) covariances BᵀΣB along the columns of a (d, p) basis."""
    if covariance_type == "full":
        return np.einsum("da,kde,eb->kab", basis, covariances, basis, optimize=True)
    if covariance_type == "tied":
        return np.repeat((basis.T @ covariances @ basis)[None], k, axis=0)
    if covariance_type == "diag":
        return np.einsum("da,kd,db->kab", basis, covariances, basis, optimize=True)
    return covariances[:, None, None] * (basis.T @ basis)


def deviations(covariances: np.ndarray, covariance_type: str, k: int, d: int) -> np.ndarray:
    """(k, d) standard deviations of each column; NaN where a variance is negative."""
    if covariance_type in ("full", "tied"):
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    elif covariance_type == "spherical":
        covariances = covariances[:, None]
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.broadcast_to(covariances, (k, d)))

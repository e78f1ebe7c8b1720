"""Components of a mixture: ellipses in the plane, or curves over one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcluster.plots.covariances import as_covariances, project
from jaxcluster.plots.maps import Plane, check_columns, discs, draw, plane
from jaxcluster.plots.style import INK, NOISE, PAPER, color_of, finish, is_noise, new_axes, rows_and_labels, wide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_ROWS = 2
"""A component that no row is labeled with is drawn if its weight is that of so many: a prior alone gives up to one."""

STEEP = 4
"""How many times as high as the histogram a curve may be: a narrower component is cut off, or else it hides all."""

REACH = 0.5
"""How far beyond the rows, in units of their range, wide components may stretch the axes."""


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
    """The rows in the plane, colored by label, and each component's ellipses at 1 and 2 standard deviations.

    The deviations are those of the component's marginal in that plane, which is of two columns as they are, and of
    more the principal one. Of one column `densities` are drawn instead. Components that are as good as empty, or not
    finite, are left out, and the title says so.

    Args:
        x: (n, d) rows.
        labels: (n,) integers, the component of each row.
        means: (k, d), row j that of label j.
        covariances: (k, d, d), (d, d), (k, d) or (k,), as ``covariance_type`` has them.
        covariance_type: "full", "tied", "diag" or "spherical".
        weights: (k,) mixing proportions; where they are needed and not given, the shares of the labels.
        columns, random_state: as `jaxcluster.plots.maps.plane` takes them.

    Raises:
        ValueError: where labels, means, covariances, weights and rows do not fit, and for another type.
    """
    x, labels = rows_and_labels(x, labels)
    if x.shape[1] == 1:
        weights = _shares(labels, len(means)) if weights is None else weights
        options = {"covariance_type": covariance_type, "weights": weights, "labels": labels, "columns": columns}
        return densities(x, means, covariances, **options, ax=ax)
    means, covariances, weights = _checked(x, means, covariances, covariance_type, weights)
    at = plane(x, centers=np.nan_to_num(means), random_state=random_state, columns=columns)
    spreads = project(covariances, covariance_type, len(means), at.basis)
    shown = _shown(means, spreads, weights, labels, len(x))
    at = at._replace(centers=at.centers[shown], clusters=np.flatnonzero(shown))
    ax = draw(at, labels, ax, title=at.title.replace("Clusters", "Components", 1) + _left_out(shown))
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
    """The density of each component of one column, weighted, and their sum, over a histogram of the rows.

    Args:
        x: (n, 1) rows.
        means: (k, 1).
        covariances, covariance_type: as in `ellipses`; components that it leaves out are left out here too.
        weights: (k,) mixing proportions, equal ones unless given.
        labels: (n,) component of each row; without them no component counts as having rows.
        columns: the name of the column.

    Raises:
        ValueError: for more columns than one, and as `ellipses` does.
    """
    x = wide(x)
    if x.ndim != 2 or x.shape[1] != 1:
        raise ValueError(f"rows {x.shape} have no density to draw: one column, (n, 1), is needed.")
    check_columns(columns, 1)
    means, covariances, weights = _checked(x, means, covariances, covariance_type, weights)
    variances = project(covariances, covariance_type, len(means), np.eye(1))
    shown = _shown(means, variances, weights, labels, len(x)) & (variances[:, 0, 0] > 0)
    weights = np.full(len(means), 1 / len(means)) if weights is None else weights
    ax = new_axes(ax)
    name = "column 0" if columns is None else columns[0]
    finish(ax, "Components, and their sum dashed" + _left_out(shown), name, "density")
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
    """The histogram, each component's curve with a disc on its peak, and the sum."""
    low, high = _view(rows, means - 3 * deviations, means + 3 * deviations)
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    grid = _grid(low, high, means, deviations)
    curves = weights * _normal(grid[:, None], means, deviations)
    bins = int(np.clip(np.sqrt(len(rows)), 10, 60))
    bars, *_ = ax.hist(rows, bins=bins, range=(low, high), density=True, color=NOISE, alpha=0.55, linewidth=0)
    ax.plot(grid, curves.sum(1), color=INK, linewidth=1.4, linestyle=(0, (4, 2)))
    for cluster, curve in zip(clusters.tolist(), curves.T, strict=True):
        ax.plot(grid, curve, color=color_of(cluster), linewidth=2)
    top = 1.12 * min(max(bars.max(), curves.sum(1).max(initial=0)), STEEP * bars.max())
    ax.set(xlim=(low, high), ylim=(0, top))
    ax.grid(False, axis="x")
    peaks = np.minimum(weights * _normal(means, means, deviations), 0.94 * top)
    discs(ax, np.column_stack([means, peaks]), clusters)


def _checked(
    x: np.ndarray, means: Any, covariances: Any, covariance_type: str, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Means, covariances and weights in float64."""
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or means.shape[1] != x.shape[1]:
        raise ValueError(f"means {means.shape} do not fit the rows {x.shape}: they need as many columns.")
    covariances = as_covariances(covariances, covariance_type, *means.shape)
    if weights is None:
        return means, covariances, None
    weights = np.asarray(weights, np.float64)
    if weights.shape != means.shape[:1]:
        raise ValueError(f"weights {weights.shape} do not fit {len(means)} components: one each is needed.")
    return means, covariances, weights


def _shares(labels: np.ndarray, k: int) -> np.ndarray:
    """(k,) share of the rows that each label has."""
    kept = labels[~is_noise(labels)]
    return np.array([np.mean(kept == j) if kept.size else 0 for j in range(k)])


def _shown(means: np.ndarray, spreads: np.ndarray, weights: np.ndarray | None, labels: Any, n: int) -> np.ndarray:
    """(k,) which components can be drawn and describe any of n rows."""
    finite = np.isfinite(means).all(1) & np.isfinite(spreads).all((1, 2))
    if weights is None:
        return finite
    labeled = False if labels is None else np.isin(np.arange(len(means)), labels)
    return finite & (labeled | (weights * n >= LEAST_ROWS))


def _left_out(shown: np.ndarray) -> str:
    return "" if shown.all() else f"\n({(~shown).sum():,} of {shown.size:,} left out)"


def _outline(ax: Axes, at: Plane, spreads: np.ndarray) -> None:
    """Both ellipses of each component, and axes that hold them unless they are far beyond the rows."""
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import Normal, withStroke

    line = 1.8 if len(spreads) <= 12 else 1.2
    edge = [withStroke(linewidth=line + 1.4, foreground=PAPER), Normal()]
    for cluster, center, spread in zip(at.clusters.tolist(), at.centers, spreads, strict=True):
        values, vectors = np.linalg.eigh(spread)
        width, height = 2 * np.sqrt(np.maximum(values[::-1], 0))
        angle = np.degrees(np.arctan2(*vectors[::-1, 1]))
        style = {"edgecolor": color_of(cluster), "linewidth": line, "path_effects": edge, "zorder": 3}
        for deviation in (1, 2):
            size = (deviation * width, deviation * height)
            ax.add_artist(Ellipse(center, *size, angle=angle, facecolor="none", **style))
    reach = 2 * np.sqrt(np.maximum(np.diagonal(spreads, axis1=1, axis2=2), 0))
    corners = [_view(at.points[:, j], *(at.centers[:, j] + sign * reach[:, j] for sign in (-1, 1))) for j in (0, 1)]
    ax.update_datalim(np.transpose(corners))
    ax.autoscale_view()


def _view(rows: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """Where an axis begins and ends: at the rows, or as far beyond as the components go within `REACH`."""
    low, high = float(rows.min()), float(rows.max())
    beyond = REACH * (high - low if high > low else 1)
    return (
        float(np.clip(lows.min(initial=low), low - beyond, low)),
        float(np.clip(highs.max(initial=high), high, high + beyond)),
    )


def _grid(low: float, high: float, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Where curves are drawn through: evenly, and closely around each mean, so that a narrow peak is not missed."""
    around = means[:, None] + deviations[:, None] * np.linspace(-4, 4, 81)
    return np.unique(np.clip(np.concatenate([np.linspace(low, high, 400), around.ravel()]), low, high))


def _normal(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Normal density."""
    return np.exp(-0.5 * np.square((x - mean) / deviation)) / (deviation * np.sqrt(2 * np.pi))

"""Rows in the plane, as pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxcluster.plots.maps import draw_plane, plane
from jaxcluster.plots.style import colors_like
from jaxcluster.report.pictures import picture


def map_pictures(
    x: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray | None,
    *,
    centers: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
    methods: Sequence[str] = ("pca",),
    prefix: str = "",
    what: str = "Clusters",
) -> list[str]:
    """The rows in the plane, colored by cluster, and by class where the truth is known.

    A class has the color of the cluster that it is matched with.

    Args:
        x: (n, d) rows.
        labels, truth: (n,).
        centers: (k, d), and in ``clusters`` the number of each.
        columns: d names.
        methods: of `jaxcluster.plots.maps.plane`.
        prefix: of the pictures' names, which must be unique on the page.
        what: is shown, the first word of the titles.
    """
    shown = []
    for method in methods:
        at = plane(x, centers=centers, method=method, columns=columns)
        at = at._replace(title=at.title.replace("Clusters", what, 1))
        at = at if clusters is None else at._replace(clusters=clusters)
        alt = f"{at.title}: {len(at.kept):,} rows as points colored by their cluster."
        shown.append(picture(partial(draw_plane, at, labels), alt, name=f"{prefix}{method}", height=5.2))
        if truth is not None:
            title = at.title.replace(what, "Truth" if what == "Clusters" else f"{what} by class", 1)
            colors = colors_like(np.asarray(truth), labels)
            draw_truth: Any = partial(
                draw_plane, at._replace(centers=at.centers[:0]), truth, title=title, colors=colors
            )
            alt = f"{title}: the same points colored by their known class."
            shown.append(picture(draw_truth, alt, name=f"{prefix}{method}-truth", height=5.2))
    return shown

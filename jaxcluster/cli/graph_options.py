"""Options of the methods that look at how near rows are to each other: by density, or by a graph."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

DENSITY, SPECTRAL = "Methods by density", "Spectral clustering"
"""Headings under which help lists options."""


class Distance(StrEnum):
    """What rows are measured by, as `jaxcluster.ops.distance.METRICS` has them."""

    sqeuclidean = "sqeuclidean"
    euclidean = "euclidean"
    l2 = "l2"
    cosine = "cosine"
    correlation = "correlation"
    manhattan = "manhattan"
    cityblock = "cityblock"
    l1 = "l1"
    chebyshev = "chebyshev"
    minkowski = "minkowski"
    canberra = "canberra"
    braycurtis = "braycurtis"
    hamming = "hamming"
    jaccard = "jaccard"
    haversine = "haversine"


class Extraction(StrEnum):
    """How clusters are taken from the order that OPTICS finds."""

    xi = "xi"
    dbscan = "dbscan"


class Selection(StrEnum):
    """Which clusters of HDBSCAN's tree are taken: those that last longest, or its leaves."""

    eom = "eom"
    leaf = "leaf"


class Affinity(StrEnum):
    """What the graph of spectral clustering is made of."""

    rbf = "rbf"
    nearest_neighbors = "nearest_neighbors"


class Assignment(StrEnum):
    """How spectral clustering gets labels from eigenvectors."""

    kmeans = "kmeans"
    discretize = "discretize"
    cluster_qr = "cluster_qr"


DistanceChoice = Annotated[
    Distance | None,
    typer.Option(
        "--metric",
        rich_help_panel="Method",
        show_default=False,
        help="What distances are. k-means knows sqeuclidean and cosine, which clusters directions only; methods by "
        "density know more. The power of minkowski is --param p=3.",
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=DENSITY,
        show_default=False,
        help="How far apart neighbors may be, in units of the rows: for dbscan, and for optics --cluster-method "
        "dbscan.",
    ),
]
MinSamples = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        rich_help_panel=DENSITY,
        show_default=False,
        help="How many rows must be near a row, itself counted, for it to lie in a dense region.",
    ),
]
MinClusterSize = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        rich_help_panel=DENSITY,
        show_default=False,
        help="The fewest rows of a cluster, for hdbscan and optics.",
    ),
]
MaxEps = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=DENSITY,
        show_default=False,
        help="How far optics looks for neighbors; without an end unless given.",
    ),
]
Xi = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=DENSITY,
        show_default=False,
        help="How steep the edge of a cluster is in optics' order: 0.05 is a fall by a twentieth.",
    ),
]
ClusterMethod = Annotated[
    Extraction | None,
    typer.Option(
        rich_help_panel=DENSITY,
        show_default=False,
        help="How optics takes clusters from its order: by steepness, or as dbscan at --eps.",
    ),
]
ClusterSelectionMethod = Annotated[
    Selection | None,
    typer.Option(
        rich_help_panel=DENSITY,
        show_default=False,
        help="Which clusters of its tree hdbscan takes: those that last longest (eom), or the leaves.",
    ),
]
AffinityChoice = Annotated[
    Affinity | None,
    typer.Option("--affinity", rich_help_panel=SPECTRAL, show_default=False, help="What the graph is made of."),
]
Neighbors = Annotated[
    int | None,
    typer.Option(
        "--n-neighbors",
        metavar="N",
        min=1,
        rich_help_panel=SPECTRAL,
        show_default=False,
        help="Neighbors of a row in the graph, with --affinity nearest_neighbors.",
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        rich_help_panel=SPECTRAL,
        show_default=False,
        help="How fast affinity falls with the squared distance, with --affinity rbf.",
    ),
]
AssignLabels = Annotated[
    Assignment | None,
    typer.Option(
        rich_help_panel=SPECTRAL, show_default=False, help="How eigenvectors become labels; only kmeans uses chance."
    ),
]

"""What a report can show of a network, from what the estimator that trained it published."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from jaxcluster.datasets import Dataset
from jaxcluster.plots.training import PHASES
from jaxcluster.report import Training

DRAWN = 8
"""New rows of each cluster, of a model that can draw some, and rows shown for each prototype or cluster."""


PROTOTYPES = 2
"""Prototypes of a cluster that are shown."""


def training_of(estimator: Any, x: np.ndarray) -> Training:
    """The training of an estimator that was fitted to ``x``, and what it makes of these rows."""
    snapshots, codes = estimator.snapshots_, estimator.transform(x)
    rows = snapshots["rows"]
    taken = {_moment(name): each for name, each in snapshots.items() if name != "rows"}
    samples = None
    if hasattr(estimator, "sample"):
        samples = np.stack([estimator.sample(DRAWN, cluster)[0] for cluster in range(estimator.n_clusters)])
    found = _given_back(estimator, x[rows]) if hasattr(estimator, "reconstruct") else _shown(estimator, x, codes)
    return Training(
        records=estimator.epoch_history_,
        codes=codes,
        rows=rows,
        moments=taken | {"the end": codes[rows]},
        samples=samples,
        endless=getattr(estimator, "tol", None) is None,
        **found,
    )


def _given_back(estimator: Any, x: np.ndarray) -> dict[str, Any]:
    """What comes back of rows and centers, of a method with a decoder."""
    from jaxcluster.deep import map_module

    decoded = map_module(estimator.module_.autoencoder, "decode", estimator.cluster_centers_)
    return {
        "centers": estimator.cluster_centers_,
        "returned": estimator.reconstruct(x),
        "decoded": estimator.scaling_.undo(np.asarray(decoded)),
    }


def _shown(estimator: Any, x: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """The mean codes of clusters, and the rows nearest to them or to prototypes, of a method without a decoder."""
    from jaxcluster.deep import map_module

    labels = estimator.labels_
    names = np.unique(labels)
    means = np.stack([codes[labels == name].mean(axis=0) for name in names])
    if hasattr(estimator, "prototypes_"):
        near = np.asarray(map_module(estimator.module_, "embed", codes)) @ estimator.prototypes_.T
        groups = estimator.prototype_labels_
        lines = {f"{name}: {p}": p for name in names for p in np.flatnonzero(groups == name)[:PROTOTYPES]}
        what = f"prototype, {PROTOTYPES} a cluster at most"
    else:
        # Not by their shares: in clusters far apart those of many rows are all 1.
        near, what = -cdist(codes, means), "cluster's mean code"
        lines = {str(name): i for i, name in enumerate(names)}
    order = np.argsort(-near[:, list(lines.values())], axis=0, kind="stable")[:DRAWN]
    return {"centers": means, "nearest": dict(zip(lines, x[order.T], strict=True)), "nearest_to": what}


def with_images(dataset: Dataset, estimator: Any) -> Dataset:
    """The data set, its rows images where the estimator was told that they are and pictures can show them."""
    shape = estimator.image_shape
    if dataset.image_shape is not None or shape is None:
        return dataset
    shape = tuple(shape[:2] if shape[2:] == (1,) else shape)
    return dataset._replace(image_shape=shape) if shape[2:] in ((), (3,), (4,)) else dataset


def _moment(name: str) -> str:
    phase, epoch = name.rsplit("-", 1)
    return f"{PHASES.get(phase, phase)}, epoch {epoch}"

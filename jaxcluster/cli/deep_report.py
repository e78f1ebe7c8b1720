"""What a report can show of a network, from what the estimator that trained it published."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcluster.datasets import Dataset
from jaxcluster.plots.training import PHASES
from jaxcluster.report import Training

DRAWN = 8
"""New rows of each cluster, of a model that can draw some."""


def training_of(estimator: Any, x: np.ndarray) -> Training:
    """The training of an estimator that was fitted to ``x``, and what it makes of these rows."""
    from jaxcluster.deep import map_module

    snapshots, codes = estimator.snapshots_, estimator.transform(x)
    rows = snapshots["rows"]
    taken = {_moment(name): each for name, each in snapshots.items() if name != "rows"}
    decoded = map_module(estimator.module_.autoencoder, "decode", estimator.cluster_centers_)
    samples = None
    if hasattr(estimator, "sample"):
        samples = np.stack([estimator.sample(DRAWN, cluster)[0] for cluster in range(estimator.n_clusters)])
    return Training(
        records=estimator.records_,
        codes=codes,
        centers=estimator.cluster_centers_,
        rows=rows,
        moments=taken | {"the end": codes[rows]},
        returned=estimator.reconstruct(x[rows]),
        decoded=estimator.scaling_.undo(np.asarray(decoded)),
        samples=samples,
        endless=estimator.tol is None,
    )


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

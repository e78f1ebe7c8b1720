"""Every functional algorithm, registered once: the promises of test_contracts.py are tested on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxcluster import bayesian_gmm, bisecting, gmm, kmeans, minibatch, soft_kmeans


class Algorithm(NamedTuple):
    """A fit(key, x, k, *, weights=None, axis_name=None, tol=…) -> Fit; the promises it cannot make, with the reason of
    each; and what is added to the shared rows, where the origin means something to it."""

    fit: Callable[..., Any]
    exempt: Mapping[str, str] = MappingProxyType({})
    shift: tuple[float, ...] = (0.0,)


DRAWN = "batches draw rows by their index, so other rows mean other batches"

ALGORITHMS = {
    "kmeans": Algorithm(kmeans.fit),
    "kmeans-cosine": Algorithm(
        partial(kmeans.fit, metric="cosine"),
        exempt={"offset": "directions are taken from the origin, so an offset is another problem"},
        shift=(-8.0, -8.0, -8.0, 0.0, 0.0),
    ),
    "kmeans-restarts": Algorithm(partial(kmeans.fit, n_init=3)),
    "kmeans-parallel": Algorithm(
        partial(kmeans.fit, init="k-means||"),
        exempt={"repetition": "its draws are by mass, but each is of a row, and repeated rows are other rows"},
    ),
    "minibatch": Algorithm(
        partial(minibatch.fit, batch_size=64, max_epochs=5),
        exempt={"repetition": DRAWN, "objective": "a batch says nothing of the other rows"},
    ),
    "gmm": Algorithm(gmm.fit),
    "gmm-diag": Algorithm(partial(gmm.fit, covariance="diag", init="k-means++")),
    "bayesian-gmm": Algorithm(bayesian_gmm.fit),
    "soft-kmeans": Algorithm(partial(soft_kmeans.fit, variance=1.0)),
    "bisecting": Algorithm(partial(bisecting.fit, init="k-means++")),
}

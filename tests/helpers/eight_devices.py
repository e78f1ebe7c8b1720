"""A process with eight devices: fits over all of them are those of one, for 61 rows, which eight does not divide."""

from __future__ import annotations

import numpy as np

import jaxcluster as jc
from jaxcluster.sharding import row_mesh


def main() -> None:
    """Fit each model twice and compare."""
    mesh = row_mesh()
    assert mesh.size == 8
    rng = np.random.default_rng(0)
    x = 1e6 + 6 * rng.integers(0, 4, (61, 1)) + rng.normal(size=(61, 3))
    for make in (
        lambda mesh: jc.KMeans(4, random_state=0, mesh=mesh),
        lambda mesh: jc.DBSCAN(eps=2.0, min_samples=4, mesh=mesh),
        lambda mesh: jc.HDBSCAN(mesh=mesh),
    ):
        np.testing.assert_array_equal(make(mesh).fit(x).labels_, make(None).fit(x).labels_)
    few = x[:5]  # fewer rows than devices
    np.testing.assert_array_equal(
        jc.DBSCAN(eps=2.0, min_samples=2, mesh=mesh).fit(few).labels_,
        jc.DBSCAN(eps=2.0, min_samples=2).fit(few).labels_,
    )


if __name__ == "__main__":
    main()

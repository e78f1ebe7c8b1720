"""The part of a report that shows how a method came to its clusters: an order, a tree, a graph."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.neighbors import kneighbors_graph
from test_report import Page

from jaxcluster import DBSCAN
from jaxcluster.datasets import Dataset
from jaxcluster.report import Structure, write_report

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, -1], [30, 20, 10])
X = (
    np.array([[0, 0], [8, 0], [4, 4]])[LABELS] + RNG.normal(size=(60, 2)) * np.where(LABELS < 0, 4, 1)[:, None]
).astype(np.float32)
LEAVES = np.array(
    [(60, row, 1 + row / 60, 1) for row in range(60)],
    [("parent", "i8"), ("child", "i8"), ("lambda_val", "f8"), ("child_size", "i8")],
)

STRUCTURES = {
    "Density, by order": (Structure(reachability=np.arange(60.0), ordering=np.arange(60), eps=3.0), ["reachability"]),
    "Density, by distance": (
        Structure(neighbor_distances=np.arange(60.0), min_samples=4, eps=3.0),
        ["neighbor-distances"],
    ),
    "Tree": (Structure(condensed_tree=LEAVES, merges=linkage(X)), ["condensed-tree", "dendrogram"]),
    "Graph": (Structure(eigenvalues=[0, 0.1, 0.6], graph=kneighbors_graph(X, 4)), ["eigengap", "graph"]),
}


def write(path, **options) -> str:
    parts = {"title": "t", "config": {}, "scores": {}, "dataset": Dataset("rows", X), "labels": LABELS}
    return write_report(path, **parts, **options).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STRUCTURES)
def test_each_structure_has_its_section_and_pictures(name, tmp_path):
    found, names = STRUCTURES[name]
    source = write(tmp_path / "report.html", structure=found)
    page = Page(source)
    plain = Page(write(tmp_path / "plain.html"))
    heading = name.partition(",")[0]
    assert heading in page.text
    assert heading not in plain.text
    assert len(page.all("svg")) == len(plain.all("svg")) + len(names)
    for picture in names:
        assert f'id="{picture}-' in source
    assert all(len(svg["aria-label"]) > 20 for svg in page.all("svg"))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (Structure(reachability=np.zeros(5), ordering=np.arange(60)), r"reachability \(5,\) does not fit 60 rows"),
        (Structure(merges=np.zeros((60, 4))), r"merges \(60, 4\) does not fit 60 rows: its length must be 59"),
        (Structure(ordering=np.arange(60)), "reachability and ordering go together"),
    ],
)
def test_a_structure_of_other_rows_is_refused(found, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "report.html", structure=found)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_curve_of_dbscan_is_of_core_distances(metric, monkeypatch):
    estimator = DBSCAN(1.5, min_samples=4, metric=metric).fit(X)
    found = Structure(**estimator.report_parts(X)["structure"])
    core = found.neighbor_distances <= found.eps
    np.testing.assert_array_equal(np.flatnonzero(core), estimator.core_sample_indices_)
    assert (found.min_samples, found.eps) == (4, 1.5)
    monkeypatch.setattr("jaxcluster.estimators.density.CURVE_ROWS", 20)
    some = Structure(**estimator.report_parts(X)["structure"])
    assert some.neighbor_distances.shape == (20,)
    assert np.isin(some.neighbor_distances, found.neighbor_distances).all()


def test_no_curve_for_weighted_or_too_few_neighbors():
    assert DBSCAN(1.5).fit(X).report_parts(X, np.ones(60)) == {}
    assert DBSCAN(1.5, min_samples=61).fit(X).report_parts(X) == {}

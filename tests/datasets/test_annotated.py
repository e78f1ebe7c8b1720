"""AnnData objects and .h5ad files: X or a space of obsm as rows, cells as their names, a column of obs as the truth."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from jaxcluster import KMeans
from jaxcluster.datasets import DataError, load
from jaxcluster.datasets.dataframes import annotated_rows

X = np.random.default_rng(0).normal(size=(12, 3)).round(3)
OBS = pd.DataFrame({"kind": pd.Categorical(["B", "T"] * 6)}, index=[f"cell{i}" for i in range(12)])
GENES = ["a", "b", "c"]


class AnnData:
    """The part of anndata's class that is read."""

    def __init__(self, x, obs=OBS, var=GENES, obsm=None):
        self.X, self.obs, self.obsm = x, obs, obsm or {}
        self.obs_names, self.var_names = obs.index, pd.Index(var)


AnnData.__module__ = "anndata._core.anndata"


def real(x, obsm=None):
    anndata = pytest.importorskip("anndata")
    return anndata.AnnData(x, obs=OBS, var=pd.DataFrame(index=GENES), obsm=obsm)


def fake(x, obsm=None):
    return AnnData(x, obsm=obsm)


@pytest.fixture(params=[fake, real])
def annotated(request, tmp_path, monkeypatch):
    """An object of sparse rows with a map, and the file of it."""
    data = request.param(scipy.sparse.csr_matrix(X), {"X_pca": X[:, :2], "table": pd.DataFrame(X, OBS.index, GENES)})
    path = tmp_path / "cells.h5ad"
    if request.param is real:
        data.write_h5ad(path)
    else:
        path.write_bytes(b"")
        monkeypatch.setitem(sys.modules, "anndata", SimpleNamespace(read_h5ad=lambda path: data))
    return data, path


def test_an_object_is_its_rows(annotated):
    data, _ = annotated
    model = KMeans(2, random_state=0).fit(data)
    np.testing.assert_array_equal(model.labels_, KMeans(2, random_state=0).fit(scipy.sparse.csr_array(X)).labels_)
    np.testing.assert_array_equal(annotated_rows(data, "X_pca"), X[:, :2])
    np.testing.assert_array_equal(annotated_rows(data, "table"), X)
    with pytest.raises(DataError, match="has no obsm.'X_umap'.; obsm has: X_pca, table"):
        annotated_rows(data, "X_umap")
    with pytest.raises(DataError, match="X has no X; obsm is empty"):
        annotated_rows(fake(None))


def test_a_file_has_names_and_classes(annotated):
    _, path = annotated
    whole = load(path, truth="kind")
    assert scipy.sparse.issparse(whole.x)
    assert (whole.columns, whole.id_name) == (GENES, "cell")
    assert (whole.ids[0], whole.y[:2].tolist()) == ("cell0", ["B", "T"])
    np.testing.assert_array_equal(load(path, columns="c,a").x.toarray(), X[:, [2, 0]])
    space = load(path, key="X_pca")
    np.testing.assert_array_equal(space.x, X[:, :2])
    assert (space.name, space.columns) == ("cells.h5ad:X_pca", ["X_pca 0", "X_pca 1"])
    for options, message in (
        ({"truth": "sort"}, "no column 'sort' of cells .obs.; there are: kind"),
        ({"row_id": "kind"}, "row_id has no effect"),
        ({"delimiter": ";"}, "is no text table"),
    ):
        with pytest.raises(DataError, match=message):
            load(path, **options)


def test_a_file_without_the_package_or_damaged(tmp_path, monkeypatch):
    path = tmp_path / "cells.h5ad"
    path.write_bytes(b"no HDF5")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(DataError, match="needs anndata: pip install 'jaxcluster.anndata.'"):
        load(path)
    monkeypatch.setitem(sys.modules, "anndata", SimpleNamespace(read_h5ad=lambda path: (path / "no").read_text()))
    with pytest.raises(DataError, match="cannot be read as .h5ad .7 bytes.: NotADirectoryError"):
        load(path)

"""Reports and reprs of fitted estimators, fits and data sets in a notebook."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import html
import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError
from test_report import Page

from jaxcluster import DBSCAN, KMeans, kmeans
from jaxcluster.core.messages import sizes_in_words, sparkline
from jaxcluster.datasets import Dataset
from jaxcluster.datasets.scaling import scale
from jaxcluster.metrics.contingency import narrow_labels
from jaxcluster.report import profile

EVIL = "<script>window.pwned = 1</script>"


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[::2] += [5, 500, 0]
    return x


@pytest.fixture(scope="module")
def model(rows) -> KMeans:
    return KMeans(2, random_state=0).fit(rows)


@pytest.fixture(scope="module")
def shown(model, rows):
    names = [f"{EVIL} {i}" for i in range(40)]
    return model.report(rows, np.arange(40) % 2, columns=["a", EVIL, "c"], ids=names, title=EVIL, tsne=False)


def test_report_of_an_estimator_is_a_page(shown, model, tmp_path):
    path = shown.save(tmp_path / "page.html")
    text = Page(path.read_text(encoding="utf-8")).text
    for word in ("Adjusted Rand index", "Inertia", "n_clusters", "What the clusters are", "Cluster 0", EVIL):
        assert word in text
    assert f"{model.inertia_:,.0f}"[:3] in text
    assert "<script>window.pwned" not in shown.html


def test_notebook_shows_the_page_in_a_frame(shown):
    frame = shown._repr_html_()
    assert frame.count("<script") == 0
    (found,) = Page(frame).all("iframe")
    assert found["srcdoc"] == shown.html
    assert "allow-same-origin" not in found["sandbox"]


def test_centers_of_scaled_rows_are_in_data_units(rows):
    scaled, scaling = scale(rows, "standard")
    model = KMeans(2, random_state=0).fit(scaled)
    model.input_scaling_ = scaling  # as the command line saves it
    source = model.report(rows, tsne=False).html
    for value in scaling.undo(model.cluster_centers_)[:, 1]:
        assert f"{value:.1f}" in Page(source).text


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda model, rows: KMeans(2).report(rows), NotFittedError, "not fitted"),
        (lambda model, rows: model.report(rows[:5]), ValueError, "fitted to 40"),
        (lambda model, rows: DBSCAN(metric="precomputed").fit(np.eye(4)).report(np.eye(4)), ValueError, "distances"),
    ],
)
def test_what_has_no_report_is_refused(model, rows, act, error, message):
    with pytest.raises(error, match=message):
        act(model, rows)


def test_names_send_nothing_to_a_terminal_or_page(model, rows):
    evil = "\x1b[2J\x85\u202e"
    dataset = Dataset(evil, rows, columns=[evil, "b", "c"])
    found = profile(model, rows, columns=[evil, "b", "c"], ids=[f"{evil}{i}" for i in range(40)])
    for shown in (str(found), found._repr_html_(), dataset._repr_html_()):
        assert "\\u202e" in shown
        assert not set(evil).intersection(shown).difference("[2J")


def test_classes_of_a_table_have_a_report(model, rows):
    words = ["a", "b"] * 20
    series = pd.Series(words), pd.Series(words, dtype="category"), pl.Series(words), pa.array(words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in series:
            np.testing.assert_array_equal(narrow_labels(each), words)
    assert "Adjusted Rand" in model.report(rows, series[0])._repr_html_()
    with pytest.raises(ValueError, match="y contains NaN or None: 1 value"):
        model.report(rows, pd.Series([None, *words[1:]]))


def test_sparse_rows_and_noise_have_a_report(model, rows):
    assert "in 2 clusters" in model.report(scipy.sparse.csr_array(rows), tsne=False).html
    noise = DBSCAN(eps=1e-9).fit(rows)
    assert "Every row is noise" in noise.report(rows, tsne=False).html


def test_reprs_show_sizes_and_the_objective(model, rows):
    for shown in (model._repr_html_(), model._repr_mimebundle_()["text/html"]):
        assert sizes_in_words(model.labels_) in shown
        assert "polyline" in shown
    assert "polyline" not in KMeans(2)._repr_html_()
    fit = kmeans.fit(jax.random.key(0), rows, 2)
    assert sizes_in_words(fit.labels) in fit._repr_html_()
    many = jax.vmap(lambda key: kmeans.fit(key, rows, 2))(jax.random.split(jax.random.key(0), 2))
    assert html.escape(repr(many)) in many._repr_html_()
    described = Dataset(EVIL, rows, None, [EVIL, "b", "c"], notes=(EVIL,))._repr_html_()
    assert "40 rows of 3 columns" in described
    assert "<script" not in described


def test_pieces_of_a_notebook_take_unusual_numbers():
    assert sparkline([np.nan, 1.0]) == ""
    assert "from 2 to 2" in sparkline([2.0, np.inf, 2.0])
    assert sizes_in_words([-1, -1]) == "no clusters: all 2 rows are noise"
    assert sizes_in_words([0, 0, 1, -1]) == "2 clusters of 1 to 2 rows, 1 row of noise"

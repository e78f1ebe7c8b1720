"""``jaxcluster compare``: one page on several runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from command_line import call, read_labels, refuse, write_flowers
from sklearn.metrics import adjusted_rand_score

from jaxcluster.report.compare import RunSummary, agreement, compare_page, same_rows

EVIL = "<script>window.pwned = 1</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    data = write_flowers(folder)
    for name, more in {"near": ["--k", 3], "far": ["--k", 2, "--scale", "standard"]}.items():
        call("fit", "kmeans", data, "--truth", "species", *more, "--out", folder / name, "--no-report", "--quiet")
    return folder


def test_runs_are_compared_on_one_page(folder):
    page = folder / "page.html"
    call("compare", folder / "near", folder / "far", "--out", page)
    text = page.read_text(encoding="utf-8")
    labels = [read_labels(folder / name / "labels.csv") for name in ("near", "far")]
    assert f"{adjusted_rand_score(*labels):.3f}" in text
    words = ("near", "far", "scaling.how", "parameters.n_clusters", "Adjusted Rand index", "★", 'aria-label="far:')
    for word in words:
        assert word in text
    assert "parameters.max_iter" not in text  # the same in both
    assert "<script" not in text


def test_rows_of_one_number_are_not_the_same_rows():
    rows, labels = np.arange(4).astype(str), np.zeros(4, int)
    file = {"data": "a.csv", "sha256": "1", "columns": "x"}

    def compared(**changed):
        runs = [
            RunSummary(name, {}, {}, labels, rows, 1.0, data) for name, data in (("a", file), ("b", file | changed))
        ]
        assert ("†" in compare_page(runs, None)) != same_rows(*runs)
        return same_rows(*runs)

    assert compared()
    assert compared(data="b.npy")  # of the same content
    assert compared(sha256="2", columns="y")
    assert compared(sha256="2", columns="y", data="./a.csv")
    assert not compared(sha256="2")  # the file has changed
    assert not compared(sha256="2", data="b.csv")
    file = {"data": "-", "sha256": "1", "columns": "x"}
    assert not compared(sha256="2", columns="y")
    file = {"data": "a.csv", "sha256": "1", "id_name": "name"}
    assert compared(sha256="2", data="b.csv")


def test_runs_without_their_data_have_no_maps(folder):
    (folder / "flowers.csv").rename(folder / "moved.csv")
    try:
        call("compare", folder / "near", folder / "far", "--out", folder / "bare.html")
    finally:
        (folder / "moved.csv").rename(folder / "flowers.csv")
    text = (folder / "bare.html").read_text(encoding="utf-8")
    assert "There are no maps" in text
    assert "<svg" not in text


def test_what_cannot_be_compared_is_refused(folder, tmp_path):
    near, page = folder / "near", tmp_path / "page.html"
    assert "two or more" in refuse("compare", near, "--out", page)
    assert "named twice" in refuse("compare", near, near, "--out", page)
    assert "end in .html" in refuse("compare", near, folder / "far", "--out", tmp_path / "page.txt")
    shutil.copytree(near, tmp_path / "changed")
    (tmp_path / "changed" / "labels.csv").write_text("row,label\n0,0\n")
    assert "labels.csv" in refuse("compare", near, tmp_path / "changed", "--out", page)
    assert not page.exists()


def test_page_of_unusual_runs(folder):
    rows = np.arange(4).astype(str)
    runs = [
        RunSummary(EVIL, {EVIL: EVIL, "k": 1}, {EVIL: 1.0, "silhouette": None}, np.zeros(4, int), rows, 1.0),
        RunSummary("noise", {"k": 2}, {"silhouette": float("nan")}, np.full(4, -1), rows, 2.0),
        RunSummary("others", {"k": None}, {}, np.arange(3), rows[:3], 3.0),
    ]
    text = compare_page(runs, np.eye(4), [EVIL])
    assert "<script>window" not in text
    assert len(re.findall('role="img"', text)) == 2  # the third is of other rows
    np.testing.assert_array_equal(np.isnan(agreement(runs))[2], [True, True, False])


def test_scores_of_other_rows_have_no_star():
    rows = np.arange(4).astype(str)
    scores = {"a": 0.1, "b": 0.2}
    runs = [RunSummary(name, {}, {"silhouette": value}, np.zeros(4, int), rows, 1.0) for name, value in scores.items()]
    assert "★" in compare_page(runs, None)
    text = compare_page([runs[0], runs[1]._replace(rows=rows[::-1])], None)
    assert "★" not in text
    assert "Some runs are of other rows" in text

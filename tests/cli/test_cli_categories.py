"""The command line with tables of text: k-modes, k-prototypes, and Gower's distance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from command_line import call, read_json, read_labels, refuse, write_csv

import jaxcluster

COLUMNS = ("--columns", "color,size,grade", "--truth", "kind")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of a color, a size, a grade and a kind, with a copy that lacks two cells and one with another color."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    columns = {
        "color": np.array(["red", "green", "blue"])[y].astype(object),
        "size": 100 + 50 * y + rng.normal(size=60).round(3),
        "grade": np.array(["low", "low", "high"])[y],
        "kind": y,
    }
    folder = tmp_path_factory.mktemp("tables")
    write_csv(folder / "things.csv", columns)
    write_csv(folder / "holes.csv", columns | {"color": np.where(np.arange(60) < 2, "", columns["color"])})
    write_csv(folder / "new.csv", columns | {"color": np.where(np.arange(60) < 2, "pink", columns["color"])})
    return folder, y


@pytest.fixture
def no_slow_maps(monkeypatch):
    """Reports draw no map by t-SNE, which takes most of their time and is tested elsewhere."""
    monkeypatch.setattr("jaxcluster.report.exploration.TSNE_ROWS", 0)


def test_prototypes_of_a_table(table, tmp_path, no_slow_maps):
    folder, _ = table
    out = tmp_path / "run"
    words = ("--k", 3, "--scale", "standard", *COLUMNS, "--out", out)
    result = call("fit", "kprototypes", folder / "things.csv", *words)
    assert "Sum of costs" in result.stdout
    assert read_json(out / "metrics.json")["external"]["adjusted_rand"] == 1
    model = jaxcluster.load(out / "model")
    assert model.categories_ == [["blue", "green", "red"], ["high", "low"]]
    assert model.feature_names_in_.tolist() == ["color", "size", "grade"]
    page = (out / "report.html").read_text()
    for word in ("The means and the commonest categories of each cluster.", "<td>green</td>", "color = red"):
        assert word in page.replace(' class="number"', "")
    sizes = sorted(float(row[1]) for row in model.center_rows(model.input_scaling_))
    np.testing.assert_allclose(sizes, [100, 150, 200], atol=1)
    call("predict", out, folder / "things.csv", "--out", tmp_path / "labels.csv")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv"), read_labels(out / "labels.csv"))
    said = call("predict", out, folder / "new.csv").stderr
    assert "2 rows have categories that the fit has not seen" in said
    assert "'pink' in column 'color'" in said
    assert "contains 2 NaN values in column 'color'" in refuse("predict", out, folder / "holes.csv")


def test_modes_take_all_columns_as_categories(table, tmp_path):
    folder, y = table
    words = ("--k", 3, "--columns", "color,grade", "--out", tmp_path / "run", "--no-report")
    assert "Sum of mismatches" in call("fit", "kmodes", folder / "things.csv", *words).stdout
    assert len(np.unique(read_labels(tmp_path / "run" / "labels.csv") * 3 + y)) == 3
    assert "2 NaN values in column 'color'" in refuse("fit", "kmodes", folder / "holes.csv", *words, "--overwrite")


def test_medoids_by_gower_with_missing_cells(table, tmp_path, no_slow_maps):
    folder, _ = table
    out = tmp_path / "run"
    result = call("fit", "kmedoids", folder / "holes.csv", "--k", 3, "--metric", "gower", *COLUMNS, "--out", out)
    assert "scores by mean are left out" in result.stdout
    scores = read_json(out / "metrics.json")
    assert scores["external"]["adjusted_rand"] == 1
    labels = read_labels(out / "labels.csv")
    cells = jaxcluster.datasets.load(folder / "holes.csv", columns="color,size,grade", categories=True).cells
    expected = jaxcluster.metrics.silhouette_score(cells, labels, metric="gower")
    assert scores["internal"]["silhouette"] == pytest.approx(expected)
    assert "<h2>Medoids</h2>" in (out / "report.html").read_text()
    call("predict", out, folder / "holes.csv", "--out", tmp_path / "labels.csv", "--distances")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv"), labels)
    own, new = (pd.read_csv(path)["distance"] for path in (out / "labels.csv", tmp_path / "labels.csv"))
    np.testing.assert_allclose(own, jaxcluster.load(out / "model").transform(cells)[np.arange(60), labels], rtol=1e-5)
    np.testing.assert_allclose(new, own, rtol=1e-5)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A run on a table with names, a remark, dates, and a mark for missing cells."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 40)
    frame = pd.DataFrame(
        {
            "name": [f"T{i}" for i in range(40)],
            "remark": "as seen",
            "color": np.array(["red", "blue"])[y],
            "size": (100 + 50 * y + rng.normal(size=40).round(3)).astype(str),
            "sold": (pd.Timestamp("2024-01-01") + pd.to_timedelta(100 * y + rng.integers(0, 9, 40), "D")).astype(str),
        }
    )
    frame.loc[[3, 7], ["color", "size"]] = [["?", "120"], ["red", "?"]]
    folder = tmp_path_factory.mktemp("shop")
    frame.to_csv(folder / "shop.csv", index=False)
    frame[frame != "?"].dropna().to_csv(folder / "full.csv", index=False)
    words = ("--k", 2, "--drop", "remark", "--id", "name", "--dates", "--na", "?", "--no-report")
    call("fit", "kmedoids", folder / "shop.csv", *words, "--metric", "gower", "--out", folder / "medoids")
    call("fit", "kprototypes", folder / "full.csv", *words, "--scale", "standard", "--out", folder / "prototypes")
    return folder, words


@pytest.mark.parametrize(("run", "file"), [("medoids", "shop.csv"), ("prototypes", "full.csv")])
def test_columns_are_left_out_named_and_dated(shop, run, file, tmp_path):
    folder, _ = shop
    table, labels = pd.read_csv(folder / file), pd.read_csv(folder / run / "labels.csv")
    assert list(labels)[:2] == ["name", "label"]
    assert labels["name"].tolist() == table["name"].tolist()
    assert labels.groupby("label")["name"].count().min() > 10
    model = jaxcluster.load(folder / run / "model")
    assert model.feature_names_in_.tolist() == ["color", "size", "sold"]
    call("predict", folder / run, folder / file, "--out", tmp_path / "again.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "again.csv"), labels[["name", "label"]])
    shown = call("profile", folder / run, "--json", tmp_path / "profile.json")
    assert "sold 2024-" in shown.stdout
    assert "Warning" not in shown.stderr
    for cluster in read_json(tmp_path / "profile.json")["clusters"]:
        own = table[labels["label"] == cluster["label"]].replace("?", None)
        assert cluster["size"] == len(own)
        assert cluster["center"]["size"] == pytest.approx(own["size"].astype(float).mean())
        days = (pd.to_datetime(own["sold"]) - pd.Timestamp("1970-01-01")).dt.days
        assert cluster["center"]["sold"] == pytest.approx(days.mean())
        words = {each["word"]: each["cluster"] for each in cluster["words"]["color"]}
        assert words == pytest.approx(own["color"].value_counts(normalize=True).to_dict())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--encode", "onehot"), "this method takes the words: leave --encode out"),
        (("--impute", "median"), "leave --impute out. Leave out their columns (--drop)"),
        (("--metric", "gower", "--impute", "median"), "Gower's distance takes as they are: leave --impute out"),
        ((), "2 NaN values in columns 'color', 'size'. Leave out their columns (--drop)"),
    ],
)
def test_categories_have_no_codes_and_no_imputation(shop, words, message, tmp_path):
    folder, plain = shop
    method = "kmedoids" if "gower" in words else "kprototypes"
    assert message in refuse("fit", method, folder / "shop.csv", *plain, *words, "--out", tmp_path / "run")


def test_other_methods_refuse_text(table, tmp_path):
    message = refuse("fit", "kmeans", table[0] / "things.csv", "--k", 3, "--out", tmp_path / "run")
    assert "not numeric: columns 'color' (holds 'blue' in line 2), 'grade' (holds" in message


@pytest.mark.parametrize(("words", "ks"), [(("kprototypes",), [3]), (("kmedoids", "--metric", "gower"), [2, 3, 4])])
def test_sweeps_of_categories(table, tmp_path, words, ks):
    out = tmp_path / "sweep"
    options = ("--k", ",".join(map(str, ks)), "--seeds", 2, *COLUMNS, "--out", out, "--no-report")
    shown = call("sweep", table[0] / "things.csv", "--algo", *words, *options).stdout
    content = read_json(out / "sweep.json")
    assert content["choices"]["silhouette"] == 3
    assert [line["k"] for line in content["scores"]] == ks
    costs = [line["inertia"] for line in content["scores"]]
    assert costs == sorted(costs, reverse=True)
    assert "best at k = 3" in shown

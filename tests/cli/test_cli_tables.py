"""Command line on a table of names, words, dates, truth values and holes: the walk of docs/tables.md."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shlex
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call, read_json, refuse
from sklearn.datasets import load_wine
from sklearn.metrics import adjusted_rand_score

import jaxcluster
from jaxcluster.cli.inputs import Rows, Source, on_disk
from jaxcluster.cli.table_checks import column_warnings
from jaxcluster.datasets import Dataset, Scaling, load

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^jaxcluster .*", PAGE, re.MULTILINE)]


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Run all commands of the page.

    Returns:
        The folder, and what each command printed.
    """
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(re.search(r"```python\n(import numpy.*?)```", PAGE, re.DOTALL)[1], {})
        quick = {"sweep": ["--no-report"], "fit": ["--no-report"]}
        printed = {words[0]: call(*words, *quick.get(words[0], [])).stdout for words in COMMANDS}
    return folder, printed


@pytest.fixture
def folder(walked, monkeypatch) -> Path:
    monkeypatch.chdir(walked[0])
    return walked[0]


def test_the_sweep_chooses_three_clusters(walked):
    assert list(walked[1]) == ["sweep", "fit", "profile", "predict", "embed"]
    assert "Both rules choose k = 3." in walked[1]["sweep"]


def test_labels_have_names_and_distances(folder):
    labels, table = pd.read_csv("runs/wines/labels.csv"), pd.read_csv("wines.csv")
    assert list(labels) == ["bottle", "label", "distance"]
    assert labels["bottle"].tolist() == table["bottle"].tolist()
    cultivar = load_wine().target[np.random.default_rng(0).permutation(178)]
    assert adjusted_rand_score(cultivar, labels["label"]) > 0.9
    model = jaxcluster.load("runs/wines/model")
    expected = model.transform(encoded(model))[np.arange(178), labels["label"]]
    np.testing.assert_allclose(labels["distance"], expected, rtol=1e-5)


def encoded(model) -> np.ndarray:
    """The features of the table by pandas, NaN where a cell is missing."""
    table = pd.read_csv("wines.csv", na_values="?")
    table["organic"] = table["organic"].astype(float)
    table["estate"] = table["estate"].map({"small": 0.0, "medium": 1.0, "large": 2.0})
    table["picked"] = (pd.to_datetime(table["picked"]) - pd.Timestamp("1970-01-01")).dt.days
    for soil in ("clay", "lime", "sand"):
        table[f"soil={soil}"] = (table["soil"] == soil).astype(float).where(table["soil"].notna())
    return table[list(model.feature_names_in_)].to_numpy(float)


def test_the_model_takes_features_and_tables(folder):
    labels = pd.read_csv("runs/wines/labels.csv")["label"]
    model = jaxcluster.load("runs/wines/model")
    table = pd.read_csv("wines.csv", na_values="?")
    np.testing.assert_array_equal(model.predict(table), labels)
    np.testing.assert_array_equal(model.predict(pd.DataFrame(encoded(model), columns=model.feature_names_in_)), labels)
    assert model.input_imputation_.how == "median"
    assert np.isnan(encoded(model)).any()
    model.save("again")
    again = jaxcluster.load("again")
    assert (again.input_encoding_, again.input_imputation_.how) == (model.input_encoding_, "median")
    np.testing.assert_array_equal(again.predict(table), labels)
    model.input_encoding_ = model.input_encoding_._replace(lenient=False)
    with pytest.raises(ValueError, match="'soil' holds 'chalk', which the fit has not seen"):
        model.predict(table.assign(soil="chalk"))


def test_predict_repeats_the_labels(folder):
    labels, again = pd.read_csv("runs/wines/labels.csv"), pd.read_parquet("again.parquet")
    assert list(again) == ["bottle", "label", "distance", "distance_0", "distance_1", "distance_2"]
    pd.testing.assert_frame_equal(again[["bottle", "label"]], labels[["bottle", "label"]], check_dtype=False)
    np.testing.assert_allclose(again["distance"], labels["distance"], rtol=1e-5)
    pd.testing.assert_frame_equal(
        pd.read_csv("distances.csv")[["distance_1"]], again[["distance_1"]], rtol=1e-5, check_dtype=False
    )


def test_features_are_predicted_as_an_array(folder):
    labels = pd.read_csv("runs/wines/labels.csv")["label"]
    np.save("features.npy", encoded(jaxcluster.load("runs/wines/model")))
    call("predict", "runs/wines", "features.npy", "--out", "features.csv", "--overwrite", "--quiet")
    np.testing.assert_array_equal(pd.read_csv("features.csv")["label"], labels)


def test_new_rows_on_standard_input_with_new_words(folder, monkeypatch):
    text = Path("wines.csv").read_text()
    rows = text.replace("clay", "chalk").splitlines(keepends=True)[:20]

    class Stdin(io.StringIO):
        buffer = io.BytesIO("".join(rows).encode())

    with monkeypatch.context() as patch:
        patch.setattr("jaxcluster.cli.inputs.sys", type("sys", (), {"stdin": Stdin()}))
        result = call("predict", "runs/wines", "-", "--out", "new.csv", "--overwrite")
    assert "'chalk' in " in result.stderr
    assert "taken as missing cells" in result.stderr
    assert pd.read_csv("new.csv")["bottle"].tolist() == [f"W{i:03d}" for i in range(19)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_standard_input_may_be_packed(pack, monkeypatch):
    stream = types.SimpleNamespace(buffer=io.BytesIO(pack(b"a,b\n1,2\n3,4\n")), isatty=lambda: False)
    monkeypatch.setattr("jaxcluster.cli.inputs.sys", types.SimpleNamespace(stdin=stream))
    with on_disk(Source("-")) as source:
        np.testing.assert_array_equal(load(source.data).x, [[1, 2], [3, 4]])


def test_a_profile_is_in_units_and_words_of_the_table(walked, folder):
    shown = walked[1]["profile"]
    assert shown.startswith("178 rows in 3 clusters; silhouette 0.")
    for part in ("soil: ", "estate: ", "organic: ", "picked ", "2024-", "typical   W"):
        assert part in shown
    content = read_json(Path("wines-profile.json"))
    table, labels = pd.read_csv("wines.csv", na_values="?"), pd.read_csv("runs/wines/labels.csv")["label"]
    for cluster in content["clusters"]:
        own = table[labels == cluster["label"]]
        assert cluster["size"] == len(own)
        assert cluster["center"]["proline"] == pytest.approx(own["proline"].mean())
        words = {each["word"]: each["cluster"] for each in cluster["words"]["soil"]}
        assert words == pytest.approx(own["soil"].value_counts(normalize=True).to_dict())


def test_the_run_is_described(folder):
    config = read_json(Path("runs/wines/config.json"))
    assert config["data"]["id_name"] == "bottle"
    assert config["imputation"]["how"] == "median"
    assert len(config["imputation"]["values"]) == config["data"]["width"] == 19
    assert [code["kind"] for code in config["data"]["codes"]][13:] == ["onehot", "ordinal", "boolean", "days"]
    assert "178 rows" in call("score", "runs/wines/labels.csv", "again.parquet", "--truth-column", "label").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "columns 'bottle' (holds 'W000' in line 2).*--drop.*--id.*--encode.*--dates"),
        (("--id", "bottle", "--drop", "note", "--na", "?", "--encode", "onehot"), "column 'picked' (dates.*--dates"),
        (("--columns", "ash", "--na", "?"), "NaN values in column 'ash'. Fill them (--impute median)"),
        (("--columns", "ash,hue"), "holds '?'.*If '?' stands for a missing value in 'ash', pass --na '?'"),
        (("--columns", "ash", "--na", "?", "--truth", "./wines.csv"), "give a file of the labels alone"),
        (("--drop", "flavor"), "column 'flavor' is not known"),
        (("--columns", "soil", "--encode", "soil=big"), "must be onehot, ordinal, or an order"),
    ],
)
def test_tables_that_cannot_be_clustered(folder, words, message):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    assert re.search(pattern, refuse("fit", "kmeans", "wines.csv", "--k", 3, *words, "--out", "new"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("predict", "runs/wines", "wines.csv", "--proba", "--out", "l.csv"),
            "no probabilities of new rows",
        ),
        (("predict", "runs/wines", "wines.csv", "--distances"), "pass --out FILE.csv or .parquet"),
        (("predict", "runs/wines", "few.csv"), "few.csv lacks the columns 'malic_acid'"),
        (("score", "wines.csv", "iris"), "choose the one that holds the labels (--labels-column)"),
        (("score", "iris", "few.csv"), "choose the one that holds the labels (--truth-column)"),
        (("fit", "kmeans", "one.txt", "--k", 2, "--out", "new"), "Of texts name the folder"),
        (("embed", "runs/wines", "wines.csv", "--out", "codes.txt"), "must end in .csv, .npy or .parquet"),
        (("profile", "runs/wines/model/model.json"), "model.json"),
        (("fit", "kmeans", "a.csv", "b.csv", "--k", 2, "--out", "new"), "quotation marks around a pattern"),
        (("fit", "kmeans", "odd.csv", "--k", 1, "--drop", "b,c", "--out", "new"), "(--na inf --na=-inf, with --impute"),
        (("fit", "gmm", "odd.csv", "--k", 1, "--missing", "--drop", "a,b", "--out", "new"), "no cell in column 'c'"),
        (("fit", "kmeans", "odd.csv", "--k", 1, "--id", "c", "--out", "new"), "2 missing names"),
        (
            ("fit", "gmm", "wines.csv", "--k", 2, "--missing", "--impute", "mean", "--out", "new"),
            "leave one of them out",
        ),
    ],
)
def test_commands_that_make_no_sense(folder, words, message):
    Path("few.csv").write_text("alcohol,ash\n12,2\n13,3\n")
    Path("one.txt").write_text("a text")
    Path("odd.csv").write_text("a,b,c\ninf,1,\n2,3,\n")
    assert message in refuse(*words)


def warnings_of(x: np.ndarray, k: int | None = 2, **options: bool) -> list[str]:
    dataset = Dataset("x", x, columns=[f"c{j}" for j in range(x.shape[1])])
    return column_warnings(Rows(dataset, x, Scaling("none"), None), k, **{"units": True, **options})


def test_rows_that_say_little_are_warned_of():
    x = np.random.default_rng(0).normal(size=(60, 3))
    assert warnings_of(x) == []
    assert warnings_of(x * [1, 100, 1])[0].startswith("column 'c1' holds 99.9% of the variance of all columns")
    assert warnings_of(x * [1, 100, 1], units=False) == []
    assert warnings_of(x * [1, 0, 1])[0].startswith("column 'c1' is constant")
    counted = np.column_stack([1 + np.arange(60), x])
    assert warnings_of(counted)[0].startswith("column 'c0' numbers the rows one by one")
    assert warnings_of(counted[:, :1]) == warnings_of(counted[::2], units=False) == []
    assert warnings_of(x[np.arange(60) % 50])[0].startswith("10 of 60 rows repeat another one")
    assert warnings_of(x, 20)[0].startswith("60 rows in 20 clusters are 3.0 in each")
    assert warnings_of(x, None) == warnings_of(x[:1], 1) == []

"""Command line on texts, sparse files and embeddings: the walks of the guide, and files of other kinds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from command_line import call, read_json, refuse
from sklearn.datasets import dump_svmlight_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score

import jaxcluster
from jaxcluster.datasets import load
from jaxcluster.report.sparse_profiles import drawable, sparse_columns, sparse_distances

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def walk(page: str) -> dict[str, str]:
    """Run the part "By the shell" of a page in the current folder; the output of each command by its name."""
    part = (GUIDE / page).read_text().split("## By the shell")[1]
    exec(re.search(r"```python\n(.*?)```", part, re.DOTALL)[1], {"np": np})
    commands = [shlex.split(line)[1:] for line in re.findall(r"^jaxcluster .*", part, re.MULTILINE)]
    quick = {"sweep": ["--no-report"], "fit": ["--no-report"]}
    return {words[0]: call(*words, *quick.get(words[0], [])).stdout for words in commands}


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Walk the page on texts.

    Returns:
        The folder, and the output of each command.
    """
    folder = tmp_path_factory.mktemp("notes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, walk("texts.md")


@pytest.fixture
def folder(notes, monkeypatch) -> Path:
    monkeypatch.chdir(notes[0])
    return notes[0]


def texts_and_themes(folder: Path) -> tuple[list[str], list[str]]:
    """Read the notes.

    Returns:
        Their texts and their themes, in the order of the names of their files.
    """
    files = sorted(folder.glob("notes/*/*.txt"))
    return [file.read_text() for file in files], [file.parent.name for file in files]


def test_a_folder_of_texts_by_the_shell(notes, folder):
    texts, themes = texts_and_themes(folder)
    assert "Both rules choose k = 3." in notes[1]["sweep"]
    labels = pd.read_csv("runs/notes/labels.csv")
    assert labels["file"].tolist()[:2] == ["kitchen/00.txt", "kitchen/01.txt"]
    assert adjusted_rand_score(themes, labels["label"]) == 1
    assert read_json(Path("runs/notes/metrics.json"))["external"]["accuracy"] == 1
    pd.testing.assert_frame_equal(pd.read_csv("again.csv"), labels, rtol=1e-5)
    shown = notes[1]["profile"]
    assert re.search(r"terms +butter 0\.\d+, ", shown)
    assert "typical   kitchen/" in shown
    vectorizer = TfidfVectorizer(stop_words="english").fit(texts)
    model = jaxcluster.load("runs/notes/model")
    assert list(model.input_vectorizer_.vocabulary) == vectorizer.get_feature_names_out().tolist()
    new = ["a bank and its shares, unheard of", "knead the dough"]
    assert abs(model.input_vectorizer_.apply(new) - vectorizer.transform(new)).max() < 1e-12
    assert model.predict(new).tolist() == model.predict(vectorizer.transform(new)).tolist()
    assert themes[labels["label"].tolist().index(model.predict(new)[0])] == "money"
    assert str(jaxcluster.profile(model, texts)).splitlines()[2] == shown.splitlines()[2]


def test_a_parquet_of_embeddings_by_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = walk("embeddings.md")
    assert "Both rules choose k = 4." in printed["sweep"]
    labels = pd.read_csv("runs/documents/labels.csv")
    assert list(labels) == ["document", "label", "distance"]
    topic = np.random.default_rng(0).integers(0, 4, 300)
    assert adjusted_rand_score(topic, labels["label"]) == 1
    assert "typical   doc-" in printed["profile"]
    pd.testing.assert_frame_equal(pd.read_parquet("again.parquet"), labels, check_dtype=False, rtol=1e-5)


@pytest.fixture(scope="module")
def weights(notes) -> scipy.sparse.csr_array:
    """Files of the weights of the notes, and a table of the texts; the weights."""
    texts, themes = texts_and_themes(notes[0])
    x = scipy.sparse.csr_array(TfidfVectorizer(stop_words="english").fit_transform(texts))
    for name, matrix in (("x", x), ("columns", x.tocsc()), ("entries", x.tocoo())):
        scipy.sparse.save_npz(notes[0] / f"{name}.npz", matrix)
    for start in (0, 1):
        codes = np.unique(themes, return_inverse=True)[1]
        dump_svmlight_file(x, codes, str(notes[0] / f"from{start}.svm"), zero_based=start == 0)
    numbers = {"id": [f"n{i}" for i in range(len(texts))], "theme": themes, "text": texts, "n": range(len(texts))}
    pd.DataFrame(numbers).to_csv(notes[0] / "table.csv", index=False)
    return x


@pytest.mark.parametrize("name", ["x.npz", "columns.npz", "entries.npz", "from0.svm", "from1.svm"])
def test_files_of_sparse_rows(folder, weights, name):
    dataset = load(name, **({"truth": "label"} if name.endswith("svm") else {}))
    assert abs(dataset.x - weights).max() < 1e-9
    assert dataset.x.has_canonical_format
    if name.endswith("svm"):
        assert dataset.columns[0] == name[4]
        assert dataset.y.tolist() == sorted(dataset.y.tolist())


def test_new_rows_of_sparse_files(folder, weights):
    fit = ("kmeans", "from1.svm", "--k", 3, "--metric", "cosine", "--out", "runs/svm", "--no-report", "--quiet")
    call("fit", *fit)
    expected = pd.read_csv("runs/svm/labels.csv")["label"]
    lines = [line for line in Path("from1.svm").read_text().splitlines() if not line.startswith("#")]
    Path("few.svm").write_text("\n".join(line.split(" 28:")[0] for line in lines[:5]) + "\n")
    for name, count in (("few.svm", 5), ("x.npz", 60)):
        call("predict", "runs/svm", name, "--out", "new.csv", "--overwrite", "--quiet")
        assert pd.read_csv("new.csv")["label"].tolist() == expected[:count].tolist()


def test_a_column_of_texts(folder, weights):
    words = ("--text", "text", "--id", "id", "--truth", "theme", "--stop-words", "english")
    shown = call(
        "fit", "kmeans", "table.csv", *words, "--k", 3, "--metric", "cosine", "--out", "runs/column", "--no-report"
    )
    labels = pd.read_csv("runs/column/labels.csv")
    assert labels["id"].tolist() == [f"n{i}" for i in range(60)]
    assert adjusted_rand_score(pd.read_csv("runs/notes/labels.csv")["label"], labels["label"]) == 1
    assert "Adjusted Rand index             1.0000" in shown.stdout
    pd.read_csv("table.csv")[["text"]][:5].to_csv("new-texts.csv", index=False)
    call("predict", "runs/column", "new-texts.csv", "--out", "new.npy", "--overwrite", "--quiet")
    assert np.load("new.npy").tolist() == labels["label"][:5].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("fit", "balanced-kmeans", "notes", "--k", 3),
            "takes dense rows, and those of notes are sparse. Methods for them: kmeans",
        ),
        (("fit", "gmm", "x.npz", "--k", 3), "with --covariance diag or spherical"),
        (("fit", "kmeans", "x.npz", "--k", 3, "--scale", "standard"), "pass --scale l2"),
        (("fit", "kmeans", "notes", "--k", 3, "--impute", "mean"), "an absent entry of sparse rows is 0"),
        (("fit", "kmeans", "notes", "--k", 3, "--encode", "onehot"), "so that encode has no effect (--encode)"),
        (("fit", "kmeans", "table.csv", "--k", 3, "--stop-words", "english"), "name their column (--text)"),
        (("fit", "kmeans", "table.csv", "--k", 3, "--text", "n"), "holds '0.0', which is no text"),
        (("fit", "kmeans", "from1.svm", "--k", 3, "--columns", "1,4"), "no columns can be chosen (--columns)"),
        (("fit", "kmeans", "runs", "--k", 3), "Name a file, or a folder of .txt, .npy"),
        (("sweep", "notes", "--k", "2:3", "--algo", "gmm"), "take kmeans or kmedoids"),
    ],
)
def test_sparse_rows_that_are_refused(folder, weights, words, message):
    assert message in refuse(*words, "--out", "runs/refused")


def test_texts_for_a_model_of_numbers(folder, weights):
    assert "name their column (--text)" in refuse("predict", "runs/notes", "table.csv")
    Path("none.txt").write_text("x")
    Path("empty").mkdir(exist_ok=True)
    Path("empty/one.txt").write_text("of a")
    assert "no text has a term" in refuse(
        "fit", "kmeans", "empty", "--k", 1, "--stop-words", "english", "--out", "runs/e"
    )
    Path("empty/one.txt").write_bytes(b"\xff\xfe\xfa")
    assert "Name the encoding of the files (--encoding)" in refuse(
        "fit", "kmeans", "empty", "--k", 1, "--out", "runs/e"
    )


def test_columns_and_distances_of_sparse_rows():
    rng = np.random.default_rng(0)
    dense, labels = rng.poisson(0.3, (50, 12)).astype(float), rng.integers(-1, 3, 50)
    x = scipy.sparse.csr_array(dense)
    numbers, terms = sparse_columns(x, None, labels, each=12)
    for name, cells in numbers.items():
        np.testing.assert_array_equal(cells, dense[:, int(name.split()[1])])
    means = dense[labels == 1].mean(axis=0)
    assert [each.mean for each in terms[1]] == pytest.approx(sorted(means[means > 0], reverse=True))
    for cosine in (False, True):
        rows = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-30) if cosine else dense
        expected = [
            np.linalg.norm(row - rows[labels == j].mean(axis=0)) for row, j in zip(rows, labels, strict=True) if j >= 0
        ]
        np.testing.assert_allclose(sparse_distances(x, labels, cosine=cosine)[labels >= 0], expected, atol=1e-7)


def test_wide_sparse_rows_are_drawn_in_directions(monkeypatch):
    monkeypatch.setattr("jaxcluster.report.sparse_profiles.MOST_CELLS", 10_000)
    x = scipy.sparse.random_array((120, 200), density=0.1, rng=np.random.default_rng(0)).tocsr()
    drawn = drawable(x)
    assert drawn.x.shape == (120, 50)
    np.testing.assert_allclose(drawn.basis.T @ drawn.basis, np.eye(50), atol=1e-8)
    np.testing.assert_allclose(drawn.x, x @ drawn.basis)

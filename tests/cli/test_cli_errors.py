"""Errors of the command line: exit code 2, one line that helps, and not a trace on the disk."""

from __future__ import annotations

import json
import re
import shutil
import tempfile

import numpy as np
import pytest
from command_line import NAMES, D, K, N, assert_same_labels, call, refuse, rows_and_species, write_csv


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of files, most of which cannot be clustered."""
    folder = tmp_path_factory.mktemp("data")
    x, species = rows_and_species()
    holes = x.copy()
    holes[3, 1], holes[[5, 6], 2] = np.nan, np.inf
    arrays = {
        "good": x,
        "holes": holes,
        "complex": x.astype(complex),
        "strings": species[:, None],
        "flat": x[:, 0],
        "no_rows": x[:0],
        "no_columns": x[:, :0],
        "few": x[: K - 1],
        "wide": np.hstack([x, x]),
        "repeated": np.repeat(x[: K - 1], N // (K - 1), axis=0),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "truncated.npy").write_bytes((folder / "good.npy").read_bytes()[:300])
    np.savez(folder / "pair.npz", first=x, second=x)
    columns = dict(zip(NAMES, x.T, strict=True))
    write_csv(folder / "table.csv", {**columns, "species": species, "zero": np.zeros(N), "minus": -np.arange(N)})
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    call("fit", "kmeans", data / "good.npy", "--k", K, "--out", out, "--no-report")
    return out


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """The current folder, which must be empty again after the test; so must that of temporary files."""
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield place
    assert list(tmp_path.rglob("*")) in ([place, temporary], [temporary, place])


FIT = ("--k", K, "--out", "new/run")

BAD_DATA = {
    "holes.npy": (FIT, "1 NaN and 2 infinity values in columns 1, 2"),
    "complex.npy": (FIT, "complex numbers"),
    "strings.npy": (FIT, "holds text"),
    "flat.npy": (FIT, r"shape \(120,\).*x.reshape\(-1, 1\)"),
    "no_rows.npy": (FIT, r"shape \(0, 4\)"),
    "no_columns.npy": (FIT, r"shape \(120, 0\)"),
    "few.npy": (FIT, "n_samples=2 should be >= n_clusters=3"),
    "truncated.npy": (FIT, "truncated"),
    "missing.npy": (FIT, "missing.npy does not exist"),
    "pair.npz": (FIT, r"first \(120, 4\), second \(120, 4\)"),
    "pair.npz ": ((*FIT, "--key", "frist"), "Did you mean .*first"),
    "table.csv": (FIT, r"'species' \(holds '.*' in line 2\).*--columns.*--id.*--truth"),
    "table.csv ": ((*FIT, "--columns", "width,hieght"), "Did you mean 'height'"),
    "table.csv  ": ((*FIT, "--truth", "species", "--weights", "minus"), "must not be negative: 119"),
    "table.csv   ": ((*FIT, "--truth", "species", "--weights", "zero"), "weights: all are zero"),
    "table.csv    ": ((*FIT, "--truth", "species", "--weights", "zreo"), "Did you mean 'zero'"),
}

GOOD = "good.npy"

BAD_WORDS = [
    (("--k", 0, "--out", "new"), "--k.*'0' must be at least 1"),
    (("--k", "three", "--out", "new"), "--k.*: 'three' is not a whole number"),
    ((*FIT, "--tol", "small"), "--tol.*: 'small' is not a number"),
    ((*FIT, "--columns", "0", "--columns", "1"), "--columns is given 2 times: write --columns A,B,... once"),
    (("--out", "new"), "kmeans needs a number of clusters: pass --k"),
    (("--k", N + 1, "--out", "new"), f"n_samples={N} should be >= n_clusters={N + 1}"),
    (("--k", K), "Missing option '--out'"),
    ((*FIT, "--sede", 3), "--sede. Did you mean '--seed'.*--quiet"),
    ((*FIT, "--scale", "max"), "--scale'?: 'max' is not one of .*minmax"),
    ((*FIT, "--init", "kmeans"), r"Did you mean 'k-means\+\+'"),
    ((*FIT, "--n-init", "lots"), "n_init='lots'"),
    ((*FIT, "--batch-size", 10), "'batch_size' is not known; there are: algorithm.*verbose"),
    ((*FIT, "--param", "n_inti=3"), "there are: algorithm.*Did you mean 'n_init'"),
    ((*FIT, "--param", "tol=small"), "tol='small' must be a number, such as 0.0001"),
    ((*FIT, "--param", "tol"), "'tol' must be NAME=VALUE"),
    ((*FIT, "--param", "copy_x=maybe"), "copy_x='maybe' must be true or false"),
    ((*FIT, "--param", "n_clusters=3"), "n_clusters is given twice"),
    ((*FIT, "--covariance", "full"), "'covariance_type' is not known; there are: algorithm"),
    ((*FIT, "--reg-covar", 1e-3), "'reg_covar' is not known"),
    (("--k", K, "--out", "."), "current folder"),
]

BAD_MIXTURES = [
    (("--out", "new"), "gmm needs a number of clusters: pass --k"),
    (("--k", N + 1, "--out", "new"), f"n_samples={N} should be >= n_components={N + 1}"),
    ((*FIT, "--covariance", "round"), "--covariance.*spherical"),
    ((*FIT, "--metric", "cosine"), "'metric' is not known; there are: batch_size, covariance_type"),
    ((*FIT, "--init", "kmens"), "'kmens'.*kmeans"),
    ((*FIT, "--init", "kmeans", "--param", "init_params=random"), "init_params is given twice"),
    ((*FIT, "--reg-covar", -1), "--reg-covar"),
    ((*FIT, "--param", "reg_covar=-1"), "reg_covar"),
]


def assert_matches(line: str, pattern: str) -> None:
    assert re.search(pattern, line), line


@pytest.mark.parametrize("name", BAD_DATA)
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_data_that_cannot_be_clustered(data, empty, command, name):
    words, message = BAD_DATA[name]
    algorithm = ["kmeans"] if command == "fit" else ["--seeds", 2]
    message = message.replace("n_clusters=", "--k ") if command == "sweep" else message
    assert_matches(refuse(command, *algorithm, data / name.strip(), *words), message)


@pytest.mark.parametrize(("words", "message"), BAD_WORDS)
def test_words_that_make_no_sense(data, empty, words, message):
    assert_matches(refuse("fit", "kmeans", data / GOOD, *words), message)


@pytest.mark.parametrize(("words", "message"), BAD_MIXTURES)
def test_words_that_make_no_sense_for_a_mixture(data, empty, words, message):
    assert_matches(refuse("fit", "gmm", data / GOOD, *words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fti",), "'fti'.*fit, predict, embed, profile, report, compare, score, sweep, transport, plan, launch, info"),
        (("fit",), "Missing argument 'ALGO'"),
        (("fit", "kmaens", "iris", *FIT), "'kmaens' is not known.*'bisecting-kmeans'.*Did you mean 'kmeans'"),
        (("fit", "kmeans", "irsi", *FIT), "'irsi' is neither a built-in set nor a file.*iris"),
        (("sweep", "iris", "--k", "2-5", "--out", "new"), "2:15 or 2,4,8"),
        (("sweep", "iris", "--k", "5:2", "--out", "new"), "lesser one first"),
        (("sweep", "iris", "--k", "0:2", "--out", "new"), "at least 1"),
        (("sweep", "iris", "--algo", "dbscan", *FIT), "--algo.*gmm"),
        (("sweep", "iris", "--covariance", "full", *FIT), "--covariance means nothing to kmeans.*--precision"),
        (("sweep", "iris", "--algo", "gmm", "--metric", "cosine", *FIT), "--metric means nothing to gmm.*--reg-covar"),
        (("sweep", "iris", "--algo", "gmm", "--covariance", "round", *FIT), "--covariance.*spherical"),
        (("sweep", "iris", "--algo", "gmm", "--init", "kmens", *FIT), "'kmens'.*Did you mean 'kmeans'"),
        (("sweep", "iris", "--algo", "gmm", "--k", 151, "--out", "new"), "n_samples=150 should be >= --k 151"),
        (("predict", "nowhere", "iris"), "nowhere does not exist"),
        (("score", "iris", "wine"), "150 labels and wine 178"),
        (("fit", "spectral-embedding", "iris", *FIT), "coordinates of rows and no clusters. Use SpectralEmbedding"),
    ],
)
def test_commands_that_make_no_sense(empty, words, message):
    assert_matches(refuse(*words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("wide.npy",), f"wide.npy has {2 * D} columns, but the model was fitted on {D}"),
        (("holes.npy",), "1 NaN and 2 infinity"),
        ((GOOD, "--out", "labels.txt"), "must end in .csv, .npy or .parquet"),
        ((GOOD, "--columns", "0,1"), f"has 2 columns, but the model was fitted on {D}"),
    ],
)
def test_predictions_that_cannot_be_made(data, run, empty, words, message):
    assert_matches(refuse("predict", run, data / words[0], *words[1:]), message)


def test_a_model_that_was_tampered_with(data, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    arrays = copy / "model" / "arrays.safetensors"
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    assert_matches(refuse("predict", copy, data / GOOD), "arrays.safetensors.*SHA-256")
    shutil.rmtree(copy / "model")
    assert_matches(refuse("predict", copy, data / GOOD), "model/arrays.safetensors is missing")
    assert_matches(refuse("predict", data, data / GOOD), "not a saved model")


def test_a_finished_run_is_replaced_only_when_asked_to(data, run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / "note").write_text("of the old run")
    words = ("fit", "kmeans", data / GOOD, "--k", K, "--scale", "standard", "--out", out, "--no-report")
    assert_matches(refuse(*words), "--overwrite")
    assert (out / "labels.csv").read_text() == (run / "labels.csv").read_text()
    call(*words, "--overwrite")
    assert json.loads((out / "config.json").read_text())["scaling"]["how"] == "standard"
    assert (out / "labels.csv").read_text() != (run / "labels.csv").read_text()
    assert not (out / "note").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_what_is_no_run_is_never_replaced(data, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("one")
    (tmp_path / "file").write_text("two")
    words = ("fit", "kmeans", data / GOOD, "--k", K, "--overwrite")
    assert_matches(refuse(*words, "--out", tmp_path / "thesis"), "is no run of jaxcluster")
    assert_matches(refuse(*words, "--out", tmp_path / "file"), "is a file")
    assert_matches(refuse(*words, "--out", tmp_path / "file" / "run"), "is a file")
    assert_matches(refuse("report", tmp_path / "thesis"), "is no run of jaxcluster")
    assert (tmp_path / "thesis" / "chapter").read_text() == "one"
    assert (tmp_path / "file").read_text() == "two"


def test_files_are_replaced_only_when_asked_to(data, run, tmp_path):
    out = tmp_path / "labels.csv"
    out.write_text("mine")
    words = ("predict", run, data / GOOD, "--out", out)
    assert_matches(refuse(*words), "labels.csv exists.*--overwrite")
    assert out.read_text() == "mine"
    (tmp_path / "folder.csv").mkdir()
    assert_matches(refuse(*words[:-1], tmp_path / "folder.csv", "--overwrite"), "folder.csv is a folder")
    call(*words, "--overwrite")
    assert_same_labels(out, run / "labels.csv")


def test_what_a_command_reads_is_never_replaced(data, run, tmp_path):
    own, table = tmp_path / "run", tmp_path / "new.csv"
    shutil.copytree(run, own)
    np.savetxt(table, rows_and_species()[0], delimiter=",")
    shutil.copy(table, own / "data.csv")
    (tmp_path / "link.csv").symlink_to(table)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ("predict", own, table, "--out", table),
        ("predict", own, table, "--out", tmp_path / "link.csv"),
        ("predict", own, tmp_path / "*.csv", "--out", table),
        ("predict", own, table, "--out", own / "labels.csv"),
        ("embed", own / "model", table, "--out", own / "labels.csv"),
        ("score", own / "labels.csv", own / "config.json", "--json", own / "config.json"),
        ("profile", own, "--json", own / "metrics.json"),
        ("compare", own, own, "--out", own / "report.html"),
        ("fit", "kmeans", own / "data.csv", "--k", K, "--out", own),
        ("sweep", own / "data.csv", "--k", "2:3", "--out", own),
    ):
        refuse(*words, "--overwrite")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("error", "code"), [(RuntimeError("no more ink"), 1), (KeyboardInterrupt(), 130)])
def test_a_run_that_fails_in_the_end_leaves_no_trace(data, run, tmp_path, monkeypatch, finished, error, code):
    def fail(*args, **kwargs):
        raise error

    out = tmp_path / "run"
    if finished:
        shutil.copytree(run, out)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr("jaxcluster.cli.run.write_columns", fail)
    result = call("fit", "kmeans", data / GOOD, "--k", K, "--out", out, "--overwrite", code=code)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
    assert "Written" not in result.stdout
    if code == 130:
        assert result.stderr == "Interrupted: nothing was written.\n"
    else:
        assert result.exception is error


def test_what_the_data_do_not_allow_is_a_warning(data, tmp_path):
    silent = ("--out", tmp_path / "run", "--overwrite", "--no-report", "--quiet")
    result = call("fit", "kmeans", data / "repeated.npy", "--k", K, *silent)
    assert result.stdout == ""
    repeated = r"Warning: column 1 holds .*\nWarning: .* rows repeat another one\..*--weights\)\.\n\Z"
    assert_matches(result.stderr, rf"\AWarning: .*distinct clusters \({K - 1}\).*\n{repeated}")
    result = call("sweep", data / "repeated.npy", "--k", "2,3", "--seeds", 1, *silent)
    assert_matches(result.stderr, rf"\AWarning: .*fewer distinct rows than clusters for k = 3\.\n{repeated}")
    result = call("fit", "kmeans", data / GOOD, "--k", K, "--max-iter", 1, *silent)
    units, ending = result.stderr.splitlines()
    assert_matches(units, r"\AWarning: column 1 holds (9\d\.\d|100.0)% of the variance.*Pass --scale standard")
    assert ending == "Warning: the fit stopped at its limit of steps. Raise --max-iter, or --tol."
    few = ("--algo", "gmm", "--covariance", "diag", "--k", "2,3", "--max-iter", 1)
    result = call("sweep", data / GOOD, "--scale", "standard", *few, *silent)
    assert_matches(result.stderr, r"\AWarning: some .* limit of steps, with k = 2 diag, k = 3 diag\. Raise --max-iter")


@pytest.mark.parametrize("at", [0, 3])
def test_debug_shows_where_an_error_came_from(at):
    words = ["predict", "nowhere", "iris"]
    result = call(*words[:at], "--debug", *words[at:], code=2)
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("Error: nowhere does not exist")

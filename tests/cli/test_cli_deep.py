"""The command line of methods that train a network: options, checkpoints, and going on from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import call, read_labels, refuse, rows_and_species

import jaxcluster
from jaxcluster.cli.console import Stages
from jaxcluster.cli.training import ConsoleProgress, phases_of
from jaxcluster.estimators import ESTIMATORS

TRAINED = ("--select", "trained")
TINY = ("--k", 3, "--hidden", "8", "--latent", 2, "--pretrain-epochs", 2, "--epochs", 2, "--n-init", 2, *TRAINED)
SAME = {"hidden": (8,), "latent": 2, "pretrain_epochs": 2, "epochs": 2, "n_init": 2, "select": "trained"}
SAME |= {"random_state": 0}


@pytest.fixture(scope="module")
def flowers() -> np.ndarray:
    """(120, 4) rows in three groups."""
    x, _ = rows_and_species()
    return (x / x.std(axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def data(flowers, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "flowers.npy"
    np.save(path, flowers)
    return path


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of a run of DEC, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    return out, call("fit", "dec", data, *TINY, "--out", out, "--checkpoint-every", 1)


def test_a_run_is_that_of_the_estimator(finished, flowers):
    out, result = finished
    expected = jaxcluster.DEC(3, **SAME, checkpoint_every=1).fit(flowers)
    np.testing.assert_array_equal(read_labels(out / "labels.csv"), expected.labels_)
    config = json.loads((out / "config.json").read_text())
    assert config["parameters"] == json.loads(json.dumps(expected.get_params()))
    assert re.match(r"3 clusters of .* rows; (trained for 2|converged after [12]) epochs?\.\n", result.stdout)
    assert [entry.name for entry in out.parent.iterdir()] == ["run"]  # no checkpoints are left
    assert jaxcluster.load(out / "model").get_params() == expected.get_params()


def test_history_holds_every_epoch_of_every_phase(finished):
    records = [json.loads(line) for line in (finished[0] / "history.jsonl").read_text().splitlines()]
    assert [(r["phase"], r["epoch"]) for r in records[:3]] == [("pretrain", 1), ("pretrain", 2), ("cluster", 1)]
    assert all(record["loss"] > 0 and record["step"] > 0 for record in records)


def test_a_saved_run_labels_new_rows(finished, flowers, tmp_path):
    np.save(tmp_path / "new.npy", flowers[::7])
    call("predict", finished[0], tmp_path / "new.npy", "--out", tmp_path / "labels.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), read_labels(finished[0] / "labels.csv")[::7])
    call("embed", finished[0], tmp_path / "new.npy", "--out", tmp_path / "codes.npy")
    np.testing.assert_array_equal(
        np.load(tmp_path / "codes.npy"), jaxcluster.load(finished[0] / "model").transform(flowers[::7])
    )


def test_max_iter_is_epochs(data, tmp_path):
    words = ("--k", 3, "--hidden", "8", "--latent", 2, "--pretrain-epochs", 2, "--max-iter", 1, "--n-init", 2, *TRAINED)
    result = call("fit", "dec", data, *words, "--out", tmp_path / "run", "--no-report", "--param", "scaling=none")
    chosen = json.loads((tmp_path / "run" / "config.json").read_text())["parameters"]
    assert (chosen["epochs"], chosen["scaling"]) == (1, "none")
    assert "trained for 1 epoch." in result.stdout
    assert result.stderr == "Warning: the fit stopped at its limit of epochs. Raise --epochs, or --tol.\n"


def test_training_of_all_epochs_is_no_fault(data, tmp_path):
    words = ("--scale", "minmax", "--likelihood", "bernoulli", "--out", tmp_path / "run")
    result = call("fit", "vade", data, *TINY, *words)
    assert "trained for 2 epochs." in result.stdout
    assert result.stderr == ""
    page = (tmp_path / "run" / "report.html").read_text()
    assert "all epochs" in page
    assert 'class="warn"' not in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("dec", *TINY, "--likelihood", "bernoulli"),
            "bernoulli needs values from 0 to 1, and .*: pass --scale minmax",
        ),
        (("dec", *TINY, "--batch-size", 100_000), "batch_size=100000 is more than n_samples=120"),
        (("dec", *TINY, "--image-shape", "9,9"), r"image_shape=\(9, 9\) makes 81 values an image, but X has 4 columns"),
        (("dec", *TINY, "--image-shape", "2x2"), "image_shape='2x2' must be whole numbers with commas.*8,8"),
        (("dec", "--k", 3, "--hidden", "wide"), "hidden='wide' must be whole numbers with commas"),
        (("dec", *TINY, "--augment"), "--augment .* pass --image-shape too"),
        (("dec", *TINY, "--max-iter", 3), "epochs is given twice: --epochs and --max-iter"),
        (("dec", *TINY, "--param", "checkpoint_dir=x"), "dec: parameter 'checkpoint_dir' is not known"),
        (("dec", *TINY, "--init", "random"), "dec: parameter 'init' is not known"),
        (("dec", *TINY, "--weights", "0"), "dec counts each row once"),
        (("dec", *TINY, "--resume"), "--resume finds nothing to go on from"),
        (("dec", *TINY[2:]), "dec needs a number of clusters"),
        (("kmeans", "--k", 3, "--hidden", "8"), "kmeans: parameter 'hidden' is not known; there are: algorithm"),
        (("dbscan", "--resume"), "--resume means nothing to dbscan, whose fit is not saved in steps"),
        (("kmeans", "--k", 3, "--resume"), "--resume finds nothing to go on from"),
        (("kmeans", "--k", 3, "--tensorboard", "t"), "--tensorboard means nothing to kmeans"),
        (("swav", "--k", 3, "--labels", 0.5), "--labels means nothing to swav; metric-embedding and joint-clustering"),
        (("joint-clustering", *TINY, "--labels", 1.5), "--labels 1.5 is a share of the truth, and must be above 0"),
        (
            ("joint-clustering", *TINY, "--labels", 0.5),
            "--labels 0.5 is a share of the truth, and flowers.npy has none",
        ),
        (("joint-clustering", *TINY, "--labels", "no.csv"), "--labels no.csv is neither a file that there is nor a"),
        (("clustergan", "--k", 3, "--param", "critic=x"), "critic can be chosen in Python alone"),
        (("swav", "--k", 3, "--param", "views=none"), "views=None shows rows as they are, and 2 views of each"),
    ],
)
def test_words_that_make_no_sense(data, tmp_path, words, message):
    line = refuse("fit", words[0], data, *words[1:], "--out", tmp_path / "new" / "run")
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cut_short(data, tmp_path, monkeypatch):
    """A run that was interrupted while its results were written, and what was printed."""
    out = tmp_path / "run"

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxcluster.cli.run.write_columns", fail)
        result = call("fit", "dec", data, *TINY, "--out", out, code=130)
    return out, result


def test_an_interrupted_run_says_how_to_go_on_and_does(cut_short, data, finished):
    out, result = cut_short
    partial = out.with_name("run.partial")
    assert re.match(rf"Interrupted: checkpoints are kept in {partial}\. To go on: jaxcluster fit dec", result.stderr)
    assert result.stderr.endswith(" --resume\n")
    assert not out.exists()
    words = ("fit", "dec", data, *TINY, "--no-report", "--out", out)
    assert "Pass --resume to go on with it, or --overwrite" in refuse(*words)
    assert "was begun with random_state=0, not 1" in refuse(*words, "--resume", "--seed", 1)
    assert "was begun with another scaling" in refuse(*words, "--resume", "--scale", "l2")
    call(*words, "--resume")
    np.testing.assert_array_equal(read_labels(out / "labels.csv"), read_labels(finished[0] / "labels.csv"))
    assert not partial.exists()


def test_an_unfinished_run_can_be_begun_afresh(cut_short, data):
    out, _ = cut_short
    call("fit", "dec", data, *TINY, "--seed", 5, "--no-report", "--out", out, "--overwrite")
    assert [entry.name for entry in out.parent.iterdir()] == ["run"]


def test_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "thesis").write_text("one")
    line = refuse("fit", "dec", data, *TINY, "--out", tmp_path / "run", "--overwrite")
    assert "holds no checkpoints of jaxcluster" in line
    assert (tmp_path / "run.partial" / "thesis").read_text() == "one"


def test_the_terminal_tells_how_far_a_training_is(flowers):
    descriptions = []

    class Listener(Stages):
        def say(self, description):
            descriptions.append(description)

    model = jaxcluster.DEC(3, **SAME, pretrain="stacked", tol=None)
    listener = Listener.__new__(Listener)
    model.fit(flowers, callbacks=[ConsoleProgress("Fitting", phases_of(model), listener)])
    assert descriptions[0] == "Fitting: layer 1 of 2, 2 epochs"
    assert re.fullmatch(r"Fitting: pretraining, epoch 2/2, loss [\d.e+-]+", descriptions[8])
    assert re.fullmatch(r"Fitting: clustering, epoch 2/2, loss [\d.e+-]+, [\d.]+% of rows changed", descriptions[-1])


def test_all_methods_are_listed():
    text = call("info").stdout
    for name in list(ESTIMATORS)[13:]:
        assert re.search(rf"^ *{name} ", text, re.MULTILINE)


@pytest.mark.parametrize("kind", ["a share of the truth", "a file of words"])
def test_some_labels_are_learned_from(kind, data, flowers, tmp_path):
    species = np.repeat(["ash", "birch", "cedar"], 40)
    words = {"header": "label", "comments": "", "fmt": "%s"}
    np.savetxt(tmp_path / "truth.csv", species, **words)
    np.savetxt(tmp_path / "some.csv", np.where(np.arange(120) % 2, species, "-1"), **words)
    labels = 0.5 if kind == "a share of the truth" else tmp_path / "some.csv"
    words = (*TINY, "--truth", tmp_path / "truth.csv", "--labels", labels, "--no-report")
    call("fit", "joint-clustering", data, *words, "--out", tmp_path / "run")
    model = jaxcluster.load(tmp_path / "run" / "model")
    drawn = np.random.default_rng(0).random(120).argsort() < 60
    known = np.where(drawn if kind == "a share of the truth" else np.arange(120) % 2, species, None)
    assert model.classes_.tolist() == ["ash", "birch", "cedar"]
    again = jaxcluster.JointClustering(3, **SAME).fit(flowers, known)
    np.testing.assert_array_equal(model.labels_, again.labels_)


def test_a_network_that_is_trained_in_one_go(data, tmp_path):
    words = ("--k", 3, "--hidden", "8", "--latent", 4, "--epochs", 2, "--checkpoint-every", 1, *TRAINED)
    result = call("fit", "deepcluster", data, *words, "--out", tmp_path / "run")
    assert "trained for 2 epochs" in result.stdout
    assert "Warning" not in result.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [record["phase"] for record in records] == ["train", "train"]
    assert records[1]["nmi"] > 0
    assert "Normalized mutual information" in (tmp_path / "run" / "report.html").read_text()

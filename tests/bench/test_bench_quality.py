"""Measurements of quality: scikit-learn's own tests, trials of hard problems, and the best ARI on shapes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from bench import shapes
from bench.peer_tests import __main__ as peer_tests
from bench.peer_tests import page
from bench.peer_tests.reasons import CATEGORIES, REASONS, REFUSAL, Reason
from bench.records import read
from bench.trials import __main__ as trials
from bench.trials import kinds, methods
from jaxcluster.types import Status


def test_shapes_are_measured_at_their_best_settings(tmp_path, monkeypatch, capsys):
    two_methods = {name: shapes.METHODS[name] for name in ("k-means", "DBSCAN")}
    monkeypatch.setattr(shapes, "METHODS", two_methods)
    x = np.r_[np.arange(40.0), 100 + 2 * np.arange(40.0)][:, None] * np.ones(2)
    truths = np.array([np.repeat([1, 2], 40), np.repeat([1, 0], 40)], np.int16)
    np.savez(tmp_path / "benchmark_suite.npz", **{"lines.X": x.astype(np.float32), "lines.y": truths})
    out = tmp_path / "run.jsonl"
    assert shapes.main(["--data", str(tmp_path), "--only", "lines", "--out", str(out)]) == 0
    (entry,) = map(json.loads, out.read_text().splitlines())
    assert entry["methods"]["DBSCAN"]["ari"] == 1
    assert entry["methods"]["DBSCAN"]["labels_differ"] == 0
    assert entry["methods"]["DBSCAN"]["settings"]["eps"] > 0
    assert "| lines | 80×2 |" in capsys.readouterr().out
    assert shapes.Shape(x, truths[1:]).score(np.r_[np.zeros(40), np.arange(40)]) == 1


def test_failure_of_a_peers_test_needs_a_reason(monkeypatch):
    reason = Reason("cluster/test_optics.py::test_a[*csr_*", REFUSAL, "Not yet.", "Sparse data")
    monkeypatch.setattr(peer_tests, "REASONS", (reason, reason._replace(tests="cluster/test_optics.py::test_gone")))
    outcomes = [
        {
            "test": "test_a[csr_array-1]",
            "outcome": "failed",
            "error": "TypeError: Sparse data was passed",
            "ours": True,
        },
        {"test": "test_a[csr_array-2]", "outcome": "failed", "error": "TypeError: no such key", "ours": True},
        {"test": "test_a[csr_array-3]", "outcome": "passed", "error": "", "ours": True},
        {"test": "test_b", "outcome": "failed", "error": "TypeError: Sparse data was passed", "ours": True},
        {"test": "test_c", "outcome": "passed", "error": "", "ours": False},
        {"test": "test_d", "outcome": "skipped", "error": "", "ours": False},
    ]
    summed = peer_tests.summary("cluster/test_optics.py", outcomes)
    assert [summed[key] for key in ("tests", "passed", "failed", "skipped", "not_ours")] == [4, 1, 3, 1, 1]
    assert [name.rpartition("::")[2] for name in peer_tests.without_reason(summed)] == ["test_a[csr_array-2]", "test_b"]
    stale = peer_tests.stale("cluster/test_optics.py", outcomes)
    assert stale == [
        "cluster/test_optics.py::test_a[csr_array-3]",
        "cluster/test_optics.py::test_gone (no such test)",
    ]


def test_every_reason_is_of_a_file_that_is_run():
    assert len({(reason.tests, reason.error) for reason in REASONS}) == len(REASONS)
    for reason in REASONS:
        assert reason.tests.partition("::")[0] in peer_tests.FILES
        assert reason.category in CATEGORIES
        assert reason.sentence.endswith(".")
        assert reason.error


def test_scikit_learns_tests_run_on_our_classes(capsys):
    arguments = ["--only", "testsupervised", "--tests", "perfect or beta"]
    assert peer_tests.main(arguments) == 0
    assert re.search(r"([1-9]\d*) of \1 pass, 0 fail", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        peer_tests.main(["--only", "no_such_file"])


def test_docs_show_records_of_scikit_learns_tests():
    assert page.PAGE.read_text() == page.page(read(peer_tests.FOLDER))


def test_a_trial_is_right_or_said_so_or_wrong():
    (case,) = [case for case in kinds.offsets() if case.name == "four samples of one column + 1e9"]
    method = methods.METHODS["kmeans"]
    assert kinds.attempt(method, case) == ("right", "")

    class Guess:
        def __init__(self, status):
            self.status_ = status

        def fit(self, x):
            self.labels_ = np.zeros(len(x), int)

    for status, verdict in ((Status.PRECISION, "said"), (Status.CONVERGED, "wrong")):
        guess = method._replace(make=lambda problem, status=status: Guess(status))
        assert kinds.attempt(guess, case) == (verdict, "2 of 4 labels are not the oracle's: 4 for 2/2")
    broken = method._replace(make=lambda problem: None)
    assert kinds.attempt(broken, case)[0] == "wrong"


def test_trials_are_chosen_by_kind_method_and_case(capsys):
    assert trials.main(["--list", "--only", "offset", "--method", "kmeans", "--case", "four*"]) == 0
    listed = capsys.readouterr().out.split("\n")
    assert "offset | kmeans | four samples of one column + 1e9" in listed
    assert trials.main(["--only", "offset", "--method", "kmeans", "--case", "four*"]) == 0
    assert "| offset | 1 | " in capsys.readouterr().out

"""The bench of what goes wrong: what it counts, and when a process was told to stop in time."""

from __future__ import annotations

import signal

import pytest

from bench import reliability
from bench.reliability import Done, Trial


def test_the_table_adds_up():
    table = reliability.markdown({"kills": {"survived": 3, "lost": 1}, "flips": {"named": 2}})
    assert table.splitlines()[2:] == [
        "| kills | 4 | 3 | 0 | 1 | 0 | 0 | 0 |",
        "| flips | 2 | 0 | 2 | 0 | 0 | 0 | 0 |",
        "| **All** | 6 | 3 | 2 | 1 | 0 | 0 | 0 |",
    ]


@pytest.mark.parametrize(
    ("done", "labels", "verdict"),
    [
        (Done(None, ""), None, "hung"),
        (Done(1, "Traceback"), None, "crashed"),
        (Done(-6, ""), None, "crashed"),
        (Done(75, "", 3.0), None, "hung"),
        (Done(0, ""), "0,1", "wrong"),
        (Done(0, ""), "0,0", "survived"),
    ],
)
def test_how_a_kill_is_judged(tmp_path, done, labels, verdict):
    reference, out = tmp_path / "whole", tmp_path / "trial" / "run"
    for folder, text in ((reference, "0,0"), (out, labels)):
        folder.mkdir(parents=True)
        if text is not None:
            (folder / "labels.csv").write_text(text)
    trial = reliability._verdict_of_kill(done, signal.SIGTERM, "kmeans", (), out, reference)
    assert isinstance(trial, Trial)
    assert trial.verdict == verdict


def test_every_kind_has_words():
    assert all(trials.__doc__ for trials in reliability.KINDS.values())


def test_many_shapes_are_measured(tmp_path):
    bench = reliability.Bench(tmp_path, 1, 0, 3, ["dbscan"])
    (trial,) = reliability.many_shapes(bench)
    assert trial.verdict == "survived"
    assert trial.measured["estimator"] == "dbscan"
    assert 0 < trial.measured["maps"] < reliability.MOST_MAPS
    assert 0 < trial.measured["early_bytes"] <= trial.measured["late_bytes"] * reliability.GROWTH

"""The bench of what goes wrong: what it counts, and when a process was told to stop in time."""

from __future__ import annotations

import signal

import pytest

from bench.reliability import __main__ as reliability
from bench.reliability import commands, limits, models, page, shapes
from bench.reliability.trial import Bench, Done, Trial


def test_the_table_adds_up():
    table = page.markdown({"kills": {"survived": 3, "lost": 1}, "flips": {"named": 2}})
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
        (Done(75, "", 900.0), None, "hung"),
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
    trial = commands._verdict_of_kill(done, signal.SIGTERM, "kmeans", (), out, reference)
    assert isinstance(trial, Trial)
    assert trial.verdict == verdict


def test_every_kind_has_words_and_parts():
    assert all(kind.trials.__doc__ and kind.parts for kind in reliability.KINDS.values())
    assert reliability.chosen(["kills:dec", "a service"]) == [("kills", "dec"), ("a service", "predict")]
    for word in ("sheep", "kills:sheep"):
        with pytest.raises(ValueError, match="'sheep' is no "):
            reliability.chosen([word])


def test_many_shapes_are_measured(tmp_path):
    (trial,) = limits.many_shapes(Bench(tmp_path, shapes=3), "dbscan")
    assert trial.verdict == "survived"
    assert (trial.measured["estimator"], trial.measured["shapes"]) == ("dbscan", 3)
    assert 0 < trial.measured["maps"] < limits.MOST_MAPS
    assert 0 < trial.measured["early_bytes"] <= trial.measured["late_bytes"] * limits.GROWTH


def test_changed_models_are_refused_or_whole(tmp_path):
    trials = list(models.hostile_models(Bench(tmp_path, seed=3), "dbscan"))
    assert {trial.verdict for trial in trials} == {"survived", "named"}
    assert len(trials) > models.CHANGES // 2


def test_the_page_has_a_row_of_all_parts():
    made = {"case": "kills", "counts": {"survived": 2}}
    assert page.totals([made | {"data": "kmeans"}, made | {"data": "gmm"}]) == {"kills": {"survived": 4}}
    same = {"provenance": {"quick": False, "platform": "cpu", "device": "a", "cores": 2}}
    whole, part = ({**made, **same, "data": data} for data in ("generated", "kmeans"))
    assert page.latest([whole]) == [whole]
    assert page.latest([whole, part]) == [part]
    measured = {"estimator": "gmm", "shapes": 1000, "maps": 9, "early_bytes": 1e8, "late_bytes": 2e8}
    table = page.shapes_markdown([{"measured": [measured]}])
    assert table.splitlines()[-1] == "| `gmm` | 1,000 | 9 | 0 | 100 MB | 200 MB |"


def test_memory_until_the_first_release():
    climb = [100, 200, 300, 50, 150, 250, 50]
    measured = shapes.summary(climb, climb, 2)
    assert (measured["shapes"], measured["maps"], measured["releases"]) == (7, 300, 2)
    assert (measured["early_maps"], measured["early_bytes"], measured["late_bytes"]) == (300, 300, 250)
    assert shapes.summary([1, 2, 3], [1, 2, 3], 2)["late_bytes"] == 3
    assert shapes.summary([1], [5], 2)["late_bytes"] == 5

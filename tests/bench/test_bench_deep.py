"""The protocol of deep clustering: settings that no class has chosen, one pretraining a seed, runs that go on."""

import json

import numpy as np
import pytest

from bench.deep import __main__ as protocol
from bench.deep import choose, methods, settings
from bench.images import images
from bench.records import read

METHODS = ("autoencoder", "dec", "idec", "dcn")


@pytest.fixture
def small(monkeypatch):
    """Networks and trainings of a moment."""
    monkeypatch.setattr(methods, "WIDTHS", (8, 3))
    monkeypatch.setattr(methods, "LEAST_STEPS", 1)
    monkeypatch.setattr(methods, "STEPS", 2)
    monkeypatch.setattr(methods, "BATCH", 20)
    monkeypatch.setattr(methods, "CLASSES", 3)
    monkeypatch.setattr(methods, "PASSES", {"joint": {"layers": 0, "joint": 2}, "layers": {"layers": 1, "joint": 1}})


def pictures(path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3, dtype=np.uint8), 20)
    x = np.uint8(60 * y[:, None, None] + rng.integers(0, 40, (60, 2, 2)))
    np.savez(path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])


def test_settings_are_chosen_by_agreement_of_seeds(tmp_path, monkeypatch, small):
    pictures(tmp_path / "fashion_mnist.npz")
    data = {"one": images(tmp_path / "fashion_mnist.npz").x}
    changed = {"EPOCHS": 1, "PRETRAINING": ("layers",), "RATED": ("dec",), "sets": lambda folder, rows: data}
    for name, value in changed.items():
        monkeypatch.setattr(choose, name, value)
    out = tmp_path / "settings.json"
    arguments = ["--data", str(tmp_path), "--rows", "60", "--seeds", "5", "6", "--work", str(tmp_path / "work")]
    choose.main([*arguments, "--out", str(out)])
    record, chosen = json.loads(out.read_text()), settings.frozen(out)
    assert (chosen.pretraining, chosen.start) == tuple(
        choose.best(record["starts"])[key] for key in ("pretraining", "start")
    )
    assert chosen.rate == choose.best(record["rates"])["rate"]
    lines = [{"name": name, "sets": {"one": {"agreement": value}}} for name, value in (("worse", 0.3), ("better", 0.9))]
    assert choose.best(lines)["name"] == "better"


def test_the_protocol_is_one_record_a_method_and_seed(tmp_path, small):
    pictures(tmp_path / "tiny.npz")
    arguments = [str(tmp_path / "tiny.npz"), "--seeds", "0", "--epochs", "2", "--work", str(tmp_path / "work")]
    arguments += ["--methods", *METHODS, "--results", str(tmp_path / "results")]
    protocol.main(arguments)
    records = read(tmp_path / "results")
    assert [record["method"] for record in records] == list(METHODS)
    starts = [record["start"]["k-means"] for record in records]
    assert starts == [starts[0]] * len(METHODS), "one pretraining for all"
    assert set(records[0]["start"]) == set(settings.STARTS)
    assert all(0 <= record["accuracy"] <= 1 for record in records)
    protocol.main(arguments)
    assert len(read(tmp_path / "results")) == len(METHODS), "a record that is there is not made again"
    protocol.main([*arguments, "--rows", "60", "--methods", "autoencoder"])
    assert [record["data"] for record in read(tmp_path / "results")][-1] == "tiny-60", "a part is another set"


def test_the_frozen_settings_are_of_the_kinds_tried():
    chosen = settings.frozen()
    assert chosen.pretraining in settings.PRETRAINING
    assert chosen.start in settings.STARTS
    assert chosen.rate in settings.RATES

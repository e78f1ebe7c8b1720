"""Runs and files: whole or not at all, one writer at a time, and a line that says what is wrong with a place."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import K, call, read_labels, refuse, rows_and_species, write_csv

import jaxcluster as jc
from jaxcluster.cli import console
from jaxcluster.cli.errors import UserError
from jaxcluster.cli.output_dir import check_folder, claimed_folder, read_sealed, write_sealed
from jaxcluster.cli.run import find_run
from jaxcluster.cli.training import check_partial, partial_run
from jaxcluster.core import atomic

FIT = ("fit", "kmeans")
SILENT = ("--no-report", "--quiet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with flowers.csv, which names can break a report in, and a run of it that was scaled."""
    folder = tmp_path_factory.mktemp("places")
    rows, species = rows_and_species()
    names = ("$x^{$", "a\x1b[2Jb", "<b>width</b>", "ok")
    kinds = np.array(["$\\frac{", "<i>rose</i>", "\x1b]0;title\x07"])[np.unique(species, return_inverse=True)[1]]
    write_csv(folder / "flowers.csv", dict(zip(names, rows.T, strict=True)) | {"species": kinds})
    run = (*FIT, folder / "flowers.csv", "--k", K, "--truth", "species", "--scale", "standard")
    result = call(*run, "--out", folder / "run")
    assert result.stderr == ""
    assert "\x1b[2J" not in result.stdout
    return folder


def fit(folder, out, *more):
    return (*FIT, folder / "flowers.csv", "--k", K, "--truth", "species", *SILENT, "--out", out, *more)


def test_names_are_drawn_without_commands(folder):
    page = (folder / "run" / "report.html").read_text()
    assert "$x^{$" in page
    assert "\x1b" not in page
    assert "<b>width</b>" not in page


def test_saved_model_scales_new_rows_like_its_run(folder):
    rows, _ = rows_and_species()
    model = jc.load(folder / "run" / "model")
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        found = model.predict(rows)
    np.testing.assert_array_equal(found, read_labels(folder / "run" / "labels.csv"))
    assert list(model.feature_names_in_)[3] == "ok"
    np.testing.assert_allclose(
        model.input_scaling_.undo(model.cluster_centers_).mean(0), rows.mean(0), rtol=0.2, atol=1
    )
    model.fit(rows)
    assert model.input_scaling_ is None


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_of_config_json_is_named(folder, tmp_path, at):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    config = bytearray((run / "config.json").read_bytes())
    config[int(at * len(config))] ^= 4
    (run / "config.json").write_bytes(config)
    for command in (("predict", run, folder / "flowers.csv"), ("report", run)):
        assert re.search(r"config\.json was changed since it was written", refuse(*command))
    call(*fit(folder, run, "--overwrite"))  # it is a run all the same, and can be replaced


def test_a_missing_config_json_is_named(folder, tmp_path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    (run / "config.json").unlink()
    assert "config.json is missing" in refuse("predict", run, folder / "flowers.csv")


@pytest.mark.parametrize("content", ['{"internal": {}}', "{", "", None])
def test_damaged_scores_are_named(folder, tmp_path, content):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    scores = run / "metrics.json"
    scores.unlink() if content is None else scores.write_text(content)
    assert re.search(r"metrics\.json (is missing|was changed).*Fit the run again\.", refuse("report", run))


ALL = ("config.json", "history.jsonl", "labels.csv", "metrics.json", "model/arrays.safetensors", "model/model.json")


@pytest.mark.parametrize("name", ALL)
def test_every_flipped_bit_of_a_run_is_named(folder, tmp_path, name):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    intact = (run / name).read_bytes()
    for at in np.random.default_rng(0).integers(0, 8 * len(intact), 20):
        damaged = bytearray(intact)
        damaged[at // 8] ^= 1 << (at % 8)
        (run / name).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name} was changed since it was written"):
            find_run(run)
    (run / name).write_bytes(intact)
    assert find_run(run).model == run / "model"


@pytest.mark.parametrize("name", ALL)
def test_a_missing_or_short_file_of_a_run_is_named(folder, tmp_path, name):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    intact = (run / name).read_bytes()
    for content in (None, b"", intact[:-1], intact + b"\n"):
        (run / name).unlink() if content is None else (run / name).write_bytes(content)
        message = refuse("predict", run, folder / "flowers.csv")
        assert re.search(rf"{name} (is missing|was changed).*Fit the run again\.", message)
        assert message == refuse("report", run)


def test_damaged_labels_of_a_run_are_not_scored(folder, tmp_path):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    call("score", run / "labels.csv", run / "labels.csv")
    text = (run / "labels.csv").read_text()
    (run / "labels.csv").write_text(text[:-2] + ("1\n" if text[-2] == "0" else "0\n"))
    assert "labels.csv was changed" in refuse("score", run / "labels.csv", folder / "run" / "labels.csv")
    shutil.copy(run / "labels.csv", tmp_path / "mine.csv")
    call("score", tmp_path / "mine.csv", folder / "run" / "labels.csv")  # no run says what these were


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "does not list the files of the run with their SHA-256: an older version"),
        ({"../flowers.csv": {}}, "lists ../flowers.csv, which is outside of the folder"),
        ({"labels.csv": 3}, "labels.csv was changed"),
    ],
)
def test_a_run_whose_files_are_not_listed_is_refused(folder, tmp_path, files, message):
    run = shutil.copytree(folder / "run", tmp_path / "run")
    config = read_sealed(run / "config.json")
    del config["files"]
    write_sealed(run / "config.json", config if files is None else config | {"files": files})
    assert message in refuse("predict", run, folder / "flowers.csv")


def test_failed_report_can_be_drawn_again(folder, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no more ink")

    run = tmp_path / "run"
    words = [word for word in fit(folder, run) if word != "--no-report"]
    with monkeypatch.context() as patch:
        patch.setattr("jaxcluster.report.write_report", fail)
        result = call(*words)
    again = f"jaxcluster report {run}"
    assert result.stderr.startswith(
        "Warning: the results are written, but their report could not be drawn: RuntimeError: no more ink. To try "
        f"again: {again}\n"
    )
    assert (run / "labels.csv").is_file()
    assert not (run / "report.html").exists()
    call(*again.split()[1:])
    assert "<svg" in (run / "report.html").read_text()


def test_a_report_of_other_rows_is_refused(folder, tmp_path):
    data = shutil.copy(folder / "flowers.csv", tmp_path / "flowers.csv")
    call(*FIT, data, "--k", K, "--truth", "species", *SILENT, "--out", tmp_path / "run")
    with open(data, "a") as file:
        file.write("1,2,3,4,new\n")
    assert "flowers.csv has other rows now" in refuse("report", tmp_path / "run")


def test_one_command_at_a_time_writes_to_a_place(folder, tmp_path):
    out = tmp_path / "run"
    with claimed_folder(out, overwrite=False):
        for more in ((), ("--overwrite",)):
            line = refuse(*fit(folder, out, *more))
            assert re.search(rf"run is being written by process {os.getpid()} on .* since ", line), line
        with claimed_folder(tmp_path / "other", overwrite=False):
            pass
    assert not list(tmp_path.iterdir())
    call(*fit(folder, out))


def test_a_lock_whose_file_was_deleted_is_taken_anew(tmp_path):
    first, second, third = (atomic.Lock(tmp_path / "lock") for _ in range(3))
    first.acquire({})
    with pytest.raises(atomic.LockedError):
        second.acquire({})
    first.release()
    second.acquire({})
    with pytest.raises(atomic.LockedError) as error:
        third.acquire({})
    assert error.value.holder["pid"] == os.getpid()


def test_run_set_aside_by_a_killed_command_comes_back(folder, tmp_path):
    beside = tmp_path / ".run.jaxcluster"
    shutil.copytree(folder / "run", beside / "old")
    (beside / "new").mkdir()
    (beside / "lock").write_text("")  # nobody holds it
    assert "the old run is back in its place" in refuse(*fit(folder, tmp_path / "run"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    call("predict", tmp_path / "run", folder / "flowers.csv", "--quiet")


def test_old_run_that_cannot_come_back_is_kept(folder, tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    old = tmp_path / ".run.jaxcluster" / "old"
    shutil.copytree(folder / "run", old)
    with monkeypatch.context() as patch:
        patch.setattr(type(old), "rename", fail)
        refuse(*fit(folder, tmp_path / "run"))
    assert (old / "labels.csv").is_file()
    assert "the old run is back in its place" in refuse(*fit(folder, tmp_path / "run"))


@pytest.mark.parametrize("step", [True, False])
def test_folders_change_places(tmp_path, monkeypatch, step):
    if not step:
        monkeypatch.setattr(atomic, "_exchange", lambda a, b: False)
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    atomic.replace_dir(tmp_path / "new", tmp_path / "place", backup=tmp_path / "old")
    assert {path.name: [inside.name for inside in path.iterdir()] for path in tmp_path.iterdir()} == {
        "place": ["new"],
        "old": ["place"],
    }


def test_names_as_long_as_a_disk_takes_them(folder, tmp_path):
    out = tmp_path / ("r" * 250)
    call(*fit(folder, out))
    call(*fit(folder, out, "--overwrite"))
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]
    assert re.search("cannot be written to: File name too long", refuse(*fit(folder, tmp_path / ("r" * 300))))


def test_a_run_inside_another_is_not_removed(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "run", tmp_path / "run" / "more" / "second")
    assert "holds another run" in refuse(*fit(folder, tmp_path / "run", "--overwrite"))
    assert (tmp_path / "run" / "more" / "second" / "labels.csv").is_file()


def test_places_that_are_none(folder, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be written to" in refuse(*fit(folder, tmp_path / "a" / "run"))
    assert "cannot be written to" in refuse(*fit(folder, tmp_path / "a"))
    assert "is a file. Name a folder" in refuse(*fit(folder, tmp_path / "pipe"))
    labels = ("predict", folder / "run", folder / "flowers.csv", "--out")
    (tmp_path / "pipe.csv").symlink_to(tmp_path / "pipe")
    assert "is a pipe, a socket or a device" in refuse(*labels, tmp_path / "pipe.csv")
    assert "cannot be written to" in refuse(*fit(folder, "/proc/run"))


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
def test_a_message_that_nobody_reads_ends_nothing(error, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(console, "STDERR", console._Stderr(file=SimpleNamespace(write=fail, flush=lambda: None)))
    console.complain("Error", "the disk is full", "red")


def test_a_disk_that_fails_for_settings_is_named(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "fsync", fail)
    named = pytest.raises(UserError, match=r"run\.partial/settings\.json: File too large")
    with named, partial_run(tmp_path / "run", {}, resume=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_current_folder_that_was_removed(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    check_folder(tmp_path / "run", overwrite=False)
    with pytest.raises(UserError, match="the current folder was removed"):
        check_folder(Path("run"), overwrite=False)


def test_a_link_beside_a_place_is_not_cleared(folder, tmp_path):
    (tmp_path / "mine" / "new").mkdir(parents=True)
    (tmp_path / ".run.jaxcluster").symlink_to(tmp_path / "mine")
    assert ".run.jaxcluster is a link" in refuse(*fit(folder, tmp_path / "run"))
    assert (tmp_path / "mine" / "new").is_dir()


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("run.partial")])
def test_checkpoints_whose_folder_is_none(tmp_path, make):
    make(tmp_path / "run.partial")
    with pytest.raises(UserError, match="run.partial is in the way of checkpoints"):
        check_partial(tmp_path / "run", resume=False, overwrite=True)


def test_data_that_are_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.npy"):
        assert "is a pipe, a socket or a device" in refuse(*FIT, tmp_path / name, "--k", 2, "--out", tmp_path / "run")


def test_bytes_of_a_path_that_are_no_text(folder, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(place)
    shutil.copy(folder / "flowers.csv", place)
    data, out = os.path.join(place, "flowers.csv"), os.path.join(place, "run")
    result = call(*FIT, data, "--k", K, "--truth", "species", "--out", out)
    assert r"caf\xe9" in result.stdout
    assert json.loads(Path(out, "config.json").read_bytes())["data"]["data"] == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_while_results_are_written(folder, tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    run = shutil.copytree(folder / "run", tmp_path / "run")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr("jaxcluster.cli.run.write_columns", fail)
    assert os.strerror(number) in refuse(*fit(folder, run, "--overwrite"))
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_disk_without_space_is_seen_before_the_fit(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr("jaxcluster.cluster.kmeans.fit", None)
    assert re.search(
        r"the disk of .* has 0\.0 MB left, and this needs about 4\.2 MB", refuse(*fit(folder, tmp_path / "r"))
    )

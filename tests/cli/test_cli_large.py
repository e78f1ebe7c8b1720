"""Fits of rows that are read block by block: the run is that of the rows in memory."""

from __future__ import annotations

import json
import re
import signal

import numpy as np
import pyarrow as pa
import pytest
from command_line import K, N, assert_same_labels, call, refuse, rows_and_species
from pyarrow import parquet

from jaxcluster.core import chunks, loop_checkpoints, signals, streaming
from jaxcluster.datasets import load


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "rows.npy"
    np.save(path, rows_and_species()[0])
    return path


@pytest.mark.parametrize("words", [("kmeans", "--n-init", 2), ("gmm", "--covariance", "spherical", "--n-init", 1)])
def test_a_streamed_run_is_that_of_rows_in_memory(words, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1 << 10)  # several blocks
    seen = []
    with chunks.watching(seen.append, short=False):
        call("fit", *words, rows, "--k", K, "--stream", "--out", tmp_path / "stream")
    call("fit", *words, rows, "--k", K, "--no-report", "--out", tmp_path / "memory")
    assert_same_labels(tmp_path / "stream" / "labels.csv", tmp_path / "memory" / "labels.csv")
    read = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("stream", "memory")]
    name = "inertia" if words[0] == "kmeans" else "lower_bound"
    history = [json.loads(line) for line in (tmp_path / "stream" / "history.jsonl").read_text().splitlines()]
    assert history[-1]["objective"] == pytest.approx(read[0]["internal"][name], rel=1e-4)
    assert any(progress.objectives[-1] == pytest.approx(history[-1]["objective"]) for progress in seen)
    assert read[0]["clusters"] == read[1]["clusters"] == K
    if words[0] == "gmm":
        return
    # The report reads the rows, and finds them to be those of the run.
    call("report", tmp_path / "stream", "--quiet")
    assert (tmp_path / "stream" / "report.html").exists()


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_a_streamed_run_tells_its_end(method, rows, tmp_path):
    words = ("fit", method, rows, "--k", K, "--stream", "--out")
    ended = call(*words, tmp_path / "ended")
    assert re.match(rf"{K} clusters of \d+ to \d+ rows; converged after \d+ steps; ", ended.stdout)
    result = call(*words, tmp_path / "cut", "--max-iter", 1, "--tol", 0, "--seed", 1)
    assert "converged" not in result.stdout
    assert result.stderr == "Warning: the fit stopped at its limit of steps. Raise --max-iter, or --tol.\n"


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_a_terminated_run_goes_on(stream, rows, tmp_path, monkeypatch):
    for name, value in (("SHORT_WORK", 0), ("FIRST_WORK", 1), ("CHUNK_SECONDS", 0.0)):
        monkeypatch.setattr(chunks, name, value)
    monkeypatch.setattr(loop_checkpoints, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(signals, "_takes_over", lambda: False)  # as in a process with handlers of its own

    def terminate(progress):
        signals.request_stop(signal.SIGTERM)

    words = ("fit", "kmeans", rows, "--k", 9, "--n-init", 2, "--init", "random", "--no-report", *stream)
    call(*words, "--out", tmp_path / "whole")
    words = (*words, "--out", tmp_path / "run")
    try:
        with chunks.watching(terminate):
            result = call(*words, code=75)
    finally:
        signals.clear_request()
    assert f"Terminated: checkpoints are kept in {tmp_path / 'run.partial'}" in result.stderr
    assert "Pass --resume to go on with it" in refuse(*words)
    assert "was begun with n_clusters=9, not 8" in refuse(*words, "--resume", "--k", 8)
    call(*words, "--resume")
    assert_same_labels(tmp_path / "run" / "labels.csv", tmp_path / "whole" / "labels.csv")
    assert not (tmp_path / "run.partial").exists()


def test_more_rows_than_the_limit_are_streamed(rows, tmp_path):
    size = N * 4 * 4
    for most, streamed in (("1KiB", True), (f"{size}", False), ("0.001 MB", True)):
        out = tmp_path / most.replace(" ", "")
        call("fit", "kmeans", rows, "--k", K, "--max-memory", most, "--no-report", "--n-init", 2, "--out", out)
        assert ("processes" in json.loads((out / "config.json").read_text())) == streamed
    assert "is no size" in refuse("fit", "kmeans", rows, "--k", K, "--max-memory", "much", "--out", tmp_path / "a")
    line = refuse("fit", "kmeans", rows, "--k", K, "--stream", "--scale", "standard", "--out", tmp_path / "a")
    assert "--stream takes the rows of .npy and .parquet files as they are: leave out --scale." in line
    assert "needs all rows in memory" in refuse("fit", "dbscan", rows, "--stream", "--out", tmp_path / "a")
    assert "runs in one process" in refuse("fit", "kmodes", rows, "--distributed", "--out", tmp_path / "a")


@pytest.mark.parametrize("size", ["1.2.3", "nan", "-1", "."])
def test_a_limit_that_is_no_size_is_refused(size, rows, tmp_path):
    assert "is no size" in refuse("fit", "kmeans", rows, "--k", K, "--max-memory", size, "--out", tmp_path / "run")


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_runs_of_a_folder_are_drawn_and_predicted(ending, tmp_path):
    x, parts = rows_and_species()[0].astype(np.float32), tmp_path / "parts"
    parts.mkdir()
    for number, part in enumerate((x[: N // 3], x[N // 3 :])):
        if ending == ".npy":
            np.save(parts / f"{number}.npy", part)
        else:
            parquet.write_table(pa.table({f"c{j}": part[:, j] for j in range(x.shape[1])}), parts / f"{number}.parquet")
    call("fit", "kmeans", parts, "--k", K, "--n-init", 1, "--stream", "--out", tmp_path / "run")
    call("report", tmp_path / "run", "--quiet")
    call("profile", tmp_path / "run")
    call("predict", tmp_path / "run", parts, "--out", tmp_path / "labels.csv")
    assert_same_labels(tmp_path / "labels.csv", tmp_path / "run" / "labels.csv")
    np.testing.assert_array_equal(load(str(parts / f"*{ending}")).x, x)

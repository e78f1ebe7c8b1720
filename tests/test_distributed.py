"""Jobs of several processes: the answer of one process, and the end of a job in which one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import call, read_labels
from job_problems import DEEP, PROBLEMS, SAVED, rows, saved_fit, take_small_chunks
from tolerances import assert_near

from jaxcluster import distributed
from jaxcluster.core import chunks, loop_checkpoints
from jaxcluster.sharding import row_mesh

HELPERS = Path(__file__).parent / "helpers"
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(HELPERS), str(Path(__file__).parents[1])])}


def test_two_processes_equal_one_until_one_is_killed(tmp_path, monkeypatch):
    """Two processes of two devices each, with 3 and 298 rows."""
    out = tmp_path / "results.npz"
    command = [sys.executable, str(HELPERS / "part_of_a_job.py"), str(out)]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"  # the last one wins
    with pytest.raises(distributed.LaunchError, match="process 1 of 2 was killed by SIGKILL, so the others were ended"):
        distributed.launch(command, 2, environment=ENVIRONMENT | {"XLA_FLAGS": flags})
    ended = time.time()
    x, weights = rows()
    with np.load(out) as results:
        for problem, fit in PROBLEMS.items():
            single = fit(x, weights, None)
            for name, expected in (single.of_rows | single.of_all).items():
                seen, expected = results[f"{problem} {name}"], np.asarray(expected)
                if expected.dtype.kind in "iu":
                    np.testing.assert_array_equal(seen, expected, f"{problem} {name}")
                else:
                    assert_near(seen, expected, "coordinates")
    assert ended - out.stat().st_mtime < 60
    # This process, with other devices, goes on where the job was cut: after the two or three steps that were saved.
    resumed = DEEP().fit(x, checkpoint_dir=f"{out}.deep", resume=True, callbacks=[_not_called])
    np.testing.assert_array_equal(resumed.labels_, DEEP().fit(x).labels_)
    for module, name in ((chunks, "SHORT_WORK"), (chunks, "FIRST_WORK"), (chunks, "CHUNK_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name))  # to be given back
    monkeypatch.setattr(loop_checkpoints, "LONG_SECONDS", loop_checkpoints.LONG_SECONDS)
    single, seen = SAVED().fit(x), []
    take_small_chunks()
    with saved_fit(f"{out}.steps"), chunks.watching(lambda progress: seen.append(progress.steps)):
        model = SAVED().set_params(mesh=row_mesh()).fit(x)
    assert seen[0] in (3, 4)
    np.testing.assert_array_equal(model.labels_, single.labels_)
    assert model.n_iter_ == single.n_iter_


def _not_called(report):
    raise AssertionError(f"a finished training took epoch {report.record['epoch']}")


JOB = """
from jaxcluster import distributed
if {launches}:
    import sys
    distributed.launch([sys.executable, "-c", sys.argv[1]], 2)
else:
    distributed.initialize(*{address})
    print("joined", distributed.index(), distributed.count(), flush=True)
    import time
    time.sleep(600)
"""


def started(launches, address=(), variables=None):
    inner = JOB.format(launches=False, address=())
    command = [sys.executable, "-c", JOB.format(launches=launches, address=address), inner]
    environment = {**os.environ, **ENVIRONMENT, **(variables or {})}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_job_ends_with_its_launcher():
    """SIGKILL leaves the launcher no time to end the others; the end of its output is that of all of them."""
    with started(launches=True) as launcher:
        assert sorted(launcher.stdout.readline() for _ in range(2)) == ["joined 0 2\n", "joined 1 2\n"]
        launcher.kill()
        assert launcher.stdout.read() == ""


LAUNCHER = """
import sys
from jaxcluster import distributed
from jaxcluster.core import signals
signals.SignalWatcher().start()
distributed.launch([sys.executable, "-c", sys.argv[1]], 2)
"""

SAVING = """
import signal
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: got.append(number))
print("ready", flush=True)
while not got:
    signal.pause()
for _ in range(3 * 10**7):  # saves, for longer than the half second after which a process ends by itself
    pass
print("saved after", *map(int, got), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_reaches_each_once(number):
    """And the launcher waits for what they save; a second signal would break it off."""
    environment = {**os.environ, **ENVIRONMENT}
    command = [sys.executable, "-c", LAUNCHER, SAVING]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=environment, **options) as launcher:
        assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        launcher.send_signal(number)
        assert launcher.stdout.read().splitlines() == [f"saved after {int(number)}"] * 2
        assert launcher.wait() != 0


def test_sigterm_ends_a_process_of_a_job():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with started(launches=False, address=(address, 1, 0)) as process:
        assert process.stdout.readline() == "joined 0 1\n"
        process.terminate()
        assert process.wait() == -signal.SIGTERM


def test_slurms_variables_make_a_job():
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    with (
        started(launches=False, variables={**job, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}) as first,
        started(launches=False, variables={**job, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}) as second,
    ):
        try:
            assert [each.stdout.readline() for each in (first, second)] == ["joined 0 2\n", "joined 1 2\n"]
        finally:
            first.kill()
            second.kill()


def test_eight_devices_equal_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"  # the last one wins
    environment = {**os.environ, **ENVIRONMENT, "XLA_FLAGS": flags}
    command = [sys.executable, str(HELPERS / "eight_devices.py")]
    subprocess.run(command, env=environment, check=True, timeout=300)


def test_launched_fits_write_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    x, _ = rows()
    np.save(tmp_path / "rows.npy", x)
    call("fit", "kmeans", tmp_path / "rows.npy", "--k", 4, "--out", tmp_path / "one", "--no-report", "--n-init", 1)
    call("launch", "--", "fit", "kmeans", tmp_path / "rows.npy", "--k", 4, "--out", tmp_path / "two", "--n-init", 1)
    np.testing.assert_array_equal(*(read_labels(tmp_path / run / "labels.csv") for run in ("one", "two")))
    call("predict", tmp_path / "two", tmp_path / "rows.npy", "--out", tmp_path / "labels.csv")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.csv"), read_labels(tmp_path / "two" / "labels.csv"))


def test_an_error_of_a_launched_fit_is_told_once(tmp_path):
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    words = ["launch", "--", "fit", "kmeans", str(tmp_path / "one.npy"), "--k", "1", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}
    ended = subprocess.run(
        [sys.executable, "-m", "jaxcluster", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("[Gloo]")]
    assert len(lines) == 2, ended.stderr  # without those of XLA
    assert lines[0] == f"Error: {tmp_path / 'one.npy'} has 1 rows for 2 processes. Start fewer of them."
    assert lines[1] == "Error: process 0 of 2 ended with exit code 2, so the others were ended."

"""Jobs of several processes that lose one: how soon they end, and what another job, of any size, has to do again.

As a program it is such a job: ``python -m bench.reliability.jobs FOLDER METHOD PROCESSES``. Its first process writes a
line for each step, and labels.npy in the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.reliability.trial import PATIENCE, Bench, Trial, start

METHODS = ("kmeans", "gmm")
FAULTS = {
    "a process is killed (SIGKILL)": (signal.SIGKILL, False),
    "a process stops (SIGSTOP)": (signal.SIGSTOP, False),
    "the launcher is killed (SIGKILL)": (signal.SIGKILL, True),
}
"""Signals, and whether the launcher gets them or one of its processes."""

ROWS, CLUSTERS, STEPS, SAVED_SECONDS = 200_000, 100, 60, 2.0
"""Size of the fit, its most steps, and the time between two checkpoints."""

LEAST_SAME = 0.995
"""Fraction of the labels that must be those of the undisturbed job: other parts add up in another order."""

END_SECONDS = 30.0
"""Time in which a job has to end after a fault."""


class Job:
    """A job that runs, and the steps that it has said it took.

    Args:
        folder: of its checkpoints and its labels.
        method: of `METHODS`.
        processes: their number.
    """

    def __init__(self, folder: Path, method: str, processes: int) -> None:
        self._begin, self.folder, self.steps, self.first_step = time.perf_counter(), folder, list[int](), 0.0
        self.program = start(folder, method, processes, program=("-m", "bench.reliability.jobs"))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pids(self) -> list[int]:
        """Processes of the job that have begun."""
        return [int(file.read_text()) for file in sorted(self.folder.glob("process-*"))]

    def wait_for(self, steps: int) -> bool:
        """Wait until it has taken so many steps; False if it ends before."""
        while len(self.steps) < steps and self.program.poll() is None:
            time.sleep(0.01)
        return len(self.steps) >= steps

    def end(self, patience: float) -> float | None:
        """Seconds until it has ended; None if it has not, and is killed."""
        begin = time.perf_counter()
        try:
            self.program.wait(patience)
        except subprocess.TimeoutExpired:
            for pid in (*self.pids, self.program.pid):
                os.kill(pid, signal.SIGKILL)
            return None
        self._thread.join()
        return time.perf_counter() - begin

    def _read(self):
        for line in self.program.stdout or ():
            # Not whole lines alone: the communication between processes prints, too.
            for step in re.findall(r"step (\d+);", line):
                self.first_step = self.first_step or time.perf_counter() - self._begin
                self.steps.append(int(step))


def jobs(bench: Bench, method: str) -> Iterator[Trial]:
    """A fault at a random step of a job of two processes; then a job of one to three goes on to the same labels."""
    whole = bench.place()
    if Job(whole, method, 2).end(PATIENCE) is None:
        raise RuntimeError(f"the undisturbed job of {method} did not end.")
    reference = np.load(whole / "labels.npy")
    for fault, (number, of_launcher) in FAULTS.items():
        for _ in range(bench.repeats):
            yield _trial(bench, method, fault, number, of_launcher, reference)


def _trial(bench, method, fault, number, of_launcher, reference):
    folder, processes = bench.place(), bench.random.randint(1, 3)
    job = Job(folder, method, 2)
    if not job.wait_for(bench.random.randint(10, STEPS - 15)):
        return Trial("lost", f"{method}: the job ended by itself, {job.program.communicate()[1][-300:]!r}")
    os.kill(job.program.pid if of_launcher else job.pids[bench.random.randrange(2)], number)
    ended = job.end(2 * END_SECONDS)
    if ended is None or ended > END_SECONDS:
        return Trial("hung", f"{method}, {fault}: {ended} s")
    again = Job(folder, method, processes)
    if again.end(PATIENCE) is None:
        return Trial("hung", f"{method}, {fault}: the job that goes on")
    if again.program.returncode:
        return Trial("crashed", f"{method}, {fault}: {again.program.stderr and again.program.stderr.read()[-300:]!r}")
    if (same := float((np.load(folder / "labels.npy") == reference).mean())) < LEAST_SAME:
        return Trial("wrong", f"{method}, {fault}: {1 - same:.3%} of the labels are others by {processes} processes")
    measured = {"method": method, "fault": fault, "processes": processes, "end_seconds": round(ended, 2)}
    measured |= {"steps_lost": job.steps[-1] + 1 - again.steps[0], "go_on_seconds": round(again.first_step, 2)}
    return Trial("survived", "", measured)


def main(arguments: Sequence[str]) -> None:
    """Launch the job, or be one of its processes."""
    from jaxcluster import distributed

    folder, method, processes = arguments
    if distributed.ADDRESS not in os.environ:
        distributed.launch([sys.executable, "-m", "bench.reliability.jobs", *arguments], int(processes))
        return
    distributed.initialize()
    (Path(folder) / f"process-{distributed.index()}").write_text(str(os.getpid()))
    _fit(Path(folder), method)


def _fit(folder, method):
    import jaxcluster as jc
    from jaxcluster import distributed
    from jaxcluster.core import chunks

    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(CLUSTERS, 16))
    x = (centers[rng.integers(0, CLUSTERS, ROWS)] + rng.normal(size=(ROWS, 16))).astype(np.float32)
    # Unequal parts: the first process has half as many rows as another.
    shares = np.cumsum([1, *[2] * (distributed.count() - 1)])
    cuts = [0, *(ROWS * shares // shares[-1])]
    mine = x[cuts[distributed.index()] : cuts[distributed.index() + 1]]
    options = {"random_state": 0, "tol": 0, "max_iter": STEPS, "mesh": jc.sharding.row_mesh()}
    kmeans = method == "kmeans"
    model = jc.KMeans(2 * CLUSTERS, init="random", **options) if kmeans else jc.GaussianMixture(9, **options)
    seen = partial(_say, first=distributed.is_first())
    with jc.checkpoint.resumable(folder / "steps", every_seconds=SAVED_SECONDS), chunks.watching(seen):
        labels = distributed.gather_rows(model.fit(mine).labels_)
    if distributed.is_first():
        np.save(folder / "labels.npy", labels)


def _say(progress, *, first):
    if first:
        for step in range(progress.steps - len(progress.objectives) + 1, progress.steps + 1):
            print(f"step {step};", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

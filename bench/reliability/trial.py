"""Trials: their outcomes, the commands that are disturbed, and processes that are waited for."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.provenance import ROOT

VERDICTS = ("survived", "named", "lost", "wrong", "crashed", "hung")
BAD = VERDICTS[2:]

NOTICE = 2.0
"""Seconds in which a process has to end that was told to."""

PATIENCE = 300.0
"""Seconds after which a process is taken for hung."""

STOPPED = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}

FITS = {
    "kmeans": ("fit", "kmeans", "digits", "--k", "10"),
    "gmm": ("fit", "gmm", "digits", "--k", "10", "--covariance", "diag"),
    "dec": ("fit", "dec", "digits", "--k", "10", "--hidden", "64", "--pretrain-epochs", "40", "--epochs", "30"),
    "swav": ("fit", "swav", "digits", "--k", "10", "--epochs", "20"),
    "sweep": ("sweep", "digits", "--k", "2:6"),
}
"""Commands that are disturbed: two of a few seconds, two trainings with checkpoints, and a sweep."""

CHECKPOINTED = ("dec", "swav")

RESULTS = {"sweep": "sweep.csv"}
"""File with the results of a command, where it is not labels.csv."""


class Trial(NamedTuple):
    """The outcome of a trial: a word of `VERDICTS`, a description, and measurements by name."""

    verdict: str
    details: str = ""
    measured: dict[str, Any] | None = None


class Kind(NamedTuple):
    """A kind of trials.

    Attributes:
        trials: (bench, part) -> trials.
        parts: what it is divided into, such as commands; each is recorded by itself.
    """

    trials: Callable[[Bench, str], Iterator[Trial]]
    parts: tuple[str, ...]


class Done(NamedTuple):
    """A process that ended: its exit code (None if it was hung), its words, and how long it took after its signal."""

    code: int | None
    stderr: str
    seconds: float = 0.0
    stdout: str = ""


class Bench:
    """A folder for trials, and the undisturbed runs that they are compared with.

    Args:
        folder: an empty one.
        repeats: trials of each kind and command.
        seed: of the moments and bits.
        shapes: distinct shapes in one process.
        requests: requests to the service.
        minutes: most minutes of the shapes of an estimator.
    """

    def __init__(
        self,
        folder: Path,
        repeats: int = 1,
        seed: int = 0,
        shapes: int = 1000,
        requests: int = 1_000_000,
        minutes: float = 60.0,
    ) -> None:
        self.folder, self.repeats, self.shapes, self.requests = folder, repeats, shapes, requests
        self.minutes, self.random = minutes, random.Random(seed)
        self._references: dict[str, tuple[Path, float]] = {}
        self._count = 0

    def place(self) -> Path:
        """A new folder."""
        self._count += 1
        place = self.folder / f"trial-{self._count}"
        place.mkdir()
        return place

    def reference(self, name: str) -> tuple[Path, float]:
        """Run a command without disturbance; the run is kept for later calls.

        Returns:
            The folder of the run, and the seconds that it took.
        """
        if name not in self._references:
            out = self.folder / f"whole-{name}"
            for _ in range(2):  # the second finds compiled programs
                begin = time.perf_counter()
                done = run(*FITS[name], "--out", out, "--overwrite", "--quiet")
                if done.code != 0:
                    raise RuntimeError(f"the undisturbed run of {name} failed: {done.stderr}")
            self._references[name] = out, time.perf_counter() - begin
        return self._references[name]


def start(*words: Any, program: Sequence[str] = ("-m", "jaxcluster"), **options: Any) -> subprocess.Popen:
    """A command in a process of its own."""
    command = [sys.executable, *program, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "true"}
    options["env"] = environment | options.get("env", {})
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait(process: subprocess.Popen, patience: float = PATIENCE) -> Done:
    """Wait for a process to end; kill it if it takes longer than ``patience`` seconds."""
    begin = time.perf_counter()
    try:
        stdout, stderr = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return Done(None, process.communicate()[1])
    return Done(process.returncode, stderr, time.perf_counter() - begin, stdout)


def crowd() -> float:
    """Processes that wait for each core, at least 1: one that waits for its turn on a machine of many is not late."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def follow(*words: Any, patience: float = PATIENCE, **options: Any) -> Done:
    """A command from its beginning to its end, whose lines on stderr are also shown here."""
    process = start(*words, **options)
    source, process.stderr, lines = process.stderr, None, []

    def show() -> None:
        for line in source or ():
            lines.append(line)
            print(line, end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    done = wait(process, patience)
    thread.join()
    return done._replace(stderr="".join(lines))


def run(*words: Any, patience: float = PATIENCE, **options: Any) -> Done:
    """A command from its beginning to its end."""
    return wait(start(*words, **options), patience)


def results(run_folder: Path, name: str = "") -> str | None:
    """The labels or scores of a run as they were written; None where there are none."""
    file = run_folder / RESULTS.get(name, "labels.csv")
    return file.read_text() if file.is_file() else None


def one_line(done: Done) -> bool:
    """True if a command ended with one line that names the error."""
    return done.code == 2 and bool(re.search(r"^Error: .+", done.stderr, re.MULTILINE))

"""Blocks of rows for a job of Ray, whose workers import this file; one of them is killed in the fit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from job_problems import CUT, rows, take_small_chunks

import jaxcluster as jc
from jaxcluster import distributed
from jaxcluster.core import chunks


class Blocks(NamedTuple):
    """Two blocks of unequal size; the second worker that reads them kills itself after three steps of its fit.

    Attributes:
        seen: a file with the steps of the first worker.
        killed: a file that says that it has happened.
        driver: the process that starts the job, which lives on.
    """

    seen: Path
    killed: Path
    driver: int

    def __call__(self) -> Iterator[np.ndarray]:
        """The blocks; a worker that reads them takes small chunks from then on."""
        x, _ = rows()
        yield x[:CUT]
        if os.getpid() != self.driver and not any(short for _, short in chunks._observers):
            take_small_chunks()
            jc.ray.CHECKPOINT_SECONDS = 0.0
            chunks._observers.append((self._observe, True))
        yield x[CUT:]

    def _observe(self, progress: chunks.Progress) -> None:
        if distributed.is_first():
            with self.seen.open("a") as file:
                file.write(f"{progress.steps}\n")
        elif progress.steps == 3 and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

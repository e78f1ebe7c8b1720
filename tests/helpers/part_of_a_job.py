"""A process of a job of two, each with its part of the rows: the first writes the results, the second is killed.

It is killed within a fit that is saved, whose checkpoints are left beside the results.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from job_problems import CUT, DEEP, PROBLEMS, SAVED, rows, saved_fit, take_small_chunks

from jaxcluster import distributed
from jaxcluster.core import chunks
from jaxcluster.sharding import row_mesh


def main(out: str) -> None:
    """Fit the rows of this process by every method, and write the results of all rows to ``out``."""
    distributed.initialize(expected=2)
    x, weights = rows()
    mine = slice(0, CUT) if distributed.is_first() else slice(CUT, None)
    written = {}
    for problem, fit in PROBLEMS.items():
        results = fit(x[mine], weights[mine], row_mesh())
        written |= {f"{problem} {name}": distributed.gather_rows(each) for name, each in results.of_rows.items()}
        written |= {f"{problem} {name}": each for name, each in results.of_all.items()}
    if distributed.is_first():
        np.savez(out, **written)
    distributed.gather(0)  # the results are written
    DEEP(mesh=row_mesh()).fit(x[mine], checkpoint_dir=f"{out}.deep")
    take_small_chunks()
    with saved_fit(f"{out}.steps"), chunks.watching(_killed_after_three_steps):
        SAVED().set_params(mesh=row_mesh()).fit(x[mine])


def _killed_after_three_steps(progress: chunks.Progress) -> None:
    if progress.steps == 3 and not distributed.is_first():
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])

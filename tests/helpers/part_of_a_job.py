"""A process of a job of two, each with its part of the rows: the first writes the results, the second is killed."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from job_problems import CUT, MODELS, rows

from jaxcluster import distributed
from jaxcluster.sharding import row_mesh


def main(out: str) -> None:
    """Fit both models to the rows of this process, and write the labels of all rows to ``out``."""
    distributed.initialize(expected=2)
    x, weights = rows()
    mine = slice(0, CUT) if distributed.is_first() else slice(CUT, None)
    results = {}
    for name, make in MODELS.items():
        weight = weights[mine] if name == "gmm" else None
        model = make(mesh=row_mesh()).fit(x[mine], sample_weight=weight)
        results[name] = distributed.gather_rows(model.labels_)
        results[f"{name}_means"] = getattr(model, "cluster_centers_", getattr(model, "means_", None))
    if distributed.is_first():
        np.savez(out, **results)
    distributed.gather(0)  # the results are written
    if not distributed.is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.gather(0)  # the first one waits for the second, which is no more


if __name__ == "__main__":
    main(sys.argv[1])

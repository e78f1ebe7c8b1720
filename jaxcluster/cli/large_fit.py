"""Fits of rows that one process does not hold: read block by block, or spread over the processes of a job."""

from __future__ import annotations

import hashlib
import re
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcluster.cli import run as runs
from jaxcluster.cli import runtime
from jaxcluster.cli.errors import UserError, user_errors
from jaxcluster.cli.output_dir import check_space, claimed_folder, write_config, write_sealed
from jaxcluster.cli.training import check_partial, partial_folder, partial_run

if TYPE_CHECKING:
    import numpy as np

    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.fit_pipeline import FitTask
    from jaxcluster.core.sources import RowSource

BLOCK_ROWS = 1 << 16
"""Rows that are read at a time, besides the blocks of a fit."""

PLAIN = {"columns", "data", "dates"}
"""Fields of `jaxcluster.cli.inputs.Source` that these fits take."""

UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
"""Bytes by the prefix of a unit."""


def bytes_of(text: str) -> int:
    """A size in bytes.

    >>> bytes_of("900MiB"), bytes_of("2 GB"), bytes_of("1e6")
    (943718400, 2000000000, 1000000)
    """
    found = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if found is None:
        raise UserError(f"--max-memory {text} is no size. Pass one such as 900MiB or 4GB.")
    return int(float(found[1]) * UNITS[found[2] or ""])


def exceeds(data: str, columns: str | None, most: str | None) -> bool:
    """True for rows in files that take more bytes in memory than ``most``, the option --max-memory."""
    if most is None:
        return False
    from jaxcluster.datasets.files import ROW_FILES

    size = bytes_of(most)
    path = Path(data)
    if path.suffix not in ROW_FILES and not path.is_dir() and not any(sign in data for sign in "*?["):
        return False
    source = _scan(data, columns)
    return source.shape[0] * source.shape[1] * source.dtype.itemsize > size


def check_plain(task: FitTask, how: str) -> None:
    """Raise UserError for options that need all rows in one process.

    Args:
        task: the fit.
        how: the reason for which it has not, as an option.
    """
    from jaxcluster.cli.inputs import Source

    defaults = Source("")._asdict()
    given = [name for name, value in task.source._asdict().items() if name not in PLAIN and value != defaults[name]]
    given += ["scale"] if task.scale != "none" else []
    if given:
        names = ", ".join("--" + {"row_id": "id"}.get(name, name).replace("_", "-") for name in given)
        raise UserError(f"{how} takes the rows of .npy and .parquet files as they are: leave out {names}.")


def run_large_fit(task: FitTask, *, job: bool, quiet: bool) -> None:
    """Fit, write the run and say so: in a job the first process alone, with the labels of all.

    Args:
        task: the fit; its report is left out.
        job: the rows are spread over the processes of a job, else they are read block by block.
        quiet: print nothing but warnings and errors.
    """
    from jaxcluster import distributed
    from jaxcluster.cli import console
    from jaxcluster.cli.summary import clusters_in_words, ending_in_words, warn_of_ending

    first = not job or distributed.is_first()
    quiet = quiet or not first
    if first:
        check_partial(task.out, resume=task.resume, overwrite=task.overwrite)
    place = claimed_folder(task.out, overwrite=task.overwrite) if first else nullcontext()
    with place as claim, console.stages(quiet) as stage:
        with stage("read", f"Reading {task.source.data}"), user_errors():
            source = _scan(task.source.data, task.source.columns)
        if claim is not None:
            check_space(claim, source.shape[0] * 16)
        # The first process writes the checkpoints, and the others have none of their own.
        resume, others = task.resume, nullcontext(partial_folder(task.out))
        keep = partial_run(task.out, _settings(task, source), resume=resume) if first else others
        with keep as checkpoints:
            labels, warned = _fit(stage, task, source, checkpoints, job=job)
            if claim is not None:
                with claim.folder() as folder, stage("write", "Writing"), user_errors():
                    scores = _write(folder, task, source, labels, stage)
    if job:
        distributed.gather(0)  # the others wait for the run to be written, for as long as that takes
    if first:
        printer = console.stdout(quiet)
        ended = f"{clusters_in_words(labels)}{ending_in_words(task.estimator)}"
        console.say(printer, f"{'; '.join(filter(None, [ended, _in_words(scores)]))}.")
        console.say(printer, f"Written to {task.out}: model, labels.csv, metrics.json, config.json.")
        warn_of_ending(task.estimator, warned=warned)


def _scan(data: str, columns: str | None) -> RowSource:
    from jaxcluster.datasets import scan

    with user_errors():
        return scan(data, columns=columns)


def _settings(task: FitTask, source: RowSource) -> dict[str, Any]:
    """Entries that a resumed run must have too; the digest of the rows is the one that reads few of them."""
    parameters = {name: runs.as_json(value) for name, value in task.estimator.get_params().items() if name != "mesh"}
    data = {"name": source.name, "sha256": source.fingerprint()}
    return {"algorithm": task.method, "parameters": parameters, "data": data, "scaling": "none"}


def _fit(stage: Stages, task: FitTask, source: RowSource, checkpoints: Path, *, job: bool) -> tuple[np.ndarray, bool]:
    """Fit the estimator: to the source, or in a job to the rows of this process.

    Returns:
        Labels of all rows, and True if the estimator has warned of how the fit ended.
    """
    import numpy as np

    from jaxcluster import distributed, sharding
    from jaxcluster.cli.fit_pipeline import convergence_warnings, show_steps
    from jaxcluster.core import chunks
    from jaxcluster.core.loop_checkpoints import resumable

    title = f"Fitting {task.method} to {source.shape[0]:,} rows"
    watch = chunks.watching(partial(show_steps, stage, title, task.estimator.info.objective), short=False)
    with stage("fit", title), user_errors(), convergence_warnings() as warned, watch, resumable(checkpoints):
        if not job:
            return task.estimator.fit(source).labels_, bool(warned)
        count = distributed.count()
        if source.shape[0] < count:
            raise UserError(f"{source.name} has {source.shape[0]} rows for {count} processes. Start fewer of them.")
        part = np.concatenate(list(source.part(distributed.index(), count).blocks(BLOCK_ROWS)))
        task.estimator.set_params(mesh=sharding.row_mesh())
        labels = distributed.gather_rows(task.estimator.fit(part).labels_)
        return labels, bool(warned)


def _write(folder: Path, task: FitTask, source: RowSource, labels: Any, stage: Stages) -> dict[str, float]:
    """Write the run; the scores that the fit has computed."""
    import numpy as np

    from jaxcluster import distributed

    estimator = task.estimator
    scores = {name.rstrip("_"): float(getattr(estimator, name)) for name in estimator.info.reported}
    estimator.save(folder / runs.MODEL)
    runs.write_columns(folder / runs.LABELS, {"row": np.arange(len(labels)), "label": labels})
    if hasattr(estimator, "history_"):
        runs.write_history(folder / runs.HISTORY, estimator.history_)
    clusters, noise = runs.clusters_and_noise(labels)
    found = {"clusters": len(clusters), "noise_rows": noise}
    internal = {name: runs.finite(value) for name, value in scores.items()}
    write_sealed(folder / runs.METRICS, found | {"internal": internal, "external": None, "silhouette_rows": 0})
    config = {
        "command": runs.command_line(),
        "algorithm": task.method,
        "parameters": {name: runs.as_json(value) for name, value in estimator.get_params().items() if name != "mesh"},
        "data": _describe(task, source),
        "scaling": {"how": "none", "shift": None, "factor": None},
        "versions": runtime.versions(),
        "device": runtime.device(),
        "processes": distributed.count(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": dict(stage.seconds),
    }
    write_config(folder, config)
    return scores


def _describe(task: FitTask, source: RowSource) -> dict[str, Any]:
    """The entry of `jaxcluster.cli.inputs.describe`, its checksum from one pass over the rows."""
    import numpy as np

    digest = hashlib.sha256()
    for block in source.blocks(BLOCK_ROWS):
        digest.update(np.ascontiguousarray(block).data)
    n, d = source.shape
    columns = None if source.columns is None else list(source.columns)
    shape = {"rows": n, "width": d, "column_names": columns, "sha256": digest.hexdigest()}
    return {**task.source._asdict(), "name": source.name, **shape}


def _in_words(scores: dict[str, float]) -> str:
    shown = (f"{name.replace('_', ' ')} {value:.6g}" for name, value in scores.items() if name != "n_iter")
    return ", ".join(shown)

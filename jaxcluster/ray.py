"""Fits by Ray (extra ``ray``): it starts the processes of a job on its cluster, watches them, and starts them again.

Each process is a worker of Ray's ``JaxTrainer``, one a node, with its part of the rows. Ray is imported by the first
fit. With ``rows`` an array, a path or a ``ray.data.Dataset``:

.. code-block:: python

    import jaxcluster as jc

    model = jc.ray.fit(jc.KMeans(10, random_state=0), rows, workers=4, use_gpu=True, storage="s3://bucket/runs")
    labels = dataset.map_batches(lambda batch: {"label": model.predict(batch["data"])})
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcluster import checkpoint, datasets, distributed, sharding
from jaxcluster.core import validation
from jaxcluster.core.sources import ArraySource
from jaxcluster.estimators import ESTIMATORS, load
from jaxcluster.estimators.registry import one_process_error

__all__ = ["fit", "launch"]

BLOCK_ROWS = 1 << 16
"""Rows that are read at a time."""

MODEL, STEPS = "model", "steps"
"""Folders of a checkpoint of Ray: the fitted model, and the checkpoints of a fit that has not ended."""

CHECKPOINT_SECONDS = 60.0
"""Least time between two checkpoints of a fit that is not of epochs."""


def __dir__() -> list[str]:
    return __all__


class _Job(NamedTuple):
    """Workers of a job, and what they run on.

    Attributes:
        workers: their number; None for one on each node.
        use_gpu: each has all GPUs of its node, else it computes on the CPU.
        storage: folder or URI that all nodes share; None on a single machine.
        max_failures: restarts of the whole group.
        environment: variables of the workers.
    """

    workers: int | None
    use_gpu: bool
    storage: str | os.PathLike | None
    max_failures: int
    environment: Mapping[str, str]


def fit(
    estimator: Any,
    rows: Any,
    *,
    workers: int | None = None,
    use_gpu: bool = False,
    storage: str | os.PathLike | None = None,
    max_failures: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Fit an estimator by the workers of a Ray cluster; the answer is that of one process with all rows.

    The job runs on the cluster of ``ray.init`` or RAY_ADDRESS, and on this machine where there is none.

    A worker that is lost ends the others, and the group starts again up to ``max_failures`` times. The fit goes on from
    its newest checkpoint, which is reported to Ray every minute: k-means and mixtures, with one worker all methods of
    `jaxcluster.checkpoint.resumable`, given an integer as ``random_state``, and deep methods, whose checkpoints are
    those of their epochs. Other fits begin again.

    Args:
        estimator: not fitted; it is left as it is. For more than one worker its method must take several processes,
            ``takes_processes`` in `jaxcluster.estimators.ESTIMATORS`. Its ``mesh`` is replaced by one over all devices.
        rows: (n_samples, n_features) array, or what `jaxcluster.datasets.scan` takes: files must be there on each node.
            Or a ``ray.data.Dataset`` of columns of numbers, which is computed once and kept by Ray until the end.
        workers: their number, one process each; None for one on each node, or on each node with GPUs.
        use_gpu: give each worker all GPUs of its node, else the CPU.
        storage: folder or URI, such as "s3://bucket/runs", for checkpoints, which all nodes share. None for a temporary
            folder, on a cluster of one node.
        max_failures: most restarts, after an error of a worker as after its loss; -1 for any number.
        environment: variables of the workers, such as XLA_FLAGS.

    Returns:
        A fitted estimator of the same class. Its ``labels_`` are those of all rows, in their order.

    Raises:
        ImportError: Ray is not installed.
        ValueError, TypeError: arguments or rows that cannot be fitted, also where a worker has found it.
        LaunchError: a worker ended otherwise, or the cluster has not what was asked for.
    """
    job = _checked(workers, use_gpu, storage, max_failures, environment)
    info = ESTIMATORS.info(_name(estimator))
    count = job.workers
    if count != 1 and not info.takes_processes:
        raise one_process_error(info, "pass workers=1")
    given = {"mesh": None} if info.takes_mesh else {}
    estimator = type(estimator)(**{**estimator.get_params(deep=False), **given})
    with _cluster() as ray, _storage(ray, job) as folder:
        count = count or _nodes(ray, job)
        config = {"estimator": estimator, "rows": _parts(ray, rows, count)}
        result = _run(_fit_part, config, job, count, folder)
        with result.checkpoint.as_directory() as place:
            return load(Path(place) / MODEL)


def launch(
    command: Sequence[str],
    workers: int | None = None,
    *,
    use_gpu: bool = False,
    max_failures: int = 0,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command of the command line as one job of Ray's workers; what the first one prints is printed at the end.

    Args:
        command: words after ``jaxcluster``, such as ``["fit", "kmeans", "rows.npy", "--k", "3", "--out", "run"]``. Its
            files are found from the folder of this process, on each node.
        workers, use_gpu, max_failures, environment: as in `fit`. A job that starts again begins again.

    Raises:
        ImportError: Ray is not installed.
        LaunchError: the command failed, with its own message, or a worker was lost.
    """
    job = _checked(workers, use_gpu, None, max_failures, environment)
    with _cluster() as ray, tempfile.TemporaryDirectory(prefix="jaxcluster-ray-") as folder:
        config = {"command": list(command), "folder": os.getcwd()}
        printed = _run(_run_command, config, job, job.workers or _nodes(ray, job), folder).return_value
    for stream, text in zip((sys.stdout, sys.stderr), printed, strict=True):
        stream.write(text)


def _checked(workers, use_gpu, storage, max_failures, environment) -> _Job:
    workers = None if workers is None else validation.check_count("workers", workers)
    if isinstance(max_failures, bool) or not isinstance(max_failures, int) or max_failures < -1:
        raise ValueError(f"max_failures={max_failures!r} must be a number of restarts, or -1 for any number.")
    return _Job(workers, bool(use_gpu), storage, max_failures, dict(environment or {}))


def _name(estimator: Any) -> str:
    """The registered name of an estimator."""
    name = ESTIMATORS.name_of(estimator)
    if name is None:
        raise TypeError(f"estimator={type(estimator).__name__} is not one of this package: {', '.join(ESTIMATORS)}.")
    return name


def _imported() -> Any:
    """The module of Ray, with its submodules; type checkers would take this file for it.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        for name in ("ray.data", "ray.train", "ray.train.v2.jax.config"):
            importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Ray Train and Ray Data are needed: pip install 'jaxcluster[ray]' ({error}).") from error
    return sys.modules["ray"]


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """The module of Ray, connected to the caller's cluster, or to one of this machine for the time of the job."""
    ray = _imported()
    connected = ray.is_initialized()
    if not connected:
        # The workers' errors are those of the driver, and need not be printed twice.
        ray.init(log_to_driver=False, logging_level="warning")
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _alive(ray) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def _storage(ray, job) -> Iterator[str]:
    """The caller's storage, or a folder for the time of the job."""
    if job.storage is not None:
        yield str(job.storage) if "://" in str(job.storage) else os.path.abspath(job.storage)
        return
    if (count := len(_alive(ray))) > 1:
        raise ValueError(f"storage= must be a folder or a URI that all {count} nodes of the cluster share.")
    with tempfile.TemporaryDirectory(prefix="jaxcluster-ray-") as folder:
        yield folder


def _nodes(ray, job) -> int:
    """Number of nodes for a worker each."""
    nodes = _alive(ray)
    return max(1, sum(_gpus(node) > 0 for node in nodes) if job.use_gpu else len(nodes))


def _gpus(node) -> int:
    return int(node["Resources"].get("GPU", 0))


def _resources(ray, job, count) -> dict[str, int]:
    """Resources of each worker: all GPUs of a node, as JaxTrainer counts those of each worker from 0.

    Raises:
        LaunchError: the cluster has not that many, and Ray would wait for more without an end.
    """
    if not job.use_gpu:
        cpus = int(sum(node["Resources"].get("CPU", 0) for node in _alive(ray)))
        if cpus < count:
            raise distributed.LaunchError(f"the cluster has {cpus} CPUs for {count} workers, and each has one.")
        return {"CPU": 1}
    counts = sorted((n for node in _alive(ray) if (n := _gpus(node))), reverse=True)
    if len(counts) < count:
        raise distributed.LaunchError(
            f"the cluster has {len(counts)} nodes with GPUs for {count} workers: each worker has all GPUs of a node."
        )
    return {"CPU": 1, "GPU": counts[count - 1]}


def _parts(ray, rows, count) -> list[Any]:
    """Parts of the workers: references to arrays or sources, or parts of a data set."""
    if isinstance(rows, ray.data.Dataset):
        return _parts_of_dataset(ray, rows, count)
    if isinstance(rows, (str, os.PathLike)):
        rows = os.path.abspath(rows)  # the workers have another working directory
    elif isinstance(rows, Sequence) and all(isinstance(each, (str, os.PathLike)) for each in rows):
        rows = [os.path.abspath(each) for each in rows]
    elif hasattr(rows, "__array__"):
        rows = np.asarray(rows)
    source = datasets.scan(rows)
    _check_rows(source.shape[0], count)
    parts = [source.part(index, count) for index in range(count)]
    if isinstance(source, ArraySource):  # each node gets the rows of its worker alone
        return [ray.put(source.x[part.start : part.start + len(part)]) for part in parts]
    return [ray.put(part) for part in parts]


def _check_rows(n, count):
    if n < count:
        raise ValueError(f"{n} rows are too few for {count} workers. Start fewer of them.")


def _parts_of_dataset(ray, rows, count):
    """Parts of nearly equal size, in the order of the rows: the same ones after a restart."""
    options = rows.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        whole = rows.materialize()
    finally:
        options.preserve_order = before
    n = whole.count()
    _check_rows(n, count)
    cuts = [index * n // count for index in range(1, count)]
    return whole.split_at_indices(cuts) if cuts else [whole]


def _run(work, config, job, count, folder) -> Any:
    """Result of the workers, each of which calls ``work(config)``."""
    ray = _imported()
    train, jax_train = ray.train, ray.train.v2.jax
    platform = {} if job.use_gpu else {"JAX_PLATFORMS": "cpu"}
    trainer = jax_train.JaxTrainer(
        work,
        train_loop_config=config,
        jax_config=jax_train.config.JaxConfig(use_gpu=True),  # without it there is no job at all, on CPUs neither
        scaling_config=train.ScalingConfig(
            num_workers=count,
            use_gpu=job.use_gpu,
            resources_per_worker=_resources(ray, job, count),
            placement_strategy="STRICT_SPREAD" if job.use_gpu else "SPREAD",
        ),
        run_config=train.RunConfig(
            name=f"jaxcluster-{secrets.token_hex(4)}",
            storage_path=folder,
            failure_config=train.FailureConfig(max_failures=job.max_failures),
            checkpoint_config=train.CheckpointConfig(num_to_keep=2),
            # An error of a worker is raised by this function: Ray's log has its traces of every worker besides.
            logging_config=train.LoggingConfig(log_level="CRITICAL"),
            worker_runtime_env={"env_vars": {**platform, **job.environment}},
        ),
    )
    try:
        return trainer.fit()
    except train.TrainingFailedError as error:
        raise _cause(error, count) from None


def _cause(error: Any, count: int) -> Exception:
    """The error of a worker in the library's words; that of a user's rows or arguments before any other."""
    failures = {rank: getattr(each, "_base_exc", each) for rank, each in getattr(error, "worker_failures", {}).items()}
    ours = (ValueError, TypeError, MemoryError, distributed.LaunchError)
    # The others of a worker that is lost may fail too, as they miss it: Ray's own errors say which one was lost.
    for kind in (ours, _imported().exceptions.RayError, Exception):
        for rank, each in sorted(failures.items()):
            if isinstance(each, ours):
                return each
            if isinstance(each, kind):
                text = next((line for line in str(each).splitlines() if line.strip()), "")
                return distributed.LaunchError(f"worker {rank} of {count} failed: {type(each).__name__}: {text}")
    lines = str(getattr(error, "controller_failure", error)).splitlines()
    return distributed.LaunchError(f"Ray could not run the workers: {lines[0] if lines else type(error).__name__}")


def _fit_part(config: dict[str, Any]) -> None:
    """Fit the rows of this worker, and report the model as a checkpoint of Ray."""
    estimator, part = config["estimator"], _read(config["rows"][distributed.index()])
    info = ESTIMATORS.info(_name(estimator))
    spread = info.takes_mesh and jax.device_count() > 1
    if spread:
        estimator.set_params(mesh=sharding.row_mesh())
    model = _fit_saved(estimator, part)
    if distributed.count() > 1:
        model.labels_ = distributed.gather_rows(model.labels_)
    if spread:
        model.set_params(mesh=None)
    scores = {name: float(value) for name in info.reported if (value := getattr(model, name, None)) is not None}
    with tempfile.TemporaryDirectory() as folder:
        if distributed.is_first():
            model.save(Path(folder) / MODEL)
        # Metrics without a checkpoint are dropped.
        _report(scores, folder if distributed.is_first() else None)


def _read(part: Any) -> np.ndarray:
    """The rows of a part as one array."""
    ray = _imported()
    if isinstance(part, ray.ObjectRef):
        rows = ray.get(part)
        return rows if isinstance(rows, np.ndarray) else np.concatenate(list(rows.blocks(BLOCK_ROWS)))
    return np.concatenate([_matrix(batch) for batch in part.iter_batches(batch_size=BLOCK_ROWS, batch_format="numpy")])


def _matrix(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n_samples, n_features) columns of a batch side by side; a column of arrays has as many as they have numbers."""
    wrong = [name for name, column in batch.items() if column.dtype.kind not in "biuf" or column.ndim > 2]
    if wrong:
        raise TypeError(f"the data set has columns that are not numbers: {', '.join(wrong)}. Drop or encode them.")
    return np.column_stack(list(batch.values()))


def _fit_saved(estimator: Any, part: np.ndarray) -> Any:
    """Fit that reports its checkpoints, and goes on from the newest one after a restart."""
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / STEPS
        if (newest := _imported().train.get_checkpoint()) is not None:
            with newest.as_directory() as place:
                if (Path(place) / STEPS).is_dir():
                    shutil.copytree(Path(place) / STEPS, steps)
        report = _reporter(Path(folder), steps)
        if "checkpoint_dir" in inspect.signature(estimator.fit).parameters:
            steps.mkdir(exist_ok=True)
            return estimator.fit(part, checkpoint_dir=steps, resume=True, callbacks=[report])
        with checkpoint.resumable(steps, every_seconds=CHECKPOINT_SECONDS, on_save=report):
            return estimator.fit(part)


def _reporter(folder: Path, steps: Path) -> Callable[..., None]:
    """Function without arguments, or of an epoch, that reports a new checkpoint to Ray; every worker calls it."""
    reported = set(steps.rglob("checkpoint-*"))

    def report(*_: Any) -> None:
        nonlocal reported
        found = set(steps.rglob("checkpoint-*"))
        if distributed.gather(not found <= reported).any():
            _report({"checkpoints": len(found)}, folder if distributed.is_first() else None)
        reported = found

    return report


def _report(metrics: dict[str, float], folder: str | os.PathLike | None) -> None:
    """Report metrics with the checkpoint in a folder: every worker does so, and one of them has the folder."""
    train = _imported().train
    train.report(metrics, checkpoint=None if folder is None else train.Checkpoint.from_directory(folder))


def _run_command(config: dict[str, Any]) -> tuple[str, str]:
    """Run a command as a process of the job.

    Returns:
        Its output, and its warnings.

    Raises:
        LaunchError: it ended with an error, of which the last line is the message.
    """
    from jaxcluster.cli import app

    if os.path.isdir(config["folder"]):
        os.chdir(config["folder"])
    os.environ[distributed.ADDRESS] = "ray"  # by which the command knows that it is in a job, which Ray has joined
    printed, complaints = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        try:
            app(config["command"], prog_name="jaxcluster")
        except SystemExit as error:
            code = error.code
    if code:
        lines = complaints.getvalue().strip().splitlines() or [f"exit code {code}"]
        raise distributed.LaunchError(lines[-1].removeprefix("Error: "))
    return printed.getvalue(), complaints.getvalue()

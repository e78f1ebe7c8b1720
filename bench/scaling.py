"""k-means over host devices and processes, beside the prediction of `jc.plan`: ``python -m bench.scaling``.

Each case is a process of its own, or a job of several: its fits of 2 and 6 steps give the seconds of a step, the
compiled step the collectives and their bytes, and a calibration in the same process the prediction. Devices of one host
share its cores, so that more of them are not faster: what is measured is what they cost. Accelerators are extrapolated
by the plan alone, from the peaks that their makers publish.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import peers
from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append

FOLDER = RESULTS / "scaling"

FEATURES, CLUSTERS = 32, 100

DEVICES, PROCESSES = (1, 2, 4, 8), (1, 2)

STEPS = (2, 6)
"""Numbers of steps of the two fits whose difference is the time of a step."""

REPEATS = 3
"""Times of which the least is taken."""

LARGE = {"n": 10**9, "d": 128, "k": 32_768, "init": "k-means||", "steps": 20}
"""The problem that is extrapolated to accelerators."""

ACCELERATORS = (8, 16, 32, 64, 128, 256)


def step_seconds(rows: int, mesh: Any) -> float:
    """Seconds of a step of k-means on the rows of this process."""
    from jaxcluster import distributed, kmeans

    # Noise without clusters, in which labels still change after many steps.
    mine = rows // distributed.count()
    x = np.random.default_rng(distributed.index()).random((mine, FEATURES), np.float32)
    centers = np.random.default_rng(2).random((CLUSTERS, FEATURES), np.float32)
    key, seconds = jax.random.key(0), {}
    for steps in (*STEPS, *STEPS * REPEATS):
        start = time.perf_counter()
        fit = kmeans.fit(key, x, CLUSTERS, init=centers, tol=0, max_steps=steps, mesh=mesh)
        jax.block_until_ready(fit.labels)
        if int(fit.steps) != steps:
            raise RuntimeError(f"the fit took {int(fit.steps)} steps in place of {steps}: pass more rows.")
        # The first fit of each length compiles.
        seconds[steps] = min(seconds.get(steps, np.inf), time.perf_counter() - start)
    return (seconds[STEPS[1]] - seconds[STEPS[0]]) / (STEPS[1] - STEPS[0])


def collectives(mesh: Any) -> dict[str, Any]:
    """Collectives of a compiled assignment step over a mesh, and the bytes that they add up."""
    from jaxcluster.cluster import lloyd
    from jaxcluster.core.shard import rows_of
    from jaxcluster.ops.distance import squared_norms
    from jaxcluster.types import Points

    specs, n = rows_of(mesh), 64 * mesh.size

    def assign(x, weight):
        samples = lloyd.Samples(Points(x, weight), squared_norms(x))
        options = lloyd.LloydOptions(axis_name=mesh.axis_names[0])
        return lloyd.assignment_step(jnp.zeros((CLUSTERS, FEATURES)), samples, options=options)[0]

    spread = jax.jit(jax.shard_map(assign, mesh=mesh, in_specs=(specs.row, specs.row), out_specs=specs.whole))
    shapes = (jax.ShapeDtypeStruct((n, FEATURES), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.float32))
    program = spread.lower(*shapes).compile().as_text()
    calls = re.findall(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", program)
    numbers = [re.findall(r"f32\[([\d,]*)\]", shape) for shape, _ in calls]
    size = sum(int(np.prod([int(side) for side in each.split(",") if side])) for shape in numbers for each in shape)
    return {"collectives": [kind for _, kind in calls], "collective_bytes": 4 * size}


def child(rows: int, out: Path, *, job: bool) -> None:
    """One case in this process, or in all processes of a job, of which the first writes the result."""
    from jaxcluster import distributed, plan, sharding

    if job:
        distributed.initialize()
    mesh = sharding.row_mesh()
    result = {"step_s": step_seconds(rows, mesh), **(collectives(mesh) if not job else {})}
    # Devices of all processes share the cores of this machine.
    planned = plan("kmeans", rows, FEATURES, CLUSTERS, devices=mesh.size)
    result |= {"planned_step_s": planned.step_seconds, "planned_bytes": 4 * (CLUSTERS * FEATURES + CLUSTERS + 1)}
    result["rates"] = {name: value for name, value in planned.rates._asdict().items() if name != "memory"}
    if distributed.is_first():
        out.write_text(json.dumps(result))
    if job:
        distributed.gather(0)


def measure(rows: int, devices: int, processes: int) -> dict[str, Any]:
    """The result of `child` for so many devices of one process, or processes of one device."""
    from jaxcluster import distributed

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "bench.scaling", "--child", str(rows), str(out)]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
        if processes == 1:
            subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True)
        else:
            distributed.launch([*command, "--job"], processes, environment=environment)
        return json.loads(out.read_text())


def extrapolate(chip: str) -> list[dict[str, Any]]:
    """Plans of the large problem on accelerators."""
    from jaxcluster import plan

    n, d, k, rest = LARGE["n"], LARGE["d"], LARGE["k"], {"init": LARGE["init"], "steps": LARGE["steps"]}
    plans = (plan("kmeans", n, d, k, devices=devices, chip=chip, **rest) for devices in ACCELERATORS)
    return [{"chip": chip, "fits": each.fits, **{name: getattr(each, name) for name in EXTRAPOLATED}} for each in plans]


EXTRAPOLATED = ("devices", "memory", "sent", "step_seconds", "start_seconds", "seconds", "limit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every case, prints it beside its prediction, and appends records where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000, help="rows of one device (weak), or of all (strong)")
    parser.add_argument("--chips", nargs="*", default=["v5p", "h100"], help="accelerators to extrapolate to")
    parser.add_argument("--write", action="store_true", help="record the outcome in bench/results/scaling")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(int(options.child[0]), Path(options.child[1]), job=options.job)
        return 0
    made = provenance(peers.installed("cpu"), quick=options.rows < 100_000)
    path = FOLDER / f"cpu-{made['date'][:10]}.jsonl"
    write = partial(append, path) if options.write else lambda record: None
    cases = [(devices, 1) for devices in DEVICES] + [(1, processes) for processes in PROCESSES if processes > 1]
    for devices, processes in cases:
        for scaling in ("strong", "weak"):
            rows = options.rows * (devices * processes if scaling == "weak" else 1)
            if scaling == "weak" and devices * processes == 1:
                continue
            found = measure(rows, devices, processes)
            ratio = found["step_s"] / found["planned_step_s"]
            name = f"{devices} devices, {processes} processes, {rows:,} rows ({scaling})"
            print(f"{name}: {found['step_s']:.4f} s a step, {ratio:.2f} × the plan", flush=True)
            case = {"case": f"kmeans-{rows}x{FEATURES}-{devices}d{processes}p", "scaling": scaling, "data": "generated"}
            write({**case, "k": CLUSTERS, **found, "provenance": made})
    for chip in options.chips:
        for planned in extrapolate(chip):
            print(planned)
            write({"case": f"plan-{chip}-{planned['devices']}", "data": "none", **planned, "provenance": made})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

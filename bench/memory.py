"""Peak memory of a call, each side in a fresh process: ``python -m bench --memory``.

``python -m bench.memory CASE SIDE [DIR]`` is that process. It calls twice: what the first call adds holds the compile
and the libraries that it loads, what the second adds is the fit alone. The rows are there before either.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import data
from bench.cases import Case, shrink
from bench.peers import Call
from bench.provenance import ROOT
from bench.works import OURS, WORKS, title

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For glibc: freed arrays go back to the system, so that the second call cannot hide in what the first one left."""


def possible(platform: str) -> bool:
    """True if peak memory can be measured here: Linux reports it for the CPU, no system does for an accelerator."""
    return platform == "cpu" and RESET.exists()


def measure(case: Case, found: Mapping[str, str], folder: Path | None) -> dict[str, Any]:
    """Bytes that one call adds to the process at its peak, on our side and on every peer's."""
    tiny = WORKS[case.work].build(shrink(case), found, None)
    sides = {name: _fresh(case, name, folder) for name in tiny.sides}
    return {
        "case": case.name,
        "title": title(case),
        "data": data.source(case, folder),
        "ours": sides.pop(OURS),
        "peers": sides,
    }


def _fresh(case: Case, side: str, folder: Path | None) -> dict[str, int]:
    command = [sys.executable, "-m", "bench.memory", json.dumps(asdict(case)), side]
    command += [] if folder is None else [str(folder.resolve())]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | RETURN_FREED, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def growth(call: Call) -> int:
    """Bytes by which the process grew at its peak while the call ran."""
    gc.collect()
    RESET.write_text("5")  # the system's record of the peak starts over at what is resident now
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Resident bytes of this process: now, by "VmRSS", or at most, by "VmHWM"."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def main(arguments: list[str]) -> None:
    """The fresh process: builds the case for one side and prints what its first and second call added."""
    case, side, *folder = arguments
    case = Case(**json.loads(case))
    call = WORKS[case.work].build(case, {side: ""}, Path(folder[0]) if folder else None).sides[side]
    first, second = growth(call), growth(call)
    print(json.dumps({"first_call_bytes": first, "peak_bytes": second}))


if __name__ == "__main__":
    main(sys.argv[1:])

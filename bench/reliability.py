"""Trials of what goes wrong on real machines: kills, damaged files, full disks, two at once, little memory, long runs.

Each trial ends in one word. *Survived*: the result is that of an undisturbed run. *Named*: one line says what is wrong,
and nothing that was there is lost. *Lost*, *wrong* (another result without a word), *crashed* (a traceback, or a
signal's death) and *hung* must be zero; the exit code is 1 if one is not. Writes docs/reliability.md if asked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.provenance import ROOT, provenance
from bench.records import RESULTS, append, published, read
from bench.table import _lines, _origin, replaced
from jaxcluster.estimators import ESTIMATORS

VERDICTS = ("survived", "named", "lost", "wrong", "crashed", "hung")
BAD = VERDICTS[2:]

FOLDER, PAGE = RESULTS / "reliability", ROOT / "docs" / "reliability.md"

NOTICE = 2.0
"""Seconds in which a process has to end that was told to."""

PATIENCE = 120.0
"""Seconds after which a process is taken for hung."""

STOPPED = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}

FITS = {
    "kmeans": ("fit", "kmeans", "digits", "--k", "10"),
    "gmm": ("fit", "gmm", "digits", "--k", "10", "--covariance", "diag"),
    "dec": ("fit", "dec", "digits", "--k", "10", "--hidden", "64", "--pretrain-epochs", "40", "--epochs", "30"),
    "swav": ("fit", "swav", "digits", "--k", "10", "--epochs", "20"),
}
"""Commands that are disturbed: two of a few seconds, and two trainings with checkpoints."""

CHECKPOINTED = ("dec", "swav")

LIMITED = """
import resource, sys
sys.path.insert(0, {root!r})
from jaxcluster.__main__ import main
import jax, jaxcluster
jaxcluster.KMeans(2).fit([[0.0], [1.0]])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {free}, used + {free}))
main()
"""

SHAPES = """
import json, sys, warnings
import numpy as np
import psutil
import jaxcluster
from jaxcluster.core import programs
from jaxcluster.estimators import ESTIMATORS
name, count = sys.argv[1], int(sys.argv[2])
warnings.simplefilter("ignore")
rng, process = np.random.default_rng(0), psutil.Process()
maps, memory = [], []
for number in range(count):
    n, d, k = 40 + 7 * (number % 143), 2 + number % 29, 2 + number % 11
    x = rng.normal(size=(n, d))
    estimator = ESTIMATORS[name]()
    known = estimator.get_params(deep=False)
    wanted = {{"n_clusters": k, "n_components": k, "n_init": 1, "max_iter": 3, "random_state": 0}}
    estimator.set_params(**{{each: value for each, value in wanted.items() if each in known}}).fit(x)
    maps.append(programs.memory_maps())
    memory.append(process.memory_info().rss)
early = min({early}, count)
print(json.dumps({{
    "maps": max(maps),
    "early_bytes": max(memory[:early]),
    "late_bytes": max(memory[-early:]),
}}))
"""

MOST_MAPS = 20_000
"""Memory maps that a process may have: the system ends it at 65,530."""

EARLY = 100
"""Shapes after which memory must be flat: programs have been let go by then, and fill it again and again."""

GROWTH = 1.15
"""Allowed ratio of the peak memory during the last `EARLY` shapes to that during the first `EARLY`."""

SHAPED = ("kmeans", "gmm", "kmedoids", "bisecting-kmeans", "spectral", "dbscan", "hdbscan")
"""Estimators that are fitted to many shapes, if no others are named."""


class Trial(NamedTuple):
    """The outcome of a trial: a word of `VERDICTS`, a description, and measurements by name."""

    verdict: str
    details: str = ""
    measured: dict[str, Any] | None = None


class Done(NamedTuple):
    """A process that ended: its exit code (None if it was hung), its words, and how long it took after its signal."""

    code: int | None
    stderr: str
    seconds: float = 0.0


class Bench:
    """A folder for trials, and the undisturbed runs that they are compared with.

    Args:
        folder: an empty one.
        repeats: trials of each kind and command.
        seed: of the moments and bits.
        shapes: distinct shapes in one process.
        estimators: names of those that are fitted to these shapes.
    """

    def __init__(self, folder: Path, repeats: int, seed: int, shapes: int, estimators: Sequence[str] = SHAPED) -> None:
        self.folder, self.repeats, self.shapes, self.estimators = folder, repeats, shapes, estimators
        self.random = random.Random(seed)
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
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def wait(process: subprocess.Popen, patience: float = PATIENCE) -> Done:
    """Wait for a process to end; kill it if it takes longer than ``patience`` seconds."""
    begin = time.perf_counter()
    try:
        _, stderr = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return Done(None, process.communicate()[1])
    return Done(process.returncode, stderr, time.perf_counter() - begin)


def run(*words: Any, **options: Any) -> Done:
    """A command from its beginning to its end."""
    return wait(start(*words, **options))


def labels(run_folder: Path) -> str | None:
    """The labels of a run as they were written; None where there is none."""
    file = run_folder / "labels.csv"
    return file.read_text() if file.is_file() else None


def one_line(done: Done) -> bool:
    """True if a command ended with one line that names the error."""
    return done.code == 2 and bool(re.search(r"^Error: .+", done.stderr, re.MULTILINE))


def signals(bench: Bench) -> Iterator[Trial]:
    """SIGTERM and Ctrl-C at random moments: two seconds to save and end, then the run goes on to the same labels."""
    yield from _killed(bench, (signal.SIGTERM, signal.SIGINT))


def kills(bench: Bench) -> Iterator[Trial]:
    """SIGKILL at random moments, then the same command once more."""
    yield from _killed(bench, (signal.SIGKILL,))


def _killed(bench: Bench, numbers: Sequence[signal.Signals]) -> Iterator[Trial]:
    for name, words in FITS.items():
        reference, seconds = bench.reference(name)
        for number in numbers:
            for _ in range(bench.repeats):
                out = bench.place() / "run"
                process = start(*words, "--out", out, "--quiet")
                time.sleep(bench.random.uniform(0.3, 1.0) * seconds)
                process.send_signal(number)
                done = wait(process, 20)
                yield _verdict_of_kill(done, number, name, words, out, reference)
                shutil.rmtree(out.parent)


def _verdict_of_kill(done, number, name, words, out, reference):
    report = f"{name}, {number.name}: exit {done.code} after {done.seconds:.1f} s, {done.stderr.strip()[-300:]!r}"
    if done.code is None:
        return Trial("hung", report)
    if done.code not in (0, STOPPED[number]):
        return Trial("crashed", report)
    if number != signal.SIGKILL and done.code and done.seconds > NOTICE:
        return Trial("hung", report)
    if done.code == 0 or labels(out) is not None:
        again = Done(0, "")
    else:
        partial = out.with_name("run.partial")
        resume = ("--resume",) if list(partial.rglob("checkpoint-*/manifest.json")) else ("--overwrite",)
        if number != signal.SIGKILL and name in CHECKPOINTED and "checkpoints are kept" in done.stderr:
            resume = ("--resume",)
        again = run(*words, "--out", out, "--quiet", *resume)
    if again.code is None:
        return Trial("hung", f"{report}; again: hung")
    if again.code != 0:
        return Trial("lost" if one_line(again) else "crashed", f"{report}; again: {again.stderr[-300:]!r}")
    if labels(out) != labels(reference):
        return Trial("wrong", f"{report}: other labels")
    remaining = sorted(entry.name for entry in out.parent.iterdir())
    allowed = [["run"]] if again.seconds or number != signal.SIGKILL else [["run"], [".run.jaxcluster", "run"]]
    return Trial("survived") if remaining in allowed else Trial("lost", f"{report}: leaves {remaining}")


def two_at_once(bench: Bench) -> Iterator[Trial]:
    """The same command twice at the same time, with --overwrite: one writes, the other is told who does."""
    for name, words in FITS.items():
        reference, _ = bench.reference(name)
        for _ in range(max(1, bench.repeats // 2)):
            out = bench.place() / "run"
            both = [start(*words, "--out", out, "--quiet", "--overwrite") for _ in range(2)]
            done = [wait(process) for process in both]
            codes = Counter(each.code for each in done)
            if None in codes:
                yield Trial("hung", name)
            elif any(each.code not in (0, 2) for each in done):
                yield Trial("crashed", f"{name}: {[each.stderr[-200:] for each in done]}")
            elif labels(out) != labels(reference):
                yield Trial("wrong", f"{name}: other labels")
            elif codes[2] and not any("is being written by process" in each.stderr for each in done):
                yield Trial("lost", f"{name}: {[each.stderr[-200:] for each in done]}")
            else:
                yield Trial("named" if codes[2] else "survived")
            shutil.rmtree(out.parent)


def bit_flips(bench: Bench) -> Iterator[Trial]:
    """A flipped bit in each file of a run: predict gives the same labels, or names the file."""
    yield from _damaged(bench, _flipped)


def cut_files(bench: Bench) -> Iterator[Trial]:
    """Each file of a run cut at a random place, or empty."""
    yield from _damaged(bench, lambda bench, content: content[: bench.random.randrange(len(content))])


def _flipped(bench: Bench, content: bytes) -> bytes:
    damaged = bytearray(content)
    damaged[bench.random.randrange(len(content))] ^= 1 << bench.random.randrange(8)
    return bytes(damaged)


def _damaged(bench: Bench, damage: Callable[[Bench, bytes], bytes]) -> Iterator[Trial]:
    from typer.testing import CliRunner

    from jaxcluster.cli import app

    for name in ("kmeans", "dec"):
        reference, _ = bench.reference(name)
        place = bench.place()
        out, written = place / "run", place / "labels.csv"
        shutil.copytree(reference, out)
        CliRunner().invoke(app, ["predict", str(out), "digits", "--out", str(written), "--quiet"])
        expected = written.read_bytes()
        for file in sorted(path for path in out.rglob("*") if path.is_file()):
            content = file.read_bytes()
            for _ in range(4 * bench.repeats):
                file.write_bytes(damage(bench, content))
                written.unlink(missing_ok=True)
                result = CliRunner().invoke(app, ["predict", str(out), "digits", "--out", str(written), "--quiet"])
                report = f"{name}: {file.relative_to(out)}: {result.stderr[-200:]!r}"
                if result.exit_code == 0:
                    same = written.is_file() and written.read_bytes() == expected
                    yield Trial("survived") if same else Trial("wrong", report)
                elif result.exit_code == 2 and file.name in result.stderr:
                    yield Trial("named")
                else:
                    yield Trial("crashed", f"{report} {result.exception!r}")
            file.write_bytes(content)


def full_disks(bench: Bench) -> Iterator[Trial]:
    """A disk of a few megabytes that fills up at some moment (root alone can mount one): the old run is untouched."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return
    for name, words in FITS.items():
        reference, _ = bench.reference(name)
        size = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
        for _ in range(bench.repeats):
            with _small_disk(bench.place(), 2 * size + bench.random.randrange(size + (8 << 20))) as disk:
                out = disk / "run"
                shutil.copytree(reference, out)
                before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
                done = run(*words, "--out", out, "--quiet", "--overwrite")
                after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
                report = f"{name}: exit {done.code}, {done.stderr[-300:]!r}"
                if done.code is None:
                    yield Trial("hung", report)
                elif done.code == 0:
                    yield Trial("survived") if labels(out) == labels(reference) else Trial("wrong", report)
                elif one_line(done):
                    yield Trial("named") if after == before else Trial("lost", report)
                else:
                    yield Trial("crashed", report)


@contextmanager
def _small_disk(place: Path, size: int) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def little_memory(bench: Bench) -> Iterator[Trial]:
    """Work for which the process may not have the memory: one line that says so, and never a death."""
    works = {
        "kmedoids": ("blobs:n=30000", "--k", "3", "--max-iter", "2"),
        "kmeans": ("blobs:n=2000000,d=16", "--k", "3", "--max-iter", "2"),
        "gmm": ("blobs:n=4000,d=2500", "--k", "5", "--max-iter", "2"),
        "spectral": ("blobs:n=30000", "--k", "3", "--affinity", "nearest_neighbors", "--n-neighbors", "2000"),
        "balanced-kmeans": ("blobs:n=200000", "--k", "200", "--max-iter", "2"),
    }
    for name, words in works.items():
        for free in (1 << 30, 3 << 29):
            program = ("-c", LIMITED.format(root=str(ROOT), free=free))
            done = run("fit", name, *words, "--no-report", "--out", bench.place() / "run", program=program)
            report = f"{name}: exit {done.code}, {done.stderr[-300:]!r}"
            if done.code is None:
                yield Trial("hung", report)
            elif done.code == 0:
                yield Trial("survived")
            else:
                yield (Trial("named") if one_line(done) and " left. " in done.stderr else Trial("crashed", report))


def many_shapes(bench: Bench) -> Iterator[Trial]:
    """Many shapes in one process: memory maps stay few, and memory does not grow after the first hundred."""
    for name in bench.estimators:
        process = start(name, bench.shapes, program=("-c", SHAPES.format(early=EARLY)))
        stdout = ""
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE + 6 * bench.shapes)
        except subprocess.TimeoutExpired:
            process.kill()
            yield Trial("hung", name)
            continue
        if process.returncode != 0:
            yield Trial("crashed", f"{name}: exit {process.returncode}, {stderr[-300:]!r}")
            continue
        measured = {"estimator": name, **json.loads(stdout)}
        early, late = measured["early_bytes"], measured["late_bytes"]
        report = (
            f"{name}: {measured['maps']:,} maps at most, {early / 1e6:,.0f} MB at first, {late / 1e6:,.0f} MB at last"
        )
        print(report, file=sys.stderr, flush=True)
        fine = measured["maps"] < MOST_MAPS and late <= GROWTH * early
        yield Trial("survived" if fine else "lost", report, measured)


KINDS: dict[str, Callable[[Bench], Iterator[Trial]]] = {
    "signals": signals,
    "kills": kills,
    "two at once": two_at_once,
    "bit flips": bit_flips,
    "cut files": cut_files,
    "full disks": full_disks,
    "little memory": little_memory,
    "many shapes": many_shapes,
}


def markdown(kinds: dict[str, dict[str, int]]) -> str:
    """The table, a row a kind."""
    rows = [("Kind", "Tried", *(verdict.capitalize() for verdict in VERDICTS)), ("---", *["---:"] * 7)]
    for kind, counts in [*kinds.items(), ("**All**", sum((Counter(each) for each in kinds.values()), Counter()))]:
        rows.append((kind, f"{sum(counts.values()):,}", *(f"{counts.get(verdict, 0):,}" for verdict in VERDICTS)))
    return _lines(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trials, prints the table and what was bad."""
    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--repeats", type=int, default=10, help="trials of each command of a kind")
    parser.add_argument("--shapes", type=int, default=1000, help="distinct shapes in one process")
    parser.add_argument(
        "--estimators",
        nargs="+",
        default=SHAPED,
        choices=ESTIMATORS,
        metavar="NAME",
        help="those fitted to many shapes",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits")
    parser.add_argument("--write", action="store_true", help="record the outcome and write docs/reliability.md")
    options = parser.parse_args(arguments)
    kinds: dict[str, dict[str, int]] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.repeats, options.seed, options.shapes, options.estimators)
        for kind in options.only:
            counts: Counter[str] = Counter()
            for trial in KINDS[kind](bench):
                counts[trial.verdict] += 1
                if trial.measured:
                    measured.setdefault(kind, []).append(trial.measured)
                if trial.verdict in BAD:
                    print(f"{kind}: {trial.verdict}: {trial.details}", flush=True)
            kinds[kind] = dict(counts)
            print(f"{kind}: {dict(counts)}", file=sys.stderr, flush=True)
    print(markdown(kinds))
    if options.write:
        made = provenance({}, quick=False)
        for kind, counts in kinds.items():
            record = {"case": kind, "data": "generated", "counts": counts, "provenance": made}
            if kind == "many shapes":
                record |= {"shapes": options.shapes, "measured": measured.get(kind, [])}
            append(FOLDER / f"cpu-{made['date'][:10]}.jsonl", record)
        write_page()
    return 1 if any(counts.get(verdict, 0) for counts in kinds.values() for verdict in BAD) else 0


def write_page() -> None:
    """Puts the latest record of each kind into the docs."""
    records = published(read(FOLDER))
    table = markdown({record["case"]: record["counts"] for record in records})
    PAGE.write_text(replaced(PAGE.read_text(), f"{_origin(records)}\n\n{table}", "reliability"))


if __name__ == "__main__":
    raise SystemExit(main())

"""Files of runs that are damaged, and disks that fill up while they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.reliability.trial import FITS, Bench, Trial, one_line, results, run


def bit_flips(bench: Bench, name: str) -> Iterator[Trial]:
    """A flipped bit in each file of a run: predict gives the same labels, or names the file."""
    yield from _damaged(bench, name, _flipped)


def cut_files(bench: Bench, name: str) -> Iterator[Trial]:
    """Each file of a run cut at a random place, or empty."""
    yield from _damaged(bench, name, lambda bench, content: content[: bench.random.randrange(len(content))])


def _flipped(bench: Bench, content: bytes) -> bytes:
    damaged = bytearray(content)
    damaged[bench.random.randrange(len(content))] ^= 1 << bench.random.randrange(8)
    return bytes(damaged)


def _damaged(bench: Bench, name: str, damage: Callable[[Bench, bytes], bytes]) -> Iterator[Trial]:
    from typer.testing import CliRunner

    from jaxcluster.cli import app

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


def full_disks(bench: Bench, name: str) -> Iterator[Trial]:
    """A disk of a few megabytes that fills up at some moment (root alone can mount one): the old run is untouched."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        return
    words = FITS[name]
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
                yield Trial("survived") if results(out, name) == results(reference, name) else Trial("wrong", report)
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

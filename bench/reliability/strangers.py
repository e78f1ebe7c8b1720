"""Strange files, folders and names given to every command: a result, or one line that names what is wrong."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.reliability.models import Hung, _limited
from bench.reliability.trial import Bench, Trial

SECONDS = 120
"""Seconds in which a command must end."""

ESCAPE = "\x1b[2J"
"""Clears a terminal that it is sent to."""

NAMES = ("$x^{$", f"a{ESCAPE}b", "<b>width</b>", "depth")
"""Names of columns that are markup, mathtext or commands for some program."""


class Command(NamedTuple):
    """A command with strange words.

    Attributes:
        words: (data, run, out) -> words.
        suffix: end of the name of what it writes; None where it is a folder.
        takes: which of "data", "run" and "out" it has.
    """

    words: Callable[[Any, Any, Any], tuple[Any, ...]]
    suffix: str | None = None
    takes: tuple[str, ...] = ("data", "run", "out")


COMMANDS = {
    "fit": Command(lambda data, _, out: ("fit", "kmeans", data, "--k", 3, "--out", out), takes=("data", "out")),
    "fit --stream": Command(
        lambda data, _, out: ("fit", "kmeans", data, "--k", 3, "--stream", "--no-report", "--out", out),
        takes=("data", "out"),
    ),
    "sweep": Command(
        lambda data, _, out: ("sweep", data, "--k", "2:3", "--seeds", 1, "--out", out), takes=("data", "out")
    ),
    "transport": Command(
        lambda data, _, out: ("transport", data, data, "--epsilon", 1, "--out", out), takes=("data", "out")
    ),
    "predict": Command(lambda data, run, out: ("predict", run, data, "--proba", "--out", out), ".parquet"),
    "embed": Command(lambda data, run, out: ("embed", run, data, "--out", out), ".csv"),
    "compare": Command(
        lambda _, run, out: ("compare", run, run.parent / "other", "--out", out), ".html", ("run", "out")
    ),
    "profile": Command(lambda _, run, out: ("profile", run, "--json", out), ".json", ("run", "out")),
    "report": Command(lambda _, run, out: ("report", run), takes=("run",)),
    "score": Command(lambda _, run, out: ("score", run / "labels.csv", run / "labels.csv"), takes=("run",)),
}


def _text(content: bytes, name: str = "rows.csv") -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _link(target: str, name: str = "rows.csv") -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _pipe(folder: Path, _: Path) -> Path:
    os.mkfifo(folder / "rows.csv")
    return folder / "rows.csv"


def _socket(folder: Path, _: Path) -> Path:
    with _inside(folder), socket.socket(socket.AF_UNIX) as server:  # a path of a socket is short
        server.bind("rows.csv")
    return folder / "rows.csv"


def _copy(name: str | bytes) -> Callable[[Path, Path], Path]:
    def make(folder: Path, rows: Path) -> Path:
        return Path(shutil.copy(rows, folder / os.fsdecode(name)))

    return make


def _markup_path(folder: Path, rows: Path) -> Path:
    (folder / "a[").mkdir()
    return Path(shutil.copy(rows, folder / "a[" / f"b]{rows.suffix}"))


def _npy(shape: str, size: int) -> Callable[[Path, Path], Path]:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return _text(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(size), "rows.npy")


def _pickled(folder: Path, _: Path) -> Path:
    np.save(folder / "rows.npy", np.array([{"a": 1}], object), allow_pickle=True)
    return folder / "rows.npy"


ROW = b"1,2,3,4\n"

DATA: dict[str, Callable[[Path, Path], Path]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a device": _link("/dev/zero"),
    "a link to itself": _link("rows.csv"),
    "a link to nothing": _link("elsewhere"),
    "a folder": lambda folder, _: folder,
    "nothing": lambda folder, _: folder / "rows.csv",
    "an empty file": _text(b""),
    "names alone": _text(b"a,b,c,d\n"),
    "bytes that are no text": _text(b"a,b,c,d\n\xff\xfe,2,3,4\n" + 9 * ROW),
    "null characters": _text(b"\0" * 500),
    "short lines": _text(b"a,b,c,d\n" + 9 * ROW + b"1,2\n"),
    "one long line": _text(b"1," * 50_000),
    "names twice": _text(b"a,a,b,c\n" + 9 * ROW),
    "a packed file that is cut": _text(gzip.compress(os.urandom(3000))[:2000], "rows.csv.gz"),
    "Parquet of nothing": _text(b"PAR1" + bytes(50) + b"PAR1", "rows.parquet"),
    "a short npy": _npy("(100, 4)", 80),
    "a huge npy": _npy(f"({2**60}, 4)", 80),
    "a negative npy": _npy("(-5, 4)", 80),
    "a pickle": _pickled,
    "a broken npz": _text(b"PK\x03\x04" + bytes(50), "rows.npz"),
    "a long name": _copy("r" * 246 + ".csv"),
    "a name that is no text": _copy(b"caf\xe9.csv"),
    "a name that is a command": _copy(f"a{ESCAPE}b$x^{{$.csv"),
    "a path of Rich": _markup_path,
}
"""Rows to read, by kind: (folder, rows that can be read) -> path."""


def _run_with(change: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, run: Path) -> Path:
        copy = shutil.copytree(run, folder / "run")
        shutil.copytree(run, folder / "other")
        change(copy)
        return copy

    return make


def _replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def change(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return _run_with(change)


def _emptied(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


RUNS: dict[str, Callable[[Path, Path], Path]] = {
    "nothing": lambda folder, _: folder / "run",
    "a file": _text(b"run", "run"),
    "a link to itself": _link("run", "run"),
    "an empty folder": _run_with(_emptied),
    "a pipe for settings": _replaced("config.json", os.mkfifo),
    "a device for settings": _replaced("config.json", lambda path: path.symlink_to("/dev/zero")),
    "a folder for settings": _replaced("config.json", Path.mkdir),
    "nested settings": _replaced("config.json", lambda path: path.write_text("[" * 100_000)),
    "settings of a list": _replaced("config.json", lambda path: path.write_text(json.dumps([1]))),
    "a pipe for labels": _replaced("labels.csv", os.mkfifo),
    "a link for labels": _replaced("labels.csv", lambda path: path.symlink_to("/etc/passwd")),
    "a device for a model": _replaced("model/model.json", lambda path: path.symlink_to("/dev/zero")),
    "a name that is a command": lambda folder, run: Path(shutil.copytree(run, folder / f"a{ESCAPE}[b]$x^{{$")),
}
"""Runs to read, by kind: (folder, run) -> path."""


def _under_a_file(folder: Path, suffix: str) -> Path:
    (folder / "file").write_text("kept")
    return folder / "file" / f"out{suffix}"


def _of_a_stranger(folder: Path, suffix: str) -> Path:
    place = folder / f"out{suffix}"
    place.mkdir()
    (place / "thesis.txt").write_text("kept")
    return place


def _linked(target: str) -> Callable[[Path, str], Path]:
    def make(folder: Path, suffix: str) -> Path:
        (folder / f"out{suffix}").symlink_to(target)
        return folder / f"out{suffix}"

    return make


def _piped(folder: Path, suffix: str) -> Path:
    os.mkfifo(folder / f"out{suffix}")
    return folder / f"out{suffix}"


def _named(name: str | bytes) -> Callable[[Path, str], Path]:
    return lambda folder, suffix: folder / (os.fsdecode(name) + suffix)


OUTS: dict[str, Callable[[Path, str], Path]] = {
    "a pipe": _piped,
    "a device": _linked("/dev/full"),
    "a link to itself": _linked("out"),
    "a link to nothing": _linked("elsewhere"),
    "under a file": _under_a_file,
    "a folder of a stranger": _of_a_stranger,
    "a file system of the system": lambda _, suffix: Path(f"/proc/out{suffix}"),
    "a long name": lambda folder, suffix: folder / ("r" * (250 - len(suffix)) + suffix),
    "too long a name": _named("r" * 300),
    "a name that is no text": _named(b"caf\xe9"),
    "a name that is a command": _named(f"a{ESCAPE}b$x^{{$"),
    "a path of Rich": _named("a[/b]"),
    "new folders": lambda folder, suffix: folder / "a" / "b" / f"out{suffix}",
    "a read-only disk": lambda folder, suffix: folder / "disk" / f"out{suffix}",
    "a full disk": lambda folder, suffix: folder / "disk" / f"out{suffix}",
}
"""Places to write to, by kind: (folder, suffix) -> path."""


def strangers(bench: Bench, name: str) -> Iterator[Trial]:
    """Every strange file, run and place for a command, one at a time."""
    command = COMMANDS[name]
    warnings.simplefilter("ignore")
    rows, run = _prepared(bench, name)
    kinds = {"data": DATA, "run": RUNS, "out": OUTS}
    for argument in command.takes:
        for kind in kinds[argument]:
            folder = bench.place()
            with _disk(folder, kind if argument == "out" else ""):
                suffix = command.suffix or ""
                data, used, out = rows, run, folder / f"written{suffix}"
                if argument == "data":
                    data = DATA[kind](folder, rows)
                elif argument == "run":
                    used = RUNS[kind](folder, run)
                else:
                    out = OUTS[kind](folder, suffix)
                yield _tried(command.words(data, used, out), out, f"{name}: {argument}: {kind}", folder)
            shutil.rmtree(folder, ignore_errors=True)


def _prepared(bench: Bench, name: str) -> tuple[Path, Path]:
    """A table with strange names, and a run of it with another beside it."""
    place = bench.place()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32) + 5 * (np.arange(40) % 3)[:, None]
    rows = place / "rows.csv"
    rows.write_text(",".join(NAMES) + "\n" + "\n".join(",".join(f"{value:.4f}" for value in row) for row in x) + "\n")
    run = place / "run"
    if "run" in COMMANDS[name].takes:
        method = "gmm" if name == "predict" else "kmeans"
        done = _call(("fit", method, rows, "--k", 3, "--no-report", "--out", run))
        if done.exit_code:
            raise RuntimeError(f"the run to be read failed: {done.stderr}")
        shutil.copytree(run, place / "other")
    if name == "fit --stream":
        np.save(place / "rows.npy", x)
        return place / "rows.npy", run
    return rows, run


def _call(words: tuple[Any, ...]) -> Any:
    from typer.testing import CliRunner

    from jaxcluster.cli import app

    return CliRunner().invoke(app, [*map(str, words), "--quiet"] if words[0] != "score" else [*map(str, words)])


def _tried(words: tuple[Any, ...], out: Path, report: str, folder: Path) -> Trial:
    before = _contents(folder)
    try:
        with _limited(SECONDS):
            done = _call(words)
    except Hung:
        return Trial("hung", report)
    report = f"{report}: exit {done.exit_code}, {done.stderr[-300:]!r} {done.exception!r}"
    if ESCAPE in done.stdout + done.stderr:
        return Trial("wrong", f"{report}: sends escapes to the terminal")
    if any(_contents(folder).get(path) != content for path, content in before.items()):
        return Trial("lost", f"{report}: changed what was there")
    if done.exit_code == 0:
        written = "--out" not in words or os.path.lexists(out)
        return Trial("survived" if written else "lost", report)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Warning: ")]
    named = done.exit_code == 2 and len(lines) == 1 and lines[0].startswith("Error: ")
    return Trial("named" if named else "crashed", report)


def _contents(folder: Path) -> dict[Path, bytes]:
    """The regular files of a folder."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                found[path] = path.read_bytes()
    return found


@contextmanager
def _disk(folder: Path, kind: str) -> Iterator[None]:
    """A disk of its own for the places that need one; none where this process may not mount it."""
    options = {"a read-only disk": "ro,size=1m", "a full disk": "size=8k"}.get(kind)
    if options is None:
        yield
        return
    (folder / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder / "disk")]
    mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder / "disk")], check=True)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

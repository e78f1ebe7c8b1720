"""Run the code of README, of the guide and of the methods: ``python docs/site_pages/blocks.py [PAGE ...]``.

Each page runs in a folder of its own, from top to bottom: blocks of Python in one namespace, commands of blocks marked
``sh`` through the command line. Of the pages of methods the commands run; `site_pages.figures` runs their scripts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

DOCS = Path(__file__).parents[1]
sys.path[:0] = [str(DOCS)]

PAGES = (
    "../README.md",
    *("index.md", "start.md", "walks.md", "streaming.md", "devices.md"),
    *("design.md", "glossary.md", "inputs.md", "limits.md"),
    "guide/*.md",
)
"""Pages whose code runs here; that of `tables.md` runs in the tests, which look at what it writes."""

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages(names: list[str]) -> list[Path]:
    """The pages that are named, or all."""
    found = [path for pattern in PAGES for path in sorted(DOCS.glob(pattern))]
    return [path for path in found if not names or any(name in str(path) for name in names)]


def run_shell(block: str) -> None:
    """Run the lines of a block that begin with ``jaxcluster``."""
    from jaxcluster.__main__ import main

    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("jaxcluster "):
            argv, sys.argv = sys.argv, shlex.split(line, comments=True)
            try:
                main()
            except SystemExit as ending:
                if ending.code:
                    raise RuntimeError(f"{line} ended with {ending.code}") from ending
            finally:
                sys.argv = argv


def run(path: Path) -> tuple[str, float, str]:
    """Run one page.

    Returns:
        Its name, the seconds of CPU, and what went wrong, or "".
    """
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    begin, names, printed = time.process_time(), {"__name__": "__main__"}, io.StringIO()
    back = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                for language, block in BLOCK.findall(path.read_text()):
                    if language == "sh":
                        run_shell(block)
                    else:
                        exec(compile(block, str(path), "exec"), names)
        except Exception:
            return path.name, time.process_time() - begin, traceback.format_exc() + printed.getvalue()[-2000:]
        finally:
            os.chdir(back)
            plt.close("all")
    return path.name, time.process_time() - begin, ""


def run_command(name: str, command: str, cell: str) -> tuple[str, float, str]:
    """Run the command of one method's page in a folder of its own; see `run`.

    Returns:
        The name of the method, the seconds of CPU, and what went wrong, or "".
    """
    from site_pages.shell import small, write_files

    begin, printed, back = time.process_time(), io.StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                write_files(command, cell)
                run_shell(small(name, command))
            if not list(Path("runs").glob("*/labels.csv")):
                raise RuntimeError(f"{command} wrote no labels.")
        except Exception:
            return f"methods/{name}", time.process_time() - begin, traceback.format_exc() + printed.getvalue()[-2000:]
        finally:
            os.chdir(back)
    return f"methods/{name}", time.process_time() - begin, ""


def main() -> None:
    """Run the code of the pages, and say which failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the paths of pages; all otherwise")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from site_pages.shell import commands

    failed = 0
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(run, path) for path in pages(options.names)]
        jobs += [
            pool.submit(run_command, name, *parts)
            for name, parts in commands().items()
            if not options.names or any(each in f"methods/{name}" for each in options.names)
        ]
        for done in as_completed(jobs):
            name, seconds, error = done.result()
            print(f"{seconds:6.1f} s  {name}{' failed' if error else ''}", flush=True)
            if error:
                print(error, file=sys.stderr)
                failed += 1
    if failed:
        sys.exit(f"The code of {failed} pages failed.")


if __name__ == "__main__":
    main()

"""Run the scripts of ``examples/`` and keep their pictures: ``python docs/site_pages/figures.py [NAME ...]``.

A script draws with pyplot and ends with ``plt.show()``, or makes an animation called ``animation``. Its last figure is
kept as a PNG, its animation as a GIF. A script whose picture is newer than itself runs again only if it is named.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import runpy
import shutil
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from site_pages.scripts import PICTURES, picture_paths, script_paths

DPI = 110
"""Pixels an inch of a still picture: 700 for the usual width of 6.4 inches."""

KEPT = ("gallery-shapes.png", "animations-em_to_kmeans.gif")
"""Pictures of README, which are part of the repository: ``KEEP_PICTURES=1 make figures`` replaces them."""

KEPT_COLORS = 64
"""Colors of a still picture of README, for a small file."""

GIF_DPI, GIF_FPS = 80, 5
"""Pixels an inch, and pictures a second, of an animation: some hundred kilobytes each."""


def is_current(path: Path) -> bool:
    """True if a script's picture is newer than the script."""
    return any(made.is_file() and made.stat().st_mtime > path.stat().st_mtime for made in picture_paths(path))


def is_slow(path: Path) -> bool:
    """True for the script of a method that trains a network, some ten seconds each."""
    from jaxcluster.estimators import CLASSES

    return path.parent.name == "methods" and CLASSES[path.stem].family == "deep"


def make(path: Path) -> tuple[str, float]:
    """Run one script and keep its picture.

    Returns:
        The name of the picture, and the seconds of CPU that it took.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.animation import PillowWriter

    begin = time.process_time()
    plt.close("all")
    quiet = contextlib.redirect_stdout(io.StringIO())
    with (
        quiet,
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {"figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}
        ),
    ):
        warnings.simplefilter("ignore")
        names = runpy.run_path(str(path), run_name="__main__")
        moving, still = picture_paths(path)
        if "animation" in names:
            target = moving
            names["animation"].save(moving, writer=PillowWriter(fps=GIF_FPS), dpi=GIF_DPI)
        elif plt.get_fignums():
            target = still
            plt.figure(plt.get_fignums()[-1]).savefig(still, dpi=DPI, bbox_inches="tight", facecolor="white")
        else:
            raise RuntimeError(f"{path} made no picture.")
        plt.close("all")
    return target.name, time.process_time() - begin


def keep() -> None:
    """Copy the pictures that README shows, where they have changed, if the environment asks for it."""
    if os.environ.get("KEEP_PICTURES"):
        from PIL import Image

        for name in KEPT:
            target = PICTURES.parents[1] / "pictures" / name.partition("-")[2]
            if target.suffix == ".png":
                Image.open(PICTURES / name).convert("RGB").quantize(KEPT_COLORS).save(target, optimize=True)
            else:
                shutil.copy(PICTURES / name, target)


def main() -> None:
    """Run the scripts that are named, or those whose pictures are not current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the paths of scripts; all that are not current otherwise")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--quick", action="store_true", help="leave out what trains networks, and what README keeps")
    options = parser.parse_args()
    if options.names:
        paths = [path for path in script_paths() if any(name in str(path) for name in options.names)]
    else:
        paths = [path for path in script_paths() if not is_current(path)]
    if options.quick:
        kept = {path.with_suffix("").name for path in map(Path, KEPT)}
        paths = [path for path in paths if not is_slow(path) and f"{path.parent.name}-{path.stem}" not in kept]
    PICTURES.mkdir(parents=True, exist_ok=True)
    if not paths:
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    total = 0.0
    with ProcessPoolExecutor(min(options.workers, len(paths)), mp_context=get_context("spawn")) as pool:
        runs = {pool.submit(make, path): path for path in paths}
        failed = []
        for run in as_completed(runs):
            if run.exception():
                failed.append(runs[run])
                print(f"{runs[run]}: {run.exception()!r}", file=sys.stderr, flush=True)
                continue
            name, seconds = run.result()
            print(f"{seconds:6.1f} s  {name}", flush=True)
            total += seconds
    print(f"{len(paths) - len(failed)} pictures in {total:.0f} s of CPU, in {PICTURES}")
    keep()
    if failed:
        sys.exit(f"These scripts failed: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()

"""One of scikit-learn's test files on our classes, in a process of its own: ``child.py SOURCE OUT PYTEST-ARGUMENTS``.

Started by path, so that the package under test is the one in SOURCE whatever is installed. Every outcome is written to
OUT as soon as it is known, a JSON line a test, so that a process that is stopped loses only the test it is in.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = (
    "BayesianGaussianMixture",
    "BisectingKMeans",
    "DBSCAN",
    "GaussianMixture",
    "HDBSCAN",
    "KMeans",
    "MiniBatchKMeans",
    "OPTICS",
    "SpectralClustering",
)
"""Estimators that have scikit-learn's name."""

SCORES = (
    "adjusted_mutual_info_score",
    "adjusted_rand_score",
    "calinski_harabasz_score",
    "completeness_score",
    "contingency_matrix",
    "davies_bouldin_score",
    "fowlkes_mallows_score",
    "homogeneity_completeness_v_measure",
    "homogeneity_score",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "pair_confusion_matrix",
    "rand_score",
    "silhouette_samples",
    "silhouette_score",
    "v_measure_score",
)
"""Scores that have scikit-learn's name."""

PEER_MODULES = ("cluster", "mixture", "metrics", "metrics.cluster", "model_selection", "pipeline", "manifold")
"""Modules of scikit-learn that hold these names, or use them."""

LONGEST = 400
"""Characters of an exception that are kept."""

MEMORY_MAPS = 20_000
"""Maps from which the compiled programs are let go: each holds dozens of them, and Linux gives a process 65,530."""


class Plugin:
    """Writes the outcome of each test, the first lines of what it raised, and whether our code was called in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.called = False
        self.phases: dict[str, tuple[str, str]] = {}

    def noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which notes that it was called; its signature stays."""

        @functools.wraps(function)
        def noted(*args, **kwargs):
            self.called = True
            return function(*args, **kwargs)

        return noted

    def pytest_runtest_logstart(self, nodeid, location):
        """Forgets the test before."""
        self.called, self.phases = False, {}

    def pytest_runtest_logreport(self, report):
        """Keeps the outcome of one phase of a test."""
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        self.phases[report.when] = (outcome, _first_lines(report))

    def pytest_runtest_logfinish(self, nodeid, location):
        """Writes the outcome of the whole test: the first phase that did not pass."""
        outcome, error = next((phase for phase in self.phases.values() if phase[0] != "passed"), ("passed", ""))
        _, _, name = nodeid.partition("::")
        with self.out.open("a") as lines:
            lines.write(json.dumps({"test": name, "outcome": outcome, "error": error, "ours": self.called}) + "\n")
        _let_programs_go()

    def pytest_collectreport(self, report):
        """Writes that a file could not be imported."""
        if report.failed:
            with self.out.open("a") as lines:
                error = _clip(str(report.longrepr).splitlines()[-3:])
                lines.write(json.dumps({"test": "import", "outcome": "failed", "error": error, "ours": True}) + "\n")


def replace_peers(plugin: Plugin) -> list[str]:
    """Puts ours wherever a module of scikit-learn holds one of these names; returns the names that were found."""
    import sklearn

    import jaxcluster
    from jaxcluster import metrics

    for name in PEER_MODULES:
        importlib.import_module(f"sklearn.{name}")
    ours = {name: getattr(jaxcluster, name) for name in CLASSES if hasattr(jaxcluster, name)}
    for cls in ours.values():
        for method in ("__init__", "fit"):
            setattr(cls, method, plugin.noting(getattr(cls, method)))
    ours |= {name: plugin.noting(getattr(metrics, name)) for name in SCORES if hasattr(metrics, name)}
    theirs = {}
    for name in ours:
        holder = sklearn.mixture if hasattr(sklearn.mixture, name) else sklearn.cluster
        theirs[name] = getattr(holder if hasattr(holder, name) else sklearn.metrics.cluster, name)
    replaced = set()
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "sklearn"]:
        for name, original in theirs.items():
            if vars(module).get(name) is original:
                setattr(module, name, ours[name])
                replaced.add(name)
    return sorted(replaced)


def _first_lines(report):
    """The exception of a failed test, or the reason of a skipped one, in one line."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return _clip([str(report.longrepr[-1])])
    crash = getattr(report.longrepr, "reprcrash", None)
    return _clip((crash.message if crash else str(report.longrepr)).splitlines())


def _clip(lines):
    return " ".join(line.strip() for line in lines if line.strip())[:LONGEST]


def _let_programs_go():
    maps = Path("/proc/self/maps")
    if maps.exists():
        with maps.open() as lines:
            crowded = sum(1 for _ in lines) > MEMORY_MAPS
        if crowded:
            from jaxcluster.core.compilation import clear_programs

            clear_programs()
            gc.collect()


def main(source: Path, out: Path, arguments: list[str]) -> int:
    """Runs pytest with our names in place."""
    sys.path[0] = str(source)
    import jaxcluster

    if Path(jaxcluster.__file__).resolve().parents[1] != source.resolve():
        raise RuntimeError(f"jaxcluster was imported from {jaxcluster.__file__}, not from {source}.")
    import pytest

    plugin = Plugin(out)
    replace_peers(plugin)
    return int(pytest.main(arguments, plugins=[plugin]))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))

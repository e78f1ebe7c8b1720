"""The walk of CONTRIBUTING.md through a new method: its blocks of code, in a copy of the tree, keep the contracts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]

BLOCKS = re.findall(r"^ +```python\n(.*?)^ +```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)

CONTRACTS = (
    "tests/test_contracts.py",
    "tests/test_estimator_contracts.py",
    "tests/test_import.py",
    "tests/estimators/test_registry.py::test_info_is_true_of_the_class",
    "tests/cli/test_cli_options.py::test_every_option_is_a_parameter_with_a_text",
)

COMPILED = ("sharded", "vmap")
"""Contracts that compile more than all others together."""


def take_step(tree: Path, block: str) -> None:
    """Write a block of code to the place that its first line names: a new file, or the top of a table."""
    place, code = dedent(block).removeprefix("# ").split("\n", 1)
    table = re.fullmatch(r"in (\w+) of (\S+)", place)
    if table is None:
        assert not (tree / place).exists()
        (tree / place).write_text(code)
        return
    name, file = table.groups()
    text, count = re.subn(rf"^{name} = {{$", rf"\g<0>\n    {code}", (tree / file).read_text(), flags=re.MULTILINE)
    assert count == 1, place
    (tree / file).write_text(text)


def test_a_method_added_by_the_book_keeps_contracts(tmp_path):
    for folder in ("jaxcluster", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)  # with their bytecode: the hook of conftest.py is slow
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for block in BLOCKS:
        take_step(tmp_path, block)
    chosen = ["-k", " and not ".join(["(fuzzy or annotated)", *COMPILED])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *chosen, *CONTRACTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) > 40

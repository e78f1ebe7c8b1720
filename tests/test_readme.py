"""README's examples run from top to bottom, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from command_line import call

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    plt.close("all")
    assert {"model", "fit", "many", "grid", "gradient"} <= names.keys()
    assert (tmp_path / "digits-model").is_dir()


@pytest.mark.parametrize("page", ["streaming", "devices"])
def test_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks("python", (ROOT / "docs" / f"{page}.md").read_text()):
        exec(compile(block, f"{page}.md", "exec"), {})


def test_shell_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("jaxcluster ")]
    for command in commands:
        call(*shlex.split(command, comments=True)[1:])
    assert (tmp_path / "runs" / "digits" / "report.html").is_file()


def test_readme_is_short_and_its_links_exist():
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert (ROOT / target).exists(), target

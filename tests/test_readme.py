"""README is short, its links exist, and its code runs: `make docs` types what it shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_is_short_and_its_links_exist():
    assert len(README.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        assert (ROOT / target).exists(), target


def test_the_code_of_readme_runs_with_the_docs():
    assert '"../README.md"' in (ROOT / "docs" / "site_pages" / "blocks.py").read_text()
    assert "docs/site_pages/blocks.py" in (ROOT / "Makefile").read_text()
    assert "make docs" in (ROOT / ".ci" / "run").read_text()

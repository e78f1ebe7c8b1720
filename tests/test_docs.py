"""The documentation: every public name is in the reference, every method and loss has its page, links hold."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from site_pages import losses, methods, objects, reference, rst, scripts  # noqa: E402

import jaxcluster as jc  # noqa: E402
from jaxcluster.estimators import CLASSES  # noqa: E402

HAND_WRITTEN = [
    path for folder in ("", "guide", "texts/methods", "texts/losses") for path in (ROOT / "docs" / folder).glob("*.md")
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    reference.write(folder)
    return {path.stem: path.read_text() for path in folder.glob("*.rst")}


def test_every_public_name_is_in_the_reference(pages):
    text = "\n".join(pages.values())
    documented = set(re.findall(r"^\.\. py:\w+:: ([\w.]+)", text, re.MULTILINE)) | pages.keys()
    assert {entry.full_name for entry in objects.entries()} - documented == set()
    assert {f"jaxcluster.{name}" for name in jc.__all__} <= documented


def test_docstrings_become_plain_markup():
    text = rst.document(
        "Σ w_i·|x|* of `fit`.\n\nArgs:\n    x, y: (n, d) *rows*.\n\nReturns:\n    A tuple.",
        types={"x": "Any", "k": "int"},
        resolve={"fit": "jaxcluster.kmeans.fit"}.get,
    )
    assert r"Σ w\_i·\|x\|\* of :py:obj:`fit <jaxcluster.kmeans.fit>`." in text
    assert r"(n, d) \*rows\*." in text
    assert "``x``, ``y`` : ``Any``" in text
    assert "``k`` : ``int``" in text
    assert ":Returns:" in text
    assert rst.inline("S. P. Lloyd, 1982").startswith("\\S. P.")


@pytest.mark.parametrize("name", CLASSES)
def test_a_method_has_a_page_with_code(name):
    text = methods.page(name, "", [])
    assert "{tab-item} Estimator" in text
    assert f"jaxcluster fit {name}" in text or not CLASSES[name].labels


def test_every_loss_is_on_a_page():
    assert {name for names in losses.families().values() for name in names} == set(jc.losses.__all__)


def test_links_of_hand_written_pages_hold():
    made = {
        "methods": {*CLASSES, "index"},
        "losses": {*losses.families(), "index"},
        "about": None,
        "gallery": None,
        "reference": None,
    }
    for path in HAND_WRITTEN:
        place = path.parent if "texts" not in path.parts else ROOT / "docs" / path.parent.name
        for target in re.findall(r"\]\(([^)#:\s]+\.md)", path.read_text()):
            full = (place / target).resolve()
            names = made.get(full.parent.name, ()) if full.parent.parent == ROOT / "docs" else ()
            assert full.is_file() or names is None or full.stem in names, (path.name, target)


def test_scripts_say_what_they_show():
    for script in scripts.scripts():
        assert script.title
        assert script.text, script.path
        assert set(script.methods) <= CLASSES.keys(), script.path

"""The layout of the source is measured as an import sees it, and docs/design.md shows the committed record."""

from __future__ import annotations

from bench import layout


def write(root, **modules):
    for name, text in modules.items():
        path = root.joinpath("jaxcluster", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_imports_are_followed_and_names_counted(tmp_path):
    write(
        tmp_path,
        a="import numpy\nfrom jaxcluster.rooms import b\nfrom jaxcluster.rooms.c import f, g\n\n# why\nx = 1\n",
        rooms__b="from jaxcluster.rooms.c import f\n\n\ndef h():\n    return f\n",
        rooms__c="def f(): ...\n\n\ndef g():\n    'Docs.'\n    return 1\n",
        other="x = 1\n",
    )
    (tmp_path / "jaxcluster" / "rooms" / "__init__.py").write_text('"""Rooms."""\n')
    assert layout.reached(tmp_path, "jaxcluster.a") == {"files": 3, "names": 2}
    measured = layout.package(tmp_path)
    assert (measured["files"], measured["longest_file"], measured["longest_function"]) == (5, 6, 1)


def test_the_design_page_shows_the_record(tmp_path):
    page = tmp_path / "design.md"
    page.write_text(layout.PAGE.read_text())
    layout.write_page(page)
    assert page.read_text() == layout.PAGE.read_text()

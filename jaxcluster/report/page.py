"""One HTML page that needs no other and no network: head, contents, sections, and the script where there is one."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from importlib import resources
from string import Template

from jaxcluster.core.messages import valid_html

SECTION = re.compile(r'<section id="([^"]+)">.*?<h2>(.*?)</h2>', re.DOTALL)


def page(title: str, lead: str, parts: Iterable[str], footer: str, *, data: str = "") -> str:
    """The page as text.

    Args:
        title, lead, footer: texts, which are escaped.
        parts: pieces of HTML; empty ones are left out. Those of `section` are listed in the table of contents.
        data: JSON for the script of the explorer; the page has no script without it.
    """
    body = "\n".join(filter(None, parts))
    found = SECTION.findall(body)
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading in found)
    script = ""
    if data:
        source = _file("explorer.js")
        script = f'<script type="application/json" id="explorer-data">{data}</script>\n<script>\n{source}</script>'
    filled = Template(_file("template.html")).substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        style=_file("page.css"),
        ready='<script>document.documentElement.classList.add("js");</script>' if data else "",
        contents=f'<nav class="contents" aria-label="Contents"><ol>{links}</ol></nav>' if len(found) > 1 else "",
        body=body,
        footer=html.escape(footer),
        script=script,
    )
    return valid_html(filled)


def _file(name: str) -> str:
    return resources.files("jaxcluster.report").joinpath(name).read_text(encoding="utf-8")


def section(title: str, note: str, content: str, *, fold: bool = False) -> str:
    """A section with its heading.

    Args:
        title: of the section; unique on the page.
        note: HTML under the heading.
        content: HTML.
        fold: a reader can fold the section.
    """
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    note = f"<p>{note}</p>\n" if note else ""
    if fold:
        inside = f"<details open>\n<summary><h2>{title}</h2></summary>\n{note}{content}\n</details>"
        return f'<section id="{name}">\n{inside}\n</section>'
    return f'<section id="{name}">\n<h2>{title}</h2>\n{note}{content}\n</section>'


def figures(shown: list[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="pictures{" one" if len(shown) == 1 else ""}">{"".join(shown)}</div>'

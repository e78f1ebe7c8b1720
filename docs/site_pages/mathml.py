"""Equations as MathML, which browsers draw themselves: no script, and nothing to load from elsewhere."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

ALIASES = {r"\dots": r"\ldots", r"\lVert": r"\|", r"\rVert": r"\|", r"\big": ""}
"""Commands of LaTeX that docutils does not know, and those that stand for them."""


def to_mathml(latex: str, *, block: bool = False) -> str:
    """An equation of LaTeX as a MathML element."""
    for name, other in ALIASES.items():
        latex = re.sub(re.escape(name) + r"(?![a-zA-Z])", lambda _, other=other: other, latex)
    element = str(latex2mathml.tex2mathml(latex, as_block=block))
    # Bars of a norm, and the sign between two distributions, would grow to the height of the whole line.
    return re.sub(r"<mo([^>]*)>(\s*[‖∥]\s*)</mo>", r'<mo stretchy="false"\1>\2</mo>', element)


def visit_inline(writer: Any, node: nodes.Element) -> None:
    """Write an equation within a line."""
    writer.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.Element) -> None:
    """Write an equation of its own line, which scrolls where the page is narrow."""
    writer.body.append(f'<div class="math-block">{to_mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer with Sphinx, under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

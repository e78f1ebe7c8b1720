"""The page that a sweep leaves: its curves, its scores, and what was run."""

from __future__ import annotations

import html
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from jaxcluster.cli import run as runs
from jaxcluster.cli.errors import as_options
from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.messages import valid_html
from jaxcluster.report import tables
from jaxcluster.report.run import CLUSTERED_AS

if TYPE_CHECKING:
    from jaxcluster.cli.sweep import Sweep


def write_sweep_report(path: Path, result: Sweep, config: dict[str, Any]) -> None:
    """Writes one HTML file that needs no other, on the page that a fit's report has."""
    machine = {**config["device"], **config["versions"]}
    cards = (tables.facts(runs.told(config), "Configuration"), tables.facts(machine, "Machine"))
    facts = "".join(f'<div class="card">{card}</div>' for card in cards)
    remarks = html.escape(" ".join(result.remarks()))
    scaled = CLUSTERED_AS.get(result.rows.scaling.how)
    notes = [as_options(note) for note in result.rows.dataset.notes]
    notes += [f"All is of the rows as they were clustered: {scaled}."] if scaled else []
    said = "".join(f'<p class="note">{html.escape(note[:1].upper() + note[1:])}</p>' for note in notes)
    body = [
        f'<section><h2>Curves</h2><p>{remarks}</p><div class="pictures">{"".join(result.pictures())}</div></section>',
        f"<section><h2>Scores</h2><p>Of the best start of each.</p>{''.join(result.tables())}</section>",
        f'<section><h2>What was run</h2><div class="columns">{facts}</div></section>',
    ]
    template = resources.files("jaxcluster.report").joinpath("template.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=html.escape(f"How many clusters in {result.rows.dataset.name}?"),
        lead=html.escape(result.lead()),
        body="\n".join([said, *body]),
        footer=f"Written by jaxcluster {config['versions']['jaxcluster']} at {config['written']}.",
    )
    write_atomic(path, valid_html(page).encode())

"""The page that a sweep leaves: its curves, its scores, and what was run."""

from __future__ import annotations

import html
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from jaxcluster import plots
from jaxcluster.cli import run as runs
from jaxcluster.cli.sweep import SCORES, advice, table_of
from jaxcluster.report import tables
from jaxcluster.report.pictures import picture
from jaxcluster.report.scores import meaning

if TYPE_CHECKING:
    from jaxcluster.cli.sweep import Result


def write_sweep_report(path: Path, result: Result, config: dict[str, Any]) -> None:
    """Writes one HTML file that needs no other, on the page that a fit's report has."""
    dataset, n = result.rows.dataset, len(result.rows.x)
    drawn = "" if result.silhouette_rows == n else f" Silhouettes are those of {result.silhouette_rows:,} rows."
    machine = {**config["device"], **config["versions"]}
    cards = (tables.facts(runs.told(config), "Configuration"), tables.facts(machine, "Machine"))
    facts = "".join(f'<div class="card">{card}</div>' for card in cards)
    body = [
        f"<section><h2>Curves</h2><p>{html.escape(advice(result.choices) + drawn)}</p>{_curves(result)}</section>",
        f"<section><h2>Scores</h2><p>Of the best start for each k.</p>{_table(result)}</section>",
        f'<section><h2>What was run</h2><div class="columns">{facts}</div></section>',
    ]
    template = resources.files("jaxcluster.report").joinpath("template.html").read_text(encoding="utf-8")
    ks = result.scores.ks
    lead = f"k-means with {ks.min()} to {ks.max()} clusters on {n:,} rows, {result.inertias.shape[1]} starts for each."
    page = Template(template).substitute(
        title=html.escape(f"How many clusters in {dataset.name}?"),
        lead=html.escape(lead),
        body="\n".join(body),
        footer=f"Written by jaxcluster {config['versions']['jaxcluster']} at {config['written']}.",
    )
    path.write_text(page, encoding="utf-8")


def _curves(result: Result) -> str:
    import numpy as np

    scores = result.scores
    shown = [picture(partial(plots.elbow, scores.ks, result.inertias), "Inertia by number of clusters.", name="elbow")]
    for name in SCORES[1:]:
        values = getattr(scores, name)
        defined = np.isfinite(values)
        if defined.sum() < 2:
            continue
        title = meaning(name).title
        draw = partial(
            plots.sweep,
            scores.ks[defined],
            values[defined],
            name=title,
            best="min" if name == "davies_bouldin" else "max",
        )
        shown.append(picture(draw, f"{title} by number of clusters.", name=name))
    return f'<div class="pictures">{"".join(shown)}</div>'


def _table(result: Result) -> str:
    head = "".join(f'<th scope="col" class="number">{meaning(name).title}</th>' for name in SCORES)
    lines = []
    for line in table_of(result.scores):
        k, *values = line.values()
        cells = "".join(f'<td class="number">{"—" if v is None else tables.number(v)}</td>' for v in values)
        lines.append(f'<tr><th scope="row">{k}</th>{cells}</tr>')
    return (
        '<div class="scroll card" role="region" tabindex="0" aria-label="Scores"><table class="grid">'
        f'<thead><tr><th scope="col">k</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )

"""Profiles as text for a terminal and as HTML for a report or a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxcluster.datasets.dates import date_text
from jaxcluster.report import tables

if TYPE_CHECKING:
    from jaxcluster.report.profiles import ClusterProfile, Difference, Profile, Row

SHOWN, SHOWN_COLUMNS = 4, 12
"""Differences and words of a cluster that are shown, and columns of the table of centers."""

CLUSTERS_IN_FULL, CLUSTERS_OPEN = 30, 12
"""Clusters that are described one by one on a page, and up to how many of them unasked; a table has all of them."""


def headline(profile: Profile) -> str:
    """One sentence on all clusters."""
    k = len(profile.clusters)
    words = f"{profile.n_rows:,} rows in {k:,} cluster{'s' * (k != 1)}"
    words += f", {profile.noise:,} in none" if profile.noise else ""
    words += "" if profile.silhouette is None else f"; silhouette {profile.silhouette:.2f}"
    if profile.accuracy is None:
        return f"{words}."
    return f"{words}. A tree of depth {profile.depth} finds the cluster of {profile.accuracy:.0%} of their rows."


def as_text(profile: Profile) -> str:
    """The profile for a terminal."""
    parts = [headline(profile)]
    for cluster in profile.clusters:
        silhouette = "" if cluster.silhouette is None else f", silhouette {cluster.silhouette:.2f}"
        lines = [f"\nCluster {cluster.label}: {cluster.size:,} rows ({cluster.share:.1%}){silhouette}"]
        lines += [f"  {name:9} {text}" for name, texts in _facts(cluster, profile) for text in texts]
        parts += lines
    return "\n".join(parts)


def as_html(profile: Profile, matches: Mapping[Any, Any] | None = None, *, selectable: bool = False) -> str:
    """The profile as tables and cards; all text of the data is escaped.

    Args:
        profile: of the clusters.
        matches: the class that a cluster is matched with, by cluster.
        selectable: names of rows are buttons that the script of a report gives a meaning.
    """
    matches = matches or {}
    heads = ["cluster", "rows", "share", "silhouette", "set apart by"]
    lines = (
        (
            tables.swatch(cluster.label),
            [
                f"{cluster.size:,}",
                f"{cluster.share:.1%}",
                "—" if cluster.silhouette is None else f"{cluster.silhouette:.3f}",
                ", ".join(f"{each.column} {_sign(each)}" for each in cluster.differences[:2]),
            ],
        )
        for cluster in profile.clusters
    )
    shown = profile.clusters[:CLUSTERS_IN_FULL]
    cards = "".join(_card(cluster, profile, matches, selectable=selectable) for cluster in shown)
    cards = f'<div class="columns">{cards}</div>'
    if len(profile.clusters) > CLUSTERS_OPEN:
        which = "each cluster" if len(shown) == len(profile.clusters) else f"the first {len(shown)} clusters"
        cards = f'<details class="more"><summary>More on {which}</summary>{cards}</details>'
    return tables.grid("Profiles", heads, lines, words=heads[-1:]) + _centers(profile) + cards


def _card(cluster: ClusterProfile, profile: Profile, matches: Mapping[Any, Any], *, selectable: bool) -> str:
    """A card of one cluster."""
    lines = [(name, html.escape("; ".join(texts))) for name, texts in _facts(cluster, profile)]
    if selectable:
        rows = {"typical": cluster.typical, "border": cluster.border, "outliers": cluster.outliers}
        lines = [(name, ", ".join(map(_button, rows[name])) if name in rows else text) for name, text in lines]
    match = f", matched with class {matches[cluster.label]}" if cluster.label in matches else ""
    caption = f"{tables.swatch(cluster.label, 'Cluster ')}{html.escape(match)}"
    body = "".join(f'<tr><th scope="row">{name}</th><td>{text}</td></tr>' for name, text in lines)
    return f'<div class="card"><table class="facts"><caption>{caption}</caption><tbody>{body}</tbody></table></div>'


def _button(row: Row) -> str:
    name = html.escape(_names([row])[0])
    return f'<button type="button" class="to-row" data-row="{row.row}">{name}</button>'


def _centers(profile: Profile) -> str:
    """Means of the columns of numbers, of as many columns as can be read."""
    columns = list(profile.clusters[0].center)
    if not columns or len(columns) > SHOWN_COLUMNS:
        return ""
    lines = (
        (
            tables.swatch(cluster.label),
            [_value(name, value, profile) for name, value in cluster.center.items()],
        )
        for cluster in profile.clusters
    )
    return tables.grid("Means", ["cluster", *columns], lines, caption="Means, in the data's units")


def _value(column: str, value: float | None, profile: Profile, digits: int = 4) -> str:
    """A mean in the units of its column."""
    if value is None:
        return "—"
    return date_text(round(value)) if column in profile.dates else tables.number(value, digits)


def _facts(cluster: ClusterProfile, profile: Profile) -> list[tuple[str, Sequence[str]]]:
    """Lines on a cluster by their heads; those that are empty are left out."""
    words = [
        f"{name}: " + ", ".join(f"{each.word} {each.cluster:.0%} (of all {each.all:.0%})" for each in counted[:SHOWN])
        for name, counted in cluster.words.items()
        if counted
    ]
    facts: list[tuple[str, Sequence[str]]] = [
        ("apart by", [_difference(each, cluster, profile) for each in cluster.differences[:SHOWN]]),
        (
            "terms",
            [", ".join(f"{each.column} {tables.number(each.mean, 2)}" for each in cluster.terms)] * bool(cluster.terms),
        ),
        ("words", words),
        ("rule", [str(rule) for rule in cluster.rules[:2]]),
        ("typical", _names(cluster.typical)),
        ("border", _names(cluster.border)),
        ("outliers", _names(cluster.outliers)),
    ]
    return [(name, texts) for name, texts in facts if texts]


def _sign(each: Difference) -> str:
    return f"{each.difference:+.1f} sd"


def _difference(each: Difference, cluster: ClusterProfile, profile: Profile) -> str:
    word = each.column not in cluster.center
    center, rest = (
        f"{value:.0%}" if word else _value(each.column, value, profile, 3) for value in (each.center, each.rest)
    )
    return f"{each.column} {center} (rest {rest}, {_sign(each)})"


def _names(rows: Sequence[Row]) -> list[str]:
    """Names of rows on one line, or their numbers; nothing for no rows."""
    shown: list[Any] = [f"row {row.row}" if row.name is None else row.name for row in rows]
    return [", ".join(map(str, shown))] if shown else []

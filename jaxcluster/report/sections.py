"""Sections of a report, each a piece of HTML, empty if the run has nothing for it."""

from __future__ import annotations

import html
from functools import partial

import numpy as np

from jaxcluster import plots
from jaxcluster.estimators.fit_messages import ENDINGS
from jaxcluster.plots.components import as_covariances, deviations
from jaxcluster.plots.style import match_classes
from jaxcluster.report import tables
from jaxcluster.report.context import ALL_NOISE, COLLAPSED_TRAINING, WARNINGS, ReportContext, machine
from jaxcluster.report.data_page import data_page
from jaxcluster.report.exploration import View
from jaxcluster.report.figures import figure, map_figures
from jaxcluster.report.page import explorer, figures, section
from jaxcluster.report.profile_view import as_html, headline
from jaxcluster.report.readable import box_plots
from jaxcluster.report.scores import canonical, split
from jaxcluster.report.structure import size_bars, structure_parts
from jaxcluster.report.training import training_parts
from jaxcluster.types import Status

HEADLINES = {
    "accuracy": "accuracy",
    "adjusted_rand": "adjusted Rand",
    "normalized_mutual_info": "normalized MI",
    "silhouette": "silhouette",
}
"""Scores that have a tile; at most two are shown."""


def lead(run: ReportContext) -> str:
    """The line under the title; not escaped."""
    n, d = run.dataset.x.shape
    shape = run.dataset.image_shape
    what = f"images of {by(shape)} pixels" if shape else f"rows of {plural(d, 'column')}"
    truth = (
        "" if run.dataset.y is None else f" The truth has {plural(len(np.unique(run.dataset.y)), 'class', 'classes')}."
    )
    found = "all of them noise" if run.noise.all() else f"in {plural(len(run.sizes), 'cluster')}"
    return f"{run.dataset.name}: {n:,} {what}{', ' if run.noise.all() else ' '}{found}.{truth}"


def warning(run: ReportContext) -> str:
    """Warning of a run that did not converge, or that found only noise."""
    sentences = []
    if run.noise.all():
        sentences.append(ALL_NOISE)
    if run.status is not None and run.status in WARNINGS and not _all_taken(run):
        trained = run.training is not None and run.status == Status.COLLAPSED
        sentences.append(COLLAPSED_TRAINING if trained else WARNINGS[run.status])
    return "".join(f'<p class="warn" role="note">{each}</p>' for each in sentences)


def remarks(run: ReportContext) -> str:
    """Notes on the data that must be known to read the other sections."""
    sentences = [*run.dataset.notes, *run.remarks]
    if run.missing:
        sentences.append("Missing cells are drawn at the mean of their column.")
    return "".join(f'<p class="note">{html.escape(each[:1].upper() + each[1:])}</p>' for each in sentences)


def _all_taken(run: ReportContext) -> bool:
    """True for a training that took all its epochs, as it was to."""
    return run.status == Status.MAX_STEPS and run.training is not None and run.training.endless


def tiles(run: ReportContext) -> str:
    """The few numbers one looks for first."""
    shown = {
        "rows": f"{len(run.labels):,}",
        "columns": f"{run.dataset.x.shape[1]:,}",
        "clusters": f"{len(run.sizes):,}",
    }
    if run.components is not None and run.centers is not None and len(run.centers) != len(run.sizes):
        shown["components"] = f"{len(run.centers):,}"
    if run.noise.any():
        shown["noise"] = f"{run.noise.mean():.1%}"
    values = {canonical(name): value for name, value in run.scores.items() if value is not None}
    for name in [name for name in HEADLINES if name in values][:2]:
        shown[HEADLINES[name]] = tables.number(values[name], 3)
    if run.history is not None:
        shown["steps"] = f"{len(run.history):,}"
    if run.training is not None:
        shown["epochs"] = f"{run.training.epochs:,}"
    if run.status is not None:
        shown["ended"] = "all epochs" if _all_taken(run) else ENDINGS[run.status]
    if run.noise.all():
        shown["ended"] = "all noise"
    if run.timing:
        shown["time"] = f"{sum(run.timing.values()):.3g} s"
    items = (f'<div class="card"><dt>{name}</dt><dd>{html.escape(value)}</dd></div>' for name, value in shown.items())
    return f'<dl class="tiles">{"".join(items)}</dl>'


def scores(run: ReportContext) -> str:
    """All scores with their descriptions, those against the truth first."""
    against, others = split(run.scores)
    shown = [tables.scores(against, "Against the truth")] if against else []
    shown += [tables.scores(others, "Without the truth")] if others else []
    note = "How well clusters match the known classes, and how well they lie in the data." if len(shown) == 2 else ""
    if others and run.clustered_as:
        note = f"{note} Those without the truth are of the rows as they were clustered: {run.clustered_as}.".strip()
    return section("Scores", note, "\n".join(shown)) if shown else ""


def maps(run: ReportContext, view: View) -> str:
    """The rows in the plane: the explorer, and pictures colored by cluster, and by class where the truth is known."""
    shown = map_figures(view.planes, run.labels, run.dataset.y)
    sentences = []
    if run.centers is not None:
        sentences.append(f"A disc is a cluster's {run.representative}.")
    elif not run.noise.all():
        sentences.append("A cluster's number stands in its middle.")
    if run.clustered_as:
        sentences.append(f"Rows are drawn as they were clustered: {run.clustered_as}.")
    if run.dataset.y is not None and not run.noise.all():
        sentences.append("A class has the color of the cluster that it is matched with, if there is one.")
    if len(view.planes) > 1:
        sentences.append("t-SNE keeps neighbors together, but distances between groups and their sizes mean little.")
    pictures = f'<details class="still" open><summary>The maps as pictures</summary>{figures(shown)}</details>'
    return section("Maps", " ".join(sentences), explorer(run, view) + pictures)


def clusters(run: ReportContext, view: View) -> str:
    """Sizes of the clusters, history of the objective, and silhouettes."""
    sizes, note = run.sizes, ""
    k = len(sizes)
    spread = f", from {sizes.min():,} to {sizes.max():,}" if k else ""
    alt = f"Bars of the rows in each of {plural(k, 'cluster')}{spread}."
    shown = [figure(partial(plots.cluster_sizes, run.labels), alt, name="sizes", shapes=partial(size_bars, run.labels))]
    if run.history is not None:
        first, last = run.history[0], run.history[-1]
        alt = f"Curve of the {run.objective} over {plural(len(run.history), 'step')}, from {first:.5g} to {last:.5g}."
        shown.append(figure(partial(plots.history, run.history, name=run.objective), alt, name="history"))
        note = f"Step by step the {run.objective} should {'fall' if run.best == 'min' else 'rise'}."
    if view.silhouettes is not None:
        note += " A silhouette is near 1 deep in a cluster, 0 on a border, negative where another cluster is nearer."
        alt = "Silhouette of each row, sorted within its cluster, and their mean."
        tall, height = len(shown) == 2, 8.98 if len(shown) == 2 else 4.2
        values = np.full(len(run.labels), np.nan)
        values[view.rows] = view.silhouettes
        draw_silhouette = partial(
            plots.silhouette, run.dataset.x, run.labels, metric=run.metric, p=run.p, values=values
        )
        css = "tall still-figure" if tall else "still-figure"
        shown.insert(0, figure(draw_silhouette, alt, name="silhouette", height=height, css=css))
    return section("Clusters", note.strip(), figures(shown))


def profiles(run: ReportContext) -> str:
    """Rows, means, rules and words of each cluster."""
    if run.profile is None:
        return ""
    note = (
        "A difference is that of the means of a cluster and of all other rows, in standard deviations (sd) of all. "
        "A border row has the least silhouette; a typical row is nearest to the mean of its cluster."
    )
    matches = {}
    if run.dataset.y is not None:
        matches = {cluster: name for name, cluster in match_classes(np.asarray(run.dataset.y), run.labels).items()}
    content = as_html(run.profile, matches, selectable=True) + box_plots(run)
    return section("What the clusters are", f"{html.escape(headline(run.profile))} {note}", content, fold=True)


def structure(run: ReportContext) -> tuple[list[str], dict[str, np.ndarray]]:
    """Medoids, orders, trees and graphs that the method computes its labels from.

    Returns:
        The sections, and by name the orders of rows that their pictures refer to.
    """
    parts, orders = structure_parts(run)
    return [section(title, note, figures(shown)) for title, note, shown in parts], orders


def training(run: ReportContext, view: View) -> list[str]:
    """Training of a network, and its codes of the rows."""
    return [section(title, note, figures(shown)) for title, note, shown in training_parts(run, view.codes)]


def components(run: ReportContext) -> str:
    """Components of a mixture: a figure, and a table if they are few enough to read."""
    if run.components is None or run.centers is None:
        return ""
    x, means, (weights, covariances, kind) = run.dataset.x, run.centers, run.components
    k, d = means.shape
    draw_components = partial(
        plots.ellipses,
        x,
        run.labels,
        means,
        covariances,
        covariance_type=kind,
        weights=weights,
        columns=run.axes,
    )
    if d > 1:
        note = "Two ellipses are each component at 1 and 2 standard deviations; the disc is its mean."
        alt = f"Ellipses of {plural(k, 'component')} in the plane, over the rows as points colored by their cluster."
    else:
        note = "Each curve is a component's density times its weight; the dashed one is their sum."
        alt = f"Density curves of {plural(k, 'component')} and their sum, over a histogram of the rows."
    shown = figures([figure(draw_components, alt, name="components", height=5.2 if d > 1 else 4.2)])
    if k <= tables.MOST_CLUSTERS:
        spreads = deviations(as_covariances(covariances, kind, k, d), kind, k, d)
        rows = np.array([np.sum(run.labels == j) for j in range(k)])
        means, spreads = run.in_data_units(means), run.deviations_in_data_units(spreads)
        shown += tables.components(np.asarray(weights), rows, means, spreads, run.dataset.columns, units=run.units)
    return section("Components", note, shown)


def centers(run: ReportContext) -> str:
    """Centers or medoids as images where rows are images, else as numbers where they are few enough to read."""
    if run.centers is None:
        return ""
    k, d = np.shape(run.centers if run.center_rows is None else run.center_rows)
    title, noun = f"{run.representative.capitalize()}s", "image" if run.dataset.image_shape else "row"
    note = "The center of each cluster." if title == "Centers" else f"The {noun} that stands for each cluster."
    if run.center_rows is not None:
        shown = k <= tables.MOST_CLUSTERS and d <= tables.MOST_COLUMNS
        note = "The means and the commonest categories of each cluster."
        return section(title, note, tables.centers(run.center_rows, run.center_columns)) if shown else ""
    centers = run.in_data_units(run.centers)
    if shape := run.dataset.image_shape:
        alt = f"The {plural(k, f'cluster {run.representative}')} as images of {by(shape)} pixels."
        sheet = figure(partial(plots.centers_as_images, centers, shape), alt, name="centers", width=8, tight=True)
        return section(title, note, f'<div class="sheet">{sheet}</div>')
    if run.components is not None or k > tables.MOST_CLUSTERS or d > tables.MOST_COLUMNS:
        return ""  # a mixture's means are with its components
    return section(title, note, tables.centers(centers, run.dataset.columns, title=title, units=run.units))


def classes(run: ReportContext) -> str:
    """Contingency table of clusters and known classes."""
    if run.dataset.y is None:
        return ""
    note = "Each line is a cluster, darkest where most of its rows are. A cluster that is one class has one dark cell."
    return section("Clusters and classes", note, tables.contingency(run.labels, run.dataset.y))


def data(run: ReportContext) -> str:
    """Columns: their kinds, holes and distributions, and warnings on them."""
    return section("Data", *data_page(run), fold=True)


def run_details(run: ReportContext) -> str:
    """Configuration, data, machine and time."""
    x, columns, shape = run.dataset.x, run.dataset.columns, run.dataset.image_shape
    described = {"name": run.dataset.name, "rows": x.shape[0], "columns": x.shape[1]}
    if shape:
        described["image shape"] = by(shape)
    elif columns:
        described["column names"] = columns
    config = {name: value for name, value in run.config.items() if name != "command"}
    shown = {"Configuration": config, "Data": described, "Machine": machine()}
    if run.timing:
        shown["Time"] = _times(run)
    cards = "".join(f'<div class="card">{tables.facts(rows, caption)}</div>' for caption, rows in shown.items())
    if run.messages:
        lines = "".join(f"<li>{html.escape(each)}</li>" for each in run.messages)
        cards += f'<div class="card messages"><p class="head">Said while it ran</p><ul>{lines}</ul></div>'
    command = run.config.get("command")
    if command is None:
        return section("What was run", "", f'<div class="columns">{cards}</div>')
    again = f'<pre class="card again" tabindex="0"><code>{html.escape(str(command))}</code></pre>'
    return section("What was run", "To run it again:", f'{again}<div class="columns">{cards}</div>')


def _times(run: ReportContext) -> dict[str, str]:
    """Seconds of each stage, and the part of them that compiled programs."""
    shown = {}
    for name, seconds in run.timing.items():
        compiled = run.compile_seconds.get(name, 0.0)
        shown[name] = f"{seconds:.3f} s" + (f", {min(compiled, seconds):.3f} s of it compiling" if compiled else "")
    if len(shown) > 1:
        shown["in all"] = f"{sum(run.timing.values()):.3f} s"
    return shown


def by(shape: tuple[int, ...]) -> str:
    """8 by 8."""
    return " by ".join(map(str, shape))


def plural(count: int, one: str, many: str = "") -> str:
    """1 cluster, 10 clusters."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"

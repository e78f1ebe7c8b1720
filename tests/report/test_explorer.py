"""The explorer of a report: what its script is given, what a reader can do in a browser, and unusual runs."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from functools import partial
from itertools import permutations
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from browser import browser

from jaxcluster import report
from jaxcluster.datasets import Dataset
from jaxcluster.plots import cluster_sizes
from jaxcluster.plots.style import match_classes
from jaxcluster.report import Structure, Training, exploration, widget, write_report
from jaxcluster.report.context import ReportContext
from jaxcluster.report.data_page import alerts
from jaxcluster.report.figures import figure, inline
from jaxcluster.report.page import page
from jaxcluster.report.readable import separation

EVIL = "<script>window.pwned = 1</script>\"'&</script>\x85\u202e"
SHOWN = EVIL.replace("\x85", "\\u0085").replace("\u202e", "\\u202e")
N = 90
OPTIONS = {"title": "t", "config": {}, "scores": {}, "tsne": False}


def explored(source: str) -> dict:
    return json.loads(re.search(r'id="explorer-data">(.*?)</script>', source, re.DOTALL)[1])


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0, 0], [6, 0, 1e6], [0, 6, 2e6]])
    return middles[np.arange(N) % 3] + rng.normal(size=(N, 3)) * [1, 1, 1e5]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.where(np.arange(N) % 15 == 14, -1, np.arange(N) % 3)


@pytest.fixture(scope="module")
def everything(rows, labels, tmp_path_factory) -> Path:
    """A report with every part, a script tag in every text, two kinds of trees, and a training."""
    from scipy.cluster.hierarchy import linkage

    rng = np.random.default_rng(1)
    codes = {name: rng.normal(size=(N, 2)) + labels[:, None] * i for i, name in enumerate([EVIL, "cluster-1", "end"])}
    records = [{"phase": EVIL, "epoch": i, "loss": 1 / i} for i in (1, 2)]
    words = np.array([EVIL, "plain", "words"], object)[np.arange(N) % 3]
    edges = [(N, N + 1, 0.5, 30), (N, N + 2, 0.5, 30)]
    edges += [(N + (i % 3 if i % 3 < 2 else 0) + (1 if i % 3 < 2 else 0), i, 1.0 + i % 7, 1) for i in range(N)]
    tree = np.array(edges, [("parent", int), ("child", int), ("lambda_val", float), ("child_size", int)])
    structure = Structure(
        reachability=np.r_[np.inf, rng.random(N - 1)],
        ordering=np.argsort(labels, kind="stable"),
        condensed_tree=tree,
        merges=linkage(rows[:, :2]),
    )
    ids = np.array([f"{EVIL} {i}" for i in range(N)])
    truth = np.array([f"{EVIL}a", f"{EVIL}b", f"{EVIL}c"])[np.arange(N) % 3]
    dataset = Dataset(EVIL, rows, truth, [EVIL, f"{EVIL}2", f"{EVIL}3"], None, (EVIL,), ids, EVIL)
    table = {EVIL: rows[:, 0], f"{EVIL}2": rows[:, 1], f"{EVIL}3": rows[:, 2], "word": words}
    return write_report(
        tmp_path_factory.mktemp("explorer") / "report.html",
        title=EVIL,
        config={EVIL: EVIL, "command": f"jaxcluster fit {EVIL}"},
        scores={EVIL: 1.0, "silhouette": float("nan"), "accuracy": None},
        dataset=dataset,
        labels=labels,
        structure=structure,
        training=Training(records, codes["end"], np.zeros((3, 2)), np.arange(N), codes),
        remarks=[EVIL],
        messages=[EVIL],
        timing={EVIL: 1.0, "fit": 2.0},
        compile_seconds={"fit": 0.5},
        table=table,
        tsne=False,
    )


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


# What the script is given ---------------------------------------------------------------------------------------


def test_rows_are_given_as_they_are(everything, rows, labels):
    data = explored(everything.read_text(encoding="utf-8"))
    names = [cluster["label"] for cluster in data["clusters"]]
    assert [names[i] for i in decoded(data["labels"], "<u2")] == labels.tolist()
    assert data["ids"][3] == f"{EVIL} 3"
    for column, expected in zip(data["columns"][:3], rows.T, strict=True):
        np.testing.assert_allclose(decoded(column["data"], "<f4") + column["origin"], expected, rtol=1e-6, atol=1e-6)
    word = data["columns"][3]
    assert [word["words"][i - 1] for i in decoded(word["data"], "<u2")] == [EVIL, "plain", "words"] * 30


def test_silhouettes_are_those_of_scikit_learn(everything, rows, labels):
    from sklearn.metrics import silhouette_samples

    inside = labels >= 0
    given = decoded(explored(everything.read_text(encoding="utf-8"))["silhouettes"], "<f4")
    np.testing.assert_allclose(given[inside], silhouette_samples(rows[inside], labels[inside]), atol=1e-4)
    assert np.isnan(given[~inside]).all()


def test_branches_hold_their_rows(everything, labels):
    source = everything.read_text(encoding="utf-8")
    orders = {name: decoded(text, "<u2") for name, text in explored(source)["orders"].items()}
    shapes = re.findall(r'data-order="([^"]+)" data-from="(\d+)" data-to="(\d+)" aria-label="([^"]*)"', source)
    assert {name for name, *_ in shapes} == {"reachability", "condensed-tree", "dendrogram"}
    for name, start, stop, title in shapes:
        if cluster := re.match(r"Cluster (\d+): (\d+) rows", title):
            chosen = labels[orders[name][int(start) : int(stop)]]
            assert len(chosen) == int(cluster[2])
            assert set(chosen) <= {int(cluster[1]), -1}


def test_classes_are_matched_as_by_every_trial():
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    kept = sum(np.sum((truth == a) & (labels == b)) for a, b in match_classes(truth, labels).items())
    counts = [[np.sum((truth == a) & (labels == b)) for b in range(5)] for a in range(4)]
    assert kept == max(sum(counts[a][b] for a, b in enumerate(each)) for each in permutations(range(5), 4))


def test_columns_that_part_clusters_are_chosen():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(size=(60, 30)) * 1e160
    x[:, 17] += labels * 9e160
    apart = separation(x, labels)
    assert apart.argmax() == 17
    centered = x[:, 17] / 1e160 - (x[:, 17] / 1e160).mean()
    between = sum(30 * centered[labels == j].mean() ** 2 for j in (0, 1))
    assert apart[17] == pytest.approx(between / np.sum(centered**2), rel=1e-9)


def test_alerts_name_columns(rows, labels):
    x = np.column_stack([rows[:, 0], np.ones(N), 1e6 * rows[:, 1], np.where(np.arange(N) < 30, np.nan, 1.0 * labels)])
    dataset = Dataset("d", x, None, ["a", "<b>", "c", "d"])
    context = ReportContext(config={}, scores={}, dataset=dataset, labels=labels).normalized()
    constant, dominant, missing = alerts(context, np.arange(N))
    assert "<b>" in constant
    assert dominant.startswith("c holds 100.0% of the variance")
    assert missing == "Missing cells: d 33%."


def test_pictures_keep_their_shapes():
    svg = inline('<svg viewBox="0 0 9 9"><path d="M 1.23456 2 \nL 3 4"/></svg>', "a picture", "name")
    assert '<path d="M 1.23 2 L 3 4"/></svg>' in svg
    bars = figure(partial(cluster_sizes, [0, 0, 1, 2]), "bars", name="bars")
    assert bars.count('<path d="') > 5


def test_a_page_without_data_has_no_script():
    assert "<script" not in page("<t>", "lead", ["<p>body</p>"], "foot")


# Bad input ------------------------------------------------------------------------------------------------------


def test_markup_in_every_text_is_escaped(everything):
    source = everything.read_text(encoding="utf-8")
    assert "<script>window.pwned" not in source
    assert source.count("</script>") == 3


@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1, 3, 1), (1010, 2, 1000), (12, 10_000, 2)],
    ids=["one row", "1,000 clusters", "10,000 columns"],
)
def test_extreme_sizes_have_an_explorer(tmp_path, n, d, k):
    x = np.random.default_rng(0).normal(size=(n, d))
    dataset = Dataset("d", x, np.zeros(n, int))  # and a truth of one class
    path = write_report(tmp_path / "r.html", dataset=dataset, labels=np.arange(n) % k, **OPTIONS)
    source = path.read_text(encoding="utf-8")
    data = explored(source)
    assert len(data["clusters"]) == k
    assert len(data["columns"]) == min(d, exploration.MAX_COLUMNS)
    assert [each["name"] for each in data["classes"]] == ["0"]
    assert len(source) < 2_000_000


def test_long_texts_are_cut_to_a_size(rows, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "TEXT_BYTES", 3_000)
    long = np.array([f"{i} " + "<é>" * 40 for i in range(N)])
    dataset = Dataset("d", rows, None, None, None, (), long, "id")
    table = {"a": long, "b": long, "c": rows[:, 0]}
    path = write_report(tmp_path / "r.html", dataset=dataset, labels=labels, table=table, **OPTIONS)
    data = explored(path.read_text(encoding="utf-8"))
    for words, most in ((data["ids"], 3_000), (data["columns"][0]["words"], 1_500)):
        assert sum(len(each.encode()) + 10 * each.count("<") for each in words) < 1.2 * most + 20 * N
        assert {int(each.split()[0]) for each in words} == set(range(N))


def test_many_rows_are_sampled_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "MAX_ROWS", 100)
    x = np.random.default_rng(0).normal(size=(700, 2))
    path = write_report(tmp_path / "r.html", dataset=Dataset("d", x), labels=np.arange(700) % 3, **OPTIONS)
    source = path.read_text(encoding="utf-8")
    assert "It holds 100 of the 700 rows, drawn at random." in source
    data = explored(source)
    chosen = decoded(data["rows"], "<u4")
    column = data["columns"][1]
    np.testing.assert_allclose(decoded(column["data"], "<f4") + column["origin"], x[chosen, 1], atol=1e-6)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(rows, labels, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        write_report(tmp_path / "r.html", dataset=Dataset("d", rows), labels=labels, **OPTIONS)


# In a browser ---------------------------------------------------------------------------------------------------


def place(window, name: str) -> dict[str, float]:
    window.run(f"find('{name}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
    return window.run(f"return find('{name}').getBoundingClientRect().toJSON()")


def text(window, name: str) -> str:
    return window.run(f"return find('{name}').textContent")


def enter(window, name: str, value: object) -> None:
    window.run(f"const field = find('{name}'); field.value = '{value}'; field.dispatchEvent(new Event('input'))")


def lasso(window, box) -> None:
    """Drag around the left part of the map with Shift."""
    left, top = box["left"] + 50, box["top"] + 18
    right, bottom = box["left"] + box["width"] * 0.6, box["bottom"] - 30
    window.mouse("Pressed", left, top, shift=True)
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        window.mouse("Moved", x, y, shift=True, buttons=1)
    window.mouse("Released", left, bottom, shift=True)


def test_reader_explores_map_and_table(everything, window):
    window.open(everything)
    box = place(window, "#explorer-map")
    tips = []
    for share in np.linspace(0.05, 0.95, 40):  # the codes lie along the diagonal
        window.mouse("Moved", box["left"] + share * box["width"], box["bottom"] - share * box["height"])
        tips.append(window.run("return find('#explorer-tip').innerText"))
    assert any("cluster" in tip and SHOWN in tip for tip in tips)
    lasso(window, box)
    chosen = int(text(window, "#explorer-status").split()[0])
    assert 0 < chosen < N
    assert text(window, "#explorer-page").endswith(f"of {chosen}")
    window.run("find('#explorer-clear').click()")
    assert text(window, "#explorer-status") == "No rows selected."
    window.run("find('#explorer-legend button').click()")
    assert text(window, "#explorer-page").endswith("of 30")
    assert window.run("return find('#explorer-legend button').getAttribute('aria-pressed')") == "true"
    window.run("find('#explorer-all').click()")
    window.mouse("Wheel", box["left"] + 90, box["top"] + 90, deltaX=0, deltaY=-300)
    assert window.run("return find('#explorer-home').disabled") is False
    assert window.run("return window.pwned === undefined")
    assert window.faults == []


def test_reader_sorts_searches_and_plays(everything, window):
    window.open(everything)
    sort = "document.querySelectorAll('#explorer-table thead button')[4].click();"
    lines = "[...document.querySelectorAll('#explorer-table tbody tr')]"
    cells = f"return {lines}.map((row) => Number(row.cells[4].textContent))"
    window.run(sort)
    up = window.run(cells)
    assert up == sorted(up)
    window.run(sort)
    down = window.run(cells)
    assert down == sorted(down, reverse=True) != up
    enter(window, "#explorer-search", "plain")
    assert text(window, "#explorer-page").endswith("of 30")
    enter(window, "#explorer-moment", 1)
    assert "epoch 1" in text(window, "#explorer-moment-name")
    enter(window, "#explorer-search", "")
    # Keys alone: the first branch of a tree, and the zoom of the map.
    label = window.run("const shape = find('#tree .hit'); shape.focus(); return shape.getAttribute('aria-label')")
    window.key("Enter")
    assert text(window, "#explorer-status").split()[0] in label
    window.run("find('#explorer-map').focus()")
    window.key("+", "Equal", "+")
    assert window.run("return find('#explorer-home').disabled") is False
    window.key("Escape")
    assert text(window, "#explorer-status") == "No rows selected."
    assert window.faults == []


CONTRAST = """
const light = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).map((each) => { const c = each / 255;
  return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (each) => { for (; each; each = each.parentElement) {
  const color = getComputedStyle(each).backgroundColor;
  if (!/, 0\\)$|transparent/.test(color) && !color.includes("/")) return color; } return "rgb(255, 255, 255)"; };
const low = [];
for (const each of document.querySelectorAll("p, h1, h2, dt, dd, th, td, a, li, button:enabled, label, summary")) {
  if (!each.textContent.trim() || !each.offsetParent || each.classList.contains("zero")) continue;
  if (each.style.background) continue;  /* shaded cells of the contingency table */
  const [one, other] = [light(getComputedStyle(each).color), light(behind(each))].sort((a, b) => b - a);
  if ((one + 0.05) / (other + 0.05) < 4.5) low.push(each.tagName + " " + each.textContent.slice(0, 40));
}
return low;
"""
"""Texts whose contrast with what lies behind them is below 4.5, the bound of WCAG's level AA."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 500])
def test_page_fits_and_can_be_read(everything, window, dark, width):
    window.open(everything, width=width, dark=dark)
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.run(CONTRAST) == []
    controls = "[...document.querySelectorAll('button, input, select, canvas')].filter((each) => each.offsetParent"
    named = "each.textContent.trim() || each.ariaLabel || (each.labels && each.labels.length)"
    assert window.run(f"return {controls} && !({named})).map((each) => each.id)") == []
    assert window.faults == []


def test_print_shows_pictures(everything, window):
    window.open(everything, print_=True)
    window.run("dispatchEvent(new Event('beforeprint'))")
    assert window.run("return getComputedStyle(find('.explorer')).display") == "none"
    assert window.run("return find('.still svg').getBoundingClientRect().height") > 100
    assert window.run("return [...document.querySelectorAll('.still-figure')].every((each) => each.offsetParent)")


def test_page_is_whole_without_scripts(everything, window, tmp_path):
    bare = tmp_path / "bare.html"
    source = everything.read_text(encoding="utf-8")
    bare.write_text(re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL), encoding="utf-8")
    window.open(bare)
    assert window.run("return getComputedStyle(find('.explorer')).display") == "none"
    assert window.run("return find('.still svg').getBoundingClientRect().height") > 100


HOST = """<!doctype html><meta charset="utf-8"><div id="cell"></div><script type="module">
const listeners = {{}}, values = {{ title: "t", html: {html}, selection: [] }};
window.kept = [];
const model = {{
  get: (name) => values[name],
  set: (name, value) => {{
    values[name] = value;
    for (const listener of listeners["change:" + name] || []) listener();
  }},
  save_changes: () => window.kept.push(values.selection),
  on: (name, listener) => (listeners[name] = listeners[name] || []).push(listener),
  off: () => {{}},
}};
window.model = model;
const widget = await import("data:text/javascript;base64,{script}");
widget.default.render({{ model, el: document.getElementById("cell") }});
</script>"""
"""A page that does what a notebook does for a widget."""

TOUCH = "document.querySelector('#explorer-table tbody button').click();"
ECHO = """addEventListener("message", () => setTimeout(() =>
  parent.postMessage({ status: document.querySelector("#explorer-status").textContent }, "*"), 200));"""


def test_a_widget_has_the_selection_of_its_page(everything, window, tmp_path):
    source = everything.read_text(encoding="utf-8") + f"<script>{TOUCH}{ECHO}</script>"
    script = base64.b64encode((Path(report.__file__).parent / "widget.js").read_bytes()).decode()
    host = tmp_path / "host.html"
    host.write_text(HOST.format(html=json.dumps(source).replace("</", "<\\/"), script=script), encoding="utf-8")
    window.open(host)
    heard = "await new Promise((done) => { const look = () => (%s ? done() : setTimeout(look, 20)); look(); });"
    assert len(window.run(heard % "window.kept.length" + "return window.kept[0]")) == 1
    window.run("addEventListener('message', (event) => { if (event.data.status) window.told = event.data.status; });")
    window.run("model.set('selection', [3, 4, 1000000])")
    assert window.run(heard % "window.told" + "return window.told").startswith("2 rows selected")
    assert window.run("return [window.kept.length, model.get('selection').length]") == [1, 3]


def test_a_widget_knows_its_samples(monkeypatch):
    import traitlets

    shown = report.Report("Two pairs", "<p>", 4).explore()
    shown.selection = [0, 3]
    assert repr(shown) == "<Explorer 'Two pairs': 2 of 4 samples selected>"
    with pytest.raises(traitlets.TraitError, match="selection has 4: numbers of samples are from 0 to 3"):
        shown.selection = [4]
    widget._class.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxcluster\[notebook\]'"):
        report.Report("t", "<p>", 1).explore()

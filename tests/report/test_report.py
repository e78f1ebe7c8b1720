"""The report: one whole file, nothing from the network, everything escaped, there or not there."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

from jaxcluster import plots
from jaxcluster.datasets import Dataset, load, scale
from jaxcluster.report import Components, exploration, sections, tables, write_report
from jaxcluster.report.scores import SCORE_INFO, score_info
from jaxcluster.types import Fit, Status

VOID = {"meta", "br", "link", "img", "input", "hr"}
SCORES = {"adjusted_rand_score": 0.7163, "silhouette_score": 0.5512, "inertia": 1_165_189.4, "my_score": 3.25}


class Page(HTMLParser):
    """The page's elements, failing where one is not closed, or closed by another's end tag."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def iris() -> Dataset:
    return load("iris")


@pytest.fixture(scope="module")
def labels(iris) -> np.ndarray:
    return np.digitize(iris.x[:, 2], [2.5, 4.9])


@pytest.fixture(scope="module")
def centers(iris, labels) -> np.ndarray:
    return np.stack([iris.x[labels == j].mean(0) for j in range(3)])


@pytest.fixture(scope="module")
def source(iris, labels, centers, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    written = write_report(
        path,
        title="<script>alert(1)</script>",
        config={"algorithm": "kmeans", "k": 3, "data": {"scale": "<none>"}, "weights": None, "init": np.zeros((3, 4))},
        scores=SCORES,
        dataset=iris,
        labels=labels,
        centers=centers,
        history=Fit(None, None, np.int32(3), np.int32(1), np.array([90.0, 80.0, 78.85, 0, 0])),
        status=Status.MAX_STEPS,
        timing={"load": 0.25, "fit": 0.5},
    )
    assert written == path
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


def test_nothing_comes_from_elsewhere(source, page):
    # Base64 has slashes too.
    plain = re.sub(r'data:image/png;base64,[^"]*|"[A-Za-z0-9+/]+=*"', "", source)
    assert not re.search(r"https?:|//|@import|url\((?!#)", plain)
    assert "default-src 'none'" in source
    assert [script.get("src") for script in page.all("script")] == [None] * 3
    assert not page.all("link")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png"))


def test_references_and_ids_are_of_this_page(source, page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 0
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source)
    assert used
    assert {a or b for a, b in used} <= set(ids)


def test_scores_are_shown_with_their_meaning(page):
    for word in ("0.7163", "0.5512", "1,165,189", "3.2500", "Adjusted Rand index", "Silhouette", "My score"):
        assert word in page.text
    for name in ("adjusted_rand", "silhouette", "inertia"):
        assert SCORE_INFO[name].range in page.text
        assert SCORE_INFO[name].description in page.text
    captions = [caption for caption in ("Against the truth", "Without the truth") if caption in page.text]
    assert len(captions) == 2


def test_everything_is_escaped(source, page):
    assert "<script>alert(1)" not in source
    assert "<script>alert(1)</script>" in page.text
    assert "<none>" in page.text


def test_what_was_run_is_told(page):
    for word in ("algorithm", "kmeans", "data.scale", "array (3, 4)", "jaxlib", "numpy", "Python", "150", "0.500 s"):
        assert word in page.text
    assert "iris: 150 rows of 4 columns in 3 clusters. The truth has 3 classes." in page.text


def test_pictures_have_alternative_texts(page):
    pictures = [svg for svg in page.all("svg") if svg.get("class") != "histogram"]
    assert len(pictures) == 7  # PCA and t-SNE by cluster and by class, silhouette, sizes, history
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 20 for svg in pictures)
    assert len({svg["aria-label"] for svg in pictures}) == 7


def test_pictures_follow_the_page_into_the_dark(source):
    assert "prefers-color-scheme: dark" in source
    assert "var(--ink)" in source
    assert plots.style.INK not in source.split("</style>")[1].split("<script")[0]


def test_a_run_that_did_not_converge_is_pointed_out(page, iris, labels, tmp_path):
    assert sections.WARNINGS[Status.MAX_STEPS] in page.text
    path = write_report(
        tmp_path / "r.html", title="t", config={}, scores={}, dataset=iris, labels=labels, status=0, tsne=False
    )
    text = path.read_text(encoding="utf-8")
    assert "converged" in text
    assert 'class="warn"' not in text


# Mixtures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spreads(iris, labels) -> np.ndarray:
    return np.stack([np.cov(iris.x[labels == j].T) for j in range(3)])


def mixture_report(path, dataset, labels, means, components, **options) -> Page:
    write_report(
        path,
        title="a mixture",
        config={},
        scores={"log_likelihood": -1.25, "bic": 580.8, "aic": 448.4},
        dataset=dataset,
        labels=labels,
        centers=means,
        components=components,
        history=[-3.0, -1.5, -1.25],
        objective="lower bound (nats per row)",
        best="max",
        **{"tsne": False, **options},
    )
    return Page(path.read_text(encoding="utf-8"))


def test_a_mixture_has_its_components_told_and_drawn(iris, labels, centers, spreads, tmp_path):
    page = mixture_report(tmp_path / "r.html", iris, labels, centers, Components([0.3, 0.5, 0.2], spreads))
    assert "Components" in page.words
    assert "Centers" not in page.words
    for j in range(3):
        for mean, deviation in zip(centers[j], np.sqrt(np.diag(spreads[j])), strict=True):
            assert f"{tables.number(mean, 3)} ± {tables.number(deviation, 3)}" in page.words
    for word in ("0.3000", str(np.sum(labels == 1)), "petal width (cm)"):
        assert word in page.words
    (picture,) = (svg["aria-label"] for svg in page.all("svg") if "Ellipses" in svg["aria-label"])
    assert "3 components" in picture


def test_the_objective_is_called_by_its_name(iris, labels, centers, spreads, tmp_path):
    page = mixture_report(tmp_path / "r.html", iris, labels, centers, Components([0.3, 0.5, 0.2], spreads))
    assert any("Curve of the lower bound (nats per row) over 3 steps" in svg["aria-label"] for svg in page.all("svg"))
    assert "the lower bound (nats per row) should rise" in page.text
    assert "Lower bound (nats per row) over 3 steps" in page.text
    assert "inertia" not in page.text.lower()
    for name in ("log_likelihood", "bic", "aic"):
        assert SCORE_INFO[name].description in page.text
        assert not score_info(name).truth


def test_of_k_means_the_inertia_should_fall(page):
    assert "the inertia should fall" in page.text
    assert any("Curve of the inertia over 3 steps" in svg["aria-label"] for svg in page.all("svg"))


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_components_of_every_type_are_told(iris, labels, centers, spreads, kind, tmp_path):
    variances = spreads.diagonal(axis1=1, axis2=2)
    covariances = {"tied": spreads.mean(0), "diag": variances, "spherical": variances.mean(1)}[kind]
    components = Components([0.3, 0.5, 0.2], covariances, kind)
    page = mixture_report(tmp_path / "r.html", iris, labels, centers, components)
    variance = {"tied": spreads.mean(0)[1, 1], "diag": variances[0, 1], "spherical": variances[0].mean()}[kind]
    assert f"{tables.number(centers[0, 1], 3)} ± {tables.number(np.sqrt(variance), 3)}" in page.words


def test_one_column_has_its_densities_drawn(iris, labels, centers, spreads, tmp_path):
    dataset = iris._replace(x=iris.x[:, 2:3], columns=["length"])
    components = Components([0.3, 0.5, 0.2], spreads[:, 2:3, 2:3])
    page = mixture_report(tmp_path / "r.html", dataset, labels, centers[:, 2:3], components)
    assert any("Density curves of 3 components" in svg["aria-label"] for svg in page.all("svg"))


def test_many_columns_or_components_are_told_shortly(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(80, 20)).astype(np.float32), np.arange(80) % 4
    variances = rng.uniform(1, 9, (4, 20))
    components = Components(np.full(4, 0.25), variances, "diag")
    page = mixture_report(tmp_path / "a.html", Dataset("wide", x), labels, x[:4], components)
    assert tables.number(np.sqrt(variances[2].mean())) in page.words
    assert "±" not in page.text
    many = Components(np.full(70, 1 / 70), 1.0 + np.arange(70), "spherical")
    page = mixture_report(tmp_path / "b.html", Dataset("wide", x), labels, x[:70], many)
    assert "Centers" not in page.words


def test_empty_components_are_counted_but_not_drawn(iris, labels, centers, spreads, tmp_path):
    five = np.concatenate([np.full((2, 4), 9.0), centers])
    components = Components([0, 0, 0.3, 0.5, 0.2], np.concatenate([spreads[:2], spreads]))
    page = mixture_report(tmp_path / "r.html", iris, labels + 2, five, components)
    assert " ".join(page.words).count("(2 of 5 left out)") == 1
    assert dict(zip(page.words, page.words[1:], strict=False))["components"] == "5"
    source = (tmp_path / "r.html").read_text(encoding="utf-8")
    maps = source[source.index("<h2>Maps</h2>") : source.index("<h2>Clusters</h2>")]
    discs = re.findall(r"<text [^>]*8.5px[^>]*>(\d)</text>", maps)  # the size of a disc's number
    assert discs == ["2", "3", "4"]


def test_images_have_their_means_drawn_for_a_mixture(tmp_path):
    rng = np.random.default_rng(0)
    dataset = Dataset("faces", rng.random((30, 12)).astype(np.float32), None, None, (4, 3))
    components = Components(np.full(3, 1 / 3), np.ones(3), "spherical")
    page = mixture_report(tmp_path / "r.html", dataset, np.arange(30) % 3, rng.random((3, 12)), components)
    assert any("4 by 3 pixels" in svg["aria-label"] for svg in page.all("svg"))
    assert "Components" in page.words


def test_a_collapsed_component_is_pointed_out(iris, labels, centers, spreads, tmp_path):
    components = Components([0.3, 0.5, 0.2], spreads)
    page = mixture_report(tmp_path / "r.html", iris, labels, centers, components, status=Status.COLLAPSED)
    assert sections.WARNINGS[Status.COLLAPSED] in page.text
    assert "collapsed" in page.words
    assert "reg_covar" in sections.WARNINGS[Status.COLLAPSED]


def test_every_ending_has_words():
    assert set(sections.ENDINGS) == set(Status)
    assert set(sections.WARNINGS) == set(Status) - {Status.CONVERGED}


# Units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "axis"), [("standard", "z-score"), ("minmax", "0 to 1"), ("l2", "rows of length 1")])
def test_centers_are_in_data_units_with_named_axes(iris, labels, centers, how, axis, tmp_path):
    dataset = iris._replace(x=iris.x[:, :2] + 1e4, columns=list(iris.columns[:2]))
    scaled, scaling = scale(dataset.x, how)
    means = np.stack([scaled[labels == j].mean(0) for j in range(3)])
    options = {"config": {}, "scores": {"inertia": 3.0}, "labels": labels, "centers": means, "scaling": scaling}
    path = write_report(tmp_path / "r.html", title="t", dataset=dataset._replace(x=scaled), **options)
    page = Page(path.read_text(encoding="utf-8"))
    table = page.words.index("Centers, of rows scaled to length 1" if how == "l2" else "Centers, in the data's units")
    shown = means if how == "l2" else centers[:, :2] + 1e4
    for column in shown.T:
        assert set(tables.numbers(column)) <= set(page.words[table:])
    assert f"{iris.columns[0]} ({axis})" in page.text
    assert "as they were clustered" in page.text


def test_deviations_are_in_data_units(iris, labels, tmp_path):
    scaled, scaling = scale(iris.x * 1000, "standard")
    means = np.stack([scaled[labels == j].mean(0) for j in range(3)])
    covariances = np.stack([np.cov(scaled[labels == j].T) for j in range(3)])
    components = Components([0.3, 0.4, 0.3], covariances)
    page = mixture_report(tmp_path / "r.html", iris._replace(x=scaled), labels, means, components, scaling=scaling)
    rows = iris.x[labels == 1, 1] * 1000
    assert f"{tables.number(rows.mean(), 3)} ± {tables.number(rows.std(ddof=1), 3)}" in page.words


def test_centers_with_late_differences_are_told_apart():
    assert tables.numbers(np.array([1_700_000_030.95, 1_700_000_031.0])) == ["1,700,000,030.950", "1,700,000,031.000"]
    assert tables.numbers(np.array([1e12, 1e12 + 60])) == ["1,000,000,000,000", "1,000,000,000,060"]
    assert tables.numbers(np.array([5.0, 5.0])) == ["5.0000", "5.0000"]
    assert tables.numbers(np.array([0.00001, 0.5])) == ["1e-05", "0.5000"]
    assert [tables.numbers(np.array([2e-7, b]))[0] for b in (1.0, 3e-7)] == ["0.0000", "2e-07"]  # rounding beside 1


def test_what_was_decided_about_the_data_is_told(iris, labels, tmp_path):
    dataset = iris._replace(notes=("the first line is <taken> for names.",))
    options = {"config": {}, "scores": {}, "labels": labels, "remarks": ["Weights count."], "tsne": False}
    page = Page(write_report(tmp_path / "r.html", title="t", dataset=dataset, **options).read_text(encoding="utf-8"))
    assert "The first line is <taken> for names." in page.words
    assert "Weights count." in page.words


def test_rows_with_missing_cells_have_a_report(iris, labels, centers, spreads, tmp_path):
    x = iris.x.copy()
    x[::7, 1] = np.nan
    page = mixture_report(
        tmp_path / "r.html", iris._replace(x=x), labels, centers, Components([0.3, 0.5, 0.2], spreads), tsne=True
    )
    assert "Missing cells are drawn at the mean of their column." in page.words
    assert "Silhouette of each row" not in page.text


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_rows_of_any_unit_have_a_report(iris, labels, unit, tmp_path):
    dataset = iris._replace(x=iris.x * unit)
    options = {"config": {}, "scores": {}, "labels": labels, "tsne": True}
    page = Page(write_report(tmp_path / "r.html", title="t", dataset=dataset, **options).read_text(encoding="utf-8"))
    share = np.linalg.eigvalsh(np.cov(iris.x.T))[::-1] / np.trace(np.cov(iris.x.T))
    assert f"component 1 ({share[0]:.1%} of the variance)" in page.text


def test_all_noise_is_told(iris, tmp_path):
    options = {"config": {}, "scores": {}, "labels": np.full(150, -1), "status": Status.CONVERGED, "tsne": False}
    page = Page(write_report(tmp_path / "r.html", title="t", dataset=iris, **options).read_text(encoding="utf-8"))
    assert "converged" not in page.text
    assert "iris: 150 rows of 4 columns, all of them noise. The truth has 3 classes." in page.words
    assert any(word.startswith("Every row is noise") for word in page.words)
    assert "All rows are noise" in page.text


def test_the_silhouettes_are_of_the_metric(iris, labels, tmp_path, monkeypatch):
    taken = []
    draw = plots.silhouette
    monkeypatch.setattr(plots, "silhouette", lambda *rows, **options: taken.append(options) or draw(*rows, **options))
    options = {"config": {}, "scores": {}, "labels": labels, "metric": "minkowski", "p": 3, "tsne": False}
    write_report(tmp_path / "r.html", title="t", dataset=iris, **options)
    assert (taken[0]["metric"], taken[0]["p"]) == ("minkowski", 3)


def test_contingency_counts_rows(iris, labels):
    table = Page(tables.contingency(labels, iris.y))
    cells = [[int(cell) for cell in re.findall(r"<td[^>]*>(\d+)</td>", line)] for line in _lines(labels, iris.y)]
    expected = [[np.sum((labels == j) & (iris.y == name)) for name in np.unique(iris.y)] for j in range(3)]
    assert [row[:-1] for row in cells[1:-1]] == expected
    assert cells[-1] == [50, 50, 50, 150]
    assert "setosa" in table.text


def _lines(labels, truth) -> list[str]:
    return re.findall(r"<tr>.*?</tr>", tables.contingency(labels, truth))


def test_contingency_order_by_class_with_noise_last():
    lines = _lines(np.array([-1, 0, 0, 1, 2, 2]), np.array(["a", "c", "c", "b", "a", "a"]))
    heads = [re.search(r"</span>(\w+)</th>", line)[1] for line in lines[1:-1]]
    assert heads == ["2", "1", "0", "noise"]


def test_contingency_escapes_and_limits_classes():
    assert "<b>" not in tables.contingency(np.array([0, 0]), np.array(["<b>", "x"]))
    assert "too many" in tables.contingency(np.zeros(100, int), np.arange(100))


def test_images_have_their_centers_drawn(tmp_path):
    rng = np.random.default_rng(0)
    dataset = Dataset("faces", rng.random((30, 12)).astype(np.float32), None, None, (4, 3))
    labels = np.arange(30) % 3
    path = tmp_path / "r.html"
    write_report(
        path, title="t", config={}, scores={}, dataset=dataset, labels=labels, centers=rng.random((3, 12)), tsne=False
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert any("4 by 3 pixels" in svg["aria-label"] for svg in page.all("svg"))
    assert "30 images of 4 by 3 pixels" in page.text
    assert "Clusters and classes" not in page.text
    assert "Scores" not in page.text


@pytest.mark.parametrize(
    "labels",
    [np.zeros(40, int), np.full(40, -1), np.where(np.arange(40) < 20, -1, 0), np.arange(40)],
    ids=["one cluster", "all noise", "one cluster and noise", "each row a cluster"],
)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_unusual_runs_have_a_report_too(tmp_path, labels, d):
    x = np.random.default_rng(0).normal(size=(40, d)).astype(np.float32)
    path = write_report(
        tmp_path / "r.html",
        title="t",
        config={"x": [1, 2]},
        scores={"silhouette": None, "davies_bouldin": float("nan")},
        dataset=Dataset("blobs", x),
        labels=labels,
        history=[np.nan],
        timing=1.5,
        tsne=False,
    )
    page = Page(path.read_text(encoding="utf-8"))
    assert "—" in page.text
    assert "not a number" in page.text
    assert "1.5 s" in page.text
    assert ("noise" in page.text) == bool((labels == -1).any())


def test_tsne_is_left_out_of_many_rows(iris, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(exploration, "TSNE_ROWS", 100)
    path = write_report(tmp_path / "r.html", title="t", config={}, scores={}, dataset=iris, labels=labels)
    assert "t-SNE" not in path.read_text(encoding="utf-8")


def test_nothing_is_left_half_written(iris, labels, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the last one", encoding="utf-8")

    def fail(*_, **__):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(plots, "cluster_sizes", fail)
    options = {"title": "t", "config": {}, "scores": {}, "dataset": iris, "labels": labels, "tsne": False}
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(path, **options)
    monkeypatch.undo()
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(path, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == "the last one"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(3)}, "labels"),
        ({"centers": np.zeros((3, 9))}, "centers"),
        ({"dataset": Dataset("d", np.zeros((150, 4), np.float32), np.zeros(3))}, "truth"),
        ({"components": Components([1.0], np.eye(4)[None])}, "pass them as centers"),
        ({"components": Components([0.5, 0.5], np.eye(4)[None]), "centers": np.zeros((1, 4))}, r"weights \(2,\)"),
        ({"components": Components([1.0], np.eye(3)[None]), "centers": np.zeros((1, 4))}, r"covariances \(1, 3, 3\)"),
        ({"best": "least"}, "'least' is not known"),
    ],
)
def test_what_does_not_fit_is_refused(iris, labels, tmp_path, changed, message):
    options = {"title": "t", "config": {}, "scores": {}, "dataset": iris, "labels": labels} | changed
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path / "r.html", **options)
    assert not list(tmp_path.iterdir())


def test_scores_of_the_metrics_module_are_known():
    from jaxcluster import metrics

    names = [name for name in metrics.__all__ if name.endswith("_score")] + ["clustering_accuracy"]
    assert len(names) > 10
    for name in names:
        assert score_info(name).description, name
    assert score_info("ari") == score_info("adjusted_rand_score") == SCORE_INFO["adjusted_rand"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1797, "1,797"),
        (0.66651, "0.6665"),
        (1165189.4, "1,165,189"),
        (561.62, "561.6"),
        (446.0, "446.0"),
        (1e-7, "1e-07"),
        (0.0, "0.0000"),
        (True, "yes"),
        (np.inf, "infinite"),
        (-2.5, "-2.5000"),
        (3e15, "3e+15"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert tables.number(value) == text

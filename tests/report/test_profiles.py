"""Profiles of clusters, against NumPy, scikit-learn's silhouettes and trees, and planted differences."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import silhouette_samples
from sklearn.tree import DecisionTreeClassifier

import jaxcluster as jc

N = 150


class Labeled:
    """A model of which only the labels are known."""

    def __init__(self, labels: np.ndarray, **attributes: object) -> None:
        self.labels_ = labels
        vars(self).update(attributes)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], N // 3)
    start = np.datetime64("2024-03-01T00:00:00", "s")
    return pd.DataFrame(
        {
            "length": rng.normal(size=N) + 10 * (y == 1),
            "width": 1.7e9 + rng.normal(size=N) + 20 * (y == 2),
            "noise": rng.normal(size=N),
            "constant": np.ones(N),
            "color": np.where(y == 0, "<red>", np.where(np.arange(N) % 2, "blue", "green")),
            "day": start + (y * 40 + np.arange(N) % 7).astype("timedelta64[D]"),
            "ripe": np.arange(N) % 2 == 0,
        }
    )


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.repeat([0, 1, 2], N // 3)


@pytest.fixture(scope="module")
def x(table) -> np.ndarray:
    return (table[["length", "width", "noise"]] - [0, 1.7e9, 0]).to_numpy()


@pytest.fixture(scope="module")
def found(table, labels, x) -> jc.report.Profile:
    return jc.profile(Labeled(labels), x, table=table, ids=[f"r{i}" for i in range(N)])


def test_numbers_are_those_of_numpy(found, table, labels, x):
    silhouettes = silhouette_samples(x, labels)
    assert found.silhouette == pytest.approx(silhouettes.mean(), rel=1e-5)
    for cluster in found.clusters:
        inside = labels == cluster.label
        assert (cluster.size, cluster.share) == (N // 3, pytest.approx(1 / 3))
        assert cluster.silhouette == pytest.approx(silhouettes[inside].mean(), rel=1e-5)
        for name in ("length", "width", "noise"):
            assert cluster.center[name] - table[name][0] == pytest.approx((table[name] - table[name][0])[inside].mean())
        differences = {each.column: each for each in cluster.differences}
        assert not {"constant", "color"} & set(differences)
        length = table["length"]
        expected = (length[inside].mean() - length[~inside].mean()) / length.std(ddof=0)
        assert differences["length"].difference == pytest.approx(expected)
        distances = np.linalg.norm(x - x[inside].mean(axis=0), axis=1)
        assert [row.row for row in cluster.typical] == np.flatnonzero(inside)[np.argsort(distances[inside])][
            :3
        ].tolist()
        assert [row.row for row in cluster.border] == np.flatnonzero(inside)[np.argsort(silhouettes[inside])][
            :3
        ].tolist()
        assert all(row.name == f"r{row.row}" for row in [*cluster.typical, *cluster.border, *cluster.outliers])


def test_what_was_planted_sets_clusters_apart(found):
    red, long, wide = found.clusters
    assert red.differences[0].column == "color=<red>"
    assert long.differences[0].column in ("length", "color=<red>")
    assert wide.differences[0].column == "width"
    assert [(share.word, share.cluster) for share in red.words["color"]] == [("<red>", 1.0)]
    assert red.words["color"][0].all == pytest.approx(1 / 3)
    assert {share.word for share in long.words["ripe"]} == {"true", "false"}
    assert found.dates == ["day"]


def test_rules_are_a_tree_in_the_units_of_the_table(found, table, labels, x):
    assert (found.depth, found.accuracy) == (2, 1.0)
    rows = jc.profile(Labeled(labels), x, columns=["length", "width", "noise"], depth=3)
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x, labels)
    assert rows.accuracy == tree.score(x, labels)
    for cluster in rows.clusters:
        for rule in cluster.rules:
            inside = np.ones(N, bool)
            for name, above, up_to, *_ in rule.conditions:
                column = x[:, ["length", "width", "noise"].index(name)]
                inside &= (column > (-np.inf if above is None else above)) & (
                    column <= (np.inf if up_to is None else up_to)
                )
            assert (inside.sum(), (inside & (labels == rule.label)).sum()) == (rule.size, rule.own)
    dated = jc.profile(Labeled(labels), x, table=table[["day"]])
    assert [str(cluster.rules[0]) for cluster in dated.clusters] == [
        "day <= 2024-03-24: 50 of 50 rows, and 0 others",
        "2024-03-24 < day <= 2024-05-03: 50 of 50 rows, and 0 others",
        "day > 2024-05-03: 50 of 50 rows, and 0 others",
    ]


def test_a_profile_is_shown_as_text_html_and_json(found):
    text = str(found)
    assert text.startswith("150 rows in 3 clusters; silhouette 0.")
    assert "color: <red> 100% (of all 33%)" in text
    page = found._repr_html_()
    assert "&lt;red&gt;" in page
    assert "<red>" not in page
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["clusters"][1]["rules"][0]["text"] == str(found.clusters[1].rules[0])
    assert repr(found) == "<Profile of 150 rows in 3 clusters; print shows it>"


def test_noise_missing_cells_and_outliers(labels, x, table):
    rows, noisy = x.copy(), labels.copy()
    noisy[:5], rows[7, 0], rows[20, 1] = -1, np.nan, 500.0
    holes = table.assign(color=table["color"].where(np.arange(N) != 9, None))
    found = jc.profile(Labeled(noisy), rows, table=holes)
    assert (found.noise, found.clusters[0].size, found.silhouette) == (5, 45, None)
    assert found.clusters[0].outliers[0].row == 20
    assert found.clusters[0].words["color"][0].cluster == 1.0
    scored = Labeled(noisy, outlier_scores_=np.arange(N) == 30)
    assert [row.row for row in jc.profile(scored, x).clusters[0].outliers] == [30]
    with pytest.raises(ValueError, match="every row is noise"):
        jc.profile(Labeled(np.full(N, -1)), x)
    with pytest.raises(ValueError, match="X has 149 rows for 150 labels"):
        jc.profile(Labeled(labels), x[1:])
    with pytest.raises(ValueError, match="2 names do not fit 3 columns"):
        jc.profile(Labeled(labels), x, columns=["a", "b"])


def test_one_cluster_and_a_matrix_of_distances(labels, x):
    one = jc.profile(Labeled(np.zeros(N, int)), x)
    assert (one.clusters[0].rules, one.clusters[0].differences, one.silhouette) == ([], [], None)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    found = jc.profile(Labeled(labels, metric="precomputed"), distances, table=x)
    assert found.silhouette == pytest.approx(silhouette_samples(x, labels).mean(), rel=1e-5)
    assert found.clusters[0].typical == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b", "c"] * (N // 3)}, "whole numbers"),
        ({"labels": [0.5] * N}, "whole numbers"),
        ({"depth": 0}, "depth=0"),
        ({"n_rows": -2}, "n_rows=-2"),
    ],
)
def test_profiles_that_cannot_be_made(x, labels, options, message):
    with pytest.raises(NotFittedError):
        jc.profile(jc.KMeans(3), x)
    with pytest.raises(ValueError, match=message):
        jc.profile(Labeled(labels), x, **options)


def test_an_estimator_has_the_names_of_its_table(blobs):
    frame = pd.DataFrame(blobs.x, columns=list("abcde"))
    model = jc.KMeans(4, random_state=0).fit(frame)
    found = jc.profile(model, frame)
    for cluster, center in zip(found.clusters, model.cluster_centers_, strict=True):
        np.testing.assert_allclose(list(cluster.center.values()), center, atol=1e-4)
    assert found.accuracy > 0.95

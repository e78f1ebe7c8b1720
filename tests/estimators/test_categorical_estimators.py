"""`KModes` and `KPrototypes` on tables: categories in and out, new rows, weights, saving, messages."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from saved_models import saved_and_loaded
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from jaxcluster import KModes, KPrototypes

pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def table():
    """60 rows of three kinds: a color, a size, a grade and a flag, each of which tells some kinds apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    frame = pandas.DataFrame(
        {
            "color": np.array(["red", "green", "blue"])[y],
            "size": rng.normal(size=60) + 8 * y,
            "grade": pandas.Categorical(np.array(["low", "low", "high"])[y], categories=["low", "high"]),
            "flag": (y == 1) ^ (rng.random(60) < 0.1),
        }
    )
    return frame, y


def test_centers_are_rows_of_the_table(table, tmp_path):
    frame, y = table
    model = KPrototypes(3, random_state=0).fit(frame)
    assert adjusted_rand_score(model.labels_, y) == 1
    assert model.categorical_columns_.tolist() == [0, 2, 3]
    assert model.categories_ == [["blue", "green", "red"], ["high", "low"], [False, True]]
    assert model.feature_names_in_.tolist() == list(frame)
    assert model.gamma_ == pytest.approx(frame["size"].std(ddof=0) / 2)
    kinds = model.labels_[[np.flatnonzero(y == kind)[0] for kind in range(3)]]
    centers = model.cluster_centers_[kinds]
    assert centers[:, [0, 2, 3]].tolist() == [["red", "low", False], ["green", "low", True], ["blue", "high", False]]
    np.testing.assert_allclose(centers[:, 1].astype(float), frame["size"].groupby(y).mean(), rtol=1e-6)
    saved_and_loaded(model, frame, tmp_path / "model")
    assert model.score(frame) == pytest.approx(-model.inertia_)


def test_modes_of_a_table(table, tmp_path):
    frame = table[0][["color", "grade", "flag"]]
    model = KModes(3, random_state=0).fit(frame)
    modes = {tuple(mode) for mode in model.cluster_centers_}
    assert modes == {("red", "low", False), ("green", "low", True), ("blue", "high", False)}
    off = frame.to_numpy(object) != model.cluster_centers_[model.labels_]
    assert model.inertia_ == off.sum() == -model.score(frame)
    back = saved_and_loaded(model, frame, tmp_path / "model")
    assert back.categories_ == [["blue", "green", "red"], ["high", "low"], [False, True]]
    again = KModes(3, init=model.cluster_centers_).fit(frame)
    np.testing.assert_array_equal(again.labels_, model.labels_)


def test_new_rows_with_an_unseen_category(table):
    frame, _ = table
    model = KPrototypes(3, random_state=0).fit(frame)
    new = frame.iloc[:5].copy()
    new.loc[new.index[0], "color"] = "pink"
    with pytest.warns(UserWarning, match="1 row has categories that the fit has not seen.*'pink' in column 'color'"):
        labels = model.predict(new)
    np.testing.assert_array_equal(labels[1:], model.labels_[1:5])
    new["color"] = [None, *frame["color"][1:5]]
    with pytest.raises(ValueError, match="X contains 1 NaN values .* in column 'color'"):
        model.predict(new)
    with pytest.raises(ValueError, match="The feature names should match.*'color' missing"):
        model.predict(frame.drop(columns="color").assign(colour="red"))
    with pytest.raises(ValueError, match="text or categories in column 'size', which was one of numbers in the fit"):
        model.predict(frame.assign(size="large"))


def test_weights_move_modes(table):
    frame = table[0][["color"]]
    heavy = np.where(frame["color"] == "green", 100.0, 1.0)
    assert KModes(1).fit(frame, sample_weight=heavy).cluster_centers_.tolist() == [["green"]]


def test_messages(table):
    frame, _ = table
    with pytest.warns(UserWarning, match=r"X has fractions in 1 column, such as .* in column 'size'.*Use KPrototypes"):
        KModes(2).fit(frame)
    with pytest.warns(ConvergenceWarning, match="X has 2 distinct rows"):
        KModes(3).fit([["a"], ["b"], ["a"], ["b"]])
    with pytest.raises(ValueError, match=r"initial centers \(2, 3\) does not match n_clusters=3"):
        KModes(3, init=np.full((2, 3), "a")).fit(frame[["color"]])
    with pytest.raises(ValueError, match="init has categories that X does not: 'pink' in column 'color'"):
        KModes(2, init=[["pink"], ["red"]]).fit(frame[["color"]])
    with pytest.raises(TypeError, match="sparse matrix"):
        KModes(2).fit(scipy.sparse.eye_array(3))

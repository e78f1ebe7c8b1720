"""Plots of medoids and of transport plans show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from jaxcluster import plots
from jaxcluster.plots import style
from jaxcluster.plots import transport as transport_plots

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = RNG.normal(size=(9, 2)) + 3
LABELS = np.array([0, 1, 2] * 4)
PLAN = RNG.random((12, 9)) * (RNG.random((12, 9)) > 0.5)


def lines(ax) -> LineCollection:
    (result,) = [each for each in ax.collections if isinstance(each, LineCollection)]
    return result


def test_each_row_is_joined_with_its_medoid():
    indices = np.array([3, 4, 5])
    ax = plots.medoids(X, LABELS, indices, columns=["a", "b"])
    ends = np.array(lines(ax).get_segments())
    np.testing.assert_allclose(ends[:, 0], X)
    np.testing.assert_allclose(ends[:, 1], X[indices[LABELS]])
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"]
    assert ax.get_title("left").startswith("Medoids and their rows")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_many_columns_come_to_the_principal_plane():
    x = RNG.normal(size=(30, 5))
    ax = plots.medoids(x, np.arange(30) % 3, [0, 1, 2])
    assert "principal plane" in ax.get_title("left")


@pytest.mark.parametrize("indices", [[0.0, 1.0, 2.0], [[0, 1, 2]], [0, 1, 12], [-1, 0, 1]])
def test_medoids_that_are_no_rows_are_refused(indices):
    with pytest.raises(ValueError, match="row numbers from 0 to 11"):
        plots.medoids(X, LABELS, indices)


def test_a_label_without_a_medoid_is_refused():
    with pytest.raises(ValueError, match="label 2 has no medoid: 2 medoids were passed"):
        plots.medoids(X, LABELS, [0, 1])


def test_lines_carry_nearly_all_of_the_mass():
    ax = plots.transport_plan(PLAN, X, Y, labels=LABELS)
    result = lines(ax)
    ends = np.array(result.get_segments())
    rows = np.array([int(np.flatnonzero((start == X).all(1))[0]) for start in ends[:, 0]])
    columns = np.array([int(np.flatnonzero((end == Y).all(1))[0]) for end in ends[:, 1]])
    mass = PLAN[rows, columns]
    assert (np.diff(mass) >= 0).all()
    assert mass.sum() >= 0.99 * PLAN.sum()
    assert mass[1:].sum() < 0.99 * PLAN.sum()
    assert [to_hex(color) for color in result.get_colors()] == [style.color_of(int(LABELS[i])) for i in rows]
    assert f"{len(mass)} lines" in ax.get_title("left")


def test_a_plan_of_many_entries_shows_the_heaviest(monkeypatch):
    monkeypatch.setattr(transport_plots, "MAX_LINES", 5)
    ax = plots.transport_plan(PLAN, X, Y)
    assert len(lines(ax).get_segments()) == 5
    assert f"{np.sort(PLAN, axis=None)[-5:].sum() / PLAN.sum():.0%} of the mass" in ax.get_title("left")


def test_plan_without_rows_is_a_picture_of_the_matrix():
    ax = plots.transport_plan(PLAN)
    np.testing.assert_array_equal(ax.images[0].get_array(), PLAN)
    assert ax.get_title("left") == "Plan of 12 rows onto 9"


def test_the_axes_given_are_drawn_on():
    _, ax = plt.subplots()
    assert plots.transport_plan(PLAN, X, Y, ax=ax) is ax
    assert plots.medoids(X, LABELS, [0, 1, 2], ax=ax) is ax


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((PLAN.T, X, Y), {}, r"plan \(9, 12\) does not fit rows \(12, 2\) and \(9, 2\)"),
        ((PLAN, X), {}, "x and y go together"),
        ((-PLAN,), {}, "numbers >= 0"),
        ((PLAN[0],), {}, r"got shape \(9,\)"),
        ((PLAN, X, Y[:, :1]), {}, "does not fit rows"),
        ((PLAN, X, Y), {"labels": LABELS[:5]}, r"labels \(5,\) do not fit 12 rows"),
    ],
)
def test_wrong_plans_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        plots.transport_plan(*arguments, **options)

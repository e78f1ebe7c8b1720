"""Plots of a training, of reconstructions and of generated images show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcluster import plots

RECORDS = [
    *({"phase": "pretrain", "epoch": i, "loss": 10.0**-i} for i in range(1, 4)),
    *({"phase": "cluster", "epoch": i, "loss": 1 + i, "changed": 0.5 / i} for i in range(1, 3)),
    {"phase": "cluster", "epoch": 3, "loss": float("nan"), "changed": 0.0},
]


def lines(ax) -> list[tuple[list[float], list[float]]]:
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for panel in ax.child_axes for line in panel.lines]


def test_each_phase_has_its_own_curve_and_scale():
    ax = plots.training_curves(RECORDS)
    (first, falling), (second, rising) = lines(ax)
    assert (first, second) == ([1, 2, 3], [1, 2])  # a loss that is not a number is left out
    np.testing.assert_allclose(falling, [0.1, 0.01, 0.001])
    np.testing.assert_allclose(rising, [2, 3])
    assert [panel.get_yscale() for panel in ax.child_axes] == ["log", "linear"]
    assert [panel.get_xlabel() for panel in ax.child_axes] == ["epoch of pretraining", "epoch of clustering"]


def test_a_fraction_that_falls_to_zero_is_drawn():
    ax = plots.training_curves(RECORDS, name="changed", title="Share of rows")
    assert lines(ax) == [([1, 2, 3], [0.5, 0.25, 0.0])]
    assert ax.get_title(loc="left") == "Share of rows"
    with pytest.raises(ValueError, match="no finite 'divergence'"):
        plots.training_curves(RECORDS, name="divergence")


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_moments_are_maps_of_the_same_rows(latent):
    rng = np.random.default_rng(0)
    moments = {f"epoch {i}": rng.normal(size=(60, latent)) * (i + 1) for i in range(4)}
    ax = plots.embedding_through_training(moments, np.arange(60) % 3)
    assert [panel.get_title(loc="left") for panel in ax.child_axes] == list(moments)
    drawn = [np.concatenate([np.asarray(part.get_offsets()) for part in panel.collections]) for panel in ax.child_axes]
    assert all(points.shape == (60, 2) for points in drawn)
    if latent == 2:
        np.testing.assert_allclose(np.sort(drawn[1], axis=0), np.sort(moments["epoch 1"], axis=0))
    with pytest.raises(ValueError, match="do not fit"):
        plots.embedding_through_training(moments, np.zeros(3, int))
    with pytest.raises(ValueError, match="no moments"):
        plots.embedding_through_training({}, np.zeros(3, int))


def test_one_plane_serves_all_moments():
    rng = np.random.default_rng(0)
    last = rng.normal(size=(50, 4)) * [9, 5, 1, 1]
    first = rng.normal(size=(50, 4)) * [1, 1, 9, 9]
    ax = plots.embedding_through_training({"first": first, "last": last}, np.zeros(50, int))
    spread = [np.asarray(panel.collections[0].get_offsets()).std() for panel in ax.child_axes]
    assert spread[0] < 2 < spread[1]  # what varied at first is hardly on the plane of the end


def test_reconstructions_are_below_their_inputs():
    x = np.zeros((20, 12), np.float32)
    x[:, 0] = 1
    ax = plots.reconstructions(x, 1 - x, (4, 3), names=range(20))
    sheet = np.asarray(ax.images[0].get_array())
    texts = [text.get_text() for text in ax.texts]
    assert texts[:16] == [str(i) for i in range(16)]
    assert texts[16:] == ["input", "output"]
    assert sheet[1, 0].tolist() == [1, 1, 1, 1]
    assert sheet[6, 0].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="not pairs of images"):
        plots.reconstructions(x, x[:, :6], (4, 3))


def test_a_line_of_samples_is_a_cluster():
    rows = np.repeat([[[0.0] * 4], [[1.0] * 4]], 3, axis=1)
    ax = plots.samples(rows, (2, 2))
    sheet = np.asarray(ax.images[0].get_array())
    assert [text.get_text() for text in ax.texts] == ["0", "1"]
    opaque = sheet[..., 3].any(axis=1)
    assert [row.max() for row in sheet[opaque][..., 0]] == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="not images"):
        plots.samples(rows, (3, 3))
    with pytest.raises(ValueError, match="channels"):
        plots.samples(rows, (2, 1, 2))


def test_reconstruction_errors_are_relative():
    x = np.random.default_rng(0).normal(size=(200, 3)) * [1, 10, 100]
    x = np.column_stack([x, np.ones(200)])
    back = np.column_stack([x[:, 0], np.full(200, x[:, 1].mean()), x[:, 2], np.zeros(200)])
    ax = plots.reconstruction_errors(x, back, columns=["a", "b", "c", "constant"])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [1, 0, 0], atol=1e-12)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a", "c"]
    assert "3 of 4 columns" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="no column of x varies"):
        plots.reconstruction_errors(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        plots.reconstruction_errors(x, back[:5])

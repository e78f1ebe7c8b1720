"""Box plots and correlations of a report: quartiles are Matplotlib's, correlations NumPy's, and any rows are drawn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.cbook import boxplot_stats

from jaxcluster.datasets.base import Dataset
from jaxcluster.report.context import ReportContext
from jaxcluster.report.data_page import alerts, correlation, data_page
from jaxcluster.report.readable import MAX_CLUSTERS, box_of, box_plots

EVIL = "<script>window.pwned = 1</script>"


def context(x, labels, columns=None) -> ReportContext:
    dataset = Dataset("d", x, None, columns)
    return ReportContext(config={}, scores={}, dataset=dataset, labels=labels).normalized()


@pytest.mark.parametrize("n", [1, 2, 5, 60])
def test_boxes_are_those_of_matplotlib(n):
    values = np.random.default_rng(n).standard_cauchy(n)
    box, oracle = box_of(values), boxplot_stats(values)[0]
    expected = [oracle[name] for name in ("whislo", "q1", "med", "q3", "whishi")]
    np.testing.assert_allclose(box[:5], expected, rtol=1e-12)
    assert box.outside == len(oracle["fliers"])


def test_correlations_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(50, 4)) * [1, 1e160, 1e-160, 1]
    x[:, 3] = 2 * x[:, 0] + 0.01 * x[:, 3]
    scaled = x / [1, 1e160, 1e-160, 1]
    np.testing.assert_allclose(correlation(x), np.corrcoef(scaled.T), atol=1e-12)
    same = [each for each in alerts(context(scaled, np.zeros(50, int)), np.arange(50)) if "almost the same" in each]
    assert len(same) == 1
    assert "column 3 and column 0" in same[0] or "column 0 and column 3" in same[0]


def test_any_rows_have_boxes():
    rng = np.random.default_rng(1)
    x = np.column_stack(
        [rng.normal(size=90), np.full(90, 7.0), np.where(rng.random(90) < 0.5, np.nan, 1e300), x_huge(90)]
    )
    run = context(x, np.arange(90) % 30, [EVIL, f"{EVIL}2", "holes", "huge"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = box_plots(run) + "".join(data_page(run))
    assert EVIL not in shown
    assert f"of the {MAX_CLUSTERS} largest clusters" in shown
    assert shown.count("<g><title>") == 2 * MAX_CLUSTERS  # the constant columns have no boxes
    assert "nan" not in shown
    assert box_plots(context(x, np.full(90, -1))) == ""


def x_huge(n: int) -> np.ndarray:
    return np.where(np.arange(n) % 2, 1e300, -1e300)

"""Scores against known classes: equal to scikit-learn's, exact where int64 would overflow, and invariant."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.cluster import expected_mutual_information

from jaxcluster import metrics
from jaxcluster.metrics import contingency, external
from jaxcluster.metrics.external import expected_mutual_information as expected_information

RNG = np.random.default_rng(0)
N = 500
CLASSES = RNG.integers(0, 6, N)
NOISY = np.where(RNG.random(N) < 0.6, CLASSES, RNG.integers(0, 6, N))

LABELINGS = {
    "noisy": (CLASSES, NOISY),
    "independent": (CLASSES, RNG.integers(0, 4, N)),
    "equal": (CLASSES, CLASSES),
    "renamed": (CLASSES, (CLASSES + 3) % 6 * 10),
    "finer": (CLASSES, CLASSES * 7 + RNG.integers(0, 7, N)),
    "coarser": (CLASSES, CLASSES // 3),
    "strings": (np.array(list("abcdef"))[CLASSES], np.array(["x", "longer", "y", "z", "u", "v"])[NOISY]),
    "objects": (np.array(list("abcdef"), object)[CLASSES], NOISY),
    "negative": (CLASSES - 9, NOISY - 1),
    "int8": ((CLASSES * 50 - 128).astype(np.int8), NOISY.astype(np.int8)),
    "uint64": (CLASSES.astype(np.uint64) + np.uint64(2**63), NOISY.astype(np.uint64)),
    "far_apart": (CLASSES * 10**12 - 2**60, NOISY),
    "booleans": (CLASSES > 2, NOISY > 3),
    "floats": (CLASSES.astype(np.float32), NOISY.astype(np.float64)),
    "one_cluster": (CLASSES, np.zeros(N, int)),
    "one_class": (np.zeros(N, int), NOISY),
    "one_of_each": (np.zeros(N, int), np.ones(N, int)),
    "all_distinct": (CLASSES, RNG.permutation(N)),
    "both_distinct": (RNG.permutation(N), RNG.permutation(N)),
    "one_row": (np.array([3]), np.array([5])),
    "two_rows": (np.array([0, 1]), np.array([4, 4])),
    "empty": (np.array([], int), np.array([], int)),
}

SCORES = [
    "rand_score",
    "adjusted_rand_score",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "adjusted_mutual_info_score",
    "homogeneity_score",
    "completeness_score",
    "v_measure_score",
    "fowlkes_mallows_score",
    "homogeneity_completeness_v_measure",
]
VARIANTS = [
    *((name, {}) for name in SCORES),
    *(("normalized_mutual_info_score", {"average_method": m}) for m in ("min", "max", "geometric")),
    *(("adjusted_mutual_info_score", {"average_method": m}) for m in ("max", "geometric")),
    *((name, {"beta": 0.3}) for name in ("v_measure_score", "homogeneity_completeness_v_measure")),
]
SYMMETRIC = [
    "rand_score",
    "adjusted_rand_score",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "adjusted_mutual_info_score",
    "v_measure_score",
    "fowlkes_mallows_score",
    "clustering_accuracy",
]
LEAST = {"adjusted_rand_score": -0.5, "adjusted_mutual_info_score": -1.0}
ALL = [*SCORES, "purity_score", "clustering_accuracy"]
SINGLE = [name for name in ALL if name != "homogeneity_completeness_v_measure"]


@pytest.mark.parametrize("labeling", LABELINGS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_scores_equal_scikit_learns(name, options, labeling):
    true, pred = LABELINGS[labeling]
    if labeling == "empty" and name == "mutual_info_score":  # scikit-learn fails there
        assert metrics.mutual_info_score(true, pred) == 0.0
        return
    expected = getattr(oracle, name)(true, pred, **options)
    np.testing.assert_allclose(getattr(metrics, name)(true, pred, **options), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("labeling", LABELINGS)
def test_tables_equal_scikit_learns(labeling):
    true, pred = LABELINGS[labeling]
    table = metrics.contingency_matrix(true, pred)
    assert table.dtype == np.int64
    np.testing.assert_array_equal(table, oracle.cluster.contingency_matrix(true, pred))
    np.testing.assert_array_equal(metrics.contingency_matrix(true, pred, sparse=True).toarray(), table)
    np.testing.assert_allclose(metrics.contingency_matrix(true, pred, eps=0.5), table + 0.5)
    pairs = metrics.pair_confusion_matrix(true, pred)
    assert pairs.dtype == np.int64
    np.testing.assert_array_equal(pairs, oracle.cluster.pair_confusion_matrix(true, pred))


def test_contingency_takes_the_dtype():
    table = metrics.contingency_matrix(CLASSES, NOISY, dtype=np.float32)
    assert table.dtype == np.float32
    assert metrics.contingency_matrix(CLASSES, NOISY, sparse=True, dtype=np.int32).dtype == np.int32


def test_mutual_information_of_a_contingency_table():
    table = metrics.contingency_matrix(CLASSES, NOISY)
    expected = oracle.mutual_info_score(CLASSES, NOISY)
    assert metrics.mutual_info_score(None, None, contingency=table) == pytest.approx(expected, rel=1e-12)
    sparse = metrics.contingency_matrix(CLASSES, NOISY, sparse=True)
    assert metrics.mutual_info_score(None, None, contingency=sparse) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="non-negative integers"):
        metrics.mutual_info_score(None, None, contingency=table + 0.5)


@pytest.mark.parametrize("options", [{}, {"normalize": "true"}, {"normalize": "pred"}, {"normalize": "all"}], ids=str)
@pytest.mark.parametrize("order", [None, [5, 0, 3], [2, 99, 1]], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_confusion_matrix_equals_scikit_learns(options, order, weighted):
    weight = RNG.random(N) if weighted else None
    arguments = {"labels": order, "sample_weight": weight, **options}
    expected = oracle.confusion_matrix(CLASSES, NOISY, **arguments)
    result = metrics.confusion_matrix(CLASSES, NOISY, **arguments)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert result.dtype.kind == expected.dtype.kind


def test_confusion_matrix_covers_labels_of_either_side():
    result = metrics.confusion_matrix(["b", "a"], ["a", "c"])
    np.testing.assert_array_equal(result, [[0, 0, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(metrics.confusion_matrix([], []), np.zeros((0, 0)))
    integer = metrics.confusion_matrix(CLASSES, NOISY, sample_weight=np.full(N, 2))
    np.testing.assert_array_equal(integer, 2 * metrics.confusion_matrix(CLASSES, NOISY))
    assert integer.dtype == np.int64


@pytest.mark.parametrize("name", ALL)
def test_numpy_jax_and_lists_agree(name):
    score = getattr(metrics, name)
    expected = score(CLASSES, NOISY)
    assert score(jnp.asarray(CLASSES), jnp.asarray(NOISY)) == expected
    assert score(CLASSES.tolist(), NOISY.tolist()) == expected
    assert score(CLASSES.astype(np.uint8), jnp.asarray(NOISY, jnp.int8)) == expected


@pytest.mark.parametrize("labeling", ["noisy", "finer", "negative", "far_apart", "uint64", "all_distinct"])
def test_counting_and_sorting_give_the_same_codes(labeling, monkeypatch):
    counted = [contingency.encode(side) for side in LABELINGS[labeling]]
    table = metrics.contingency_matrix(*LABELINGS[labeling])
    monkeypatch.setattr(contingency, "MIN_SLOTS", 0)
    monkeypatch.setattr(contingency, "SLOTS_PER_LABEL", 0)
    for before, side in zip(counted, LABELINGS[labeling], strict=True):
        for one, other in zip(before, contingency.encode(side), strict=True):
            np.testing.assert_array_equal(one, other)
        assert before.classes.dtype == side.dtype
    np.testing.assert_array_equal(metrics.contingency_matrix(*LABELINGS[labeling]), table)


def exact_pairs(true, pred):
    """Ordered pairs of rows as Python integers, from plain counters."""
    n = len(true)
    together = [sum(c * c for c in Counter(side).values()) for side in (zip(true, pred, strict=True), true, pred)]
    both, in_true, in_pred = together
    return n * n - in_true - in_pred + both, in_pred - both, in_true - both, both - n


@pytest.mark.parametrize("k", [2, 20])
def test_pair_scores_do_not_overflow(k):
    n = 200_000
    rng = np.random.default_rng(k)
    true = rng.integers(0, k, n)
    pred = np.where(rng.random(n) < 0.3, true, rng.integers(0, k, n))
    tn, fp, fn, tp = exact_pairs(true.tolist(), pred.tolist())
    assert tp * tn > 2**63
    np.testing.assert_array_equal(metrics.pair_confusion_matrix(true, pred).ravel(), [tn, fp, fn, tp])
    rand = Fraction(tn + tp, n * (n - 1))
    adjusted = Fraction(2 * (tp * tn - fn * fp), (tp + fn) * (fn + tn) + (tp + fp) * (fp + tn))
    assert metrics.rand_score(true, pred) == float(rand)
    assert metrics.adjusted_rand_score(true, pred) == float(adjusted)
    fowlkes_mallows = math.sqrt(Fraction(tp * tp, (tp + fp) * (tp + fn)))
    assert metrics.fowlkes_mallows_score(true, pred) == pytest.approx(fowlkes_mallows, rel=1e-14)


def test_a_million_labels():
    n = 1_000_000
    rng = np.random.default_rng(1)
    true = rng.integers(0, 100, n)
    pred = np.where(rng.random(n) < 0.5, true, rng.integers(0, 100, n))
    for name in ("adjusted_rand_score", "normalized_mutual_info_score"):
        assert getattr(metrics, name)(true, pred) == pytest.approx(getattr(oracle, name)(true, pred), rel=1e-12)
    assert metrics.adjusted_rand_score(true, true) == 1.0
    assert metrics.normalized_mutual_info_score(true, true) == pytest.approx(1, abs=1e-14)
    assert abs(metrics.adjusted_mutual_info_score(true, rng.permutation(true))) < 1e-4


def exact_expected_information(rows, cols):
    """Equation 24a of Vinh, Epps and Bailey with exact binomials."""
    n = sum(rows)
    total = 0.0
    for a, b in itertools.product(rows, cols):
        for m in range(max(1, a + b - n), min(a, b) + 1):
            probability = Fraction(math.comb(b, m) * math.comb(n - b, a - m), math.comb(n, a))
            total += float(probability) * m / n * math.log(n * m / (a * b))
    return total


@pytest.mark.parametrize(
    ("rows", "cols"),
    [([3, 4, 5], [6, 6]), ([1, 1, 1], [1, 2]), ([200, 300, 100], [1, 599]), ([1500, 1400, 100], [700, 2100, 200])],
    ids=str,
)
def test_expected_information_equals_the_formula(rows, cols):
    result = expected_information(np.array(rows), np.array(cols))
    assert result == pytest.approx(exact_expected_information(rows, cols), rel=1e-12, abs=1e-15)


def test_expected_information_of_a_large_table():
    rng = np.random.default_rng(2)
    true, pred = rng.integers(0, 12, 50_000) ** 2, rng.integers(0, 9, 50_000)
    table = metrics.contingency_matrix(true, pred, sparse=True)
    expected = expected_mutual_information(table, 50_000)
    result = expected_information(table.sum(axis=1), table.sum(axis=0))
    assert result == pytest.approx(expected, rel=1e-7)


def test_expected_information_is_alike_in_any_chunks(monkeypatch):
    rows, cols = np.array([5, 17, 300, 42]), np.array([100, 200, 60, 4])
    whole = expected_information(rows, cols)
    monkeypatch.setattr(external, "CHUNK_TERMS", 1)
    assert expected_information(rows, cols) == pytest.approx(whole, rel=1e-14)


def test_purity_and_accuracy_by_hand():
    true = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    pred = [5, 5, 7, 7, 7, 5, 9, 9, 9, 5]
    assert metrics.purity_score(true, pred) == 0.7
    assert metrics.clustering_accuracy(true, pred) == 0.7
    assert metrics.optimal_matching(true, pred) == {5: 0, 7: 1, 9: 2}
    assert metrics.purity_score([], []) == metrics.clustering_accuracy([], []) == 1.0
    # Purity may give two clusters to one class, accuracy may not.
    assert metrics.purity_score([0, 0, 1, 1], [0, 1, 2, 2]) == 1.0
    assert metrics.clustering_accuracy([0, 0, 1, 1], [0, 1, 2, 2]) == 0.75


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (3, 5), (5, 3)])
def test_accuracy_is_the_best_of_all_matchings(classes, clusters):
    rng = np.random.default_rng(classes)
    true, pred = rng.integers(0, classes, 60), rng.integers(0, clusters, 60)
    table = metrics.contingency_matrix(true, pred)
    wide = table if classes <= clusters else table.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), len(wide))
    )
    assert metrics.clustering_accuracy(true, pred) == best / 60
    matching = metrics.optimal_matching(true, pred)
    assert len(matching) == min(classes, clusters)
    assert np.mean([matching.get(z) == y for y, z in zip(true.tolist(), pred.tolist(), strict=True)]) == best / 60


def test_matching_names_clusters_by_their_classes():
    truth = np.array(["cat", "dog", "cat", "owl"])
    matching = metrics.optimal_matching(truth, [2, 0, 2, 1])
    assert matching == {2: "cat", 0: "dog", 1: "owl"}
    assert metrics.clustering_accuracy(truth, [matching[z] for z in (2, 0, 2, 1)]) == 1.0


small_labels = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 4), min_size=n, max_size=n)] * 2).map(
        lambda pair: tuple(np.array(side) for side in pair)
    )
)


@given(small_labels)
def test_scores_are_bounded_and_symmetric(pair):
    true, pred = pair
    for name in SINGLE:
        value = getattr(metrics, name)(true, pred)
        assert isinstance(value, float), name
        assert LEAST.get(name, 0) <= value, name
        if name != "mutual_info_score":
            assert value <= 1 + 1e-12, name
    for name in SYMMETRIC:
        score = getattr(metrics, name)
        assert score(true, pred) == pytest.approx(score(pred, true), rel=1e-9, abs=1e-12), name
    assert metrics.homogeneity_score(true, pred) == pytest.approx(metrics.completeness_score(pred, true), abs=1e-12)


@given(small_labels, st.permutations(range(8)), st.randoms(use_true_random=False))
def test_scores_ignore_names_and_the_order_of_rows(pair, names, random):
    true, pred = pair
    order = list(range(len(true)))
    random.shuffle(order)
    renamed = np.array(names)[pred + 3][order]
    for name in SINGLE:
        score = getattr(metrics, name)
        assert score(true[order], renamed) == pytest.approx(score(true, pred), rel=1e-9, abs=1e-12), name


@given(small_labels)
def test_a_labeling_agrees_with_itself(pair):
    true, _ = pair
    for name in SINGLE:
        if name == "mutual_info_score" or (name == "fowlkes_mallows_score" and np.unique(true).size == true.size):
            continue
        assert getattr(metrics, name)(true, true) == pytest.approx(1, abs=1e-12), name


@pytest.mark.parametrize("name", [*ALL, "contingency_matrix", "pair_confusion_matrix", "confusion_matrix"])
def test_labels_of_the_wrong_shape_are_refused(name):
    score = getattr(metrics, name)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[3, 2\]"):
        score([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match=r"labels_pred must be 1D: shape is \(2, 1\)"):
        score([0, 1], [[0], [1]])
    with pytest.raises(ValueError, match="labels_true contains NaN: 1 value|labels_pred contains NaN: 1 value"):
        score([0.0, np.nan], [0, 1])


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="average_method='mean' is not known"):
        metrics.normalized_mutual_info_score(CLASSES, NOISY, average_method="mean")
    with pytest.raises(ValueError, match="average_method"):
        metrics.adjusted_mutual_info_score(CLASSES, NOISY, average_method="mean")
    with pytest.raises(ValueError, match="beta=-1"):
        metrics.v_measure_score(CLASSES, NOISY, beta=-1)
    with pytest.raises(ValueError, match="sparse"):
        metrics.contingency_matrix(CLASSES, NOISY, eps=1.0, sparse=True)
    with pytest.raises(ValueError, match="normalize='rows' is not known"):
        metrics.confusion_matrix(CLASSES, NOISY, normalize="rows")
    with pytest.raises(ValueError, match="mix strings with numbers"):
        metrics.confusion_matrix(["a", "b"], [0, 1])
    with pytest.raises(ValueError, match="none of labels"):
        metrics.confusion_matrix(CLASSES, NOISY, labels=[77])
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(500,\)"):
        metrics.confusion_matrix(CLASSES, NOISY, sample_weight=[1.0])


def test_fractions_are_warned_about():
    with pytest.warns(UserWarning, match="labels_pred holds fractions"):
        metrics.adjusted_rand_score([0, 1, 2], [0.5, 1.5, 2.5])


FUNCTIONS = [*ALL, "contingency_matrix", "pair_confusion_matrix", "confusion_matrix", "optimal_matching"]

BAD_LABELS = {
    "NaN among objects": (np.array([1.0, np.nan, 1.0, 0.0], object), "contains NaN or None: 1 value"),
    "None": ([1, None, 1, None], "contains NaN or None: 2 values"),
    "None among strings": (["a", None, "a", "b"], "contains NaN or None: 1 value"),
    "NaN among strings": (["a", float("nan"), "a", "b"], "contains NaN or None: 1 value"),
    "NaN among objects that are strings": (np.array(["a", np.nan, "a", "b"], object), "contains NaN or None: 1 value"),
    "NaN among decimals": ([Decimal("NaN"), Decimal(1), Decimal(1), Decimal(0)], "contains NaN or None: 1 value"),
    "NaN": (np.array([1.0, np.nan, 1.0, 0.0]), "contains NaN: 1 value"),
    "NaN of float16": (np.array([1.0, np.nan, 1.0, 0.0], np.float16), "contains NaN: 1 value"),
    "infinity among objects": (np.array([1, np.inf, 1, 0], object), "contains infinity: 1 value"),
    "infinity": ([1.0, np.inf, 1.0, -np.inf], "contains infinity: 2 values"),
    "no time": (np.array(["2020-01-01", "NaT", "2020-01-02", "NaT"], "M8[D]"), "contains NaT: 2 values"),
    "masked": (np.ma.array([1, 2, 1, 0], mask=[0, 1, 0, 0]), "contains masked: 1 value"),
    "strings and numbers": (["a", 1, "b", 2], "mix strings with other values, such as 1"),
    "objects of both": (np.array([1, "1", 2, "2"], object), "mix strings with other values"),
    "strings and bytes": (["a", b"a", "b", "b"], "mix strings with other values, such as b'a'"),
    "without an order": (np.array([(0,), 1, (0,), 2], object), "hold values that have no order"),
}


@pytest.mark.parametrize("labels", BAD_LABELS)
def test_labels_that_are_missing_or_mixed_are_refused(labels):
    labels, message = BAD_LABELS[labels]
    if isinstance(labels, np.ndarray) and isinstance(labels[0], tuple):
        labels = np.fromiter([(0,), 1, (0,), 2], object)
    for name in FUNCTIONS:
        with pytest.raises(ValueError, match=f"labels_true {message}"):
            getattr(metrics, name)(labels, [1, 0, 1, 0])
        with pytest.raises(ValueError, match=f"labels_pred {message}"):
            getattr(metrics, name)([1, 0, 1, 0], labels)


def test_missing_values_of_pandas_are_refused():
    pandas = pytest.importorskip("pandas")
    for series in (
        pandas.Series([1, None, 1, 0], dtype="Int64"),
        pandas.Series(["a", None, "a", "b"], dtype="string"),
        pandas.Series(["a", None, "a", "b"], dtype="category"),
        pandas.Series([True, None, True, False], dtype="boolean"),
    ):
        with pytest.raises(ValueError, match="contains NaN.*: 1 value"):
            metrics.adjusted_rand_score(series, [1, 0, 1, 0])
        assert metrics.adjusted_rand_score(series[[0, 2, 3]], [1, 1, 0]) == 1


def test_objects_that_are_numbers_or_strings():
    for labels in (
        np.array([1, 0, 1, 0], object),
        np.array([1.0, 0, True, False], object),
        np.array(["b", "a", "b", "a"], object),
        [Fraction(1, 2), Fraction(1, 3), Fraction(1, 2), Fraction(1, 3)],
        [2**70 + 1, 2**70, 2**70 + 1, 2**70],
        [2**63 + 1, -1, 2**63 + 1, -1],
        np.array([1, 0, 1, 0], jnp.bfloat16),
        np.array(["2020-01-02", "2020-01-01", "2020-01-02", "2020-01-01"], "M8[D]"),
    ):
        assert metrics.adjusted_rand_score(labels, [1, 0, 1, 0]) == 1
        assert metrics.clustering_accuracy([1, 0, 1, 0], labels) == 1
    assert metrics.adjusted_rand_score([2**63 + 1, 2**63, -1], [0, 1, 2]) == 1


def test_a_contingency_of_large_counts():
    counts = np.array([[3, 1], [1, 3]]) * 10**12
    small = metrics.mutual_info_score(None, None, contingency=counts // 10**12)
    assert metrics.mutual_info_score(None, None, contingency=counts) == pytest.approx(small, rel=1e-12)
    for broken in ([[np.nan, 1.0]], [[np.inf, 1.0]], [[0.5, 1.0]], [[-1, 1]], [1, 2]):
        with pytest.raises(ValueError, match="matrix of non-negative integers"):
            metrics.mutual_info_score(None, None, contingency=np.array(broken))
    with pytest.raises(ValueError, match="sample_weight contains 1 NaN"):
        metrics.confusion_matrix([0, 1], [0, 1], sample_weight=[1.0, np.nan])

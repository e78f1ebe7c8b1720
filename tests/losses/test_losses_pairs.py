"""Losses of pairs and triplets are their formulas in float64, and the rows they are of those that a loop would pick."""

from __future__ import annotations

from functools import partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import losses

N, D = 8, 3
RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, N, D))
SAME = np.array([1, 0, 0, 1, 0, 1, 0, 0], bool)
LABELS = np.array([0, 1, 0, 2, 1, -1, 0, 3])
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, 1, 1.0])
MARGIN = 2.0


def narrow(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def distance(a, b):
    return np.sqrt(np.sum((a - b) ** 2))


def reduced(terms, weights, reduction):
    if reduction == "none":
        return weights * terms
    if reduction == "sum":
        return weights @ terms
    counted = weights * (terms > 0) if reduction == "nonzero" else weights
    return weights @ terms / counted.sum()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "nonzero"])
def test_pair_and_triplet_losses_match_their_formulas(reduction, weights):
    pairs, triplets = [], []
    for i in range(N):
        d = distance(A[i], B[i])
        pairs.append(d**2 / 2 if SAME[i] else max(0, MARGIN - d) ** 2 / 2)
        triplets.append(max(0, d - distance(A[i], C[i]) + 0.5))
    assert 0 in pairs
    assert 0 in triplets
    of_rows = np.ones(N) if weights is None else weights
    options = {"reduction": reduction, "weights": weights}
    result = losses.contrastive_loss(*narrow(A, B), SAME, margin=MARGIN, **options)
    np.testing.assert_allclose(result, reduced(np.array(pairs), of_rows, reduction), rtol=1e-5)
    result = losses.triplet_loss(*narrow(A, B, C), margin=0.5, **options)
    np.testing.assert_allclose(result, reduced(np.array(triplets), of_rows, reduction), rtol=1e-5)


def test_pairs_with_fractional_labels():
    whole, none = (losses.contrastive_loss(*narrow(A, B), np.full(N, y), margin=MARGIN) for y in (1, 0))
    share = losses.contrastive_loss(*narrow(A, B), np.full(N, 0.25), margin=MARGIN)
    np.testing.assert_allclose(share, 0.25 * whole + 0.75 * none, rtol=1e-6)


def test_pairs_and_triplets_are_those_of_a_loop():
    known = [i for i in range(N) if LABELS[i] >= 0]
    pairs = losses.pairs_from_labels(LABELS)
    expected = [(i, j, LABELS[i] == LABELS[j]) for i, j in combinations(known, 2)]
    assert list(zip(*pairs, strict=True)) == expected
    triplets = losses.triplets_from_labels(jnp.asarray(LABELS))
    expected = [(a, p, n) for a, p, n in permutations(known, 3) if LABELS[a] == LABELS[p] != LABELS[n]]
    assert sorted(zip(*triplets, strict=True)) == sorted(expected)
    positive, negative = jax.jit(losses.positive_mask)(LABELS), jax.jit(losses.negative_mask)(LABELS)
    assert {tuple(pair) for pair in np.argwhere(positive)} == {(a, p) for a, p, _ in expected}
    apart = {(i, j) for i, j in permutations(known, 2) if LABELS[i] != LABELS[j]}
    assert {tuple(pair) for pair in np.argwhere(negative)} == apart
    counts = jax.jit(losses.count_triplets)(LABELS)
    assert counts.triplets == len(expected)
    assert counts.pairs == len({(a, p) for a, p, _ in expected})
    assert counts.anchors == len({a for a, _, _ in expected})


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.arange(4), np.full(4, -1), [0, 0, -1, -1]])
def test_a_batch_without_triplets_counts_none(labels):
    labels, z = np.asarray(labels), jnp.asarray(A[:4], jnp.float32)
    options = [("all", "mean"), ("all", "nonzero"), ("hard", "mean"), ("semi-hard", "sum")]
    assert [int(count) for count in losses.count_triplets(labels)] == [0, 0, 0]
    assert losses.triplets_from_labels(labels).anchor.size == 0
    for mining, reduction in options:
        assert losses.mined_triplet_loss(z, labels, mining=mining, reduction=reduction) == 0


def test_triplet_counts_saturate_at_the_largest_int32():
    counts = losses.count_triplets(np.arange(2100) % 2)
    assert counts.triplets == 2**31 - 1
    assert counts.pairs == 2100 * 1049


def test_views_of_one_row_are_the_same():
    np.testing.assert_array_equal(losses.labels_of_views(2, 3), [0, 1, 0, 1, 0, 1])
    pairs = losses.pairs_from_views(3)
    assert [(i, j) for i, j, same in zip(*pairs, strict=True) if same] == [(0, 3), (1, 4), (2, 5)]
    assert pairs.same.size == 15


def hinges(mining):
    """Terms of a batch before their reduction, by loops; also how often no negative was farther than the positive."""
    known = [i for i in range(N) if LABELS[i] >= 0]
    terms, without = [], 0
    for a in known:
        positives = [distance(A[a], A[p]) for p in known if p != a and LABELS[p] == LABELS[a]]
        negatives = [distance(A[a], A[n]) for n in known if LABELS[n] != LABELS[a]]
        if not positives:
            continue
        if mining == "all":
            terms += [p - n for p in positives for n in negatives]
        elif mining == "hard":
            terms.append(max(positives) - min(negatives))
        else:
            for p in positives:
                farther = [n for n in negatives if n > p]
                without += not farther
                terms.append(p - min(farther, default=max(negatives)))
    return np.array(terms), without


@pytest.mark.parametrize("mining", ["all", "hard", "semi-hard"])
def test_mined_triplets_are_those_of_the_loops(mining):
    terms, without = hinges(mining)
    assert without or mining != "semi-hard"  # both kinds of negatives come about
    assert without < len(terms)
    terms = np.maximum(terms + 0.2, 0)
    assert (terms == 0).any()
    z = jnp.asarray(A, jnp.float32).at[5].set(jnp.nan)  # not known, so not there
    for reduction in ("nonzero", "mean", "sum"):
        loss = partial(losses.mined_triplet_loss, labels=LABELS, margin=0.2, mining=mining, reduction=reduction)
        result = jax.jit(loss)(z)
        np.testing.assert_allclose(result, reduced(terms, np.ones(len(terms)), reduction), rtol=1e-5)


def test_all_mined_triplets_are_those_that_are_listed():
    anchor, positive, negative = losses.triplets_from_labels(LABELS)
    z = jnp.asarray(A, jnp.float32)
    listed = losses.triplet_loss(z[anchor], z[positive], z[negative], margin=0.7)
    mined = losses.mined_triplet_loss(z, LABELS, margin=0.7, mining="all", reduction="mean")
    np.testing.assert_allclose(mined, listed, rtol=1e-5)


def test_a_large_batch_is_mined_in_tiles():
    labels = np.arange(600) % 7
    mine = jax.jit(jax.grad(lambda z: losses.mined_triplet_loss(z, labels, mining="all")))
    compiled = mine.lower(jnp.zeros((600, 2))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 600**3 * 4


def cosines(z):
    z = z / np.sqrt(np.sum(z**2, axis=1, keepdims=True))
    return z @ z.T


@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_nt_xent_is_the_formula(temperature):
    views = np.concatenate([A, B])
    powers = np.exp(cosines(views) / temperature)
    terms = []
    for i in range(2 * N):
        others = sum(powers[i, j] for j in range(2 * N) if j != i)
        terms.append(-np.log(powers[i, (i + N) % (2 * N)] / others))
    result = losses.nt_xent_loss(*narrow(A, B), temperature=temperature)
    np.testing.assert_allclose(result, np.mean(terms), rtol=1e-4)
    supervised = losses.supervised_contrastive_loss(*narrow(views), losses.labels_of_views(N), temperature=temperature)
    np.testing.assert_allclose(result, supervised, rtol=1e-5)


def test_supervised_is_the_formula():
    known = [i for i in range(N) if LABELS[i] >= 0]
    powers = np.exp(cosines(A) / 0.3)
    terms = []
    for i in known:
        positives = [p for p in known if p != i and LABELS[p] == LABELS[i]]
        others = sum(powers[i, j] for j in known if j != i)
        if positives:
            terms.append(-np.mean([np.log(powers[i, p] / others) for p in positives]))
    z = jnp.asarray(A, jnp.float32)
    loss = jax.jit(jax.value_and_grad(lambda z: losses.supervised_contrastive_loss(z, LABELS, temperature=0.3)))
    value, grad = loss(z)
    np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)
    with_nan, grad_with_nan = loss(z.at[5].set(jnp.nan))
    np.testing.assert_allclose(with_nan, value, rtol=1e-6)
    assert not grad[5].any()
    np.testing.assert_allclose(grad_with_nan, grad, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(losses.supervised_contrastive_loss(z, np.arange(N)), 0)


def test_descent_brings_classes_together(key):
    labels = np.arange(12) % 3
    grad = jax.jit(jax.grad(lambda z: losses.mined_triplet_loss(z, labels, mining="hard", reduction="mean")))
    z = jax.random.normal(key, (12, 2))
    for _ in range(200):
        z = z - 0.1 * grad(z)
    gaps = np.sqrt(np.square(np.asarray(z)[:, None] - np.asarray(z)).sum(axis=2))
    same = labels[:, None] == labels
    assert gaps[same].max() < gaps[~same].min()


def test_bad_input_of_pairs():
    a, b = narrow(A, B)
    with pytest.raises(ValueError, match=r"b must have the shape \(8, 3\) to go with a, got \(7, 3\)"):
        losses.contrastive_loss(a, b[:7], SAME)
    with pytest.raises(ValueError, match=r"same must have the shape \(8,\)"):
        losses.contrastive_loss(a, b, SAME[:3])
    with pytest.raises(ValueError, match="margin=0 must be greater than 0"):
        losses.triplet_loss(a, b, a, margin=0)
    with pytest.raises(ValueError, match="reduction='median' is not known"):
        losses.triplet_loss(a, b, a, reduction="median")
    with pytest.raises(ValueError, match="reduction='none' is not known; choose one of 'nonzero'"):
        losses.mined_triplet_loss(a, LABELS, reduction="none")
    with pytest.raises(ValueError, match="mining='semi' is not known.*Did you mean 'semi-hard'"):
        losses.mined_triplet_loss(a, LABELS, mining="semi")
    with pytest.raises(TypeError, match="labels must be integers or strings, -1 for not known, got dtype float64"):
        losses.mined_triplet_loss(a, LABELS * 1.0)
    with pytest.raises(ValueError, match=r"labels must have shape \(8,\), one per row, got \(7,\)"):
        losses.supervised_contrastive_loss(a, LABELS[:7])
    with pytest.raises(ValueError, match=r"labels must be at least -1 \(not known\), got -2 to 3"):
        losses.count_triplets(LABELS - (LABELS < 0))
    with pytest.raises(TypeError, match="call it outside of jit.*mined_triplet_loss"):
        jax.jit(losses.pairs_from_labels)(LABELS)
    with pytest.raises(TypeError, match="triplets_from_labels lists indices"):
        jax.jit(losses.triplets_from_labels)(LABELS)
    with pytest.raises(ValueError, match="views=0 must be at least 1"):
        losses.pairs_from_views(3, 0)
    with pytest.raises(ValueError, match="temperature=-1 must be greater than 0"):
        losses.nt_xent_loss(a, b, temperature=-1)


def test_labels_of_any_width_strings_and_objects():
    assert not losses.pairs_from_labels(np.array([1, 2**32 + 1])).same.any()
    assert losses.pairs_from_labels(np.array([3_000_000_000, 3_000_000_000])).same.all()
    assert losses.pairs_from_labels(np.array([2**64 - 1, 2**64 - 1], np.uint64)).same.all()
    assert list(losses.pairs_from_labels(["a", "b", "a"]).same) == [False, True, False]
    assert list(losses.pairs_from_labels(np.array(["a", -1, "a"], object)).same) == [True]
    with pytest.raises(ValueError, match="labels hold 1 NaN or None"):
        losses.pairs_from_labels(np.array([1.0, np.nan], object))


def test_gradient_of_directions_of_any_length():
    a, b = A * 1e-13, B * 1e-13
    grad = jax.jit(jax.grad(losses.nt_xent_loss))
    np.testing.assert_allclose(grad(*narrow(a, b)) * 1e-13, grad(*narrow(A, B)), atol=1e-6)
    for unit in (1e-200, 1e200):  # of float64, beyond float32
        np.testing.assert_allclose(losses.nt_xent_loss(A * unit, B * unit), losses.nt_xent_loss(A, B), rtol=1e-6)
        pairs = losses.contrastive_loss(A * unit, B * unit, np.zeros(len(A)), margin=1.0, reduction="none")
        assert not np.isnan(pairs).any()
    far = narrow(np.concatenate([A, 1e6 + A[:1]]))[0]
    terms = losses.triplet_loss(far[-1:], far[:1], far[1:2], reduction="none")
    wide = np.asarray(far, float)
    expected = distance(wide[-1], wide[0]) - distance(wide[-1], wide[1]) + 1
    np.testing.assert_allclose(terms, [max(0, expected)], atol=1e-5)

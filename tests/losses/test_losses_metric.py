"""Metric-learning losses, miners and batches are their formulas in float64, written as loops over samples."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_switches import IN_64_BITS, switched

from jaxcluster import losses
from jaxcluster.losses.similarity import batch_pairs

N, D, K = 9, 3, 3
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, D))
LABELS = np.array([0, 1, 0, 2, 1, -1, 0, 2, 1])
MEMORY, MEMORY_LABELS = RNG.normal(size=(4, D)), np.array([1, -1, 0, 2])
CLASSES, CENTERS = RNG.normal(size=(K, D)), RNG.normal(size=(K, 2, D))
KNOWN = np.flatnonzero(LABELS >= 0)
DEGREES = np.pi / 180


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


U, PROXIES = unit(Z), unit(CLASSES)
S, DISTANCES = U @ U.T, np.linalg.norm(Z[:, None] - Z, axis=2)
POSITIVES = {i: [j for j in KNOWN if LABELS[j] == LABELS[i] and j != i] for i in KNOWN}
NEGATIVES = {i: [j for j in KNOWN if LABELS[j] != LABELS[i]] for i in KNOWN}


def log_sum(logits):
    return np.log(np.sum(np.exp(logits)))


def multi_similarity(similarity=S, positives=POSITIVES, negatives=NEGATIVES):
    return np.mean(
        [
            np.log1p(sum(np.exp(-2 * (similarity[i, p] - 0.5)) for p in positives[i])) / 2
            + np.log1p(sum(np.exp(50 * (similarity[i, n] - 0.5)) for n in negatives[i])) / 50
            for i in KNOWN
        ]
    )


def against_memory():
    positives = {i: np.flatnonzero(LABELS[i] == MEMORY_LABELS) for i in KNOWN}
    negatives = {i: np.flatnonzero((MEMORY_LABELS >= 0) & (LABELS[i] != MEMORY_LABELS)) for i in KNOWN}
    return multi_similarity(U @ unit(MEMORY).T, positives, negatives)


def circle(margin=0.4, scale=8.0):
    terms = []
    for i in KNOWN:
        p, n = S[i, POSITIVES[i]], S[i, NEGATIVES[i]]
        attract = log_sum(-scale * np.maximum(1 + margin - p, 0) * (p - 1 + margin))
        repel = log_sum(scale * np.maximum(n + margin, 0) * (n - margin))
        terms.append(np.log1p(np.exp(attract + repel)))
    return np.mean(terms)


def margin():
    terms = [max(0, DISTANCES[i, p] - 1.2 + 0.2) for i in KNOWN for p in POSITIVES[i]]
    terms += [max(0, 1.2 - DISTANCES[i, n] + 0.2) for i in KNOWN for n in NEGATIVES[i]]
    return np.sum(terms) / np.count_nonzero(terms)


def lifted():
    terms = []
    for i in KNOWN:
        for j in POSITIVES[i]:
            others = np.concatenate([1 - DISTANCES[i, NEGATIVES[i]], 1 - DISTANCES[j, NEGATIVES[j]]])
            terms.append(max(0, DISTANCES[i, j] + log_sum(others)) ** 2 / 2)
    return np.mean(terms)


def n_pairs():
    other = Z[::-1]
    terms = []
    for i in KNOWN:
        rivals = [i, *NEGATIVES[i]]
        length = np.sum(Z[i] ** 2) + np.sum(other[i] ** 2)
        terms.append(log_sum(other[rivals] @ Z[i]) - other[i] @ Z[i] + 0.3 * length / 4)
    return np.mean(terms)


def angular():
    bound, terms = np.tan(40 * DEGREES) ** 2, []
    for i in KNOWN:
        for p in POSITIVES[i]:
            logits = [4 * bound * (U[i] + U[p]) @ U[n] - 2 * (1 + bound) * U[i] @ U[p] for n in NEGATIVES[i]]
            terms.append(np.log1p(np.sum(np.exp(logits))))
    return np.mean(terms)


def classified(change):
    terms = []
    for i in KNOWN:
        logits = PROXIES @ U[i]
        logits[LABELS[i]] = change(logits[LABELS[i]])
        terms.append(log_sum(8 * logits) - 8 * logits[LABELS[i]])
    return np.mean(terms)


def arc(cosine):
    return np.cos(np.arccos(cosine) + 1.2) if np.arccos(cosine) < np.pi - 1.2 else cosine - 1.2 * np.sin(1.2)


def proxy_nca(among):
    terms = []
    for i in KNOWN:
        squares = np.sum((PROXIES - U[i]) ** 2, axis=1)
        rivals = [c for c in range(K) if among == "all" or c != LABELS[i]]
        terms.append(2 * squares[LABELS[i]] + log_sum(-2 * squares[rivals]))
    return np.mean(terms)


def proxy_anchor():
    cosines = U @ PROXIES.T
    attract = [np.log1p(sum(np.exp(-32 * (cosines[i, c] - 0.1)) for i in KNOWN if LABELS[i] == c)) for c in range(K)]
    repel = [np.log1p(sum(np.exp(32 * (cosines[i, c] + 0.1)) for i in KNOWN if LABELS[i] != c)) for c in range(K)]
    return np.mean(attract) + np.mean(repel)


def soft_triple():
    centers, terms = unit(CENTERS), []
    for i in KNOWN:
        cosines = centers @ U[i]
        weights = np.exp(cosines / 0.1)
        logits = np.sum(weights * cosines, axis=1) / weights.sum(axis=1)
        logits[LABELS[i]] -= 0.01
        terms.append(log_sum(20 * logits) - 20 * logits[LABELS[i]])
    between = [np.linalg.norm(each[0] - each[1]) for each in centers]
    return np.mean(terms) + 0.2 * np.mean(between)


GOLDEN = {
    "multi-similarity": (losses.multi_similarity_loss, (Z, LABELS), {}, multi_similarity),
    "multi-similarity of a memory": (
        losses.multi_similarity_loss,
        (Z, LABELS),
        {"reference": MEMORY, "reference_labels": MEMORY_LABELS},
        against_memory,
    ),
    "circle": (losses.circle_loss, (Z, LABELS), {"scale": 8.0}, circle),
    "margin": (losses.margin_loss, (Z, LABELS), {}, margin),
    "lifted structure": (losses.lifted_structure_loss, (Z, LABELS), {}, lifted),
    "n-pairs": (losses.n_pairs_loss, (Z, Z[::-1], LABELS), {"l2_weight": 0.3}, n_pairs),
    "angular": (losses.angular_loss, (Z, LABELS), {}, angular),
    "arcface": (losses.arcface_loss, (Z, LABELS, CLASSES), {"margin": 1.2, "scale": 8.0}, lambda: classified(arc)),
    "cosface": (losses.cosface_loss, (Z, LABELS, CLASSES), {"scale": 8.0}, lambda: classified(lambda c: c - 0.35)),
    "proxy-nca": (losses.proxy_nca_loss, (Z, LABELS, CLASSES), {"scale": 2.0}, lambda: proxy_nca("negatives")),
    "proxy-nca++": (
        losses.proxy_nca_loss,
        (Z, LABELS, CLASSES),
        {"scale": 2.0, "among": "all"},
        lambda: proxy_nca("all"),
    ),
    "proxy-anchor": (losses.proxy_anchor_loss, (Z, LABELS, CLASSES), {}, proxy_anchor),
    "soft-triple": (losses.soft_triple_loss, (Z, LABELS, CENTERS), {}, soft_triple),
}


@pytest.fixture(scope="module")
def in_float64():
    """All losses by one program."""
    given = {name: (arguments, options) for name, (_, arguments, options, _) in GOLDEN.items()}

    def values(arrays):
        # Options that are numbers stay out of the program's arguments: some are checked against bounds.
        return {
            name: GOLDEN[name][0](*arguments, **{**given[name][1], **references})
            for name, (arguments, references) in arrays.items()
        }

    with switched(IN_64_BITS):
        arrays = {
            name: (arguments, {key: value for key, value in options.items() if isinstance(value, np.ndarray)})
            for name, (arguments, options) in given.items()
        }
        return jax.device_get(jax.jit(values)(arrays))


@pytest.mark.parametrize("name", GOLDEN)
def test_loss_is_its_formula_in_float64(name, in_float64):
    assert in_float64[name].dtype == np.float64
    np.testing.assert_allclose(in_float64[name], GOLDEN[name][3](), rtol=1e-10)


@pytest.mark.parametrize("unit_of_rows", [1e-60, 1e300])
def test_directions_have_no_unit(unit_of_rows):
    """Float64 rows that float32 does not hold keep their directions."""
    given = {"reference": MEMORY * unit_of_rows, "reference_labels": MEMORY_LABELS}
    batch = batch_pairs(Z * unit_of_rows, LABELS, **given, unit=True)
    np.testing.assert_allclose(batch.z, U * (LABELS >= 0)[:, None], rtol=1e-5)
    np.testing.assert_allclose(batch.reference, unit(MEMORY) * (MEMORY_LABELS >= 0)[:, None], rtol=1e-5)
    value = losses.cosface_loss(Z * unit_of_rows, LABELS, CLASSES * unit_of_rows)
    np.testing.assert_allclose(value, losses.cosface_loss(Z, LABELS, CLASSES), rtol=1e-5)


@pytest.mark.parametrize(
    "name_of", [lambda c: 3 * c + 4, lambda c: f"c{c}", lambda c: c + 2**63], ids=["numbers", "words", "uint64"]
)
def test_a_class_has_one_name_in_both_batches(name_of):
    """Labels of a batch and of its references are numbered together, whatever other classes either has."""
    mine, others = np.array([1, 2, 0, 2, -1, 1]), np.array([2, 4, -1, 1])
    z, memory = np.arange(6.0)[:, None], np.arange(4.0)[:, None] - 1
    named = [[-1 if c < 0 else name_of(int(c)) for c in each] for each in (mine, others)]
    given = {"reference": memory, "positive_margin": 0.0, "negative_margin": 100.0}
    mask = losses.margin_pairs(z, named[0], reference_labels=named[1], **given)
    equal = (mine[:, None] == others) & (z != memory.T)
    expected = (equal | (mine[:, None] != others)) & (mine >= 0)[:, None] & (others >= 0)
    np.testing.assert_array_equal(mask, expected)


def test_traced_labels_keep_their_numbers():
    mask = jax.jit(lambda mine: losses.margin_pairs(Z[:2], mine, reference=Z[:2], reference_labels=[7, 263]))
    np.testing.assert_array_equal(
        mask(np.array([7, 5], np.uint8)), losses.margin_pairs(Z[:2], [7, 5], reference=Z[:2], reference_labels=[7, 263])
    )
    classes = np.random.default_rng(0).normal(size=(300, D))
    traced = jax.jit(lambda labels: losses.proxy_nca_loss(Z[:2], labels, classes))(np.array([1, 44], np.uint8))
    np.testing.assert_allclose(traced, losses.proxy_nca_loss(Z[:2], [1, 44], classes), rtol=1e-6)


def test_labels_in_lists_keep_their_types():
    """NumPy makes strings of -1 and of NaN beside strings."""
    assert not losses.pairs_from_labels(["a", -1, "b"]).same.any()
    assert len(losses.pairs_from_labels(["a", -1, "b"]).first) == 1
    with pytest.raises(ValueError, match="1 NaN or None"):
        losses.pairs_from_labels(["a", np.nan])
    with pytest.raises(TypeError, match="Pass both as integers, or both as strings"):
        losses.margin_pairs(Z[:2], [1, 2], reference=Z[:2], reference_labels=["1", "2"])


def test_equal_samples_of_one_class_have_gradients():
    """All distances are 0, all cosines 1 and there is no negative: every loss and gradient is finite."""
    z, labels = jnp.ones((4, D)), jnp.zeros(4, jnp.int32)
    classes, centers = jnp.ones((K, D)), jnp.ones((K, 2, D))

    def total(z, classes, centers):
        of_pairs = (
            *(losses.multi_similarity_loss, losses.circle_loss, losses.margin_loss),
            *(losses.lifted_structure_loss, losses.angular_loss),
        )
        of_classes = losses.arcface_loss, losses.cosface_loss, losses.proxy_nca_loss, losses.proxy_anchor_loss
        values = [loss(z, labels) for loss in of_pairs] + [loss(z, labels, classes) for loss in of_classes]
        values += [losses.soft_triple_loss(z, labels, centers), losses.n_pairs_loss(z, z, labels)]
        return sum(values)

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(z, classes, centers)
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradients)
    none = jnp.full(4, -1, jnp.int32)
    assert losses.multi_similarity_loss(z, none) == losses.arcface_loss(z, none, classes) == 0


def test_margin_of_each_class_is_learned():
    beta = jnp.full(N, 1.2)
    slope = jax.grad(lambda beta: losses.margin_loss(Z, LABELS, beta=beta, reduction="sum"))(beta)
    expected = np.zeros(N)
    for i in KNOWN:
        expected[i] -= sum(DISTANCES[i, p] > 1.0 for p in POSITIVES[i])
        expected[i] += sum(DISTANCES[i, n] < 1.4 for n in NEGATIVES[i])
    np.testing.assert_array_equal(slope, expected)


def test_miners_find_what_a_loop_finds():
    hard, within = np.zeros((2, N, N), bool)
    wide = np.zeros((N, N, N), bool)
    for i in KNOWN:
        nearest, farthest = S[i, NEGATIVES[i]].max(), S[i, POSITIVES[i]].min()
        for j in POSITIVES[i]:
            hard[i, j], within[i, j] = S[i, j] - 0.1 < nearest, DISTANCES[i, j] > 1.5
        for j in NEGATIVES[i]:
            hard[i, j], within[i, j] = S[i, j] + 0.1 > farthest, DISTANCES[i, j] < 1.5
        for p, n in product(POSITIVES[i], NEGATIVES[i]):
            height = np.linalg.norm(U[n] - (U[i] + U[p]) / 2)
            wide[i, p, n] = np.arctan2(np.linalg.norm(U[i] - U[p]), 2 * height) > 40 * DEGREES
    np.testing.assert_array_equal(losses.multi_similarity_pairs(Z, LABELS), hard)
    pairs = losses.margin_pairs(Z, LABELS, positive_margin=1.5, negative_margin=1.5)
    np.testing.assert_array_equal(pairs, within)
    np.testing.assert_array_equal(losses.angular_triplets(Z, LABELS, angle=40.0), wide)
    assert 0 < hard.sum() < within.size
    assert wide.sum() > 0


def test_negatives_are_drawn_by_their_distance():
    """Two positives and three negatives on a sphere: frequencies are 1/q(d), and none beyond the largest distance."""
    angles = np.array([0.0, 0.1, 0.6, 1.2, 2.5])
    z = np.column_stack([np.cos(angles), np.sin(angles), np.zeros((5, 3))])
    labels = np.array([0, 0, 1, 1, 1])
    draws, mask = jax.jit(jax.vmap(lambda key: losses.distance_weighted_negatives(key, z, labels)))(
        jax.random.split(jax.random.key(0), 2_000)
    )
    d = np.linalg.norm(unit(z)[0] - unit(z)[2:4], axis=1)
    weights = 1 / (np.maximum(d, 0.5) ** 3 * (1 - np.maximum(d, 0.5) ** 2 / 4))
    frequencies = np.bincount(draws[:, 0, 1], minlength=5)[2:] / 2_000
    np.testing.assert_allclose(frequencies, [*weights / weights.sum(), 0], atol=0.03)
    assert mask[0, 0].tolist() == [False, True, False, False, False]


def test_batches_hold_the_same_number_of_each_class():
    labels = np.array(["a", "b", "c", "a", "b", "a", "a"], object)
    batches = losses.class_batches(jax.random.key(0), labels, 4, per_class=2, n_batches=20)
    assert batches.shape == (20, 4)
    for batch in labels[batches]:
        assert sorted(np.unique(batch, return_counts=True)[1]) == [2, 2]
    of_a = batches.reshape(-1, 2)[labels[batches[:, ::2].ravel()] == "a"]
    assert (of_a[:, 0] != of_a[:, 1]).all()
    with pytest.raises(ValueError, match="needs 4 classes, and labels have 3"):
        losses.class_batches(jax.random.key(0), labels, 8, per_class=2, n_batches=1)


def test_memory_replaces_its_oldest_entries():
    memory = losses.CrossBatchMemory.empty(5, D)
    push = jax.jit(losses.CrossBatchMemory.push)
    for begin in (0, 3, 6):
        memory = push(memory, jnp.asarray(Z[begin : begin + 3]), jnp.asarray(LABELS[begin : begin + 3]))
    np.testing.assert_array_equal(memory.labels, LABELS[[5, 6, 7, 8, 4]])
    np.testing.assert_allclose(memory.z, Z[[5, 6, 7, 8, 4]], rtol=1e-6)
    assert losses.CrossBatchMemory.empty(5, D).push(Z, LABELS).labels.tolist() == LABELS[-5:].tolist()
    empty = losses.CrossBatchMemory.empty(5, D)
    assert losses.circle_loss(Z, LABELS, reference=empty.z, reference_labels=empty.labels) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.circle_loss(Z, LABELS, reference=Z), "reference and reference_labels belong together"),
        (lambda: losses.angular_loss(Z, LABELS, angle=85.0), r"angle=85.0 must be in \(0, 60\] degrees"),
        (lambda: losses.cosface_loss(Z, LABELS, CLASSES[:, :2]), "classes has 2 columns, but z has 3"),
        (lambda: losses.arcface_loss(Z, LABELS, CLASSES, margin=1.6), "margin=1.6 must be less than π/2"),
        (lambda: losses.proxy_nca_loss(Z, np.zeros(N, int), CLASSES[:1]), "proxies must hold two classes"),
        (lambda: losses.soft_triple_loss(Z, LABELS, CLASSES), "centers must be"),
        (lambda: losses.margin_loss(Z, LABELS, beta=np.ones(2)), r"beta must be a number or have shape \(9,\)"),
        (lambda: losses.circle_loss(Z, LABELS, pairs=np.ones((2, 2))), r"pairs must have the shape \(9, 9\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

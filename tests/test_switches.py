"""Losses, metrics, optimal transport and k-means with bounds or pairs, with all of JAX's own switches on at once.

Each case is called twice, with the switches off and on, and has to give the same numbers. The differentiable ones are
under jit, with the switches from float32 and from float64, which have to give the same gradients.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_switches import IN_64_BITS, LEAKS, STRICT, switched

from jaxcluster import balanced, constrained, losses, metrics, sinkhorn, sparse_rows
from jaxcluster.cluster import kpod
from jaxcluster.ops.gaussian import sparse as ops_of_sparse

N, D, K = 12, 3, 4
RNG = np.random.default_rng(0)
X, OTHER, THIRD = RNG.normal(size=(3, N, D))
CENTERS = RNG.normal(size=(K, D))
RESPONSIBILITIES = RNG.dirichlet(np.ones(K), N)
LOGITS = RNG.normal(size=(N, K))
HEADS = np.stack([LOGITS, LOGITS[::-1]]) - np.log(np.exp(LOGITS).sum(axis=1).max())  # of two heads
WEIGHTS = RNG.uniform(0.5, 1.5, N)
AFFINITY = np.exp(-np.square(X[:, None] - X[None]).sum(axis=2))
MIXING = np.full(K, 1 / K)
VARIANCES = RNG.uniform(0.5, 1.5, (K, D))
COVARIANCES = VARIANCES[:, :, None] * np.eye(D)
LABELS = np.arange(N, dtype=np.int32) % 3
SOME = np.where(np.arange(N) % 4 == 3, -1, LABELS)
SAME = np.arange(N) % 2 == 0
PREDICTED = np.roll(LABELS, 4) % 2
BLOBS = X + 8 * np.eye(3)[LABELS]

SWITCHES = STRICT | IN_64_BITS


def vade(x, reconstruction, mean, log_variance, means, log_variances, **options):
    mixture = {"log_weights": jnp.log(jnp.full((K,), 1 / K, mean.dtype)), "means": means}
    arguments = (jax.nn.sigmoid(x), reconstruction, mean, log_variance)
    return losses.vade_loss(*arguments, z=mean, log_variances=log_variances, **mixture, **options)


def penalty(real, fake):
    between = losses.points_between(jax.random.key(1), real, fake)
    return losses.gradient_penalty(lambda rows: jnp.sum(jnp.square(rows), axis=1), between)


def joint(x, centers, logits):
    return losses.deep_clustering_loss(losses.kmeans_loss(x, centers), logits, SOME)


def swapped_of_many(assignments, left, right, weights):
    return losses.swapped_prediction_from_assignments([assignments] * 2, [left, right], weights=weights)


def of_pairs_and_classes(z, classes, centers):
    """Losses of pairs and of classes by one program: for its time."""
    pairs = losses.multi_similarity_pairs(z, SOME) | losses.margin_pairs(z, SOME)
    memory = losses.CrossBatchMemory.empty(8, D, z.dtype).push(z, SOME)
    reference = {"reference": memory.z, "reference_labels": memory.labels}
    drawn, mask = losses.distance_weighted_negatives(jax.random.key(0), z, SOME)
    some = losses.angular_triplets(z, SOME)
    return [
        losses.multi_similarity_loss(z, SOME, pairs=pairs),
        losses.circle_loss(z, SOME, scale=4.0, **reference),
        losses.margin_loss(z, SOME),
        losses.lifted_structure_loss(z, SOME),
        losses.angular_loss(z, SOME),
        losses.n_pairs_loss(z, z[::-1], SOME),
        losses.arcface_loss(z, SOME, classes, scale=4.0),
        losses.cosface_loss(z, SOME, classes, scale=4.0),
        losses.proxy_nca_loss(z, SOME, classes),
        losses.proxy_anchor_loss(z, SOME, classes, scale=4.0),
        losses.soft_triple_loss(z, SOME, centers),
        jnp.sum(jnp.where(mask, z[drawn, 0], 0)) + jnp.sum(some).astype(z.dtype),
    ]


IN_ONE_PROGRAM = {
    *("angular_loss", "angular_triplets", "arcface_loss", "circle_loss", "cosface_loss"),
    *("distance_weighted_negatives", "lifted_structure_loss", "margin_loss", "margin_pairs", "multi_similarity_loss"),
    *("multi_similarity_pairs", "n_pairs_loss", "proxy_anchor_loss", "proxy_nca_loss", "soft_triple_loss"),
}

DIFFERENTIABLE = {
    "of_pairs_and_classes": (of_pairs_and_classes, X, CENTERS, np.stack([CENTERS, CENTERS[::-1]], axis=1)),
    "barlow_twins_loss": (lambda a, b, w: losses.barlow_twins_loss(a, b, weights=w), X, OTHER, WEIGHTS),
    "cluster_contrastive_loss": (losses.cluster_contrastive_loss, HEADS, HEADS[::-1]),
    "cluster_recovery_loss": (partial(losses.cluster_recovery_loss, LABELS), LOGITS),
    "contrastive_loss": (lambda a, b, w: losses.contrastive_loss(a, b, SAME, weights=w), X, OTHER, WEIGHTS),
    "dec_loss": (lambda q, w: losses.dec_loss(q, losses.target_distribution(q), weights=w), RESPONSIBILITIES, WEIGHTS),
    "deep_clustering_loss": (joint, X, CENTERS, LOGITS),
    "deep_kmeans_loss": (
        lambda z, c, a, w: losses.deep_kmeans_loss(z, c, alpha=a, weights=w),
        *(X, CENTERS, np.array(0.7), WEIGHTS),
    ),
    "dino_center": (losses.dino_center, LOGITS[0], LOGITS),
    "dino_loss": (
        lambda s, t, c, w: losses.dino_loss(s, t, c, teacher_temperature=0.5, weights=w),
        *(LOGITS, LOGITS[::-1], LOGITS[0], WEIGHTS),
    ),
    "gradient_penalty": (penalty, X, OTHER),
    "kmeans_loss": (lambda x, c, w: losses.kmeans_loss(x, c, weights=w), X, CENTERS, WEIGHTS),
    "mined_triplet_loss": (lambda z: losses.mined_triplet_loss(z, SOME), X),
    "mined_triplet_loss hard": (lambda z: losses.mined_triplet_loss(z, SOME, mining="hard"), X),
    "mined_triplet_loss all": (lambda z: losses.mined_triplet_loss(z, SOME, mining="all", reduction="mean"), X),
    "mixture_nll": (
        lambda *given: losses.mixture_nll(*given[:4], row_weights=given[4]),
        *(X, MIXING, CENTERS, COVARIANCES, WEIGHTS),
    ),
    "mixture_nll diag": (partial(losses.mixture_nll, covariance="diag"), X, MIXING, CENTERS, VARIANCES),
    "mixture_nll spherical": (partial(losses.mixture_nll, covariance="spherical"), X, MIXING, CENTERS, VARIANCES[:, 0]),
    "mixture_nll tied": (partial(losses.mixture_nll, covariance="tied"), X, MIXING, CENTERS, COVARIANCES[0]),
    "negative_cosine_loss": (lambda p, z, w: losses.negative_cosine_loss(p, z, weights=w), X, OTHER, WEIGHTS),
    "noise_recovery_loss": (lambda a, b, w: losses.noise_recovery_loss(a, b, weights=w), X, OTHER, WEIGHTS),
    "nt_xent_loss": (losses.nt_xent_loss, X, OTHER),
    "points_between": (partial(losses.points_between, jax.random.key(1)), X, OTHER),
    "scan_loss": (losses.scan_loss, HEADS, HEADS[::-1]),
    "self_label_loss": (lambda p, q: losses.self_label_loss(p, q, threshold=0.1)[0], HEADS, HEADS[::-1]),
    "soft_clustering_loss": (
        lambda z, c, p, w: losses.soft_clustering_loss(z, c, p, weights=w),
        *(X, CENTERS, RESPONSIBILITIES, WEIGHTS),
    ),
    "soft_kmeans_loss": (lambda x, c, w: losses.soft_kmeans_loss(x, c, variance=0.7, weights=w), X, CENTERS, WEIGHTS),
    "soft_ncut": (losses.soft_ncut, RESPONSIBILITIES, AFFINITY),
    "student_t_assignments": (losses.student_t_assignments, X, CENTERS),
    "student_t_log_assignments": (partial(losses.student_t_log_assignments, alpha=2.0), X, CENTERS),
    "supervised_contrastive_loss": (lambda z: losses.supervised_contrastive_loss(z, SOME), X),
    "swapped_prediction_from_assignments": (swapped_of_many, RESPONSIBILITIES, LOGITS, LOGITS[::-1], WEIGHTS),
    "swapped_prediction_loss": (
        lambda a, b, w: losses.swapped_prediction_loss(a, b, weights=w),
        *(LOGITS, LOGITS[::-1], WEIGHTS),
    ),
    "target_distribution": (lambda q, w: losses.target_distribution(q, weights=w), RESPONSIBILITIES, WEIGHTS),
    "temi_loss": (losses.temi_loss, np.stack([HEADS, HEADS]), np.stack([HEADS[::-1], HEADS]), np.stack([MIXING] * 2)),
    "triplet_loss": (lambda a, b, c, w: losses.triplet_loss(a, b, c, weights=w), X, OTHER, THIRD, WEIGHTS),
    "turtle_loss": (losses.turtle_loss, np.exp(HEADS), HEADS),
    "vade_loss": (vade, X, OTHER, THIRD, OTHER, CENTERS, VARIANCES),
    "vade_loss gaussian": (partial(vade, likelihood="gaussian"), X, OTHER, THIRD, OTHER, CENTERS, VARIANCES),
    "vade_responsibilities": (losses.vade_responsibilities, X, LOGITS[0], CENTERS, VARIANCES),
    "vicreg_loss": (lambda a, b, w: losses.vicreg_loss(a, b, weights=w), X, OTHER, WEIGHTS),
    "wasserstein_critic_loss": (losses.wasserstein_critic_loss, X[:, 0], OTHER[:, 0]),
    "wasserstein_generator_loss": (losses.wasserstein_generator_loss, X[:, 0]),
    "soft_silhouette": (metrics.soft_silhouette, X, RESPONSIBILITIES),
    "soft_silhouette_samples": (partial(metrics.soft_silhouette_samples, metric="cosine"), X, RESPONSIBILITIES),
    "swav_assignments": (sinkhorn.swav_assignments, LOGITS),
}

EXTERNAL = [
    *("adjusted_mutual_info_score", "adjusted_rand_score", "clustering_accuracy", "completeness_score"),
    *("confusion_matrix", "contingency_matrix", "fowlkes_mallows_score", "homogeneity_completeness_v_measure"),
    *("homogeneity_score", "mutual_info_score", "normalized_mutual_info_score", "optimal_matching"),
    *("pair_confusion_matrix", "purity_score", "rand_score", "v_measure_score"),
]
INTERNAL = ["calinski_harabasz_score", "davies_bouldin_score", "silhouette_samples", "silhouette_score"]

PAIRS = ["count_triplets", "negative_mask", "pairs_from_labels", "positive_mask", "triplets_from_labels"]

SOLVED = {"tol": 1e-5, "max_steps": 500}


def transport(dtype):
    """Everything of the public module but `divergence` and `barycenter`, and a gradient of each kind of problem."""
    x, y, costs = X.astype(dtype), OTHER[:9].astype(dtype), AFFINITY[:, :9].astype(dtype)
    costs[0, 0] = np.inf
    points, matrix = sinkhorn.solve(x, y, epsilon=0.5, **SOLVED), sinkhorn.solve_cost(costs, epsilon=0.5, **SOLVED)
    products = sinkhorn.apply(points, y, x, y), sinkhorn.apply_cost(matrix, x, costs, transpose=True)
    values = [(solved.status, solved.regularized_cost, solved.transport_cost) for solved in (points, matrix)]
    return values, sinkhorn.plan(points, x, y), sinkhorn.plan_cost(matrix, costs), products


def transport_gradients(dtype):
    def value(x, y):
        solved = sinkhorn.solve(x, y, epsilon=0.5, rho_a=2.0, **SOLVED)
        return solved.regularized_cost + solved.transport_cost + jnp.sum(solved.f)

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(jnp.asarray(X, dtype), jnp.asarray(OTHER, dtype))


def kpod_and_use(dtype):
    x = np.where(np.arange(N * D).reshape(N, D) % 7 == 0, np.nan, BLOBS).astype(dtype)
    fit, frame = kpod.fit_framed(
        *(jax.random.key(0), x, 3), weights=WEIGHTS.astype(dtype), init=BLOBS[:3], n_init=1, tol=1e-4, max_steps=20
    )
    return fit.state, fit.labels, kpod.transform(fit.state, x, frame=frame), kpod.score(fit.state, x, frame=frame)


CALLS = {
    **{name: lambda dtype, name=name: getattr(metrics, name)(LABELS, PREDICTED) for name in EXTERNAL},
    **{name: lambda dtype, name=name: getattr(metrics, name)(BLOBS.astype(dtype), PREDICTED) for name in INTERNAL},
    "gower_distances": lambda dtype: metrics.gower_distances(BLOBS.astype(dtype)),
    "gower_rows": lambda dtype: metrics.gower_rows(BLOBS.astype(dtype)),
    "transport": transport,
    "gradients of transport": transport_gradients,
    "divergence": lambda dtype: sinkhorn.divergence(X.astype(dtype), OTHER.astype(dtype), epsilon=0.5, **SOLVED),
    "barycenter": lambda dtype: sinkhorn.barycenter(
        jax.random.key(0), [X.astype(dtype), OTHER[:9].astype(dtype)], 3, start=X[:3], epsilon=0.5
    ),
    "balanced": lambda dtype: balanced.fit(jax.random.key(0), BLOBS.astype(dtype), 3, init=BLOBS[:3], size_min=4),
    "constrained": lambda dtype: constrained.fit(
        *(jax.random.key(0), BLOBS.astype(dtype), 3), init=BLOBS[:3], must_link=[[0, 1]], cannot_link=[[0, 2], [1, 5]]
    ),
    "kpod": kpod_and_use,
    "mixture of sparse rows": lambda dtype: ops_of_sparse.moments(
        *(jnp.asarray(RESPONSIBILITIES.T[:3], dtype), jnp.asarray(BLOBS[:3], dtype)),
        sparse_rows(np.where(BLOBS > 1, BLOBS, 0).astype(dtype)),
    ),
    **{name: lambda dtype, name=name: getattr(losses, name)(SOME) for name in PAIRS},
    "class_batches": lambda dtype: losses.class_batches(jax.random.key(0), SOME, 6, per_class=3, n_batches=2),
    **{name: lambda dtype, name=name: getattr(losses, name)(4) for name in ("labels_of_views", "pairs_from_views")},
}


def differentiated(name, dtypes, gradients=True):
    """Values and gradients from arrays of each dtype, in one program: tracing is most of the time."""
    function, *arrays = DIFFERENTIABLE[name]

    def value(*arrays):
        parts = [jnp.ravel(part) for part in jax.tree.leaves(function(*arrays))]
        return sum(jnp.dot(jnp.cos(jnp.arange(part.size).astype(part.dtype)), part) for part in parts)

    derived = jax.value_and_grad(value, argnums=tuple(range(len(arrays)))) if gradients else value
    given = [[jnp.asarray(array, dtype) for array in arrays] for dtype in dtypes]
    return jax.jit(lambda given: [derived(*arrays) for arrays in given])(given)


def called(name, dtypes):
    return [CALLS[name](dtype) for dtype in dtypes]


FLOAT32_ONLY = (
    *("gradient_penalty", "points_between"),  # another dtype draws other numbers from a key
    *("gradients of transport", "barycenter", "mixture_nll spherical", "mixture_nll tied"),  # for their time
    "of_pairs_and_classes",  # its draws too, and its time
)

PASSING_ON = (
    *("gradient_penalty", "mined_triplet_loss", "nt_xent_loss", "soft_ncut", "soft_silhouette_samples"),
    *("swapped_prediction_loss", "vade_responsibilities", "silhouette_samples", "balanced", "constrained"),
)


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *CALLS])
def test_results_are_those_without_the_switches(name):
    """Within rounding from float32, and from float64 within that of float32."""
    made, known = (differentiated, True) if name in DIFFERENTIABLE else (called, False)
    dtypes = [np.float32] if name in FLOAT32_ONLY else [np.float32, np.float64]
    without = partial(made, gradients=len(dtypes) == 1) if known else made
    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(without(name, [np.float32]))]
    with switched(SWITCHES | (LEAKS if name in PASSING_ON else {})):
        results = made(name, dtypes)
        if known and len(dtypes) == 2:
            expected += [np.asarray(leaf) for leaf in jax.tree.leaves(results[1][1])]
        for result, dtype in zip(results, dtypes, strict=True):
            for leaf, other in zip(map(np.asarray, jax.tree.leaves(result)), expected, strict=True):
                if leaf.dtype.kind != "f":
                    np.testing.assert_array_equal(leaf, other)
                    continue
                assert leaf.dtype == dtype or not known
                np.testing.assert_allclose(leaf, other, rtol=2e-3, atol=2e-4)


def test_every_public_function_is_called():
    functions = {
        name
        for module in (losses, metrics, sinkhorn)
        for name in module.__all__
        if not isinstance(getattr(module, name), type)
    }
    in_transport = {"solve", "solve_cost", "plan", "plan_cost", "apply", "apply_cost"}
    assert functions <= {name.split()[0] for name in (*DIFFERENTIABLE, *CALLS)} | in_transport | IN_ONE_PROGRAM

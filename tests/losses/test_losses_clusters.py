"""Losses of rows and centers, mixtures and prototypes are their formulas in float64, and what algorithms minimize."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster import gmm, kmeans, losses, sinkhorn, soft_kmeans

N, D, K = 9, 3, 4
RNG = np.random.default_rng(0)
X, CENTERS = RNG.normal(size=(N, D)), RNG.normal(size=(K, D))
WEIGHTS = np.array([1, 2, 0, 0.5, 1, 3, 1, 1, 2.0])
SQUARES = np.array([[np.sum((row - center) ** 2) for center in CENTERS] for row in X])
TARGET = RNG.dirichlet(np.ones(K), N) * (RNG.random((N, K)) < 0.7)
TARGET /= TARGET.sum(axis=1, keepdims=True)
SCORES = RNG.uniform(-1, 1, (4, N, K))


def narrow(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def check_reductions(loss, terms):
    """Check every reduction, with and without weights, against the terms of the samples."""
    np.testing.assert_allclose(loss(reduction="none"), terms, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(loss(reduction="mean"), terms.mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(reduction="sum"), terms.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss(reduction="mean", weights=WEIGHTS), WEIGHTS @ terms / WEIGHTS.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss(reduction="sum", weights=WEIGHTS), WEIGHTS @ terms, rtol=1e-5)


def test_k_means_is_the_formula_and_the_score():
    x, centers = narrow(X, CENTERS)
    check_reductions(lambda **options: losses.kmeans_loss(x, centers, **options), SQUARES.min(axis=1))
    inertia = losses.kmeans_loss(x, centers, weights=WEIGHTS, reduction="sum")
    np.testing.assert_allclose(inertia, -kmeans.score(centers, x, weights=WEIGHTS), rtol=1e-6)


def test_gradient_of_k_means_pulls_centers_to_rows():
    grad = jax.grad(lambda centers: losses.kmeans_loss(jnp.asarray(X, jnp.float32), centers, reduction="sum"))
    own = np.eye(K)[SQUARES.argmin(axis=1)]
    expected = 2 * (own.sum(axis=0)[:, None] * CENTERS - own.T @ X)
    np.testing.assert_allclose(grad(*narrow(CENTERS)), expected, rtol=1e-4, atol=1e-5)


def test_k_means_far_from_the_origin():
    shift = 1e4
    x, centers = (np.asarray(array + shift, np.float32) for array in (X, CENTERS))
    wide = np.square(x.astype(float)[:, None] - centers).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(losses.kmeans_loss(x, centers), wide.mean(), rtol=1e-5)


@pytest.mark.parametrize("variance", [0.7, 1e-3])
def test_soft_k_means_is_the_formula(variance):
    least = SQUARES.min(axis=1)
    powers = np.exp(-(SQUARES - least[:, None]) / (2 * variance))
    terms = least - 2 * variance * np.log(powers.mean(axis=1))
    x, centers = narrow(X, CENTERS)
    check_reductions(lambda **options: losses.soft_kmeans_loss(x, centers, variance=variance, **options), terms)
    summed = losses.soft_kmeans_loss(x, centers, variance=variance, weights=WEIGHTS, reduction="sum")
    np.testing.assert_allclose(summed, soft_kmeans.free_energy(centers, x, variance, weights=WEIGHTS), rtol=1e-5)


def test_soft_k_means_without_variance_is_k_means():
    x, centers = narrow(X, CENTERS)
    hard = jax.value_and_grad(losses.kmeans_loss, argnums=(0, 1))(x, centers)
    soft = jax.value_and_grad(lambda *args: losses.soft_kmeans_loss(*args, variance=0), argnums=(0, 1))(x, centers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), hard, soft)


@pytest.mark.parametrize("alpha", [0.3, 1000.0])
def test_deep_k_means_is_the_formula(alpha):
    powers = np.exp(-alpha * (SQUARES - SQUARES.min(axis=1, keepdims=True)))
    terms = np.sum(powers * SQUARES, axis=1) / powers.sum(axis=1)
    x, centers = narrow(X, CENTERS)
    check_reductions(lambda **options: losses.deep_kmeans_loss(x, centers, alpha=alpha, **options), terms)


def test_a_fit_of_soft_k_means_has_gradient_zero(key):
    fit = soft_kmeans.fit(key, X.astype(np.float32), 2, variance=0.5, tol=0.0)
    grad = jax.jit(jax.grad(lambda centers: losses.soft_kmeans_loss(X.astype(np.float32), centers, variance=0.5)))
    assert np.abs(grad(fit.state.centers)).max() < 1e-5
    assert np.abs(grad(fit.state.centers + 0.1)).max() > 1e-2


def test_soft_clustering_is_the_formula():
    temperature = 1.7
    powers = np.exp(-SQUARES / temperature)
    responsibilities = powers / powers.sum(axis=1, keepdims=True)
    terms = np.zeros(N)
    for i in range(N):
        terms[i] = sum(t * np.log(t / r) for t, r in zip(TARGET[i], responsibilities[i], strict=True) if t > 0)
    x, centers, target = narrow(X, CENTERS, TARGET)

    def loss(**options):
        return losses.soft_clustering_loss(x, centers, target, temperature=temperature, **options)

    check_reductions(loss, terms)
    own = soft_kmeans.responsibilities(centers, x, temperature / 2)
    np.testing.assert_allclose(losses.soft_clustering_loss(x, centers, own, temperature=temperature), 0, atol=1e-6)


def test_the_target_of_soft_clustering_is_a_constant():
    x, centers, target = narrow(X, CENTERS, TARGET)
    grad = jax.grad(lambda target: losses.soft_clustering_loss(x, centers, target))(target)
    assert not grad.any()


def test_joint_is_the_weighted_sum_over_known_rows():
    logits, labels = SCORES[0], np.array([0, 1, -1, 3, 2, -1, 0, 1, 2])
    entropies = [np.log(np.exp(logits[i]).sum()) - logits[i, y] for i, y in enumerate(labels) if y >= 0]
    (narrowed,) = narrow(logits)
    for array in (narrowed, narrowed.at[2].set(jnp.nan)):
        terms = losses.deep_clustering_loss(
            jnp.float32(3), array, labels, clustering_weight=0.5, classification_weight=2.0
        )
        np.testing.assert_allclose(terms.classification, np.mean(entropies), rtol=1e-5)
        np.testing.assert_allclose(terms.loss, 1.5 + 2 * np.mean(entropies), rtol=1e-5)
        assert terms.clustering == 3
        grad = jax.grad(lambda logits: losses.deep_clustering_loss(0.0, logits, labels).loss)(array)
        assert np.isfinite(grad).all()
        assert not grad[2].any()
    unlabeled = losses.deep_clustering_loss(jnp.float32(3), narrowed, np.full(N, -1))
    assert unlabeled.classification == 0
    assert unlabeled.loss == 3


def covariances_of(covariance):
    roots = RNG.normal(size=(K, D, D))
    return {
        "full": roots @ roots.transpose(0, 2, 1) + np.eye(D),
        "tied": roots[0] @ roots[0].T + np.eye(D),
        "diag": np.exp(roots[:, 0]),
        "spherical": np.exp(roots[:, 0, 0]),
    }[covariance]


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_the_mixture_is_the_formula(covariance):
    mixture_weights, covariances = RNG.dirichlet(np.ones(K)), covariances_of(covariance)
    terms = np.zeros(N)
    for i, row in enumerate(X):
        density = 0.0
        for j in range(K):
            matrix = {
                "full": lambda j=j: covariances[j],
                "tied": lambda: covariances,
                "diag": lambda j=j: np.diag(covariances[j]),
                "spherical": lambda j=j: covariances[j] * np.eye(D),
            }[covariance]()
            gap = row - CENTERS[j]
            scale = np.sqrt(np.linalg.det(2 * np.pi * matrix))
            density += mixture_weights[j] * np.exp(-gap @ np.linalg.solve(matrix, gap) / 2) / scale
        terms[i] = -np.log(density)
    arguments = narrow(X, mixture_weights, CENTERS, covariances)

    def loss(weights=None, **options):
        return losses.mixture_nll(*arguments, covariance=covariance, row_weights=weights, **options)

    check_reductions(loss, terms)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_tight_components_far_apart_keep_digits(covariance):
    """Float32 samples and means at ±1,000, a million standard deviations apart: all digits of x − μ count."""
    means, variance = np.array([[-1000.0] * D, [1000.0] * D]), float(np.float32(1e-6))
    labels = np.arange(N) % 2
    x = (means[labels] + 1e-3 * RNG.normal(size=(N, D))).astype(np.float32)
    offsets = x.astype(float) - means[labels]
    right = np.log(2) + (D * np.log(2 * np.pi * variance) + np.sum(offsets**2, axis=1) / variance) / 2
    covariances = {"full": np.full((2, D, D), np.eye(D) * 1e-6), "diag": np.full((2, D), 1e-6)}[covariance]
    given = narrow([0.5, 0.5], means, covariances)
    np.testing.assert_allclose(
        losses.mixture_nll(x, *given, covariance=covariance, reduction="none"), right, rtol=1e-5, atol=1e-5
    )

    @jax.jit
    def gradient(weights, means, covariances):
        def nll(means):
            return losses.mixture_nll(x, weights, means, covariances, covariance=covariance, reduction="sum")

        return jax.grad(nll)(means)

    expected = -np.stack([offsets[labels == j].sum(axis=0) for j in range(2)]) / variance
    np.testing.assert_allclose(gradient(*given), expected, rtol=1e-4)


def test_the_mixture_of_a_fit_is_its_own(key):
    x = X.astype(np.float32)
    state = gmm.fit(key, x, 2, covariance="diag", reg_covar=1e-2).state
    result = losses.mixture_nll(x, state.weights, state.means, state.covariances, covariance="diag")
    np.testing.assert_allclose(result, gmm.negative_log_likelihood(state, x), rtol=1e-6)


def cross_entropy(q, scores, temperature):
    powers = np.exp(scores / temperature)
    return -np.sum(q * np.log(powers / powers.sum(axis=1, keepdims=True)), axis=1)


def test_swapped_prediction_is_the_formula():
    a, b = SCORES[:2]
    assignments = []
    for scores in (a, b):
        q = np.exp(scores / 0.2)
        for _ in range(3):
            q /= K * q.sum(axis=0)
            q /= q.sum(axis=1, keepdims=True)
        assignments.append(q)
    terms = (cross_entropy(assignments[0], b, 0.3) + cross_entropy(assignments[1], a, 0.3)) / 2
    options = {"temperature": 0.3, "epsilon": 0.2}
    np.testing.assert_allclose(losses.swapped_prediction_loss(*narrow(a, b), **options), terms.mean(), rtol=1e-5)


def test_swapped_assignments_are_constant():
    def loss_of_assignments(a, b, assignments):
        return losses.swapped_prediction_from_assignments(assignments, [a, b])

    a, b = narrow(*SCORES[:2])
    assignments = [sinkhorn.swav_assignments(each) for each in (a, b)]
    expected = jax.value_and_grad(loss_of_assignments, argnums=(0, 1))(a, b, assignments)
    result = jax.value_and_grad(losses.swapped_prediction_loss, argnums=(0, 1))(a, b)
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-5, atol=1e-7), result, expected)
    assert not any(grad.any() for grad in jax.grad(loss_of_assignments, argnums=2)(a, b, assignments))


def test_crops_predict_assignments_of_first_views():
    assignments = RNG.dirichlet(np.ones(K), (2, N))
    terms = np.zeros((2, N))
    for i in range(2):
        terms[i] = np.mean([cross_entropy(assignments[i], SCORES[v], 0.3) for v in range(4) if v != i], axis=0)
    terms = terms.mean(axis=0)
    arguments = narrow(*assignments), narrow(*SCORES)
    result = losses.swapped_prediction_from_assignments(*arguments, temperature=0.3)
    np.testing.assert_allclose(result, terms.mean(), rtol=1e-5)
    result = losses.swapped_prediction_from_assignments(*arguments, temperature=0.3, weights=WEIGHTS)
    np.testing.assert_allclose(result, WEIGHTS @ terms / WEIGHTS.sum(), rtol=1e-5)


def test_bad_input_of_clusters():
    x, centers, target, scores = narrow(X, CENTERS, TARGET, SCORES[0])
    with pytest.raises(ValueError, match="centers has 2 columns, but x has 3"):
        losses.kmeans_loss(x, centers[:, :2])
    with pytest.raises(ValueError, match="variance=-1 must be at least 0"):
        losses.soft_kmeans_loss(x, centers, variance=-1)
    with pytest.raises(ValueError, match=r"target must have the shape \(9, 4\) to go with z and centers"):
        losses.soft_clustering_loss(x, centers, target[:, :3])
    with pytest.raises(ValueError, match="temperature=0 must be greater than 0"):
        losses.soft_clustering_loss(x, centers, target, temperature=0)
    with pytest.raises(ValueError, match=r"clustering must be a scalar, got shape \(9,\)"):
        losses.deep_clustering_loss(x[:, 0], scores, np.zeros(N, int))
    with pytest.raises(ValueError, match=r"labels must be between -1 \(not known\) and 3, got 0 to 4"):
        losses.deep_clustering_loss(0.0, scores, np.arange(N) % 5)
    with pytest.raises(ValueError, match="classification_weight=-1 must be at least 0"):
        losses.deep_clustering_loss(0.0, scores, np.zeros(N, int), classification_weight=-1)
    with pytest.raises(ValueError, match="covariance='diagonal' is not known.*Did you mean 'diag'"):
        losses.mixture_nll(x, np.ones(K), centers, np.ones((K, D)), covariance="diagonal")
    with pytest.raises(ValueError, match=r"covariances must have the shape \(4, 3, 3\) to go with full means"):
        losses.mixture_nll(x, np.ones(K), centers, np.ones((K, D)))
    for covariance, covariances in (
        ("full", np.tile(np.diag([1.0, *np.ones(D - 2), -1]), (K, 1, 1))),
        ("tied", -np.eye(D)),
        ("diag", -np.ones((K, D))),
        ("spherical", [-1.0, *np.ones(K - 1)]),
    ):
        with pytest.raises(ValueError, match="symmetric matrices without negative eigenvalues: the least is -1"):
            losses.mixture_nll(x, np.ones(K) / K, centers, covariances, covariance=covariance)
    with pytest.raises(ValueError, match="must not be negative"):
        losses.mixture_nll(x, [-0.5, *np.ones(K - 1)], centers, np.ones(K), covariance="spherical")
    with pytest.raises(ValueError, match="got 2 assignments for 1 views"):
        losses.swapped_prediction_from_assignments([target, target], [scores])
    with pytest.raises(ValueError, match=r"scores\[1\] must have the shape \(9, 4\) to go with scores\[0\]"):
        losses.swapped_prediction_from_assignments([target], [scores, scores[:3]])

"""Trials of JAX's own switches: every functional algorithm, loss and metric under each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import algorithms
import hard_data
import jax
import jax.numpy as jnp
import numpy as np

from bench.trials.kinds import Trial, attempted
from jaxcluster import losses, metrics, sinkhorn, spectral

KIND = "JAX's switches"

SWITCHES: dict[str, tuple[str, Any]] = {
    "jax_debug_nans": ("jax_debug_nans", True),
    "strict dtype promotion": ("jax_numpy_dtype_promotion", "strict"),
    "no rank promotion": ("jax_numpy_rank_promotion", "raise"),
    "jax_enable_x64": ("jax_enable_x64", True),
    "jax_check_tracer_leaks": ("jax_check_tracer_leaks", True),
}

KEY_SEED = 0


@contextmanager
def switched(name: str, value: Any) -> Iterator[None]:
    """One setting of JAX changed, for all threads."""
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def trials() -> Iterator[Trial]:
    """Every function under every switch."""
    for method, call in functions().items():
        plain = cache(partial(_leaves, call))
        for case, (name, value) in SWITCHES.items():
            yield Trial(KIND, method, case, partial(attempted, partial(_compare, name, value, call, plain)))


def _compare(name: str, value: Any, call: Callable[[], Any], plain: Callable[[], list]) -> str:
    others = plain()
    with switched(name, value):
        leaves = _leaves(call)
    for leaf, other in zip(leaves, others, strict=True):
        if np.isnan(leaf).any():
            return f"NaN in a result of shape {leaf.shape}"
        # Under x64 another dtype draws other numbers.
        if (
            name != "jax_enable_x64"
            and leaf.shape == other.shape
            and not np.allclose(leaf, other, rtol=1e-3, atol=1e-4)
        ):
            return f"a result of shape {leaf.shape} is another one than without it"
    return ""


def _leaves(call):
    """The floating results of a call, in NumPy."""
    leaves = [
        leaf for leaf in jax.tree.leaves(call()) if not jax.dtypes.issubdtype(leaf_dtype(leaf), jax.dtypes.prng_key)
    ]
    return [array for array in map(np.asarray, leaves) if array.dtype.kind == "f"]


def leaf_dtype(leaf: Any) -> Any:
    """The dtype of a result, be it an array or a number."""
    return getattr(leaf, "dtype", np.asarray(leaf).dtype)


def functions() -> dict[str, Callable[[], Any]]:
    """A call of every function; those that may be traced, inside `jax.jit` too, losses with their gradients."""
    problem = hard_data.blobs()
    x, k = problem.x.astype(np.float32), problem.k
    weights = np.ones(len(x), np.float32)
    calls: dict[str, Callable[[], Any]] = {}
    for name, algorithm in algorithms.ALGORITHMS.items():
        for shift, kind in ((x, name), (problem.x, f"{name} of float64")):
            calls[kind] = partial(_fit, algorithm.fit, shift, k, weights if algorithm.takes("weights") else None)
        if "traced" not in algorithm.exempt:
            calls[f"jit of {name}"] = partial(_jitted, algorithm.fit, x, k)
    for name, finder in algorithms.FINDERS.items():
        calls[name] = partial(finder.fit, x)
    calls["spectral of neighbors"] = partial(_fit, partial(spectral.fit, affinity="nearest_neighbors"), x, k, None)
    calls["spectral.nystrom"] = partial(_fit, partial(spectral.nystrom, gamma=0.05, landmarks=60), x, k, None)
    calls["sinkhorn.solve"] = lambda: sinkhorn.solve(x[:20], x[20:50], epsilon=1.0)
    calls["sinkhorn.divergence"] = lambda: sinkhorn.divergence(x[:20], x[20:50], epsilon=1.0)
    calls["sinkhorn.barycenter"] = lambda: sinkhorn.barycenter(jax.random.key(0), [x[:20], x[20:50]], 4, epsilon=1.0)
    calls["sinkhorn.swav_assignments"] = lambda: sinkhorn.swav_assignments(jnp.asarray(x))
    calls["gradient of sinkhorn.solve"] = lambda: jax.grad(
        lambda rows: sinkhorn.solve(rows, jnp.asarray(x[20:50]), epsilon=1.0).regularized_cost
    )(jnp.asarray(x[:20]))
    for name, metric in _metrics(x, problem.y).items():
        calls[f"metric:{name}"] = metric
    for name, loss in _losses().items():
        calls[f"loss:{name}"] = partial(_differentiated, loss)
    return calls


def _fit(fit, x, k, weights):
    options = {} if weights is None else {"weights": weights}
    fitted = fit(jax.random.key(KEY_SEED), x, k, **options)
    repr(fitted)
    return fitted


def _jitted(fit, x, k):
    return jax.jit(lambda x: fit(jax.random.key(KEY_SEED), x, k))(jnp.asarray(x))


def _metrics(x, y):
    q = jax.nn.one_hot(jnp.asarray(y), 3, dtype=jnp.float32)
    scores = {
        name: partial(getattr(metrics, name), x, y)
        for name in ("silhouette_samples", "silhouette_score", "davies_bouldin_score", "calinski_harabasz_score")
    }
    for metric in ("manhattan", "cosine", "minkowski"):
        scores[f"silhouette by {metric}"] = partial(metrics.silhouette_score, x, y, metric=metric, p=3.0)
    scores["soft_silhouette"] = partial(_differentiated, (lambda q: metrics.soft_silhouette(jnp.asarray(x), q), (q,)))
    other = np.roll(y, 7)
    for name in (
        "adjusted_rand_score",
        "adjusted_mutual_info_score",
        "normalized_mutual_info_score",
        "v_measure_score",
        "fowlkes_mallows_score",
        "purity_score",
        "clustering_accuracy",
    ):
        scores[name] = partial(getattr(metrics, name), y, other)
    return scores


def _differentiated(loss):
    function, floats = loss
    value, gradients = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(floats)))))(*floats)
    return value, gradients


class Arrays(NamedTuple):
    """Arguments of the losses, with n samples, d features and k clusters.

    Attributes:
        z, other, third: (n, d) samples.
        centers: (k, d).
        labels: (n,) int32, one of them unknown.
        assignments: (n, k) probabilities.
        logits: (n, k).
    """

    z: jax.Array
    other: jax.Array
    third: jax.Array
    centers: jax.Array
    labels: np.ndarray
    assignments: jax.Array
    logits: jax.Array


Loss = tuple[Callable[..., Any], tuple]
"""A loss as a function of floating arrays, and the arrays; the code around it minds the switches itself."""


def _losses() -> dict[str, Loss]:
    """Every loss."""
    arrays = _arrays()
    return _losses_of_samples(arrays) | _losses_of_clusters(arrays) | _losses_of_networks(arrays)


def _arrays(n: int = 8, d: int = 3, k: int = 4) -> Arrays:
    rng = np.random.default_rng(0)
    samples = [jnp.asarray(rng.normal(size=(n, d)), jnp.float32) for _ in range(3)]
    centers = jnp.asarray(rng.normal(size=(k, d)), jnp.float32)
    labels = np.array([0, 1, 0, 1, 2, -1, 2, 0], np.int32)
    assignments = jnp.asarray(rng.dirichlet(np.ones(k), n), jnp.float32)
    return Arrays(*samples, centers, labels, assignments, jnp.asarray(rng.normal(size=(n, k)), jnp.float32))


def _losses_of_samples(arrays: Arrays) -> dict[str, Loss]:
    """Losses of pairs and triplets."""
    z, other, third, labels = arrays.z, arrays.other, arrays.third, arrays.labels
    same = np.array([True, False] * 4)
    found: dict[str, Loss] = {
        "contrastive": (lambda a, b: losses.contrastive_loss(a, b, same), (z, other)),
        "triplet": (losses.triplet_loss, (z, other, third)),
        "nt_xent": (losses.nt_xent_loss, (z, other)),
        "supervised_contrastive": (lambda z: losses.supervised_contrastive_loss(z, labels), (z,)),
    }
    for mining in ("hard", "semi-hard", "all"):
        found[f"mined_triplet {mining}"] = (partial(losses.mined_triplet_loss, labels=labels, mining=mining), (z,))
    return found


def _losses_of_clusters(arrays: Arrays) -> dict[str, Loss]:
    """Losses of centers, mixtures and assignments."""
    z, centers, assignments, logits = arrays.z, arrays.centers, arrays.assignments, arrays.logits
    k, d = centers.shape
    affinity = jnp.asarray(np.exp(-hard_data.squared_distances(z, z).astype(float)), jnp.float32)
    weights, variances = jnp.full((k,), 1 / k, jnp.float32), jnp.ones((k, d), jnp.float32)
    matrices = jnp.tile(jnp.eye(d, dtype=jnp.float32)[None, :, :], (k, 1, 1))
    return {
        "kmeans": (losses.kmeans_loss, (z, centers)),
        "soft_kmeans": (partial(losses.soft_kmeans_loss, variance=0.7), (z, centers)),
        "soft_clustering": (losses.soft_clustering_loss, (z, centers, assignments)),
        "dec": (lambda z, c: losses.dec_loss(losses.student_t_assignments(z, c), assignments), (z, centers)),
        "target_distribution": (lambda q: jnp.sum(jnp.square(losses.target_distribution(q))), (assignments,)),
        "deep_clustering": (
            lambda z, logits: losses.deep_clustering_loss(losses.kmeans_loss(z, centers), logits, arrays.labels).loss,
            (z, logits),
        ),
        "mixture_nll diag": (
            lambda z, c, v: losses.mixture_nll(z, weights, c, v, covariance="diag"),
            (z, centers, variances),
        ),
        "mixture_nll full": (lambda z, c: losses.mixture_nll(z, weights, c, matrices), (z, centers)),
        "soft_ncut": (lambda q: losses.soft_ncut(q, affinity), (assignments,)),
        "swapped_prediction": (losses.swapped_prediction_loss, (logits, logits[::-1])),
        "swapped_prediction_from_assignments": (
            lambda a, b: losses.swapped_prediction_from_assignments([assignments, assignments[::-1]], [a, b]),
            (logits, logits[::-1]),
        ),
    }


def _losses_of_networks(arrays: Arrays) -> dict[str, Loss]:
    """Losses of adversarial and variational networks."""
    z, other, third, centers = arrays.z, arrays.other, arrays.third, arrays.centers
    key = jax.random.key(1)
    found: dict[str, Loss] = {
        "wasserstein_critic": (losses.wasserstein_critic_loss, (z[:, 0], other[:, 0])),
        "wasserstein_generator": (losses.wasserstein_generator_loss, (z[:, 0],)),
        "gradient_penalty": (
            lambda a, b: losses.gradient_penalty(
                lambda rows: jnp.sum(jnp.square(rows), axis=1), losses.points_between(key, a, b)
            ),
            (z, other),
        ),
        "noise_recovery": (losses.noise_recovery_loss, (z, other)),
        "cluster_recovery": (
            lambda logits: losses.cluster_recovery_loss(np.maximum(arrays.labels, 0), logits),
            (arrays.logits,),
        ),
    }
    log_weights = jnp.log(jnp.full(len(centers), 1 / len(centers), jnp.float32))
    prior = {"log_weights": log_weights, "means": centers, "log_variances": jnp.zeros_like(centers)}
    for likelihood in ("bernoulli", "gaussian"):
        found[f"vade {likelihood}"] = (
            lambda mean, log_variance, likelihood=likelihood: (
                losses.vade_loss(jax.nn.sigmoid(z), z, mean, log_variance, z=mean, likelihood=likelihood, **prior).loss
            ),
            (other, third),
        )
    return found

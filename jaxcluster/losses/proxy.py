"""Metric-learning losses of samples and a learned vector of each class: a classifier's weights, or proxies.

ArcFace, CosFace, Proxy-NCA, Proxy-Anchor and SoftTriple. The vectors are arguments that an optimizer trains beside the
network. A label of −1 is unknown, and its sample takes part in nothing. Memory is n·k for n samples and k vectors.

>>> import jax.numpy as jnp
>>> from jaxcluster.losses import cosface_loss
>>> z, classes = jnp.array([[1.0, 0.0]]), jnp.eye(2)
>>> round(float(cosface_loss(z, [0], classes, margin=0.5, scale=1.0)), 3)  # log(1 + e^(0 − 0.5))
0.474

Sources: J. Deng, J. Guo, N. Xue and S. Zafeiriou, ArcFace: additive angular margin loss for deep face recognition, CVPR
2019; H. Wang et al., CosFace: large margin cosine loss for deep face recognition, CVPR 2018; Y. Movshovitz-Attias,
A. Toshev, T. Leung, S. Ioffe and S. Singh, No fuss distance metric learning using proxies, ICCV 2017 (Proxy-NCA);
S. Kim, D. Kim, M. Cho and S. Kwak, Proxy anchor loss for deep metric learning, CVPR 2020; Q. Qian et al., SoftTriple
loss: deep metric learning without triplet sampling, ICCV 2019.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcluster.core import validation
from jaxcluster.losses.validation import as_directions, as_labels, as_positive, mask_rows, promote, reduce
from jaxcluster.ops.differences import length, root
from jaxcluster.ops.distance import inner_products, normalize
from jaxcluster.types import Array, Bool, Float


def arcface_loss(z: Any, labels: Any, classes: Any, *, margin: float = 0.5, scale: Any = 64.0) -> Float[Array, ""]:
    """Mean cross-entropy of the logits s·cos θ, with s·cos(θ + m) for the class of the sample, θ its angle.

    Where θ + m is beyond π, cos θ − m·sin m stands for cos(θ + m), as in the authors' program: the logit would rise
    again with the angle.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, positions of the classes, or −1 for samples that take no part.
        classes: (n_classes, n_features) vectors of the classes; normalized here.
        margin: m in [0, π/2), radians.
        scale: s > 0. Traced.

    Returns:
        () loss (nats).

    Raises:
        ValueError, TypeError: wrong shapes, labels that are no positions of classes, a scale or margin out of range.
    """
    if float(validation.check_positive("margin", margin, zero=True)) >= math.pi / 2:
        raise ValueError(f"margin={margin} must be less than π/2 radians.")
    cosines, own, known = _cosines_of_classes(z, labels, classes)
    # The root has gradient 0 at cos θ = ±1, where the derivative of arccos is infinite.
    sines = root(jnp.maximum(1 - jnp.square(cosines), 0))
    shifted = cosines * math.cos(margin) - sines * math.sin(margin)
    shifted = jnp.where(cosines > -math.cos(margin), shifted, cosines - margin * math.sin(margin))
    return _cross_entropy(jnp.where(own, shifted, cosines), own, known, scale)


def cosface_loss(z: Any, labels: Any, classes: Any, *, margin: Any = 0.35, scale: Any = 64.0) -> Float[Array, ""]:
    """Mean cross-entropy of the logits s·cos θ, with s·(cos θ − m) for the class of the sample, θ its angle.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, positions of the classes, or −1 for samples that take no part.
        classes: (n_classes, n_features) vectors of the classes; normalized here.
        margin: m >= 0. Traced.
        scale: s > 0. Traced.

    Returns:
        () loss (nats).

    Raises:
        ValueError, TypeError: wrong shapes, labels that are no positions of classes, a scale or margin out of range.
    """
    cosines, own, known = _cosines_of_classes(z, labels, classes)
    margin = as_positive("margin", margin, cosines.dtype, zero=True)
    return _cross_entropy(cosines - jnp.where(own, margin, 0), own, known, scale)


def proxy_nca_loss(
    z: Any, labels: Any, proxies: Any, *, scale: Any = 1.0, among: str = "negatives"
) -> Float[Array, ""]:
    """Mean of −log[exp(−s·d²(x, p_y)) / Σ exp(−s·d²(x, p))], d² the squared distance of rows of length 1.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, positions of the proxies, or −1 for samples that take no part.
        proxies: (n_classes, n_features), at least two; normalized here.
        scale: s > 0. Traced.
        among: "negatives" for the sum over the proxies of other classes, as published, or "all" for all proxies, as in
            Proxy-NCA++.

    Returns:
        () loss (nats), which may be below 0 for "negatives".

    Raises:
        ValueError, TypeError: wrong shapes, labels that are no positions of proxies, a scale that is not positive, one
            proxy alone.
    """
    validation.check_choice("among", among, ("negatives", "all"))
    cosines, own, known = _cosines_of_classes(z, labels, proxies, name="proxies")
    if cosines.shape[1] < 2:
        raise ValueError("proxies must hold two classes or more: a sample is compared with those of other classes.")
    scale = as_positive("scale", scale, cosines.dtype)
    # −‖x − p‖² = 2·cos − 2 for rows of length 1.
    logits = scale * (2 * cosines - 2)
    rivals = ~own if among == "negatives" else jnp.ones_like(own)
    total = jax.nn.logsumexp(jnp.where(rivals, logits, -jnp.inf), axis=1)
    return reduce(total - jnp.sum(jnp.where(own, logits, 0), axis=1), mask=known)


def proxy_anchor_loss(z: Any, labels: Any, proxies: Any, *, margin: Any = 0.1, scale: Any = 32.0) -> Float[Array, ""]:
    """Proxy-Anchor: each proxy attracts the samples of its class and repels the others, by the cosine similarity s.

    The sum of the mean over proxies with samples of log(1 + Σ_{x of the class} exp(−α(s − δ))), and of the mean over
    all proxies of log(1 + Σ_{other x} exp(α(s + δ))).

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, positions of the proxies, or −1 for samples that take no part.
        proxies: (n_classes, n_features); normalized here.
        margin: δ >= 0. Traced.
        scale: α > 0. Traced.

    Returns:
        () loss.

    Raises:
        ValueError, TypeError: wrong shapes, labels that are no positions of proxies, a scale or margin out of range.
    """
    cosines, own, known = _cosines_of_classes(z, labels, proxies, name="proxies")
    margin = as_positive("margin", margin, cosines.dtype, zero=True)
    scale = as_positive("scale", scale, cosines.dtype)
    attract = _log_one_plus_sum(-scale * (cosines - margin), own)
    repel = _log_one_plus_sum(scale * (cosines + margin), ~own & known[:, None])
    return reduce(attract, mask=jnp.any(own, axis=0)) + jnp.mean(repel)


def soft_triple_loss(
    z: Any,
    labels: Any,
    centers: Any,
    *,
    margin: Any = 0.01,
    scale: Any = 20.0,
    temperature: Any = 0.1,
    center_weight: Any = 0.2,
) -> Float[Array, ""]:
    """SoftTriple: cross-entropy of classes with several centers each, and a weight that merges centers of a class.

    The similarity to a class is Σ_c softmax(s_c/γ)·s_c over the cosines s_c to its centers; that to the sample's own
    class is lowered by δ, and all are multiplied by λ. The second term is τ times the mean, over classes and pairs of
    their centers, of the distance of two centers.

    Args:
        z: (n_samples, n_features) embeddings; normalized here.
        labels: (n_samples,) integers, positions of the classes, or −1 for samples that take no part.
        centers: (n_classes, n_centers, n_features); normalized here.
        margin: δ >= 0. Traced.
        scale: λ > 0. Traced.
        temperature: γ > 0. Traced.
        center_weight: τ >= 0. Traced.

    Returns:
        () loss (nats).

    Raises:
        ValueError, TypeError: wrong shapes, labels that are no positions of classes, numbers out of range.
    """
    centers = validation.check_numeric(centers, name="centers")
    if centers.ndim != 3:
        raise ValueError(f"centers must be (n_classes, n_centers, n_features), got shape {centers.shape}.")
    k, m, d = centers.shape
    flat = as_directions(centers.reshape(k * m, d), name="centers")
    z, flat = promote(as_directions(z, name="z"), flat)
    _check_columns(z, d, "centers")
    labels = as_labels(labels, z.shape[0], k)
    known, own = labels >= 0, labels[:, None] == jnp.arange(k, dtype=labels.dtype)[None, :]
    margin = as_positive("margin", margin, z.dtype, zero=True)
    temperature = as_positive("temperature", temperature, z.dtype)
    weight = as_positive("center_weight", center_weight, z.dtype, zero=True)
    unit = normalize(flat)
    cosines = inner_products(normalize(mask_rows(known, z)), unit).reshape(-1, k, m)
    similarity = jnp.sum(jax.nn.softmax(cosines / temperature, axis=2) * cosines, axis=2)
    error = _cross_entropy(similarity - jnp.where(own, margin, 0), own, known, scale)
    if m == 1:
        return error
    unit = unit.reshape(k, m, d)
    between = length(unit[:, :, None, :] - unit[:, None, :, :])  # not √(2 − 2·cos), which cancels for near centers
    # Both orders of each pair, so that m·(m − 1) of them make the mean.
    distinct = ~jnp.eye(m, dtype=bool)
    return error + weight * jnp.sum(jnp.where(distinct[None], between, 0)) / (k * m * (m - 1))


def _cosines_of_classes(
    z: Any, labels: Any, classes: Any, *, name: str = "classes"
) -> tuple[Float[Array, "n k"], Bool[Array, "n k"], Bool[Array, " n"]]:
    """Cosines of samples and vectors, the mask of each sample's own class, and the samples of known class."""
    z, classes = promote(as_directions(z, name="z"), as_directions(classes, name=name))
    _check_columns(z, classes.shape[1], name)
    labels = as_labels(labels, z.shape[0], classes.shape[0])
    known = labels >= 0
    cosines = inner_products(normalize(mask_rows(known, z)), normalize(classes))
    return cosines, labels[:, None] == jnp.arange(classes.shape[0], dtype=labels.dtype)[None, :], known


def _check_columns(z, d, name):
    if z.shape[1] != d:
        raise ValueError(f"{name} has {d} columns, but z has {z.shape[1]}. Both need the same number.")


def _cross_entropy(similarity, own, known, scale):
    logits = as_positive("scale", scale, similarity.dtype) * similarity
    error = jax.nn.logsumexp(logits, axis=1) - jnp.sum(jnp.where(own, logits, 0), axis=1)
    return reduce(error, mask=known)


def _log_one_plus_sum(logits, mask):
    """log(1 + Σ exp) of each column over the rows of the mask, which may be empty."""
    logits = jnp.where(mask, logits, -jnp.inf)
    return jax.nn.logsumexp(jnp.concatenate([logits, jnp.zeros_like(logits[:1])]), axis=0)

"""Self-supervised learning by joint embedding: SimCLR, BYOL, SimSiam, Barlow Twins, VICReg and DINO in one module.

>>> import jax, numpy as np
>>> from flax import nnx
>>> from jaxcluster.deep import SelfSupervised, adam, nets, train
>>> from jaxcluster.deep.views import GaussianNoise
>>> x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32) + 9 * (np.arange(60) % 2)[:, None]
>>> encoder, projector = (nets.Projector((2, 8, 2), rngs=nnx.Rngs(seed)) for seed in (0, 1))
>>> module = SelfSupervised(encoder, 2, 2, views=GaussianNoise(0.5), objective="vicreg", projector=projector)
>>> result = train(jax.random.key(0), module, x - x.mean(axis=0), epochs=60, optimizer=adam(1e-2))
>>> bool((result.labels[::2] == result.labels[0]).all() and (result.labels[1::2] != result.labels[0]).all())
True

Sources: T. Chen, S. Kornblith, M. Norouzi and G. Hinton, A simple framework for contrastive learning of visual
representations, ICML 2020 ("simclr"); J.-B. Grill et al., Bootstrap your own latent: a new approach to self-supervised
learning, NeurIPS 2020 ("byol"); X. Chen and K. He, Exploring simple Siamese representation learning, CVPR 2021
("simsiam"); J. Zbontar, L. Jing, I. Misra, Y. LeCun and S. Deny, Barlow Twins: self-supervised learning via redundancy
reduction, ICML 2021 ("barlow-twins"); A. Bardes, J. Ponce and Y. LeCun, VICReg: variance-invariance-covariance
regularization for self-supervised learning, ICLR 2022 ("vicreg"); M. Caron et al., Emerging properties in
self-supervised vision transformers, ICCV 2021 ("dino").
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.autoencoder import latent_mean
from jaxcluster.deep.cosine_embedding import CosineEmbedding, spread
from jaxcluster.deep.inference import eval_copy
from jaxcluster.deep.latent_kmeans import NonTrainable
from jaxcluster.deep.protocol import Batch
from jaxcluster.deep.swav import COLLAPSE_GRACE_STEPS, COLLAPSE_VARIANCE
from jaxcluster.deep.views import Views, apply_to_views
from jaxcluster.losses import (
    barlow_twins_loss,
    dino_center,
    dino_loss,
    negative_cosine_loss,
    nt_xent_loss,
    vicreg_loss,
)
from jaxcluster.ops.distance import normalize
from jaxcluster.types import Array, Float, KeyArray

OBJECTIVES = ("simclr", "byol", "simsiam", "barlow-twins", "vicreg", "dino")

WITH_PREDICTOR = ("byol", "simsiam")
"""Objectives with a predictor."""

WITH_TARGET = ("byol", "dino")
"""Objectives with a target network, the moving average of the trained one."""

WARMUP_TEMPERATURE = 0.04
"""Temperature of DINO's teacher at the first step, the paper's."""

WARMUP_FRACTION = 0.1
"""Fraction of the steps in which the teacher's temperature rises, that of 30 epochs among the paper's 300."""

COLLAPSE_INFORMATION = 1e-4
"""Information of an output of DINO's teacher on the sample, as a fraction of its maximum, below which all samples have
the same probabilities."""


class Branch(nnx.Module):
    """An encoder, and a projector of its codes; None for the codes themselves."""

    def __init__(self, encoder: nnx.Module, projector: nnx.Module | None):
        self.encoder, self.projector = encoder, projector

    def encode(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample."""
        return jnp.float32(latent_mean(self.encoder(x)))

    def project(self, z: Float[Array, "n l"]) -> Float[Array, "n w"]:
        """Projection of each code."""
        return z if self.projector is None else jnp.float32(self.projector(z))

    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n w"]:
        """Projection of each sample."""
        return self.project(self.encode(x))


def _is_trained(path: tuple[Any, ...], _: Any) -> bool:
    return path[0] != "target"


class SelfSupervised(CosineEmbedding):
    """An encoder whose codes of two views of a sample agree after a projector, and spherical k-means of the codes.

    With z the projections of the views, and the mean over all pairs of different views:

    - "simclr": `jaxcluster.losses.nt_xent_loss` of two z;
    - "barlow-twins", "vicreg": `barlow_twins_loss` and `vicreg_loss` there of two z, with the coefficients of the
      papers;
    - "simsiam": `negative_cosine_loss` there of the predictor's output for one z, and another z, a constant;
    - "byol": 2 + 2·`negative_cosine_loss` of the predictor's output for one z, and the target network's z of another
      view; the paper has the sum of both directions, here it is the mean;
    - "dino": `dino_loss` of one z, and the target network's z of another view, the teacher's outputs.

    The target network has an encoder and a projector, whose parameters are moving averages: with the momentum m they
    are m·(their own) + (1 − m)·(the trained ones) after each step. m rises from ``momentum`` to 1 by half a cosine over
    ``n_steps``. The temperature of DINO's teacher rises linearly from 0.04 to ``teacher_temperature`` in the first
    tenth of them. The codes are those of the encoder before the projector; for "dino" those of the target network.

    Of views by a `jaxcluster.deep.views.MultiCrop` the global ones alone are targets.

    Args:
        encoder: samples to (n_samples, latent) codes, without the scaling to length 1.
        k: number of clusters.
        latent: width of a code.
        views: a function of a key and samples that returns two or more views, or one view, and is then called twice.
        objective: one of the six above.
        projector: codes to (n_samples, width) projections; None for the codes themselves. That of "dino" ends in
            `jaxcluster.deep.nets.Prototypes`, in the paper.
        predictor: projections to (n_samples, width) predictions, for "byol" and "simsiam" alone.
        temperature: τ > 0 of "simclr" and of the student of "dino"; None for 0.5 and 0.1.
        teacher_temperature: τ_t > 0 of "dino" after the first tenth of the steps.
        momentum: of the target network at the first step, in [0, 1).
        n_steps: number of steps of the whole training; None for a momentum and a temperature that stay.
        n_init: starts of the final k-means.

    Attributes:
        target: encoder and projector of the target network; None for an objective without one.
        teacher_center: (width,) moving average of the teacher's outputs, for "dino".
        steps: () int32 number of steps taken.

    Raises:
        ValueError, TypeError: an unknown objective, a number out of range, no views; a predictor that is missing, or
            that the objective does not have.
    """

    trainable: Any = nnx.All(nnx.Param, _is_trained)

    def __init__(
        self,
        encoder: nnx.Module,
        k: int,
        latent: int,
        *,
        views: Views | None,
        objective: str = "simclr",
        projector: nnx.Module | None = None,
        predictor: nnx.Module | None = None,
        temperature: float | None = None,
        teacher_temperature: float = 0.07,
        momentum: float = 0.99,
        n_steps: int | None = None,
        n_init: int = 20,
    ):
        super().__init__(encoder, k, latent, views=views, n_init=n_init)
        validation.check_choice("objective", objective, OBJECTIVES)
        if views is None:
            raise ValueError(f"objective={objective!r} learns from views of rows, and there are none. Pass views.")
        _check_predictor(objective, predictor)
        self.objective, self.projector, self.predictor = objective, projector, predictor
        self.temperature = 0.1 if objective == "dino" else 0.5
        if temperature is not None:
            self.temperature = float(validation.check_positive("temperature", temperature))
        self.teacher_temperature = float(validation.check_positive("teacher_temperature", teacher_temperature))
        self.momentum = float(validation.check_positive("momentum", momentum, zero=True))
        if self.momentum >= 1:
            raise ValueError(f"momentum={momentum} must be less than 1: the target network would never change.")
        self.n_steps = 0 if n_steps is None else validation.check_count("n_steps", n_steps)
        branch = nnx.clone(Branch(encoder, projector))
        self.target = branch if objective in WITH_TARGET else None
        code = jax.ShapeDtypeStruct((1, latent), jnp.float32)
        width = jax.eval_shape(eval_copy(branch).project, code).shape[1] if objective == "dino" else 0
        self.teacher_center = NonTrainable(jnp.zeros(width, jnp.float32))
        self.spread, self.steps = NonTrainable(jnp.ones((), jnp.float32)), NonTrainable(jnp.int32(0))

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Code of each sample, of length 1."""
        return normalize(self.target.encode(x)) if self.target and self.objective == "dino" else super().features(x)

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Loss of a batch, see the class; updates the target network.

        Returns:
            The loss, and "spread", 0 at a collapse: the mean squared distance of the projections, scaled to length 1,
            from their mean; for "dino" the mutual information of samples and teacher's outputs as a fraction of
            its maximum.
        """
        stacks = self._stacks(key, batch.x)
        projections = apply_to_views(Branch(self.encoder, self.projector), stacks)
        if self.objective in ("simclr", "barlow-twins", "vicreg"):
            values = [self._of_pair(a, b) for a, b in itertools.combinations(projections, 2)]
            seen = projections
        else:
            predictions = apply_to_views(self.predictor, [projections]) if self.predictor else projections
            seen = self._targets(stacks, projections)
            pairs = [(v, i) for i in range(len(seen)) for v in range(len(projections)) if v != i]
            values = [self._of_pair(predictions[v], seen[i]) for v, i in pairs]
        self.spread[...] = self._spread(jax.lax.stop_gradient(seen))
        if self.objective == "dino":
            self.teacher_center[...] = dino_center(self.teacher_center[...], seen.reshape(-1, seen.shape[2]))
        self.steps[...] += 1
        return jnp.mean(jnp.stack(values)), {"spread": self.spread[...]}

    def _collapsed(self, z):
        """Collapse of the codes, or of the projections of the last batch."""
        least = COLLAPSE_INFORMATION if self.objective == "dino" else COLLAPSE_VARIANCE
        same = (self.spread[...] <= least) & (self.steps[...] >= COLLAPSE_GRACE_STEPS)
        return super()._collapsed(z) | same

    def _of_pair(self, a, b):
        """Loss of the projections, or predictions, of one view and of what they have to agree with."""
        if self.objective == "byol":
            return 2 + 2 * negative_cosine_loss(a, b)
        options = {"temperature": self.temperature, "teacher_temperature": self._teacher_temperature()}
        return {
            "simclr": partial(nt_xent_loss, temperature=self.temperature),
            "barlow-twins": barlow_twins_loss,
            "vicreg": vicreg_loss,
            "simsiam": negative_cosine_loss,
            "dino": lambda a, b: dino_loss(a, b, self.teacher_center[...], **options),
        }[self.objective](a, b)

    def _targets(self, stacks, projections):
        """(n_targets, n_samples, width) constants that the other views predict."""
        count = getattr(self.views, "n_global", len(projections))
        if count + getattr(self.views, "n_local", 1) == 1:  # called twice
            count = 2
        if self.target is None:
            return jax.lax.stop_gradient(projections[:count])
        self._update_target()
        before = np.cumsum([0, *map(len, stacks)])
        stacks = [stack[: count - start] for start, stack in zip(before, stacks, strict=False) if start < count]
        return jax.lax.stop_gradient(apply_to_views(self.target, stacks))

    def _update_target(self):
        # Before a step, not after it: the first time both networks are equal, so it is the update of the step before.
        momentum = self._momentum()
        own, online = (nnx.state(each, nnx.Param) for each in (self.target, Branch(self.encoder, self.projector)))
        mean = lambda a, b: momentum * a + (1 - momentum) * jax.lax.stop_gradient(b)  # noqa: E731
        nnx.update(self.target, jax.tree.map(mean, own, online))

    def _progress(self):
        """Fraction of the training that is over, in [0, 1]."""
        return jnp.minimum(self.steps[...].astype(jnp.float32) / self.n_steps, 1)

    def _momentum(self):
        if not self.n_steps:
            return jnp.float32(self.momentum)
        return 1 - (1 - self.momentum) * (1 + jnp.cos(jnp.pi * self._progress())) / 2

    def _teacher_temperature(self):
        if not self.n_steps:
            return jnp.float32(self.teacher_temperature)
        start = min(WARMUP_TEMPERATURE, self.teacher_temperature)
        rise = jnp.minimum(self._progress() / WARMUP_FRACTION, 1)
        return start + (self.teacher_temperature - start) * rise

    def _spread(self, z):
        rows = z.reshape(-1, z.shape[2])
        if self.objective != "dino":
            return spread(normalize(rows))
        probabilities = jax.nn.softmax((rows - self.teacher_center[...][None]) / self._teacher_temperature())
        entropy = lambda p: jnp.sum(jax.scipy.special.entr(p), axis=-1)  # noqa: E731
        information = entropy(jnp.mean(probabilities, axis=0)) - jnp.mean(entropy(probabilities))
        return information / jnp.log(jnp.float32(max(2, rows.shape[1])))


def _check_predictor(objective, predictor):
    if (predictor is not None) != (objective in WITH_PREDICTOR):
        problem = "needs a predictor" if predictor is None else "has no predictor"
        advice = "Pass a network of projections" if predictor is None else "Pass none"
        raise ValueError(f"objective={objective!r} {problem}. {advice}.")

"""Interface between the trainer and a module: `ClusteringModule`, its hooks, and the tuples that they take and return.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep.protocol import ClusteringModule, overrides
>>> class Mean(ClusteringModule):
...     def __init__(self):
...         self.mean = nnx.Param(jnp.zeros(2))
...     def loss(self, batch, key):
...         return jnp.mean(jnp.square(batch.x - self.mean[...][None])), {}
>>> overrides(Mean(), "loss"), overrides(Mean(), "refresh")
(True, False)
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxcluster.types import Array, Bool, Float, Int, KeyArray


class Batch(NamedTuple):
    """Samples of one training step.

    Attributes:
        x: (n_samples, …) the samples.
        target: their part of the `RefreshResult.target` of the last refresh; None without one.
        index: (n_samples,) int32 positions in the data set.
        y: (n_samples,) their part of the ``y`` of `train`, such as class labels; None without.
    """

    x: Float[Array, "b ..."]
    target: Any = None
    index: Int[Array, " b"] | None = None
    y: Any = None


class RefreshResult(NamedTuple):
    """Result of a refresh, computed from the features of all samples.

    Attributes:
        labels: (n_samples,) int32 clusters; None for a module without clusters.
        target: a pytree of arrays with n_samples rows; `loss` gets those of its batch. None for none.
        weight: (n_samples,) >= 0 sampling weights: until the next refresh batches are drawn with replacement in
            proportion to them. None for passes over all samples.
        collapsed: () bool, True where the features no longer separate samples; None where that is not checked.
    """

    labels: Int[Array, " n"] | None
    target: Any = None
    weight: Float[Array, " n"] | None = None
    collapsed: Bool[Array, ""] | None = None


class UpdatePhase(NamedTuple):
    """One of the alternating updates of a training step, for adversarial networks.

    Attributes:
        name: of its loss in the history; one phase must be named "loss".
        method: name of the module's method that computes the loss, with the signature of `ClusteringModule.loss`.
        parts: names of the parts of ``trainable`` that it updates.
        steps: number of updates, each on a batch of its own.
    """

    name: str
    method: str
    parts: tuple[str, ...]
    steps: int = 1


class ClusteringModule(nnx.Module):
    """Base class of modules that `train` accepts. Only `loss` must be implemented.

    The optimizer updates what ``trainable`` selects. Other variables change as the module changes them in `loss` and
    `refresh`. A subclass with `features` and `refresh` is refreshed between epochs: the trainer computes the features
    of all samples, tile by tile, and passes them to `refresh`.

    Attributes:
        trainable: a filter of nnx, or a dictionary of disjoint filters: named parts, each with an optimizer state.
        update_phases: alternating updates that make up a step; empty for one update of all parts by `loss`.
        reset_on_refresh: names of parts that `refresh` may overwrite; their optimizer state starts anew with them.

    Raises:
        TypeError: when a subclass is defined with a public name that is almost that of a hook: a misspelt hook would
            never be called.
    """

    trainable: Any = nnx.Param
    update_phases: Any = ()
    reset_on_refresh: Any = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("_") or name in HOOKS:
                continue
            for hook in difflib.get_close_matches(name, HOOKS, n=1, cutoff=MISSPELLING_SIMILARITY):
                raise TypeError(
                    f"{cls.__name__}.{name} is not a hook of ClusteringModule, and {hook} is one: a misspelt hook is "
                    f"never called. Rename it to {hook}, or to something less like it."
                )

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Training loss of a batch.

        Returns:
            The scalar to minimize, and other scalars for the history by their name.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement loss(batch, key).")

    def features(self, x: Float[Array, "n ..."]) -> Float[Array, "n l"]:
        """Features (n_samples, latent) of samples, each independent of the other samples."""
        raise NotImplementedError(f"{type(self).__name__} must implement features(x), since it has refresh(z, key).")

    def refresh(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """Clusters, targets and sampling weights from the features of all samples."""
        raise NotImplementedError

    def finalize(self, z: Float[Array, "n l"], key: KeyArray) -> RefreshResult:
        """The last refresh, where the clusters of the trained module are computed otherwise than in training."""
        return self.refresh(z, key)

    def assign(self, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        """Responsibilities (n_samples, n_clusters) of clusters for features, if the module has any."""
        raise NotImplementedError

    def constrain(self) -> None:
        """Project parameters back onto their constraint set, after each update."""

    def label_agreement(self, old: Int[np.ndarray, " n"], new: Int[np.ndarray, " n"]) -> dict[str, float]:
        """Comparison of the labels of two refreshes, for the history: "changed", the fraction of other labels."""
        return {"changed": float(np.mean(old != new))}


HOOKS = tuple(name for name in vars(ClusteringModule) if not name.startswith("_"))

MISSPELLING_SIMILARITY = 0.82
"""Least `difflib` ratio of a name to a hook that counts as a misspelling: `refesh` has 0.92; `losses`, a plausible name
of its own, has 0.80."""


def overrides(module: ClusteringModule, hook: str) -> bool:
    """True where the class of a module implements a hook itself."""
    return getattr(type(module), hook) is not getattr(ClusteringModule, hook)

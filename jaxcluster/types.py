"""Shared types: weighted samples, the result of a fit, and its status."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Key, Num, UInt32

__all__ = [
    "Absent",
    "Algorithm",
    "Array",
    "ArrayLike",
    "Bool",
    "Fit",
    "Float",
    "Int",
    "Integer",
    "KeyArray",
    "Num",
    "Points",
    "Published",
    "Status",
]

if TYPE_CHECKING:
    # Any in place of NumPy's class: a checker would ask every caller which of the two it has, and few need to know.
    Published: TypeAlias = Array | Any
else:
    Published: TypeAlias = Array | np.ndarray
"""Array of a result: JAX's, or NumPy's where it is float64 and JAX computes in float32."""

if TYPE_CHECKING:
    Absent: TypeAlias = Any
else:
    Absent: TypeAlias = None
"""None, of a value that is there wherever it is used: the options of a method decide, which checkers cannot see."""

KeyArray: TypeAlias = Key[Array, ""] | UInt32[Array, " _"]
"""JAX random key: a typed key (``jax.random.key``) or the older raw pair of words."""


class Points(NamedTuple):
    """Weighted samples, the one data type of all kernels.

    Sample weights, padding, ragged shards and masks are all ``weight``: padding weighs 0.

    Attributes:
        x: (n_samples, n_features) samples.
        weight: (n_samples,) weights >= 0.
    """

    x: Float[Array, "*batch n d"]
    weight: Float[Array, "*batch n"]


class Status(enum.IntEnum):
    """Final status of an iteration. A fit has it as an int32 scalar: ``Status(int(fit.status))``.

    CONVERGED: the tolerance was reached.

    MAX_STEPS: the limit of steps was reached before the tolerance.

    NOT_FINITE: the objective is NaN or infinite.

    EMPTY_CLUSTERS: a cluster has no samples.

    COLLAPSED: a component of a mixture lost its samples or its variance, which was bounded from below; or the features
    of a network became constant.

    INTERRUPTED: Ctrl-C ended the iteration; the result is the best state so far.

    PRECISION: samples differ by less than the computation resolves, so that the result may differ from that of exact
    arithmetic. Scale the columns, or compute in float64 with ``jax.config.update("jax_enable_x64", True)``.
    """

    CONVERGED = 0
    MAX_STEPS = 1
    NOT_FINITE = 2
    EMPTY_CLUSTERS = 3
    COLLAPSED = 4
    PRECISION = 5
    INTERRUPTED = 6


def ending_in_words(steps: Any, status: Any) -> str:
    """Steps and status of an iteration: ``7 steps, CONVERGED``; their shape where they are of a batch, or traced."""
    if any(isinstance(each, Tracer) or getattr(each, "shape", None) != () for each in (steps, status)):
        return f"steps and status of shape {tuple(getattr(steps, 'shape', ()))}"
    return f"{int(steps)} step{'' if int(steps) == 1 else 's'}, {Status(int(status)).name}"


# Not Generic[State], though Python allows it of a NamedTuple: beartype 0.23 refuses the class under the import hook of
# jaxtyping, with which the tests run.
class Fit(NamedTuple):
    """Result of an iteration.

    Attributes:
        state: public state of the algorithm, a NamedTuple of arrays.
        labels: (n_samples,) int32 labels; None for methods without labels.
        steps: () int32, number of steps.
        status: () int32, a `Status`.
        history: (capacity,) objective after each step; 0 from ``steps`` on.
    """

    state: Any
    labels: Int[Array, "*batch n"] | Absent
    steps: Int[Array, "*batch"]
    status: Int[Array, "*batch"]
    history: Float[Array, "*batch capacity"]

    def __repr__(self) -> str:
        """Names and shapes, not numbers: ``Fit(KMeansState, labels (300,), 7 steps, …)``."""
        parts = [type(self.state).__name__]
        if self.labels is not None:
            parts.append(f"labels {tuple(getattr(self.labels, 'shape', ()))}")
        parts.append(ending_in_words(self.steps, self.status))
        return f"Fit({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The sizes of the clusters and a curve of the objective, for a notebook."""
        import html

        from jaxcluster.core.messages import facts, sizes_in_words, sparkline

        title = html.escape(repr(self))
        if any(isinstance(each, Tracer) or np.shape(each) != () for each in (self.steps, self.status)):
            return f"<pre>{title}</pre>"
        history = np.asarray(self.history)[: int(self.steps)]
        labels = "" if self.labels is None else sizes_in_words(self.labels)
        return facts(repr(self), {"clusters": labels, "objective": sparkline(history, "objective")})


class Algorithm(Protocol):
    """Protocol of the functional algorithms: each is a module with these functions.

    Samples, keys and states are passed by position, all else by name. A state is a NamedTuple of arrays, and all
    numbers that `predict` and `score` need are in it. Words and functions are not, as no array holds them: a
    ``metric`` with its ``p`` and the ``missing`` of mixtures are passed again where a fit had them.

    Deviations, with their reasons:

    - dbscan, hdbscan and optics: ``fit(x)``. They draw nothing, so there is no key, and they find k.
    - optics: no `predict`. Reachabilities are those of the samples of the fit in their order.
    - hdbscan: `approximate_predict(state, x)` in place of `predict`, with probabilities: new samples might have changed
      the tree, so that labels of a fit need not be repeated.
    - spectral: `predict` takes the state of `nystrom`. The embedding of `fit` is defined on its own samples.
    - bisecting, dbscan, hdbscan, kmedoids, optics, spectral: no `score`. They have no objective of new samples, or that
      of the nearest center, which is not the one they descend to; `transform` of kmedoids has the distances.
    - soft_kmeans: `free_energy(centers, x, variance)` in place of `score`, which has a gradient with respect to the
      variance.
    - sinkhorn: ``solve(x, y)``. Transport has two clouds of samples and no labels.
    - neighbor_embedding: ``fit(key, x, n_components)`` and ``transform(state, x)``. A map has places and no labels.
    """

    @staticmethod
    def fit(key: KeyArray, x: Any, k: int, **options: Any) -> Fit:
        """Fit k clusters to (n_samples, n_features) samples."""
        ...

    @staticmethod
    def predict(state: Any, x: Any, **options: Any) -> Int[Array, " n"]:
        """Label samples as the fit with this state would."""
        ...

    @staticmethod
    def score(state: Any, x: Any, **options: Any) -> Float[Published, ""]:
        """Objective of samples under this state; higher is better."""
        ...

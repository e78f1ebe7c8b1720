"""k-modes: cluster categorical rows around modes, by the number of columns in which a row differs from a mode.

    assignment   label_i = argmin_j (number of columns in which row i differs from mode j)
    update       mode_j: the heaviest category of each column among the rows with label_i = j
    inertia      Σ w_i·(number of columns in which row i differs from the mode of its cluster)

Sources: Z. Huang, Extensions to the k-means algorithm for clustering large data sets with categorical values, Data
Mining and Knowledge Discovery 2 (1998). Modes are updated once all rows are assigned, as in Lloyd's iteration; the
iteration is that of `jaxcluster.cluster.kprototypes`, without numbers.

>>> import jax, jax.numpy as jnp
>>> codes = jnp.array([[0, 0, 0], [0, 0, 1], [1, 2, 2], [1, 2, 0]])
>>> fitted = fit(jax.random.key(0), codes, 2, init="cao")
>>> fitted.labels.tolist(), fitted.state.centers.tolist(), fitted.state.inertia.item()
([0, 0, 1, 1], [[0, 0, 0], [1, 2, 0]], 2.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxcluster.cluster import kprototypes
from jaxcluster.cluster.kprototypes.checks import as_codes
from jaxcluster.cluster.kprototypes.seeding import INITS
from jaxcluster.core import memory, validation
from jaxcluster.types import Array, Fit, Float, Int, KeyArray, Published

__all__ = ["INITS", "KModesState", "fit", "predict", "score"]


def __dir__() -> list[str]:
    return __all__


class KModesState(NamedTuple):
    """Fitted k-modes.

    Attributes:
        centers: (k, q) int32 codes of the modes, the lowest code of equals.
        inertia: () Σ w·(number of columns in which a row differs from its mode).
        weight: (k,) total weight of the rows of each cluster.
        residual: () number of entries of modes that the last step changed; 0 if it changed no label.
    """

    centers: Int[Array, "*batch k q"]
    inertia: Float[Published, "*batch"]
    weight: Float[Published, "*batch k"]
    residual: Float[Published, "*batch"]

    @property
    def objective(self) -> Float[Published, "*batch"]:
        """The inertia, by which runs are compared."""
        return self.inertia


def fit(
    key: KeyArray,
    x: Any,
    k: int,
    *,
    weights: Any = None,
    init: Any = "huang",
    n_init: int | str = 1,
    max_steps: Any = 100,
    n_categories: Sequence[int] | None = None,
    axis_name: str | None = None,
    mesh: Mesh | None = None,
) -> Fit:
    """Cluster categorical rows around k modes.

    A pure function: it works under jit, vmap and shard_map. It stops once no label changes.

    Args:
        key: random key for the initialization.
        x: (n_samples, q) integers, the code of the category of each column, from 0.
        k: number of clusters, static, 1 <= k <= n_samples.
        weights: (n_samples,) non-negative sample weights, or None for 1 each.
        init: "huang" (rows near drawn categories), "cao" (frequent rows far from each other, without chance), "random"
            (distinct rows by weight), or (k, q) modes.
        n_init: runs from different initial modes, in one program; the one of least inertia is returned. "auto" is 10
            for "huang" and "random", else 1.
        max_steps: maximum number of steps. Traced.
        n_categories: number of categories of each column, static; None for one more than its largest code. Traced
            codes need it.
        axis_name: the mapped axis over which the rows are spread, inside shard_map.
        mesh: of this process, over whose devices concrete rows are spread; None for one device.

    Returns:
        `Fit` with a `KModesState`, labels (n_samples,) int32, steps, status and the inertia after each step. Status
        EMPTY_CLUSTERS: there were fewer distinct rows than clusters.

    Raises:
        ValueError, TypeError: wrong shapes, values or option names, before anything is traced.
    """
    x = as_codes(x, name="x")
    if x.ndim == 2 and x.shape[1] == 0:
        raise ValueError(f"x has no columns (shape {np.shape(x)}); at least 1 is needed.")
    fitted = kprototypes.fit(
        key,
        _no_numbers(x),
        k,
        codes=x,
        gamma=1.0,
        weights=weights,
        init=init if isinstance(init, str) else (np.zeros((np.shape(init)[0], 0), np.float32), init),
        n_init=n_init,
        tol=0.0,
        max_steps=max_steps,
        n_categories=n_categories,
        axis_name=axis_name,
        mesh=mesh,
    )
    state = fitted.state
    return fitted._replace(state=KModesState(state.modes, state.inertia, state.weight, state.residual))


def predict(state: Any, x: Any) -> Int[Array, " n"]:
    """Index of the mode with the fewest mismatches of each row; ties go to the lower index.

    Args:
        state: of a fit; or any (k, q) modes.
        x: (n_samples, q) codes; one that no mode has, such as −1, differs from all.

    Returns:
        (n_samples,) int32 labels.
    """
    return kprototypes.predict(_prototypes(state), _no_numbers(x), codes=x, gamma=1.0)


def score(state: Any, x: Any, *, weights: Any = None) -> Float[Published, ""]:
    """Negative inertia of rows under any modes, higher is better; arguments as in `fit` and `predict`."""
    return kprototypes.score(_prototypes(state), _no_numbers(x), codes=x, gamma=1.0, weights=weights)


def _no_numbers(codes):
    return np.zeros((*np.shape(codes)[:1], 0), np.float32)


def _prototypes(state):
    modes = state.centers if isinstance(state, KModesState) else state
    modes = modes if validation.is_traced(modes) else np.asarray(modes)
    return np.zeros((modes.shape[0], 0), np.float32), modes


memory.guard_functions(__name__)

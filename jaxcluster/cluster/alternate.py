"""Lloyd's iteration whose assignment is searched for on the host: means and labels in turn, from several starts.

Where every assignment is as good as the one before it for the new centers, the inertia never rises.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.centroids import coarse_of_labels, inertia_of, mean_variance
from jaxcluster.cluster.given import GIVEN, Given
from jaxcluster.cluster.seeding import seed_centers
from jaxcluster.core import check, memory
from jaxcluster.core.frame import Prepared
from jaxcluster.core.iterate import history_capacity, status_with
from jaxcluster.ops.cluster_sums import cluster_sums
from jaxcluster.ops.distance import FEW_COLUMNS, refined_sqeuclidean, sqeuclidean, squared_norms
from jaxcluster.types import Array, Bool, Float, Int, KeyArray, Status

Assign = Callable[[Any, Any], tuple[np.ndarray, Any]]
"""(centers, what the last assignment left to start from, None at first) -> (n,) labels, what to start from next."""


COST_BYTES = 40
"""Bytes for each row and cluster at the peak of an assignment (measured)."""


class Turn(NamedTuple):
    """Where an iteration is.

    Attributes:
        centers: (k, d) in the frame of the rows.
        labels: (n,) int32, on the host.
        left: what the next assignment starts from.
        inertia: of these labels and centers.
        residual: Σ‖Δc‖² of the last step (data units²); 0 if it changed no label, or could not lower the inertia.
        history: the inertia after each step.
    """

    centers: Float[Array, "k d"]
    labels: np.ndarray
    left: Any
    inertia: float
    residual: float
    history: tuple


def alternate(
    prepared: Prepared, assign: Assign, starts: list, *, tol: Any, max_steps: Any
) -> tuple[Turn, Int[Array, ""]]:
    """The best of the runs from several starting centers, and its status."""
    limit = float(tol) * float(_variance(prepared.points))
    runs = [_run(prepared, assign, start, limit, max_steps) for start in starts]
    best = min(runs, key=lambda run: run.inertia if np.isfinite(run.inertia) else np.inf)
    return best, jnp.int32(Status.MAX_STEPS if best.residual > limit else Status.CONVERGED)


def starting_centers(
    key: KeyArray, prepared: Prepared, k: int, name: str, given: Given, runs: int
) -> list[Float[Array, "k d"]]:
    """One start for each run, in the frame of the rows; given centers are one start."""
    if name == GIVEN:
        return [given.enter(prepared.frame).start]
    keys = [key] if runs == 1 else jax.random.split(key, runs)
    return [_seed(k, name, each, prepared.points) for each in keys]


def history_of(run: Turn, max_steps: Any, offset: float = 0.0) -> Float[Array, " capacity"]:
    """The inertia after each step in the frame, ``offset`` added, 0 from the last on."""
    history = np.zeros(history_capacity(max_steps), run.centers.dtype)
    history[: len(run.history)] = np.add(run.history, offset)
    return jax.device_put(history)


def coarse_of(prepared: Prepared, run: Turn) -> Bool[Array, " n"] | None:
    """The samples that rounding on their way into the frame leaves little of; see `centroids.coarse_samples`."""
    if not prepared.narrowed:
        return None
    return coarse_of_labels(prepared.points, run.centers, _padded(run.labels, prepared))


def final_status(status: Int[Array, ""], inertia: Float[Array, ""], weight: np.ndarray) -> Int[Array, ""]:
    """``status`` with what only the finished fit shows: clusters without weight, no finite inertia."""
    return status_with(status, objective=inertia, incomplete=bool((weight <= 0).any()))


def check_costs(n: int, k: int) -> None:
    """Raises MemoryError where the costs of n rows in k clusters, and the edges of their assignment, are too many."""
    what = f"the costs of {n:,} rows in {k:,} clusters"
    memory.check(COST_BYTES * n * k, what, "Lower k, or pass fewer rows.")


def costs_of(prepared: Prepared, centers: Float[Array, "k d"]) -> np.ndarray:
    """(n, k) squared distances of the rows to centers in their frame, on the host.

    Those beyond the dtype are its largest number: labels are found all the same, and the inertia tells.
    """
    costs = np.asarray(_sqeuclidean(prepared.points.x, centers))[: prepared.n]
    if np.isfinite(costs).all():
        return costs
    most = np.finfo(costs.dtype).max
    return np.nan_to_num(costs, nan=most, posinf=most)


def refuse_traced(*values: Any) -> None:
    """Raises TypeError where a value is traced."""
    if check.is_traced(*values):
        raise TypeError(
            "Rows that are traced cannot be assigned under constraints: the search is no program of fixed shape, and "
            "labels have no gradient. Call this outside jit, vmap and grad, or take sinkhorn.solve, whose soft plan "
            "with given column weights can be traced and differentiated."
        )


def _run(prepared, assign, centers, limit, max_steps):
    labels, left = assign(centers, None)
    run = Turn(centers, labels, left, _inertia_of(prepared, centers, labels), np.inf, ())
    while len(run.history) < max_steps and run.residual > limit:
        centers, moved = _means(prepared.uniform, prepared.points, _padded(run.labels, prepared), run.centers)
        labels, left = assign(centers, run.left)
        inertia = _inertia_of(prepared, centers, labels)
        same = np.array_equal(labels, run.labels)
        if same or inertia < run.inertia:
            # Of the same labels the new centers are the means, whatever rounding makes of the inertia.
            inertia, residual = min(inertia, run.inertia), 0.0 if same else float(moved)
            run = Turn(centers, labels, left, inertia, residual, (*run.history, inertia))
        else:
            # Labels that cost the same, or rounding: they would come round again.
            run = run._replace(residual=0.0, history=(*run.history, run.inertia))
    return run


def _padded(labels, prepared):
    """Labels with those of padding, which weighs nothing."""
    return np.pad(labels, (0, prepared.points.weight.shape[0] - prepared.n))


def _inertia_of(prepared, centers, labels):
    return float(_inertia(prepared.points, centers, _padded(labels, prepared)))


@partial(jax.jit, static_argnums=(0, 1))
def _seed(k, init, key, points):
    return seed_centers(key, points, k, init=init)


@jax.jit
def _variance(points):
    return mean_variance(points, squared_norms(points.x))


@partial(jax.jit, static_argnums=0)
def _means(uniform, points, labels, centers):
    """The mean of each cluster's rows, or its center where it has none, and Σ‖Δc‖²."""
    sums, weight = cluster_sums(points, labels, centers.shape[0], uniform=uniform)
    occupied = weight[:, None] > 0
    means = jnp.where(occupied, sums / jnp.where(occupied, weight[:, None], 1), centers)
    return means, jnp.sum(jnp.square(means - centers))


@jax.jit
def _inertia(points, centers, labels):
    return inertia_of(points, centers, labels)


@jax.jit
def _sqeuclidean(x, centers):
    """By differences where a product is too rounded: about the origin of the frame, near which the rows are."""
    return sqeuclidean(x, centers) if x.shape[1] <= FEW_COLUMNS else refined_sqeuclidean(x, centers)

"""Batches of runs: in one program, in threads, and the best of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.types import Fit, KeyArray

CHUNK_LANES = 32
"""Runs that a CPU takes at once in a vmapped loop."""


def map_runs(run: Callable[..., Any], *arguments: Any) -> Any:
    """Map of ``run`` over the leading axis of every argument, in one program."""
    # vmap fills an accelerator. One run fills a CPU: in sequence each stops by itself and waits for no slower one.
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: run(*one), arguments)
    return jax.vmap(run)(*arguments)


def best_run(run: Callable[[KeyArray], Fit], key: KeyArray, runs: int) -> Fit:
    """Best of several runs, each with its part of the key; a single one has the whole key."""
    return run(key) if runs == 1 else best_of(map_runs(run, jax.random.split(key, runs)))


def vmap_in_chunks(run: Callable[..., Any]) -> Callable[..., Any]:
    """Function ``run`` that vmap evaluates in chunks of lanes on a CPU.

    All lanes of a vmapped loop wait for the slowest. A chunk of a few dozen fills a CPU, stays in its cache, and ends
    when its own lanes have. ``run`` must take everything traced as an argument.
    """
    if jax.default_backend() != "cpu":
        return run
    chunked = jax.custom_batching.custom_vmap(run)

    @chunked.def_vmap
    def by_chunks(size, batched, *arguments):
        leaves, tree = jax.tree.flatten(arguments)
        marks = jax.tree.leaves(batched)
        mapped = [leaf for leaf, mark in zip(leaves, marks, strict=True) if mark]

        def one(lane):
            rest = iter(lane)
            whole = [next(rest) if mark else leaf for leaf, mark in zip(leaves, marks, strict=True)]
            return run(*jax.tree.unflatten(tree, whole))

        out = jax.lax.map(one, mapped, batch_size=CHUNK_LANES)
        return out, jax.tree.map(lambda _: True, out)

    return chunked


def map_threaded(run: Callable[..., Any], *arguments: np.ndarray) -> Any:
    """Results of a compiled ``run`` on equal parts of the leading axis of host arrays, in one thread for each core.

    For many small runs, which use a fraction of a core each. ``run`` maps over the leading axis of its arguments; all
    parts have one shape, so it compiles once. Accelerators get everything in one call.

    Returns:
        The results of all runs in order, on the host.
    """
    count = len(arguments[0])
    parts = min(os.cpu_count() or 1, count) if jax.default_backend() == "cpu" else 1
    if parts == 1:
        return jax.device_get(run(*arguments))
    size = -(-count // parts)
    # Interleaved, so that parts take equal time.
    order = np.minimum(np.arange(parts * size), count - 1).reshape(size, parts).T
    with ThreadPoolExecutor(parts) as pool:
        results = list(pool.map(lambda part: jax.device_get(run(*(each[part] for each in arguments))), order))
    place = np.empty(count, int)
    place[order.ravel()] = np.arange(parts * size)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *results)


def best_of(fits: Fit) -> Fit:
    """Fit of least objective along the leading axis; the first of equals."""
    # argmin would choose a NaN first.
    objective = jnp.where(jnp.isnan(fits.state.objective), jnp.inf, fits.state.objective)
    best = jnp.argmin(objective)
    return jax.tree.map(lambda leaf: leaf[best], fits)

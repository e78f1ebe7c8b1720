"""Batches of runs: in one program, in threads, and the best of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.core import chunks, signals
from jaxcluster.types import Fit, KeyArray

CHUNK_LANES = 32
"""Runs that a CPU takes at once in a vmapped loop."""


SINGLE_THREAD = 4
"""Ratio of the times that a long run takes in a thread of its own, beside others, and on the whole CPU (measured)."""


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


def map_threaded(run: Callable[..., Any], *arguments: np.ndarray, most: int | None = None) -> Any:
    """Results of a compiled ``run`` on equal parts of the leading axis of host arrays, in one thread for each core.

    For many small runs, which use a fraction of a core each. ``run`` maps over the leading axis of its arguments; all
    parts have one shape, so it compiles once. Accelerators get everything in one call.

    Args:
        run: function of parts of the arguments.
        arguments: host arrays of one length.
        most: most elements of a part on a CPU, for runs that take long: Ctrl-C raises KeyboardInterrupt between parts.
            None for one part for each thread.

    Returns:
        The results of all runs in order, on the host.
    """
    count, on_cpu = len(arguments[0]), jax.default_backend() == "cpu"
    threads = min(os.cpu_count() or 1, count) if on_cpu else 1
    parts = threads if most is None or not on_cpu else max(threads, -(-count // most))
    if parts == 1:
        return jax.device_get(run(*arguments))
    size = -(-count // parts)
    # Interleaved, so that parts take equal time.
    order = np.minimum(np.arange(parts * size), count - 1).reshape(size, parts).T

    def run_part(part):
        signals.check_stopped()
        return jax.device_get(run(*(each[part] for each in arguments)))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(run_part, order))
    place = np.empty(count, int)
    place[order.ravel()] = np.arange(parts * size)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *results)


def map_fits(
    many: Callable[..., Any],
    one: Callable[[Any, KeyArray], Any],
    key: KeyArray,
    counts: np.ndarray,
    *,
    work: float,
    max_steps: Any,
) -> Any:
    """Fits of concrete problems that differ in their numbers of clusters and their keys, on the host.

    Where all together take long on a CPU, Ctrl-C raises KeyboardInterrupt: there is no result without all of them.

    Args:
        many: (counts, index) -> fits of several problems; ``index`` selects the parts of the key. Compiled.
        one: (count, part of the key) -> fit of one problem, in chunks.
        key: random key, split among the problems.
        counts: numbers of clusters.
        work: products and sums of a step of one problem.
        max_steps: most steps of each.
    """
    total = len(counts)
    index = np.arange(total)
    alone = SINGLE_THREAD * work
    if jax.default_backend() != "cpu" or not chunks.is_long(alone, max_steps, key):
        return map_threaded(many, counts, index, most=chunks.runs_at_once(alone * max_steps, total))

    def run(counts, index):
        fit = one(jnp.int32(counts[0]), chunks.key_of_run(key, total, index[0]))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], fit)

    return map_threaded(run, counts, index, most=1)


def best_of(fits: Fit) -> Fit:
    """Fit of least objective along the leading axis; the first of equals."""
    # argmin would choose a NaN first.
    objective = jnp.where(jnp.isnan(fits.state.objective), jnp.inf, fits.state.objective)
    best = jnp.argmin(objective)
    return jax.tree.map(lambda leaf: leaf[best], fits)

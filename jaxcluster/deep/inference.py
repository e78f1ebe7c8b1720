"""Trained modules on rows of any number, in tiles."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxcluster.core.fold import map_rows
from jaxcluster.deep.batches import Rows, as_rows

TILE = 4096
"""Rows that go through a network at a time."""


def map_module(module: nnx.Module, method: str, x: Any) -> Any:
    """What a method of a module, in evaluation, gives for each row of ``x``.

    Args:
        module: is not changed.
        method: its name; takes (n, …) rows and returns arrays of n rows.
        x: (n, …), computed in float32.

    Returns:
        What the method gives for all rows: on the device, unless the rows do not fit there; then it comes to the host
        piece by piece.
    """
    graphdef, state = nnx.split(module)
    rows = Rows(as_rows(x))
    parts = (mapped(graphdef, (state,), method, tile) for tile in rows.tiles())
    if rows.resident:
        return next(parts)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *map(jax.device_get, parts))


@partial(jax.jit, static_argnames=("graphdef", "method"))
def mapped(graphdef: Any, states: tuple[Any, ...], method: str, x: Any) -> Any:
    """`map_module` of a module taken apart."""
    module = nnx.merge(graphdef, *states)
    module.eval()
    return map_rows(getattr(module, method), x, tile=TILE)


def evaluated(module: nnx.Module) -> nnx.Module:
    """A copy of a module, in evaluation: what it is called with changes nothing in it."""
    copy = nnx.clone(module)
    copy.eval()
    return copy


def weights_of(module: nnx.Module) -> dict[str, jax.Array]:
    """All variables of a module by their path, "autoencoder/encoder/layers/0/kernel", random keys left out."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState)))
    return {"/".join(map(str, path)): variable[...] for path, variable in flat}


def with_weights(module: nnx.Module, weights: dict[str, Any]) -> nnx.Module:
    """``module`` with its variables set to ``weights``.

    Raises:
        ValueError: a variable is missing, left over or of another shape.
    """
    flat = dict(nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState))))
    paths = {"/".join(map(str, path)): path for path in flat}
    for name in sorted(paths.keys() ^ weights.keys()):
        raise ValueError(f"the weights are those of another network: {name} is in one of the two alone.")
    for name, path in paths.items():
        if flat[path].shape != weights[name].shape:
            raise ValueError(f"{name} has shape {flat[path].shape} here, and {weights[name].shape} in the weights.")
        flat[path][...] = jax.numpy.asarray(weights[name])
    return module

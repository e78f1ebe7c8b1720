"""Inference: a module's method applied to many rows in tiles, evaluation copies, and weights by name.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from jaxcluster.deep import map_module, nets
>>> map_module(nets.MLP((2, 3), rngs=nnx.Rngs(0)), "__call__", jnp.ones((5, 2))).shape
(5, 3)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from jaxcluster.core.fold import map_rows
from jaxcluster.deep.batches import DeviceRows, as_rows

Module = TypeVar("Module", bound=nnx.Module)

TILE = 4096
"""Rows in a network's batch at inference."""


class TrainingRows(nnx.Variable):
    """A variable with something of each sample of the training, such as its neighbors: no part of a saved model."""


NOT_SAVED = nnx.Any(nnx.RngState, TrainingRows)
"""Variables that are no weights."""


def map_module(module: nnx.Module, method: str, x: Any) -> Any:
    """Outputs of a module's method, in evaluation mode, for all rows.

    Args:
        module: is not changed.
        method: its name; it maps (n, …) rows to arrays of n rows, each row independently.
        x: (n_samples, …) rows, computed in float32.

    Returns:
        The outputs for all rows: on the device if the rows fit there, else on the host.
    """
    graphdef, state = nnx.split(module)
    rows = DeviceRows(as_rows(x))
    parts = (map_split_module(graphdef, (state,), method, tile) for tile in rows.tiles())
    if rows.resident:
        return next(parts)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *map(jax.device_get, parts))


@partial(jax.jit, static_argnames=("graphdef", "method"))
def map_split_module(graphdef: Any, states: tuple[Any, ...], method: str, x: Any) -> Any:
    """`map_module` of a module that is split into its graph and states."""
    # The graph is the static argument: modules of equal structure share a program, whatever their weights.
    module = nnx.merge(graphdef, *states)
    module.eval()
    return map_rows(getattr(module, method), x, tile=TILE)


def eval_copy(module: Module) -> Module:
    """A copy of a module in evaluation mode."""
    copy = nnx.clone(module)
    copy.eval()
    return copy


def weights_of(module: nnx.Module) -> dict[str, jax.Array]:
    """All variables of a module by their path, such as "encoder/layers/0/kernel", but keys and `TrainingRows`."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Not(NOT_SAVED)))
    return {"/".join(map(str, path)): variable[...] for path, variable in flat}


def with_weights(module: nnx.Module, weights: dict[str, Any]) -> nnx.Module:
    """Set the variables of a module to ``weights``, in place, and return it.

    Raises:
        ValueError: a variable that is missing, unknown or of another shape.
    """
    for variable, array in _matched(module, weights):
        variable[...] = jax.numpy.asarray(array)
    return module


def check_weights(init: Callable[[], nnx.Module], weights: dict[str, Any]) -> None:
    """Raise ValueError unless `with_weights` can set them in the module that ``init`` makes; nothing is computed.

    Raises:
        ValueError: a variable that is missing, unknown, of another shape, or whose numbers are of another kind.
    """
    for variable, array in _matched(nnx.eval_shape(init), weights):
        if not isinstance(array, (np.ndarray, jax.Array)) or array.dtype.kind != variable.dtype.kind:
            raise ValueError(f"the weights hold numbers of another kind than {variable.dtype}.")


def _matched(module, weights):
    """Variables of a module, and their weights."""
    flat = dict(nnx.to_flat_state(nnx.state(module, nnx.Not(NOT_SAVED))))
    paths = {"/".join(map(str, path)): path for path in flat}
    for name in sorted(paths.keys() ^ weights.keys()):
        raise ValueError(f"the weights are those of another network: {name} is in one of the two alone.")
    for name, path in paths.items():
        if flat[path].shape != np.shape(weights[name]):
            raise ValueError(f"{name} has shape {flat[path].shape} here, and {np.shape(weights[name])} in the weights.")
    return [(flat[path], weights[name]) for name, path in paths.items()]

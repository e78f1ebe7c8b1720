"""The kind of transformed rows: JAX arrays for JAX arrays, and everywhere by ``set_output(transform="jax")``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.utils._set_output import ADAPTERS_MANAGER

JAX_OUTPUT = "jax"
"""Name of the container, as "pandas" and "polars" are names of scikit-learn's."""

TRANSFORMING_METHODS = ("transform", "fit_transform")
"""Methods whose rows are a JAX array for a JAX array."""


class JaxAdapter:
    """Adapter of scikit-learn's ``set_output`` and ``transform_output`` for JAX arrays, in JAX's default precision."""

    container_lib = JAX_OUTPUT

    def create_container(self, X_output: Any, X_original: Any, columns: Any, inplace: bool = True) -> jax.Array:
        """Transformed rows as a JAX array, on the device of the rows where these were one."""
        return like_input(X_original, X_output) if isinstance(X_original, jax.Array) else jnp.asarray(X_output)

    def is_supported_container(self, X: Any) -> bool:
        """False: scikit-learn's unions of columns take those that support it for tables with names."""
        return False

    def rename_columns(self, X: Any, columns: Any) -> Any:
        """The same array: it has no names."""
        return X

    def hstack(self, Xs: Any) -> jax.Array:
        """Columns of several arrays side by side."""
        return jnp.concatenate([jnp.asarray(x) for x in Xs], axis=1)


ADAPTERS_MANAGER.register(JaxAdapter())


def like_input(X: Any, rows: Any) -> Any:
    """Rows of NumPy as a JAX array on the device of ``X``, if that is one; any other rows as they are."""
    if not isinstance(X, jax.Array) or not isinstance(rows, np.ndarray):
        return rows
    return jax.device_put(rows, next(iter(X.devices())))


def in_kind_of_input(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method if it transforms: rows of a JAX array become a JAX array on its device."""
    if method.__name__ not in TRANSFORMING_METHODS:
        return method

    @functools.wraps(method)
    def transform(self, X, *arguments, **options):
        return like_input(X, method(self, X, *arguments, **options))

    return transform

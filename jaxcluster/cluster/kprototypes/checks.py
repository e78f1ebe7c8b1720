"""Checks of the arguments of k-prototypes: codes of categories, costs of mismatches, initializations and runs.

>>> known_codes(np.array([[0, 2**40]]), name="codes").tolist()
[[0, -1]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.kprototypes.iteration import Prototypes
from jaxcluster.cluster.kprototypes.seeding import INITS
from jaxcluster.cluster.seeding import FROM_CENTERS
from jaxcluster.core import validation

AUTO_RESTARTS = 10
"""Runs of ``n_init="auto"`` from initial prototypes with chance."""

MAX_CATEGORIES = 1 << 24
"""Most categories of a column. There are no more distinct rows in most data sets, and codes stay exact in float32."""


def as_codes(codes: Any, *, name: str) -> Any:
    """Codes as an array; raises ValueError for masked entries and rows of different lengths, TypeError for keys."""
    validation.check_no_keys(codes, name)
    if np.ma.is_masked(codes):
        raise ValueError(f"{name} has {np.ma.count_masked(codes)} masked entries. Give them a category of their own.")
    try:
        return codes if isinstance(codes, jax.Array) else np.asarray(codes)
    except ValueError as error:
        raise ValueError(f"{name} is no table: its rows have different lengths. Make them one length.") from error


def known_codes(codes: Any, *, name: str) -> Any:
    """Codes of new rows or of modes in int32; one that no column has, below 0 or beyond the most, is −1.

    Raises:
        TypeError: codes that are not integers.
    """
    codes = as_codes(codes, name=name)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, the categories of each column, got dtype {codes.dtype}.")
    if validation.is_traced(codes):
        return codes.astype(jnp.int32)
    codes = np.asarray(codes)
    return np.where((codes >= 0) & (codes < MAX_CATEGORIES), codes, -1).astype(np.int32)


def check_gamma(gamma: Any) -> Any:
    """Check of γ, the cost of a mismatch: a finite number >= 0."""
    gamma = validation.check_positive("gamma", gamma, zero=True)
    if not validation.is_traced(gamma) and not np.isfinite(gamma):
        raise ValueError(f"gamma={gamma} must be finite.")
    return gamma


def check_codes(codes, n_categories: Sequence[int] | None, *, name: str = "codes") -> tuple[Any, tuple[int, ...]]:
    """Check of codes of categories.

    Returns:
        The codes, and the number of categories of each column.

    Raises:
        ValueError, TypeError: no matrix of integers; codes below 0 or beyond the number of categories; traced codes
            without that number.
    """
    codes = as_codes(codes, name=name)
    if codes.ndim != 2:
        raise ValueError(f"{name} must be 2-D (rows, columns), got shape {codes.shape}.")
    if codes.shape[0] == 0:
        raise ValueError(f"{name} has no rows (shape {codes.shape}); at least 1 is needed.")
    if codes.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must be integers from 0, the categories of each column, got dtype {codes.dtype}. Number the "
            "categories first, or use the estimator, which takes a table."
        )
    if n_categories is not None and len(n_categories) != codes.shape[1]:
        raise ValueError(f"n_categories has {len(n_categories)} numbers for {codes.shape[1]} columns of {name}.")
    if validation.is_traced(codes):
        if n_categories is None:
            raise ValueError(f"{name} is traced, so the number of categories is unknown: pass n_categories=.")
        return codes.astype(jnp.int32), tuple(map(int, n_categories))
    codes = np.asarray(codes)
    counts = codes.max(axis=0).astype(np.int64) + 1 if n_categories is None else np.asarray(n_categories)
    if codes.size and (codes.min() < 0 or (codes >= counts).any() or counts.max() > MAX_CATEGORIES):
        raise ValueError(
            f"{name} must lie between 0 and the number of categories of the column less 1, got {codes.min()} to "
            f"{codes.max()}. A missing category is no code: drop those rows, or number it as one more category."
        )
    return codes.astype(np.int32), tuple(map(int, counts))


def check_init(init: Any, k: int, d: int, q: int) -> tuple[str, Prototypes | None]:
    """Check an initialization.

    Returns:
        Its name, and the initial prototypes or None.

    Raises:
        ValueError, TypeError: an unknown name, or prototypes of another shape.
    """
    if isinstance(init, str):
        validation.check_choice("init", init, INITS)
        return init, None
    if not isinstance(init, tuple) or len(init) != 2:
        raise TypeError(f"init must be {', '.join(map(repr, INITS))} or a pair of (k, d) centers and (k, q) modes.")
    # Arrays of the caller's own dtype, until they enter the frame.
    arrays: Any = [each if isinstance(each, jax.Array) else np.asarray(each) for each in init]
    start = Prototypes(arrays[0], arrays[1])
    shapes = start.means.shape, start.modes.shape
    if shapes != ((k, d), (k, q)):
        raise ValueError(f"init has shapes {shapes[0]} and {shapes[1]}; ({k}, {d}) centers and ({k}, {q}) modes are.")
    if not validation.is_traced(start.means):
        validation.check_finite(start.means, name="init")
    return FROM_CENTERS, start._replace(modes=known_codes(start.modes, name="the modes of init"))


def check_runs(name: str, n_init: int | str) -> int:
    """Number of runs for ``n_init`` with the initialization ``name``; 1 without chance."""
    fixed = name in ("cao", FROM_CENTERS)
    if isinstance(n_init, str):
        validation.check_choice("n_init", n_init, ["auto"])
        return 1 if fixed else AUTO_RESTARTS
    runs = validation.check_count("n_init", n_init)
    return 1 if fixed else runs

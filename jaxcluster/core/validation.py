"""Validation of arguments before tracing: messages name the value, the expectation and the remedy."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcluster.core.dtypes import in_float64
from jaxcluster.core.interchange import as_array
from jaxcluster.core.memory import format_bytes
from jaxcluster.core.messages import did_you_mean, warn
from jaxcluster.core.sparse_rows import is_sparse
from jaxcluster.types import Published

RESOLUTION = 2.0**-22
"""Resolution of a fit in float32, as a fraction of the range of a column: smaller differences do not matter."""


def is_traced(*values: Any) -> bool:
    """True if any of the values is traced, so that only its shape and dtype can be checked."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError for an unknown value, with the known ones and the most similar of them."""
    known = list(known)
    if value in known:
        return
    choices = ", ".join(map(repr, known))
    raise ValueError(f"{name}={value!r} is not known; choose one of {choices}.{did_you_mean(value, known)}")


def check_positive(name: str, value: Any, *, zero: bool = False) -> Any:
    """Check of a number that must be positive (or zero if allowed), for a concrete one.

    Returns:
        ``value``; a number on the host as a Python float.
    """
    # One type for 0, 0.0 and NumPy's zeros: another would compile another program.
    if is_traced(value):
        return value
    if value is None or (not np.isscalar(value) and np.ndim(value) != 0) or isinstance(value, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    number = np.asarray(value)  # in NumPy: inside a jit the comparison of a concrete JAX array would be traced
    if not (number >= 0 if zero else number > 0):
        raise ValueError(f"{name}={value} must be {'at least 0' if zero else 'greater than 0'}.")
    return value if isinstance(value, jax.Array) else float(number)


def check_count(name: str, value: Any) -> int:
    """Check of an integer >= 1, as an int."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1.")
    return int(value)


def check_cluster(name: str, cluster: Any, k: int) -> int:
    """Check of the number of one of k clusters, from 0 to k − 1, as an int."""
    if isinstance(cluster, bool) or not isinstance(cluster, (int, np.integer)):
        raise TypeError(f"{name}={cluster!r} must be a whole number, that of a cluster.")
    if not 0 <= cluster < k:
        raise ValueError(f"{name}={cluster} must be from 0 to {k - 1}.")
    return int(cluster)


def check_key(key: Any) -> Published:
    """Check of one random key of JAX, typed or an old-style pair of words."""
    words = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 1
    if words or (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        return key
    got = f"an array of shape {key.shape} of {key.dtype}" if isinstance(key, (jax.Array, np.ndarray)) else repr(key)
    raise TypeError(f"key must be one random key, such as jax.random.key(0), got {got}.")


def check_clusters(k: Any, n: int, *, name: str = "k") -> int:
    """Check of a number of clusters, 1 <= k <= n for n rows, as an int."""
    k = check_count(name, k)
    if n < k:
        raise ValueError(f"n_samples={n} should be >= {name}={k}. Pass fewer clusters or more rows.")
    return k


def check_every_k(ks: Any, n: int) -> list[int]:
    """Check of one or several numbers of clusters for n rows, as a list of ints."""
    ks = [check_count("ks", k) for k in np.atleast_1d(ks)]
    check_clusters(max(ks, default=1), n, name="ks")
    return ks


def check_samples(x: Any, k: Any, axis_name: str | None = None, mesh: Any = None) -> tuple[Any, int]:
    """Check of samples and a number of clusters.

    Args:
        x: (n_samples, n_features); those of this process where ``mesh`` spans several.
        k: number of clusters.
        axis_name: mapped axis over which samples are spread.
        mesh: a checked mesh, or None.

    Returns:
        ``x`` as a matrix, and ``k`` as an int, at most the number of rows over all devices of the axis or the mesh.
    """
    from jaxcluster.core.processes import count_rows  # which imports this module

    x = check_matrix(x)
    n = count_rows(mesh, x.shape[0]) if axis_name is None else x.shape[0] * jax.lax.axis_size(axis_name)
    return x, check_clusters(k, n)


def check_matrix(x: Any, *, name: str = "x") -> Any:
    """Check of a 2-D array of real numbers with at least one row and one column; values are not checked.

    NumPy and JAX arrays are returned as they are but for `widen`, anything else as a NumPy array.
    """
    x = check_numeric(x, name=name)
    if x.ndim != 2:
        hint = " A single column is x.reshape(-1, 1), a single row x.reshape(1, -1)." if x.ndim == 1 else ""
        raise ValueError(f"{name} must be 2-D (rows, columns), got shape {x.shape}.{hint}")
    if x.shape[0] == 0:
        raise ValueError(f"{name} has no rows (shape {x.shape}); at least 1 is needed.")
    if x.shape[1] == 0:
        raise ValueError(f"{name} has no columns (shape {x.shape}); at least 1 is needed.")
    return x


def check_numeric(x: Any, *, name: str = "x") -> Any:
    """Check of an array of real numbers of any shape; see `widen`, and `as_array` for arrays of other frameworks.

    Raises:
        ValueError, TypeError: rows of different lengths, a mask, complex numbers, dates, text, a sparse matrix.
    """
    if is_sparse(x):
        raise TypeError(f"{name} is sparse, and dense rows are wanted here. {dense_remedy(x, name)}")
    if np.ma.isMaskedArray(x):
        if np.ma.is_masked(x):
            raise ValueError(
                f"{name} is a masked array with {np.ma.count_masked(x)} masked entries, which would count as they are. "
                "Fill them first: x.filled(np.nan) makes them missing."
            )
        x = np.asarray(x)
    x = as_array(x, name=name)
    if not isinstance(x, (np.ndarray, jax.Array)):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise ValueError(f"{name} is no table: its rows have different lengths. Make them one length.") from error
    check_no_keys(x, name)
    x = widen(x)
    if x.dtype.kind in "Mm":
        raise TypeError(f"{name} holds dates or durations ({x.dtype}). Pass numbers, such as x.astype('int64').")
    if x.dtype.kind in "SU":
        raise TypeError(
            f"{name} has dtype {x.dtype}, which is text, not numeric. Pass {name}.astype(float) where the text is of "
            "numbers; else encode or drop such columns."
        )
    if x.dtype.kind in "OV":
        raise TypeError(f"{name} has dtype {x.dtype}, which is not numeric. Pass numbers: encode or drop text columns.")
    if x.dtype.kind == "c":
        raise ValueError(f"{name} is complex ({x.dtype}). Complex data not supported: pass its real parts.")
    return x


def check_no_keys(x: Any, name: str) -> None:
    """Raise TypeError for an array of random keys of JAX, whose dtype has nothing that those of numbers have."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        raise TypeError(f"{name} holds random keys ({x.dtype}) and no numbers. Are two arguments exchanged?")


def dense_remedy(x: Any, name: str) -> str:
    """Remedies, in sentences, where a sparse matrix is not taken."""
    size = format_bytes(8.0 * np.prod(x.shape, dtype=float))
    dense = f"todense(), which takes {size}" if not hasattr(x, "toarray") else f"toarray(), which takes {size}"
    return f"Pass {name}.{dense}, or fewer columns, such as those of sklearn.decomposition.TruncatedSVD."


def widen(x: Any) -> Any:
    """Array in a dtype to compute in: native bytes, half precision as float32, extended precision as float64."""
    if not x.dtype.isnative:  # JAX has no dtype for the other order of bytes
        x = x.astype(x.dtype.newbyteorder("="))
    # float16 and the floats of ml_dtypes (bfloat16, float8) have 8 to 11 bits: a sum of 350 equal entries is off by a
    # quarter. JAX has no dtype beyond float64.
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4:
        return x.astype(np.float32)
    if x.dtype == np.longdouble and x.dtype.itemsize > 8:
        return _narrowed(x)
    if x.dtype.kind == "V" and jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(np.int8)
    return x


def is_short_number(dtype: Any) -> bool:
    """True for the numbers of ml_dtypes, such as bfloat16, which NumPy has not."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _narrowed(x):
    """Extended precision as float64, with a warning if the lost digits distinguish rows."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = x.astype(np.float64)
        if x.ndim == 2 and len(x) and _lose_differences(x, x - narrow):
            warn(
                f"X has digits in {x.dtype} that float64 does not hold, and rows differ in them: they are rounded. "
                "Subtract one row from all before."
            )
    return narrow


def _lose_differences(x, lost):
    """True if rows differ in what they lost by rounding, and not only by much more."""
    known = np.isfinite(x)
    low, high, least, most = (
        reduce(np.where(known, each, fill), axis=0)
        for each in (x, lost)
        for reduce, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    return bool((known.any(axis=0) & (most - least > RESOLUTION * (high - low))).any())


def narrow_objects(x: np.ndarray, *, name: str = "X") -> np.ndarray:
    """Array of Python's numbers: integers in 64 bits if they fit, else all in float64.

    Warns:
        UserWarning: rows that differ in digits of integers which float64 does not hold.

    Raises:
        OverflowError: integers beyond float64; TypeError, ValueError: cells that are no numbers.
    """
    whole = np.array([isinstance(cell, (int, np.integer)) and not isinstance(cell, bool) for cell in x.flat], bool)
    if x.size and whole.all():
        exact = np.array(x.tolist())
        if exact.dtype.kind in "iu":
            return exact
    narrow = x.astype(np.float64)
    if whole.any():
        pairs = zip(x.flat, narrow.flat, whole, strict=True)
        lost = [float(int(cell) - int(number)) if is_whole else 0.0 for cell, number, is_whole in pairs]
        columns = (len(x), -1)
        if _lose_differences(narrow.reshape(columns), np.array(lost).reshape(columns)):
            _warn_of_rounded_integers(name)
    return narrow


def check_rounding(x: np.ndarray, *, name: str = "X") -> None:
    """Warn of rows (n_samples, n_features) of integers that differ in digits which float64 does not hold."""
    wide = x.astype(np.float64)
    wide -= wide[:1]
    if _lose_differences(wide, in_float64(x, tuple(int(value) for value in x[0])) - wide):
        _warn_of_rounded_integers(name)


def _warn_of_rounded_integers(name):
    warn(
        f"{name} has integers of more digits than float64 holds, and rows differ in them: they are rounded. Subtract "
        "one row from all before, or drop the column if they are no measurements but identifiers."
    )


def check_finite(
    x: Any,
    *,
    name: str = "x",
    missing: bool | None = None,
    columns: Sequence[str] | None = None,
    option: str = "missing=True",
) -> None:
    """Raise ValueError with the number of NaN and infinite values and their columns.

    Args:
        x: array.
        name: name of the array in the message.
        missing: True accepts NaN as missing values; False mentions this option in the message.
        columns: names of the columns, in place of their indices.
        option: the option, in the caller's words.
    """
    if x.dtype.kind != "f" or _has_finite_sum(x):
        return
    x = np.asarray(x)
    infs = np.isinf(x)
    nans = np.zeros_like(infs) if missing else np.isnan(x)
    if not (nans.any() or infs.any()):
        return
    counts = [f"{int(bad.sum())} {kind}" for bad, kind in ((nans, "NaN"), (infs, "infinity")) if bad.any()]
    hint = "Drop or impute those rows first" + (f", or pass {option}." if missing is False and nans.any() else ".")
    where = ""
    if x.ndim == 2:
        bad = np.flatnonzero((nans | infs).any(0)).tolist()
        listed = ", ".join(str(j) if columns is None else repr(columns[j]) for j in bad[:8])
        where = f" in column{'s' if len(bad) > 1 else ''} {listed}{' …' if len(bad) > 8 else ''}"
    raise ValueError(f"{name} contains {' and '.join(counts)} values{where}. {hint}")


def _has_finite_sum(x):
    """True if the sum is finite, and therefore every entry: one fast pass decides nearly all cases."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.sum(np.asarray(x), dtype=np.promote_types(x.dtype, np.float32)))


def as_real_array(weights: Any, *, name: str = "weights") -> np.ndarray:
    """Concrete weights as a NumPy array of real numbers of any shape; see `widen`, and `as_array` for other frameworks.

    Raises:
        TypeError: complex numbers, dates, text, random keys, or objects that are no numbers, such as None.
        ValueError: masked entries, or rows of different lengths.
    """
    weights = as_array(weights, name=name)
    check_no_keys(weights, name)
    if np.ma.is_masked(weights):
        raise ValueError(
            f"{name} has {np.ma.count_masked(weights)} masked entries. Fill them first: 0 leaves a row out."
        )
    try:
        array = widen(np.asarray(weights))
    except ValueError as error:
        raise ValueError(f"{name} holds sequences of different lengths. Pass one number a row.") from error
    if array.dtype.kind == "O" and array.ndim:
        other = [cell for cell in array.flat if not isinstance(cell, (numbers.Real, np.bool_, Decimal))]
        if other:
            raise TypeError(f"{name} must be real numbers, got {other[0]!r}.")
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}.")
    return array


def check_weights(weights: Any, n: int, *, name: str = "weights") -> np.ndarray:
    """Check of n concrete weights, finite, non-negative and not all zero, as a NumPy array."""
    weights = as_real_array(weights, name=name)
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one a row, got {weights.shape}.")
    check_finite(weights, name=name)
    if (weights < 0).any():
        raise ValueError(f"{name} must not be negative: {int((weights < 0).sum())} are, the least {weights.min()}.")
    if not weights.any():
        raise ValueError(f"{name}: all are zero, so no row is left to cluster.")
    return weights


def check_mask(name: str, mask: Any, k: int) -> jax.Array:
    """Check of a (k,) mask of booleans."""
    mask = jnp.asarray(check_numeric(mask, name=name))
    if mask.shape != (k,) or mask.dtype != bool:
        raise ValueError(f"{name} must be a ({k},) mask of booleans, got shape {mask.shape} of {mask.dtype}.")
    return mask


def check_width(x: Any, d: int, *, name: str = "x") -> None:
    """Raise ValueError unless ``x`` has d columns."""
    if x.shape[-1] != d:
        raise ValueError(f"{name} has {x.shape[-1]} columns, but the model was fitted on {d}.")

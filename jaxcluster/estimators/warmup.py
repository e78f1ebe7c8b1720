"""Compilation of an estimator's programs before the first rows arrive."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcluster.core import validation

SEPARATION = 20.0
"""Distance of the generated clusters in standard deviations: a fit of them converges within a few steps."""


def warmup(
    method: str,
    *,
    n: int,
    d: int,
    k: int | None = None,
    weights: bool = False,
    dtype: Any = np.float32,
    predict: Sequence[int] = (),
    **params: Any,
) -> float:
    """Compile what a fit of an (n, d) matrix needs, by fitting generated rows of that shape.

    A later fit of rows of this shape, number type and parameters in the same process compiles nothing; one in another
    process of the same user reads the programs from the disk. Numbers of rows are padded to a few sizes, so rows of
    about as many share the programs. Density methods also have programs whose sizes depend on how many neighbors the
    rows have: these are compiled when such rows arrive.

    Args:
        method: a name in `jaxcluster.estimators.ESTIMATORS`, such as "kmeans".
        n: number of samples.
        d: number of features.
        k: number of clusters; None for the default of the estimator, or for a method that finds it out.
        weights: True for a fit with ``sample_weight``.
        dtype: number type of the samples.
        predict: numbers of samples that ``predict`` will be called with.
        params: other parameters of the estimator, as they will be.

    Returns:
        the seconds that it took.

    Raises:
        ValueError, TypeError: an unknown method or parameter; numbers that are not positive; fewer samples than
            clusters; ``weights`` or ``predict`` for a method without them.

    Example:
        >>> seconds = warmup("kmeans", n=1000, d=10, k=5, predict=[1, 1000])
        >>> seconds > 0
        True
    """
    from jaxcluster.estimators.registry import ESTIMATORS

    validation.check_choice("method", method, ESTIMATORS)
    info = ESTIMATORS.info(method)
    for name, count in (("n", n), ("d", d), *((("k", k),) if k is not None else ())):
        validation.check_count(name, count)
    if k is not None:
        if info.clusters is None:
            raise ValueError(f"{method} finds out how many clusters there are: leave out k.")
        params[info.clusters] = k
    if weights and not info.takes_weights:
        raise ValueError(f"{method} takes no sample_weight: leave out weights.")
    model = ESTIMATORS[method](**params)
    if predict and not hasattr(model, "predict"):
        raise ValueError(f"{method} does not predict: leave out predict.")
    rows = _separate_rows(n, d, k or getattr(model, info.clusters or "", None) or 2, dtype)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the generated rows
        model.fit(rows, **({"sample_weight": np.ones(n)} if weights else {}))
        for size in predict:
            validation.check_count("predict", size)
            model.predict(np.resize(rows, (size, d)))
    return time.perf_counter() - start


def _separate_rows(n: int, d: int, k: int, dtype: Any) -> np.ndarray:
    """(n, d) samples of k clusters far apart."""
    rng = np.random.default_rng(0)
    centers = SEPARATION * rng.normal(size=(k, d)) * np.sqrt(1 + np.log(k))
    return (centers[np.arange(n) % k] + rng.normal(size=(n, d))).astype(dtype)

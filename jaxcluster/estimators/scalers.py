"""`StandardScaler` and `MinMaxScaler` with scikit-learn's interface, over `jaxcluster.ops.moments`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import reduce
from typing import Any

import jax
import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.core.dtypes import beyond_float64
from jaxcluster.core.preparation import scaled_weights
from jaxcluster.core.sources import RowSource
from jaxcluster.estimators.transformers import RowTransformer, output_dtype
from jaxcluster.ops.components import split
from jaxcluster.ops.moments import (
    Moments,
    Units,
    column_extremes,
    column_moments,
    column_moments_on_device,
    column_units,
    merge_moments,
    standardize,
    standardize_on_device,
    unstandardize,
    unstandardize_on_device,
)


class ColumnScaler(OneToOneFeatureMixin, RowTransformer):
    """Base of scalers: a shift and a divisor for each column."""

    _takes_missing = True
    _dense_reason = (
        "subtracts a number from each column, which would fill the zeros. Pass X.toarray(), or scale sparse rows to "
        "length 1 by sklearn.preprocessing.normalize"
    )

    n_samples_seen_: Any

    def fit(self, X: Any, y: Any = None) -> ColumnScaler:
        """Fit to the rows."""
        raise NotImplementedError

    def _map(self) -> tuple[Any, Any, Any, Any]:
        """Shift and divisor of the columns, then the offset and the factor of the result."""
        raise NotImplementedError

    def transform(self, X: Any, copy: Any = None) -> Any:
        """Scale rows.

        Args:
            X: (n_samples, n_features) rows; NaN stays NaN.
            copy: not used: rows are never changed in place.

        Returns:
            (n_samples, n_features) scaled rows, a JAX array for a JAX array, else NumPy.
        """
        return self._apply(X, standardize, standardize_on_device)

    def inverse_transform(self, X: Any, copy: Any = None) -> Any:
        """Scale rows back to the units of the fit.

        Args:
            X: (n_samples, n_features) scaled rows.
            copy: not used: rows are never changed in place.

        Returns:
            (n_samples, n_features) rows, a JAX array for a JAX array, else NumPy.
        """
        return self._apply(X, unstandardize, unstandardize_on_device)

    def _rows(self, X: Any, *, reset: bool) -> Any:
        x = super()._rows(X, reset=reset)
        if isinstance(x, np.ndarray) and beyond_float64(x):
            validation.check_rounding(x)
        return x

    def _blocks(self, X: Any) -> Any:
        for rows, block in super()._blocks(X):
            if isinstance(X, RowSource) and beyond_float64(block):
                validation.check_rounding(block, name=X.name)
            yield rows, block

    def _apply(self, X, on_host, on_device):
        check_is_fitted(self)
        x = self._rows(X, reset=False)
        dtype, (shift, divisor, offset, factor) = output_dtype(x), self._map()
        if isinstance(x, jax.Array):
            first, rest = split(shift, dtype)
            others = (np.broadcast_to(each, x.shape[1:]).astype(dtype)[None] for each in (divisor, offset, factor))
            return on_device(x.astype(dtype), first[None], rest[None], *others)
        out = np.empty(x.shape, dtype)
        for rows, block in self._blocks(x):
            out[rows] = on_host(block.astype(np.float64), shift, 0.0, divisor, offset, factor)
        return out

    def _extremes(self, X: Any, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Least and greatest value of each column, of rows of positive weight, and the weight of its observed values.

        Returns:
            Three (n_features,) arrays.
        """
        least, most = np.full((2, self.n_features_in_), np.nan)
        total = np.zeros(self.n_features_in_)
        for rows, block in self._blocks(X):
            weight = None if weights is None else weights[rows].astype(np.float64)
            if weight is not None and not weight.all():
                block, weight = block[np.flatnonzero(weight)], weight[weight > 0]
            if len(block):
                low, high, observed = column_extremes(block, weight)
                least, most, total = np.fmin(least, low), np.fmax(most, high), total + observed
        return least, most, total


@dataclass(eq=False, repr=False)
class StandardScaler(ColumnScaler):
    """Scaler of each column to mean 0 and standard deviation 1.

    Missing values (NaN) are ignored in the fit and stay. The digits of columns far from 0 are kept: means are computed
    relative to the least value of a column, in units of its range. A constant column is divided by 1.

    Args:
        copy: not used: rows are never changed in place.
        with_mean: subtract the mean.
        with_std: divide by the standard deviation.

    Attributes:
        mean_: (n_features,) float64 means; None without ``with_mean`` and ``with_std``.
        var_: (n_features,) float64 variances, divided by n; None without ``with_std``.
        scale_: (n_features,) float64 divisors; None without ``with_std``.
        n_samples_seen_: number of rows, or its total weight; (n_features,) where some values are missing.
        n_features_in_: number of columns.

    >>> scaler = StandardScaler().fit([[0.0, 5.0], [4.0, 5.0]])
    >>> scaler.transform([[4.0, 5.0]]).tolist(), scaler.scale_.tolist()
    ([[1.0, 0.0]], [2.0, 1.0])
    """

    _required_attributes = ("_moments",)

    _: KW_ONLY
    copy: Any = True
    with_mean: Any = True
    with_std: Any = True

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> StandardScaler:
        """Compute means and deviations of the columns.

        Args:
            X: (n_samples, n_features) rows, or a source of them.
            y: not used.
            sample_weight: (n_samples,) weights >= 0, or None for 1 each.
        """
        self._reset()
        return self.partial_fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> StandardScaler:
        """Add rows to those of the fit so far.

        Args:
            X: (n_samples, n_features) rows, or a source of them.
            y: not used.
            sample_weight: (n_samples,) weights >= 0, or None for 1 each.
        """
        first = not hasattr(self, "_moments")
        x = self._rows(X, reset=first)
        weights = None
        if sample_weight is not None:
            weights = validation.as_real_array(sample_weight, name="sample_weight")
            weights = np.full(x.shape[0], weights) if weights.ndim == 0 else weights
            weights = validation.check_weights(weights, x.shape[0], name="sample_weight")
        least, most, total = self._extremes(x, weights)
        moments = self._moments_of(x, column_units(least, most), weights)._replace(weight=total)
        self._moments = moments if first else merge_moments(self._moments, moments)
        self._weighted = weights is not None or (not first and self._weighted)
        self._publish()
        return self

    def _moments_of(self, x: Any, units: Units, weights: np.ndarray | None) -> Moments:
        """Moments of the columns, their weights in another unit."""
        scaled, _ = scaled_weights(weights)

        def of_block(rows, block):
            weight = np.ones(len(block)) if scaled is None else scaled[rows]
            inside = units.enter(block)
            if isinstance(inside, np.ndarray):
                return column_moments(inside, weight)
            moments = column_moments_on_device(inside, jax.device_put(weight.astype(inside.dtype)))
            return Moments(*(np.asarray(each, np.float64) for each in moments))

        return units.leave(reduce(merge_moments, (of_block(*block) for block in self._blocks(x))))

    def _reset(self) -> None:
        for name in ("_moments", "_weighted", "mean_", "var_", "scale_", "n_samples_seen_"):
            vars(self).pop(name, None)

    def _check_attributes(self) -> None:
        super()._check_attributes()
        if not isinstance(self._moments, Moments):
            raise ValueError("_moments are not those of columns.")
        self._publish()

    def _publish(self) -> None:
        weight, mean, deviation = self._moments
        seen = weight if self._weighted else weight.astype(np.int64)
        self.n_samples_seen_ = seen[0] if (weight == weight[0]).all() else seen
        empty = weight == 0
        self.mean_ = np.where(empty, np.nan, mean) if self.with_mean or self.with_std else None
        with np.errstate(over="ignore", under="ignore"):  # beyond float64 only the square is infinite or 0
            self.var_ = np.where(empty, np.nan, np.square(deviation)) if self.with_std else None
        self.scale_ = np.where(empty, np.nan, np.where(deviation > 0, deviation, 1.0)) if self.with_std else None

    def _map(self) -> tuple[Any, Any, Any, Any]:
        shift = self.mean_ if self.with_mean else np.zeros(self.n_features_in_)
        return shift, self.scale_ if self.with_std else 1.0, 0.0, 1.0


@dataclass(eq=False, repr=False)
class MinMaxScaler(ColumnScaler):
    """Scaler of each column to a range, by its least and its greatest value.

    Missing values (NaN) are ignored in the fit and stay. A constant column becomes the lower end of the range.

    Args:
        feature_range: lower and upper end.
        copy: not used: rows are never changed in place.
        clip: keep transformed rows inside the range.

    Attributes:
        min_: (n_features,) float64, what is added after the product with ``scale_``.
        scale_: (n_features,) float64 factors.
        data_min_, data_max_, data_range_: (n_features,) float64 of the rows of the fit.
        n_samples_seen_: number of rows.
        n_features_in_: number of columns.

    >>> MinMaxScaler().fit_transform([[0.0], [1.0], [4.0]]).ravel().tolist()
    [0.0, 0.25, 1.0]
    """

    _required_attributes = ("data_min_", "data_range_")

    feature_range: Any = (0, 1)
    _: KW_ONLY
    copy: Any = True
    clip: Any = False

    def fit(self, X: Any, y: Any = None) -> MinMaxScaler:
        """Compute the range of each column.

        Args:
            X: (n_samples, n_features) rows, or a source of them.
            y: not used.
        """
        vars(self).pop("n_samples_seen_", None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any = None) -> MinMaxScaler:
        """Add rows to those of the fit so far.

        Args:
            X: (n_samples, n_features) rows, or a source of them.
            y: not used.
        """
        low, high = self._range()
        first = not hasattr(self, "n_samples_seen_")
        x = self._rows(X, reset=first)
        least, most, _ = self._extremes(x, None)
        with np.errstate(over="ignore"):
            if (wide := np.flatnonzero(np.isinf(most - least))).size:
                raise ValueError(f"the range of column {wide[0]} is beyond float64, up to 1e308. Halve it before.")
        seen = x.shape[0]
        if not first:
            least, most, seen = (
                np.fmin(least, self.data_min_),
                np.fmax(most, self.data_max_),
                seen + self.n_samples_seen_,
            )
        self.data_min_, self.data_max_, self.data_range_, self.n_samples_seen_ = least, most, most - least, seen
        self.scale_ = (high - low) / np.where(self.data_range_ == 0, 1.0, self.data_range_)
        self.min_ = low - least * self.scale_
        return self

    def transform(self, X: Any) -> Any:
        """Scale rows.

        Args:
            X: (n_samples, n_features) rows; NaN stays NaN.

        Returns:
            (n_samples, n_features) scaled rows, a JAX array for a JAX array, else NumPy.
        """
        scaled = self._apply(X, standardize, standardize_on_device)
        return scaled.clip(*self._range()) if self.clip else scaled

    def inverse_transform(self, X: Any) -> Any:
        """Scale rows back to the units of the fit.

        Args:
            X: (n_samples, n_features) scaled rows.

        Returns:
            (n_samples, n_features) rows, a JAX array for a JAX array, else NumPy.
        """
        return self._apply(X, unstandardize, unstandardize_on_device)

    def _range(self) -> tuple[float, float]:
        if np.shape(self.feature_range) != (2,) or not self.feature_range[0] < self.feature_range[1]:
            raise ValueError(f"feature_range={self.feature_range!r} must be a lower and a greater upper end.")
        return float(self.feature_range[0]), float(self.feature_range[1])

    def _map(self) -> tuple[Any, Any, Any, Any]:
        low, high = self._range()
        # Not by ``min_``, which has no digits of a column at 1e9 left, and divided first: the greatest value gets the
        # upper end exactly.
        return self.data_min_, np.where(self.data_range_ == 0, 1.0, self.data_range_), low, high - low

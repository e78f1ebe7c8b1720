"""`NeighborEmbedding` and `N2D` with scikit-learn's interface, over `jaxcluster.neighbor_embedding`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import gmm, neighbor_embedding
from jaxcluster.core import signals, validation
from jaxcluster.core.dtypes import beyond_float64
from jaxcluster.core.messages import warn
from jaxcluster.estimators.base import Estimator, as_key
from jaxcluster.estimators.input_tables import canonical
from jaxcluster.estimators.registry import register
from jaxcluster.types import Status

LARGEST_EXPONENT = 1100
"""Largest exponent of samples in float64, and a little more."""


class _MapEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Base of estimators with a neighbor embedding: its fit, new samples, and checks."""

    _required_attributes = ("embedding_", "_samples", "_curve")

    # Parameters that both subclasses have.
    n_components: Any
    n_neighbors: Any
    min_dist: Any
    spread: Any
    init: Any
    epochs: Any
    negatives: Any
    random_state: Any

    def transform(self, X: Any) -> np.ndarray:
        """Place samples in the map, (n_samples, n_components), each independent of the others.

        A sample that coincides with one of the fit has its place.
        """
        check_is_fitted(self)
        return neighbor_embedding.transform(self._state(), self._codes(self._validate(X, reset=False)))

    def _codes(self, X):
        """Samples as the map takes them, near 1 by a power of two; integers that float64 would round as they are."""
        codes = np.asarray(X)
        return (
            codes
            if self._exponent == 0 and beyond_float64(codes)
            else np.ldexp(codes.astype(np.float64), -self._exponent)
        )

    def _fit_map(self, key, codes):
        self._exponent = 0 if beyond_float64(np.asarray(codes)) else int(np.frexp(np.abs(codes).max())[1])
        state = neighbor_embedding.fit(
            key,
            _MapEstimator._codes(self, codes),
            self._dimension(),
            n_neighbors=self.n_neighbors,
            min_dist=self.min_dist,
            spread=self.spread,
            init=self.init,
            epochs=self.epochs,
            negatives=self.negatives,
        )
        self.embedding_, self._samples = state.embedding, state.samples
        self._curve, self._counts = np.array([state.a, state.b]), np.array([state.n_neighbors, state.negatives])
        ended = Status.CONVERGED if state.complete else Status.INTERRUPTED
        self.status_ = ended if state.finite else Status.NOT_FINITE
        if not state.finite:
            warn(
                f"{type(self).__name__}: the map is not finite. Raise min_dist or lower negatives.", ConvergenceWarning
            )
        elif not np.ptp(state.samples, axis=0).any():
            warn(f"{type(self).__name__}: all rows of X are equal, so that the map says nothing.", ConvergenceWarning)

    def _state(self):
        (a, b), (n_neighbors, negatives) = self._curve.tolist(), self._counts.tolist()
        return neighbor_embedding.NeighborMap(self.embedding_, self._samples, a, b, n_neighbors, negatives, True)

    def _dimension(self):
        return self.n_components

    @property
    def _n_features_out(self):
        return self.embedding_.shape[1]

    def _check_params(self, n, d):
        super()._check_params(n, d)
        if n < 2:
            raise ValueError(
                f"Found array with n_samples={n} while a minimum of 2 is required: one row has no neighbors."
            )
        validation.check_count("n_neighbors", self.n_neighbors)
        neighbor_embedding.curve_parameters(self.min_dist, self.spread)
        validation.check_choice("init", self.init, neighbor_embedding.INITS)
        if self.n_components is not None:
            validation.check_count("n_components", self.n_components)
        if self.epochs is not None:
            validation.check_count("epochs", self.epochs)
        if not (isinstance(self.negatives, int) and self.negatives == 0):
            validation.check_count("negatives", self.negatives)

    def _check_attributes(self):
        super()._check_attributes()
        for name in ("embedding_", "_samples", "_curve", "_counts"):
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or not np.isfinite(value).all():
                raise ValueError(f"{name} is not that of a fit.")
        counts, encoder = self._counts, getattr(self, "encoder_", None)
        if encoder is not None:  # a model with one cannot be saved
            raise ValueError(f"encoder_ is {encoder!r}, not that of a saved model.")
        of_rows = self.embedding_.ndim == 2 and self._samples.shape == (len(self.embedding_), self.n_features_in_)
        if not of_rows or self._curve.shape != (2,) or self.embedding_.shape[1] < 1:
            raise ValueError("embedding_ and _samples are not those of one fit.")
        if counts.shape != (2,) or counts.dtype.kind not in "iu" or not 1 <= counts[0] <= len(self._samples):
            raise ValueError("_counts are not those of a fit.")
        if counts[1] < 0 or type(self._exponent) is not int or abs(self._exponent) > LARGEST_EXPONENT:
            raise ValueError("_counts or _exponent are not those of a fit.")


@register("neighbor-embedding", choices={"init": neighbor_embedding.INITS})
@dataclass(eq=False, repr=False)
class NeighborEmbedding(_MapEstimator):
    """Neighbor embedding: a map of samples that keeps near neighbors near, by the objective of UMAP.

    Args:
        n_components: dimension of the map.
        n_neighbors: neighbors of a sample: few show detail, many the whole.
        min_dist: distance in the map up to which samples count as equal: small ones make dense clusters.
        spread: scale of the map.
        init: "spectral", eigenvectors of the graph of neighbors, or "pca", principal components.
        epochs: draws of the heaviest edge; None for 500, or 200 from 10,000 samples on.
        negatives: random samples that repel one end of each edge.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key. One gives one map.
        order: None, or "canonical" to fit the samples sorted by value.

    Attributes:
        embedding_: (n_samples, n_components) places of the samples, float32.
        status_: CONVERGED after all epochs, INTERRUPTED where Ctrl-C ended them, or NOT_FINITE.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> NeighborEmbedding(n_neighbors=10, epochs=20, random_state=0).fit_transform(X).shape
        (150, 2)

    Source: L. McInnes, J. Healy and J. Melville, UMAP: uniform manifold approximation and projection for dimension
    reduction, arXiv:1802.03426 (2018).
    """

    n_components: Any = 2
    _: KW_ONLY
    n_neighbors: Any = 15
    min_dist: Any = 0.1
    spread: Any = 1.0
    init: Any = "spectral"
    epochs: Any = None
    negatives: Any = 5
    random_state: Any = None
    order: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None) -> NeighborEmbedding:
        """Embed the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values.

        Warns:
            ConvergenceWarning: all samples are equal; a map that is not finite.
        """
        X = self._validate(X, reset=True)
        self._check_params(*X.shape)
        self._fit_map(as_key(self.random_state), X)
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """Fit, and return ``embedding_``."""
        return self.fit(X, y, **fit_params).embedding_


@register("n2d", clusters="n_clusters", choices={"init": neighbor_embedding.INITS})
@dataclass(eq=False, repr=False)
class N2D(ClusterMixin, _MapEstimator):
    """N2D, not too deep clustering: a Gaussian mixture on a neighbor embedding of features.

    Features are the samples themselves, such as embeddings of any network, or the codes of an ``encoder``, such as an
    autoencoder's, which is what the method was published with.

    Args:
        n_clusters: number of clusters, the components of the mixture.
        encoder: an estimator with ``fit`` and ``transform``, such as `jaxcluster.AutoencoderKMeans`: a clone of it is
            fitted first. None for the samples themselves. A model with one cannot be saved.
        n_components: dimension of the map; None for n_clusters, and 2 for fewer.
        n_neighbors, min_dist, spread, init, epochs, negatives: see `NeighborEmbedding`.
        n_init: number of starts of the mixture.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value.

    Attributes:
        labels_: (n_samples,) int32.
        embedding_: (n_samples, n_components) places of the samples, float32.
        encoder_: the fitted encoder; None without one.
        component_weights_, component_means_, component_covariances_: of the mixture, in the map.
        status_: of the mixture, or NOT_FINITE or INTERRUPTED for the map.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> N2D(3, n_neighbors=10, epochs=20, random_state=0).fit_predict(X).shape
        (150,)

    Source: R. McConville, R. Santos-Rodríguez, R. Piechocki and I. Craddock, N2D: (not too) deep clustering via
    clustering the local manifold of an autoencoded embedding, ICPR 2020.
    """

    _required_attributes = (
        *("labels_", "embedding_", "_samples", "_curve"),
        *("component_weights_", "component_means_", "component_covariances_"),
    )

    n_clusters: Any = 8
    _: KW_ONLY
    encoder: Any = None
    n_components: Any = None
    n_neighbors: Any = 20
    min_dist: Any = 0.0
    spread: Any = 1.0
    init: Any = "spectral"
    epochs: Any = None
    negatives: Any = 5
    n_init: Any = 5
    random_state: Any = None
    order: Any = None

    @canonical
    def fit(self, X: Any, y: Any = None) -> N2D:
        """Cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; an encoder that cannot be fitted.

        Warns:
            ConvergenceWarning: all samples are equal; a map that is not finite; a mixture that is not that of
                n_clusters components.
        """
        X = self._validate(X, reset=True)
        self._check_params(*X.shape)
        map_key, mixture_key = jax.random.split(as_key(self.random_state))
        encoder: Any = None if self.encoder is None else clone(self.encoder)
        self.encoder_ = None if encoder is None else encoder.fit(X)
        with signals.keeping_result():  # of both: after Ctrl-C in the steps of the map the mixture takes none
            self._fit_map(map_key, X if self.encoder_ is None else self.encoder_.transform(X))
            fit = jax.device_get(gmm.fit(mixture_key, self.embedding_, self.n_clusters, n_init=self.n_init))
        self.component_weights_, self.component_means_ = np.array(fit.state.weights), np.array(fit.state.means)
        self.component_covariances_ = np.array(fit.state.covariances)
        self.labels_ = np.array(gmm.predict(self._mixture(), self.embedding_), np.int32)
        if self.status_ == Status.CONVERGED:
            self.status_ = Status(int(fit.status))
        occupied = np.unique(self.labels_).size
        if self.status_ in (Status.COLLAPSED, Status.EMPTY_CLUSTERS) or occupied < self.n_clusters:
            found = (
                f"only {occupied} of the n_clusters={self.n_clusters} clusters have rows"
                if occupied < self.n_clusters
                else "a component of the mixture of the map has too few different rows for a variance"
            )
            warn(f"N2D: {found}. Pass fewer clusters, or another random_state.", ConvergenceWarning)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by its most probable component, (n_samples,) int32."""
        places = self.transform(X)
        return np.array(gmm.predict(self._mixture(), places), np.int32)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute the responsibilities of the components for samples, (n_samples, n_clusters)."""
        places = self.transform(X)
        return np.array(gmm.predict_proba(self._mixture(), places))

    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, y, **fit_params).labels_

    def _codes(self, X):
        return super()._codes(X if self.encoder_ is None else self.encoder_.transform(X))

    def _mixture(self):
        weights, means = self.component_weights_, self.component_means_
        zero = np.zeros((), weights.dtype)
        return gmm.GMMState(weights, means, self.component_covariances_, zero, np.zeros(weights.shape, bool), zero)

    def _check_attributes(self):
        super()._check_attributes()
        k, m = self.n_clusters, self.embedding_.shape[1]
        shapes = {"component_weights_": (k,), "component_means_": (k, m), "component_covariances_": (k, m, m)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if not isinstance(value, np.ndarray) or value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} is not that of a fit with {k} clusters in {m} dimensions.")

    def _dimension(self):
        return max(2, self.n_clusters) if self.n_components is None else self.n_components

    def _check_params(self, n, d):
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        validation.check_count("n_init", self.n_init)
        if self.encoder is not None and not (hasattr(self.encoder, "fit") and hasattr(self.encoder, "transform")):
            raise TypeError(f"encoder={self.encoder!r} must be None or an estimator with fit and transform.")

"""Use of a trained network: explanation of its assignments, calibration of their probabilities, export."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.optimize import brentq
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.core.atomic import write_atomic
from jaxcluster.core.fold import map_rows
from jaxcluster.deep.attribution import integrated_gradients
from jaxcluster.deep.inference import TILE
from jaxcluster.deep.start import Start, densities_of
from jaxcluster.estimators.base import Estimator
from jaxcluster.estimators.deep.checks import encode_classes
from jaxcluster.estimators.deep.scaling import rescaled
from jaxcluster.types import Array, Float

ATTRIBUTION_TILE = 512
"""Samples whose gradients are held at once."""

LOG_TEMPERATURES = (-3.0, 7.0)
"""Bounds of log T. Where all held-out samples are right, the best temperature would be 0, and each probability 0 or 1.
Beyond 1,100 the probabilities are equal in the digits that are read."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that an exported program runs on."""


class TrainedNetwork(Estimator):
    """Methods of an estimator whose network is trained.

    Attributes:
        temperature_: T of the probabilities, p_j^(1/T)/Σ_l p_l^(1/T): 1 unless `calibrate` was called.
    """

    temperature_: float | None = None  # of a model that was saved before there was one: 1

    EMBEDDING_METHOD: ClassVar[str]
    n_clusters: int
    n_features_in_: int
    scaling_: Any
    predict: Callable[[Any], np.ndarray]
    _simple_start: Start | None

    @property
    def module_(self) -> Any:
        """The trained module."""
        raise NotImplementedError

    def explain(self, X: Any, cluster: int | None = None, *, baseline: Any = None, steps: int = 32) -> np.ndarray:
        """Attribute the probability of a cluster to the features of each sample, by integrated gradients.

        Positive numbers speak for the cluster, negative ones against it. Those of a sample sum to the difference
        between its probability and that of the baseline.

        Args:
            X: (n_samples, n_features).
            cluster: the cluster that is explained; None for that of each sample by `predict`.
            baseline: (n_features,) sample that says nothing, in the units of X; None for zeros after the scaling, which
                are the mean of a standardized table, and black of an image. After ``scaling="l2"`` attributions are
                those of the scaled features.
            steps: number of intervals of the integral.

        Returns:
            (n_samples, n_features) float32 attributions, without unit.

        Raises:
            ValueError, TypeError: a cluster that does not exist; a baseline of another shape, or that is not finite.

        Source: M. Sundararajan, A. Taly and Q. Yan, Axiomatic attribution for deep networks, ICML 2017.

        Example:
            >>> from jaxcluster import AutoencoderKMeans
            >>> from sklearn.datasets import load_iris
            >>> X = load_iris().data
            >>> model = AutoencoderKMeans(3, hidden=(16,), latent=2, pretrain_epochs=20, random_state=0).fit(X)
            >>> model.explain(X).shape
            (150, 4)
        """
        check_is_fitted(self)
        steps = validation.check_count("steps", steps)
        rows = rescaled(self._validate(X, reset=False), self.scaling_)
        start = np.zeros((1, rows.shape[1]), np.float32) if baseline is None else self._scaled_baseline(baseline)
        if cluster is None:
            clusters = self.predict(X)
        else:
            clusters = np.full(len(rows), validation.check_cluster("cluster", cluster, self.n_clusters), np.int32)
        explained = _explain(*self._split_predictor(), self.temperature_, rows, clusters, start, steps)
        return np.asarray(explained)

    def calibrate(self, X: Any, y: Any) -> TrainedNetwork:
        """Set the temperature of `predict_proba` so that probabilities of held-out samples are as often right.

        Each cluster stands for the most common class of its samples. With the temperature the mean probability of the
        predicted class is the fraction of the samples that are right. It changes no label, and `save` keeps it.

        Args:
            X: (n_samples, n_features) samples that the network was not fitted to.
            y: (n_samples,) their classes: integers with −1 for unknown, or strings with None for unknown.

        Returns:
            The estimator.

        Raises:
            ValueError, TypeError: no known class, or classes as in `JointClustering.fit`.

        Sources: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, On calibration of modern neural networks, ICML 2017;
        L. Clarté, B. Loureiro, F. Krzakala and L. Zdeborová, Expectation consistency for calibration of neural
        networks, UAI 2023.

        Example:
            >>> from jaxcluster import AutoencoderKMeans
            >>> from sklearn.datasets import load_iris
            >>> X, y = load_iris(return_X_y=True)
            >>> model = AutoencoderKMeans(3, hidden=(16,), latent=2, pretrain_epochs=20, random_state=0).fit(X[::2])
            >>> 0 < model.calibrate(X[1::2], y[1::2]).temperature_
            True
        """
        check_is_fitted(self)
        rows = rescaled(self._validate(X, reset=False), self.scaling_)
        codes, classes = encode_classes(y, len(rows))
        log_p = np.asarray(_log_probabilities(*self._split_predictor(), rows), np.float64)[codes >= 0]
        codes = codes[codes >= 0]
        if not codes.size:
            raise ValueError("y holds no known class, and probabilities are calibrated by the classes of samples.")
        counts = np.zeros((self.n_clusters, classes.size))
        np.add.at(counts, (log_p.argmax(axis=1), codes), 1)
        stands_for = np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
        own = stands_for[log_p.argmax(axis=1)]
        same_class = stands_for[None, :] == own[:, None]  # (n_samples, n_clusters): as the sample's own cluster
        accuracy = np.mean(own == codes)

        def excess(log_temperature):
            p = softmax(log_p / np.exp(log_temperature), axis=1)
            return np.mean(np.sum(p, axis=1, where=same_class)) - accuracy

        low, high = LOG_TEMPERATURES
        root: Any = low if excess(low) <= 0 else high
        if excess(low) > 0 > excess(high):
            root = brentq(excess, low, high, xtol=1e-6)
        self.temperature_ = float(np.exp(root))
        return self

    def export(self, path: Any) -> Path:
        """Write `predict_proba` and `transform` as a program that runs without jaxcluster, on CPU, CUDA and TPU.

        ``jax.export.deserialize(bytearray(path.read_bytes()))`` reads it, and its ``call`` takes any number of samples,
        (n_samples, n_features) float32 in the units of X. It returns a dictionary: "labels" (n_samples,) int32,
        "probabilities" (n_samples, n_clusters) and "codes" (n_samples, latent), all computed in float32.

        Args:
            path: of the file, which is replaced if it is there.

        Returns:
            The path.

        Raises:
            OSError: the file cannot be written.
            ImportError: the package flatbuffers is not installed; the extra ``export`` has it.

        Example:
            >>> import tempfile
            >>> import jax
            >>> from jaxcluster import AutoencoderKMeans
            >>> from sklearn.datasets import load_iris
            >>> X = load_iris().data.astype(np.float32)
            >>> model = AutoencoderKMeans(3, hidden=(16,), latent=2, pretrain_epochs=20, random_state=0).fit(X)
            >>> path = model.export(Path(tempfile.mkdtemp()) / "iris.jax")
            >>> served = jax.export.deserialize(bytearray(path.read_bytes())).call(X)
            >>> bool((served["labels"] == model.labels_).all())
            True
        """
        check_is_fitted(self)
        path = Path(path)
        graphdef, predictor = self._split_predictor()
        module_def, module = nnx.split(self.module_)
        scale = _scale_in_float32(self.scaling_)

        def of_one(row):
            rows = scale(row[None])
            p = tempered(_assign(graphdef, predictor, rows), self.temperature_)
            codes = getattr(_merged(module_def, module), self.EMBEDDING_METHOD)(rows)
            return {"labels": jnp.argmax(p[0]).astype(jnp.int32), "probabilities": p[0], "codes": codes[0]}

        # One sample at a time under vmap: tiles need to know how many there are, and the file should not.
        (n,) = jax.export.symbolic_shape("n")
        shape = jax.ShapeDtypeStruct((n, self.n_features_in_), jnp.float32)
        exported = jax.export.export(jax.jit(jax.vmap(of_one)), platforms=PLATFORMS)(shape)
        try:
            content = bytes(exported.serialize())
        except ImportError as error:
            raise ImportError("an export needs flatbuffers: pip install 'jaxcluster[export]'.") from error
        write_atomic(path, content)
        return path

    def _split_predictor(self) -> tuple[Any, Any]:
        """Predictor of scaled samples: the graph and state of a module, or None and the densities of the start."""
        start = self._simple_start
        return nnx.split(self.module_) if start is None else (None, densities_of(start))

    def _scaled_baseline(self, baseline):
        given = np.asarray(baseline)
        if given.shape != (self.n_features_in_,):
            raise ValueError(
                f"baseline must have shape ({self.n_features_in_},), one number a feature, got {given.shape}."
            )
        return rescaled(np.asarray(validation.check_matrix(given[None], name="baseline")), self.scaling_)


class Interpolating:
    """Method of an estimator whose network draws or decodes samples between two clusters."""

    n_clusters: int
    scaling_: Any
    _between: Callable[[int, int, int], Any]
    """Scaled samples (steps, n_features) from one cluster to another."""

    def interpolate(self, a: int, b: int, steps: int = 10) -> np.ndarray:
        """Samples from one cluster to another, (steps, n_features) float64 in the units of X.

        Autoencoders decode the line between the centers. ClusterGAN generates with fixed noise, and mixes the clusters.

        Args:
            a, b: clusters of the first and of the last sample.
            steps: number of samples.

        Raises:
            ValueError, TypeError: clusters that do not exist; a number of steps that is no count.
        """
        check_is_fitted(self)
        steps = validation.check_count("steps", steps)
        a, b = (validation.check_cluster(name, each, self.n_clusters) for name, each in (("a", a), ("b", b)))
        return self.scaling_.undo(np.asarray(self._between(a, b, steps)))


def tempered(p: Any, temperature: float | None) -> Any:
    """Probabilities p_j^(1/T)/Σ_l p_l^(1/T), (n_samples, n_clusters); those of a temperature of 1 as they are."""
    if temperature is None or temperature == 1:
        return p
    return jax.nn.softmax(_logarithm(p) / temperature, axis=1)


def check_temperature(temperature: Any) -> None:
    """Raise ValueError unless a loaded temperature is a positive number."""
    if temperature is not None and not (isinstance(temperature, float) and 0 < temperature < np.inf):
        raise ValueError("temperature_ is not a positive number.")


def _logarithm(p):
    """Logarithm of probabilities, finite for those that float32 holds as 0."""
    return jnp.log(jnp.maximum(p, jnp.finfo(jnp.float32).tiny))


def _merged(graphdef, state):
    module = nnx.merge(graphdef, state)
    module.eval()
    return module


def _assign(graphdef: Any, state: Any, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Responsibilities by a module, or by a start."""
    if graphdef is None:
        return state.responsibilities(rows)
    module = _merged(graphdef, state)
    return module.assign(module.features(rows))


@partial(jax.jit, static_argnames=("graphdef", "temperature", "steps"))
def _explain(graphdef, state, temperature, rows, clusters, baseline, steps):
    def tile(given):
        rows, clusters = given

        def probability(each):
            p = tempered(_assign(graphdef, state, each), temperature)
            return jnp.take_along_axis(p, clusters[:, None], axis=1)[:, 0]

        return integrated_gradients(probability, rows, jnp.broadcast_to(baseline, rows.shape), steps=steps)

    return map_rows(tile, (rows, clusters), tile=ATTRIBUTION_TILE)


@partial(jax.jit, static_argnames=("graphdef",))
def _log_probabilities(graphdef, state, rows):
    return map_rows(lambda tile: _logarithm(_assign(graphdef, state, tile)), rows, tile=TILE)


def _scale_in_float32(scaling):
    """Scaling of float32 samples on a device: shifts are subtracted in two parts, which keeps their digits."""
    shift = np.zeros(1) if scaling.shift is None else scaling.shift
    shift = shift + (0 if scaling.origin is None else np.array(scaling.origin, np.float64))
    high = shift.astype(np.float32)
    low = (shift - high).astype(np.float32)
    factor = np.float32(1) if scaling.factor is None else scaling.factor.astype(np.float32)

    def scale(rows):
        if scaling.how == "l2":
            length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))
            return rows / jnp.where(length > 0, length, 1)
        return ((rows - high) - low) / factor

    return scale

"""The base of all deep estimators: a network is trained for a caller, published, used on new rows and checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax
from flax import nnx
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.core.caution import warn
from jaxcluster.core.checkpoint import Checkpoints
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.deep.callbacks import JsonLines, ProgressBar, Snapshots
from jaxcluster.deep.inference import map_module, weights_of, with_weights
from jaxcluster.deep.optimizers import check_optimizer, check_rate
from jaxcluster.deep.trainer import TrainResult
from jaxcluster.estimators.base import Estimator
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.scaling import SCALING_CHOICES, rescaled
from jaxcluster.estimators.input_tables import canonical
from jaxcluster.types import Array, Float, Status

UNRELATED_PARAMS = frozenset(
    {"epochs", "tol", "verbose", "callbacks", "checkpoint_dir", "checkpoint_every", "resume", "random_state"}
)
"""Parameters on which no step of a training depends, or which its checkpoints know in another way."""


@dataclass(eq=False, repr=False)
class DeepEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """A clustering of what a network makes of the rows. Rows are scaled first, so that they need not be.

    Args:
        n_clusters: number of clusters.
        hidden: widths of the network's hidden layers.
        latent: width of the code of a row.
        encoder: any `nnx.Module` from rows to what the method wants of them, in place of the method's own network. It
            is not changed. A model with one cannot be saved.
        image_shape: (height, width) or (height, width, channels) of rows that are flat images: convolutional networks
            in place of dense ones.
        scaling: "auto", "standard", "minmax", "l2" or "none".
        epochs: the most epochs.
        batch_size: rows a step; "auto" is 256, or all where there are fewer.
        learning_rate: of Adam; or a schedule of optax, a function from steps to rates.
        optimizer: any gradient transformation of optax in place of Adam; see `jaxcluster.deep.train`.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        precision: None for float32, "fast" for bfloat16 in the networks' products.
        verbose: 1 for a progress bar.
        callbacks: called with a `jaxcluster.deep.EpochReport` after every epoch.
        checkpoint_dir: a folder for checkpoints and the history as JSON lines; None for none.
        checkpoint_every: epochs from one checkpoint to the next.
        resume: whether to go on from the newest checkpoint there: what comes out is, bit for bit, what a run that was
            never cut short gives.

    Attributes:
        labels_: (n_samples,) int32.
        cluster_centers_: (n_clusters, latent), among the codes.
        history_: (n_iter_,) loss of each epoch of the last phase.
        epoch_history_: all that was followed, a dictionary an epoch, of all phases.
        snapshots_: codes of some rows through the training, for pictures: "rows" are their numbers, the others go by
            phase and epoch.
        n_iter_: epochs of the last phase.
        status_: a `jaxcluster.types.Status`, how the training ended, EMPTY_CLUSTERS where clusters are without rows; of
            one that failed, ``failed_step_`` is the step. The network is then the last one that gives finite codes.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    info = Estimator.info._replace(
        family="deep", clusters="n_clusters", steps="epochs", reported=("n_iter_",), objective="loss"
    )

    _required_attributes = ("labels_", "cluster_centers_", "scaling_", "_weights")

    n_clusters: int = 8
    _: KW_ONLY
    hidden: Sequence[int] = (256, 256, 512)
    latent: int = 10
    encoder: Any = None
    image_shape: Sequence[int] | None = None
    scaling: str = "auto"
    epochs: int | None = 100
    batch_size: int | str = "auto"
    learning_rate: Any = 1e-3
    optimizer: Any = None
    random_state: Any = None
    order: str | None = None
    precision: str | None = None
    verbose: int = 0
    callbacks: Sequence[Callable[..., Any]] | None = None
    checkpoint_dir: str | os.PathLike | None = None
    checkpoint_every: int = 10
    resume: bool = False

    # What each method has of its own, besides ``fit``.

    def _init_module(self) -> nnx.Module:
        """The module of a fitted estimator before any training: ``features`` of rows, ``assign`` of these."""
        raise NotImplementedError

    def _encode_labels(self, y: Any, n: int) -> Array | np.ndarray | None:
        """What the module is told of the rows: n values, or None."""
        return None

    def _centers(self, module: nnx.Module) -> Array:
        return module.centers[...]

    def _fit(self, X: np.ndarray, class_codes: Any) -> None:
        """Trains on checked rows, told of them what `_encode_labels` says, and publishes."""
        raise NotImplementedError

    # Use.

    @canonical
    def fit(self, X: Any, y: Any = None) -> DeepEstimator:
        """Trains the network and clusters the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored, unless the method learns from labels.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; an encoder whose codes have another width; a
                checkpoint that was changed, or is of another configuration.

        Warns:
            ConvergenceWarning: a loss that is not finite, with the step; a training that collapsed; clusters without
                rows.
        """
        X = self._validate(X, reset=True)
        self._check_params(*X.shape)
        class_codes = self._encode_labels(y, X.shape[0])
        self.epoch_history_, self.failed_step_ = [], None
        self._fit(X, class_codes)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The cluster of each row, (n_samples,) int32: that with the greatest share."""
        return np.argmax(self.predict_proba(X), axis=1).astype(np.int32)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The share of each cluster in each row, (n_samples, n_clusters); rows sum to 1."""
        module, rows = self._with_rows(X)
        return np.array(self._predict_proba(module, map_module(module, "features", rows)))

    def transform(self, X: Any) -> np.ndarray:
        """The code of each row, (n_samples, latent); of ClusterGAN (n_samples, latent + n_clusters)."""
        module, rows = self._with_rows(X)
        return np.array(map_module(module, "features", rows))

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return ``labels_``."""
        return self.fit(X, y).labels_

    @property
    def module_(self) -> nnx.Module:
        """The trained module, a copy, in evaluation: see `jaxcluster.deep`."""
        check_is_fitted(self)
        module = with_weights(self._init_module(), self._weights)
        module.eval()
        return module

    @property
    def _n_features_out(self):
        return self.latent

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # Parts of a fit.

    def _callbacks(self, phase: str, *more: Any, lines: bool = True) -> list[Any]:
        own = [*more, *(self.callbacks or ())]
        if self.verbose:
            own.append(ProgressBar(f"{type(self).__name__}: {phase}"))
        if self.checkpoint_dir is not None and lines:
            own.append(JsonLines(Path(self.checkpoint_dir) / f"{phase}.jsonl"))
        return own

    def _snapshots(self, rows: np.ndarray) -> Snapshots:
        """What takes the codes of some rows on the way, and keeps them beside the checkpoints."""
        return Snapshots(rows, None if self.checkpoint_dir is None else Path(self.checkpoint_dir) / "snapshots")

    def _checkpoints(self, phase: str, **more: Any) -> Checkpoints | None:
        if self.checkpoint_dir is None:
            return None
        config = {
            name: _describe_param(value)
            for name, value in self.get_params(deep=False).items()
            if name not in UNRELATED_PARAMS
        }
        folder = Path(self.checkpoint_dir) / phase
        return Checkpoints(
            folder, every=self.checkpoint_every, config={"method": type(self).__name__, **config, **more}
        )

    def _predict_proba(self, module: nnx.Module, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        return map_module(module, "assign", z)

    def _append_history(self, phase: str, trained: TrainResult) -> None:
        self.epoch_history_ += [{"phase": phase, **record} for record in trained.history]

    def _publish(
        self, module: nnx.Module, trained: TrainResult, phase: str, rows: np.ndarray, snapshots: Snapshots
    ) -> None:
        codes = map_module(module, "features", rows)
        self.labels_ = np.argmax(np.asarray(self._predict_proba(module, codes)), axis=1).astype(np.int32)
        self.cluster_centers_ = np.array(self._centers(module))
        self._weights = {name: np.array(value) for name, value in weights_of(module).items()}
        self.history_ = np.array([record["loss"] for record in trained.history])
        self.n_iter_ = len(trained.history)
        self.snapshots_ = {"rows": snapshots.rows, **snapshots.codes}
        self.status_, self.failed_step_ = trained.status, trained.failed_step
        if self.status_ in (Status.CONVERGED, Status.MAX_STEPS) and self._n_empty():
            self.status_ = Status.EMPTY_CLUSTERS
        self._warn_of_status(trained, phase, rows)

    def _n_empty(self) -> int:
        """The number of clusters without rows."""
        return self.n_clusters - np.unique(self.labels_).size

    def _warn_of_status(self, trained: TrainResult, phase: str, rows: np.ndarray) -> None:
        if self.status_ == Status.NOT_FINITE:
            message = (
                f"{trained.cause} not finite at step {self.failed_step_} of {phase}; the network is that after step "
                f"{trained.steps}. {self._lower_rate_advice(phase)}, or look for extreme values in X."
            )
        elif self.status_ == Status.COLLAPSED:
            message = f"the training collapsed: {self._collapse_cause(phase)}."
        elif self.status_ == Status.EMPTY_CLUSTERS:
            message = f"{self._n_empty()} of {self.n_clusters} clusters have no rows{self._empty_cluster_cause(rows)}"
        elif self.status_ == Status.PRECISION:
            message = (
                "the codes of the rows lie too near to each other to be told apart in float32. Lower latent or "
                "n_clusters, or look for columns of X that hide the others."
            )
        else:
            return
        warn(f"{type(self).__name__}: {message}", ConvergenceWarning)

    def _empty_cluster_cause(self, rows: np.ndarray) -> str:
        """The cause of clusters without rows, and what to do."""
        distinct = len(np.unique(rows, axis=0))
        if distinct < self.n_clusters:
            return f": X has {distinct} distinct rows. Pass n_clusters={distinct} or fewer."
        return " after the training. Pass fewer clusters, another random_state, or more epochs."

    def _collapse_cause(self, phase: str) -> str:
        """The meaning of a collapse of the method, and what to do."""
        return f"the network tells no rows apart. {self._lower_rate_advice(phase)}, or look whether X varies"

    def _lower_rate_advice(self, phase: str) -> str:
        """The advice for smaller steps in a phase, by the parameter that sets them."""
        if self.optimizer is not None and phase in ("cluster", "train"):
            return "Pass an optimizer with a lower rate, or clip its gradients by optax.clip_by_global_norm"
        if callable(self.learning_rate):
            return "Pass a schedule of lower rates as learning_rate"
        return f"Lower learning_rate={self.learning_rate:g}"

    def _validate(self, X: Any, *, reset: bool) -> np.ndarray:
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) in (3, 4):
            raise ValueError(
                f"X has shape {shape}, and rows must be flat: (n_samples, n_features). {checks.flat_images('X', shape)}"
            )
        return super()._validate(X, reset=reset)

    def _with_rows(self, X: Any) -> tuple[nnx.Module, np.ndarray]:
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self.module_, rescaled(X, self.scaling_)

    # Checks.

    def _check_attributes(self) -> None:
        super()._check_attributes()
        if not isinstance(self.scaling_, Scaling) or not isinstance(self._weights, dict):
            raise ValueError("scaling_ or the weights of the network are not those of a fit.")

    def _batch(self, n: int) -> int:
        return min(256, n) if self.batch_size == "auto" else self.batch_size

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        checks.check_widths("hidden", self.hidden)
        validation.check_choice("scaling", self.scaling, SCALING_CHOICES)
        for name in ("latent", "checkpoint_every"):
            validation.check_count(name, getattr(self, name))
        self._check_epochs()
        check_rate("learning_rate", self.learning_rate)
        if self.optimizer is not None:
            check_optimizer("optimizer", self.optimizer)
        if self.precision is not None:
            validation.check_choice("precision", self.precision, ("fast",))
        if isinstance(self.batch_size, str):
            validation.check_choice("batch_size", self.batch_size, ("auto",))
        elif validation.check_count("batch_size", self.batch_size) > n:
            raise ValueError(f"batch_size={self.batch_size} is more than n_samples={n}. Pass at most {n}, or 'auto'.")
        checks.check_network("encoder", self.encoder)
        if self.image_shape is not None:
            checks.check_image_shape(self.image_shape, d)
        checks.check_callbacks(self.callbacks)
        checks.check_flag("resume", self.resume)
        if self.checkpoint_dir is not None and not isinstance(self.checkpoint_dir, (str, os.PathLike)):
            raise TypeError(f"checkpoint_dir={self.checkpoint_dir!r} must be None or the path of a folder.")

    def _check_epochs(self) -> None:
        if self.epochs is None:
            raise TypeError("epochs=None: pass the most epochs that a training may have; tol may end it earlier.")
        validation.check_count("epochs", self.epochs)

    def _rate(self) -> Any:
        """The rate of Adam, as `jaxcluster.deep.adam` takes it."""
        return check_rate("learning_rate", self.learning_rate)

    def _check_width(self, shape: Sequence[int]) -> None:
        """Raises where the encoder gives codes of another shape than (1, latent) for one row."""
        if tuple(shape) != (1, self.latent):
            raise ValueError(
                f"the encoder gives codes of shape {tuple(shape)} for one row, but latent={self.latent} asks for "
                f"(1, {self.latent}). Pass latent={shape[-1]}, or another encoder."
            )


def _describe_param(value: Any) -> Any:
    """A parameter in words that are the same in every process."""
    if isinstance(value, optax.GradientTransformation):  # a tuple of functions, whose addresses are others each time
        return "an optimizer of the caller's"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, list, tuple)):
        return value
    plain = value is None or dataclasses.is_dataclass(value)
    # A function by where it is defined; a module by its class.
    return repr(value) if plain else f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"

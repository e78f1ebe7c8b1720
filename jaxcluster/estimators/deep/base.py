"""Base class of all deep estimators: training of a network, publication, use on new samples, parameter checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np
import optax
from flax import nnx
from scipy.spatial.distance import cdist
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.core import validation
from jaxcluster.core.checkpoint import Checkpoints
from jaxcluster.core.messages import warn
from jaxcluster.core.processes import agree_on_key, gather_parts, writes_files
from jaxcluster.datasets.scaling import Scaling
from jaxcluster.deep.callbacks import JsonLines, ProgressBar, Snapshots
from jaxcluster.deep.inference import check_weights, eval_copy, map_module, weights_of, with_weights
from jaxcluster.deep.optimizers import check_optimizer, check_rate
from jaxcluster.deep.trainer import DEFAULT_BATCH_SIZE, TrainResult, default_batch_size
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.scaling import SCALING_CHOICES, rescaled, scaled
from jaxcluster.estimators.deep.selection import SELECT, check_start, finished, selected_start, warn_of_few_rows
from jaxcluster.estimators.deep.trained import TrainedNetwork, check_temperature, tempered
from jaxcluster.estimators.fit_messages import ENDINGS
from jaxcluster.estimators.input_tables import canonical, rows_of_fit
from jaxcluster.types import Absent, Array, Float, KeyArray, Status

UNRELATED_PARAMS = frozenset({"epochs", "tol", "verbose", "checkpoint_every", "random_state", "select", "mesh"})
"""Parameters left out of a checkpoint's configuration: no training step depends on them, or checkpoints store their
effect in another way."""


EXAMPLES = 8
"""Rows of a cluster or prototype that a report shows: the nearest ones, or new ones that the model draws."""


@dataclass(eq=False, repr=False)
class NetworkEstimator(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, TrainedNetwork):
    """Base of estimators that train a network and cluster by it. Samples are scaled first.

    Args:
        n_clusters: number of clusters.
        scaling: "auto", "standard", "minmax", "l2" or "none".
        select: "stable" compares the labels of the network with those of k-means or a Gaussian mixture on the scaled
            samples, the start. The start is kept unless the network raises both the agreement of neighbors and the
            stability under a second training on a resample, which is only made if the first one rises. Images, samples
            of 64 or more features in one unit, more than 20,000 samples, and fits with known classes keep the labels
            of the network. "trained" always keeps these.
        epochs: maximum number of epochs.
        batch_size: samples per step; "auto" is 256, or n_samples if that is less.
        learning_rate: learning rate of Adam, or an optax schedule, a function from steps to rates.
        optimizer: optax gradient transformation in place of Adam; see `jaxcluster.deep.train`.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        order: None, or "canonical" to fit the samples sorted by value: permuted samples then have the same labels.
        precision: None for float32, "fast" for bfloat16 in the matrix products of the networks.
        verbose: 1 for a progress bar.
        checkpoint_every: epochs between checkpoints, in the folder that `fit` is given.
        mesh: devices that share the samples of each batch, such as ``jaxcluster.sharding.row_mesh()``; None for one
            device. ``batch_size="auto"`` is then a multiple of their number. Checkpoints may be resumed on others.

    Attributes:
        labels_: (n_samples,) int32.
        chosen_: "trained" if the labels are the network's, "start" if they are those of k-means or a mixture. `predict`
            and `predict_proba` then are the start's too, and ``cluster_centers_`` the mean codes of its clusters, which
            have the numbers of the network's clusters that they overlap most with.
        history_: (n_iter_,) loss of each epoch of the last phase.
        epoch_history_: one dictionary per epoch of all phases, with all metrics of the training.
        snapshots_: codes of some samples during the training, for plots: "rows" holds the indices of the samples, other
            keys name phase and epoch.
        n_iter_: epochs of the last phase.
        status_: `jaxcluster.types.Status` of the training, EMPTY_CLUSTERS if some clusters have no samples. If it is
            NOT_FINITE, ``failed_step_`` is the step, and the network is the last one with finite codes.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    info = TrainedNetwork.info._replace(
        clusters="n_clusters",
        steps="epochs",
        reported=("n_iter_",),
        objective="loss",
        choices={"scaling": SCALING_CHOICES, "select": SELECT, "precision": ("none", "fast")},
    )

    _required_attributes = ("labels_", "cluster_centers_", "scaling_", "_weights")

    n_clusters: int = 8
    _: KW_ONLY
    scaling: str = "auto"
    select: str = "stable"
    epochs: int | Absent = 100
    batch_size: int | str = "auto"
    learning_rate: Any = 1e-3
    optimizer: Any = None
    random_state: Any = None
    order: str | None = None
    precision: str | None = None
    verbose: int = 0
    checkpoint_every: int = 10
    mesh: Any = None

    ENDINGS: ClassVar[Mapping[Status, str]] = ENDINGS | {Status.MAX_STEPS: "all epochs done"}

    EMBEDDING_METHOD: ClassVar[str] = "features"
    """Method of the module that gives the embedding of samples, for `transform` and the snapshots."""

    BATCH_SIZE: ClassVar[int] = DEFAULT_BATCH_SIZE
    """Samples in a batch by ``batch_size="auto"``, where there are as many."""

    _simple_start = None
    """The `jaxcluster.deep.start.Start` whose labels are kept."""

    # Hooks of the methods.

    sample: ClassVar[Callable[..., Any]]
    """Draw samples, for methods that generate some."""

    def _init_module(self) -> Any:
        """Untrained module of the fitted shape, with ``features`` of samples and ``assign`` of features."""
        raise NotImplementedError

    def _key(self) -> KeyArray:
        """Random key of a fit, the same in all processes of its mesh."""
        return agree_on_key(as_key(self.random_state), self.mesh)

    def _encode_labels(self, y: Any, n: int) -> Array | np.ndarray | None:
        """Known classes of n samples as the module takes them; None for a method that learns from none."""
        return None

    @property
    def _knows_classes(self) -> bool:
        """True in a fit that learns from known classes."""
        return False

    def _centers(self, module: Any) -> Array:
        return module.centers[...]

    def _fit(self, X: np.ndarray, class_codes: Any, run: checks.TrainingRun) -> None:
        """Train on validated samples and on the known classes of `_encode_labels`, and publish."""
        raise NotImplementedError

    # Methods for callers.

    @canonical
    def fit(
        self, X: Any, y: Any = None, *, callbacks: Any = None, checkpoint_dir: Any = None, resume: Any = False
    ) -> NetworkEstimator:
        """Train the network and cluster the samples.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored, unless the method learns from labels.
            callbacks: functions that are called with a `jaxcluster.deep.EpochReport` after every epoch.
            checkpoint_dir: folder for checkpoints and the history as JSON lines; None for neither.
            resume: True to continue from the newest checkpoint there. The result equals that of an uninterrupted run,
                bit for bit.

        Raises:
            ValueError, TypeError: wrong arguments, shapes or values; an encoder whose codes have another dimension; a
                checkpoint that was changed, or is of another configuration.

        Warns:
            ConvergenceWarning: a loss that is not finite, with the step; a collapsed training; empty clusters.
        """
        X = self._validate(X, reset=True)
        rows_of_fit(self, X.shape[0])
        X, y, own = gather_parts(self.mesh, X, y if self.info.takes_classes else None)
        self._check_params(*X.shape)
        run = checks.training_run(callbacks, checkpoint_dir, resume)
        class_codes = self._encode_labels(y, X.shape[0])
        self.epoch_history_, self.failed_step_, self.temperature_ = [], None, 1.0
        self._fit(X, class_codes, run)
        self.labels_ = self.labels_[own]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Label each sample by its most probable cluster, (n_samples,) int32."""
        return np.argmax(self._responsibilities(X), axis=1).astype(np.int32)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute the soft assignment of samples to clusters, (n_samples, n_clusters); rows sum to 1."""
        return np.array(tempered(self._responsibilities(X), self.temperature_))

    def transform(self, X: Any) -> np.ndarray:
        """Compute the code of each sample, (n_samples, latent); for ClusterGAN (n_samples, latent + n_clusters)."""
        module, rows = self._module_and_rows(X)
        return np.array(map_module(module, self.EMBEDDING_METHOD, rows))

    def fit_predict(self, X: Any, y: Any = None, **run: Any) -> np.ndarray:
        """Fit, with arguments of `fit`, and return ``labels_``."""
        return self.fit(X, y, **run).labels_

    @property
    def module_(self) -> Any:
        """A copy of the trained module, in evaluation mode: see `jaxcluster.deep`."""
        check_is_fitted(self)
        # A new module each time: the caller may train or change it without changing the estimator.
        module = with_weights(self._init_module(), self._weights)
        module.eval()
        return module

    def report_parts(self, X: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The training, and what the network makes of the rows."""
        codes, rows = self.transform(X), self.snapshots_["rows"]
        snapshots = {name: each for name, each in self.snapshots_.items() if name != "rows"}
        training = {
            "records": self.epoch_history_,
            "codes": codes,
            "rows": rows,
            "moments": snapshots | {"the end": codes[rows]},
            "endless": getattr(self, "tol", None) is None,
        }
        return {"training": training | self._examples(X, codes)}

    def _examples(self, X: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
        """Mean codes of the clusters, and the rows nearest to each, for the report of a network without a decoder."""
        names = np.unique(self.labels_)
        means = np.stack([codes[self.labels_ == name].mean(axis=0) for name in names])
        # By distance, not by responsibility: in clusters far apart the responsibilities of many rows are all 1.
        order = np.argsort(cdist(codes, means), axis=0, kind="stable")[:EXAMPLES]
        nearest = dict(zip(map(str, names), X[order.T], strict=True))
        return {"centers": means, "nearest": nearest, "nearest_to": "cluster's mean code"}

    def _generated(self) -> np.ndarray:
        """(n_clusters, n_examples, n_features) new rows of each cluster, of a model that has ``sample``."""
        return np.stack([self.sample(EXAMPLES, cluster)[0] for cluster in range(self.n_clusters)])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # Steps of a fit.

    def _scale(self, X: np.ndarray) -> tuple[np.ndarray, Scaling]:
        """Scaled samples, and their scaling."""
        return scaled(X, self.scaling)

    def _check_module(self, module: Any, d: int) -> None:
        """Raise ValueError for a network of the caller's that does not suit samples of d features."""

    def _callbacks(self, run: checks.TrainingRun, phase: str, *more: Any, lines: bool = True) -> list[Any]:
        own = [*more, *run.callbacks]
        if self.verbose:
            own.append(ProgressBar(f"{type(self).__name__}: {phase}"))
        if run.folder is not None and lines and writes_files(self.mesh):
            own.append(JsonLines(run.folder / f"{phase}.jsonl"))
        return own

    def _snapshots(self, run: checks.TrainingRun, rows: np.ndarray) -> Snapshots:
        """Callback that records the codes of some samples, and keeps them beside the checkpoints."""
        folder = None if run.folder is None or not writes_files(self.mesh) else run.folder / "snapshots"
        return Snapshots(rows, folder)

    def _checkpoints(self, run: checks.TrainingRun, phase: str, **more: Any) -> Checkpoints | None:
        if run.folder is None:
            return None
        config = {
            name: _describe_param(value)
            for name, value in self.get_params(deep=False).items()
            if name not in UNRELATED_PARAMS
        }
        config |= {"method": type(self).__name__, **more}
        return Checkpoints(run.folder / phase, every=self.checkpoint_every, config=config)

    def _predict_proba(self, module: nnx.Module, z: Float[Array, "n l"]) -> Float[Array, "n k"]:
        return map_module(module, "assign", z)

    def _append_history(self, phase: str, trained: TrainResult) -> None:
        self.epoch_history_ += [{"phase": phase, **record} for record in trained.history]

    def _publish(self, module: Any, trained: TrainResult, phase: str, rows: np.ndarray, snapshots: Snapshots) -> None:
        codes = map_module(module, "features", rows)
        self.labels_ = np.argmax(np.asarray(self._predict_proba(module, codes)), axis=1).astype(np.int32)
        self.cluster_centers_ = np.array(self._centers(module))
        self._select(module, rows, finished(trained.status))
        self._weights = {name: np.array(value) for name, value in weights_of(module).items()}
        self.history_ = np.array([record["loss"] for record in trained.history])
        self.n_iter_ = len(trained.history)
        self.snapshots_ = {"rows": snapshots.rows, **snapshots.codes}
        self.status_, self.failed_step_ = trained.status, trained.failed_step
        # Empty clusters do not hide a status that says more.
        if self.status_ in (Status.CONVERGED, Status.MAX_STEPS) and self._n_empty():
            self.status_ = Status.EMPTY_CLUSTERS
        self._warn_of_status(trained, phase, rows)

    def _select(self, module: Any, rows: np.ndarray, finished: bool) -> None:
        """Keep the labels of the network, or publish those of the start."""
        self._simple_start = start = selected_start(self, rows, self.labels_, finished)
        self.chosen_ = "trained" if start is None else "start"
        if start is None:
            return
        self.labels_ = np.argmax(start.predict_proba(rows), axis=1).astype(np.int32)
        codes = np.asarray(map_module(module, self.EMBEDDING_METHOD, rows))
        means = np.tile(codes.mean(axis=0), (self.n_clusters, 1))
        for label in np.unique(self.labels_):
            means[label] = codes[self.labels_ == label].mean(axis=0)
        self.cluster_centers_ = means
        warn_of_few_rows(self, start, len(rows))

    def _n_empty(self) -> int:
        """Number of clusters without samples."""
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
        """Cause of empty clusters, with a remedy."""
        distinct = len(np.unique(rows, axis=0))
        if distinct < self.n_clusters:
            return f": X has {distinct} distinct rows. Pass n_clusters={distinct} or fewer."
        return " after the training. Pass fewer clusters, another random_state, or more epochs."

    def _collapse_cause(self, phase: str) -> str:
        """Meaning of a collapse of this method, with a remedy."""
        return f"the network tells no rows apart. {self._lower_rate_advice(phase)}, or look whether X varies"

    def _lower_rate_advice(self, phase: str) -> str:
        """Advice for smaller steps in a phase, by the parameter that sets them."""
        if self.optimizer is not None and phase in ("cluster", "train"):
            return "Pass an optimizer with a lower rate, or clip its gradients by optax.clip_by_global_norm"
        if callable(self.learning_rate):
            return "Pass a schedule of lower rates as learning_rate"
        return f"Lower learning_rate={self.learning_rate:g}"

    def _validate(self, X: Any, *, reset: bool) -> Any:
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) in (3, 4):
            raise ValueError(
                f"X has shape {shape}, and rows must be flat: (n_samples, n_features). {checks.flat_images('X', shape)}"
            )
        return super()._validate(X, reset=reset)

    def _responsibilities(self, X: Any) -> Any:
        """Soft assignment of samples, not calibrated."""
        if self._simple_start is not None:
            check_is_fitted(self)
            return self._simple_start.predict_proba(rescaled(self._validate(X, reset=False), self.scaling_))
        module, rows = self._module_and_rows(X)
        return np.asarray(self._predict_proba(module, map_module(module, "features", rows)))

    def _module_and_rows(self, X: Any) -> tuple[Any, np.ndarray]:
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self.module_, rescaled(X, self.scaling_)

    # Checks.

    def _check_attributes(self) -> None:
        super()._check_attributes()
        if not isinstance(self.scaling_, Scaling) or not isinstance(self._weights, dict):
            raise ValueError("scaling_ or the weights of the network are not those of a fit.")
        self.scaling_.check(self.n_features_in_)
        check_temperature(self.temperature_)
        check_weights(self._init_module, self._weights)
        check_start(self._simple_start, self.n_clusters, self.n_features_in_)

    def _batch(self, n: int) -> int:
        return (
            default_batch_size(n, self.mesh, self.BATCH_SIZE) if isinstance(self.batch_size, str) else self.batch_size
        )

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        validation.check_clusters(self.n_clusters, n, name="n_clusters")
        validation.check_choice("scaling", self.scaling, SCALING_CHOICES)
        validation.check_choice("select", self.select, SELECT)
        validation.check_count("checkpoint_every", self.checkpoint_every)
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

    def _check_epochs(self) -> None:
        if self.epochs is None:
            raise TypeError("epochs=None: pass the most epochs that a training may have; tol may end it earlier.")
        validation.check_count("epochs", self.epochs)

    def _rate(self) -> Any:
        """Learning rate as `jaxcluster.deep.adam` takes it."""
        return check_rate("learning_rate", self.learning_rate)


@dataclass(eq=False, repr=False)
class DeepEstimator(NetworkEstimator):
    """Base of estimators that cluster the codes (latent vectors) of a network. Samples are scaled first.

    Args:
        n_clusters, scaling, …: see `NetworkEstimator`.
        hidden: widths of the network's hidden layers.
        latent: dimension of the codes.
        encoder: any `nnx.Module` from scaled samples to codes, in place of the method's own network. It is not changed.
            A model with one of your own is saved if it has ``get_config()``; see `jaxcluster.load`.
        image_shape: (height, width) or (height, width, channels) of samples that are flat images, for convolutional
            networks in place of dense ones.

    Attributes:
        cluster_centers_: (n_clusters, latent), in the space of the codes.
        labels_, history_, epoch_history_, snapshots_, n_iter_, status_: see `NetworkEstimator`.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (256, 256, 512)
    latent: int = 10
    encoder: Any = None
    image_shape: Sequence[int] | None = None

    @property
    def _n_features_out(self):
        return self.latent

    def _scale(self, X: np.ndarray) -> tuple[np.ndarray, Scaling]:
        return scaled(X, self.scaling, images=self.image_shape is not None)

    def _check_module(self, module: Any, d: int) -> None:
        # Abstract evaluation: wrong shapes are reported before anything is computed.
        self._check_width(checks.output_shape("encoder", eval_copy(module).features, d))

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        checks.check_widths("hidden", self.hidden)
        validation.check_count("latent", self.latent)
        checks.check_network("encoder", self.encoder)
        if self.image_shape is not None:
            checks.check_image_shape(self.image_shape, d)

    def _check_width(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless the encoder maps one sample to a code of shape (1, latent)."""
        if tuple(shape) != (1, self.latent):
            advice = f"Pass latent={shape[1]}, or another encoder" if len(shape) == 2 else "Pass another encoder"
            raise ValueError(
                f"the encoder gives codes of shape {tuple(shape)} for one row, but latent={self.latent} asks for "
                f"(1, {self.latent}). {advice}."
            )


def _describe_param(value: Any) -> Any:
    """Description of a parameter that is the same in every process, for the configuration of checkpoints."""
    if isinstance(value, optax.GradientTransformation):  # the repr of its functions has addresses of this process
        return "an optimizer of the caller's"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, list, tuple)):
        return value
    plain = value is None or dataclasses.is_dataclass(value)
    # A function is described by its qualified name, a module by its class: their reprs hold addresses too.
    return repr(value) if plain else f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"

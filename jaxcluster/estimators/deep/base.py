"""What all deep estimators share: networks, pretraining, training, and the use of what was trained."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from jaxcluster.cluster import kmeans
from jaxcluster.core import check
from jaxcluster.core.checkpoint import Checkpoints
from jaxcluster.deep import nets
from jaxcluster.deep.autoencoder import LIKELIHOODS, Autoencoder, check_likelihood, code_of
from jaxcluster.deep.callbacks import JsonLines, ProgressBar, Snapshots
from jaxcluster.deep.stacked import pretrain_layers
from jaxcluster.deep.trainer import Trained, adam, train
from jaxcluster.deep.use import map_module, weights_of, with_weights
from jaxcluster.deep.views import Masking, ShiftRotate
from jaxcluster.estimators.base import Estimator, as_key
from jaxcluster.estimators.deep.rows import scaled
from jaxcluster.types import Array, Float, KeyArray, Status

PRETRAINING = ("end-to-end", "stacked")
PRETRAIN_STEPS = 2_000
"""Of the autoencoder, at least, unless ``pretrain_epochs`` says otherwise; and passes over the rows, at least:"""
PRETRAIN_PASSES = 30
UPDATE_STEPS = 30
"""The fewest steps from one look at all rows to the next, unless ``update_interval`` says otherwise."""


@dataclass(eq=False, repr=False)
class DeepClusterer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Estimator):
    """A clustering of the codes that a network gives the rows.

    An autoencoder is trained first; k-means finds clusters among its codes; then network and clusters are trained
    together, as each method has it. Rows are scaled first, so that they need not be.

    Args:
        n_clusters: number of clusters.
        hidden: widths of the encoder's hidden layers; the decoder mirrors them. The papers have (500, 500, 2000), for
            ten times the time.
        latent: width of the code.
        encoder, decoder: any `nnx.Module` from (n, d) rows to (n, latent) codes, and from codes to rows, in place of
            dense layers. They are not changed. A model with its own cannot be saved.
        image_shape: (height, width) or (height, width, channels) of rows that are flat images: convolutional networks
            in place of dense ones, and what ``augment=True`` needs.
        likelihood: of a row given its code: "gaussian" (squared error), or "bernoulli" (cross-entropy) for values in
            [0, 1].
        scaling: "auto" (columns of deviation 1, but for those that hardly vary; nothing with "bernoulli"), "standard",
            "minmax", "l2" or "none".
        noise: share of entries that pretraining sets to 0 in what it encodes; 0 for a plain autoencoder.
        augment: True for random shifts and rotations of images in all phases, or any view of rows (see
            `jaxcluster.deep.views`); False for rows as they are.
        pretrain: "end-to-end", or "stacked": layer by layer first.
        pretrain_epochs: passes over the rows; None for at least 2,000 steps and 30 passes. 0 to take the networks as
            they were passed.
        epochs: the most epochs of the second phase: each is ``update_interval`` steps.
        update_interval: steps from one look at all rows to the next; None for one pass over them, and at least 30.
        batch_size: rows a step; "auto" is 256, or all where there are fewer.
        learning_rate: of Adam.
        optimizer: any gradient transformation of optax for the second phase, in place of Adam.
        tol: stop when the share of rows that change their cluster between epochs is no more; None for never.
        n_init: starts of k-means.
        random_state: None for fresh entropy, an int, a NumPy RandomState, or a JAX key.
        precision: None for float32, "fast" for bfloat16 in the networks' products.
        verbose: 1 for a progress bar.
        callbacks: called with a `jaxcluster.deep.Report` after every epoch of either phase.
        checkpoint_dir: a folder for checkpoints and ``history.jsonl``; None for none.
        checkpoint_every: epochs from one checkpoint to the next.
        resume: whether to go on from the newest checkpoint there: what comes out is, bit for bit, what a run that was
            never cut short gives.

    Attributes:
        labels_: (n_samples,) int32.
        cluster_centers_: (n_clusters, latent), among the codes.
        history_: (n_iter_,) loss of each epoch of the last phase.
        records_: all that was followed, a dictionary an epoch, of all phases.
        snapshots_: codes of some rows through the training, for pictures: "rows" are their numbers, the others go by
            phase and epoch.
        n_iter_: epochs of the last phase.
        status_: a `jaxcluster.types.Status`, how the training ended; of one that failed, ``failed_step_`` is the step.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    n_clusters: int = 8
    _: KW_ONLY
    hidden: Sequence[int] = (256, 256, 512)
    latent: int = 10
    encoder: Any = None
    decoder: Any = None
    image_shape: Sequence[int] | None = None
    likelihood: str = "gaussian"
    scaling: str = "auto"
    noise: float = 0.2
    augment: Any = False
    pretrain: str = "end-to-end"
    pretrain_epochs: int | None = None
    epochs: int = 100
    update_interval: int | None = None
    batch_size: int | str = "auto"
    learning_rate: float = 1e-3
    optimizer: optax.GradientTransformation | None = None
    tol: float | None = 1e-3
    n_init: int = 20
    random_state: Any = None
    precision: str | None = None
    verbose: int = 0
    callbacks: Sequence[Callable[..., Any]] | None = None
    checkpoint_dir: str | os.PathLike | None = None
    checkpoint_every: int = 10
    resume: bool = False

    # What each method has of its own.

    def _start(
        self, key: KeyArray, z: Float[Array, "n l"], autoencoder: Autoencoder, rows: np.ndarray
    ) -> dict[str, Any]:
        """What clusters begin with, from the codes of all rows: what `_make` takes."""
        return {"centers": self._kmeans(key, z).state.centers}

    def _make(self, autoencoder: Autoencoder, start: dict[str, Array]) -> nnx.Module:
        """The module of the second phase: with ``features``, ``assign`` and, if there is such a phase, ``loss``."""
        raise NotImplementedError

    def _centers(self, module: nnx.Module) -> Array:
        return module.centers[...]

    # The whole.

    def fit(self, X, y=None):
        """Trains the network and clusters the rows.

        Args:
            X: (n_samples, n_features) array-like or DataFrame; sparse matrices are refused.
            y: ignored.

        Raises:
            ValueError, TypeError: wrong parameters, shapes or values; an encoder whose codes have another width; a
                checkpoint that was changed, or is of another configuration.

        Warns:
            ConvergenceWarning: a loss that is not finite, with the step, or clusters without rows.
        """
        X = self._validate(X, reset=True)
        self._check_params(X.shape[0])
        rows, self.scaling_ = scaled(X, self.scaling, self.likelihood)
        check_likelihood(self.likelihood, rows)
        net_key, pretrain_key, start_key, train_key = jax.random.split(as_key(self.random_state), 4)
        autoencoder = self._networks(nnx.Rngs(net_key), rows.shape[1])
        self._check_networks(autoencoder, rows)
        self.records_, self.failed_step_ = [], None
        snapshots = Snapshots(rows)
        autoencoder, endings = self._pretrain(pretrain_key, autoencoder, rows, snapshots)
        codes = map_module(autoencoder, "encode", rows)
        self._check_codes(codes, endings)
        self._began = self._start(start_key, codes, autoencoder, rows)
        module = self._make(autoencoder, self._began)
        if all(ending.status != Status.NOT_FINITE for ending in endings):
            module, ending = self._train(train_key, module, rows, snapshots, endings)
        else:
            ending = endings[-1]
        self._publish(module, ending, rows, snapshots)
        return self

    def predict(self, X):
        """The cluster of each row, (n_samples,) int32: that with the greatest share."""
        return np.argmax(self.predict_proba(X), axis=1).astype(np.int32)

    def predict_proba(self, X):
        """The share of each cluster in each row, (n_samples, n_clusters); rows sum to 1."""
        module, rows = self._with_rows(X)
        return np.array(self._shares(module, map_module(module, "features", rows)))

    def transform(self, X):
        """The code of each row, (n_samples, latent)."""
        module, rows = self._with_rows(X)
        return np.array(map_module(module, "features", rows))

    def reconstruct(self, X):
        """What comes back of each row through its code, (n_samples, n_features), in the units of X."""
        module, rows = self._with_rows(X)
        return self.scaling_.undo(np.asarray(map_module(module.autoencoder, "reconstruct", rows)))

    def fit_predict(self, X, y=None):
        """Fits, and returns ``labels_``."""
        return self.fit(X).labels_

    @property
    def module_(self) -> nnx.Module:
        """The trained module, a copy: see `jaxcluster.deep`."""
        check_is_fitted(self)

        def blank():
            return self._make(self._networks(nnx.Rngs(0), self.n_features_in_), self._began)

        return with_weights(blank(), self._weights)

    @property
    def _n_features_out(self):
        return self.latent

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # Parts of the whole.

    def _networks(self, rngs: nnx.Rngs, d: int) -> Autoencoder:
        """Untrained networks for d columns."""
        encoder, decoder = self.encoder, self.decoder
        encoder = self._own_encoder(rngs, d) if encoder is None else nnx.clone(encoder)
        if decoder is not None:
            decoder = nnx.clone(decoder)
        elif self.image_shape is not None:
            decoder = nets.ConvDecoder(self.latent, self.image_shape, rngs=rngs)
        else:
            decoder = nets.MLP(nets.mirror((d, *self.hidden, self.latent)), rngs=rngs)
        noise = Masking(self.noise) if self.noise else None
        return Autoencoder(encoder, decoder, likelihood=self.likelihood, noise=noise, augment=self._view())

    def _own_encoder(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        if self.image_shape is not None:
            return nets.ConvEncoder(self.image_shape, self.latent, rngs=rngs)
        return nets.MLP((d, *self.hidden, self.latent), rngs=rngs)

    def _view(self):
        if isinstance(self.augment, bool):
            return ShiftRotate(tuple(self.image_shape)) if self.augment else None
        return self.augment

    def _pretrain(self, key, autoencoder, rows, snapshots) -> tuple[Autoencoder, list[Trained]]:
        """The trained autoencoder, and how its training ended, phase by phase."""
        batch = self._batch(len(rows))
        passes = max(PRETRAIN_PASSES, -(-PRETRAIN_STEPS // (len(rows) // batch)))
        epochs = passes if self.pretrain_epochs is None else self.pretrain_epochs
        if epochs == 0:
            return autoencoder, []
        layers_key, whole_key = jax.random.split(key)
        options = {"epochs": epochs, "batch_size": batch, "precision": self.precision, "resume": self.resume}
        endings = []
        if self.pretrain == "stacked":
            autoencoder, endings = pretrain_layers(
                layers_key,
                autoencoder,
                rows,
                noise=autoencoder.noise,
                optimizer=adam(self.learning_rate),
                callbacks=self._callbacks("layers", lines=False),
                checkpoints=self._checkpoints("layers"),
                **options,
            )
            for i, ending in enumerate(endings):
                self._record(f"layer-{i}", ending)
        ending = train(
            whole_key,
            autoencoder,
            rows,
            optimizer=adam(self.learning_rate, decay_steps=epochs * (len(rows) // batch)),
            callbacks=self._callbacks("pretrain", snapshots.of("pretrain", "encode")),
            checkpoints=self._checkpoints("pretrain"),
            **options,
        )
        self._record("pretrain", ending)
        return ending.module, [*endings, ending]

    def _train(self, key, module, rows, snapshots, endings) -> tuple[nnx.Module, Trained]:
        """The module after the second phase."""
        batch = self._batch(len(rows))
        interval = max(UPDATE_STEPS, len(rows) // batch) if self.update_interval is None else self.update_interval
        ending = train(
            key,
            module,
            rows,
            epochs=self.epochs,
            optimizer=adam(self.learning_rate) if self.optimizer is None else self.optimizer,
            batch_size=batch,
            steps_per_epoch=interval,
            tol=self.tol,
            precision=self.precision,
            callbacks=self._callbacks("cluster", snapshots.of("cluster", "features")),
            checkpoints=self._checkpoints("cluster"),
            resume=self.resume,
        )
        self._record("cluster", ending)
        return ending.module, ending

    def _callbacks(self, phase: str, *more: Any, lines: bool = True) -> list[Any]:
        own = [*more, *(self.callbacks or ())]
        if self.verbose:
            own.append(ProgressBar(f"{type(self).__name__}: {phase}"))
        if self.checkpoint_dir is not None and lines:
            own.append(JsonLines(Path(self.checkpoint_dir) / f"{phase}.jsonl"))
        return own

    def _checkpoints(self, phase: str) -> Checkpoints | None:
        if self.checkpoint_dir is None:
            return None
        idle = {"epochs", "tol", "verbose", "callbacks", "checkpoint_dir", "checkpoint_every", "resume", "random_state"}
        config = {name: _described(value) for name, value in self.get_params(deep=False).items() if name not in idle}
        folder = Path(self.checkpoint_dir) / phase
        return Checkpoints(folder, every=self.checkpoint_every, config={"method": type(self).__name__, **config})

    def _kmeans(self, key, z):
        return kmeans.fit(key, z, self.n_clusters, n_init=self.n_init)

    def _shares(self, module, z):
        return map_module(module, "assign", z)

    def _record(self, phase, ending):
        self.records_ += [{"phase": phase, **record} for record in ending.history]

    def _publish(self, module, ending: Trained, rows, snapshots) -> None:
        codes = map_module(module, "features", rows)
        self.labels_ = np.argmax(np.asarray(self._shares(module, codes)), axis=1).astype(np.int32)
        self.cluster_centers_ = np.array(self._centers(module))
        self._weights = {name: np.array(value) for name, value in weights_of(module).items()}
        self._began = {name: np.array(value) for name, value in self._began.items()}
        self.history_ = np.array([record["loss"] for record in ending.history])
        self.n_iter_ = len(ending.history)
        self.snapshots_ = {"rows": snapshots.rows, **snapshots.taken}
        self.status_, self.failed_step_ = ending.status, ending.failed_step
        self._warn_unless_sound(ending)

    def _warn_unless_sound(self, ending):
        found = np.unique(self.labels_).size
        if self.status_ == Status.NOT_FINITE:
            phase = self.records_[-1]["phase"]
            message = (
                f"{type(self).__name__}: the loss was not finite at step {self.failed_step_} of {phase}; the network "
                f"is that before it. Lower learning_rate={self.learning_rate}, or look for extreme values in X."
            )
        elif found < self.n_clusters:
            message = (
                f"{type(self).__name__}: {self.n_clusters - found} of {self.n_clusters} clusters have no rows. Pass "
                "fewer clusters, or drop duplicates from X."
            )
        else:
            return
        warnings.warn(message, ConvergenceWarning, stacklevel=4)

    def _with_rows(self, X):
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return self.module_, self.scaling_.apply(X)

    def _check_codes(self, codes, endings):
        """Raises where pretraining left nothing to go on with."""
        if np.isfinite(np.asarray(codes)).all():
            return
        step = (endings[-1].failed_step or endings[-1].steps) if endings else 0
        raise ValueError(
            f"{type(self).__name__}: the codes of X are not finite after step {step} of pretraining. Lower "
            f"learning_rate={self.learning_rate}, or look for extreme values in X."
        )

    def _batch(self, n: int) -> int:
        return min(256, n) if self.batch_size == "auto" else self.batch_size

    def _check_params(self, n: int) -> None:
        """Raises on parameters that cannot be, for n rows."""
        check.check_clusters(self.n_clusters, n, name="n_clusters")
        check.check_choice("pretrain", self.pretrain, PRETRAINING)
        check.check_choice("likelihood", self.likelihood, LIKELIHOODS)
        for name in ("latent", "epochs", "n_init", "checkpoint_every"):
            check.check_count(name, getattr(self, name))
        if self.pretrain_epochs != 0 and self.pretrain_epochs is not None:
            check.check_count("pretrain_epochs", self.pretrain_epochs)
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise={self.noise} must be in [0, 1): it is the share of entries that are set to 0.")
        check.check_positive("learning_rate", self.learning_rate)
        if self.tol is not None:
            check.check_positive("tol", self.tol, zero=True)
        if isinstance(self.batch_size, str):
            check.check_choice("batch_size", self.batch_size, ("auto",))
        elif check.check_count("batch_size", self.batch_size) > n:
            raise ValueError(f"batch_size={self.batch_size} is more than n_samples={n}. Pass at most {n}, or 'auto'.")
        if self.augment is True and self.image_shape is None:
            raise ValueError("augment=True shifts and turns images: pass image_shape=(height, width) of the rows too.")

    def _check_networks(self, autoencoder: Autoencoder, rows: np.ndarray) -> None:
        """Raises where codes or what comes back of them have another width than they must."""
        one = jax.ShapeDtypeStruct((1, rows.shape[1]), np.float32)
        if self.image_shape is not None and np.prod(self.image_shape) != rows.shape[1]:
            raise ValueError(
                f"image_shape={tuple(self.image_shape)} makes {np.prod(self.image_shape)} values an image, but X has "
                f"{rows.shape[1]} columns."
            )
        code = jax.eval_shape(lambda x: code_of(autoencoder.encoder(x)), one)
        if code.shape != (1, self.latent):
            raise ValueError(
                f"the encoder gives codes of shape {code.shape} for one row, but latent={self.latent} asks for "
                f"(1, {self.latent}). Pass latent={code.shape[-1]}, or another encoder."
            )
        back = jax.eval_shape(lambda z: autoencoder.decoder(z), code)
        if back.shape != one.shape:
            raise ValueError(f"the decoder gives rows of shape {back.shape}, but X has {rows.shape[1]} columns.")


def _described(value: Any) -> Any:
    """A parameter in words that are the same in every process."""
    if isinstance(value, (bool, int, float, str, list, tuple)):
        return value
    plain = value is None or dataclasses.is_dataclass(value)
    return repr(value) if plain else type(value).__name__

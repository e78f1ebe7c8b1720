"""Base classes of methods that train a network in one phase, with no autoencoder before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.optimizers import adam
from jaxcluster.deep.trainer import train
from jaxcluster.deep.views import Views, image_views, table_views
from jaxcluster.estimators.deep.base import DeepEstimator, NetworkEstimator
from jaxcluster.estimators.deep.checks import check_view

if TYPE_CHECKING:
    import numpy as np


@dataclass(eq=False, repr=False)
class SinglePhaseEstimator(NetworkEstimator):
    """Base of estimators that train a network in one phase.

    Args:
        n_clusters, batch_size, …: see `NetworkEstimator`.
        scaling: "auto" (see `jaxcluster.estimators.deep.scaling.scaled`; images, with ``image_shape``, to [0, 1] by one
            range), "standard", "minmax", "l2" or "none".
        epochs: number of epochs, each of at least one pass over the samples; None for a minimum of epochs and steps
            that depends on the method. The learning rate decays over all epochs, so a resumed run must have the same
            number.
        learning_rate: learning rate of Adam, which decays by a cosine to a hundredth; or an optax schedule, used as it
            is.
    """

    _: KW_ONLY
    epochs: int | None = None

    MIN_STEPS: ClassVar[int] = 2_000
    """Minimum number of steps, unless ``epochs`` is set."""

    MIN_EPOCHS: ClassVar[int] = 30
    """Minimum number of epochs, unless ``epochs`` is set."""

    MIN_EPOCH_STEPS: ClassVar[int] = 1
    """Minimum number of steps per epoch: for few samples an epoch is several passes over them."""

    # Hooks of the methods.

    def _make(self, rngs: nnx.Rngs, d: int) -> Any:
        """Untrained `ClusteringModule` for d features, with ``features`` and ``assign``."""
        raise NotImplementedError

    def _make_for_training(self, rngs: nnx.Rngs, rows: np.ndarray) -> Any:
        """The module of `_make`, with what it learns from besides the samples of a batch."""
        return self._make(rngs, rows.shape[1])

    # The fit.

    def _fit(self, X, class_codes, run):
        rows, self.scaling_ = self._scale(X)
        net_key, train_key = jax.random.split(self._key())
        module = self._make_for_training(nnx.Rngs(net_key), rows)
        self._check_module(module, rows.shape[1])
        snapshots, batch = self._snapshots(run, rows), self._batch(len(rows))
        steps = self._steps_per_epoch(len(rows), batch)
        epochs = self._epochs(len(rows), batch)
        # The decay is part of the checkpoints' configuration: a resumed run with more epochs would be another run.
        decay = self._decay(epochs * steps)
        trained = train(
            train_key,
            module,
            rows,
            y=class_codes,
            epochs=epochs,
            optimizer=self._optimizer(decay),
            batch_size=batch,
            steps_per_epoch=steps,
            precision=self.precision,
            callbacks=self._callbacks(run, "train", snapshots.for_phase("train", self.EMBEDDING_METHOD)),
            checkpoints=self._checkpoints(run, "train", decay_steps=decay),
            resume=run.resume,
            mesh=self.mesh,
        )
        self._append_history("train", trained)
        self._publish(trained.module, trained, "train", rows, snapshots)

    def _init_module(self) -> Any:
        return self._make(nnx.Rngs(0), self.n_features_in_)

    def _decay(self, steps: int) -> int | None:
        """Number of steps of the decay of the learning rate; None for a constant rate or the caller's optimizer."""
        return steps if self.optimizer is None and not callable(self.learning_rate) else None

    def _optimizer(self, decay: int | None) -> Any:
        return adam(self._rate(), decay_steps=decay) if self.optimizer is None else self.optimizer

    def _check_epochs(self) -> None:
        if self.epochs is not None:
            super()._check_epochs()

    def _epochs(self, n: int, batch: int) -> int:
        """Number of epochs for n samples in batches of this size."""
        if self.epochs is not None:
            return self.epochs
        return max(self.MIN_EPOCHS, -(-self.MIN_STEPS // self._steps_per_epoch(n, batch)))

    def _steps_per_epoch(self, n: int, batch: int) -> int:
        return max(self.MIN_EPOCH_STEPS, n // batch)


SWAP_RATE = 0.3
"""Fraction of the entries that augmentations of tables swap between samples, for 15 features or more."""

SWAP_RATE_PER_COLUMN = 0.02
"""The same fraction per feature, for fewer features: of few features each may be the one that separates clusters."""

CONV_CHANNELS = (32, 64, 128)
"""Channels of the convolutions. Each halves height and width, and as many are used as leave at least 2 pixels."""


@dataclass(eq=False, repr=False)
class AugmentationEstimator(SinglePhaseEstimator, DeepEstimator):
    """Base of estimators whose network learns from random augmentations (views) of the samples.

    Args:
        n_clusters, epochs, …: see `SinglePhaseEstimator`; image_shape: see `DeepEstimator`.
        hidden: widths of the hidden layers of the dense network.
        latent: dimension of the features.
        encoder: network from samples to (n, latent) features, in place of dense layers or, with ``image_shape``, of
            convolutions.
        views: function from a key and scaled samples to one augmented view or a tuple of views, such as a
            `jaxcluster.deep.views.MultiCrop`. "auto": `jaxcluster.deep.views.image_views` with an ``image_shape``, else
            `table_views`, which swap fewer entries the fewer features there are. None for no augmentation. A model with
            a function of a module of yours, or a dataclass, is saved; see `jaxcluster.load`.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (256, 256)
    latent: int = 64
    views: Any = "auto"

    DEFAULT_CROPS: ClassVar[tuple[int, int]] = (2, 0)
    """Numbers of large and small views per sample for "auto", unless the method has a parameter ``crops``."""

    def _network(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        """The encoder that was passed, or one for d features."""
        if self.encoder is not None:
            return nnx.clone(self.encoder)
        if self.image_shape is None:
            return nets.Projector((d, *self.hidden, self.latent), rngs=rngs)
        # ⌊log₂(shorter side / 2)⌋ halvings leave at least 2 pixels.
        halvings = max(1, (min(nets.as_image_shape(self.image_shape)[:2]) // 2).bit_length() - 1)
        return nets.ConvNet(self.image_shape, self.latent, channels=CONV_CHANNELS[:halvings], rngs=rngs)

    def _views(self, d: int) -> Views | None:
        """Augmentation of samples of d features."""
        if not isinstance(self.views, str):
            return self.views
        crops = tuple(getattr(self, "crops", self.DEFAULT_CROPS))
        if self.image_shape is None:
            return table_views(rate=min(SWAP_RATE, SWAP_RATE_PER_COLUMN * d), crops=crops)
        return image_views(self.image_shape, crops=crops)

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        if isinstance(self.views, str):
            validation.check_choice("views", self.views, ("auto",))
        elif self.views is not None:
            check_view("views", self.views, "'auto', None")

"""Base classes of methods that train a network in one phase, with no autoencoder before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.autoencoder import View
from jaxcluster.deep.inference import eval_copy
from jaxcluster.deep.optimizers import adam
from jaxcluster.deep.trainer import train
from jaxcluster.deep.views import image_views, table_views
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.deep.base import DeepEstimator
from jaxcluster.estimators.deep.scaling import scaled


@dataclass(eq=False, repr=False)
class SinglePhaseEstimator(DeepEstimator):
    """A clustering of the codes of a network that is trained in one phase.

    Args:
        n_clusters, hidden, …: see `jaxcluster.estimators.deep.base.DeepEstimator`.
        scaling: "auto": columns of deviation 1, but for those that hardly vary; images, with ``image_shape``, from 0 to
            1, all pixels alike.
        epochs: passes over the rows, or of few rows several; None for enough of them, and of steps: what is enough
            depends on the method. The rate falls over all of them, so a run that goes on from a checkpoint has the same
            number.
        learning_rate: of Adam, along a cosine to a hundredth of it; or a schedule of optax, taken as it is.
    """

    _: KW_ONLY
    epochs: int | None = None

    MIN_STEPS: ClassVar[int] = 2_000
    """The fewest steps, and epochs, unless ``epochs`` says otherwise."""
    MIN_EPOCHS: ClassVar[int] = 30
    MIN_EPOCH_STEPS: ClassVar[int] = 1
    """The fewest steps from one look at all rows to the next: an epoch of few rows is more than a pass over them."""

    # What each method has of its own.

    def _make(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        """Untrained `ClusteringModule` for d features, with ``features`` and ``assign``."""
        raise NotImplementedError

    # The whole.

    def _fit(self, X, class_codes):
        rows, self.scaling_ = scaled(X, self.scaling, images=self.image_shape is not None)
        net_key, train_key = jax.random.split(as_key(self.random_state))
        module = self._make(nnx.Rngs(net_key), rows.shape[1])
        one = jax.ShapeDtypeStruct((1, rows.shape[1]), np.float32)
        self._check_width(jax.eval_shape(eval_copy(module).features, one).shape)
        snapshots, batch = self._snapshots(rows), self._batch(len(rows))
        steps = self._steps_per_epoch(len(rows), batch)
        epochs = max(self.MIN_EPOCHS, -(-self.MIN_STEPS // steps)) if self.epochs is None else self.epochs
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
            callbacks=self._callbacks("train", snapshots.for_phase("train", "features")),
            checkpoints=self._checkpoints("train", decay_steps=decay),
            resume=self.resume,
        )
        self._append_history("train", trained)
        self._publish(trained.module, trained, "train", rows, snapshots)

    def _init_module(self) -> nnx.Module:
        return self._make(nnx.Rngs(0), self.n_features_in_)

    def _decay(self, steps: int) -> int | None:
        """In how many of all steps the rate falls; None for a rate that stays, or an optimizer of the caller's."""
        return steps if self.optimizer is None and not callable(self.learning_rate) else None

    def _optimizer(self, decay: int | None) -> Any:
        return adam(self._rate(), decay_steps=decay) if self.optimizer is None else self.optimizer

    def _check_epochs(self) -> None:
        if self.epochs is not None:
            super()._check_epochs()

    def _steps_per_epoch(self, n: int, batch: int) -> int:
        return max(self.MIN_EPOCH_STEPS, n // batch)


SWAP_RATE, SWAP_RATE_PER_COLUMN = 0.3, 0.02
"""The share of entries that views of tables swap: the first, or the second for each column, where columns are few: then
each of them may be what tells a row from others."""

CONV_CHANNELS = (32, 64, 128)
"""Of the convolutions, each of which halves height and width; there are as many as leave images two pixels wide."""


@dataclass(eq=False, repr=False)
class AugmentationEstimator(SinglePhaseEstimator):
    """A clustering by a network that is shown rows in random ways.

    Args:
        n_clusters, epochs, …: see `jaxcluster.estimators.deep.single_phase.SinglePhaseEstimator`.
        hidden: widths of the hidden layers of the network for tables.
        latent: width of the features.
        encoder: rows to features, (n, latent), in place of dense layers or, with ``image_shape``, of convolutions.
        views: called with a key and rows, which are scaled, gives a view of them or a tuple of views, as a
            `jaxcluster.deep.views.MultiCrop` does. "auto": `jaxcluster.deep.views.image_views` where there is an
            ``image_shape``, else `table_views`, which swap less the fewer columns there are. None for rows as they are.
            A model with its own cannot be saved.
    """

    _: KW_ONLY
    hidden: Sequence[int] = (256, 256)
    latent: int = 64
    views: Any = "auto"

    DEFAULT_CROPS: ClassVar[tuple[int, int]] = (2, 0)
    """Large and small views of each row that "auto" stands for, unless the method has a parameter for it."""

    def _network(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        """The encoder that was passed, or one for d columns."""
        if self.encoder is not None:
            return nnx.clone(self.encoder)
        if self.image_shape is None:
            return nets.Projector((d, *self.hidden, self.latent), rngs=rngs)
        halvings = max(1, (min(nets.as_image_shape(self.image_shape)[:2]) // 2).bit_length() - 1)
        return nets.ConvNet(self.image_shape, self.latent, channels=CONV_CHANNELS[:halvings], rngs=rngs)

    def _views(self, d: int) -> View | None:
        """The views of rows of d columns."""
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
        elif self.views is not None and not callable(self.views):
            raise TypeError(f"views={self.views!r} must be 'auto', None, or called with a key and rows.")

"""What methods share that learn from random views of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from flax import nnx

from jaxcluster.core import check
from jaxcluster.deep import nets
from jaxcluster.deep.autoencoder import View
from jaxcluster.deep.views import image_views, table_views
from jaxcluster.estimators.deep.one_phase import OnePhase

SWAPPED, SWAPPED_A_COLUMN = 0.3, 0.02
"""The share of entries that views of tables swap: the first, or the second for each column, where columns are few: then
each of them may be what tells a row from others."""

CHANNELS = (32, 64, 128)
"""Of the convolutions, each of which halves height and width; there are as many as leave images two pixels wide."""


@dataclass(eq=False, repr=False)
class ViewLearner(OnePhase):
    """A clustering by a network that is shown rows in random ways.

    Args:
        n_clusters, epochs, …: see `jaxcluster.estimators.deep.one_phase.OnePhase`.
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

    CROPS: ClassVar[tuple[int, int]] = (2, 0)
    """Large and small views of each row that "auto" stands for, unless the method has a parameter for it."""

    def _network(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        """The encoder that was passed, or one for d columns."""
        if self.encoder is not None:
            return nnx.clone(self.encoder)
        if self.image_shape is None:
            return nets.Projector((d, *self.hidden, self.latent), rngs=rngs)
        halvings = max(1, (min(nets.as_image_shape(self.image_shape)[:2]) // 2).bit_length() - 1)
        return nets.ConvNet(self.image_shape, self.latent, channels=CHANNELS[:halvings], rngs=rngs)

    def _views(self, d: int) -> View | None:
        """The views of rows of d columns."""
        if not isinstance(self.views, str):
            return self.views
        crops = tuple(getattr(self, "crops", self.CROPS))
        if self.image_shape is None:
            return table_views(rate=min(SWAPPED, SWAPPED_A_COLUMN * d), crops=crops)
        return image_views(self.image_shape, crops=crops)

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        if isinstance(self.views, str):
            check.check_choice("views", self.views, ("auto",))
        elif self.views is not None and not callable(self.views):
            raise TypeError(f"views={self.views!r} must be 'auto', None, or called with a key and rows.")

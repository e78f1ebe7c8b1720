"""What the trainer asks of a module: a loss of a batch, and, where it needs all rows now and then, a refresh."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxcluster.types import Array, Float, Int, KeyArray


class Batch(NamedTuple):
    """Rows that a step is taken on.

    Attributes:
        x: (b, …) the rows.
        target: what the last `refresh` said of them, row by row; None without one.
        index: (b,) int32 their numbers in the data set.
    """

    x: Float[Array, "b ..."]
    target: Any = None
    index: Int[Array, " b"] | None = None


class Refreshed(NamedTuple):
    """What a look at all rows came to.

    Attributes:
        labels: (n,) int32 the cluster of each row; None for a module without clusters.
        target: a pytree of arrays of n rows, of which `loss` gets its batch's; None if it needs none.
    """

    labels: Int[Array, " n"] | None
    target: Any = None


@runtime_checkable
class Objective(Protocol):
    """An `nnx.Module` that can be trained.

    Its parameters are its `nnx.Param`, or what its attribute ``trainable``, a filter of nnx, selects. Other variables
    change as the module changes them in `loss` and `refresh`.

    A module with ``features`` and ``refresh`` is shown all rows between epochs: ``features(x)`` gives a row an
    embedding, tile by tile, and ``refresh(z, key)`` gets those of all rows and returns a `Refreshed`.
    """

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The scalar to be made small, and others worth following."""
        ...

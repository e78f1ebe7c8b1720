"""What the trainer asks of a module: a loss of a batch, and, where it needs all rows now and then, a refresh."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxcluster.types import Array, Bool, Float, Int, KeyArray


class Batch(NamedTuple):
    """Rows that a step is taken on.

    Attributes:
        x: (b, …) the rows.
        target: what the last `refresh` said of them, row by row; None without one.
        index: (b,) int32 their numbers in the data set.
        y: (b,) what is known of them beforehand, such as their classes; None without.
    """

    x: Float[Array, "b ..."]
    target: Any = None
    index: Int[Array, " b"] | None = None
    y: Any = None


class Refreshed(NamedTuple):
    """What a look at all rows came to.

    Attributes:
        labels: (n,) int32 the cluster of each row; None for a module without clusters.
        target: a pytree of arrays of n rows, of which `loss` gets its batch's; None if it needs none.
        weight: (n,) >= 0, by which rows are drawn for the batches until the next look, with replacement; None for
            passes over all of them.
        collapsed: () whether nothing is left to tell rows apart by; None where that is not looked at.
    """

    labels: Int[Array, " n"] | None
    target: Any = None
    weight: Float[Array, " n"] | None = None
    collapsed: Bool[Array, ""] | None = None


class Turn(NamedTuple):
    """One of the moves that make up a step, for networks that play against each other.

    Attributes:
        name: under which its loss is in the history; that of one turn must be "loss".
        method: of the module, that gives it: as `Objective.loss`.
        parts: names of the parts that move.
        steps: how often, each time on a batch of its own.
    """

    name: str
    method: str
    parts: tuple[str, ...]
    steps: int = 1


@runtime_checkable
class Objective(Protocol):
    """An `nnx.Module` that can be trained.

    Its parameters are its `nnx.Param`, or what its attribute ``trainable``, a filter of nnx, selects. Other variables
    change as the module changes them in `loss` and `refresh`; parameters change in a refresh if they are ``renewed``.

    A module with ``features`` and ``refresh`` is shown all rows between epochs: ``features(x)`` gives a row an
    embedding, tile by tile, and ``refresh(z, key)`` gets those of all rows and returns a `Refreshed`.

    What few modules need:

    - ``trainable`` may be a dictionary of filters, none of which shares a parameter with another: named parts, each
      with an optimizer state of its own.
    - ``turns``: `Turn`s in place of one move of all parts by ``loss``.
    - ``renewed``: names of the parts that a refresh may set anew; their optimizer state begins anew with them.
    - ``constrain()``: called after each move, to bring parameters back to where they must be.
    - ``conclude(z, key)``: in place of the last refresh, for what is wanted of a trained module alone: the clusters of
      rows, where those of a refresh are others or there are none.
    - ``agreement(old, new)``: numbers for the history that compare the labels of two looks, in place of "changed", the
      share of rows with another label.
    """

    def loss(self, batch: Batch, key: KeyArray) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The scalar to be made small, and others worth following."""
        ...

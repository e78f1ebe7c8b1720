"""Options of the methods that train a network."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEEP = "Deep clustering"
"""The heading under which help lists options."""


class Likelihood(StrEnum):
    """Of a row given its code, as `jaxcluster.deep.autoencoder.LIKELIHOODS` has them."""

    gaussian = "gaussian"
    bernoulli = "bernoulli"


class Pretraining(StrEnum):
    """How the autoencoder is trained before there are clusters."""

    end_to_end = "end-to-end"
    stacked = "stacked"


Hidden = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        rich_help_panel=DEEP,
        show_default=False,
        help="Widths of the encoder's hidden layers, such as 500,500,2000; the decoder mirrors them.",
    ),
]
Latent = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, rich_help_panel=DEEP, show_default=False, help="Width of the code of a row."),
]
PretrainEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=DEEP,
        show_default=False,
        help="Passes over the rows before there are clusters; at least 2,000 steps and 30 passes, unless given.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=DEEP,
        show_default=False,
        help="The most epochs of the last, or only, phase; --max-iter is the same.",
    ),
]
UpdateInterval = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=DEEP,
        show_default=False,
        help="Steps from one look at all rows to the next.",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(metavar="X", min=0, rich_help_panel=DEEP, show_default=False, help="Of Adam."),
]
LikelihoodChoice = Annotated[
    Likelihood | None,
    typer.Option(
        "--likelihood",
        rich_help_panel=DEEP,
        show_default=False,
        help="What the error of a row is: squared (gaussian), or a cross-entropy (bernoulli) of values from 0 to 1: "
        "--scale minmax makes them so.",
    ),
]
PretrainChoice = Annotated[
    Pretraining | None,
    typer.Option(
        "--pretrain", rich_help_panel=DEEP, show_default=False, help="All layers at once, or layer by layer first."
    ),
]
ImageShape = Annotated[
    str | None,
    typer.Option(
        metavar="H,W[,C]",
        rich_help_panel=DEEP,
        show_default=False,
        help="Rows are images of this height and width: networks are convolutional, and random views, where a "
        "method learns from them, are crops and moves.",
    ),
]
Augment = Annotated[
    bool | None,
    typer.Option(
        "--augment",
        rich_help_panel=DEEP,
        show_default=False,
        help="Shift and turn images at random; with --image-shape.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE|SHARE",
        rich_help_panel=DEEP,
        show_default=False,
        help="Classes that metric-embedding and joint-clustering learn from: a file with one a row, -1 for those not "
        "known; or a share of the truth, such as 0.1, drawn by the seed.",
    ),
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=DEEP,
        show_default=False,
        help="Epochs from one checkpoint to the next. They are kept in DIR.partial until the run is written.",
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume",
        rich_help_panel=DEEP,
        show_default=False,
        help="Go on from the checkpoints that the same command left when it was cut short.",
    ),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(
        "--tensorboard",
        metavar="DIR",
        rich_help_panel=DEEP,
        show_default=False,
        help="Write losses for TensorBoard too; needs tensorboardX.",
    ),
]

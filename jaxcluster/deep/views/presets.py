"""Views to begin with, for learning without labels: several of each row that a network shall take for the same."""

from __future__ import annotations

from collections.abc import Sequence

from jaxcluster.deep.nets import as_image_shape, halved
from jaxcluster.deep.views.compose import Chain, MultiCrop, check_interval
from jaxcluster.deep.views.image import ColorJitter, Flip, Grayscale, RandomResizedCrop, ShiftRotate
from jaxcluster.deep.views.table import GaussianNoise, Swap


def image_views(
    image_shape: Sequence[int],
    *,
    crops: Sequence[int] = (2, 0),
    scale: Sequence[float] | None = None,
    flip: bool | None = None,
) -> MultiCrop:
    """Views of images in [0, 1].

    One channel: shifts and turns, crops, brightness and contrast. Three: crops, all of `ColorJitter`, and at times
    gray. Small ones show smaller boxes, at half the height and width, as (n, h, w, channels).

    Args:
        image_shape: (height, width) or (height, width, channels).
        crops: how many large and small views.
        scale: (least, greatest) share of the area that a large view shows; a small one shows half the least to the
            least. None for (0.5, 1) of one channel, where shapes are all there is, and (0.2, 1) of more.
        flip: whether images are mirrored at random; None for where there is more than one channel, as digits and
            letters change what they are.

    Raises:
        ValueError, TypeError: a shape, scale or number of views out of range.
    """
    shape, (n_large, n_small) = as_image_shape(image_shape), _pair(crops)
    gray, colored = shape[2] == 1, shape[2] == 3
    least, greatest = check_interval("scale", scale or ((0.5, 1.0) if gray else (0.2, 1.0)), most=1)
    moved = [ShiftRotate(shape)] if gray else []
    moved += [Flip(shape)] if (not gray if flip is None else flip) else []
    lit = [ColorJitter(shape)]
    if colored:
        lit = [ColorJitter(shape, brightness=0.3, contrast=0.4, saturation=0.4, hue=0.1), Grayscale(shape)]
    # Crops stand between: XLA for CPUs fuses a rotation into the means of a contrast, for ten times the time.
    large = Chain(*moved, RandomResizedCrop(shape, (least, greatest)), *lit)
    small = Chain(*moved, RandomResizedCrop(shape, (least / 2, least), size=halved(shape[:2], 1)), *lit)
    return MultiCrop(large, small if n_small else None, n_large, n_small)


def table_views(*, rate: float = 0.3, deviation: float = 0.1, crops: Sequence[int] = (2, 0)) -> MultiCrop:
    """Views of rows of a table: entries swapped with those of other rows, then normal noise.

    Args:
        rate: share of the entries that a large view swaps; a small one swaps half of the others too.
        deviation: of the noise, in data units.
        crops: how many large and small views.

    Raises:
        ValueError, TypeError: a rate, deviation or number of views out of range.
    """
    n_large, n_small = _pair(crops)
    noise = GaussianNoise(deviation)
    small = Chain(Swap((1 + rate) / 2), noise) if n_small else None
    return MultiCrop(Chain(Swap(rate), noise), small, n_large, n_small)


def _pair(crops):
    if len(crops) != 2:
        raise ValueError(f"crops={crops} must be two numbers: of large views and of small ones.")
    return crops

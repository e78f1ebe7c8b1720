"""Default augmentations for self-supervised learning, of images and of tables."""

from __future__ import annotations

from collections.abc import Sequence

from jaxcluster.deep.nets import as_image_shape, downsampled_size
from jaxcluster.deep.views.compose import Chain, FeatureCorruption, GaussianNoise, MultiCrop, check_interval
from jaxcluster.deep.views.image import ColorJitter, Flip, Grayscale, RandomResizedCrop, ShiftRotate


def image_views(
    image_shape: Sequence[int],
    *,
    crops: Sequence[int] = (2, 0),
    scale: Sequence[float] | None = None,
    flip: bool | None = None,
) -> MultiCrop:
    """Views of images with values in [0, 1].

    One channel: shift and rotation, crops, brightness and contrast. Three channels: crops, all of `ColorJitter`, and
    `Grayscale`. Local views show smaller boxes at half the height and width, as (n_samples, height, width, channels).

    Args:
        image_shape: (height, width) or (height, width, channels).
        crops: number of global and of local views.
        scale: (least, greatest) fraction of the area in a global view; a local view has half the least to the least.
            None for (0.5, 1) with one channel, where shape is all the information, and for (0.2, 1) with more.
        flip: horizontal flips; None for images of more than one channel only, since a flip changes digits and letters.

    Raises:
        ValueError, TypeError: a shape, scale or number of views out of range.
    """
    shape, (n_global, n_local) = as_image_shape(image_shape), _pair(crops)
    gray, colored = shape[2] == 1, shape[2] == 3
    least, greatest = check_interval("scale", scale or ((0.5, 1.0) if gray else (0.2, 1.0)), most=1)
    geometry = [ShiftRotate(shape)] if gray else []
    geometry += [Flip(shape)] if (not gray if flip is None else flip) else []
    color = [ColorJitter(shape)]
    if colored:
        color = [ColorJitter(shape, brightness=0.3, contrast=0.4, saturation=0.4, hue=0.1), Grayscale(shape)]
    # The crop stands between geometry and color: XLA for CPUs fuses a rotation into the means of a contrast, which
    # takes ten times the time.
    global_view = Chain(*geometry, RandomResizedCrop(shape, (least, greatest)), *color)
    local_crop = RandomResizedCrop(shape, (least / 2, least), size=downsampled_size(shape[:2], 1))
    return MultiCrop(global_view, Chain(*geometry, local_crop, *color) if n_local else None, n_global, n_local)


def table_views(*, rate: float = 0.3, deviation: float = 0.1, crops: Sequence[int] = (2, 0)) -> MultiCrop:
    """Views of rows of a table: feature corruption, then Gaussian noise.

    Args:
        rate: fraction r of the entries that a global view replaces; a local view replaces (1 + r)/2 of them.
        deviation: standard deviation of the noise (data units).
        crops: number of global and of local views.

    Raises:
        ValueError, TypeError: a rate, deviation or number of views out of range.
    """
    n_global, n_local = _pair(crops)
    noise = GaussianNoise(deviation)
    local_view = Chain(FeatureCorruption((1 + rate) / 2), noise) if n_local else None
    return MultiCrop(Chain(FeatureCorruption(rate), noise), local_view, n_global, n_local)


def _pair(crops):
    if len(crops) != 2:
        raise ValueError(f"crops={crops} must be two numbers: of global views and of local ones.")
    return crops

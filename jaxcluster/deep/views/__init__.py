"""Augmentations: random changes of a batch that keep the meaning of its rows.

Each is a small frozen dataclass that is called with a key and rows (n_samples, …). Equal ones share one compiled
program, the same key gives the same result, and each row is changed on its own. With rows sharded over devices only
`FeatureCorruption` and `Mixup` communicate.

- any rows: `Masking`, `GaussianNoise`; with values of other rows, `FeatureCorruption` and `Mixup`;
- images: `ShiftRotate`, `Flip`, `RandomResizedCrop`, `RandomErasing`, `ColorJitter`, `Grayscale`, `Blur`. They take the
  ``image_shape`` of flat rows, (height, width[, channels]), and return the shape of the input, except for crops of
  another ``size``;
- compositions: `Chain`, and `MultiCrop` for several views of the same rows;
- presets: `image_views`, `table_views`;
- for losses of your own: `stack_views` and `apply_to_views`, which send several views through a network as one batch.
"""

from jaxcluster.deep.views.compose import (
    Chain,
    FeatureCorruption,
    GaussianNoise,
    Masking,
    Mixup,
    MultiCrop,
    Views,
    apply_to_views,
    count_views,
    stack_views,
)
from jaxcluster.deep.views.image import (
    Blur,
    ColorJitter,
    Flip,
    Grayscale,
    RandomErasing,
    RandomResizedCrop,
    ShiftRotate,
)
from jaxcluster.deep.views.presets import image_views, table_views

__all__ = [
    "Blur",
    "Chain",
    "ColorJitter",
    "FeatureCorruption",
    "Flip",
    "GaussianNoise",
    "Grayscale",
    "Masking",
    "Mixup",
    "MultiCrop",
    "RandomErasing",
    "RandomResizedCrop",
    "ShiftRotate",
    "Views",
    "apply_to_views",
    "count_views",
    "image_views",
    "stack_views",
    "table_views",
]


def __dir__() -> list[str]:
    return __all__

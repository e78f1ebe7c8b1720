"""Random changes of a batch that leave its rows what they are, for autoencoders, DEC and learning without labels.

Each is a small value that is called with a key and rows, (n, …): equal ones are one program, the same key gives the
same change, and each row gets its own. Rows that are spread over devices stay where they are; `Swap` and `Mixing` alone
fetch values from elsewhere.

- for any rows: `Masking`, `GaussianNoise`; with values of other rows, `Swap` and `Mixing`;
- for images: `ShiftRotate`, `Flip`, `RandomResizedCrop`, `Erase`, `ColorJitter`, `Grayscale`, `Blur`. They take the
  ``image_shape`` of flat rows, (height, width[, channels]), and give back what came in its shape, crops
  of another ``size`` left out;
- of views: `Chain`, one after the other; `MultiCrop`, several of the same rows;
- to begin with: `image_views`, `table_views`;
- for losses of one's own: `stacked` and `through`, which take several views through a network as one batch.
"""

from jaxcluster.deep.views.compose import Chain, MultiCrop, Views, count_views, stacked, through
from jaxcluster.deep.views.image import Blur, ColorJitter, Erase, Flip, Grayscale, RandomResizedCrop, ShiftRotate
from jaxcluster.deep.views.presets import image_views, table_views
from jaxcluster.deep.views.table import GaussianNoise, Masking, Mixing, Swap

__all__ = [
    "Blur",
    "Chain",
    "ColorJitter",
    "Erase",
    "Flip",
    "GaussianNoise",
    "Grayscale",
    "Masking",
    "Mixing",
    "MultiCrop",
    "RandomResizedCrop",
    "ShiftRotate",
    "Swap",
    "Views",
    "count_views",
    "image_views",
    "stacked",
    "table_views",
    "through",
]

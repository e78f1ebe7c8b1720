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

from jaxcluster.deep.views.blur import Blur
from jaxcluster.deep.views.boxes import Erase, RandomResizedCrop
from jaxcluster.deep.views.color import ColorJitter, Grayscale
from jaxcluster.deep.views.compose import Chain, MultiCrop
from jaxcluster.deep.views.mixing import Mixing, Swap
from jaxcluster.deep.views.moves import Flip, ShiftRotate
from jaxcluster.deep.views.noise import GaussianNoise, Masking
from jaxcluster.deep.views.stacks import Views, count_views, stacked, through
from jaxcluster.deep.views.usual import image_views, table_views

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

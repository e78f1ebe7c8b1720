"""What all views of images share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxcluster.deep.nets import as_image_shape, as_images
from jaxcluster.types import Array, Float, KeyArray


@dataclass(frozen=True)
class ImageView:
    """A random change of images that keeps their shape: a subclass has it in `show`.

    Args:
        image_shape: (height, width) or (height, width, channels) of an image where rows are flat. Images that come as
            (n, h, w, channels), or (n, h, w) of one channel, may be of another size.
    """

    image_shape: Sequence[int]

    def __post_init__(self):
        object.__setattr__(self, "image_shape", as_image_shape(self.image_shape))

    def __call__(self, key: KeyArray, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Changed images, in the shape and dtype they came in.

        Raises:
            ValueError: rows that are no images of ``image_shape``.
        """
        return self.show(key, as_images(x, self.image_shape)).astype(x.dtype).reshape(x.shape)

    def show(self, key: KeyArray, images: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """The change itself."""
        raise NotImplementedError

"""Label and distance of each row's nearest center. The XLA form is the truth; a kernel may stand beside it."""

from jaxcluster.ops.nearest.xla import Nearest, Window, nearest, search, search_tile, widen

__all__ = [
    "Nearest",
    "Window",
    "at_most_once",
    "nearest",
    "refined_sqeuclidean",
    "search",
    "search_tile",
    "separations",
    "widen",
]

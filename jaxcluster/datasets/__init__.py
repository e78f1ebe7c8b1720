"""Data sets: readers of npy, npz, csv, parquet and idx files, built-in and generated sets, and scaling.

>>> load("iris").x.shape
(150, 4)
"""

from jaxcluster.datasets.base import DataError, DataNotFoundError, Dataset
from jaxcluster.datasets.loading import builtin_names, load, load_labels
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale
from jaxcluster.datasets.scan import scan

__all__ = [
    "SCALINGS",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Scaling",
    "builtin_names",
    "load",
    "load_labels",
    "scale",
    "scan",
]


def __dir__() -> list[str]:
    return __all__

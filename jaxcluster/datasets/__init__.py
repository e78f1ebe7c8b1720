"""Data sets: readers of files, built-in and generated sets, encoding, imputation and scaling.

>>> load("iris").x.shape
(150, 4)
"""

from jaxcluster.datasets.base import DataError, DataNotFoundError, Dataset
from jaxcluster.datasets.encoding import Encoding
from jaxcluster.datasets.imputation import IMPUTATIONS, Imputation, impute
from jaxcluster.datasets.loading import builtin_names, load, load_labels
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale
from jaxcluster.datasets.scan import scan

__all__ = [
    "IMPUTATIONS",
    "SCALINGS",
    "DataError",
    "DataNotFoundError",
    "Dataset",
    "Encoding",
    "Imputation",
    "Scaling",
    "builtin_names",
    "impute",
    "load",
    "load_labels",
    "scale",
    "scan",
]


def __dir__() -> list[str]:
    return __all__

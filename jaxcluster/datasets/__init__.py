"""Data sets: readers for npy, npz, csv, parquet and idx files, built-in and generated sets, and scaling."""

from jaxcluster.datasets.base import DataError, DataNotFoundError, Dataset
from jaxcluster.datasets.builtin import usage as builtin_names
from jaxcluster.datasets.loading import load, load_labels
from jaxcluster.datasets.scaling import SCALINGS, Scaling, scale

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
]

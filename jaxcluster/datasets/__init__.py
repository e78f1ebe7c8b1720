"""Data sets: readers of files, built-in and generated sets, encoding, imputation and scaling.

Names load when they are first used: an estimator that is given an array needs none of the readers.

>>> import jaxcluster as jc
>>> jc.datasets.load("iris").x.shape
(150, 4)
"""

from __future__ import annotations

import importlib
from typing import Any

_OBJECTS = {
    "IMPUTATIONS": "imputation",
    "SCALINGS": "scaling",
    "DataError": "base",
    "DataNotFoundError": "base",
    "Dataset": "base",
    "Encoding": "encoding",
    "Imputation": "imputation",
    "Scaling": "scaling",
    "builtin_names": "loading",
    "impute": "imputation",
    "load": "loading",
    "load_labels": "loading",
    "scale": "scaling",
    "scan": "file_sources",
}
"""Public objects, and the module of this package that defines each."""

__all__ = [*_OBJECTS]


def __getattr__(name: str) -> Any:
    if name not in _OBJECTS:
        from jaxcluster.core.messages import no_attribute

        raise no_attribute(__name__, name, __all__)
    value = getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

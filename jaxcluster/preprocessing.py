"""Scalers and decompositions of rows before a fit, with scikit-learn's names.

They take NumPy and JAX arrays, tables and, but for `TruncatedSVD`, sources of rows (`jaxcluster.datasets.scan`). A JAX
array is transformed on its device to a JAX array.

>>> import numpy as np
>>> from jaxcluster import preprocessing
>>> x = np.array([[1e9, 1.0], [1e9 + 2, 3.0]])
>>> preprocessing.StandardScaler().fit_transform(x).tolist()
[[-1.0, -1.0], [1.0, 1.0]]
"""

from jaxcluster.estimators.decomposition import PCA
from jaxcluster.estimators.scalers import MinMaxScaler, StandardScaler
from jaxcluster.estimators.truncated_svd import TruncatedSVD

__all__ = ["PCA", "MinMaxScaler", "StandardScaler", "TruncatedSVD"]


def __dir__() -> list[str]:
    return __all__

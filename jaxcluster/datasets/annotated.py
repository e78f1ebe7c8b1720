"""Files of AnnData objects, of single-cell analysis: cells are the rows, ``X`` their genes, ``obsm`` other spaces.

The package anndata is an extra: ``pip install 'jaxcluster[anndata]'``. Objects in memory need none of it
(`jaxcluster.datasets.dataframes.annotated_rows`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxcluster.datasets.base import DataError, Dataset, as_labels, choose_columns, exclude_columns, listing
from jaxcluster.datasets.dataframes import annotated_rows

EXTENSION = ".h5ad"
"""Ending of the files."""


def annotated_dataset(
    path: Path, *, key: str | None = None, truth: str | int | None = None, columns: Any = None, drop: Any = None
) -> Dataset:
    """The `Dataset` of an .h5ad file: rows of its ``X`` or ``obsm[key]``, named by the cells.

    Args:
        path: of the file.
        key: of ``obsm``; None for ``X``.
        truth: column of ``obs`` with the known classes, or None.
        columns, drop: columns to cluster and to leave out, by name or position.

    Raises:
        DataError: a damaged file, no such key or column, or the package anndata is missing.
    """
    try:
        import anndata  # pyright: ignore[reportMissingImports]  # of the extra "anndata"
    except ImportError as error:
        raise DataError(
            f"{path.name} needs anndata: pip install 'jaxcluster[anndata]', or save its rows as .npy or .npz."
        ) from error
    try:
        data = anndata.read_h5ad(path)
    except Exception as error:  # anndata lets through whatever h5py and its own readers raise
        raise DataError(
            f"{path.name} cannot be read as .h5ad ({path.stat().st_size} bytes): {type(error).__name__}. Save it again."
        ) from error
    x = annotated_rows(data, key, name=path.name)
    names = [str(each) for each in data.var_names] if key is None else [f"{key} {j}" for j in range(x.shape[1])]
    chosen = choose_columns(columns, names, x.shape[1], path.name)
    chosen = chosen if drop is None else exclude_columns(drop, chosen, names, x.shape[1], path.name)
    if chosen is not None:
        x, names = x[:, chosen], [names[j] for j in chosen]
    name = path.name if key is None else f"{path.name}:{key}"
    ids = np.array([str(each) for each in data.obs_names])
    return Dataset(name, x, _classes(data, truth, path.name), names, ids=ids, id_name="cell")


def _classes(data, truth, where):
    if truth is None:
        return None
    if truth not in data.obs.columns:
        raise DataError(f"{where} has no column {truth!r} of cells (obs); there are: {listing(data.obs.columns)}.")
    values = np.asarray(data.obs[truth])
    return as_labels(values.astype(str) if values.dtype.kind == "O" else values, f"{where}: {truth!r}")

"""Sparse rows on the command line: those of texts, and of files that hold sparse matrices."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from jaxcluster.cli.errors import UserError
from jaxcluster.datasets.scaling import SPARSE_SCALINGS

if TYPE_CHECKING:
    from jaxcluster.cli.inputs import Source
    from jaxcluster.datasets import Dataset
    from jaxcluster.datasets.texts import TextVectorizer
    from jaxcluster.estimators import EstimatorInfo

OPTION_NAMES = {"covariance_type": "covariance"}
"""Options whose names are other than those of the parameters that they stand for."""


def vectorizer_of(source: Source) -> TextVectorizer | None:
    """Options of the term weights of texts; None where there are no texts.

    Raises:
        UserError: such options for other rows.
    """
    from pathlib import Path

    from jaxcluster.datasets.texts import TextVectorizer

    if source.text is not None or Path(source.data).is_dir():
        return TextVectorizer(source.stop_words, source.max_terms)
    given = next((name for name in ("stop_words", "max_terms") if getattr(source, name) is not None), None)
    if given is not None:
        raise UserError(f"--{given.replace('_', '-')} is for texts: name their column (--text), or a folder of them.")
    return None


def check_scaling(dataset: Dataset, how: str, impute: str | None) -> None:
    """Raise UserError for a scaling or an imputation that would make sparse rows dense."""
    if not scipy.sparse.issparse(dataset.x):
        return
    if how not in SPARSE_SCALINGS:
        raise UserError(
            f"--scale {how} would make the sparse rows of {dataset.name} dense: pass --scale l2, or leave it out."
        )
    if impute is not None:
        raise UserError(f"--impute has no effect on {dataset.name}: an absent entry of sparse rows is 0. Leave it out.")


def check_sparse(info: EstimatorInfo, parameters: dict[str, Any], dataset: Dataset) -> None:
    """Raise UserError for sparse rows in a method that takes dense ones, or takes them with other options.

    Args:
        info: of the method.
        parameters: of the estimator.
        dataset: the rows.
    """
    if not scipy.sparse.issparse(dataset.x):
        return
    from jaxcluster.estimators import CLASSES

    if not info.takes_sparse:
        others = ", ".join(name for name, entry in CLASSES.items() if entry.sparse and entry.labels)
        raise UserError(
            f"{info.name} takes dense rows, and those of {dataset.name} are sparse. Methods for them: {others}."
        )
    for name, values in info.needs.get("sparse", {}).items():
        if parameters.get(name) not in values:
            option = str(OPTION_NAMES.get(name, name)).replace("_", "-")
            raise UserError(
                f"{info.name} takes the sparse rows of {dataset.name} with --{option} {' or '.join(map(str, values))}."
            )


def digest_of(x: Any) -> Any:
    """SHA-256 of rows, dense or sparse, to which more may be added."""
    if not scipy.sparse.issparse(x):
        return hashlib.sha256(np.ascontiguousarray(x).data)
    digest = hashlib.sha256(repr(x.shape).encode())
    for part, dtype in ((x.indptr, np.int64), (x.indices, np.int64), (x.data, x.dtype)):
        digest.update(np.ascontiguousarray(part, dtype).data)
    return digest


def has_missing(x: Any) -> bool:
    """True if cells of the rows are missing; sparse rows have none."""
    return not scipy.sparse.issparse(x) and bool(np.isnan(x).any())

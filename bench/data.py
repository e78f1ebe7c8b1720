"""The data of the cases: float32 rows, generated from a fixed seed or read from a file of real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse

from bench.cases import Case

SEPARATION = 4.0
"""Typical distance between two centers in standard deviations of a blob: overlapping, so that Lloyd keeps moving."""

TEXT_WORDS = 8
"""Mean number of words of a short text."""

PIXEL_NOISE = 0.1
"""Deviation of a pixel from its image: so little that a network tells the images apart after one epoch."""


def blobs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples around k random centers.

    Returns:
        The samples, (n, d), and the center that each was drawn from, (n,).
    """
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((case.k, case.d), np.float32) * np.float32(SEPARATION / np.sqrt(2 * case.d))
    truth = rng.integers(case.k, size=case.n, dtype=np.int32)
    return centers[truth] + rng.standard_normal((case.n, case.d), np.float32), truth


def dense_blobs(case: Case) -> np.ndarray:
    """(n, d) float64 rows of variance 1 around k centers strewn over a box of side 20: dense, and mostly apart."""
    rng = np.random.default_rng(0)
    centers = rng.uniform(-10, 10, (case.k, case.d))
    return centers[rng.integers(case.k, size=case.n)] + rng.standard_normal((case.n, case.d))


def pixels(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples in [0, 1] around k random images that are well separated.

    Returns:
        The samples, (n, d), and the image that each was drawn from, (n,).
    """
    rng = np.random.default_rng(0)
    images = rng.random((case.k, case.d), np.float32)
    truth = rng.integers(case.k, size=case.n, dtype=np.int32)
    noise = np.float32(PIXEL_NOISE) * rng.standard_normal((case.n, case.d), np.float32)
    return np.clip(images[truth] + noise, 0, 1), truth


def texts(case: Case) -> scipy.sparse.csr_array:
    """(n, d) float32 rows of TF-IDF: short texts, half of whose words are of their topic, by Zipf's law; norms of 1."""
    rng = np.random.default_rng(0)
    words = rng.poisson(TEXT_WORDS, case.n) + 1
    row = np.repeat(np.arange(case.n), words)
    ranks = np.floor(np.exp(rng.random(row.size) * np.log(case.d))).astype(np.int64) - 1  # word r in proportion to 1/r
    of_topic = rng.random(row.size) < 0.5
    vocabulary = np.stack([rng.permutation(case.d) for _ in range(case.k)])
    column = np.where(of_topic, vocabulary[rng.integers(case.k, size=case.n)[row], ranks], ranks)
    counts = scipy.sparse.coo_array(
        (np.ones(row.size), (row.astype(np.int32), column.astype(np.int32))), (case.n, case.d)
    ).tocsr()
    texts_of_word = np.bincount(counts.indices, minlength=case.d)
    weighted = counts.multiply(np.log((1 + case.n) / (1 + texts_of_word)) + 1).tocsr()
    norms = np.sqrt(weighted.multiply(weighted).sum(axis=1))
    return weighted.multiply(1 / norms[:, None]).tocsr().astype(np.float32)


def source(case: Case, folder: Path | None) -> str:
    """The source of a case's samples: "generated", or the name of a set of images in ``folder``."""
    return "generated" if folder is None or case.data is None else case.data


def rows(case: Case, folder: Path | None) -> tuple[np.ndarray, str]:
    """Generate the samples of a case, or read images: as many principal components as the case has features.

    Returns:
        The samples, (n, d), and their source.
    """
    name = source(case, folder)
    if name == "generated":
        return blobs(case)[0], name
    with np.load(folder / f"{name}.npz") as archive:
        images = np.concatenate([archive["x_train"], archive["x_test"]])
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    return _components(pixels, case.d) if case.d < pixels.shape[1] else pixels, name


def _components(pixels: np.ndarray, d: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(d, random_state=0).fit_transform(pixels)


def place(x: Any) -> Any:
    """The rows where a side that runs in JAX takes them from: host memory on a CPU or if sparse, else the device."""
    return x if jax.default_backend() == "cpu" or scipy.sparse.issparse(x) else jax.block_until_ready(jax.device_put(x))


def starting_rows(x: np.ndarray, k: int) -> np.ndarray:
    """K distinct rows to start every side from."""
    return x[np.random.default_rng(1).choice(x.shape[0], k, replace=False)]


def label_pairs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Two labelings of n samples in k clusters that agree on about 70 % of the samples.

    Returns:
        Both labelings, each (n,).
    """
    rng = np.random.default_rng(0)
    truth = rng.integers(case.k, size=case.n, dtype=np.int32)
    noise = rng.integers(case.k, size=case.n, dtype=np.int32)
    return truth, np.where(rng.random(case.n) < 0.7, truth, noise)

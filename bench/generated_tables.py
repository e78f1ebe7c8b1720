"""Generated tables of many kinds; on other draws of these kinds the constants of `jaxcluster.deep.start` were chosen.

Gaussian clusters of all shapes, heavy tails, noise columns, skewed and discrete columns, curved clusters, and features
that are functions of a few factors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Clusters(NamedTuple):
    """A mixture of d-dimensional clusters.

    Attributes:
        d, k: numbers of features and clusters.
        separation: typical distance of two centers, in deviations of a spherical cluster.
        spread: logarithm of the largest ratio of an axis to that of a spherical cluster.
        unequal: True for unequal sizes.
        freedom: degrees of freedom of Student's t; None for Gaussian clusters.
        alike: True if all clusters have one covariance.
        scale: deviation of the logarithm of the clusters' scales.
    """

    d: int
    k: int
    separation: float
    spread: float = 0.0
    unequal: bool = False
    freedom: int | None = None
    alike: bool = False
    scale: float = 0.0

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw about n samples, at least ten of each cluster.

        Returns:
            (n, d) samples, and their clusters.
        """
        centers = rng.standard_normal((self.k, self.d)) * self.separation / np.sqrt(self.d)
        common = self._axes(rng)
        parts = []
        fractions = np.maximum(rng.dirichlet(np.full(self.k, 1.5 if self.unequal else 50.0)), 0.04)
        for center, size in zip(centers, np.maximum((fractions / fractions.sum() * n).astype(int), 10), strict=True):
            axes = common if self.alike else self._axes(rng)
            z = rng.standard_normal((size, self.d))
            if self.freedom:
                z /= np.sqrt(rng.chisquare(self.freedom, (size, 1)) / self.freedom)
            parts.append(center + z @ axes.T * np.exp(self.scale * rng.standard_normal()))
        return np.concatenate(parts), np.repeat(np.arange(self.k), [len(part) for part in parts])

    def _axes(self, rng):
        rotation = np.linalg.qr(rng.standard_normal((self.d, self.d)))[0]
        return rotation @ np.diag(np.exp(rng.uniform(-self.spread, self.spread, self.d)))


MIXTURES = {
    "sph": Clusters(6, 4, 4),
    "sph-hi": Clusters(25, 5, 5, unequal=True),
    "sph-scale": Clusters(5, 4, 5, unequal=True, scale=0.6),
    "ell": Clusters(4, 3, 4, 1.0),
    "ell-strong": Clusters(4, 3, 4, 1.6, unequal=True),
    "ell-hi": Clusters(15, 5, 5, 1.0, unequal=True),
    "tied": Clusters(6, 4, 4, 1.3, alike=True),
    "t3": Clusters(5, 4, 5, 0.3, freedom=3),
    "t4-ell": Clusters(8, 3, 5, 0.8, unequal=True, freedom=4),
    "overlap": Clusters(8, 3, 2, 0.3),
    "overlap-ell": Clusters(8, 4, 2.5, 0.8, unequal=True),
    "concentric": Clusters(4, 2, 1, scale=1.0),
}


def tables(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Draw a table of each kind.

    Args:
        seed: of the random numbers.

    Returns:
        (n_samples, n_features) samples, their clusters, and the number of clusters, by the name of the kind.
    """
    rng = np.random.default_rng(seed)
    drawn = {name: clusters.draw(rng, _size(rng)) for name, clusters in MIXTURES.items()}
    drawn |= _columns(rng) | _shapes(rng) | _factors(rng)
    shuffled = {}
    for name, (x, y) in drawn.items():
        order = rng.permutation(len(y))
        shuffled[name] = x[order], y[order], int(y.max()) + 1
    return shuffled


def _size(rng):
    return int(rng.integers(400, 2_000))


def _columns(rng):
    """Tables with columns of noise, skewed, of counts, of grades, of categories."""
    noise = Clusters(5, 4, 5, 0.2).draw(rng, _size(rng))
    skewed = Clusters(5, 3, 3.5, 0.2, unequal=True).draw(rng, _size(rng))
    counts = Clusters(6, 4, 5, 0.3, unequal=True).draw(rng, _size(rng))
    grades = Clusters(6, 4, 4, 0.3).draw(rng, _size(rng))
    n = _size(rng)
    y = rng.integers(0, 3, n)
    frequencies = rng.dirichlet(np.full(5, 0.5), (3, 4))
    categories = [np.eye(5)[[rng.choice(5, p=frequencies[c, j]) for c in y]] for j in range(4)]
    return {
        "noise-columns": (np.c_[noise[0], rng.standard_normal((len(noise[0]), 8))], noise[1]),
        "lognormal": (np.exp(0.6 * skewed[0]), skewed[1]),
        "counts": (rng.poisson(np.exp(np.clip(0.5 * counts[0] + 1, -3, 5))).astype(float), counts[1]),
        "grades": (np.round(np.clip(grades[0], -2.5, 2.5)), grades[1]),
        "one-hot": (np.c_[np.concatenate(categories, axis=1), y[:, None] * 1.2 + rng.standard_normal((n, 2))], y),
    }


def _shapes(rng):
    """Boxes, bananas, moons, rings, strips, clusters before a wide background, and Laplace tails."""
    n, found = _size(rng), {}
    y = rng.integers(0, 4, n)
    centers, widths = rng.uniform(-3, 3, (4, 4)), rng.uniform(0.5, 1.6, (4, 4))
    found["boxes"] = centers[y] + widths[y] * rng.uniform(-1, 1, (n, 4)), y
    y, t = rng.integers(0, 3, n), rng.uniform(-1, 1, n)
    found["bananas"] = np.c_[2 * t, 2 * t**2 + 1.2 * y] + 0.2 * rng.standard_normal((n, 2)), y
    y, angle = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
    upper, lower = np.c_[np.cos(angle), np.sin(angle)], np.c_[1 - np.cos(angle), 0.5 - np.sin(angle)]
    found["moons"] = np.where(y[:, None] == 0, upper, lower) + 0.1 * rng.standard_normal((n, 2)), y
    y, angle = rng.integers(0, 2, n), rng.uniform(0, 2 * np.pi, n)
    circles = (1 + 2 * y)[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    found["rings"] = circles + 0.15 * rng.standard_normal((n, 2)), y
    y = rng.integers(0, 3, n)
    strips = np.c_[rng.uniform(-4, 4, n), 1.5 * y + 0.3 * rng.standard_normal(n)]
    found["strips"] = strips @ np.linalg.qr(rng.standard_normal((2, 2)))[0], y
    y = rng.choice(3, n, p=[0.5, 0.25, 0.25])
    centers = np.array([[0, 0, 0], [3, 0, 0], [-3, 1, 0.0]])
    found["background"] = centers[y] + np.array([3, 0.4, 0.4])[y, None] * rng.standard_normal((n, 3)), y
    y = rng.integers(0, 5, n)
    found["laplace"] = 3 * rng.standard_normal((5, 6))[y] + rng.laplace(0, 1, (n, 6)), y
    return found


def _factors(rng):
    """Features that are functions of fewer factors, and tables of few samples."""
    n, found = _size(rng), {}
    y = (rng.random(n) < 0.4).astype(int)
    factors = rng.gamma(2, 1, (n, 3)) + y[:, None] * np.array([3, 1.5, 1.0])
    mixed = factors @ rng.uniform(0.2, 1, (3, 20)) / 6
    found["factors-skewed"] = np.exp(mixed + 0.1 * rng.standard_normal((n, 20))), y
    y = rng.integers(0, 3, n)
    factors = rng.standard_normal((n, 4)) + 2.9 * np.eye(4)[y]
    found["factors"] = factors @ rng.standard_normal((4, 12)) + 0.7 * rng.standard_normal((n, 12)), y
    x, y = Clusters(4, 6, 5, 0.5).draw(rng, _size(rng))
    smooth = np.tanh(x @ rng.standard_normal((4, 30)) / 2) @ rng.standard_normal((30, 40)) / 5
    found["network"] = smooth + 0.2 * rng.standard_normal((len(x), 40)), y
    found["few-wide"] = Clusters(13, 3, 6, 0.5).draw(rng, 180)
    found["few-narrow"] = Clusters(4, 3, 4.5, 1.0).draw(rng, 160)
    return found

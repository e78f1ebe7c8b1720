"""Choosing DBSCAN's radius: distances to the fifth neighbor, in order.

The radius is where the curve turns upward: rows beyond are noise.

Methods: dbscan
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
X = np.concatenate([jc.datasets.load("moons:n=400").x, rng.uniform([-1.5, -1], [2.5, 1.5], (40, 2))])
distances = np.sort(np.linalg.norm(X[:, None] - X, axis=2), axis=1)[:, 4]
jc.plots.neighbor_distances(distances, min_samples=5, eps=0.14)
plt.show()

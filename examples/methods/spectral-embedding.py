"""Spectral embedding: coordinates in which neighbors stay neighbors.

A spiral in the plane (left), and its Laplacian eigenmaps (right): the colors, from one end to the other, stay in order.

Methods: spectral-embedding, spectral
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
turn = np.sort(rng.uniform(1.5, 4.5 * np.pi, 400))
X = (np.c_[turn * np.cos(turn), turn * np.sin(turn)] + rng.normal(size=(400, 2)) * 0.2).astype(np.float32)
codes = jc.SpectralEmbedding(2, n_neighbors=8, random_state=0).fit_transform(X)

# %% Function
import jax

from jaxcluster import spectral

embedding = spectral.embed(jax.random.key(0), X, 2, affinity="nearest_neighbors", n_neighbors=8, drop_first=True)
print(embedding.eigenvalues)

# %% Picture
import matplotlib.pyplot as plt

fig, panels = plt.subplots(1, 2, figsize=(9, 3.8))
for ax, rows, name in zip(panels, (X, codes), ("rows", "embedding"), strict=True):
    ax.scatter(*rows.T, c=turn, s=12, cmap="viridis")
    ax.set_title(name, loc="left")
panels[0].set_aspect("equal")
plt.show()

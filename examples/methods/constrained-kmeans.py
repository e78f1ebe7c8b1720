"""Constrained k-means: pairs that belong together, and pairs that do not.

Two long clusters, which k-means cuts across. Must-link pairs (lines) and one cannot-link pair (dashed) turn the cut.

Methods: constrained-kmeans
"""

# %% Estimator
from itertools import pairwise

import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(1)
X = rng.normal(size=(200, 2)) * [2.2, 0.35] + np.repeat([[0, 1.4], [0, -1.4]], 100, axis=0)
X = X.astype(np.float32)
left_to_right = [np.argsort(X[:100, 0])[::6], 100 + np.argsort(X[100:, 0])[::6]]
must = [(i, j) for line in left_to_right for i, j in pairwise(line)]
cannot = [(left_to_right[0][0], left_to_right[1][0])]
model = jc.ConstrainedKMeans(n_clusters=2, n_init=10, random_state=0).fit(X, must_link=must, cannot_link=cannot)

# %% Function
import jax

from jaxcluster import constrained

fit = constrained.fit(jax.random.key(0), X, 2, must_link=must, cannot_link=cannot, n_init=10)
print(fit.state.inertia)

# %% Picture
import matplotlib.pyplot as plt

plain = jc.KMeans(n_clusters=2, n_init=10, random_state=0).fit_predict(X)
fig, panels = plt.subplots(2, 1, figsize=(6.4, 5), sharex=True)
for ax, name, labels in zip(panels, ("k-means", "with pairs"), (plain, model.labels_), strict=True):
    jc.plots.clusters_2d(X, labels, ax=ax)
    for pairs, style in ((must, "-"), (cannot, "--")):
        for i, j in pairs:
            ax.plot(*X[[i, j]].T, style, color="black", linewidth=1)
    ax.set_title(name, loc="left")
plt.show()

# %% Shell
# jaxcluster fit constrained-kmeans rows.csv --k 2 --must-link must.csv --cannot-link cannot.csv --out runs/pairs

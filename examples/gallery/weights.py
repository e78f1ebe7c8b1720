"""Sample weights: a row that counts as many.

The same rows, of which those on the right count ten times in the second fit: one center moves there.

Methods: kmeans
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

X = np.random.default_rng(0).uniform(0, 1, (400, 2)).astype(np.float32)
fig, panels = plt.subplots(1, 2, figsize=(8, 3.8))
for ax, factor in zip(panels, (1, 10), strict=True):
    weights = np.where(X[:, 0] > 0.7, factor, 1)
    model = jc.KMeans(6, n_init=10, random_state=0).fit(X, sample_weight=weights)
    jc.plots.clusters_2d(X, model.labels_, ax=ax)
    ax.set_title(f"weight {factor} on the right", loc="left")
    ax.scatter(*model.cluster_centers_.T, marker="x", color="black", zorder=5)
plt.show()

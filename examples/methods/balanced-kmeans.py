"""Balanced k-means: clusters of equal size.

A dense blob and a sparse one: k-means gives each its own center, balanced k-means deals the rows out evenly.

Methods: balanced-kmeans, kmeans
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(size=(350, 2)), rng.normal(size=(50, 2)) + [7, 0]]).astype(np.float32)
model = jc.BalancedKMeans(n_clusters=4, random_state=0).fit(X)
print(np.bincount(model.labels_))

# %% Function
import jax

from jaxcluster import balanced

fit = balanced.fit(jax.random.key(0), X, 4, size_min=80, size_max=120)
print(np.bincount(fit.labels))

# %% Picture
import matplotlib.pyplot as plt

plain = jc.KMeans(n_clusters=4, n_init=10, random_state=0).fit_predict(X)
fig, panels = plt.subplots(1, 2, figsize=(9, 3.4))
for ax, name, labels in zip(panels, ("k-means", "balanced"), (plain, model.labels_), strict=True):
    jc.plots.clusters_2d(X, labels, ax=ax)
    ax.set_title(f"{name}: sizes {', '.join(map(str, np.bincount(labels)))}", loc="left")
plt.show()

# %% Shell
# jaxcluster fit balanced-kmeans digits --k 10 --out runs/balanced

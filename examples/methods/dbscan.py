"""DBSCAN: dense regions of any shape, and noise.

Large points are core samples, with at least five rows within the radius; gray ones are noise.

Methods: dbscan
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
X = np.concatenate([jc.datasets.load("moons:n=400,noise=0.06").x, rng.uniform([-1.5, -1], [2.5, 1.5], (40, 2))])
model = jc.DBSCAN(eps=0.13, min_samples=5).fit(X)
print(np.unique(model.labels_, return_counts=True))

# %% Function
from jaxcluster import dbscan

fit = dbscan.fit(X, eps=0.13, min_samples=5)
print(fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

core = np.zeros(len(X), bool)
core[model.core_sample_indices_] = True
_, ax = plt.subplots(figsize=(6.4, 4))
colors = np.array([*jc.plots.PALETTE, "0.7"])[np.minimum(model.labels_, len(jc.plots.PALETTE) - 1)]
ax.scatter(*X[core].T, c=colors[core], s=34)
ax.scatter(*X[~core].T, c=colors[~core], s=9)
ax.set_title("core samples, border samples, noise", loc="left")
ax.set_aspect("equal")
plt.show()

# %% Shell
# jaxcluster fit dbscan moons:n=400,noise=0.06 --eps 0.13 --out runs/moons

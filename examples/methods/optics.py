"""OPTICS: valleys of the reachability plot are clusters.

Three clusters of different density. One radius (dashed) cannot find all of them; the valleys show each.

Methods: optics, dbscan
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
spreads, places = (0.2, 0.6, 1.5), ([0, 0], [4, 0], [2, 7])
parts = [rng.normal(size=(150, 2)) * spread + place for spread, place in zip(spreads, places, strict=True)]
X = np.concatenate(parts).astype(np.float32)
model = jc.OPTICS(min_samples=15, xi=0.08, min_cluster_size=40).fit(X)
print(np.unique(model.labels_, return_counts=True))

# %% Function
from jaxcluster import optics

fit = optics.fit(X, min_samples=15, xi=0.08, min_cluster_size=40)
print(fit.state.reachability.shape)

# %% Picture
import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
jc.plots.clusters_2d(X, model.labels_, ax=left)
jc.plots.reachability(model.reachability_, model.ordering_, model.labels_, eps=0.4, ax=right)
plt.show()

# %% Shell
# jaxcluster fit optics blobs:n=400,k=3 --min-samples 15 --out runs/optics

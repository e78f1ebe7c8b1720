"""HDBSCAN: the clusters that persist longest as the density rises.

Left the rows, right the condensed tree: the width of a branch is its number of rows, and colored branches are the
clusters.

Methods: hdbscan
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(3)
parts = [
    jc.datasets.load("moons:n=300,noise=0.04").x * 3,
    rng.normal(size=(150, 2)) * 0.3 + [9, 0],
    rng.normal(size=(150, 2)) + [8, 5],
    rng.uniform([-5, -4], [12, 8], (40, 2)),
]
X = np.concatenate(parts).astype(np.float32)
model = jc.HDBSCAN(min_cluster_size=20).fit(X)
print(np.unique(model.labels_, return_counts=True), model.probabilities_[:5])

# %% Function
from jaxcluster import hdbscan

fit = hdbscan.fit(X, min_cluster_size=20)
print(fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4))
jc.plots.clusters_2d(X, model.labels_, ax=left)
jc.plots.condensed_tree(model.condensed_tree_, model.labels_, ax=right)
plt.show()

# %% Shell
# jaxcluster fit hdbscan moons:n=600 --min-cluster-size 20 --out runs/hdbscan

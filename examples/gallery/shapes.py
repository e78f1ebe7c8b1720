"""Eight methods on five shapes.

No method is right everywhere. Gray rows are noise. The settings stand in the script, and are the same on each line
where the method allows it.

Methods: kmeans, gmm, spectral, dbscan, hdbscan, kmedoids, bisecting-kmeans, balanced-kmeans
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)


def load(name):
    return jc.datasets.load(name).x


stretched = rng.normal(size=(300, 2)) * [2.5, 0.3] + np.repeat([[0, 0], [1, 2], [2, 4]], 100, axis=0)
sizes = [(200, 1.0, (0, 0)), (50, 0.25, (3, 0)), (50, 0.25, (3, 2))]
uneven = np.concatenate([rng.normal(size=(n, 2)) * spread + place for n, spread, place in sizes])
shapes = {
    "blobs": (load("blobs:n=300,k=3,seed=2"), 3, 0.25),
    "stretched": (stretched, 3, 0.35),
    "uneven": (uneven, 3, 0.3),
    "moons": (load("moons:n=300"), 2, 0.3),
    "circles": (load("circles:n=300"), 2, 0.3),
}
methods = {
    "KMeans": lambda k, eps: jc.KMeans(k, n_init=5, random_state=0),
    "Bisecting": lambda k, eps: jc.BisectingKMeans(k, random_state=0),
    "Balanced": lambda k, eps: jc.BalancedKMeans(k, random_state=0),
    "KMedoids": lambda k, eps: jc.KMedoids(k, random_state=0),
    "Mixture": lambda k, eps: jc.GaussianMixture(k, n_init=3, random_state=0),
    "Spectral": lambda k, eps: jc.SpectralClustering(k, affinity="nearest_neighbors", random_state=0),
    "DBSCAN": lambda k, eps: jc.DBSCAN(eps=eps),
    "HDBSCAN": lambda k, eps: jc.HDBSCAN(min_cluster_size=20, min_samples=5),
}
colors = np.array([*jc.plots.PALETTE, "0.75"])
fig, axes = plt.subplots(len(shapes), len(methods), figsize=(13, 8))
for line, (shape, (X, k, eps)) in zip(axes, shapes.items(), strict=True):
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    for ax, (name, make) in zip(line, methods.items(), strict=True):
        labels = np.minimum(make(k, eps).fit_predict(X), len(jc.plots.PALETTE) - 1)
        ax.scatter(*X.T, c=colors[labels], s=5)
        ax.set(xticks=[], yticks=[], title=name if ax in axes[0] else "")
        ax.set_ylabel(shape if ax is line[0] else "")
        ax.spines[:].set_visible(False)
plt.show()

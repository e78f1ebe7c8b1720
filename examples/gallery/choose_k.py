"""The number of clusters: four scores of one sweep.

All k and starts run in one compiled program; the rows have five clusters, two of which nearly touch.

Methods: kmeans
"""

import jax
import matplotlib.pyplot as plt

import jaxcluster as jc

X = jc.datasets.load("blobs:n=500,k=5,seed=3").x
ks = range(2, 9)
fits = jc.kmeans.sweep(jax.random.key(0), X, ks, n_seeds=5)
scores = jc.model_selection.score_sweep(X, ks, fits)

fig, axes = plt.subplots(2, 2, figsize=(9, 5.6))
jc.plots.elbow(ks, scores.inertia, axes[0, 0])
jc.plots.sweep(ks, scores.silhouette, name="silhouette", ax=axes[0, 1])
jc.plots.sweep(ks, scores.davies_bouldin, name="Davies–Bouldin", best="min", ax=axes[1, 0])
jc.plots.sweep(ks, scores.calinski_harabasz, name="Calinski–Harabasz", ax=axes[1, 1])
plt.show()

"""K-means: each row joins its nearest center.

Lines are the borders of the cells of the centers (their Voronoi diagram): clusters of k-means always end at straight
lines.

Methods: kmeans
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("blobs:n=600,k=5,seed=3").x
model = jc.KMeans(n_clusters=5, n_init=10, random_state=0).fit(X)
print(model.inertia_, model.cluster_centers_.shape)

# %% Function
import jax

from jaxcluster import kmeans

fit = kmeans.fit(jax.random.key(0), X, 5, n_init=10)
print(fit.state.inertia, fit.labels[:5], fit.status)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

low, high = X.min(axis=0) - 1, X.max(axis=0) + 1
a, b = np.meshgrid(np.linspace(low[0], high[0], 300), np.linspace(low[1], high[1], 300))
cells = model.predict(np.c_[a.ravel(), b.ravel()].astype(X.dtype)).reshape(a.shape)
ax = jc.plots.clusters_2d(X, model.labels_)
for cluster in range(5):
    ax.contour(a, b, cells == cluster, levels=[0.5], colors="0.6", linewidths=0.8)
ax.set_title("k-means and the cells of its centers", loc="left")
plt.show()

# %% Shell
# jaxcluster fit kmeans blobs:n=600,k=5,seed=3 --k 5 --out runs/kmeans

"""Bisecting k-means: split the worst cluster in two, again and again.

The same rows after one, three, five and seven splits. A split is never undone.

Methods: bisecting-kmeans
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("blobs:n=600,k=8,seed=5").x
model = jc.BisectingKMeans(n_clusters=8, random_state=0).fit(X)
print(model.inertia_)

# %% Function
import jax

from jaxcluster import bisecting

fit = bisecting.fit(jax.random.key(0), X, 8)
print(fit.state.inertia, fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

fig, panels = plt.subplots(1, 4, figsize=(10, 2.8), sharex=True, sharey=True)
for ax, k in zip(panels, (2, 4, 6, 8), strict=True):
    labels = jc.BisectingKMeans(n_clusters=k, random_state=0).fit_predict(X)
    jc.plots.clusters_2d(X, labels, ax=ax)
    ax.set_title(f"{k} clusters", loc="left")
    ax.set(xlabel="", ylabel="")
plt.show()

# %% Shell
# jaxcluster fit bisecting-kmeans blobs:n=600,k=8,seed=5 --k 8 --out runs/bisecting

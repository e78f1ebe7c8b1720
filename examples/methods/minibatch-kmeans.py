"""Mini-batch k-means: a few random batches suffice.

The inertia of the whole set after each batch of 100 rows, beside that of k-means on all rows.

Methods: minibatch-kmeans, kmeans
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("blobs:n=5000,k=8,d=8,seed=1").x
model = jc.MiniBatchKMeans(n_clusters=8, batch_size=500, random_state=0).fit(X)
print(model.inertia_, model.n_steps_)

# %% Function
import jax

from jaxcluster import minibatch

key = jax.random.key(0)
state = minibatch.init(key, X[:500], 8)  # a stream: batches come one at a time
centers = [state.centers]
for start in range(0, len(X), 100):
    state = minibatch.partial_fit(key, state, X[start : start + 100])
    centers.append(state.centers)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

inertia = [float(np.min(((X[:, None] - np.asarray(c)) ** 2).sum(-1), axis=1).sum()) for c in centers]
whole = jc.KMeans(n_clusters=8, n_init=10, random_state=0).fit(X).inertia_
_, ax = plt.subplots(figsize=(6.4, 4))
ax.plot(inertia, color=jc.plots.PALETTE[0], label="mini-batch k-means")
ax.axhline(whole, color="0.4", linestyle="--", label="k-means on all rows")
ax.set(xlabel="batches of 100 rows", ylabel="inertia of all rows", yscale="log")
ax.legend(frameon=False)
plt.show()

# %% Shell
# jaxcluster fit minibatch-kmeans blobs:n=5000,k=8,d=8,seed=1 --k 8 --batch-size 500 --out runs/minibatch

"""K-medoids: each cluster is represented by one of its rows.

Distances are Manhattan's; each row is joined to its medoid. One far row does not drag a medoid away.

Methods: kmedoids
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

X = jc.datasets.load("blobs:n=300,k=3,seed=2").x
X = np.concatenate([X, X.max(axis=0, keepdims=True) + 6])
model = jc.KMedoids(n_clusters=3, metric="manhattan", random_state=0).fit(X)
print(model.medoid_indices_, model.inertia_)

# %% Function
import jax

from jaxcluster import kmedoids

fit = kmedoids.fit(jax.random.key(0), X, 3, metric="manhattan")
print(fit.state.medoids, fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

jc.plots.medoids(X, model.labels_, model.medoid_indices_)
plt.show()

# %% Shell
# jaxcluster fit kmedoids blobs:n=300,k=3,seed=2 --k 3 --metric manhattan --out runs/kmedoids

"""The gradient of a fit: where each row pulls the inertia.

Arrows are the direction in which moving a row lowers the inertia of the k-means fit, by `jax.grad` through the fit.

Methods: kmeans
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

X = jnp.asarray(jc.datasets.load("blobs:n=60,k=3,seed=2").x, jnp.float32)
key = jax.random.key(0)
gradient = jax.grad(lambda x: jc.kmeans.fit(key, x, 3, n_init=5).state.inertia)(X)
labels = jc.kmeans.fit(key, X, 3, n_init=5).labels

_, ax = plt.subplots(figsize=(6.4, 4))
ax.scatter(*X.T, c=np.array(jc.plots.PALETTE)[np.asarray(labels)], s=20)
ax.quiver(*X.T, *-gradient.T, angles="xy", scale_units="xy", scale=4, width=0.003, alpha=0.7)
ax.set_aspect("equal")
plt.show()

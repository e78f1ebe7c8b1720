"""DCN: k-means of codes that are trained for it.

The decoder draws each center: the typical digit of each cluster.

Methods: dcn
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.DCN(10, weight=1.0, hidden=(64,), pretrain_epochs=25, epochs=10, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
counts = jnp.bincount(model.labels_, length=10)
module = deep.DCN(model.module_.autoencoder, model.cluster_centers_, counts, weight=1.0)
result = deep.train(jax.random.key(0), module, rows, epochs=2)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

means = np.stack([model.reconstruct(X[model.labels_ == cluster]).mean(axis=0) for cluster in range(10)])
jc.plots.centers_as_images(means, (8, 8), title="Mean reconstruction of each cluster")
plt.show()

# %% Shell
# jaxcluster fit dcn digits --k 10 --weight 1 --hidden 64 --epochs 10 --out runs/dcn

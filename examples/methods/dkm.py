"""DKM: network and centers trained together, by a smooth k-means loss.

Codes of two dimensions, drawn to their centers.

Methods: dkm
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.DKM(10, hidden=(64,), latent=2, pretrain_epochs=25, epochs=10, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
module = deep.DKM(model.module_.autoencoder, model.cluster_centers_, alpha=10.0, annealed=True)
result = deep.train(jax.random.key(0), module, rows, epochs=2)

# %% Picture
import matplotlib.pyplot as plt

ax = jc.plots.clusters_2d(model.transform(X), model.labels_, title="Codes and their centers")
ax.scatter(*model.cluster_centers_.T, marker="x", color="black")
plt.show()

# %% Shell
# jaxcluster fit dkm digits --k 10 --alpha 1000 --hidden 64 --epochs 10 --out runs/dkm

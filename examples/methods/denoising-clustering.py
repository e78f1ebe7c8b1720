"""Denoising autoencoder whose codes move to centers.

The codes of the digits, projected to a plane; colors are the clusters.

Methods: denoising-clustering
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
options = {"hidden": (64,), "pretrain_epochs": 20, "epochs": 10, "random_state": 0}
model = jc.DenoisingAutoencoderClustering(10, weight=1.0, **options).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
module = deep.DenoisingClustering(model.module_.autoencoder, model.cluster_centers_, weight=1.0)
result = deep.train(jax.random.key(0), module, rows, epochs=2)

# %% Picture
import matplotlib.pyplot as plt

ax = jc.plots.clusters_2d(model.transform(X), model.labels_)
ax.set_title("Codes of the digits", loc="left")
plt.show()

# %% Shell
# jaxcluster fit denoising-clustering digits --k 10 --hidden 64 --epochs 20 --out runs/denoising

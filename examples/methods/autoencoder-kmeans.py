"""Autoencoder and k-means: clusters of short codes.

Ten digits, and what the decoder makes of their codes of ten numbers. k-means runs on the codes.

Methods: autoencoder-kmeans
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.AutoencoderKMeans(10, hidden=(64,), epochs=25, random_state=0).fit(X)
print(model.transform(X).shape, model.reconstruct(X).shape)

# %% Function
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster import deep, kmeans
from jaxcluster.deep.nets import MLP

rows, rngs, key = jnp.asarray(X / 16, jnp.float32), nnx.Rngs(0), jax.random.key(0)
autoencoder = deep.Autoencoder(MLP((64, 64, 10), rngs=rngs), MLP((10, 64, 64), rngs=rngs))
trained = deep.train(key, autoencoder, rows, epochs=5)
codes = deep.map_module(trained.module, "encode", rows)
fit = kmeans.fit(key, codes, 10, n_init=10)

# %% Picture
import matplotlib.pyplot as plt

jc.plots.reconstructions(X[:10], model.reconstruct(X[:10]).clip(0, 16), (8, 8), names=model.labels_[:10])
plt.show()

# %% Shell
# jaxcluster fit autoencoder-kmeans digits --k 10 --hidden 64 --epochs 25 --out runs/autoencoder

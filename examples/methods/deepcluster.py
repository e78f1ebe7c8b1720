"""DeepCluster: a network learns the clusters of its own features.

The normalized mutual information of the clusters of an epoch with those of the one before: they settle.

Methods: deepcluster
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.DeepCluster(10, hidden=(64, 64), epochs=8, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
result = deep.train(jax.random.key(0), model.module_, rows, epochs=1)

# %% Picture
import matplotlib.pyplot as plt

jc.plots.training_curves(model.epoch_history_, name="nmi", title="NMI with the clusters of the epoch before")
plt.show()

# %% Shell
# jaxcluster fit deepcluster digits --k 10 --hidden 64,64 --epochs 8 --out runs/deepcluster

"""TURTLE: labels that a linear classifier learns best.

The mean loss of each head; the one of the least loss is kept. The rows are the digits in their twenty principal
components, which stand for embeddings of a network.

Methods: turtle
"""

# %% Estimator
from sklearn.decomposition import PCA

import jaxcluster as jc

digits = jc.datasets.load("digits")
X = PCA(20, whiten=True, random_state=0).fit_transform(digits.x).astype("float32")
model = jc.TURTLE(10, epochs=30, random_state=0).fit(X)
print(jc.metrics.clustering_accuracy(digits.y, model.labels_))

# %% Function
import jax
from flax import nnx

from jaxcluster import deep

module = deep.TURTLE(20, 10, n_heads=4, rngs=nnx.Rngs(0))
result = deep.train(jax.random.key(0), module, X, epochs=2)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

_, ax = plt.subplots(figsize=(6.4, 3))
order = np.argsort(model.head_losses_)
ax.bar(range(len(order)), model.head_losses_[order] - model.head_losses_.min(), color=jc.plots.PALETTE[0])
ax.set(xlabel="head, in order", ylabel="mean loss above the least")
plt.show()

# %% Shell
# jaxcluster fit turtle digits --k 10 --epochs 20 --out runs/turtle

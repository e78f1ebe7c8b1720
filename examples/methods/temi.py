"""TEMI: a row and its neighbors share a cluster.

The digits of which the head is surest, a line a cluster. The rows are the digits in their twenty principal components,
which stand for embeddings of a network.

Methods: temi
"""

# %% Estimator
from sklearn.decomposition import PCA

import jaxcluster as jc

digits = jc.datasets.load("digits")
X = PCA(20, whiten=True, random_state=0).fit_transform(digits.x).astype("float32")
model = jc.TEMI(10, n_heads=4, epochs=20, random_state=0).fit(X)
print(jc.metrics.clustering_accuracy(digits.y, model.labels_))

# %% Function
import jax
from flax import nnx

from jaxcluster import deep
from jaxcluster.deep.heads import nearest_neighbors

rngs = nnx.Rngs(0)
module = deep.TEMI(20, 10, nearest_neighbors(X, 15), n_heads=4, rngs=rngs)
result = deep.train(jax.random.key(0), module, X, epochs=2)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

surest = np.argsort(-model.transform(X), axis=0)[:10].T
jc.plots.samples(digits.x[surest], (8, 8), title="Digits of which the head is surest, a line a cluster")
plt.show()

# %% Shell
# jaxcluster fit temi digits --k 10 --epochs 20 --out runs/temi

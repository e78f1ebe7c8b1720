"""SCAN: neighbors agree, and all clusters are used.

The fraction of rows with another cluster than an epoch before, through the training. The rows are the digits in their
twenty principal components, which stand for embeddings of a network.

Methods: scan
"""

# %% Estimator
from sklearn.decomposition import PCA

import jaxcluster as jc

digits = jc.datasets.load("digits")
X = PCA(20, whiten=True, random_state=0).fit_transform(digits.x).astype("float32")
model = jc.SCAN(10, n_heads=4, epochs=20, random_state=0).fit(X)
print(jc.metrics.clustering_accuracy(digits.y, model.labels_))

# %% Function
import jax
from flax import nnx

from jaxcluster import deep
from jaxcluster.deep.heads import nearest_neighbors

rngs = nnx.Rngs(0)
module = deep.SCAN(20, 10, nearest_neighbors(X, 15), n_heads=4, rngs=rngs)
result = deep.train(jax.random.key(0), module, X, epochs=2)

# %% Picture
import matplotlib.pyplot as plt

jc.plots.training_curves(model.epoch_history_, name="changed", title="Fraction of rows with another cluster")
plt.show()

# %% Shell
# jaxcluster fit scan digits --k 10 --epochs 20 --out runs/scan

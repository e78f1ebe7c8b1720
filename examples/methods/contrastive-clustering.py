"""Contrastive clustering: rows and clusters are recognized in another view.

The loss of the instance heads through the training. The rows are the digits in their twenty principal components, which
stand for embeddings of a network.

Methods: contrastive-clustering
"""

# %% Estimator
from sklearn.decomposition import PCA

import jaxcluster as jc

digits = jc.datasets.load("digits")
X = PCA(20, whiten=True, random_state=0).fit_transform(digits.x).astype("float32")
model = jc.ContrastiveClustering(10, epochs=30, random_state=0).fit(X)
print(jc.metrics.clustering_accuracy(digits.y, model.labels_))

# %% Function
import jax
from flax import nnx

from jaxcluster import deep
from jaxcluster.deep.views import GaussianNoise

module = deep.ContrastiveClustering(20, 10, augment=GaussianNoise(0.3), rngs=nnx.Rngs(0))
result = deep.train(jax.random.key(0), module, X, epochs=2)

# %% Picture
import matplotlib.pyplot as plt

jc.plots.training_curves(model.epoch_history_, name="instance", title="Loss of the instance heads")
plt.show()

# %% Shell
# jaxcluster fit contrastive-clustering digits --k 10 --epochs 20 --out runs/contrastive

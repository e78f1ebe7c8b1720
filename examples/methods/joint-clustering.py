"""Joint clustering: few labels go a long way.

The accuracy on rows without labels, by the fraction of rows with one.

Methods: joint-clustering, idec
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

digits = jc.datasets.load("digits")
X, options = digits.x, {"hidden": (64,), "pretrain_epochs": 15, "epochs": 5, "random_state": 0}
accuracies = {}
for every in (1000, 50, 10):  # one row in so many has a label
    known = np.where(np.arange(len(X)) % every == 0, digits.y, -1)
    model = jc.JointClustering(10, **options).fit(X, known)
    accuracies[f"1 in {every}"] = jc.metrics.clustering_accuracy(digits.y[known < 0], model.labels_[known < 0])

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
result = deep.train(jax.random.key(0), model.module_, rows, y=known, epochs=1)

# %% Picture
import matplotlib.pyplot as plt

_, ax = plt.subplots(figsize=(6.4, 2.8))
bars = ax.barh(list(accuracies), list(accuracies.values()), color=jc.plots.PALETTE[0])
ax.bar_label(bars, fmt="%.2f", padding=4)
ax.set(xlim=(0, 1), xlabel="accuracy on rows without a label", ylabel="labeled rows")
plt.show()

# %% Shell
# jaxcluster fit joint-clustering digits --k 10 --labels 0.1 --out runs/joint

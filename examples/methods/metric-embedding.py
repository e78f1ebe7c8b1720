"""Metric embedding: some labels shape the space.

Codes of the digits after training with labels of one row in ten; colors are the digits.

Methods: metric-embedding
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

digits = jc.datasets.load("digits")
X, y = digits.x, np.where(np.arange(len(digits.x)) % 10 == 0, digits.y, -1)
model = jc.MetricEmbedding(10, hidden=(64, 64), epochs=10, random_state=0).fit(X, y)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
result = deep.train(jax.random.key(0), model.module_, rows, y=y, epochs=1)

# %% Picture
import matplotlib.pyplot as plt

ax = jc.plots.clusters_2d(model.transform(X), digits.y, method="tsne")
ax.set_title("Codes, colored by digit", loc="left")
plt.show()

# %% Shell
# jaxcluster fit metric-embedding digits --k 10 --labels 0.1 --out runs/metric

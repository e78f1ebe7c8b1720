"""K-modes: clusters of categories.

Each row of the picture is a row of the table, each column an answer; colors are categories. Sorted by cluster, the
modes stand out.

Methods: kmodes
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
kind = rng.permutation(np.repeat(np.arange(3), 30))
modes = rng.integers(0, 4, size=(3, 8))
X = np.where(rng.random((90, 8)) < 0.8, modes[kind], rng.integers(0, 4, size=(90, 8)))
model = jc.KModes(n_clusters=3, n_init=10, random_state=0).fit(X)
print(model.cluster_centers_)

# %% Function
import jax

from jaxcluster import kmodes

fit = kmodes.fit(jax.random.key(0), X, 3, n_init=10)
print(fit.state.centers)

# %% Picture
import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap

fig, panels = plt.subplots(1, 2, figsize=(6.4, 4.2))
order = np.argsort(model.labels_, kind="stable")
for ax, rows, name in zip(panels, (X, X[order]), ("as it came", "by cluster"), strict=True):
    ax.imshow(rows, aspect="auto", cmap=ListedColormap(jc.plots.PALETTE[:4]), interpolation="nearest")
    ax.set_title(name, loc="left")
    ax.set(xlabel="column", yticks=[])
for edge in np.cumsum(np.bincount(model.labels_))[:-1]:
    panels[1].axhline(edge - 0.5, color="white", linewidth=3)
plt.show()

# %% Shell
# jaxcluster fit kmodes answers.csv --k 3 --out runs/answers

"""K-prototypes: numbers and words in one table.

Two groups that overlap in their numbers and differ in a word (circle or triangle). Numbers alone cannot part them.

Methods: kprototypes, kmeans
"""

# %% Estimator
import numpy as np
import pandas as pd

import jaxcluster as jc

rng = np.random.default_rng(0)
group = np.repeat([0, 1, 2], 80)
numbers = rng.normal(size=(240, 2)) + np.array([[0, 0], [1.2, 0.6], [6, 3]])[group]
word = np.where(rng.random(240) < 0.95, np.array(["round", "pointed", "round"])[group], "round")
table = pd.DataFrame({"length": numbers[:, 0], "width": numbers[:, 1], "shape": pd.Categorical(word)})
model = jc.KPrototypes(n_clusters=3, n_init=10, gamma=3.0, random_state=0).fit(table)

# %% Function
import jax

from jaxcluster import kprototypes

codes = table["shape"].cat.codes.to_numpy()[:, None]
fit = kprototypes.fit(jax.random.key(0), numbers, 3, codes=codes, gamma=3.0, n_init=10)
print(fit.state.inertia, fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

plain = jc.KMeans(n_clusters=3, n_init=10, random_state=0).fit_predict(numbers)
fig, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, name, labels in zip(panels, ("numbers alone", "numbers and words"), (plain, model.labels_), strict=True):
    for kind, marker in (("round", "o"), ("pointed", "^")):
        rows = word == kind
        colors = [jc.plots.PALETTE[label] for label in labels[rows]]
        ax.scatter(*numbers[rows].T, c=colors, marker=marker, s=22)
    score = jc.metrics.adjusted_rand_score(group, labels)
    ax.set_title(f"{name}: adjusted Rand index {score:.2f}", loc="left", fontsize=10)
    ax.set(xlabel="length")
panels[0].set_ylabel("width")
plt.show()

# %% Shell
# jaxcluster fit kprototypes table.csv --k 3 --gamma 3 --out runs/mixed

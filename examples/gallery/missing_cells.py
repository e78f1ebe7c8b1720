"""A mixture of rows with missing cells.

A fifth of the cells is missing. Cells are integrated out, and no row is thrown away; ellipses of the complete rows
(gray) and of the rows with missing cells (colored) nearly coincide.

Methods: gmm
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(size=(200, 2)) @ [[2, 1], [0, 0.5]], rng.normal(size=(200, 2)) + [5, -3]])
holes = rng.random(X.shape) < 0.2
holes[holes.all(axis=1)] = False
torn = np.where(holes, np.nan, X).astype(np.float32)
whole = jc.GaussianMixture(2, random_state=0).fit(X.astype(np.float32))
model = jc.GaussianMixture(2, missing=True, random_state=0).fit(torn)

labels = model.predict(torn)
ax = jc.plots.ellipses(X, labels, model.means_, model.covariances_)
angle = np.linspace(0, 2 * np.pi, 100)
for mean, covariance in zip(whole.means_, whole.covariances_, strict=True):
    ring = mean + 2 * np.c_[np.cos(angle), np.sin(angle)] @ np.linalg.cholesky(covariance).T
    ax.plot(*ring.T, color="0.4", linestyle="--")
plt.show()

"""Gaussian mixture: clusters of any size and stretch.

Ellipses are one and two standard deviations of the components. k-means would cut the long clusters.

Methods: gmm
"""

# %% Estimator
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
parts = [
    rng.normal(size=(200, 2)) * [3, 0.4],
    rng.normal(size=(150, 2)) * [0.4, 2.5] + [4, 3],
    rng.normal(size=(80, 2)) * 0.5 + [-3, 4],
]
X = np.concatenate(parts).astype(np.float32)
model = jc.GaussianMixture(n_components=3, n_init=5, random_state=0).fit(X)
print(model.weights_, model.bic(X))

# %% Function
import jax

from jaxcluster import gmm

fit = gmm.fit(jax.random.key(0), X, 3, covariance="full", n_init=5)
print(fit.state.means, gmm.predict_proba(fit.state, X[:2]))

# %% Picture
import matplotlib.pyplot as plt

labels = model.predict(X)
jc.plots.ellipses(X, labels, model.means_, model.covariances_)
plt.show()

# %% Shell
# jaxcluster fit gmm iris --k 3 --covariance full --out runs/gmm

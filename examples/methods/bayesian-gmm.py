"""Bayesian mixture: ten components are offered, three are kept.

Bars are the weights of the components after the fit; the prior empties those that explain little.

Methods: bayesian-gmm, gmm
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("blobs:n=300,k=3,seed=4").x
options = {"n_components": 10, "max_iter": 300, "random_state": 0}
model = jc.BayesianGaussianMixture(weight_concentration_prior=1e-3, **options).fit(X)
print(model.weights_.round(3))

# %% Function
import jax

from jaxcluster import bayesian_gmm

fit = bayesian_gmm.fit(jax.random.key(0), X, 10, weight_concentration_prior=1e-3, max_steps=300)
print(fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

plain = jc.GaussianMixture(**options).fit(X)
_, ax = plt.subplots(figsize=(6.4, 3.4))
places = np.arange(10)
ax.bar(places - 0.2, np.sort(plain.weights_)[::-1], 0.4, color="0.7", label="maximum likelihood")
ax.bar(places + 0.2, np.sort(model.weights_)[::-1], 0.4, color=jc.plots.PALETTE[0], label="variational inference")
ax.set(xlabel="component, by weight", ylabel="weight", xticks=places)
ax.legend(frameon=False)
plt.show()

# %% Shell
# jaxcluster fit bayesian-gmm blobs:n=300,k=3,seed=4 --k 10 --out runs/bayes

"""Spectral clustering: parts of a graph, whatever their shape.

Each row is joined to its nearest rows; clusters are parts of this graph with little weight between them.

Methods: spectral
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("circles:n=300").x
model = jc.SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=10, random_state=0).fit(X)

# %% Function
import jax

from jaxcluster import spectral

fit = spectral.fit(jax.random.key(0), X, 2, affinity="nearest_neighbors", n_neighbors=10)
print(fit.labels[:5])

# %% Picture
import matplotlib.pyplot as plt

jc.plots.neighbor_graph(X, model.labels_, 10).set_aspect("equal")
plt.show()

# %% Shell
# jaxcluster fit spectral circles:n=300 --k 2 --affinity nearest_neighbors --out runs/circles

"""The eigengap: how many parts a graph has.

The smallest eigenvalues of the Laplacian of a neighbor graph. The widest gap follows the third: three parts.

Methods: spectral, spectral-embedding
"""

import jax
import matplotlib.pyplot as plt

import jaxcluster as jc
from jaxcluster import spectral

X = jc.datasets.load("blobs:n=300,k=3,seed=2").x
embedding = spectral.embed(jax.random.key(0), X, 8, affinity="nearest_neighbors", n_neighbors=10)
jc.plots.eigengap(embedding.eigenvalues, k=3)
plt.show()

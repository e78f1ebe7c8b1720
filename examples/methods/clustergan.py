"""ClusterGAN: a generator with a code for each cluster.

Digits that the generator draws, a line a code.

Methods: clustergan
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.ClusterGAN(10, hidden=(128, 128), epochs=8, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
result = deep.train(jax.random.key(0), model.module_, rows, epochs=1)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

drawn = np.stack([model.sample(10, cluster=cluster)[0] for cluster in range(10)])
jc.plots.samples(drawn.clip(0, 16), (8, 8), title="Generated, a line a cluster")
plt.show()

# %% Shell
# jaxcluster fit clustergan digits --k 10 --hidden 128,128 --epochs 8 --out runs/clustergan

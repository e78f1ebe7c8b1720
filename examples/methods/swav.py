"""SwAV: the same prototypes in every view.

The digits nearest to each of ten prototypes, a line a prototype.

Methods: swav
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.SwAV(10, image_shape=(8, 8), epochs=6, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
result = deep.train(jax.random.key(0), model.module_, rows, epochs=1)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

scores = np.asarray(model.module_.embed(model.transform(X))) @ model.prototypes_.T
nearest = np.argsort(-scores, axis=0)[:10].T
jc.plots.samples(X[nearest[:10]], (8, 8), title="Digits nearest to each of ten prototypes")
plt.show()

# %% Shell
# jaxcluster fit swav digits --k 10 --image-shape 8,8 --epochs 6 --out runs/swav

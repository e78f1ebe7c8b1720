"""VaDE: new digits from each cluster.

Each line is drawn from one component of the mixture, through the decoder.

Methods: vade
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.VaDE(10, hidden=(128,), pretrain_epochs=40, epochs=10, random_state=0).fit(X)
print(model.weights_.round(2), model.predict_proba(X).shape)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
mixture = model.weights_, model.cluster_centers_, model.variances_
module = deep.VaDE(model.module_.autoencoder, *mixture)
result = deep.train(jax.random.key(0), module, rows, epochs=2)

# %% Picture
import matplotlib.pyplot as plt
import numpy as np

drawn = np.stack([model.sample(8, cluster=cluster)[0] for cluster in range(10)])
jc.plots.samples(drawn.clip(0, 16), (8, 8))
plt.show()

# %% Shell
# jaxcluster fit vade digits --k 10 --hidden 128 --pretrain-epochs 40 --epochs 10 --out runs/vade

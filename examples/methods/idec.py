"""IDEC: DEC that keeps the decoder.

The two terms of the loss through training. The reconstruction goes on falling; the clustering term follows its target,
which is sharpened anew after every epoch.

Methods: idec, dec
"""

# %% Estimator
import jaxcluster as jc

X = jc.datasets.load("digits").x
model = jc.IDEC(10, gamma=0.1, hidden=(64,), pretrain_epochs=25, epochs=10, random_state=0).fit(X)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
module = deep.IDEC(model.module_.autoencoder, model.cluster_centers_, gamma=0.1)
result = deep.train(jax.random.key(0), module, rows, epochs=2, tol=1e-3)

# %% Picture
import matplotlib.pyplot as plt

records = [record for record in model.epoch_history_ if "clustering" in record]
_, ax = plt.subplots(figsize=(6.4, 3.6))
for color, name in zip(jc.plots.PALETTE, ("reconstruction", "clustering"), strict=False):
    ax.plot([record[name] / records[0][name] for record in records], color=color, label=name)
ax.set(xlabel="epoch", ylabel="loss / loss of the first epoch")
ax.legend(frameon=False)
plt.show()

# %% Shell
# jaxcluster fit idec digits --k 10 --gamma 0.1 --hidden 64 --epochs 10 --out runs/idec

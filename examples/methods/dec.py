"""DEC: confident assignments are sharpened.

Codes of the digits before and after: clusters draw together, and lose what was inside them.

Methods: dec, autoencoder-kmeans
"""

# %% Estimator
import jaxcluster as jc

digits = jc.datasets.load("digits")
X = digits.x
model = jc.DEC(10, hidden=(64,), pretrain_epochs=25, epochs=10, random_state=0).fit(X)
print(model.predict_proba(X).shape)

# %% Function
import jax
import jax.numpy as jnp

from jaxcluster import deep

rows = jnp.asarray(X / 16, jnp.float32)
module = deep.DEC(model.module_.autoencoder, model.cluster_centers_)
result = deep.train(jax.random.key(0), module, rows, epochs=2, tol=1e-3)

# %% Picture
import matplotlib.pyplot as plt

moments = {name: codes for name, codes in model.snapshots_.items() if name != "rows"}
before = [name for name in moments if name.startswith("pretrain")][-1]
chosen = {"pretrained": moments[before], "after DEC": list(moments.values())[-1]}
_, ax = plt.subplots(figsize=(9, 3.8))
jc.plots.embedding_through_training(chosen, digits.y[model.snapshots_["rows"]], ax)
plt.show()

# %% Shell
# jaxcluster fit dec digits --k 10 --hidden 64 --pretrain-epochs 25 --epochs 10 --out runs/dec

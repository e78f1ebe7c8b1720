"""Self-supervised embedding: codes that do not change with the view, by two objectives.

Codes of the digits that were learned from augmented views, without a label; colors are the digits.

Methods: self-supervised-embedding
"""

# %% Estimator
import jaxcluster as jc

digits = jc.datasets.load("digits")
options = {"hidden": (64, 64), "epochs": 30, "select": "trained", "random_state": 0}
model = jc.SelfSupervisedEmbedding(10, objective="simclr", **options).fit(digits.x)

# %% Function
import jax
import jax.numpy as jnp
from flax import nnx

from jaxcluster import deep

rngs = nnx.Rngs(0)
encoder, projector = deep.nets.Projector((64, 64, 32), rngs=rngs), deep.nets.Projector((32, 64, 64), rngs=rngs)
module = deep.SelfSupervised(
    encoder, 10, 32, views=deep.views.table_views(), objective="barlow-twins", projector=projector
)
rows = jnp.asarray(digits.x / 8 - 1, jnp.float32)
result = deep.train(jax.random.key(0), module, rows, epochs=20)

# %% Picture
import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 2, figsize=(10, 5))
codes = {"SimCLR": model.transform(digits.x), "Barlow Twins": deep.map_module(result.module, "features", rows)}
for ax, (name, z) in zip(axes, codes.items(), strict=True):
    jc.plots.clusters_2d(z[::3], digits.y[::3], method="tsne", ax=ax)
    ax.set_title(f"Codes by {name}, colored by digit", loc="left")
plt.show()

# %% Shell
# jaxcluster fit self-supervised-embedding digits --k 10 --objective vicreg --epochs 20 --out runs/views

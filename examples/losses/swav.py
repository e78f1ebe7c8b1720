"""Swapped prediction: balanced assignments, and the gradient of the scores.

Scores of sixteen samples with four prototypes, most of them in favor of the first. The assignments by Sinkhorn's
iteration use all four equally, and the gradient moves scores toward them.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc
from jaxcluster import sinkhorn

noise = jax.random.normal(jax.random.key(0), (16, 4))
scores = 0.15 * noise + jnp.array([0.5, 0.2, 0.0, -0.1])
targets = sinkhorn.swav_assignments(scores, epsilon=0.05)
push = -jax.grad(jc.losses.swapped_prediction_loss)(scores, scores)

fig, panels = plt.subplots(1, 3, figsize=(9, 4), sharey=True)
shown = {"softmax(scores / τ)": jax.nn.softmax(scores / 0.1), "balanced assignments": targets, "−gradient": push}
for ax, (name, values) in zip(panels, shown.items(), strict=True):
    most = float(jnp.abs(values).max())
    low, cmap = (-most, "RdBu") if name == "−gradient" else (0, "Blues")
    fig.colorbar(ax.imshow(values, aspect="auto", cmap=cmap, vmin=low, vmax=most), ax=ax)
    ax.set(title=name, xlabel="prototype", xticks=range(4))
panels[0].set_ylabel("sample")
plt.show()

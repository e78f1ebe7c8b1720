"""Wasserstein barycenter: the mean of shapes.

Between a ring and a square, with weights from 0 to 1: points move, and do not fade.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc
from jaxcluster import sinkhorn

rng = np.random.default_rng(0)
angle = rng.uniform(0, 2 * np.pi, 200)
ring = np.c_[np.cos(angle), np.sin(angle)]
side, place = rng.integers(0, 4, 200), rng.uniform(-1, 1, 200)
edge = np.where(side % 2 == 0, 1, -1)
square = np.where(side[:, None] < 2, np.c_[edge, place], np.c_[place, edge])
clouds = [ring.astype(np.float32), square.astype(np.float32)]
fig, panels = plt.subplots(1, 5, figsize=(11, 2.6), sharex=True, sharey=True)
for ax, weight in zip(panels, np.linspace(0, 1, 5), strict=True):
    weights = np.array([1 - weight, weight]) + 1e-6
    fit = sinkhorn.barycenter(jax.random.key(0), clouds, 100, weights=weights, epsilon=0.01)
    ax.scatter(*np.asarray(fit.state.centers).T, s=8, color=jc.plots.PALETTE[0])
    ax.set(title=f"weight {weight:.2f}", aspect="equal", xticks=[], yticks=[])
plt.show()

"""EM becomes k-means as the variance goes to 0.

Responsibilities of soft k-means with one fixed variance σ²: mixed colors at a large σ², and one color a row at the end,
with straight borders.

Methods: gmm, kmeans
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.colors import to_rgb

import jaxcluster as jc
from jaxcluster import soft_kmeans

X = jc.datasets.load("blobs:n=300,k=3,seed=2").x
colors = np.array([to_rgb(color) for color in jc.plots.PALETTE[:3]])
start = jc.KMeans(3, n_init=5, random_state=0).fit(X).cluster_centers_
low, high = X.min(axis=0) - 1, X.max(axis=0) + 1
a, b = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 90))
grid = np.c_[a.ravel(), b.ravel()].astype(np.float32)
variances = [*np.geomspace(40, 0.05, 18), *[0.05] * 4]
pictures = []
for variance in variances:
    fit = soft_kmeans.fit(jax.random.key(0), X, 3, variance=variance, init=start)
    shares = np.asarray(soft_kmeans.responsibilities(fit.state.centers, grid, variance))
    pictures.append((np.asarray(fit.state.centers), (shares @ colors).reshape(*a.shape, 3)))
fig, ax = plt.subplots(figsize=(5, 4))


def draw(frame):
    ax.clear()
    centers, background = pictures[frame]
    ax.imshow(background, extent=(low[0], high[0], low[1], high[1]), origin="lower", aspect="auto", alpha=0.55)
    ax.scatter(*X.T, s=5, color="0.2")
    ax.scatter(*centers.T, marker="x", s=70, color="black")
    ax.set_title(f"σ² = {variances[frame]:.2f}", loc="left")
    ax.set(xticks=[], yticks=[])


animation = FuncAnimation(fig, draw, frames=len(variances))

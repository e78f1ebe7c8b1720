"""Lloyd's iteration, step by step.

Rows join the nearest center, centers move to the mean of their rows; in between the inertia falls.

Methods: kmeans
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

import jaxcluster as jc

X = jc.datasets.load("blobs:n=300,k=5,seed=3").x
centers = [X[[0, 1, 2, 3, 4]]]
for steps in range(1, 11):
    fit = jc.kmeans.fit(jax.random.key(0), X, 5, init=centers[0], max_steps=steps, tol=0.0)
    centers.append(np.asarray(fit.state.centers))

fig, ax = plt.subplots(figsize=(5, 4))
colors = np.array(jc.plots.PALETTE)


def draw(step):
    ax.clear()
    now = centers[step]
    squares = ((X[:, None] - now) ** 2).sum(axis=2)
    ax.scatter(*X.T, c=colors[squares.argmin(axis=1)], s=10)
    trail = np.array(centers[: step + 1])
    for j in range(5):
        ax.plot(*trail[:, j].T, color="black", linewidth=1)
    ax.scatter(*now.T, marker="x", color="black", s=60)
    ax.set_title(f"step {step}: inertia {squares.min(axis=1).sum():.0f}", loc="left")
    ax.set(xticks=[], yticks=[])


animation = FuncAnimation(fig, draw, frames=len(centers))

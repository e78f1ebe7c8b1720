"""DBSCAN: a cluster grows from core sample to core sample.

From one row, all rows within the radius join; from each of them that is a core sample too, all rows within the radius
join in turn, until none is left.

Methods: dbscan
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

import jaxcluster as jc

rng = np.random.default_rng(0)
X = np.concatenate([jc.datasets.load("moons:n=200").x, rng.uniform([-1.5, -1], [2.5, 1.5], (20, 2))])
model = jc.DBSCAN(eps=0.2, min_samples=5).fit(X)
near = np.linalg.norm(X[:, None] - X, axis=2) <= 0.2
core = near.sum(axis=1) >= 5
steps, colors = [], np.array([*jc.plots.PALETTE, "0.8"])
shown = np.zeros(len(X), bool)
for cluster in range(model.labels_.max() + 1):
    front = np.flatnonzero(core & (model.labels_ == cluster))[:1]
    while front.size:
        shown[front] = True
        steps.append((shown.copy(), front))
        reached = near[front[core[front]]].any(axis=0) & ~shown & (model.labels_ == cluster)
        front = np.flatnonzero(reached)
steps = steps[:: max(1, len(steps) // 24)] + [(model.labels_ >= 0, np.array([], int))] * 4
fig, ax = plt.subplots(figsize=(5.4, 3.6))


def draw(frame):
    ax.clear()
    inside, front = steps[frame]
    ax.scatter(*X.T, c=np.where(inside, colors[model.labels_], "0.8"), s=12)
    for place in X[front]:
        ax.add_patch(plt.Circle(place, 0.2, fill=False, color="0.6", linewidth=0.6))
    ax.set(xticks=[], yticks=[], aspect="equal", title=f"{inside.sum()} of {len(X)} rows in a cluster")


animation = FuncAnimation(fig, draw, frames=len(steps))

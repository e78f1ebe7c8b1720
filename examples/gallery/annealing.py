"""Deterministic annealing: clusters split as the variance falls.

Where five centers of soft k-means lie, by σ². At a large σ² all are one; the starting point hardly matters.

Methods: kmeans
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc
from jaxcluster import soft_kmeans

X = np.concatenate([np.random.default_rng(j).normal(place, 0.3, 60) for j, place in enumerate((-4, -2.5, 0, 3, 4))])
X = X[:, None].astype(np.float32)
variances = np.geomspace(20, 0.05, 40)
centers = None
lines = []
for variance in variances:
    start = X[:: len(X) // 5][:5] if centers is None else centers
    noise = np.random.default_rng(0).normal(size=(5, 1)) * 1e-2
    fit = soft_kmeans.fit(jax.random.key(0), X, 5, variance=variance, init=np.asarray(start) + noise)
    centers = np.asarray(fit.state.centers)
    lines.append(np.sort(centers[:, 0]))

_, ax = plt.subplots(figsize=(6.4, 4))
ax.plot(variances, np.array(lines), color=jc.plots.PALETTE[0])
ax.scatter(np.full(len(X), 0.04), X, s=4, color="0.6")
ax.set(xscale="log", xlabel="variance σ²", ylabel="centers; rows at the left")
plt.show()

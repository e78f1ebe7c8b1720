"""Anomaly scores: densities of a mixture, and GLOSH of HDBSCAN.

The ten rows with the greatest scores have a ring.

Methods: gmm, hdbscan
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(1)
X = np.concatenate([jc.datasets.load("blobs:n=300,k=3,seed=2").x, rng.uniform(-10, 6, (10, 2))]).astype(np.float32)
scores = {
    "−log density of a mixture": -jc.GaussianMixture(3, n_init=3, random_state=0).fit(X).score_samples(X),
    "outlier score of HDBSCAN": jc.HDBSCAN(min_cluster_size=15).fit(X).outlier_scores_,
}
fig, panels = plt.subplots(1, 2, figsize=(9.5, 3.8))
for ax, (name, score) in zip(panels, scores.items(), strict=True):
    drawn = ax.scatter(*X.T, c=np.argsort(np.argsort(score)), cmap="viridis", s=14)
    ax.scatter(*X[np.argsort(score)[-10:]].T, s=90, facecolors="none", edgecolors="crimson")
    ax.set_title(name, loc="left")
plt.show()

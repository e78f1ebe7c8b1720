"""Silhouettes: which rows sit well in their cluster.

A bar a row, by cluster. Negative ones are nearer to another cluster than to their own.

Methods: kmeans
"""

import matplotlib.pyplot as plt

import jaxcluster as jc

X = jc.datasets.load("iris").x
labels = jc.KMeans(3, n_init=10, random_state=0).fit_predict(X)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
jc.plots.clusters_2d(X, labels, ax=left)
jc.plots.silhouette(X, labels, ax=right)
plt.show()

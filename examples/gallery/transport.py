"""Sinkhorn's plan between two sets of points.

Lines are the heaviest entries of the plan; right the same plan as a matrix. A smaller ε makes it sharper.
"""

import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc
from jaxcluster import sinkhorn

rng = np.random.default_rng(0)
x = rng.normal(size=(30, 2)).astype(np.float32)
angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
y = (np.c_[np.cos(angle), np.sin(angle)] * 2 + [5, 0]).astype(np.float32)
transport = sinkhorn.solve(x, y, epsilon=0.05)
plan = sinkhorn.plan(transport, x, y)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
jc.plots.transport_plan(plan, x, y, ax=left)
jc.plots.transport_plan(plan, ax=right)
plt.show()

"""Sinkhorn's plan as ε falls.

The plan between two samples on a line, in order. A large ε spreads each row's mass over all others; as ε goes to 0 the
plan becomes the matching of sorted samples.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation

from jaxcluster import sinkhorn

rng = np.random.default_rng(0)
x = np.sort(rng.normal(size=40))[:, None].astype(np.float32)
y = np.sort(np.concatenate([rng.normal(-2, 0.5, 20), rng.normal(2, 0.5, 20)]))[:, None].astype(np.float32)
epsilons = [*np.geomspace(20, 0.01, 20), *[0.01] * 4]
plans = []
for epsilon in epsilons:
    transport = sinkhorn.solve(x, y, epsilon=epsilon)
    plans.append(np.asarray(sinkhorn.plan(transport, x, y)))
fig, ax = plt.subplots(figsize=(4.4, 4.2))


def draw(frame):
    ax.clear()
    ax.imshow(plans[frame], cmap="Blues", vmin=0)
    ax.set_title(f"ε = {epsilons[frame]:.3g}", loc="left")
    ax.set(xlabel="target, in order", ylabel="source, in order", xticks=[], yticks=[])


animation = FuncAnimation(fig, draw, frames=len(epsilons))

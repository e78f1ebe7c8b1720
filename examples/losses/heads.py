"""SCAN's loss: neighbors agree, and both clusters are used.

Two pairs of neighbors and two clusters. If all rows go to the first cluster with probability p (solid), agreement is
best at both ends, and the entropy pulls back to the middle. If the pairs go to different clusters (dashed), both terms
agree.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

p = jnp.linspace(0.02, 0.98, 193)


def loss(p, apart, weight):
    second = 1 - p if apart else p
    probabilities = jnp.stack([jnp.stack([p, 1 - p]), jnp.stack([second, 1 - second])])
    logits = jnp.log(probabilities)[None]
    return jc.losses.scan_loss(logits, logits, entropy_weight=weight)[0]


fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5))
for color, weight in zip(jc.plots.PALETTE, (0.0, 1.0, 2.0), strict=False):
    for apart, style in ((False, "-"), (True, "--")):
        one = jax.value_and_grad(lambda p, a=apart, w=weight: loss(p, a, w))
        values, slopes = jax.vmap(one)(p)
        top.plot(p, values, style, color=color, label=None if apart else f"entropy weight {weight:g}")
        bottom.plot(p, slopes, style, color=color)
top.set_ylabel("loss")
top.legend(frameon=False)
bottom.set(xlabel="probability of the first cluster", ylabel="gradient", ylim=(-5, 5))
plt.show()

"""Soft normalized cut while a border moves along a chain of three groups.

Left the affinity of the samples, right the loss by the place of the border: two minima, at the gaps between the groups,
and the gradient changes its sign there.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

rng = np.random.default_rng(0)
x = np.sort(np.concatenate([rng.normal(place, 0.35, 20) for place in (0, 3, 6.5)]))
affinity = jnp.asarray(np.exp(-((x[:, None] - x) ** 2)), jnp.float32)


def loss(border):
    right = jax.nn.sigmoid((jnp.asarray(x) - border) / 0.2)
    return jc.losses.soft_ncut(jnp.stack([1 - right, right], axis=1), affinity)


borders = jnp.linspace(-0.5, 7, 300)
fig, (left, middle) = plt.subplots(1, 2, figsize=(9, 3.8))
left.imshow(affinity, cmap="Blues")
left.set(title="affinity", xlabel="sample", ylabel="sample")
middle.plot(borders, jax.vmap(loss)(borders), color=jc.plots.PALETTE[0], label="loss")
middle.plot(borders, jax.vmap(jax.grad(loss))(borders), color=jc.plots.PALETTE[1], label="gradient")
middle.scatter(x, np.full(x.size, -1.4), marker="|", color="0.5")
middle.set(xlabel="place of the border", ylim=(-1.5, 1.5))
middle.legend(frameon=False)
plt.show()

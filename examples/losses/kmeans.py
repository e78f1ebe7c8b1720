"""Hard and soft k-means loss of a sample on a line, and their gradients.

Crosses are three centers. The larger the variance, the smoother the loss; at the kinks of the hard loss two centers are
equally near.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

centers = jnp.array([[-2.0], [0.5], [2.5]])
x = jnp.linspace(-4, 4, 401)


def hard(value):
    return jc.losses.kmeans_loss(value[None, None], centers)


def soft(value, variance):
    return jc.losses.soft_kmeans_loss(value[None, None], centers, variance=variance)


fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5))
curves = {"k-means": hard} | {f"soft, σ² = {v}": lambda value, v=v: soft(value, v) for v in (0.1, 0.5)}
for color, (name, loss) in zip(jc.plots.PALETTE, curves.items(), strict=False):
    top.plot(x, jax.vmap(loss)(x), color=color, label=name)
    bottom.plot(x, jax.vmap(jax.grad(loss))(x), color=color)
top.scatter(centers[:, 0], jnp.zeros(3), marker="x", color="black", zorder=5)
top.set_ylabel("loss")
top.legend(frameon=False)
bottom.set(xlabel="place of the sample", ylabel="gradient")
plt.show()

"""Contrastive loss of a pair by its distance, and NT-Xent by the cosine, with their gradients.

Positive pairs are drawn together. Negative ones are driven apart, up to the margin. A low temperature of NT-Xent looks
at the hardest negatives.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc


def pair(distance, same):
    a = jnp.stack([distance, 0.0])[None]
    return jc.losses.contrastive_loss(a, jnp.zeros((1, 2)), jnp.array([same]), margin=2.0)


def ntxent(angle, temperature):
    others = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    a = jnp.concatenate([jnp.array([[1.0, 0.0]]), others])
    b = jnp.concatenate([jnp.stack([jnp.cos(angle), jnp.sin(angle)])[None], others])
    return jc.losses.nt_xent_loss(a, b, temperature=temperature)


fig, axes = plt.subplots(2, 2, sharex="col", figsize=(9, 5))
distances, angles = jnp.linspace(0.01, 3, 200), jnp.linspace(0, jnp.pi, 200)
left = {"positive pair": lambda d: pair(d, True), "negative pair": lambda d: pair(d, False)}
right = {f"τ = {t}": lambda a, t=t: ntxent(a, t) for t in (0.2, 0.5, 1.0)}
for column, x, curves in ((0, distances, left), (1, angles, right)):
    for color, (name, loss) in zip(jc.plots.PALETTE, curves.items(), strict=False):
        axes[0, column].plot(x, jax.vmap(loss)(x), color=color, label=name)
        axes[1, column].plot(x, jax.vmap(jax.grad(loss))(x), color=color)
    axes[0, column].legend(frameon=False)
axes[0, 0].set(title="contrastive loss", ylabel="loss")
axes[0, 1].set_title("NT-Xent of two views")
axes[1, 0].set(xlabel="distance", ylabel="gradient")
axes[1, 1].set_xlabel("angle between the views")
plt.show()

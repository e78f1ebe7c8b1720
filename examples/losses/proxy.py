"""Loss of a row by its angle to its class, with the other class at a right angle: without a margin, CosFace, ArcFace.

A margin moves the curve: at the angle where a plain cross-entropy is content, the loss still has a gradient.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

angles = jnp.linspace(0.01, jnp.pi / 2, 150)
classes = jnp.eye(2)
losses = {
    "no margin": lambda z: jc.losses.cosface_loss(z, jnp.array([0]), classes, margin=0.0, scale=8.0),
    "CosFace, 0.35": lambda z: jc.losses.cosface_loss(z, jnp.array([0]), classes, margin=0.35, scale=8.0),
    "ArcFace, 0.5": lambda z: jc.losses.arcface_loss(z, jnp.array([0]), classes, margin=0.5, scale=8.0),
}
fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5))
for color, (name, loss) in zip(jc.plots.PALETTE, losses.items(), strict=False):
    of_angle = jax.value_and_grad(lambda a, f=loss: f(jnp.stack([jnp.cos(a), jnp.sin(a)])[None]))
    values, slopes = jax.vmap(of_angle)(angles)
    top.plot(jnp.degrees(angles), values, color=color, label=name)
    bottom.plot(jnp.degrees(angles), slopes, color=color)
top.set_ylabel("loss")
top.legend(frameon=False)
bottom.set(xlabel="angle between the row and its class (degrees)", ylabel="gradient")
plt.show()

"""Four losses of two views whose agreement changes, and their gradients.

The embeddings of the second view are those of the first, turned by an angle. All four are least where the views agree.
VICReg alone depends on the length of the embeddings. The dashed line is that of embeddings of half the length, whose
standard deviation is too small.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

z = jax.random.normal(jax.random.key(0), (64, 2))
z = jnp.linalg.qr(z - z.mean(axis=0))[0] * jnp.sqrt(63.0)


def turned(angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return z @ jnp.stack([cos, sin, -sin, cos]).reshape(2, 2)


losses = {
    "Barlow Twins": lambda angle: jc.losses.barlow_twins_loss(turned(angle), z),
    "VICReg": lambda angle: jc.losses.vicreg_loss(turned(angle), z),
    "negative cosine": lambda angle: jc.losses.negative_cosine_loss(turned(angle), z),
    "DINO": lambda angle: jc.losses.dino_loss(0.2 * turned(angle), 0.2 * z, jnp.zeros(2)),
}
small = {"VICReg": lambda angle: jc.losses.vicreg_loss(turned(angle) / 2, z / 2)}
angles = jnp.linspace(-jnp.pi, jnp.pi, 121)
fig, axes = plt.subplots(2, 4, sharex=True, figsize=(11, 5))
for column, color, (name, loss) in zip(axes.T, jc.plots.PALETTE, losses.items(), strict=False):
    for each, style in ((loss, "-"), (small.get(name), "--")):
        if each is not None:
            column[0].plot(angles, jax.vmap(each)(angles), style, color=color)
            column[1].plot(angles, jax.vmap(jax.grad(each))(angles), style, color=color)
    column[0].set_title(name)
    column[1].set_xlabel("angle")
axes[0, 0].set_ylabel("loss")
axes[1, 0].set_ylabel("gradient")
fig.tight_layout()
plt.show()

"""Multi-similarity and circle loss of one anchor by the cosine of its positive and of its negative.

The darker, the larger the loss. Both are small in the corner of a near positive and a far negative; the circle loss is
named after the shape of its levels there.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

near, far = jnp.meshgrid(jnp.linspace(-1, 1, 40), jnp.linspace(-1, 1, 40))


def batch(s_p, s_n):
    rows = [[1.0, 0.0, 0.0], [s_p, jnp.sqrt(1 - s_p**2), 0.0], [s_n, 0.0, jnp.sqrt(1 - s_n**2)]]
    return jnp.stack([jnp.stack([jnp.asarray(v, jnp.float32) for v in row]) for row in rows])


labels = jnp.array([0, 0, 1])
anchor = jnp.zeros((3, 3), bool).at[0].set(True)
losses = {
    "multi-similarity": lambda z: jc.losses.multi_similarity_loss(z, labels, beta=5.0, pairs=anchor),
    "circle": lambda z: jc.losses.circle_loss(z, labels, scale=5.0, pairs=anchor),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
for ax, (name, loss) in zip(axes, losses.items(), strict=True):
    values = jax.vmap(lambda p, n, f=loss: f(batch(p, n)))(near.ravel(), far.ravel())
    filled = ax.contourf(near, far, values.reshape(near.shape), levels=14, cmap="Blues")
    fig.colorbar(filled, ax=ax)
    ax.set(title=name, xlabel="cosine of the positive")
axes[0].set_ylabel("cosine of the negative")
plt.show()

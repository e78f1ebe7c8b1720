"""Triplet loss by the distances of the positive and the negative, and the descent direction of a batch.

Left: the loss is zero where the negative is farther than the positive by the margin. Right: semi-hard triplets push
each sample of a batch in the direction of its arrow.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxcluster as jc

near, far = jnp.meshgrid(jnp.linspace(0, 3, 60), jnp.linspace(0, 3, 60))


def point(distance):
    return jnp.stack([distance.ravel(), jnp.zeros(distance.size)], axis=1)


values = jc.losses.triplet_loss(point(near * 0), point(near), point(far), margin=1.0, reduction="none")
rng = np.random.default_rng(3)
labels = np.repeat(np.arange(3), 8)
z = jnp.asarray(np.array([[-1.3, -0.5], [1.3, -0.6], [0.1, 1.3]])[labels] + rng.normal(size=(24, 2)) * 0.6)
push = -jax.grad(lambda z: jc.losses.mined_triplet_loss(z, jnp.asarray(labels), margin=1.0))(z)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
filled = left.contourf(near, far, values.reshape(near.shape), levels=12, cmap="Blues")
fig.colorbar(filled, ax=left, label="loss")
left.set(xlabel="distance of the positive", ylabel="distance of the negative", title="margin 1")
right.scatter(*z.T, c=np.array(jc.plots.PALETTE)[labels], s=26)
right.quiver(*z.T, *push.T, angles="xy", width=0.006, alpha=0.7)
right.set(title="−gradient of a batch", aspect="equal")
plt.show()

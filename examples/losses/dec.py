"""DEC: responsibilities by Student's t, the sharper target, and the gradient between two centers.

The gradient of a code points to the center that it already prefers, and is weak near the middle.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

centers = jnp.array([[0.0], [4.0]])
z = jnp.linspace(-1, 5, 241)[:, None]
q = jc.losses.student_t_assignments(z, centers)
p = jc.losses.target_distribution(q)


def loss(z, target):
    return jc.losses.dec_loss(jc.losses.student_t_assignments(z[None], centers), target[None])


fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5))
top.plot(z, q[:, 0], color=jc.plots.PALETTE[0], label="q of the left center")
top.plot(z, p[:, 0], color=jc.plots.PALETTE[1], label="its target p")
top.plot(z, jax.vmap(loss)(z, p), color="0.5", linestyle="--", label=r"$\mathrm{KL}(p\,\Vert\,q)$")
top.scatter(centers[:, 0], jnp.zeros(2), marker="x", color="black", zorder=5)
top.legend(frameon=False)
bottom.plot(z, jax.vmap(jax.grad(loss))(z, p), color=jc.plots.PALETTE[0])
bottom.axhline(0, color="0.8", linewidth=0.8)
bottom.set(xlabel="code", ylabel="gradient")
plt.show()

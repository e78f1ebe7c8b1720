"""Wasserstein critic between two distributions on a line, and its gradient penalty.

The best critic of slope at most 1 rises from the generated samples to the real ones; its mean difference is the
distance. The penalty keeps the slope near 1.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

real = 2 + 0.5 * jax.random.normal(jax.random.key(0), (400, 1))
fake = -1 + 0.5 * jax.random.normal(jax.random.key(1), (400, 1))
between = jc.losses.points_between(jax.random.key(2), real, fake)
slopes = jnp.linspace(0, 2, 101)


def total(slope, weight):
    def critic(x):
        return slope * x[:, 0]

    penalty = jc.losses.gradient_penalty(critic, between)
    return jc.losses.wasserstein_critic_loss(critic(real), critic(fake)) + weight * penalty


fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
for values, name, color in ((fake, "generated", jc.plots.PALETTE[1]), (real, "real", jc.plots.PALETTE[0])):
    left.hist(values[:, 0], bins=30, color=color, alpha=0.7, label=name)
left.set(xlabel="x", ylabel="samples")
left.legend(frameon=False)
for color, weight in zip(jc.plots.PALETTE, (0.0, 1.0, 10.0), strict=False):
    right.plot(slopes, jax.vmap(lambda s, w=weight: total(s, w))(slopes), color=color, label=f"λ = {weight:g}")
    gradient = jax.vmap(jax.grad(lambda s, w=weight: total(s, w)))(slopes)
    right.plot(slopes, gradient, color=color, linestyle=":")
right.set(xlabel="slope of a linear critic", ylabel="loss, and its gradient (dotted)", ylim=(-8, 8))
right.legend(frameon=False)
plt.show()

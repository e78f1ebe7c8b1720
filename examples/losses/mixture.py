"""Negative log-likelihood of a sample under a mixture of two components, and its gradient.

Dotted: the components alone. Far out the gradient grows with the distance from the nearer component, in units of its
variance.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxcluster as jc

weights, means, variances = jnp.array([0.7, 0.3]), jnp.array([[-1.0], [2.0]]), jnp.array([[1.0], [0.1]])
x = jnp.linspace(-4, 4, 401)


def loss(value, weights=weights, means=means, variances=variances):
    return jc.losses.mixture_nll(value[None, None], weights, means, variances, covariance="diag")


fig, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5))
for j, color in enumerate(jc.plots.PALETTE[:2]):
    one = jax.vmap(lambda value, j=j: loss(value, jnp.ones(1), means[j : j + 1], variances[j : j + 1]))(x)
    top.plot(x, one - jnp.log(weights[j]), color=color, linestyle=":", label=f"component {j}")
top.plot(x, jax.vmap(loss)(x), color="black", label="mixture")
top.set(ylabel="loss (nats)", ylim=(0, 10))
top.legend(frameon=False)
bottom.plot(x, jax.vmap(jax.grad(loss))(x), color="black")
bottom.set(xlabel="place of the sample", ylabel="gradient", ylim=(-8, 8))
plt.show()

"""Samples near a plane, and the options of a short training on them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.deep import adam

N, D, L = 48, 4, 2
"""Samples, features, and dimension of the codes."""

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(N, L)) @ RNG.normal(size=(L, D)) + 0.1 * RNG.normal(size=(N, D))).astype(np.float32)
ROWS = jnp.asarray(X)
KEY = jax.random.key(2)
OPTIONS = {"epochs": 3, "batch_size": 16, "optimizer": adam(1e-2)}

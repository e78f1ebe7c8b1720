"""Images and colors to augment, and a view of them as one compiled program."""

from __future__ import annotations

import jax

KEY = jax.random.key(2)
SHAPE, COLORED = (5, 7, 2), (5, 7, 3)
IMAGES = jax.random.normal(jax.random.key(3), (6, 70))
COLORS = jax.random.uniform(jax.random.key(4), (6, 105))


apply_view = jax.jit(lambda view, key, x: view(key, x), static_argnums=0)
"""Apply a view in one program: outside of jit each of its operations would be compiled alone."""


def shapes(view, x):
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(view, KEY, x))

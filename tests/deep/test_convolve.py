"""Convolutions by columns are convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcluster.deep.nets.layers import convolve

OPTIONS = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": None}


@pytest.mark.parametrize(
    ("image", "kernel", "stride"),
    [((8, 8), (3, 3), 2), ((7, 9), (3, 3), 2), ((7, 5), (3, 5), 3), ((5, 6), (2, 2), 1), ((1, 1), (3, 3), 2)],
)
def test_values_and_slopes_are_those_of_a_convolution(image, kernel, stride):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(3, *image, 2)))
    weights = jnp.float32(rng.normal(size=(*kernel, 2, 4)))

    def value(how):
        def total(x, weights):
            seen = how(x, weights, (stride, stride), "SAME", **OPTIONS)
            return jnp.sum(jnp.sin(seen)), seen

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, weights)

    (_, seen), gradients = value(convolve)
    (_, expected), expected_gradients = value(jax.lax.conv_general_dilated)
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)

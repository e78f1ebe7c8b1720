"""JAX's own switches, which every public function is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax

STRICT = {
    "jax_debug_nans": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}
LEAKS = {"jax_check_tracer_leaks": True}
"""Takes the caches of traces away, and with them most of the time."""

IN_64_BITS = {"jax_enable_x64": True}


@contextmanager
def switched(switches: Mapping[str, object]) -> Iterator[None]:
    """Sets switches, and gives the values before back."""
    before = {name: getattr(jax.config, name) for name in switches}
    try:
        for name, value in switches.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)

"""JAX's own switches, which every public function is called with."""

from __future__ import annotations

import gc
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
    """Sets switches, and gives the values before back.

    JAX looks for leaked tracers by a collection of garbage after every trace. What is there before is left out of
    these: with the objects of a whole run of tests each would take a second.
    """
    before = {name: getattr(jax.config, name) for name in switches}
    look = LEAKS.items() <= switches.items()
    if look:
        gc.freeze()
    try:
        for name, value in switches.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        if look:
            gc.unfreeze()

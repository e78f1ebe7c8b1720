"""``jaxcluster info``: what runs here."""

from __future__ import annotations


def info() -> None:
    """Show versions, devices, algorithms and where compiled programs are kept."""
    import jax

    from jaxcluster.cli import console, runtime
    from jaxcluster.estimators import ESTIMATORS

    printer = console.stdout()
    runtime.start()
    device = runtime.device()
    facts = [
        *runtime.versions().items(),
        ("backend", device["backend"]),
        ("devices", f"{device['count']} × {device['kind']}"),
        ("64-bit numbers", "on" if jax.config.jax_enable_x64 else "off"),
    ]
    console.show_table(printer, "What runs here", ("", ""), facts, text=(0, 1))
    algorithms = [(name, ESTIMATORS.info(name).title) for name in ESTIMATORS]
    console.show_table(printer, "Algorithms", ("", ""), algorithms, text=(0, 1))
    console.say(printer, f"Compiled programs: {jax.config.jax_compilation_cache_dir or 'not kept'}")

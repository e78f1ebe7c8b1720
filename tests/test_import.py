"""Importing the package is cheap and changes nothing; what it promises is there; its signatures are checked here."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import jaxtyping
import pytest

import jaxcluster
from jaxcluster import deep
from jaxcluster.ops import distance

ROOT = Path(__file__).parents[1]
HEAVY = {"sklearn", "matplotlib", "typer", "rich", "pyarrow", "pandas", "flax", "optax", "orbax", "IPython"}

PROBE = """
import json, sys
import jax, jax.numpy
before, loaded = {name: repr(value) for name, value in jax.config.values.items()}, set(sys.modules)
import jaxcluster
after = {name: repr(value) for name, value in jax.config.values.items()}
new = sorted(set(sys.modules) - loaded)
jax.config.update("jax_num_cpu_devices", 3)
devices = jax.local_device_count(backend="cpu")
print(json.dumps({"before": before, "after": after, "new": new, "devices": devices}))
"""


@cache
def public_modules() -> list[ModuleType]:
    """The package, its public modules, and the modules that these list."""
    modules = [jaxcluster]
    for module in modules:
        listed = [getattr(module, name) for name in module.__all__]
        modules += [each for each in listed if inspect.ismodule(each) and each not in modules]
    return modules


def own_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class that the package defines, and what calls and makes its objects."""
    for base in cls.__mro__:
        if base.__module__.startswith("jaxcluster."):
            for name, member in vars(base).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if inspect.isfunction(function) and (name in ("__init__", "__call__") or not name.startswith("_")):
                    yield f"{base.__module__}.{base.__qualname__}.{name}", function


def public_functions() -> dict[str, Any]:
    """Functions, methods and properties that are public, by their full name."""
    functions = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                functions |= dict(own_members(value))
            elif inspect.isfunction(value):
                functions[f"{module.__name__}.{name}"] = value
    return functions


@pytest.fixture(scope="module")
def imported() -> dict:
    """The state of a fresh interpreter before and after ``import jaxcluster``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    probe = [sys.executable, "-c", PROBE]
    done = subprocess.run(probe, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_leaves_the_configuration_of_jax_alone(imported):
    assert imported["before"]
    assert imported["after"] == imported["before"]


def test_import_starts_no_device(imported):
    # JAX accepts another number of devices only until the first one is started.
    assert imported["devices"] == 3


def test_import_loads_nothing_heavy(imported):
    new = imported["new"]
    assert "jaxcluster" in new
    assert not HEAVY & {name.partition(".")[0] for name in new}
    assert not [name for name in new if name.startswith(("scipy.", "jax.experimental.pallas"))]


@pytest.mark.parametrize("name", jaxcluster.__all__)
def test_every_public_name_resolves(name):
    assert getattr(jaxcluster, name) is not None
    assert name in dir(jaxcluster)


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_a_module_shows_what_it_promises(module):
    assert sorted(dir(module)) == sorted(module.__all__)


def test_public_functions_are_annotated():
    assert len(public_functions()) > 400
    bare = {}
    for name, function in public_functions().items():
        signature = inspect.signature(function)
        missing = [
            each.name
            for i, each in enumerate(signature.parameters.values())
            if each.annotation is each.empty and not (i == 0 and each.name in ("self", "cls"))
        ]
        if signature.return_annotation is signature.empty and not name.endswith(".__init__"):
            missing.append("return")
        if missing:
            bare[name] = missing
    assert bare == {}


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(AttributeError, match=r"jaxcluster.*KMaens.*Did you mean 'KMeans'"):
        _ = jaxcluster.KMaens


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "jaxcluster/__init__.py"
    assert f"version: {jaxcluster.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {jaxcluster.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_signatures_are_checked_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        distance.sqeuclidean(jnp.ones((3, 2)), jnp.ones((4, 3)))


def test_deep_methods_load_one_by_one():
    code = "import sys; from jaxcluster.deep import DEC; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.rpartition(".")[2] for name in done.stdout.split() if name.startswith("jaxcluster.deep.")}
    assert "dec" in loaded
    assert not loaded & {"clustergan", "swav", "vade", "deepcluster", "metric_learning", "cluster_layer", "views"}


@pytest.mark.parametrize("name", deep.__all__)
def test_every_name_of_deep_resolves(name):
    assert getattr(deep, name) is not None
    assert name in dir(deep)


def test_unknown_name_of_deep_is_answered():
    with pytest.raises(AttributeError, match=r"jaxcluster.deep.*DCE.*DEC"):
        deep.__getattr__("DCE")

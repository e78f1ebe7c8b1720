"""Importing the package is cheap and changes nothing; what it promises is there; its signatures are checked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

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


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(AttributeError, match=r"jaxcluster.*KMaens.*KMeans"):
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


def test_an_unknown_name_of_deep_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match=r"jaxcluster.deep.*DCE.*DEC"):
        deep.__getattr__("DCE")

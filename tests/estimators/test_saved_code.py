"""Networks and views in saved models: import paths and configurations, and nothing else that a file names."""

from __future__ import annotations

import functools
import importlib
import linecache
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcluster import AutoencoderKMeans
from jaxcluster.deep import nets, views
from jaxcluster.estimators.saved_code import MissingCode, UntrustedCode, trusting
from jaxcluster.estimators.serialization import decode, encode


def shifted(key, x, by=1.0):
    return x + by


@dataclass(frozen=True)
class Shift:
    """Someone's own view."""

    by: float

    def __call__(self, key, x):
        return x + self.by


RNGS = nnx.Rngs(0)
NETWORKS = {
    "MLP": nets.MLP((4, 3, 2), activation=jax.nn.tanh, rngs=RNGS),
    "Projector": nets.Projector((4, 3, 2), rngs=RNGS),
    "Prototypes": nets.Prototypes(4, 3, rngs=RNGS),
    "GaussianHead": nets.GaussianHead(4, 2, rngs=RNGS),
    "VariationalEncoder": nets.VariationalEncoder(nets.MLP((4, 3), rngs=RNGS), nets.GaussianHead(3, 2, rngs=RNGS)),
    "ConvEncoder": nets.ConvEncoder((8, 6), 2, channels=(3, 4), rngs=RNGS),
    "ConvDecoder": nets.ConvDecoder(2, (8, 6, 1), channels=(3, 4), rngs=RNGS),
    "ConvNet": nets.ConvNet((8, 8), 2, channels=(3, 4), rngs=RNGS),
    "ResNet": nets.ResNet((8, 8), 2, channels=(3, 4), blocks=(1, 2), rngs=RNGS),
}
VIEWS = {
    "function": shifted,
    "partial": functools.partial(shifted, by=2.0),
    "dataclass": Shift(3.0),
    "chain": views.MultiCrop(views.Chain(Shift(1.0), shifted), n_global=2),
}


def test_every_network_has_a_configuration():
    classes = {name for name in nets.__all__ if isinstance(getattr(nets, name), type)}
    assert {name for name in classes if issubclass(getattr(nets, name), nnx.Module)} == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_built_again(name):
    arrays = {}
    again = decode(encode("encoder", NETWORKS[name], arrays), arrays)
    assert nnx.graphdef(again) == nnx.graphdef(NETWORKS[name])
    assert jax.tree.map(np.shape, nnx.state(again)) == jax.tree.map(np.shape, nnx.state(NETWORKS[name]))


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_built_again(name):
    encoded = encode("views", VIEWS[name], {})
    with pytest.raises(UntrustedCode, match=rf"of the module {__name__}, which would be imported"):
        decode(encoded, {})
    with trusting(__name__):
        again = decode(encoded, {})
    key, x = jax.random.key(0), jnp.arange(6.0).reshape(3, 2)
    for ours, theirs in zip(jax.tree.leaves(again(key, x)), jax.tree.leaves(VIEWS[name](key, x)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Halving(nnx.Module):
    """Someone's own network."""

    def __init__(self, width, factor=0.5, *, rngs):
        self.layer, self.factor = nnx.Linear(3, width, rngs=rngs), factor

    def __call__(self, x):
        return self.layer(x) * self.factor


@pytest.fixture(scope="module")
def fitted():
    encoder, decoder = Halving(2, rngs=nnx.Rngs(0)), nets.MLP((2, 3), rngs=nnx.Rngs(1))
    model = AutoencoderKMeans(2, latent=2, encoder=encoder, decoder=decoder, select="trained", epochs=1, random_state=0)
    return model.fit(np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))


WRONG_CONFIGS = {
    "raises": (
        RuntimeError("no\nlicense"),
        TypeError,
        "encoder cannot be saved: get_config.. of Halving raises Runtime",
    ),
    "a list": ([2], TypeError, r"returns \[2\], and a dict of the arguments"),
    "numbers as names": ({1: 2}, TypeError, "and a dict of the arguments"),
    "rngs": ({"width": 2, "rngs": nnx.Rngs(0)}, TypeError, "returns rngs, which the class is given"),
    "another width": ({"width": 5}, ValueError, "cannot be saved: get_config.. of its networks, .* do not make them"),
    "an unknown name": ({"breadth": 2}, ValueError, "do not make them again.*breadth"),
    "another factor": ({"width": 2, "factor": 0.25}, ValueError, "make other ones: transform gives other numbers"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_wrong_configurations_are_refused_by_save(name, fitted, tmp_path, monkeypatch):
    config, kind, message = WRONG_CONFIGS[name]

    def get_config(self):
        if isinstance(config, Exception):
            raise config
        return config

    monkeypatch.setattr(Halving, "get_config", get_config, raising=False)
    with pytest.raises(kind, match=message) as error:
        fitted.save(tmp_path / "model")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


MODULE = """
import sys
from dataclasses import dataclass

@dataclass
class Shift:
    by: float

    def __call__(self, key, x):
        return x + self.by
"""
HOOK = "    def __post_init__(self):\n        "
CHANGES = {
    "gone": (None, "which cannot be imported here: ModuleNotFoundError"),
    "broken": ("def (", "which cannot be imported here: SyntaxError"),
    "needs another": ("import nothing_of_this_name", "cannot be imported here: ModuleNotFoundError"),
    "exits": ("import sys\nsys.exit(3)", "cannot be imported here: SystemExit: 3"),
    "without the class": ("", "my_views.py has none of its own"),
    "imports the class": ("from types import SimpleNamespace as Shift", "my_views.py has none of its own"),
    "raises": (f"{MODULE}{HOOK}raise RuntimeError('no\\nlicense')", "which raises RuntimeError: no license"),
    "takes others": (MODULE.replace("by", "on"), "which raises TypeError"),
}


@pytest.fixture
def my_views(tmp_path, monkeypatch):
    """File of a module with a view, and the view as a model has it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_views.py").write_text(MODULE)
    yield tmp_path / "my_views.py", encode("views", importlib.import_module("my_views").Shift(2.0), {})
    sys.modules.pop("my_views", None)


def change(file, text):
    """Let the module be another, as in another process."""
    file.unlink() if text is None else file.write_text(text)
    sys.modules.pop("my_views")
    importlib.invalidate_caches()
    linecache.clearcache()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:Shift of the module")
def test_code_that_cannot_be_had_is_named(name, my_views):
    file, encoded = my_views
    text, message = CHANGES[name]
    change(file, text)
    with trusting("my_views"), pytest.raises(MissingCode, match=message) as error:
        decode(encoded, {})
    assert str(error.value).startswith("names Shift of the module my_views, ")
    assert "\n" not in str(error.value)


def test_code_that_was_changed_is_warned_of(my_views):
    file, encoded = my_views
    change(file, f"# another line\n{MODULE}")
    with trusting("my_views"):
        assert decode(encoded, {}).by == 2  # without a warning
    change(file, f"{MODULE}{HOOK}self.by += 1")
    with trusting("my_views"), pytest.warns(UserWarning, match="Shift of the module my_views is not written as it was"):
        assert decode(encoded, {}).by == 3


def test_a_class_of_the_program_is_warned_of(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    monkeypatch.setattr(Own, "__module__", "__main__")
    with pytest.warns(UserWarning, match="Own is defined in the program itself"):
        encoded = encode("views", Own(), {})
    monkeypatch.delattr(sys.modules["__main__"], "Own")
    with trusting("__main__"), pytest.raises(MissingCode, match="__main__, and this program has none of its own"):
        decode(encoded, {})


@dataclass
class Own:
    """A view of a program."""

    def __call__(self, key, x):
        return x


@pytest.mark.parametrize("path", ["jax.nn:__class__.__base__.__subclasses__", "jax.nn:relu.__call__", "jax.nn:nothing"])
def test_activations_alone_are_found_in_jax(path):
    with pytest.raises(MissingCode, match="has none of its own"):
        decode({"$code": {"path": path}}, {})


def test_a_network_larger_than_its_file_is_not_made():
    config = {"$dict": {"widths": [10**6, 10**6]}}
    with pytest.raises(ValueError, match=r"MLP has 1,000,001,000,000 weights, and the file holds 3 numbers"):
        decode({"$code": {"path": "jaxcluster.deep.nets.dense:MLP", "config": config}}, {"a": np.zeros(3)})


def test_dtypes_are_data():
    for value in (jnp.bfloat16, np.float32, np.dtype(np.int8)):
        assert decode(encode("encoder.dtype", value, {}), {}) == jnp.dtype(value)


def test_only_parameters_for_networks_hold_code():
    for name, value in (("init", shifted), ("metric", Shift(1.0))):
        with pytest.raises(TypeError, match="cannot be saved: a model file holds data"):
            encode(name, value, {})
    for value in (lambda key, x: x, nnx.Linear(2, 2, rngs=RNGS)):
        with pytest.raises(TypeError, match=r"views of type .* cannot be saved: networks need a method get_config"):
            encode("views", value, {})


@pytest.mark.parametrize(
    "content",
    [
        {"path": "os:system"},
        {"path": "jaxcluster.deep.nets.dense:jax.version.os.system"},
        {"path": "jaxcluster.deep.views.compose:dataclass"},
        {"path": "jaxcluster.deep.nets:dense"},
        {"path": "jaxcluster.deep.nets_of_others:MLP"},
        {"path": "jaxcluster.deep.nets.dense:mirror", "config": {"$dict": {}}},
        {"partial": {"$code": {"path": "os:system"}}, "args": ["true"], "keywords": {"$dict": {}}},
    ],
)
def test_a_path_leads_to_what_a_module_defines(content):
    with pytest.raises(ValueError, match=r"which would be imported|is neither|has none of its own"):
        decode({"$code": content}, {})

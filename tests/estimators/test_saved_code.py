"""Networks and views in saved models: import paths and configurations, and nothing else that a file names."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxcluster.deep import nets, views
from jaxcluster.estimators.saved_code import UntrustedCode, trusting
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
    with pytest.raises(ValueError, match=r"which would be imported|there is no|is neither"):
        decode({"$code": content}, {})

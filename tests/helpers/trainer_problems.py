"""Small modules to train, and the comparison of two trainings bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxcluster.deep import DCN, Autoencoder, ClusteringModule, RefreshResult, adam, train
from jaxcluster.deep.nets import MLP

N, D, K, BATCH, EPOCHS = 48, 4, 3, 8, 4
RNG = np.random.default_rng(0)
X = (np.repeat(np.eye(K, D) * 5, N // K, axis=0) + RNG.normal(size=(N, D))).astype(np.float32)
FAST = adam(1e-2)
PLAIN = optax.sgd(0.1)


class Regular(nnx.Module):
    """A network with variables besides its parameters: the keys of dropout, and the running means of batch norm."""

    def __init__(self, rngs):
        self.first = nnx.Linear(D, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        return jnp.float32(self.last(self.dropout(jax.nn.relu(self.norm(self.first(x))))))


class Line(ClusteringModule):
    """The distance of samples from a point, and two clusters: the samples on either side of the point.

    Gradient descent on it has a closed form.

    Args:
        spoil: maps a step and its loss to the loss to return.
        start: initial coordinates of the point.
        of_rows: the target of a refresh: "target" without labels, "square" with labels, or "NaN".
    """

    def __init__(self, spoil=None, start=0.0, of_rows=None):
        self.point = nnx.Param(jnp.full(D, start))
        self.steps = nnx.Variable(jnp.int32(0))
        self.spoil, self.of_rows = spoil, of_rows

    def features(self, x):
        return x - self.point[...]

    def refresh(self, z, key):
        labels = None if self.of_rows == "target" else jnp.int32(z[:, 0] > 0)
        target = None if self.of_rows is None else jnp.square(z)
        return RefreshResult(labels, jnp.log(target - 2) if self.of_rows == "NaN" else target)

    def loss(self, batch, key):
        self.steps[...] += 1
        value = jnp.mean(jnp.square(self.features(batch.x)))
        value = value if self.spoil is None else self.spoil(self.steps[...], value)
        return value, {"first": jnp.min(batch.index).astype(jnp.float32)}


def nan_at(step, value):
    return jnp.where(step == 9, jnp.nan, value)


def regular():
    rngs = nnx.Rngs(0)
    return Autoencoder(Regular(rngs), MLP((2, 6, D), rngs=rngs))


def dcn():
    rngs = nnx.Rngs(1)
    autoencoder = Autoencoder(MLP((D, 6, 2), rngs=rngs), MLP((2, 6, D), rngs=rngs))
    return DCN(autoencoder, jax.random.normal(jax.random.key(1), (K, 2)), jnp.full(K, 5))


MAKERS = {"dropout and means of batches": regular, "centers of its own": dcn}


def fit(module, *, key=0, x=X, **options):
    options = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": FAST, **options}
    return train(jax.random.key(key), module, x, **options)


def bits(tree):
    """Path, dtype, shape and bytes of every variable."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.state(tree) if isinstance(tree, nnx.Module) else tree)[0]
    keys = jax.dtypes.prng_key
    plain = [(path, jax.random.key_data(x) if jnp.issubdtype(x.dtype, keys) else x) for path, x in leaves]
    return [(jax.tree_util.keystr(path), str(x.dtype), x.shape, np.asarray(x).tobytes()) for path, x in plain]


def records(trained):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in trained.history]


def assert_same(one, two):
    assert bits(one.module) == bits(two.module)
    assert records(one) == records(two)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one._replace(module=None, labels=None, history=None) == two._replace(module=None, labels=None, history=None)


class Cut(Exception):
    """Raised by a callback to interrupt a training."""


def cut_after(epoch):
    def callback(report):
        if len(report.history) == epoch:
            raise Cut

    return callback


class Epochs:
    """A callback that records the number of each epoch."""

    def __init__(self):
        self.numbers = []

    def __call__(self, report):
        self.numbers.append(report.record["epoch"])

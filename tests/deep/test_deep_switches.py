"""Every module of deep clustering, its trainer and its views, with all of JAX's own switches on at once.

Most of the switches look at tracing: strict promotion of dtypes and of ranks, 64-bit numbers and leaked tracers. So the
compiled parts of a training are traced, and only a few of them run, for NaN. The update itself is made by optax with
promotion as usual: `optax.adam` raises a float to an integer power.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax_switches import IN_64_BITS, LEAKS, STRICT, switched

from jaxcluster import deep
from jaxcluster.deep import clustergan, nets, views
from jaxcluster.deep.batches import DeviceRows
from jaxcluster.deep.epoch import ALL_STEPS, CompiledTrainer, _refresh, _steps
from jaxcluster.deep.inference import map_split_module
from jaxcluster.deep.protocol import overrides
from jaxcluster.types import Status

N, D, K, L, BATCH = 32, 4, 3, 2, 8
RNG = np.random.default_rng(0)
X = (np.repeat(np.eye(4) * 5, N // 4, axis=0) + RNG.normal(size=(N, D))).astype(np.float32)
CENTERS = RNG.normal(size=(K, L)).astype(np.float32)
Y = np.arange(N, dtype=np.int32) % K - (np.arange(N) % 2).astype(np.int32)

SWITCHES = STRICT | IN_64_BITS


@pytest.fixture
def switches():
    with switched(SWITCHES):
        yield


def autoencoder(**options):
    rngs = nnx.Rngs(0)
    return deep.Autoencoder(nets.MLP((D, 6, L), rngs=rngs), nets.MLP((L, 6, D), rngs=rngs), **options)


def variational():
    rngs = nnx.Rngs(0)
    encoder = nets.VariationalEncoder(nets.MLP((D, 6), rngs=rngs), nets.GaussianHead(6, L, rngs=rngs))
    return deep.Autoencoder(encoder, nets.MLP((L, 6, D), rngs=rngs))


def projector(before=D):
    return nets.Projector((before, 6, L), rngs=nnx.Rngs(0))


def game():
    rngs, reader = nnx.Rngs(0), clustergan.dense_encoder
    generator = clustergan.DenseGenerator((L + K, 6, D), rngs=rngs)
    critic, encoder = reader((D, 6, 1), rngs=rngs), reader((D, 6, L + K), rngs=rngs)
    return deep.ClusterGAN(generator, critic, encoder, K, latent=L, critic_steps=2)


def swav():
    options = {"queue_size": 8, "head": projector(L), "rngs": nnx.Rngs(0)}
    return deep.SwAV(projector(), views.table_views(crops=(2, 1)), K, 5, L, **options)


def joint_embedding(objective, predictor):
    last = nets.Prototypes(L, 5, rngs=nnx.Rngs(0)) if objective == "dino" else projector(L)
    options = {"projector": last, "predictor": predictor, "n_steps": 20, "n_init": 2}
    return deep.SelfSupervised(projector(), K, L, views=views.table_views(), objective=objective, **options)


class Layered(deep.ClusteringModule):
    """A network with a layer that clusters its batch."""

    def __init__(self, kind, **options):
        rngs = nnx.Rngs(0)
        self.net = nets.MLP((D, 6, L), rngs=rngs)
        self.layer = deep.ClusterLayer(K, L, kind=kind, max_steps=5, rngs=rngs, **options)

    def loss(self, batch, key):
        found = self.layer(self.net(batch.x))
        return jnp.mean(jnp.square(found.quantized)) + found.objective, {}


SHARES, SPREADS = np.full(K, 1 / K, np.float32), np.ones((K, L), np.float32)
MODULES = {
    "Autoencoder": lambda: autoencoder(noise=views.Masking(0.2), augment=views.GaussianNoise(0.1)),
    "Bernoulli": lambda: autoencoder(likelihood="bernoulli"),
    "DEC": lambda: deep.DEC(autoencoder(), CENTERS),
    "IDEC": lambda: deep.IDEC(autoencoder(), CENTERS),
    "Joint": lambda: deep.JointClustering(autoencoder(), CENTERS),
    "DKM": lambda: deep.DKM(autoencoder(), CENTERS, annealed=True),
    "DCN": lambda: deep.DCN(autoencoder(), CENTERS, np.full(K, 4)),
    "Denoising": lambda: deep.DenoisingClustering(autoencoder(noise=views.Masking(0.2)), CENTERS),
    "VaDE": lambda: deep.VaDE(variational(), SHARES, CENTERS, SPREADS, residual=0.5),
    "ClusterGAN": game,
    "SwAV": swav,
    "DeepCluster": lambda: deep.DeepCluster(projector(), L, 5, n_clusters=K, n_init=2, rngs=nnx.Rngs(0)),
    "DeepClusterV2": lambda: deep.DeepClusterV2(projector(), L, 5, n_clusters=K, n_init=2, view=views.table_views()),
    "TEMI": lambda: deep.TEMI(D, K, np.zeros((len(X), 2), int), hidden=(6,), n_heads=2, rngs=nnx.Rngs(0)),
    "SCAN": lambda: deep.SCAN(D, K, np.zeros((len(X), 2), int), n_heads=2, self_label_from=5, rngs=nnx.Rngs(0)),
    "CC": lambda: deep.ContrastiveClustering(D, K, n_heads=2, augment=views.Masking(0.2), rngs=nnx.Rngs(0)),
    "TURTLE": lambda: deep.TURTLE(D, K, n_heads=2, inner_steps=2, rngs=nnx.Rngs(0)),
    "contrastive": lambda: deep.MetricEmbedding(projector(), K, L, loss="contrastive", n_init=2),
    "triplet": lambda: deep.MetricEmbedding(projector(), K, L, loss="triplet", mining="all", n_init=2),
    "NT-Xent": lambda: deep.MetricEmbedding(projector(), K, L, loss="nt-xent", views=views.table_views(), n_init=2),
    "SupCon": lambda: deep.MetricEmbedding(projector(), K, L, views=views.table_views(), n_init=2),
    "BYOL": lambda: joint_embedding("byol", nets.MLP((L, 6, L), rngs=nnx.Rngs(0))),
    "DINO": lambda: joint_embedding("dino", None),
    "soft k-means layer": lambda: Layered("soft_kmeans", variance=1.0),
    "mixture layer": lambda: Layered("gmm"),
}
LABELED = ("Joint", "contrastive", "triplet", "SupCon")


def kinds(tree):
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def test_no_tracer_leaks():
    """A loss that differentiates through a fit leaks no tracer in the loops of a training."""
    with switched(SWITCHES | LEAKS):
        traced("soft k-means layer")


@pytest.mark.parametrize("name", MODULES)
def test_a_training_is_traced_under_every_switch(switches, name):
    traced(name)


def traced(name):
    rows = DeviceRows(X, y=Y if name in LABELED else None)
    trainer = CompiledTrainer(jax.random.key(0), MODULES[name](), rows, deep.adam(), BATCH, 2, None)
    state, target = trainer.initial_state, None
    assert not {jnp.dtype(jnp.float64), jnp.dtype(jnp.int64)} & {dtype for _, dtype in kinds(state)}
    states = (*state.params.values(), state.rest)
    if trainer.has_refresh:
        z = jax.eval_shape(partial(map_split_module, trainer.spec.graphdef, method="features"), states, x=rows.x)
        for method in ("finalize", "refresh")[1 - trainer.has_finalize :]:
            looked, found = jax.eval_shape(partial(_refresh, trainer.spec, method), state, z, trainer.step_key)
            assert kinds(looked) == kinds(state)
        target = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), found.target)
    if overrides(trainer.module, "assign"):
        assignments = jax.eval_shape(partial(map_split_module, trainer.spec.graphdef, method="assign"), states, x=z)
        assert assignments.dtype == jnp.float32
    index = jnp.zeros((2, trainer.batches_per_step, BATCH), jnp.int32)
    (chunk,) = rows.chunks(index, target)
    after, record = jax.eval_shape(partial(_steps, trainer.spec, True, True), state, chunk, trainer.step_key, ALL_STEPS)
    assert kinds(after) == kinds(state)
    assert record["loss"].dtype == jnp.float32


def test_a_training_runs_under_every_switch(switches):
    """One that refreshes its targets by looks at all rows, and learns from labels."""
    ended = deep.train(jax.random.key(0), MODULES["Joint"](), X, epochs=1, batch_size=BATCH, y=Y)
    assert (ended.status, ended.labels.dtype) == (Status.MAX_STEPS, np.int32)


SHAPE = (6, 6, 3)
VIEWS = [
    views.Masking(0.2),
    views.GaussianNoise(0.1),
    views.FeatureCorruption(0.3),
    views.Mixup(0.2),
    views.ShiftRotate(SHAPE),
    views.Flip(SHAPE),
    views.RandomErasing(SHAPE),
    views.Blur(SHAPE),
    views.image_views(SHAPE, crops=(1, 1)),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_are_traced_under_every_switch(switches, view):
    rows = jax.ShapeDtypeStruct((5, 108), np.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(view, jax.random.key(0), rows))} == {rows.dtype}


IMAGES = (8, 8, 1)
NETWORKS = {
    "ConvEncoder": (lambda rngs: nets.ConvEncoder(IMAGES, 2, channels=(3, 4), rngs=rngs), 64),
    "ConvDecoder": (lambda rngs: nets.ConvDecoder(2, IMAGES, channels=(3, 4), rngs=rngs), 2),
    "ConvNet": (lambda rngs: nets.ConvNet(IMAGES, 2, channels=(3, 4), rngs=rngs), 64),
    "ResNet": (lambda rngs: nets.ResNet(IMAGES, 2, channels=(3,), blocks=(1,), rngs=rngs), 64),
    "ImageEncoder": (lambda rngs: clustergan.ImageEncoder(IMAGES, 2, channels=(3,), dense=4, rngs=rngs), 64),
    "ImageGenerator": (lambda rngs: clustergan.ImageGenerator(2, IMAGES, channels=(3,), dense=4, rngs=rngs), 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_traced_under_every_switch(switches, name):
    make, width = NETWORKS[name]
    graphdef, params, rest = nnx.split(make(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, x):
        return jnp.sum(jnp.square(nnx.merge(graphdef, params, rest, copy=True)(x)))

    gradient = jax.eval_shape(jax.grad(loss), params, jax.ShapeDtypeStruct((4, width), np.float32))
    assert kinds(gradient) == kinds(params)

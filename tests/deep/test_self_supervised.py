"""Joint embedding: losses by hand, the target network, its schedules, collapses, and a training by each objective."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxcluster import SelfSupervisedEmbedding, losses
from jaxcluster.deep import Batch, SelfSupervised, nets
from jaxcluster.deep.self_supervised import OBJECTIVES, WITH_PREDICTOR
from jaxcluster.deep.swav import COLLAPSE_GRACE_STEPS
from jaxcluster.deep.views import GaussianNoise, MultiCrop, count_views

N, D, L, WIDTH = 48, 4, 3, 6
RNG = np.random.default_rng(0)
X = (np.repeat(3 * np.eye(D), N // D, axis=0) + 0.3 * RNG.normal(size=(N, D))).astype(np.float32)
KEY = jax.random.key(0)
NOISE = GaussianNoise(0.3)
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Shown(NamedTuple):
    """Three views that leave nothing to chance, the first two of them targets."""

    n_global: int = 2

    def __call__(self, key, x):
        return x + 1, 2 * x, x[:, ::-1]


def module(objective, views=NOISE, network=nets.Projector, **options):
    rngs = nnx.Rngs(0)
    projector = network((L, 8, WIDTH), rngs=rngs)
    if objective == "dino":
        projector = nnx.Sequential(projector, nets.Prototypes(WIDTH, WIDTH, rngs=rngs))
    if objective in WITH_PREDICTOR:
        options = {"predictor": network((WIDTH, 8, WIDTH), rngs=rngs)} | options
    networks = {"encoder": network((D, 8, L), rngs=rngs), "projector": projector}
    return SelfSupervised(k=D, latent=L, views=views, objective=objective, n_init=1, **networks | options)


def by_hand(made, views):
    """The loss of views, by the losses of the package."""
    z = [made.projector(made.encoder(view)) for view in views]
    two = [(z[0], z[1]), (z[0], z[2]), (z[1], z[2])]
    crossed = [(z[v], z[i]) for i in range(2) for v in range(3) if v != i]
    dino = {"temperature": 0.1, "teacher_temperature": 0.07}
    terms = {
        "simclr": lambda: [losses.nt_xent_loss(a, b, temperature=0.5) for a, b in two],
        "barlow-twins": lambda: [losses.barlow_twins_loss(a, b) for a, b in two],
        "vicreg": lambda: [losses.vicreg_loss(a, b) for a, b in two],
        "simsiam": lambda: [losses.negative_cosine_loss(made.predictor(a), b) for a, b in crossed],
        "byol": lambda: [2 + 2 * losses.negative_cosine_loss(made.predictor(a), b) for a, b in crossed],
        "dino": lambda: [losses.dino_loss(a, b, made.teacher_center[...], **dino) for a, b in crossed],
    }[made.objective]()
    return sum(terms) / len(terms)


def stepped(objective, steps, **options):
    """Losses and spreads of a training whose steps see all samples, the loss by hand, and the module after it."""
    made = module(objective, **options)
    graphdef, params, rest = nnx.split(made, made.trainable, ...)
    optimizer = optax.adam(1e-2)

    def step(carry, key):
        params, rest, opt_state = carry

        def loss(params):
            merged = nnx.merge(graphdef, params, rest, copy=True)
            value, record = merged.loss(Batch(jnp.asarray(X)), key)
            return value, (record["spread"], nnx.split(merged, made.trainable, ...)[2])

        (value, (spread, rest)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), rest, opt_state), (value, spread)

    start = params, rest, optimizer.init(params)
    run = jax.jit(lambda keys: jax.lax.scan(step, start, keys), compiler_options=QUICKLY)
    (params, rest, _), records = run(jax.random.split(KEY, steps))
    return *map(np.asarray, records), nnx.merge(graphdef, params, rest)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_trains(objective):
    """The loss falls, and the projections of the blobs stay apart."""
    values, spread, after = stepped(objective, 120, momentum=0.9, n_steps=120)
    assert np.isfinite(values).all()
    # DINO's targets change in the first steps: the center moves, and the temperature rises.
    assert values[-20:].mean() < values[15:35].mean() - 0.01 * abs(values[0])
    assert spread[-1] > 0.1
    after.eval()
    z = np.asarray(after.features(jnp.asarray(X)))
    assert not after.refresh(jnp.asarray(z), KEY).collapsed
    np.testing.assert_allclose(np.sum(z**2, axis=1), 1, rtol=1e-5)
    nearest = np.argmax(z @ z.reshape(D, -1, L).mean(axis=1).T, axis=1)
    assert np.mean(nearest == np.arange(N) // (N // D)) > 0.8


@pytest.mark.parametrize("objective", ["vicreg", "byol"])
def test_losses_are_those_of_the_package(objective):
    """All pairs of views, with the global views alone as targets."""
    graphdef, state = nnx.split(module(objective, views=Shown(), network=nets.MLP))

    @jax.jit
    def both(x):
        made = nnx.merge(graphdef, state, copy=True)
        expected = by_hand(made, Shown()(None, x))
        return made.loss(Batch(x), KEY)[0], expected

    np.testing.assert_allclose(*both(X), rtol=1e-5)


def test_a_target_is_a_moving_average():
    made = module("dino", network=nets.MLP, momentum=0.75)
    before = np.asarray(made.target.encoder.layers[0].kernel[...])
    made.encoder.layers[0].kernel[...] += 1
    graphdef, state = nnx.split(made)

    @jax.jit
    def after(x):
        made = nnx.merge(graphdef, state, copy=True)
        made.loss(Batch(x), KEY)
        outputs = jnp.concatenate([made.target(NOISE(key, x)) for key in jax.random.split(KEY)])
        kernel = made.target.encoder.layers[0].kernel[...]
        return kernel, made.teacher_center[...], outputs, made.target.encoder(x), made.features(x)

    kernel, center, outputs, codes, features = map(np.asarray, after(X))
    np.testing.assert_allclose(kernel, before + 0.25, rtol=1e-5)
    np.testing.assert_allclose(center, 0.1 * outputs.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(features, codes / np.linalg.norm(codes, axis=1, keepdims=True), atol=1e-6)
    trained = {path[0] for path, _ in nnx.to_flat_state(nnx.state(made, made.trainable))}
    assert trained == {"encoder", "projector"}


def test_schedules_are_those_of_the_papers():
    made = module("dino", momentum=0.9, n_steps=100)
    momenta, temperatures = [], []
    for step in (0, 5, 10, 50, 100, 120):
        made.steps[...] = jnp.int32(step)
        momenta.append(float(made._momentum()))
        temperatures.append(float(made._teacher_temperature()))
    expected = [1 - 0.1 * (1 + np.cos(np.pi * min(step / 100, 1))) / 2 for step in (0, 5, 10, 50, 100, 120)]
    np.testing.assert_allclose(momenta, expected, rtol=1e-6)
    np.testing.assert_allclose(temperatures, [0.04, 0.055, 0.07, 0.07, 0.07, 0.07], rtol=1e-5)
    assert float(module("byol", momentum=0.9)._momentum()) == pytest.approx(0.9)


@pytest.mark.parametrize("objective", ["vicreg", "dino"])
def test_equal_projections_are_a_collapse(objective):
    made = module(objective, network=nets.MLP)
    layers = [(made.projector if objective == "vicreg" else made.projector.layers[0]).layers[-1]]
    layers += [made.target.projector.layers[0].layers[-1]] if objective == "dino" else []
    for layer in layers:
        layer.kernel[...] *= 0
        layer.bias[...] += 1
    graphdef, state = nnx.split(made)

    @jax.jit
    def refreshed(x):
        made = nnx.merge(graphdef, state, copy=True)
        z, (_, record) = made.features(x), made.loss(Batch(x), KEY)
        early = made.refresh(z, KEY).collapsed
        made.steps[...] = jnp.int32(COLLAPSE_GRACE_STEPS)
        return record["spread"], early, made.refresh(z, KEY).collapsed

    spread, early, late = refreshed(X)
    assert spread < 1e-5
    assert (bool(early), bool(late)) == (False, True)


@pytest.mark.parametrize(
    ("views", "count"),
    [
        (NOISE, 2),
        (MultiCrop(NOISE, n_global=1), 2),
        (MultiCrop(NOISE, NOISE, n_global=1, n_local=1), 1),
        (MultiCrop(NOISE, NOISE, n_global=2, n_local=1), 2),
        (Shown(), 2),
    ],
)
def test_global_views_are_targets(views, count):
    """One view alone is drawn twice, and both are targets."""
    graphdef, state = nnx.split(module("byol", views=views, network=nets.MLP))

    def targets(x):
        made = nnx.merge(graphdef, state, copy=True)
        stacks = made._stacks(KEY, x)
        return made._targets(stacks, jnp.zeros((count_views(stacks), N, WIDTH)))

    assert jax.eval_shape(targets, X).shape == (count, N, WIDTH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "moco"}, "objective='moco' is not known"),
        ({"objective": "simclr", "views": None}, "objective='simclr' learns from views of rows, and there are none"),
        ({"objective": "byol", "predictor": None}, "objective='byol' needs a predictor"),
        ({"objective": "vicreg", "predictor": nets.MLP((2, 2), rngs=nnx.Rngs(0))}, "'vicreg' has no predictor"),
        ({"objective": "byol", "momentum": 1}, "momentum=1 must be less than 1"),
        ({"objective": "dino", "temperature": 0}, "temperature=0 must be greater than 0"),
        ({"objective": "dino", "n_steps": 0}, "n_steps=0 must be at least 1"),
    ],
)
def test_refused_by_the_module(options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "simclear"}, "objective='simclear' is not known.*Did you mean 'simclr'"),
        ({"views": None}, "views=None shows rows as they are, and 2 views of each are needed"),
        ({"batch_size": 1}, "batch_size=1 holds no other row"),
        ({"momentum": 1.0}, "momentum=1.0 must be less than 1"),
        ({"temperature": -1}, "temperature=-1 must be greater than 0"),
        ({"n_prototypes": 0}, "n_prototypes=0 must be at least 1"),
    ],
)
def test_refused_by_the_estimator(options, message):
    with pytest.raises(ValueError, match=message):
        SelfSupervisedEmbedding(4, **options).fit(X)

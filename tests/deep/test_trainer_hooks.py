"""The trainer: the hooks of a module, such as update phases, constraints, weights of samples and final clusters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from trainer_problems import BATCH, PLAIN, D, Line, N, X, fit

from jaxcluster.checkpoint import Checkpoints
from jaxcluster.deep import Batch, ClusteringModule, RefreshResult, UpdatePhase, train
from jaxcluster.deep.batches import shuffled_batches
from jaxcluster.deep.nets import MLP
from jaxcluster.types import Status


class Concluded(Line):
    """A `Line` with other clusters at the end of a training: the samples on either side of 1."""

    def __init__(self):
        super().__init__()
        self.mark = nnx.Variable(jnp.float32(0))

    def finalize(self, z, key):
        self.mark[...] = 1.0
        return RefreshResult(jnp.int32(z[:, 0] + self.point[...][0] > 1))


def test_module_may_conclude_in_place_of_last_refresh(tmp_path):
    options = {"epochs": 3, "batch_size": 10, "checkpoints": Checkpoints(tmp_path, every=1)}
    looks = []
    follow = lambda report: looks.append((report.labels, report.module().mark[...]))  # noqa: E731
    trained = train(jax.random.key(0), Concluded(), X, callbacks=[follow], **options)
    assert trained.module.mark[...] == 1
    np.testing.assert_array_equal(trained.labels, X[:, 0] > 1)
    assert [float(mark) for _, mark in looks] == [0, 0, 0]
    np.testing.assert_array_equal(looks[0][0], X[:, 0] > 0)
    again = train(jax.random.key(0), Concluded(), X, resume=True, **options)
    np.testing.assert_array_equal(again.labels, trained.labels)
    assert again.module.mark[...] == 1
    # A look that ends a training is followed by the conclusion too.
    converged = train(jax.random.key(0), Concluded(), X, epochs=9, batch_size=10, tol=1.0)
    assert (converged.status, converged.module.mark[...]) == (Status.CONVERGED, 1)
    np.testing.assert_array_equal(converged.labels, X[:, 0] > 1)


class Players(ClusteringModule):
    """Two parameters that are updated in turn: one rises three times by 1, the other is then set to it."""

    update_phases = (UpdatePhase("chased", "flee", ("hare",), steps=3), UpdatePhase("loss", "loss", ("hound",)))

    def __init__(self, spoil=False):
        self.hare, self.hound = nnx.Param(jnp.float32(0)), nnx.Param(jnp.float32(0))
        self.indices, self.spoil = nnx.Variable(jnp.zeros(3)), spoil

    @property
    def trainable(self):
        return {name: nnx.All(nnx.Param, nnx.PathContains(name)) for name in ("hare", "hound")}

    def flee(self, batch, key):
        self.indices[...] = jnp.roll(self.indices[...], 1).at[0].set(batch.index[0])
        return -10 * self.hare[...], {"fled": self.hare[...]}

    def loss(self, batch, key):
        factor = jnp.nan if self.spoil else 1.0
        return factor * 5 * jnp.square(self.hound[...] - jax.lax.stop_gradient(self.hare[...])), {}


def test_parts_take_turns_each_on_batches_of_its_own():
    trained = fit(Players(), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    # The hare goes 0.1·10 a move, three moves a step; the hound 0.1·2·5·distance, all of it.
    assert (float(trained.module.hare[...]), float(trained.module.hound[...])) == (6.0, 6.0)
    assert trained.history[0]["loss"] == pytest.approx((5 * 9 + 5 * 9) / 2)
    assert trained.history[0]["chased"] == pytest.approx(np.mean([0, -10, -20, -30, -40, -50]))
    assert trained.history[0]["fled"] == pytest.approx(2.5)
    order = jax.random.split(jax.random.key(0), 3)[0]
    rows = shuffled_batches(order, jnp.int32(0), steps=6, n=N, batch=BATCH)
    np.testing.assert_array_equal(trained.module.indices[...], rows[5:2:-1, 0])


def test_a_turn_that_fails_is_named_by_its_step():
    trained = fit(Players(spoil=True), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    assert (trained.status, trained.failed_step) == (Status.NOT_FINITE, 1)
    assert float(trained.module.hound[...]) == 0


class OnSphere(ClusteringModule):
    """A point normalized to length 1 after every update; samples are drawn by weight; ``collapsed`` is reported."""

    def __init__(self, collapsed=False):
        self.point, self.collapsed = nnx.Param(jnp.eye(1, D)[0]), collapsed
        self.counts = nnx.Variable(jnp.zeros(N))

    def constrain(self):
        self.point[...] = self.point[...] / jnp.linalg.norm(self.point[...])

    def features(self, x):
        return x

    def refresh(self, z, key):
        weight = jnp.where(jnp.arange(N) < 4, 1.0, 0.0)
        return RefreshResult(jnp.zeros(N, jnp.int32), weight=weight, collapsed=jnp.asarray(self.collapsed))

    def label_agreement(self, old, new):
        return {"alike": float(np.mean(old == new))}

    def loss(self, batch, key):
        self.counts[...] = self.counts[...].at[batch.index].add(1)
        target = jnp.float32(0) if batch.y is None else jnp.mean(batch.y)
        return -jnp.mean(batch.x @ self.point[...]), {"known": target}


def test_what_a_module_asks_for_is_done():
    y = np.where(np.arange(N) < 4, 3.0, 100.0)
    trained = fit(OnSphere(), epochs=2, y=y)
    assert float(jnp.linalg.norm(trained.module.point[...])) == pytest.approx(1, abs=1e-6)
    counts = np.asarray(trained.module.counts[...])
    assert counts[4:].sum() == 0
    assert counts[:4].min() > 0
    assert trained.history[0]["known"] == 3
    assert [record.get("alike") for record in trained.history] == [None, 1.0]
    assert "changed" not in trained.history[1]


def test_collapse_ends_after_three_refreshes():
    trained = fit(OnSphere(collapsed=True), epochs=9)
    assert (trained.status, len(trained.history)) == (Status.COLLAPSED, 2)
    assert [record["collapsed"] for record in trained.history] == [1.0, 1.0]
    assert fit(OnSphere(collapsed=True), epochs=1).status == Status.COLLAPSED


def test_clusters_whose_names_change_have_no_tol():
    with pytest.raises(ValueError, match="OnSphere has no clusters that keep their names"):
        fit(OnSphere(), tol=0.1)


def test_what_is_known_must_be_of_each_row():
    with pytest.raises(ValueError, match=r"y has shape \(3,\), but x has 48 rows"):
        fit(OnSphere(), y=np.zeros(3))


def test_step_with_a_failed_second_turn_is_undone():
    trained = fit(Players(spoil=True), optimizer=PLAIN, epochs=1, steps_per_epoch=2)
    assert (float(trained.module.hare[...]), trained.steps, trained.history) == (0, 0, ())


def test_all_rows_in_one_cluster_are_no_convergence():
    class Lone(Line):
        def refresh(self, z, key):
            return RefreshResult(jnp.zeros(N, jnp.int32), collapsed=jnp.bool_(True))

    trained = fit(Lone(), tol=0.0)
    assert (trained.status, len(trained.history)) == (Status.COLLAPSED, 1)


HOOKS = [("refesh", "refresh"), ("finalise", "finalize"), ("trainables", "trainable")]


@pytest.mark.parametrize(("name", "hook"), HOOKS)
def test_misspelt_hook_fails_at_class_definition(name, hook):
    with pytest.raises(TypeError, match=f"Bad.{name} is not a hook of ClusteringModule, and {hook} is one"):
        type("Bad", (ClusteringModule,), {name: None})
    assert type("Good", (ClusteringModule,), {"labels": None, "_refesh": None, hook: None})


def test_only_clustering_modules_are_trained():
    class Bare(ClusteringModule):
        def __init__(self):
            self.point = nnx.Param(jnp.zeros(D))

        def loss(self, batch, key):
            return jnp.mean(jnp.square(batch.x - self.point[...][None])), {}

    assert fit(Bare(), epochs=1, tol=None).labels is None
    with pytest.raises(TypeError, match="module is a MLP. Pass a jaxcluster.deep.ClusteringModule"):
        fit(MLP((D, 2), rngs=nnx.Rngs(0)))
    with pytest.raises(NotImplementedError, match=r"ClusteringModule must implement loss\(batch, key\)"):
        ClusteringModule().loss(Batch(jnp.ones((2, D))), jax.random.key(0))

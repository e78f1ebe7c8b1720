"""Deep estimators refuse wrong parameters before the first step, and say of a failure what is so."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.exceptions import ConvergenceWarning

from jaxcluster import (
    DCN,
    DEC,
    IDEC,
    SCAN,
    TURTLE,
    AutoencoderKMeans,
    ClusterGAN,
    DeepCluster,
    DenoisingAutoencoderClustering,
    JointClustering,
    MetricEmbedding,
    Status,
    SwAV,
    VaDE,
)
from jaxcluster.core.validation import check_cluster
from jaxcluster.deep import nets
from jaxcluster.estimators.deep.checks import check_image_shape, flat_images


@dataclass
class Thawed:
    """View that is not frozen."""

    def __call__(self, key, x):
        return x


class Listed(nnx.Linear):
    """Network with an attribute that JAX cannot compare."""

    def __init__(self, *widths, rngs):
        super().__init__(*widths, rngs=rngs)
        self.widths = list(widths)


TINY = {"hidden": (8,), "latent": 2, "batch_size": 50, "random_state": 0, "select": "trained"}
CODED = TINY | {"pretrain_epochs": 1, "epochs": 1, "n_init": 1, "update_interval": 2}

OF_ALL = [
    ({"epochs": 0}, ValueError, "epochs=0 must be at least 1"),
    ({"epochs": -3}, ValueError, "epochs=-3 must be at least 1"),
    ({"epochs": 2.5}, TypeError, "epochs must be an integer, got 2.5"),
    ({"hidden": 256}, TypeError, "hidden=256 must be a sequence of widths"),
    ({"hidden": (8, 0)}, ValueError, "a width in hidden=0 must be at least 1"),
    ({"latent": None}, TypeError, "latent must be an integer, got None"),
    ({"batch_size": None}, TypeError, "batch_size must be an integer, got None"),
    ({"batch_size": "all"}, ValueError, "batch_size='all' is not known"),
    ({"learning_rate": None}, TypeError, "learning_rate must be a number, got None"),
    ({"learning_rate": 0}, ValueError, "learning_rate=0 must be greater than 0"),
    ({"learning_rate": np.inf}, ValueError, "learning_rate=inf must be finite"),
    ({"learning_rate": np.nan}, ValueError, "learning_rate=nan must be greater than 0"),
    ({"learning_rate": lambda step: jnp.zeros(3)}, ValueError, r"learning_rate gives an array of shape \(3,\)"),
    ({"optimizer": "adam"}, TypeError, "optimizer='adam' is a name"),
    ({"optimizer": optax.adam}, TypeError, "Call it"),
    ({"precision": "half"}, ValueError, "precision='half' is not known"),
    ({"encoder": Listed(4, 2, rngs=nnx.Rngs(0))}, TypeError, "encoder has the attribute widths.*Make it a tuple"),
    ({"encoder": nets.MLP}, TypeError, "encoder is the class MLP. Pass a network"),
    ({"encoder": "mlp"}, TypeError, "encoder='mlp' of type str must be None or a flax.nnx.Module"),
    ({"image_shape": 5}, TypeError, "image_shape=5 must be"),
    ({"checkpoint_every": 0}, ValueError, "checkpoint_every=0 must be at least 1"),
]

OF_A_RUN = [
    ({"callbacks": print}, "must be a list of functions"),
    ({"callbacks": [3]}, "3 in callbacks cannot be called"),
    ({"checkpoint_dir": 3}, "checkpoint_dir=3 must be None or the path"),
    ({"resume": "no"}, "resume='no' must be True or False"),
]

OF_SOME = [
    (DEC, {"epochs": None}, TypeError, "epochs=None: pass the most epochs"),
    (DEC, {"alpha": np.inf}, ValueError, "alpha=inf must be finite"),
    (DEC, {"alpha": None}, TypeError, "alpha must be a number"),
    (DEC, {"pretrain_epochs": False}, TypeError, "pretrain_epochs must be an integer, got False"),
    (DEC, {"pretrain_epochs": -1}, ValueError, "pretrain_epochs=-1 must be at least 1"),
    (DEC, {"update_interval": 0}, ValueError, "update_interval=0 must be at least 1"),
    (DEC, {"noise": 1}, ValueError, r"noise=1 must be in \[0, 1\)"),
    (DEC, {"noise": "some"}, TypeError, "noise must be a number"),
    (DEC, {"tol": -1.0}, ValueError, "tol=-1.0 must be at least 0"),
    (DEC, {"tol": "auto"}, TypeError, "tol must be a number"),
    (DEC, {"n_init": 0}, ValueError, "n_init=0 must be at least 1"),
    (DEC, {"decoder": 3}, TypeError, "decoder=3 of type int"),
    (DEC, {"augment": Thawed()}, TypeError, "augment of type Thawed cannot be compared.*frozen=True"),
    (SwAV, {"views": Thawed()}, TypeError, "views of type Thawed cannot be compared.*frozen=True"),
    (DEC, {"augment": 3}, TypeError, "augment=3 must be True, False, or called"),
    (IDEC, {"gamma": np.inf}, ValueError, "gamma=inf must be finite"),
    (DCN, {"weight": -1}, ValueError, "weight=-1 must be at least 0"),
    (DCN, {"weight": None}, TypeError, "weight must be a number"),
    (DenoisingAutoencoderClustering, {"weight": -1}, ValueError, "weight=-1 must be at least 0"),
    (JointClustering, {"gamma": -1}, ValueError, "gamma=-1 must be at least 0"),
    (JointClustering, {"weight": None}, TypeError, "weight must be a number"),
    (JointClustering, {"alpha": 0}, ValueError, "alpha=0 must be greater than 0"),
    (VaDE, {"hidden": ()}, ValueError, r"hidden=\(\) must hold 1 width or more"),
    (AutoencoderKMeans, {"n_init": None}, TypeError, "n_init must be an integer"),
    (ClusterGAN, {"penalty": np.inf}, ValueError, "penalty=inf must be finite"),
    (ClusterGAN, {"deviation": 0}, ValueError, "deviation=0 must be greater than 0"),
    (ClusterGAN, {"critic_steps": 0}, ValueError, "critic_steps=0 must be at least 1"),
    (ClusterGAN, {"channels": ()}, ValueError, r"channels=\(\) must hold 1 width or more"),
    (ClusterGAN, {"critic": 3}, TypeError, "critic=3 of type int"),
    (SwAV, {"crops": 3}, ValueError, "crops=3 must be two numbers"),
    (SwAV, {"crops": (0, 2)}, ValueError, r"large views in crops=0 must be at least 1"),
    (SwAV, {"freeze_steps": -1}, ValueError, "freeze_steps=-1 must be at least 1"),
    (SwAV, {"queue_size": True}, TypeError, "queue_size must be an integer"),
    (SwAV, {"temperature": np.inf}, ValueError, "temperature=inf must be finite"),
    (DeepCluster, {"components": 3}, ValueError, "components=3 is more than the 2 features"),
    (DeepCluster, {"temperature": 0}, ValueError, "temperature=0 must be greater than 0"),
    (MetricEmbedding, {"margin": None}, TypeError, "margin must be a number"),
]

METHODS = sorted({method for method, *_ in OF_SOME}, key=lambda method: method.__name__)


def never(report):
    raise AssertionError("a step was taken")


def refused(method, options, error, message, x):
    # By set_params, since the tests check the types of arguments that are passed to a constructor.
    model = method(4, **TINY).set_params(**options)
    with pytest.raises(error, match=message):
        model.fit(x, callbacks=[never])


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_all_methods_are_checked_first(blobs, method):
    for options, error, message in OF_ALL:
        refused(method, options, error, message, blobs.x)


@pytest.mark.parametrize("method", [DEC, SwAV, JointClustering, MetricEmbedding])
def test_arguments_of_a_run_are_checked(blobs, method):
    for arguments, message in OF_A_RUN:
        assert not arguments.keys() & method().get_params().keys()
        with pytest.raises(TypeError, match=message):
            method(4, **TINY).fit(blobs.x, **{"callbacks": [never], **arguments})


def test_parameters_of_a_method_are_checked_first(blobs):
    for method, options, error, message in OF_SOME:
        refused(method, options, error, message, blobs.x)


def test_an_optimizer_of_flax_is_told_what_to_pass(blobs):
    net = nets.MLP((5, 2), rngs=nnx.Rngs(0))
    model = DEC(4, **CODED).set_params(optimizer=nnx.Optimizer(net, optax.adam(1e-3), wrt=nnx.Param))
    with pytest.raises(TypeError, match="Pass the transformation of optax that it was made of, its attribute tx"):
        model.fit(blobs.x)


def assert_usable(model, x):
    """Assert properties that every fit has, also one that failed."""
    np.testing.assert_array_equal(model.predict(x), model.labels_)
    assert np.isfinite(model.transform(x)).all()
    assert np.isfinite(model.predict_proba(x)).all()
    assert all(np.isfinite(value).all() for value in model._weights.values())
    assert np.isfinite(model.history_).all()


FAILURES = {
    "far": (optax.sgd(1e30), 2, "not finite at step 2 of cluster; the network is that after step 0"),
    "late": (
        optax.adam(lambda step: jnp.where(step >= 3, jnp.nan, 1e-3)),
        4,
        "not finite at step 4 of cluster; the network is that after step 3",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_training_leaves_a_usable_network(blobs, name):
    optimizer, step, message = FAILURES[name]
    with pytest.warns(ConvergenceWarning, match=message) as warnings:
        model = DEC(4, **CODED | {"epochs": 3}, optimizer=optimizer).fit(blobs.x)
    assert (model.status_, model.failed_step_) == (Status.NOT_FINITE, step)
    assert_usable(model, blobs.x)
    advice = str(warnings[0].message)
    assert "Pass an optimizer with a lower rate" in advice
    assert "learning_rate" not in advice


@pytest.mark.parametrize("model", [TURTLE, SCAN])
def test_a_failed_head_is_that_before_its_update(blobs, model):
    """Epochs of one step, whose parameters are finite and whose probabilities are not."""
    options = {"epochs": 3, "n_heads": 2, "random_state": 0, "optimizer": optax.sgd(1e30)}
    with pytest.warns(ConvergenceWarning, match="step 2 of train; the network is that after step 0"):
        head = model(4, **options).fit(blobs.x)
    assert_usable(head, blobs.x)


def test_failure_restores_both_sides_of_a_game(blobs):
    options = TINY | {"epochs": 1, "optimizer": optax.sgd(lambda step: jnp.where(step >= 3, jnp.nan, 1e-4))}
    with pytest.warns(ConvergenceWarning, match="step 1 of train; the network is that after step 0"):
        model = ClusterGAN(4, **options).fit(blobs.x)  # the fourth of five moves of the critic
    assert_usable(model, blobs.x)
    assert (model.n_iter_, model.history_.size, model.epoch_history_) == (0, 0, [])


def test_the_advice_names_what_sets_the_rate(blobs):
    schedule = optax.constant_schedule(1e30)
    with pytest.warns(ConvergenceWarning, match="Pass a schedule of lower rates as learning_rate"):
        MetricEmbedding(4, **TINY, epochs=1, learning_rate=schedule).fit(blobs.x)


def test_a_layer_that_fails_ends_the_pretraining(blobs):
    options = CODED | {"pretrain": "stacked", "scaling": "none", "learning_rate": 1e18}
    with pytest.warns(ConvergenceWarning, match=r"not finite at step \d+ of layer-0.*Lower learning_rate=1e\+18"):
        model = DEC(4, **options).fit(blobs.x)
    assert model.status_ == Status.NOT_FINITE
    assert np.isfinite(model.transform(blobs.x)).all()


def test_a_schedule_is_a_rate(blobs):
    constant = DEC(4, **CODED).fit(blobs.x)
    falling = DEC(4, **CODED, learning_rate=optax.linear_schedule(1e-3, 0.0, 1)).fit(blobs.x)
    for model in (constant, falling):
        assert np.isfinite([record["loss"] for record in model.epoch_history_]).all()
    assert not np.array_equal(constant.history_, falling.history_)


def test_empty_clusters_are_a_status_with_a_cause():
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 5.0], [9.0, 2.0]]), 20, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"clusters have no rows: X has 3 distinct rows. Pass n_clusters=3 or"):
        model = AutoencoderKMeans(4, **TINY, pretrain_epochs=1, n_init=1).fit(x)
    assert model.status_ == Status.EMPTY_CLUSTERS
    np.testing.assert_array_equal(model.predict(x), model.labels_)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((7, 28, 28), "pass X.reshape(len(X), -1), and image_shape=(28, 28) "),
        ((7, 32, 24, 3), "Of images, pass X.reshape(len(X), -1), and image_shape=(32, 24, 3) "),
        ((7, 3, 32, 24), "X.transpose(0, 2, 3, 1).reshape(len(X), -1), and image_shape=(32, 24, 3) "),
        ((7, 1, 28, 28), "X.transpose(0, 2, 3, 1).reshape(len(X), -1), and image_shape=(28, 28, 1) "),
        ((7, 16, 64, 64), "X.transpose(0, 2, 3, 1).reshape(len(X), -1), and image_shape=(64, 64, 16) "),
        ((7, 3, 3, 3), "where channels come first, X.transpose(0, 2, 3, 1)"),
    ],
)
def test_images_are_told_the_shape_that_they_have(shape, advice):
    assert advice in flat_images("X", shape)
    x = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"rows must be flat: \(n_samples, n_features\). Of images"):
        DEC(2, **CODED).fit(x)
    if "transpose" in advice and shape[1] != shape[3]:  # the advice, followed, gives the image shape that it names
        flat = x.transpose(0, 2, 3, 1).reshape(len(x), -1)
        check_image_shape((*shape[2:], shape[1]), flat.shape[1])


def test_image_shape_with_channels_first_warns():
    with pytest.warns(UserWarning, match=r"read as \(height, width, channels\): 3×32 pixels of 24 .*\(32, 24, 3\)"):
        check_image_shape((3, 32, 24), 3 * 32 * 24)
    with pytest.raises(ValueError, match="with the channels first"):
        nets.as_images(np.zeros((2, 3, 8, 8)), (8, 8, 3))


class OfFunction(nnx.Module):
    """A network without weights."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x @ np.ones((7, 2), np.float32), r"called with rows of shape \(1, 5\) it raised TypeError"),
        (lambda x: x, r"gives codes of shape \(1, 5\) for one row, .* Pass latent=5"),
    ],
)
@pytest.mark.parametrize("model", [DEC, SwAV])
def test_encoders_that_do_not_suit_are_refused(blobs, model, function, message):
    with pytest.raises(ValueError, match=message):
        model(2, encoder=OfFunction(function), latent=2, hidden=(8,), batch_size=50).fit(blobs.x)


@pytest.mark.parametrize("cluster", [1.0, "a", True, [0, 1]])
def test_a_cluster_is_a_whole_number(cluster):
    with pytest.raises(TypeError, match="cluster=.* must be a whole number"):
        check_cluster("cluster", cluster, 3)
    for beyond in (-1, 3):
        with pytest.raises(ValueError, match=f"cluster={beyond} must be from 0 to 2"):
            check_cluster("cluster", beyond, 3)
    assert check_cluster("cluster", np.int64(2), 3) == 2

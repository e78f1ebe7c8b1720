"""Soft resets of weights between clusterings."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from jaxcluster import DEC
from jaxcluster.deep import nets
from jaxcluster.deep.latent_kmeans import soft_reset

TINY = {
    "hidden": (8,),
    "latent": 2,
    "pretrain_epochs": 1,
    "epochs": 5,
    "batch_size": 50,
    "tol": None,
    "n_init": 1,
    "random_state": 0,
    "select": "trained",
}


def test_weights_go_a_part_of_the_way_to_fresh_ones():
    trained, fresh = (nets.MLP((5, 8, 2), rngs=nnx.Rngs(seed)) for seed in (0, 1))
    before = [np.array(leaf) for leaf in nnx.to_pure_dict(nnx.state(trained, nnx.Param))["layers"][0].values()]
    reset = soft_reset(trained, fresh, keep=0.7)
    states = [nnx.to_pure_dict(nnx.state(each, nnx.Param))["layers"][0] for each in (trained, fresh, reset)]
    for name, value in states[2].items():
        np.testing.assert_allclose(value, 0.7 * states[0][name] + 0.3 * states[1][name], rtol=1e-6)
    for value, other in zip(before, states[0].values(), strict=True):
        np.testing.assert_array_equal(value, other)
    with pytest.raises(ValueError, match="of the same shape"):
        soft_reset(trained, nets.MLP((5, 7, 2), rngs=nnx.Rngs(0)), keep=0.5)
    with pytest.raises(ValueError, match=r"keep=1.5 must be at most 1"):
        soft_reset(trained, fresh, keep=1.5)


def test_rounds_end_where_the_next_reset_is(blobs, tmp_path):
    model = DEC(4, **TINY, reset_interval=2).fit(blobs.x, checkpoint_dir=tmp_path)
    assert model.n_iter_ == 5
    assert {"cluster-0", "cluster-1"} <= {path.name for path in tmp_path.iterdir()}
    whole = DEC(4, **TINY, reset_interval=9).fit(blobs.x)
    assert not np.array_equal(model.history_, whole.history_)
    resumed = DEC(4, **TINY, reset_interval=2).fit(blobs.x, checkpoint_dir=tmp_path, resume=True)
    np.testing.assert_array_equal(resumed.labels_, model.labels_)
    with pytest.raises(ValueError, match=r"reset_keep=1.5 must be at most 1"):
        DEC(4, **TINY, reset_keep=1.5).fit(blobs.x)

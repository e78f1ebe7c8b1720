"""Base class of methods whose weights may be reset softly between clusterings (BRB)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import jax
from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep.inference import map_module
from jaxcluster.deep.resets import soft_reset
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoder_base import AutoencoderClusterer
from jaxcluster.types import Status


@dataclass(eq=False, repr=False)
class ResettingClusterer(AutoencoderClusterer):
    """Base of autoencoder methods with soft resets of the weights (BRB).

    With a ``reset_interval`` phase 2 is a sequence of rounds. Before each round but the first the encoder's weights go
    a part of the way back to fresh ones, k-means of the new codes gives new clusters, and the optimizer starts anew.

    Args:
        n_clusters, hidden, …: see `AutoencoderClusterer`.
        reset_interval: epochs of a round, of which the last takes what is left of ``epochs`` too; None for no resets. A
            round ends earlier by ``tol``.
        reset_keep: part of the weights that a reset keeps, in [0, 1]. Fresh weights of an ``encoder`` that was passed
            are those it was passed with.

    Source: L. Miklautz et al., Breaking the reclustering barrier in centroid-based deep clustering, ICLR 2025.
    """

    _: KW_ONLY
    reset_interval: int | None = None
    reset_keep: float = 0.8

    def _train(self, key, module, rows, class_codes, snapshots, phases, run, **options):
        if self.reset_interval is None:
            return super()._train(key, module, rows, class_codes, snapshots, phases, run, **options)
        count = max(1, self.epochs // self.reset_interval)
        history, trained = [], None
        for number, round_key in enumerate(jax.random.split(key, count)):
            reset_key, start_key, train_key = jax.random.split(round_key, 3)
            if number:
                module = self._reset(reset_key, start_key, module, rows, class_codes)
            last = number == count - 1
            epochs = self.epochs - number * self.reset_interval if last else self.reset_interval
            module, _, trained = super()._train(
                *(train_key, module, rows, class_codes, snapshots, phases, run),
                epochs=epochs,
                name=f"cluster-{number}",
            )
            history += trained.history
            if trained.status == Status.NOT_FINITE:
                break
        assert trained is not None  # there is at least one round
        return module, "cluster", trained._replace(history=tuple(history))

    def _reset(self, reset_key, start_key, module, rows, class_codes):
        autoencoder = nnx.clone(module.autoencoder)
        fresh = self._networks(nnx.Rngs(reset_key), rows.shape[1])
        autoencoder.encoder = soft_reset(autoencoder.encoder, fresh.encoder, keep=self.reset_keep)
        codes = map_module(autoencoder, "encode", rows)
        self._initial_clusters = self._start(start_key, codes, autoencoder, rows, class_codes)
        return self._make(autoencoder, self._initial_clusters)

    def _check_params(self, n, d):
        super()._check_params(n, d)
        if self.reset_interval is not None:
            validation.check_count("reset_interval", self.reset_interval)
        if checks.check_number("reset_keep", self.reset_keep, zero=True) > 1:
            raise ValueError(f"reset_keep={self.reset_keep} must be at most 1.")

"""Base classes of methods that start from an autoencoder and k-means of its codes, with soft resets (BRB) or not."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxcluster.cluster import kmeans
from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.autoencoder import LIKELIHOODS, Autoencoder, check_likelihood, latent_mean, pretrain_layers
from jaxcluster.deep.inference import eval_copy, map_module
from jaxcluster.deep.latent_kmeans import soft_reset
from jaxcluster.deep.optimizers import adam
from jaxcluster.deep.trainer import TrainResult, train
from jaxcluster.deep.views import Masking, ShiftRotate
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.base import DeepEstimator
from jaxcluster.estimators.deep.scaling import scaled
from jaxcluster.estimators.deep.trained import Interpolating
from jaxcluster.types import Array, Float, KeyArray, Status

PRETRAINING = ("end-to-end", "stacked")
"""Values of ``pretrain``."""

MIN_PRETRAIN_STEPS = 2_000
"""Minimum number of optimizer steps of the pretraining, unless ``pretrain_epochs`` is set."""

MIN_PRETRAIN_EPOCHS = 30
"""Minimum number of epochs of the pretraining, unless ``pretrain_epochs`` is set."""

MIN_UPDATE_STEPS = 30
"""Minimum number of steps between updates of the targets from all samples, unless ``update_interval`` is set."""


@dataclass(eq=False, repr=False)
class AutoencoderClusterer(Interpolating, DeepEstimator):
    """Base of estimators that cluster the codes of an autoencoder.

    Phase 1 trains an autoencoder. k-means of its codes gives initial clusters. Phase 2 trains network and clusters
    together by the loss of the method.

    Args:
        n_clusters, latent, …: see `jaxcluster.estimators.deep.base.DeepEstimator`.
        hidden: widths of the encoder's hidden layers, mirrored in the decoder. The papers use (500, 500, 2000), which
            takes ten times as long.
        encoder, decoder: any `nnx.Module` from (n, n_features) samples to (n, latent) codes, and from codes to samples,
            in place of dense layers. They are not changed. A model with some of your own is saved if they
            have ``get_config()``; see `jaxcluster.load`.
        image_shape: shape of samples that are flat images: for convolutional networks, and needed by ``augment=True``.
        likelihood: of a sample given its code: "gaussian" (squared error), or "bernoulli" (cross-entropy) for values
            in [0, 1].
        scaling: "auto" (see `jaxcluster.estimators.deep.scaling.scaled`; none with "bernoulli"), "standard", "minmax",
            "l2" or "none".
        noise: fraction of input entries that pretraining sets to 0 (denoising); 0 for a plain autoencoder.
        augment: True for random shifts and rotations of images in all phases, or any augmentation of
            `jaxcluster.deep.views`; False for none.
        pretrain: "end-to-end", or "stacked": layer by layer, then end-to-end.
        pretrain_epochs: epochs of phase 1; None for at least 2,000 steps and 30 epochs; 0 for no pretraining of the
            networks that were passed.
        epochs: maximum number of epochs of phase 2, each of ``update_interval`` steps.
        update_interval: steps between updates of the targets from all samples; None for one pass, and at least 30.
        optimizer: optax gradient transformation for phase 2, in place of Adam.
        tol: stop when at most this fraction of samples changes its label between epochs; None for never.
        n_init: number of initializations of k-means.

    Attributes:
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.
    """

    info = DeepEstimator.info._replace(
        choices={**DeepEstimator.info.choices, "likelihood": LIKELIHOODS, "pretrain": PRETRAINING}
    )

    _: KW_ONLY
    decoder: Any = None
    likelihood: str = "gaussian"
    noise: float = 0.2
    augment: Any = False
    pretrain: str = "end-to-end"
    pretrain_epochs: int | None = None
    update_interval: int | None = None
    tol: float | None = 1e-3
    n_init: int = 20

    # Hooks of the methods.

    def _start(
        self, key: KeyArray, z: Float[Array, "n l"], autoencoder: Autoencoder, rows: np.ndarray, class_codes: Any
    ) -> dict[str, Any]:
        """Initial clusters for `_make`, from the codes of all samples and the known classes of some."""
        return {"centers": self._kmeans(key, z).state.centers}

    def _make(self, autoencoder: Autoencoder, start: dict[str, Any]) -> nnx.Module:
        """Module of phase 2, with ``features``, ``assign`` and, if there is such a phase, ``loss``."""
        raise NotImplementedError

    # The fit.

    def _fit(self, X, class_codes, run):
        rows, self.scaling_ = scaled(X, self.scaling, self.likelihood)
        check_likelihood(self.likelihood, rows)
        # All keys are split first: skipping or resuming one phase leaves the random numbers of the others as they were.
        net_key, pretrain_key, start_key, train_key = jax.random.split(self._key(), 4)
        autoencoder = self._networks(nnx.Rngs(net_key), rows.shape[1])
        self._check_networks(autoencoder, rows)
        snapshots = self._snapshots(run, rows)
        autoencoder, phases = self._pretrain(pretrain_key, autoencoder, rows, snapshots, run)
        codes = map_module(autoencoder, "encode", rows)
        self._check_codes(codes, phases)
        self._initial_clusters = self._start(start_key, codes, autoencoder, rows, class_codes)
        module = self._make(autoencoder, self._initial_clusters)
        # After a failed pretraining, clusters of the last finite codes are published with its status.
        if phases and phases[-1][1].status == Status.NOT_FINITE:
            phase, trained = phases[-1]
        else:
            module, phase, trained = self._train(train_key, module, rows, class_codes, snapshots, phases, run)
        # On the host, as part of the model: `_init_module` needs their shapes, also after loading.
        self._initial_clusters = {name: np.array(value) for name, value in self._initial_clusters.items()}
        self._publish(module, trained, phase, rows, snapshots)

    def reconstruct(self, X: Any) -> np.ndarray:
        """Decode the codes of the samples, (n_samples, n_features), in the units of X.

        The result is float32 if X is, else float64.
        """
        module, rows = self._module_and_rows(X)
        back = self.scaling_.undo(np.asarray(map_module(module.autoencoder, "reconstruct", rows)))
        return back.astype(np.float32) if getattr(X, "dtype", None) == np.float32 else back

    def _between(self, a, b, steps):
        first, last = self.cluster_centers_[[a, b]]
        t = np.linspace(0, 1, steps, dtype=first.dtype)[:, None]
        return map_module(self.module_.autoencoder, "decode", (1 - t) * first + t * last)

    def _examples(self, X, codes):
        """Reconstructions of rows and of centers, for the report."""
        decoded = self.scaling_.undo(np.asarray(map_module(self.module_.autoencoder, "decode", self.cluster_centers_)))
        rows = X[self.snapshots_["rows"]]
        return {"centers": self.cluster_centers_, "returned": self.reconstruct(rows), "decoded": decoded}

    # Steps of the fit.

    def _init_module(self) -> Any:
        return self._make(self._networks(nnx.Rngs(0), self.n_features_in_), self._initial_clusters)

    def _networks(self, rngs: nnx.Rngs, d: int) -> Autoencoder:
        """Untrained networks for d features."""
        encoder, decoder = self.encoder, self.decoder
        encoder = self._own_encoder(rngs, d) if encoder is None else nnx.clone(encoder)
        if decoder is not None:
            decoder = nnx.clone(decoder)
        elif self.image_shape is not None:
            decoder = nets.ConvDecoder(self.latent, self.image_shape, rngs=rngs)
        else:
            decoder = nets.MLP(nets.mirror((d, *self.hidden, self.latent)), rngs=rngs)
        noise = Masking(self.noise) if self.noise else None
        return Autoencoder(encoder, decoder, likelihood=self.likelihood, noise=noise, augment=self._view())

    def _own_encoder(self, rngs: nnx.Rngs, d: int) -> nnx.Module:
        if self.image_shape is not None:
            return nets.ConvEncoder(self.image_shape, self.latent, rngs=rngs)
        return nets.MLP((d, *self.hidden, self.latent), rngs=rngs)

    def _view(self):
        if isinstance(self.augment, bool):
            return ShiftRotate(tuple(self.image_shape or ())) if self.augment else None
        return self.augment

    def _pretrain(self, key, autoencoder, rows, snapshots, run) -> tuple[Autoencoder, list[tuple[str, TrainResult]]]:
        """Train the autoencoder.

        Returns:
            the autoencoder, and the results of its phases by name; the last one may be NOT_FINITE.
        """
        batch = self._batch(len(rows))
        # −(−a // b) is ⌈a / b⌉: the epochs that make MIN_PRETRAIN_STEPS steps.
        passes = max(MIN_PRETRAIN_EPOCHS, -(-MIN_PRETRAIN_STEPS // (len(rows) // batch)))
        epochs = passes if self.pretrain_epochs is None else self.pretrain_epochs
        if epochs == 0:
            return autoencoder, []
        layers_key, whole_key = jax.random.split(key)
        options = {"epochs": epochs, "batch_size": batch, "precision": self.precision, "resume": run.resume}
        options["mesh"] = self.mesh
        phases = []
        if self.pretrain == "stacked":
            autoencoder, layers = pretrain_layers(
                layers_key,
                autoencoder,
                rows,
                noise=autoencoder.noise,
                optimizer=adam(self._rate()),
                callbacks=self._callbacks(run, "layers", lines=False),
                checkpoints=self._checkpoints(run, "layers"),
                **options,
            )
            phases = [(f"layer-{i}", trained) for i, trained in enumerate(layers)]
            for phase, trained in phases:
                self._append_history(phase, trained)
            if phases[-1][1].status == Status.NOT_FINITE:
                return autoencoder, phases
        trained = train(
            whole_key,
            autoencoder,
            rows,
            optimizer=adam(self._rate(), decay_steps=epochs * (len(rows) // batch)),
            callbacks=self._callbacks(run, "pretrain", snapshots.for_phase("pretrain", "encode")),
            checkpoints=self._checkpoints(run, "pretrain"),
            **options,
        )
        self._append_history("pretrain", trained)
        return trained.module, [*phases, ("pretrain", trained)]

    def _train(
        self,
        key,
        module,
        rows,
        class_codes,
        snapshots,
        phases,
        run,
        *,
        epochs: int | None = None,
        name: str = "cluster",
    ) -> tuple[nnx.Module, str, TrainResult]:
        """Train phase 2, or a part of it with a name of its own for its folder and snapshots.

        Returns:
            the module, the name of the phase whose history is published, and its result.
        """
        batch = self._batch(len(rows))
        interval = max(MIN_UPDATE_STEPS, len(rows) // batch) if self.update_interval is None else self.update_interval
        trained = train(
            key,
            module,
            rows,
            y=class_codes,
            epochs=self.epochs if epochs is None else epochs,
            optimizer=adam(self._rate()) if self.optimizer is None else self.optimizer,
            batch_size=batch,
            steps_per_epoch=interval,
            tol=self.tol,
            precision=self.precision,
            callbacks=self._callbacks(run, name, snapshots.for_phase(name, "features")),
            checkpoints=self._checkpoints(run, name),
            resume=run.resume,
            mesh=self.mesh,
        )
        self._append_history("cluster", trained)
        return trained.module, "cluster", trained

    def _kmeans(self, key, z):
        return kmeans.fit(key, z, self.n_clusters, n_init=self.n_init)

    def _check_codes(self, codes, phases):
        """Raise ValueError if the codes after pretraining are not finite."""
        if np.isfinite(np.asarray(codes)).all():
            return
        if not phases:
            raise ValueError(
                f"{type(self).__name__}: the encoder that was passed gives codes of X that are not finite. Pass "
                "another, or look for extreme values in X."
            )
        phase, trained = phases[-1]
        raise ValueError(
            f"{type(self).__name__}: the codes of X are not finite after step {trained.steps} of pretraining. "
            f"{self._lower_rate_advice(phase)}, or look for extreme values in X."
        )

    def _check_params(self, n: int, d: int) -> None:
        super()._check_params(n, d)
        validation.check_choice("pretrain", self.pretrain, PRETRAINING)
        validation.check_choice("likelihood", self.likelihood, LIKELIHOODS)
        validation.check_count("n_init", self.n_init)
        checks.check_network("decoder", self.decoder)
        if self.update_interval is not None:
            validation.check_count("update_interval", self.update_interval)
        if self.pretrain_epochs is not None:
            checks.check_whole("pretrain_epochs", self.pretrain_epochs)
        checks.check_number("noise", self.noise, zero=True)
        if self.noise >= 1:
            raise ValueError(f"noise={self.noise} must be in [0, 1): it is the share of entries that are set to 0.")
        if self.tol is not None:
            validation.check_positive("tol", self.tol, zero=True)
        if self.augment is True and self.image_shape is None:
            raise ValueError("augment=True shifts and turns images: pass image_shape=(height, width) of the rows too.")
        if self.augment is not None and not isinstance(self.augment, bool):
            checks.check_view("augment", self.augment, "True, False")

    def _check_networks(self, autoencoder: Autoencoder, rows: np.ndarray) -> None:
        """Raise ValueError if codes or reconstructions have a wrong shape."""
        d, shown = rows.shape[1], eval_copy(autoencoder)
        self._check_width(checks.output_shape("encoder", lambda x: latent_mean(shown.encoder(x)), d))
        back = checks.output_shape("decoder", lambda z: shown.decoder(z), self.latent)
        if back != (1, d):
            raise ValueError(f"the decoder gives rows of shape {back}, but X has {rows.shape[1]} columns.")


@dataclass(eq=False, repr=False)
class ResettingClusterer(AutoencoderClusterer):
    """Base of autoencoder methods with soft resets of the weights (BRB).

    With a ``reset_interval`` phase 2 is a sequence of rounds. Before each round but the first the encoder's weights go
    a part of the way back to fresh ones, k-means of the new codes gives new clusters, and the optimizer starts anew.

    Args:
        n_clusters, hidden, …: see `AutoencoderClusterer`.
        reset_interval: epochs of a round; None for no resets. The last round takes the rest of ``epochs``, and ``tol``
            may end each one earlier.
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

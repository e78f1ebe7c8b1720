"""Self-supervised embedding: k-means on codes that agree for two views of a sample, by one of six objectives."""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx

from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.self_supervised import OBJECTIVES, WITH_PREDICTOR, WITH_TARGET, SelfSupervised
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.single_phase import AugmentationEstimator
from jaxcluster.estimators.registry import register


@register(
    "self-supervised-embedding",
    choices={**AugmentationEstimator.info.choices, "objective": OBJECTIVES},
)
@dataclass(eq=False, repr=False, kw_only=True)
class SelfSupervisedEmbedding(AugmentationEstimator):
    """k-means on codes that a network learns from augmented views: SimCLR, BYOL, SimSiam, Barlow Twins, VICReg or DINO.

    After a small network, the projector, the codes of two views of a sample agree. The objectives differ in what keeps
    the codes of all samples from being equal. The projector is used in the training alone.

    Args:
        n_clusters: number of clusters.
        objective: "simclr": views of other samples are negatives; "byol": a predictor, and the moving average of the
            network as the target; "simsiam": a predictor, and a target without a gradient; "barlow-twins": features
            without correlations; "vicreg": features with variance and without correlations; "dino": probabilities of
            prototypes by the moving average, centered and sharpened. See `jaxcluster.deep.SelfSupervised`.
        views: function from a key and samples to a tuple of two or more augmented views, or to one view, and is then
            called twice.
        projection: width of the projector's layers, and of what the objective compares.
        n_prototypes: number of prototypes of "dino".
        temperature: > 0, temperature of "simclr" and of the student of "dino"; None for 0.5 and 0.1.
        momentum: momentum of the moving averages of "byol" and "dino" at the first step, in [0, 1). It rises to 1 by a
            cosine.
        n_init: number of initializations of k-means.
        hidden, latent, …: see `AugmentationEstimator`.

    Attributes:
        cluster_centers_: (n_clusters, latent) of length 1, as all codes.
        epoch_history_: also ``spread``, which is 0 at a collapse: the mean squared distance of the projections, scaled
            to length 1, from their mean; for "dino" the mutual information of samples and prototypes as a fraction of
            its maximum.
        labels_, history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Sources: see `jaxcluster.deep.self_supervised`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> model = SelfSupervisedEmbedding(3, objective="vicreg", hidden=(16,), latent=4, epochs=5, random_state=0)
        >>> model.fit_transform(X).shape
        (150, 4)
    """

    objective: str = "simclr"
    projection: int = 128
    n_prototypes: int = 256
    temperature: float | None = None
    momentum: float = 0.99
    n_init: int = 20

    _n_steps = None
    """Number of steps of the training."""

    def _make(self, rngs, d):
        encoder, width = self._network(rngs, d), self.projection
        projector = nets.Projector((self.latent, width, width), rngs=rngs)
        if self.objective == "dino":
            projector = nnx.Sequential(projector, nets.Prototypes(width, self.n_prototypes, rngs=rngs))
        predictor = None
        if self.objective in WITH_PREDICTOR:
            # SimSiam's hidden layer is a bottleneck of a quarter; BYOL's is no narrower than the projections.
            hidden = max(1, width // 4) if self.objective == "simsiam" else width
            predictor = nets.Projector((width, hidden, width), rngs=rngs)
        return SelfSupervised(
            encoder,
            self.n_clusters,
            self.latent,
            views=self._views(d),
            objective=self.objective,
            projector=projector,
            predictor=predictor,
            temperature=self.temperature,
            momentum=self.momentum,
            n_steps=self._n_steps if self.objective in WITH_TARGET else None,
            n_init=self.n_init,
        )

    def _make_for_training(self, rngs, rows):
        batch = self._batch(len(rows))
        self._n_steps = self._epochs(len(rows), batch) * self._steps_per_epoch(len(rows), batch)
        return super()._make_for_training(rngs, rows)

    def _checkpoints(self, run, phase, **more):
        # Momentum and temperature depend on the number of steps, as the learning rate does unless it is a schedule.
        steps = {"n_steps": self._n_steps} if self.objective in WITH_TARGET else {}
        return super()._checkpoints(run, phase, **more, **steps)

    def _collapse_cause(self, phase):
        # The term of VICReg against a collapse is the only one that says how far the rows have to be apart.
        other = "" if self.objective == "vicreg" else "objective='vicreg', or "
        return (
            f"all rows look the same to the network. Pass {other}views that leave more of the rows as they are. "
            f"{self._lower_rate_advice(phase)}"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        if n < 2:
            raise ValueError(f"n_samples={n} should be at least 2: a row is known by what sets it apart from others.")
        if self._batch(n) < 2:
            raise ValueError("batch_size=1 holds no other row to compare a row with. Pass at least 2, or 'auto'.")
        if self.views is None:
            raise ValueError("views=None shows rows as they are, and 2 views of each are needed. Pass views='auto'.")
        validation.check_choice("objective", self.objective, OBJECTIVES)
        for name in ("projection", "n_prototypes", "n_init"):
            validation.check_count(name, getattr(self, name))
        if self.temperature is not None:
            checks.check_number("temperature", self.temperature)
        checks.check_number("momentum", self.momentum, zero=True, below=1)

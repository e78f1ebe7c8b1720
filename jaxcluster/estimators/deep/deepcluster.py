"""Networks that learn to tell apart the clusters of their own features (DeepCluster)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxcluster import deep
from jaxcluster.core import check
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.views import ViewLearner
from jaxcluster.estimators.registry import register

VARIANTS = ("v1", "v2")
PER_CLUSTER = 3
"""Clusters that are learned for each that is sought, unless ``n_pseudo`` says otherwise; each has at least:"""
ROWS = 10


@register("deepcluster", "a network learns to tell apart the clusters of its own features")
@dataclass(eq=False, repr=False, kw_only=True)
class DeepCluster(ViewLearner):
    """A network learns, from random views of the rows, the clusters that k-means finds among its own features.

    At each look at all rows k-means finds new ones, several for each that is sought; until the next look they are the
    classes of a classification. In the end k-means finds the clusters that are sought.

    Args:
        n_clusters: number of clusters.
        variant: "v2": spherical k-means, whose centers are what features are compared with; or "v1": k-means of
            whitened principal components, and a fresh linear head that learns to tell its clusters apart.
        n_pseudo: clusters that are learned; None for three for each that is sought, or fewer where there are not ten
            rows for each.
        update_interval: steps from one look at all rows to the next, an epoch; None for a pass over them, and at least
            100.
        epochs: looks, of as many steps; None for at least 2,000 steps and 30 looks.
        components: principal components that "v1" keeps; None for a quarter of the features, at most 256.
        temperature: of "v2", > 0, that cosines are divided by.
        n_init: starts of the last k-means.
        hidden, latent, views, …: see `jaxcluster.estimators.deep.views.ViewLearner`.

    Attributes:
        cluster_centers_: (n_clusters, m) among the features as clusters see them: of length 1, and with "v1" whitened.
        records_: also ``accuracy``, the share of views that are told apart right, and, of each epoch but the first,
            ``nmi``, the normalized mutual information of its clusters and those before.
        labels_, history_, snapshots_, n_iter_, status_: as of all deep methods.

    Sources: see `jaxcluster.deep.deepcluster`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> DeepCluster(3, hidden=(16,), latent=8, epochs=3, random_state=0).fit(X).labels_.shape
        (150,)
    """

    variant: str = "v2"
    n_pseudo: int | None = None
    update_interval: int | None = None
    components: int | None = None
    temperature: float = 0.1
    n_init: int = 10

    CROPS = (1, 0)
    LOOK_STEPS = 100

    def _make(self, rngs, d):
        encoder = self._network(rngs, d)
        options = {"n_clusters": self.n_clusters, "n_init": self.n_init, "view": self._views(d)}
        if self.variant == "v2":
            return deep.DeepClusterV2(encoder, self.latent, self._learned, temperature=self.temperature, **options)
        return deep.DeepCluster(encoder, self.latent, self._learned, components=self.components, rngs=rngs, **options)

    def _steps_per_epoch(self, n, batch):
        return super()._steps_per_epoch(n, batch) if self.update_interval is None else self.update_interval

    def _collapse(self, phase):
        return (
            f"all rows have the same features, or are in one cluster. {self._gentler(phase)}, or pass an encoder with "
            "batch normalization"
        )

    def _check_params(self, n, d):
        super()._check_params(n, d)
        check.check_choice("variant", self.variant, VARIANTS)
        check.check_count("n_init", self.n_init)
        checks.check_number("temperature", self.temperature)
        if self.components is not None and check.check_count("components", self.components) > self.latent:
            raise ValueError(
                f"components={self.components} is more than the {self.latent} features there are. Pass at most "
                f"{self.latent}, or raise latent."
            )
        if self.update_interval is not None:
            check.check_count("update_interval", self.update_interval)
        if self.n_pseudo is not None:
            check.check_clusters(self.n_pseudo, n, name="n_pseudo")
        few = max(self.n_clusters, min(PER_CLUSTER * self.n_clusters, n // ROWS))
        self._learned = few if self.n_pseudo is None else self.n_pseudo

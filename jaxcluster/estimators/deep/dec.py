"""Deep embedded clustering (DEC) and its improved form (IDEC)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxcluster import deep
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoding import DeepClusterer
from jaxcluster.estimators.registry import register


@register("dec", "deep embedded clustering: codes drawn to the clusters they are surest of")
@dataclass(eq=False, repr=False, kw_only=True)
class DEC(DeepClusterer):
    """Deep embedded clustering: codes are drawn to the clusters that they are surest of, until no more change theirs.

    Minimizes KL(P‖Q): Q shares each code out among the clusters by Student's t, P is a sharper Q of all rows, looked at
    anew every ``update_interval`` steps.

    Args:
        n_clusters: number of clusters.
        alpha: degrees of freedom of Student's t.
        hidden, latent, …: see `jaxcluster.estimators.deep.autoencoding.DeepClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, records_, snapshots_, n_iter_, status_: as of all deep methods.

    Source: J. Xie, R. Girshick and A. Farhadi, Unsupervised deep embedding for clustering analysis, ICML 2016.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> model = DEC(3, hidden=(16,), latent=2, pretrain_epochs=20, epochs=5, random_state=0).fit(X)
        >>> model.predict_proba(X[:2]).shape
        (2, 3)
    """

    alpha: float = 1.0

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("alpha", self.alpha)

    def _make(self, autoencoder, start):
        return deep.DEC(autoencoder, start["centers"], alpha=self.alpha, augment=self._view())


@register("idec", "DEC that goes on reconstructing the rows")
@dataclass(eq=False, repr=False, kw_only=True)
class IDEC(DEC):
    """Improved deep embedded clustering: DEC that goes on reconstructing the rows.

    Minimizes error + γ·KL(P‖Q).

    Args:
        n_clusters: number of clusters.
        gamma: γ, the weight of the divergence; the error is a mean over rows and columns.
        alpha: degrees of freedom of Student's t.
        hidden, latent, …: see `jaxcluster.estimators.deep.autoencoding.DeepClusterer`.

    Attributes:
        labels_, cluster_centers_, history_, records_, snapshots_, n_iter_, status_: as of all deep methods.

    Source: X. Guo, L. Gao, X. Liu and J. Yin, Improved deep embedded clustering with local structure preservation,
    IJCAI 2017.
    """

    gamma: float = 0.1

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_number("gamma", self.gamma, zero=True)

    def _make(self, autoencoder, start):
        options = {"alpha": self.alpha, "gamma": self.gamma, "augment": self._view()}
        return deep.IDEC(autoencoder, start["centers"], **options)

"""Variational deep embedding: `VaDE`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.utils.validation import check_is_fitted

from jaxcluster import deep
from jaxcluster.cluster import gmm
from jaxcluster.core import validation
from jaxcluster.deep import nets
from jaxcluster.deep.inference import eval_copy, map_module
from jaxcluster.estimators.base import as_key
from jaxcluster.estimators.deep import checks
from jaxcluster.estimators.deep.autoencoder_base import AutoencoderClusterer
from jaxcluster.estimators.registry import register

CODE_VARIANCE_RATIO = 0.1
"""Initial variance of a code given its sample, as a fraction of the mean variance of codes within clusters. Small, so
that the noise of the codes does not mix the initial clusters."""

MIN_RESIDUAL_VARIANCE = 1e-6
"""Minimum initial variance of a feature given its code; scaled features have a variance of about 1."""


@register(
    "vade",
    objective="negative evidence bound (nats per row)",
)
@dataclass(eq=False, repr=False, kw_only=True)
class VaDE(AutoencoderClusterer):
    """Variational deep embedding: an autoencoder with a Gaussian mixture as the prior of its codes; it can be sampled.

    Maximizes the evidence lower bound of a variational autoencoder; with ``likelihood="gaussian"`` the variance of a
    feature given its code is learned too. Pretraining trains an autoencoder on the means of the codes; the initial
    mixture is that of the k-means clusters of these means.

    Args:
        n_clusters: number of clusters.
        hidden, latent, …: see `AutoencoderClusterer`; an ``encoder`` gives
            (mean, log-variance). ``likelihood="bernoulli"`` is the published one, for values in [0, 1].

    Attributes:
        weights_: (n_clusters,) mixture weights; the means are ``cluster_centers_``.
        variances_: (n_clusters, latent) variances of the components.
        labels_, cluster_centers_, history_, epoch_history_, snapshots_, n_iter_, status_: see `DeepEstimator`.

    Source: Z. Jiang, Y. Zheng, H. Tan, B. Tang and H. Zhou, Variational deep embedding: an unsupervised and generative
    approach to clustering, IJCAI 2017.
    """

    tol: float | None = None

    def sample(self, n_samples: int = 1, cluster: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw samples from the mixture, or from one cluster.

        Args:
            n_samples: number of samples.
            cluster: cluster of all samples; None to draw clusters by their weights.

        Returns:
            (n_samples, n_features) expected samples in the units of X, and (n_samples,) int32 clusters.

        Raises:
            ValueError, TypeError: a cluster that does not exist.
        """
        check_is_fitted(self)
        n_samples = validation.check_count("n_samples", n_samples)
        rows, labels = self.module_.sample(as_key(self.random_state), n_samples, cluster)
        return self.scaling_.undo(np.asarray(rows)), np.array(labels)

    def _examples(self, X, codes):
        return super()._examples(X, codes) | {"samples": self._generated()}

    def _own_encoder(self, rngs, d):
        width = self.hidden[-1]
        if self.image_shape is not None:
            trunk = nets.ConvEncoder(self.image_shape, width, rngs=rngs)
        else:
            trunk = nets.MLP((d, *self.hidden), rngs=rngs)
        return nets.VariationalEncoder(trunk, nets.GaussianHead(width, self.latent, rngs=rngs))

    def _start(self, key, z, autoencoder, rows, class_codes):
        # One M-step from hard assignments, no EM: EM would give up the k-means clusters for a likelihood that training
        # changes anyway.
        responsibilities = jax.nn.one_hot(self._kmeans(key, z).labels, self.n_clusters, dtype=z.dtype)
        start = gmm.GMMInit(responsibilities=responsibilities)
        state = gmm.init(key, z, self.n_clusters, covariance="diag", init=start).mixture()
        head = getattr(autoencoder.encoder, "head", None)
        if isinstance(head, nets.GaussianHead):
            head.set_variance(CODE_VARIANCE_RATIO * jnp.mean(state.covariances))
        start = {"weights": state.weights, "means": state.means, "variances": state.covariances}
        if self.likelihood == "gaussian":
            residuals = rows - np.asarray(map_module(autoencoder, "reconstruct", rows))
            start["residual"] = max(float(np.mean(np.square(residuals))), MIN_RESIDUAL_VARIANCE)
        return start

    def _make(self, autoencoder, start):
        return deep.VaDE(autoencoder, **start, augment=self._view())

    def _check_params(self, n, d):
        super()._check_params(n, d)
        checks.check_widths("hidden", self.hidden, least=1)

    def _check_networks(self, autoencoder, rows):
        one = jax.ShapeDtypeStruct((1, rows.shape[1]), np.float32)
        code = jax.eval_shape(eval_copy(autoencoder).encoder, one)
        if not (isinstance(code, tuple) and len(code) == 2):
            raise TypeError(
                "VaDE needs an encoder that returns (mean, log-variance), such as jaxcluster.deep.nets."
                "VariationalEncoder."
            )
        self._check_width(code[1].shape)
        super()._check_networks(autoencoder, rows)

    def _centers(self, module):
        return module.means[...]

    def _publish(self, module, trained, phase, rows, snapshots):
        super()._publish(module, trained, phase, rows, snapshots)
        self.weights_ = np.array(jax.nn.softmax(module.logits[...]))
        self.variances_ = np.array(jnp.exp(module.log_variances[...]))

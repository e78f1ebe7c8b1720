"""Mixtures for many numbers of components, types of covariance and starts, with their information criteria."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm.density import n_parameters
from jaxcluster.cluster.gmm.fit import Limits, Static, check_limits, em_options, finalize, solve
from jaxcluster.cluster.gmm.start import METHODS, Given
from jaxcluster.cluster.gmm.state import ridge_in, shifted
from jaxcluster.core import check
from jaxcluster.core.frame import prepare
from jaxcluster.core.iterate import history_capacity
from jaxcluster.core.restart import many, side_by_side
from jaxcluster.ops.gaussian import COVARIANCE_TYPES
from jaxcluster.types import Fit, KeyArray


class GMMSweep(NamedTuple):
    """The fits of a sweep and their criteria.

    Attributes:
        ks: (m,) numbers of components.
        covariances: (c,) types of covariance.
        fits: by type, a `Fit` whose arrays have two more leading axes, (m, n_seeds). Components are padded to max(ks)
            places; those beyond a problem's k have weight 0.
        log_likelihood: (c, m, n_seeds) float64 mean log-likelihood of a row (nats).
        bic, aic: (c, m, n_seeds) float64; lower is better.
    """

    ks: np.ndarray
    covariances: tuple[str, ...]
    fits: dict[str, Fit]
    log_likelihood: np.ndarray
    bic: np.ndarray
    aic: np.ndarray

    def best(self, criterion: str = "bic") -> tuple[int, str, int]:
        """The k, type and start of the least "bic" or "aic"."""
        check.check_choice("criterion", criterion, ("bic", "aic"))
        values = getattr(self, criterion)
        kind, at, seed = np.unravel_index(np.nanargmin(values), values.shape)
        return int(self.ks[at]), self.covariances[kind], int(seed)


def sweep(
    key: KeyArray,
    x,
    ks,
    *,
    covariances: Sequence[str] = tuple(COVARIANCE_TYPES),
    n_seeds: int = 1,
    weights=None,
    init: str = "kmeans",
    tol=1e-3,
    max_steps=100,
    reg_covar=1e-6,
    missing: bool = False,
    precision: str | None = None,
) -> GMMSweep:
    """Fits every k in ``ks`` from ``n_seeds`` starts with every type of covariance, one compile for each type.

    Args:
        key: random key; every type gets the same starts.
        x: (n, d) rows.
        ks: distinct numbers of components.
        covariances: types, or one of them.
        n_seeds: starts for each k.
        weights, init, tol, max_steps, reg_covar, missing, precision: as in ``gmm.fit``; init by name.

    Raises:
        ValueError, TypeError: as ``gmm.fit``, or ``ks`` or ``covariances`` empty or with repetitions.
    """
    key = check.check_key(key)
    x = check.check_matrix(x)
    ks = check.check_every_k(ks, x.shape[0])
    covariances = (covariances,) if isinstance(covariances, str) else tuple(covariances)
    for name, values in (("ks", ks), ("covariances", covariances)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name}={list(values)} must be one or more distinct values.")
    check.check_choice("init", init, METHODS)
    check.check_count("n_seeds", n_seeds)
    tol, reg_covar = check_limits(tol, max_steps, reg_covar)
    options = [em_options(covariance, precision, missing) for covariance in covariances]
    prepared = prepare(x, weights, missing=missing or None)
    ridge = ridge_in(prepared.frame, reg_covar)
    shape = (len(ks), n_seeds)
    limits = Limits(tol, max_steps, ridge.value, None)
    statics = [Static(max(ks), init, 1, each, history_capacity(max_steps)) for each in options]
    results = [_of_one_type(static, key, x, prepared, ridge, limits, ks, shape) for static in statics]
    fits = dict(zip(covariances, (fit for fit, _ in results), strict=True))
    log_likelihood = np.stack([mean.reshape(shape) for _, mean in results])
    n = x.shape[0] if weights is None else float(np.sum(np.asarray(weights), dtype=np.float64))
    free = np.array([[n_parameters(name, k, x.shape[1]) for k in ks] for name in covariances])[:, :, None]
    twice = -2 * n * log_likelihood
    return GMMSweep(np.asarray(ks), covariances, fits, log_likelihood, twice + free * np.log(n), twice + 2 * free)


def _of_one_type(static, key, x, prepared, ridge, limits, ks, shape):
    total = shape[0] * shape[1]
    counts, index = np.repeat(np.asarray(ks, np.int32), shape[1]), np.arange(total)
    run = partial(_many_fits, static, total, key, prepared.points, limits)
    found = side_by_side(run, counts, index)
    mean = np.asarray(shifted(found.log_likelihood, found.cells, ridge.cell, prepared.frame, dtype=np.dtype(float)))
    fits = finalize(static.em, found, x, prepared, ridge).fit
    fits = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), fits)
    labels, steps, status = map(jnp.asarray, (fits.labels, fits.steps, fits.status))
    return fits._replace(labels=labels, steps=steps, status=status), mean


@partial(jax.jit, static_argnums=(0, 1))
def _many_fits(static, total, key, points, limits, counts, index):
    """Fits for several (k, start): ``counts`` components take part, and ``index`` says which of ``total`` keys."""

    def one(count, key):
        active = jnp.arange(static.k, dtype=jnp.int32) < count
        return solve(static, key, points, Given(), limits._replace(active=active))

    return many(one, counts, jax.random.split(key, total)[index])

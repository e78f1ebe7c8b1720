"""Rows compared with components in a frame: labels, log-densities and responsibilities, right at any distance.

Nearly all rows are told by one E-step in the precision of the computation. Of concrete rows those that this precision
cannot tell are settled on the host (`jaxcluster.ops.gaussian.far`); in a traced computation they are brought nearer as
far as it takes to keep their squares within the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcluster.cluster.gmm import em
from jaxcluster.cluster.gmm.state import frame_of_mixture, means_on_host, shifted, volume
from jaxcluster.core import check, memory
from jaxcluster.core.fold import map_rows
from jaxcluster.core.frame import Frame, Prepared, prepare, publish
from jaxcluster.core.implicit import with_derivative_of
from jaxcluster.ops.gaussian import Components, far
from jaxcluster.ops.gaussian.covariance_type import LOG_2PI
from jaxcluster.types import Array, Bool, Float, Int, Published

FARTHEST = 38
"""Rows beyond 2³⁸ in a frame are settled on the host: for their sake `prepare` would make all others smaller."""

LONGEST = 56
"""Rows beyond 2⁵⁶ standard deviations are brought back to there in a traced computation: its square, summed over 2¹⁵
columns, is within float32."""


class Compared(NamedTuple):
    """Rows and the components that they are compared with, in one frame.

    Attributes:
        options: of an E-step.
        components: in the frame.
        prepared: the rows.
        x: the rows of the caller.
        remote: numbers of rows that are too far for the frame; None for none, or in a traced computation.
        means: (k, d) of the components, in the caller's coordinates.
    """

    options: em.EMOptions
    components: Components
    prepared: Prepared
    x: Any
    remote: np.ndarray | None
    means: Any

    def labels(self) -> Int[Array, " n"]:
        """The most probable component of each row, the lower index of equals."""
        labels, _, distant = _label(self.options, self.components, self.prepared.points.x)
        labels = self.prepared.trim(labels)
        index, settled = self._settled(distant)
        return labels if settled is None else replaced(labels, index, settled.labels)

    def log_p(self) -> Float[Published, " n"]:
        """The log-density of each row (nats, data units)."""
        _, log_p, distant = _label(self.options, self.components, self.prepared.points.x)
        frame, dtype, cell = self.prepared.frame, self.prepared.dtype, volume(self.prepared.frame)
        public = self.prepared.trim(shifted(log_p, self._cells(cell), cell, frame, dtype=dtype))
        index, settled = self._settled(distant)
        if settled is None:
            return public
        wide = np.array(public, np.float64)
        wide[index] = settled.log_p + cell * (~np.isnan(np.asarray(self.x)[index])).sum(axis=1)
        return publish(wide, dtype)

    def responsibilities(self) -> Float[Published, "n k"]:
        """The probability of each component given each row; in float64 they sum to 1 as closely as that allows."""
        memory.check_table(self.prepared.n, self.means.shape[0], self.prepared.dtype, "the responsibilities")
        r, distant = _responsibilities(self.options, self.components, self.prepared.points.x)
        r = self.prepared.trim(r, axis=0)
        if check.is_traced(r):
            return r
        index, settled = self._settled(distant)
        if settled is None and r.dtype == self.prepared.dtype:
            return r
        wide = np.array(r, self.prepared.dtype)
        if settled is not None:
            wide[index] = settled.responsibilities
        return publish(wide / wide.sum(axis=1, keepdims=True), self.prepared.dtype)

    def _settled(self, distant):
        """Numbers of the rows that the computation could not tell, and what is known of them; or None, None."""
        if check.is_traced(distant, self.components):
            return None, None
        means = means_on_host(self.means, self.prepared.frame)
        return settle(self.options, self.components, self.prepared, self.x, distant, means, self.remote)

    def _cells(self, cell):
        """Observed cells of each row, where it matters how many they are."""
        x = self.prepared.points.x
        if not self.options.missing or (not check.is_traced(cell) and cell == 0):
            return x.shape[1]
        return jnp.sum(~jnp.isnan(x), axis=1, dtype=x.dtype) if check.is_traced(x) else (~np.isnan(x)).sum(axis=1)


def rows_in_frame(
    state: Any, x: Any, weights: Any = None, *, missing: bool = False, frame: Frame | None = None
) -> tuple[Prepared, Any, np.ndarray | None]:
    """(n, d) rows of a caller in the frame in which a mixture is compared with them.

    Args:
        state: with the weights, means and covariances of a mixture.
        x: the rows.
        weights: (n,), or None.
        missing: NaN cells are integrated out.
        frame: of the fit that the mixture is from; None for one about its means.

    Returns:
        The rows in the frame, those of the caller, and the numbers of those that are too far for the frame.

    Raises:
        ValueError, TypeError: wrong shapes or values, or another width than the means have.
    """
    x = check.check_matrix(x)
    check.check_width(x, state.means.shape[1])
    frame = frame_of_mixture(state, frame)
    near, remote = (x, None) if check.is_traced(x, weights, frame) else _without_remote(x, frame)
    return prepare(near, weights, missing=missing or None, frame=frame), x, remote


def settle(
    options: em.EMOptions,
    components: Components,
    prepared: Prepared,
    x: Any,
    distant: Bool[Published, " m"],
    means: np.ndarray,
    remote: np.ndarray | None = None,
) -> tuple[np.ndarray | None, far.FarPosterior | None]:
    """Numbers of the rows that an E-step could not tell, and what components say of them by differences; or None, None.

    Args:
        options: of the E-step.
        components: concrete, in the frame of the rows.
        prepared: the rows.
        x: the rows of the caller.
        distant: rows, padding included, that are far from every component.
        means: of the components, in the frame, in float64: a far row may be its own component.
        remote: numbers of rows that were left out of ``prepared``.
    """
    open_rows = np.zeros(prepared.n, bool)
    if np.any(distant[: prepared.n]):
        open_rows |= np.asarray(distant)[: prepared.n]
        open_rows &= np.asarray(_contested(options, components, prepared.points.x))[: prepared.n]
    if remote is not None:
        open_rows[remote] = True
    index = np.flatnonzero(open_rows)
    if not index.size:
        return None, None
    frame, rows = prepared.frame, np.asarray(x)[index].astype(np.longdouble)
    # ldexp(x, e) − ldexp(origin, e), as means enter: what is equal outside is equal inside.
    origin = np.ldexp(np.asarray(frame.origin).astype(np.longdouble), frame.exponent)
    inside = np.ldexp(rows, frame.exponent) - origin
    return index, far.posterior_by_differences(options.covariance_type, components._replace(means=means), inside)


def replaced(values: Published, index: Any, others: np.ndarray) -> Published:
    """Values with those at some places replaced."""
    out = np.array(values)
    out[index] = others
    return jax.device_put(out)


def distant_rows(options: em.EMOptions, components: Components, log_p: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Rows so far from every component that an E-step may not be able to tell them apart."""
    d = components.means.shape[1]
    limit = far.distance_limit(float(jnp.finfo(log_p.dtype).eps), d)
    if options.missing:
        largest = jnp.max(jnp.abs(components.factor.root))
        most = jnp.max(components.log_weights) + d * jnp.maximum(jnp.log(largest), 0)
    else:
        most = jnp.max(components.log_weights + components.factor.log_det) - d * LOG_2PI / 2
    return ~(most - log_p <= limit)


@partial(jax.jit, static_argnums=0)
def mixture_components(options: em.EMOptions, weights: Array, means: Array, covariances: Array) -> Components:
    """The components of a mixture in a frame."""
    covariances, factor, _ = options.covariance_type.factor(covariances, means.shape[1])
    return Components(em.log_weights(weights), means, covariances, factor)


def _without_remote(x, frame):
    """Rows of which those beyond 2^`FARTHEST` of a frame are at its origin, and the numbers of these; or None."""
    host = np.asarray(x)
    exponent = FARTHEST - int(frame.exponent)
    limit = math.ldexp(1.0, exponent) if exponent < 1024 else math.inf
    origin = np.asarray(frame.origin, np.float64)
    least, most = float(np.fmin.reduce(host, axis=None)), float(np.fmax.reduce(host, axis=None))
    with np.errstate(over="ignore"):
        bound = max(most - origin.min(), origin.max() - least)
    if not (bound > limit and np.isfinite([least, most]).all()):
        return x, None
    with np.errstate(over="ignore"):
        away = np.fmax.reduce(np.abs(host.astype(np.float64) - origin), axis=1) > limit
    return np.where(away[:, None], frame.origin, host), np.flatnonzero(away)


def _nearer(components, x):
    """Rows whose squares are within the dtype, and by what factors they were brought nearer, 1 for nearly all."""
    size = jnp.max(jnp.where(jnp.isnan(x), 0, jnp.abs(x)), axis=1)
    largest = jnp.max(jnp.abs(components.factor.root))
    length = jax.lax.stop_gradient(jnp.maximum(size * 2.0**-LONGEST * jnp.maximum(largest, 1), 1))
    return x / length[:, None], length


@partial(jax.jit, static_argnums=0)
def _label(options, components, x):
    x, length = _nearer(components, x)
    labels, log_p = em.label(options, components, x.T)
    # Of a row brought nearer nothing counts but its squared Mahalanobis distance.
    return labels, log_p * length * length, distant_rows(options, components, log_p)


@partial(jax.jit, static_argnums=0)
def _responsibilities(options, components, x):
    tile = em.em_tile(options, x.shape[0], *components.means.shape)
    x, _ = _nearer(components, x)
    posterior = em.row_posterior(options, components)

    def of_tile(rows):
        log_p, r, _ = posterior(rows.T)
        return r.T, distant_rows(options, components, log_p)

    r, distant = map_in_place(of_tile, x, tile)
    return with_derivative_of(partial(_mapped, options, tile), r, components, x), distant


def _mapped(options, tile, components, x):
    posterior = em.row_posterior(options, components)
    return map_rows(lambda rows: posterior(rows.T).responsibilities.T, x, tile=tile)


def map_in_place(row_function: Callable[[Float[Array, "t d"]], Any], x: Float[Array, "n d"], tile: int) -> Any:
    """``row_function`` of tiles of rows, each written to its place: outputs as large as n×k exist once.

    Results put together of tiles exist twice. The last tile begins where it has as many rows as the others, some of
    them a second time. For values alone: a derivative would keep the output of each tile.
    """
    n = x.shape[0]
    tile = min(tile, n)
    shapes = jax.eval_shape(row_function, jax.ShapeDtypeStruct((tile, x.shape[1]), x.dtype))
    # Zeros that vary over the devices of a mapped axis where the rows do.
    zero = jnp.where(x[0, 0] == 0, 0, 0)
    out = jax.tree.map(lambda leaf: jnp.full((n, *leaf.shape[1:]), zero.astype(leaf.dtype), leaf.dtype), shapes)
    x, out = jax.lax.stop_gradient((x, out))

    def put(index, out):
        start = jnp.minimum(index * tile, n - tile)
        made = row_function(jax.lax.dynamic_slice_in_dim(x, start, tile))
        made = jax.lax.stop_gradient(made)
        return jax.tree.map(lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0), out, made)

    return jax.lax.fori_loop(0, -(-n // tile), put, out)


@partial(jax.jit, static_argnums=0)
def _contested(options, components, x):
    """Rows of which more than one component may have a share, as far as rounded logits tell."""
    logits_of = em.joint(options, components)
    eps = float(jnp.finfo(x.dtype).eps)
    most_of_all = jnp.max(components.log_weights)

    def of_tile(rows):
        logits, _ = logits_of(rows.T)
        most = jnp.max(logits, axis=0)
        slack = 32 * eps * jnp.abs(most_of_all - most) + far.NEGLIGIBLE_LOG_RATIO
        near = jnp.sum((logits >= (most - slack)[None, :]).astype(jnp.int32), axis=0)
        return (near > 1) | ~jnp.isfinite(most)

    return map_rows(of_tile, x, tile=em.em_tile(options, x.shape[0], *components.means.shape))

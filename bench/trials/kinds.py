"""Kinds of trial: the problems of each, and what a method must say of them."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hard_data
import jax
import numpy as np
from hard_data import Problem

from bench.trials.methods import METHODS, SMALLEST, Functional, Method, large_groups

RIGHT, NOT_FINAL, WRONG = "right", "said", "wrong"

ROUNDING = 1e-3
"""Relative error of a number that is published; far above float32's, far below what a wrong label makes."""


class Trial(NamedTuple):
    """One method on one case: `run` gives what is wrong, and whether the method said so."""

    kind: str
    method: str
    case: str
    run: Callable[[], tuple[str, str]]


class Case(NamedTuple):
    """A problem with a name.

    Attributes:
        name: what is unlike ordinary samples.
        problem: the samples.
        weights: of the samples, if they are what is tried.
        overlapping: whether the groups overlap, so that only a method that has an oracle can be held to labels.
        as_float64: whether the oracle is the method itself on the same samples in float64.
    """

    name: str
    problem: Problem
    weights: np.ndarray | None = None
    overlapping: bool = False
    as_float64: bool = False


def plain_blobs(k: int = 3) -> Problem:
    """Blobs so far apart that two of them, taken as one cluster by a method that bisects, lose no sample to another."""
    return hard_data.blobs(k, separation=12.0)


def dtypes() -> Iterator[Case]:
    """Every dtype that holds real numbers."""
    plain = plain_blobs()
    for dtype in (*hard_data.FLOATS, *hard_data.INTEGERS):
        yield Case(np.dtype(dtype).name, hard_data.in_dtype(plain, dtype))
    yield Case("bool", hard_data.bits(), as_float64=True)
    for dtype, offset in ((np.float16, 100), (np.float16, 1000), (hard_data.ml_dtypes.bfloat16, 64)):
        x = (plain.x + offset).astype(dtype)
        yield Case(f"{np.dtype(dtype).name} near {offset}", hard_data.numbered(x, plain.y))
    x = np.float16([[100.0]] * 350 + [[101.0]] * 350)
    yield Case("700 samples of float16", hard_data.numbered(x, np.repeat([0, 1], 350), unit=0.25))
    for dtype in (np.int64, np.uint64):
        whole = hard_data.in_dtype(plain, np.int64)
        x = (whole.x + 10**18).astype(dtype)
        yield Case(f"{np.dtype(dtype).name} near 1e18", Problem(x, whole.y, whole.start + 1e18, whole.unit))


def units() -> Iterator[Case]:
    """Samples in other units."""
    plain = plain_blobs()
    for unit, name in ((2.0**60, "2^60"), (2.0**-60, "2^-60"), (1e30, "1e30"), (1e-30, "1e-30"), (1e100, "1e100")):
        yield Case(f"samples × {name}", hard_data.in_unit(plain, unit))
    for unit, name in ((2.0**60, "2^60"), (2.0**-60, "2^-60"), (1e15, "1e15"), (1e-30, "1e-30")):
        small = hard_data.in_unit(plain, unit)
        yield Case(f"float32 samples × {name}", small._replace(x=small.x.astype(np.float32)))


def weights() -> Iterator[Case]:
    """Sample weights in other units."""
    plain = plain_blobs()
    ones = np.random.default_rng(0).integers(1, 4, len(plain.x)).astype(float)
    for unit, name in ((2.0**100, "2^100"), (1e40, "1e40"), (1e-6, "1e-6"), (1e-40, "1e-40"), (1e-46, "1e-46")):
        yield Case(f"weights × {name}", plain, ones * unit)
    wide = ones * 10.0 ** np.random.default_rng(1).uniform(-6, 6, len(ones))
    yield Case("weights over twelve powers of ten", plain, wide, overlapping=True)


def offsets() -> Iterator[Case]:
    """Samples far from the origin."""
    plain, crowded = plain_blobs(), hard_data.crowded()
    yield Case("float32 + 1e4", hard_data.at(plain, 1e4, np.float32))
    for offset in (1e9, 1e12):
        yield Case(f"float64 + {offset:.0e}", hard_data.at(plain, offset))
    yield Case("float64 + (1e9, 0, −1e6, 1e12)", hard_data.at(plain, np.array([1e9, 0, -1e6, 1e12])))
    yield Case("overlapping, float64 + 1e9", hard_data.at(crowded, 1e9), overlapping=True)
    x = 1e9 + np.array([[0.0], [1.0], [10.0], [11.0]])
    yield Case("four samples of one column + 1e9", hard_data.numbered(x, np.array([0, 0, 1, 1])))


def far_samples() -> Iterator[Case]:
    """One sample far from all others."""
    plain = plain_blobs()
    for distance in hard_data.FAR:
        yield Case(f"{distance:.0e}", hard_data.with_far_sample(plain, distance))
        yield Case(f"{distance:.0e} along one column", hard_data.with_far_sample(plain, distance, place=77, axis=1))
    yield Case("1e6, overlapping", hard_data.with_far_sample(hard_data.crowded(), 1e6), overlapping=True)
    crowded = hard_data.with_far_sample(hard_data.crowded(), 1e9, place=120)
    yield Case("1e9, overlapping", crowded, overlapping=True)
    small = hard_data.with_far_sample(plain, 1e5)
    yield Case("1e5, float32", small._replace(x=small.x.astype(np.float32)))
    offset = hard_data.at(plain, 1e9)
    yield Case("1e12, the others at 1e9", hard_data.with_far_sample(offset, 1e12))


def odd_columns() -> Iterator[Case]:
    """One column unlike the others."""
    return (Case(name, problem) for name, problem in hard_data.odd_columns(plain_blobs()))


def two_far_groups() -> Iterator[Case]:
    """Groups on two sides of a wide gap."""
    plain = plain_blobs(4)
    for distance in (1e3, 1e5):
        yield Case(f"±{distance:.0e}", hard_data.two_far_groups(plain, distance))
        yield Case(f"±{distance:.0e} along one column", hard_data.two_far_groups(plain, distance, axis=2))
    yield Case("±1e9", hard_data.two_far_groups(plain, 1e9))


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "dtype": dtypes,
    "units": units,
    "weights": weights,
    "offset": offsets,
    "far sample": far_samples,
    "odd column": odd_columns,
    "two far groups": two_far_groups,
}


def trials() -> Iterator[Trial]:
    """Every method on every case of every kind that says something of it."""
    for kind, cases in KINDS.items():
        for case in cases():
            for name, method in METHODS.items():
                if kind not in method.exempt and _can_be_tried(method, case):
                    yield Trial(kind, name, case.name, lambda method=method, case=case: attempt(method, case))


def _can_be_tried(method, case):
    problem = case.problem
    if (case.weights is not None and not method.weighted) or not method.only(problem):
        return False
    if (case.overlapping or len(problem.x) <= SMALLEST) and not method.from_start:
        return False
    return not (method.traced and (case.weights is not None or not _float32_holds(problem)))


def _float32_holds(problem):
    """True if float32 resolves the samples as they are given, without an offset subtracted."""
    x = np.asarray(problem.x, np.longdouble)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32).astype(np.longdouble)
    if not 1e-18 < problem.unit < 1e18:  # parameters in squared units are float32 there too
        return False
    return np.isfinite(narrow).all() and np.abs(narrow - x)[large_groups(problem)].max() <= ROUNDING * problem.unit


class NotFinal(Exception):
    """Raised by a check where the method itself says that its result is not final."""


def attempted(check: Callable[[], str]) -> tuple[str, str]:
    """Run a check, which returns a description of the error, or an empty string.

    Returns:
        The verdict, and the description of the error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wrong = check()
        except NotFinal as error:
            return NOT_FINAL, str(error)
        except Exception as error:
            wrong = described(error)
    return (WRONG, wrong) if wrong else (RIGHT, "")


def described(error: Exception) -> str:
    """An exception in a line, with the last place of the package that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/jaxcluster/" in frame.filename]
    place = f" at {frames[-1].filename.rpartition('/jaxcluster/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:200]}"


def attempt(method: Method, case: Case) -> tuple[str, str]:
    """Fit one method to one case and check the result.

    Returns:
        The verdict, and the description of the error.
    """
    problem, options = case.problem, {} if case.weights is None else {"sample_weight": case.weights}
    model = method.make(problem)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if case.as_float64:
                expected = np.array(method.make(problem).fit(problem.x.astype(np.float64)).labels_)
            else:
                expected = method.oracle(problem)
            model.fit(problem.x, **options)
            wrong = next(complaints(method, model, case, expected), "")
        except Exception as error:
            return WRONG, described(error)
    if not wrong:
        return RIGHT, ""
    words = " ".join(str(each.message) for each in caught)
    reported = getattr(getattr(model, "status_", None), "name", "") in ("PRECISION", "NOT_FINITE")
    return (NOT_FINAL, wrong) if reported else (WRONG, wrong + (f" [warned: {words[:120]}]" if words else ""))


def complaints(method: Method, model: Any, case: Case, expected: np.ndarray) -> Iterator[str]:
    """Errors of a fitted model, those of the labels first."""
    problem = case.problem
    labels = np.asarray(model.labels_)
    compared = large_groups(problem) if method.large else np.ones(len(labels), bool)
    if method.exact:
        differ = int((labels != expected)[compared].sum())
        if differ:
            yield f"{differ} of {compared.sum()} labels are not the oracle's: {_sizes(labels)} for {_sizes(expected)}"
    elif not hard_data.same_partition(labels[compared], expected[compared]):
        yield f"another partition: {_sizes(labels[compared])} for {_sizes(expected[compared])}"
    if isinstance(model, Functional):
        return
    if hasattr(model, "predict"):
        differ = int((np.asarray(model.predict(problem.x)) != labels).sum())
        if differ:
            yield f"predict differs from labels_ in {differ} of {len(labels)} samples"
    if hasattr(model, "cluster_centers_"):
        yield from _center_complaints(model, case, labels)
    if hasattr(model, "means_"):
        yield from _mixture_complaints(model, case)


def _center_complaints(model, case, labels):
    problem, weights = case.problem, case.weights
    x, centers = np.asarray(problem.x, np.longdouble), np.asarray(model.cluster_centers_, np.longdouble)
    if hasattr(model, "medoid_indices_"):
        rows = np.asarray(problem.x)[model.medoid_indices_]
        if not np.array_equal(rows.astype(np.longdouble), centers):
            yield "a medoid is not the sample that it is"
        metric = {"manhattan": 1, "minkowski": model.p}.get(model.metric, 2)
        own = lengths(x - centers[labels], metric)
    else:
        own = np.square(x - centers[labels]).sum(axis=1)
    weights = 1 if weights is None else weights
    right = (own * weights).sum()
    # A center far out is rounded to the digits of the computation, and the inertia is told before.
    off = rounding(centers, x)[labels]
    slack = (
        (off * weights).sum() if hasattr(model, "medoid_indices_") else ((2 * np.sqrt(own) + off) * off * weights).sum()
    )
    if not abs(np.longdouble(model.inertia_) - right) <= ROUNDING * right + slack:
        yield f"inertia_ is {model.inertia_:.6g}; by differences it is {float(right):.6g}"
    if hasattr(model, "score"):
        options = {} if case.weights is None else {"sample_weight": case.weights}
        score = model.score(problem.x, **options)
        # Bisecting labels by its tree; some other center may be nearer.
        bisects = hasattr(model, "bisecting_strategy") and -score < model.inertia_
        if not bisects and not abs(np.longdouble(score) + model.inertia_) <= ROUNDING * right + slack:
            yield f"score is {score:.6g}, inertia_ {model.inertia_:.6g}"
    if hasattr(model, "transform"):
        nearest = np.asarray(model.transform(problem.x)).argmin(axis=1)
        others = hasattr(model, "cluster_sizes_") or hasattr(model, "bisecting_strategy")
        if not others and (nearest != labels).any():
            yield f"transform has another nearest center for {int((nearest != labels).sum())} samples"


def rounding(centers: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Largest distance of a center to the mean of its samples by rounding of the computation and of the result."""
    eps = np.finfo(np.float64 if jax.config.jax_enable_x64 else np.float32).eps
    origin = np.median(np.asarray(x, np.float64), axis=0)
    offset = np.sqrt(np.square(np.asarray(centers, np.longdouble) - origin).sum(axis=1))
    length = np.abs(np.asarray(centers, np.longdouble)).max(axis=1) * np.sqrt(x.shape[1])
    return 2 * eps * offset + 2 * np.finfo(np.float64).eps * length


def _mixture_complaints(model, case):
    problem = case.problem
    responsibilities = np.asarray(model.predict_proba(problem.x), float)
    if not np.allclose(responsibilities.sum(axis=1), 1, atol=1e-4):
        yield f"predict_proba sums to {responsibilities.sum(axis=1).min():.3g}"
    if hasattr(model, "bic"):
        options = {} if case.weights is None else {"sample_weight": case.weights}
        right = _log_likelihood(model, problem, case.weights)
        score = model.score(problem.x, **options)
        length = np.spacing(np.abs(np.asarray(problem.x, np.float64)).max())
        if length > 0.1 * problem.unit:  # float64 has no digits left for the means
            return
        # NaN where the dtype of the samples cannot hold their variances.
        if np.isfinite(right) and not abs(score - right) <= 0.01 * max(1, abs(right)):
            yield f"score is {score:.6g}; in float64 the same parameters have {right:.6g}"
        if not abs(score - model.lower_bound_) <= 0.02 * max(1, abs(score)):
            yield f"score is {score:.6g}, lower_bound_ {model.lower_bound_:.6g}"


def _log_likelihood(model, problem, weights):
    """The mean log-likelihood of the samples under the published parameters, in float64 and long double."""
    x, means = np.asarray(problem.x, np.longdouble), np.asarray(model.means_, np.longdouble)
    d, k = x.shape[1], len(means)
    scale = np.longdouble(problem.unit)
    full = np.asarray(model.covariances_, np.longdouble) / scale**2
    full = {
        "full": lambda: full,
        "tied": lambda: np.broadcast_to(full, (k, d, d)),
        "diag": lambda: full[:, :, None] * np.eye(d),
        "spherical": lambda: full[:, None, None] * np.eye(d),
    }[model.covariance_type]()
    logs = np.empty((len(x), k))
    for j in range(k):
        centered = ((x - means[j]) / scale).astype(float)
        values, vectors = np.linalg.eigh(full[j].astype(float))
        if values.min() <= 0:
            return np.nan
        lengths = np.square(centered @ vectors / np.sqrt(values)).sum(axis=1)
        logs[:, j] = np.log(model.weights_[j]) - (lengths + np.log(values).sum() + d * np.log(2 * np.pi)) / 2
    highest = logs.max(axis=1)
    total = highest + np.log(np.exp(logs - highest[:, None]).sum(axis=1))
    return float(np.average(total, weights=weights) - d * np.log(problem.unit))


def lengths(differences: np.ndarray, p: float) -> np.ndarray:
    """Minkowski lengths, the largest coordinate taken out so that no power over- or underflows."""
    largest = np.abs(differences).max(axis=1, keepdims=True)
    unit = np.abs(differences) / np.where(largest > 0, largest, 1)
    if np.isinf(p):
        return largest[:, 0]
    return largest[:, 0] * (unit**p).sum(axis=1) ** (np.longdouble(1) / p)


def _sizes(labels):
    return "/".join(str(count) for count in np.unique(labels, return_counts=True)[1])

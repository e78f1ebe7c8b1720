"""Sweeps over the number of clusters: fits of each method, categories among them, and the result that all give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcluster import gmm, kmeans, kmedoids, model_selection, plots
from jaxcluster.cli.console import complain
from jaxcluster.cli.errors import user_errors
from jaxcluster.cli.score import finite
from jaxcluster.estimators import ESTIMATORS
from jaxcluster.estimators.input_tables import row_bytes
from jaxcluster.report.scores import internal_scores, objective_of, score_info
from jaxcluster.types import Status

if TYPE_CHECKING:
    from jaxcluster.cli.console import Stages
    from jaxcluster.cli.inputs import Rows

SCORES = ("inertia", "silhouette", "davies_bouldin", "calinski_harabasz")
"""Scores of a sweep of k-means."""

LOSS, SILHOUETTE = "sum of distances", "medoid silhouette"
"""Scores of a sweep of k-medoids."""

CRITERIA = {"bic": "BIC", "aic": "AIC"}
"""Criteria that a sweep of mixtures is chosen by; the least one is best."""

CAUSES = {
    Status.MAX_STEPS: "some starts stopped at their limit of steps{}. Raise --max-iter, or --tol.",
    Status.NOT_FINITE: "some starts met numbers that are not finite{}. Pass --scale standard, or raise the "
    "--reg-covar of mixtures.",
    Status.COLLAPSED: "in some starts a component collapsed{}. Take fewer components, or raise --reg-covar.",
    Status.PRECISION: "some rows differ by less than the computation can tell apart{}. Set JAX_ENABLE_X64=1 before the "
    "command, or pass --scale standard.",
}
"""Warning for each status, with a place for the names of the fits."""


class Curve(NamedTuple):
    """A figure of a sweep, not drawn yet: its function, its description, and options of `report.figures.figure`."""

    draw: Callable[..., Any]
    description: str
    options: dict[str, Any]


class Table(NamedTuple):
    """A table of a sweep: title, heads, and lines of a name and its numbers, None for an undefined one."""

    title: str
    heads: Sequence[str]
    lines: Sequence[tuple[str, Sequence[float | None]]]
    caption: str | None = None


class SweepResult(NamedTuple):
    """A finished sweep of any method.

    Attributes:
        ks: numbers of clusters, ascending.
        seeds: starts for each of them.
        lead: a sentence on what was swept, for the report.
        choices: by each rule the chosen k, or k and type of covariance; None where the rule chooses none.
        lines: lines of sweep.csv, all with the same names; None for an undefined score.
        starts: for each line the scores of every start, by name, for sweep.json.
        details: further entries of sweep.json.
        shown: title, heads and lines of the table on the terminal, whose last column is text.
        remarks: sentences on how to read the scores, and on the choices.
        curves: figures of the report.
        tables: tables of the report.
    """

    ks: list[int]
    seeds: int
    lead: str
    choices: dict[str, Any]
    lines: list[dict[str, Any]]
    starts: list[dict[str, list[float | None]]]
    details: dict[str, Any]
    shown: tuple[str, Sequence[str], Sequence[Sequence[Any]]]
    remarks: list[str]
    curves: list[Curve]
    tables: list[Table]

    def to_json(self) -> dict[str, Any]:
        """Choices, and lines with the scores of every start, as sweep.json has them."""
        scores = [line | each for line, each in zip(self.lines, self.starts, strict=True)]
        return {"choices": self.choices, **self.details, "scores": scores}


def sweep_kmeans(
    stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]
) -> SweepResult:
    """k-means for every k and start in one compiled program, chosen by silhouette and by the elbow of the inertia."""
    with stage("fit", f"Fitting k-means {len(ks) * seeds} times to {rows.n:,} rows"), user_errors():
        fits = kmeans.sweep(jax.random.key(seed), rows.x, ks, n_seeds=seeds, weights=rows.weights, **options)
        fits = jax.device_get(fits)
    warn_of_status(fits.status, list(map(str, ks)), ks, rows, before=" for k = ")
    with stage("score", "Scoring"):
        scores = model_selection.score_sweep(rows.x, ks, fits, metric=options.get("metric", "sqeuclidean"))
    objective = "sum of cosine distances" if options.get("metric") == "cosine" else "inertia"
    return kmeans_result(rows.n, ks, seeds, scores, np.asarray(fits.state.inertia), objective)


def kmeans_result(
    n: int, ks: list[int], seeds: int, scores: model_selection.SweepScores, inertias: np.ndarray, objective: str
) -> SweepResult:
    """Result of a sweep of k-means.

    Args:
        n: number of rows.
        ks: numbers of clusters.
        seeds: starts for each of them.
        scores: of the best start of each k.
        inertias: (len(ks), seeds) of all starts.
        objective: name of the inertia.
    """
    by_silhouette = model_selection.choose_k(ks, scores.silhouette) if np.isfinite(scores.silhouette).any() else None
    by_inertia = model_selection.choose_k(ks, scores.inertia, "elbow") if np.isfinite(scores.inertia).any() else None
    choices = {"silhouette": by_silhouette, "elbow": by_inertia}
    lines = [{"k": k, **finite({name: float(getattr(scores, name)[i]) for name in SCORES})} for i, k in enumerate(ks)]
    titles = [score_info(name).title for name in (objective, *SCORES[1:])]
    sampled = min(n, model_selection.SILHOUETTE_SAMPLE)
    drawn = [f"The silhouettes are those of {sampled:,} rows drawn at random."] if sampled < n else []
    elbow = partial(plots.elbow, ks, inertias, name=objective)
    curves = [Curve(elbow, f"{titles[0]} by number of clusters.", {"name": "elbow"})]
    for name in SCORES[1:]:
        values = getattr(scores, name)
        defined = np.isfinite(values)
        if defined.sum() >= 2:
            title, best = score_info(name).title, "min" if name == "davies_bouldin" else "max"
            draw = partial(plots.sweep, np.asarray(ks)[defined], values[defined], name=title, best=best)
            curves.append(Curve(draw, f"{title} by number of clusters.", {"name": name}))
    return SweepResult(
        ks,
        seeds,
        lead=f"k-means with {min(ks)} to {max(ks)} clusters on {n:,} rows, {_starts(seeds)} for each.",
        choices=choices,
        lines=lines,
        starts=[{"inertias": _defined(row)} for row in inertias],
        details={"silhouette_rows": sampled},
        shown=(
            f"k-means on {n:,} rows, {_best_of(seeds)} for each k",
            ["k", *titles, "chosen by"],
            _with_rules(lines, choices),
        ),
        remarks=[*drawn, _kmeans_advice(choices, objective)],
        curves=curves,
        tables=[Table("Scores", ["k", *titles], _named_lines(lines))],
    )


def _kmeans_advice(choices: dict[str, int | None], objective: str) -> str:
    """The choices in a sentence."""
    by_silhouette, by_elbow = choices["silhouette"], choices["elbow"]
    if by_silhouette is None:
        return "No k has 2 or more clusters, so there is no silhouette to choose by."
    if by_silhouette == by_elbow:
        return f"Both rules choose k = {by_silhouette}."
    return f"The silhouette is best at k = {by_silhouette}; {_elbow_words(by_elbow, objective)}."


def _elbow_words(k: int | None, objective: str) -> str:
    return f"the {objective} shows no elbow" if k is None else f"the elbow of the {objective} is at k = {k}"


def _starts(seeds):
    return "one start" if seeds == 1 else f"{seeds} starts"


def _best_of(seeds):
    return _starts(seeds) if seeds == 1 else f"the best of {seeds} starts"


def _with_rules(lines: list[dict[str, Any]], choices: dict[str, int | None]) -> list[list[Any]]:
    """Lines for the terminal, each with the rules that chose its k."""
    rules = [[rule for rule, k in choices.items() if k == line["k"]] for line in lines]
    words = ["both" if len(chosen) == 2 else "".join(chosen) for chosen in rules]
    return [[*line.values(), word] for line, word in zip(lines, words, strict=True)]


def _named_lines(lines: list[dict[str, Any]]) -> list[tuple[str, list[float | None]]]:
    return [(str(k), values) for k, *values in (line.values() for line in lines)]


def sweep_kmedoids(
    stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]
) -> SweepResult:
    """k-medoids for every k in one compiled program and from one matrix of distances, chosen by medoid silhouette.

    The greedy start involves no chance, so that only random ones are tried more than once.
    """
    with stage("fit", f"Fitting k-medoids for {len(ks)} numbers of clusters to {rows.n:,} rows"), user_errors():
        swept = kmedoids.sweep(jax.random.key(seed), rows.x, ks, weights=rows.weights, n_init=seeds, **options)
        loss, status = jax.device_get((swept.fits.state.loss, swept.fits.status))
    # Of several starts only the best one has a status.
    warn_of_status(status[:, None], list(map(str, ks)), ks, rows, before=" for k = ")
    starts = seeds if options.get("init") == "random" else 1
    return kmedoids_result(rows.n, ks, starts, np.asarray(loss), np.asarray(swept.silhouette), swept.k)


def kmedoids_result(
    n: int, ks: list[int], seeds: int, loss: np.ndarray, silhouette: np.ndarray, best: int
) -> SweepResult:
    """Result of a sweep of k-medoids.

    Args:
        n: number of rows.
        ks: numbers of clusters.
        seeds: starts for each of them.
        loss: (len(ks),) Σ w·d(x, medoid).
        silhouette: (len(ks),) the medoid silhouette.
        best: the k at which it is highest.
    """
    each = zip(ks, loss.tolist(), silhouette.tolist(), strict=True)
    lines = [{"k": k, "loss": total, "medoid_silhouette": width} for k, total, width in each]
    elbow = model_selection.elbow(ks, loss)
    start = "a greedy start" if seeds == 1 else f"{seeds} starts"
    curves = [
        Curve(
            partial(plots.sweep, ks, silhouette, name=SILHOUETTE),
            "Medoid silhouette by number of clusters.",
            {"name": "silhouette"},
        ),
        Curve(partial(plots.elbow, ks, loss, name=LOSS), "Sum of distances by number of clusters.", {"name": "loss"}),
    ]
    return SweepResult(
        ks,
        seeds,
        lead=f"k-medoids with {min(ks)} to {max(ks)} clusters on {n:,} rows, {start} for each.",
        choices={"medoid_silhouette": best, "elbow": elbow},
        lines=lines,
        starts=[{} for _ in ks],
        details={},
        shown=(
            f"k-medoids on {n:,} rows",
            ["k", LOSS, SILHOUETTE, "chosen by"],
            _with_rules(lines, {"silhouette": best, "elbow": elbow}),
        ),
        remarks=[f"The {SILHOUETTE} is highest at k = {best}; {_elbow_words(elbow, LOSS)}."],
        curves=curves if len(ks) > 1 else [],
        tables=[Table("Scores", ["k", LOSS, SILHOUETTE], _named_lines(lines))],
    )


def sweep_gmm(stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]) -> SweepResult:
    """Mixtures of Gaussians for every k, type of covariance and start, chosen by BIC."""
    with stage("fit", f"Fitting mixtures of {min(ks)} to {max(ks)} components to {rows.n:,} rows"), user_errors():
        swept = gmm.sweep(jax.random.key(seed), rows.x, ks, n_seeds=seeds, weights=rows.weights, **options)
        statuses = np.concatenate([jax.device_get(swept.fits[name].status) for name in swept.covariances])
    names = [f"k = {k} {name}" for name in swept.covariances for k in ks]
    warn_of_status(statuses, names, list(ks) * len(swept.covariances), rows, before=", with ")
    values = {name: np.asarray(getattr(swept, name), np.float64) for name in (*CRITERIA, "log_likelihood")}
    return gmm_result(rows.n, ks, seeds, tuple(swept.covariances), **values)


def gmm_result(
    n: int,
    ks: list[int],
    seeds: int,
    covariances: tuple[str, ...],
    bic: np.ndarray,
    aic: np.ndarray,
    log_likelihood: np.ndarray,
) -> SweepResult:
    """Result of a sweep of mixtures.

    Args:
        n: number of rows.
        ks: numbers of components.
        seeds: starts for each of them.
        covariances: types of covariance.
        bic, aic, log_likelihood: (len(covariances), len(ks), seeds); what is not finite is undefined.
    """
    by_start = {"bic": bic, "aic": aic, "log_likelihood": log_likelihood}
    # An undefined criterion is infinite, so that it is never the least.
    best = {name: np.where(np.isfinite(by_start[name]), by_start[name], np.inf) for name in CRITERIA}
    # AIC and log-likelihood of a line are those of the start with the least BIC, so that a line is one mixture.
    start = best["bic"].argmin(axis=2)
    best = {name: values.min(axis=2) for name, values in best.items()}
    lines, starts = [], []
    for i, covariance in enumerate(covariances):
        for j, k in enumerate(ks):
            scores = {name: float(values[i, j, start[i, j]]) for name, values in by_start.items()}
            lines.append({"covariance": covariance, "k": k, **finite(scores)})
            starts.append({"bics": _defined(bic[i, j])})
    choices = {name: _least(values, ks, covariances) for name, values in best.items()}
    shown = [[k, *_defined(best["bic"][:, j]), ", ".join(_rules(choices, k))] for j, k in enumerate(ks)]
    curves, tables = [], []
    for name, title in CRITERIA.items():
        if np.isfinite(by_start[name]).any():
            values = dict(zip(covariances, by_start[name], strict=True))
            alt = f"{title} by number of components, a line for each type of covariance."
            draw = partial(plots.information_criteria, ks, values, name=title)
            curves.append(Curve(draw, alt, {"name": name, "height": 4.6}))
        cells = [(str(k), _defined(best[name][:, j])) for j, k in enumerate(ks)]
        tables.append(Table(title, ["k", *covariances], cells, caption=f"{title} by type of covariance"))
    types = ", ".join(covariances)
    return SweepResult(
        ks,
        seeds,
        lead=f"Mixtures of {min(ks)} to {max(ks)} Gaussians on {n:,} rows: {types}; {_starts(seeds)} for each.",
        choices=choices,
        lines=lines,
        starts=starts,
        details={},
        shown=(
            f"BIC of mixtures on {n:,} rows, {_best_of(seeds)} for each",
            ["k", *covariances, "least"],
            shown,
        ),
        remarks=_gmm_advice(choices, ks),
        curves=curves,
        tables=tables,
    )


def _defined(values: np.ndarray) -> list[float | None]:
    """Values for JSON and tables, None for an undefined one."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _least(values: np.ndarray, ks: list[int], covariances: tuple[str, ...]) -> dict[str, Any] | None:
    """The k and type of covariance of the least value, the lesser k of equals; None where none is defined."""
    if not np.isfinite(values).any():
        return None
    # The transpose runs over k first, and argmin takes the first of equals.
    j, i = divmod(int(values.T.argmin()), len(covariances))
    return {"k": ks[j], "covariance": covariances[i], "value": float(values[i, j])}


def _rules(choices: dict[str, dict[str, Any] | None], k: int) -> list[str]:
    """The criteria that chose k, with the type of covariance of each."""
    chosen = {rule: choice for rule, choice in choices.items() if choice is not None and choice["k"] == k}
    return [f"{CRITERIA[rule]} ({choice['covariance']})" for rule, choice in chosen.items()]


def _gmm_advice(choices: dict[str, Any], ks: list[int]) -> list[str]:
    """Sentences on where the criteria are least, and whether that is at the end of the range."""
    if choices["bic"] is None:
        return ["No mixture has a BIC that is a number, so there is nothing to choose by."]
    bic, aic = (f"k = {choice['k']} ({choice['covariance']})" for choice in choices.values())
    least = f"BIC and AIC are least at {bic}" if bic == aic else f"The BIC is least at {bic}, the AIC at {aic}"
    at_end = len(ks) > 1 and choices["bic"]["k"] == max(ks)
    more = [f"k = {max(ks)} is the most that was tried: try more."] if at_end else []
    return [f"{least}. Lower is better.", *more]


def warn_of_status(
    statuses: Any, names: Sequence[str], ks: Sequence[int], rows: Rows, *, before: str = ", with k = "
) -> None:
    """Warn of fits that did not converge, and of clusters left empty.

    Args:
        statuses: (n_fits, seeds).
        names: of the fits.
        ks: number of clusters of each fit.
        rows: of the fits.
        before: words before the names.
    """
    statuses = np.asarray(statuses)
    for status, cause in CAUSES.items():
        hit = [name for name, each in zip(names, statuses, strict=True) if (each == status).any()]
        if hit:
            complain("Warning", cause.format(f"{before}{', '.join(hit)}"), "yellow")
    empty = (statuses == Status.EMPTY_CLUSTERS).any(axis=1)
    if not empty.any():
        return
    x = rows.x if rows.weights is None else rows.x[rows.weights > 0]
    distinct = len(set(row_bytes(x))) if rows.is_sparse else len(np.unique(x, axis=0))
    hit = [(k, name) for k, name, each in zip(ks, names, empty, strict=True) if each]
    few = [name for k, name in hit if k > distinct]
    other = [name for k, name in hit if k <= distinct]
    if few:
        complain("Warning", f"there are fewer distinct rows than clusters for k = {', '.join(few)}.", "yellow")
    if other:
        cause = "though there are enough different rows. Try more --seeds"
        complain("Warning", f"some starts left clusters empty{before}{', '.join(other)}, {cause}.", "yellow")


SWEEPS = {"kmeans": sweep_kmeans, "kmedoids": sweep_kmedoids, "gmm": sweep_gmm}
"""Sweep of each method, by its name in `jaxcluster.estimators.ESTIMATORS`."""


MIXED = ("kmodes", "kprototypes")
"""Methods that take categories whatever their options."""

PARAMETERS = {"init": "init", "max_steps": "max_iter", "tol": "tol", "metric": "metric"}
"""Parameters of the estimators, by the names that the other sweeps have for them."""


def takes_categories(method: str, metric: str | None) -> bool:
    """True for a sweep of rows whose columns may be words."""
    return method in MIXED or (method == "kmedoids" and metric == "gower")


def make(method: str, k: int, seeds: int, seed: int, options: dict[str, Any]) -> Any:
    """The estimator of one number of clusters."""
    options = {PARAMETERS[name]: value for name, value in options.items()}
    return ESTIMATORS[method](n_clusters=k, n_init=seeds, random_state=seed, **options)


def sweep_mixed(
    method: str, stage: Stages, rows: Rows, ks: list[int], seeds: int, seed: int, options: dict[str, Any]
) -> SweepResult:
    """Fits of a method for each k, chosen by the silhouette of its distances and by the elbow of its objective."""
    lines, name, title = [], "", ESTIMATORS.info(method).title.split(":")[0]
    for k in ks:
        with stage("fit", f"Fitting {method} with k = {k} to {rows.n:,} rows"), user_errors():
            estimator = make(method, k, seeds, seed, options).fit(rows.samples, sample_weight=rows.weights)
        with stage("score", "Scoring"):
            x = rows.x if rows.cells is None else estimator.embed(rows.cells)[0]
            silhouette = internal_scores(estimator, x, rows.cells)["silhouette"]
        name = objective_of(estimator, "inertia")
        lines.append({"k": k, **finite({"inertia": float(estimator.inertia_), "silhouette": silhouette})})
    costs = np.array([np.nan if line["inertia"] is None else line["inertia"] for line in lines])
    widths = np.array([np.nan if line["silhouette"] is None else line["silhouette"] for line in lines])
    choices = {
        "silhouette": model_selection.choose_k(ks, widths) if np.isfinite(widths).any() else None,
        "elbow": model_selection.choose_k(ks, costs, "elbow") if np.isfinite(costs).any() else None,
    }
    heads = ["k", score_info(name).title, score_info("silhouette").title]
    shown = [[*line.values(), ", ".join(rule for rule, k in choices.items() if k == line["k"])] for line in lines]
    curves = [
        Curve(partial(plots.elbow, ks, costs, name=name), f"{heads[1]} by number of clusters.", {"name": "elbow"})
    ]
    if np.isfinite(widths).sum() > 1:
        kept = np.isfinite(widths)
        draw = partial(plots.sweep, np.asarray(ks)[kept], widths[kept], name=heads[2])
        curves.append(Curve(draw, "Silhouette by number of clusters.", {"name": "silhouette"}))
    elbow = f"the elbow of the {name} is at k = {choices['elbow']}" if choices["elbow"] else f"the {name} has no elbow"
    best = (
        "no k has a silhouette"
        if choices["silhouette"] is None
        else f"the silhouette is best at k = {choices['silhouette']}"
    )
    return SweepResult(
        ks,
        seeds,
        lead=f"{title} with {min(ks)} to {max(ks)} clusters on {rows.n:,} rows, {_starts(seeds)} for each.",
        choices=choices,
        lines=lines,
        starts=[{} for _ in ks],
        details={},
        shown=(f"{title} on {rows.n:,} rows, {_best_of(seeds)} for each k", [*heads, "chosen by"], shown),
        remarks=[f"{best[0].upper()}{best[1:]}; {elbow}."],
        curves=curves if len(ks) > 1 else [],
        tables=[Table("Scores", heads, [(str(line["k"]), list(line.values())[1:]) for line in lines])],
    )
